//! Which models of the catalogue a machine deserves.

use firepot_catalogue::{Kind, Model, models};
use firepot_plan::Want;
use firepot_server::pool::FitQuestion;

use crate::fit::{Fit, Place};

/// Tokens per second below which reading along is no pleasure: what the project's own claims ask of a usable model.
pub const USABLE_TOKENS_PER_S: f64 = 10.0;
/// Share of what memory allows that decoding surely reaches: published logs of Qwen2.5-7B on a T4 show 52 % (`Q4_K_M`)
/// to 72 % (`Q8_0`) of the datasheet's bandwidth.
const REACHED: f64 = 0.5;

/// A model of the catalogue on a machine.
#[derive(Debug)]
pub struct Ranked {
    /// The model.
    pub model: &'static Model,
    /// How it fits.
    pub fit: Fit,
}

impl Ranked {
    /// It fits, and its predicted speed is usable; where none is predicted, memory does not forbid a usable one; where no bandwidth is known, what is wholly on GPUs is usable.
    pub fn usable(&self) -> bool {
        let Some(plan) = self.fit.plan.as_ref().filter(|_| self.fit.fits) else { return false };
        let on_gpus = plan.gpu_layers < 0 && plan.host_experts == 0;
        if let Some(speeds) = self.fit.usual_speeds() {
            return speeds.decode.predicted >= USABLE_TOKENS_PER_S;
        }
        self.fit.at_most().map_or(on_gpus, |rate| rate * REACHED >= USABLE_TOKENS_PER_S)
    }
}

/// The whole catalogue in each model's usual mix, the best first: those that memory lets be usable before those that it
/// does not, and these before those that do not fit; then those that think before those that write programs or answer
/// at once; then the larger ones; then the newer ones. No benchmark is believed: size and age are facts.
pub fn rank(place: &Place, want: &Want, question: &FitQuestion) -> Vec<Ranked> {
    let fit = |model: &'static Model| {
        let layout = model.layout(model.usual_quant()).ok()?;
        let fit = Fit::of(model.id.clone(), &layout, place, want).within(question, &layout, place);
        Some(Ranked { model, fit })
    };
    let mut ranked: Vec<Ranked> = models().iter().filter_map(fit).collect();
    let kind = |model: &Model| match model.kind {
        Kind::Reasoning => 0,
        Kind::Coding => 1,
        Kind::Chat => 2,
    };
    ranked.sort_by_cached_key(|ranked| {
        let model = ranked.model;
        // By tenths of a billion, so that models of one size are told apart by age.
        let size = model.shape.parameters() / 100_000_000;
        (!ranked.usable(), !ranked.fit.fits, kind(model), u64::MAX - size, u32::MAX - model.published)
    });
    ranked
}

/// The best model for this machine, unless none is usable.
pub fn best(place: &Place, want: &Want) -> Option<Ranked> {
    rank(place, want, &FitQuestion::default()).into_iter().next().filter(Ranked::usable)
}

impl Ranked {
    /// The model and how it fits, in a line.
    pub fn told(&self) -> String {
        let Self { model, fit } = self;
        let place = fit.place.as_deref().unwrap_or_default();
        let ctx = fit.plan.as_ref().map_or(0, |plan| plan.ctx_per_answer);
        let bound = || fit.at_most().map_or_else(String::new, |rate| format!(", at most {rate:.0} tokens/s"));
        let rate = fit
            .usual_speeds()
            .map_or_else(bound, |speeds| format!(", about {:.0} tokens/s", speeds.decode.predicted));
        format!("{} {} (in {place}, context {ctx} tokens{rate})", model.title, model.usual_quant().name())
    }
}

#[cfg(test)]
mod tests {
    use firepot_catalogue::profile;

    use super::*;

    fn ranked(name: &str) -> Vec<Ranked> {
        rank(&Place::described(profile(name).unwrap()), &Want::default(), &FitQuestion::default())
    }

    #[test]
    fn each_machine_is_offered_a_model_that_it_can_use() {
        for (name, expected) in
            [("kaggle-t4x2", "qwen3-30b-a3b"), ("colab-t4", "gpt-oss-20b"), ("cpu-8gb", "qwen3-1.7b")]
        {
            let ranked = ranked(name);
            assert!(ranked[0].usable(), "{name}");
            assert_eq!(ranked[0].model.id, expected, "{name}");
        }
    }

    #[test]
    fn what_does_not_fit_comes_last_with_its_reason() {
        let ranked = ranked("cpu-8gb");
        let first = ranked.iter().position(|ranked| !ranked.fit.fits).unwrap();
        assert!(ranked[first..].iter().all(|ranked| !ranked.fit.fits && ranked.fit.refused.is_some()));
        assert!(ranked[..first].iter().all(|ranked| ranked.fit.fits));
    }
}
