//! Whether a model fits a machine, how, and what would change that.

use std::sync::OnceLock;

use firepot_calibrate::{Calibration, Correction, Observed, On, Speeds, Way, Work};
use firepot_catalogue::{Profile, UnknownProfile, profile};
use firepot_gguf::Layout;
use firepot_machine::Machine;
use firepot_plan::{
    Explanation, GpuUse, Plan, Want, bytes_per_token, decode_at_most, explain, plan, threads,
};
use firepot_server::pool::{FitQuestion, PlanFailure};
use serde::Serialize;

use crate::{basis::Basis, calibrated, planner::LocalPlanner};

/// What this machine is called beside machines that are described.
const THIS_MACHINE: &str = "this machine";

/// A machine that models are fitted to.
#[derive(Debug)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// What it is.
    pub machine: Machine,
    /// Whether its GPUs may be used.
    pub gpu: GpuUse,
    profile: Option<&'static Profile>,
    bandwidth: OnceLock<f64>,
    measured: Option<(Calibration, Observed)>,
}

impl Place {
    /// This machine, as it is now, with the GPUs that plans may use.
    pub fn here(planner: &LocalPlanner) -> Self {
        let (machine, _) = planner.for_plans();
        let calibration = calibrated::read(&planner.home, &machine);
        Self {
            name: THIS_MACHINE.to_owned(),
            measured: calibration.map(|found| (found, calibrated::observed(&planner.home, &machine))),
            machine,
            gpu: planner.gpu,
            profile: None,
            bandwidth: OnceLock::new(),
        }
    }

    /// The machine of this name; without one, this machine.
    pub fn of(planner: &LocalPlanner, name: Option<&str>) -> Result<Self, UnknownProfile> {
        name.map_or_else(|| Ok(Self::here(planner)), |name| profile(name).map(Self::described))
    }

    /// What is wished of a load here.
    pub fn want(&self, load: &Want, question: &FitQuestion) -> Want {
        Want { gpu: self.gpu, ctx_min: question.ctx_min, think_tokens: question.think_tokens, ..*load }
    }

    /// A machine that is described; a build for its GPUs is taken for granted.
    pub fn described(profile: &'static Profile) -> Self {
        Self {
            name: profile.name.clone(),
            machine: profile.machine(),
            gpu: GpuUse::Auto,
            profile: Some(profile),
            bandwidth: OnceLock::new(),
            measured: None,
        }
    }

    /// Predicted speeds after a prompt of so many tokens, corrected by what answers took.
    pub fn speeds(&self, layout: &Layout, plan: &Plan, prompt_tokens: u32) -> Result<Speeds, String> {
        let Some((calibration, observed)) = &self.measured else {
            let why = if self.profile.is_some() {
                "a machine that is only described cannot be measured"
            } else {
                "this machine was not measured yet: firepot calibrate"
            };
            return Err(why.to_owned());
        };
        let work = Work::of(layout);
        calibration.predict(&work, plan, prompt_tokens, observed.correction(&work))
    }

    /// By which calibration speeds of a plan are predicted.
    fn basis(&self, plan: &Plan) -> Option<Basis> {
        let way = Way::of(plan).ok()?;
        let device = self.measured.as_ref()?.0.device(way.on).ok()?;
        let now = matches!(way.on, On::Cpu(_)).then(|| self.bandwidth(None)).flatten();
        Some(Basis::of(device, now))
    }

    /// Bytes per second at which a device's memory can be read: of a profile, by datasheet; here main memory, measured
    /// once, in about a tenth of a second.
    fn bandwidth(&self, gpu: Option<usize>) -> Option<f64> {
        const GB: f64 = 1e9;
        match (self.profile, gpu) {
            (Some(profile), Some(gpu)) => profile.gpu_bandwidth(gpu).map(|rate| f64::from(rate) * GB),
            (Some(profile), None) => profile.bandwidth.map(|rate| f64::from(rate) * GB),
            (None, Some(_)) => None,
            (None, None) => {
                // As a calibration reads it, which is compared with this.
                let threads = threads(&self.machine.cpu) as usize;
                Some(*self.bandwidth.get_or_init(|| firepot_measure::read_bandwidth(threads)))
            }
        }
    }

    const fn bandwidth_source(&self) -> &'static str {
        match self.profile {
            Some(_) => "the datasheets' bandwidth",
            None => "the bandwidth of main memory, measured just now",
        }
    }
}

/// How a model goes with a machine.
#[derive(Debug, Serialize)]
pub struct Fit {
    /// As it was named.
    pub model: String,
    /// Which machine.
    pub machine: String,
    /// Whether it can be loaded.
    pub fits: bool,
    /// Where it would be, in words.
    pub place: Option<String>,
    /// How it would be loaded; its memory is predicted.
    pub plan: Option<Plan>,
    /// What memory allows one answer at best.
    pub decode: Option<Decode>,
    /// Predicted speeds after prompts of several lengths; absent without a calibration of this machine.
    pub speeds: Option<Vec<Speeds>>,
    /// Why there are none.
    pub speeds_absent: Option<String>,
    /// By which calibration they are predicted, and whether it still holds.
    pub calibration: Option<Basis>,
    /// By what answers of models of the same shape took, predicted speeds were corrected; absent where none did.
    pub correction: Option<Correction>,
    /// What limits it.
    pub explanation: Option<Explanation>,
    /// Why it does not fit.
    pub refused: Option<Refused>,
}

/// A bound, not a prediction: nothing computes faster than its weights are read.
#[derive(Debug, Serialize)]
pub struct Decode {
    /// Tokens per second of one answer, at most; absent with the reason.
    pub tokens_per_s_at_most: Option<f64>,
    /// By what, or why there is none.
    pub by: String,
}

/// Why a model does not fit.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Why.
    pub message: String,
    /// The nearest thing that fits, or what else can be done.
    pub hint: Option<String>,
}

impl Fit {
    /// Plans `model` for a machine.
    pub fn of(model: String, layout: &Layout, place: &Place, want: &Want) -> Self {
        let fastest = place.measured.as_ref().and_then(|(found, _)| found.fastest(&Work::of(layout)));
        let want = &Want { fastest, ..*want };
        match plan(layout, &place.machine, want) {
            Ok(plan) => Self {
                model,
                machine: place.name.clone(),
                fits: true,
                place: Some(where_it_is(&plan, &place.machine)),
                decode: Some(decode(layout, &plan, place)),
                speeds: speeds(layout, &plan, place).ok(),
                speeds_absent: speeds(layout, &plan, place).err(),
                calibration: place.basis(&plan),
                correction: correction(layout, &plan, place),
                explanation: Some(explain(layout, &place.machine, want, &plan)),
                plan: Some(plan),
                refused: None,
            },
            Err(error) => {
                let refused = Refused { message: error.to_string(), hint: Some(error.hint()) };
                Self::refused(model, &place.name, refused)
            }
        }
    }

    /// A model that cannot be planned at all.
    pub fn unread(model: String, place: &Place, failure: PlanFailure) -> Self {
        Self::refused(model, &place.name, Refused { message: failure.message, hint: failure.hint })
    }

    fn refused(model: String, machine: &str, refused: Refused) -> Self {
        Self {
            model,
            machine: machine.to_owned(),
            fits: false,
            place: None,
            plan: None,
            decode: None,
            speeds: None,
            speeds_absent: None,
            calibration: None,
            correction: None,
            explanation: None,
            refused: Some(refused),
        }
    }

    /// The same, refused where nine of ten first tokens are not to come in the time that was asked for.
    #[must_use]
    pub fn within(self, question: &FitQuestion, layout: &Layout, place: &Place) -> Self {
        let plan = self.plan.as_ref().filter(|_| self.fits);
        let Some((plan, asked)) = plan.zip(FirstToken::of(question)) else { return self };
        let refused = first_token_too_late(asked, |tokens| Ok(place.speeds(layout, plan, tokens)?.ttft.high));
        Self { fits: refused.is_none(), refused, ..self }
    }

    /// Predicted speeds after a usual prompt.
    pub fn usual_speeds(&self) -> Option<&Speeds> {
        let speeds = self.speeds.as_ref()?;
        speeds.iter().find(|speeds| speeds.prompt_tokens == PROMPT).or(speeds.last())
    }

    /// Tokens per second at most, where that is known.
    pub fn at_most(&self) -> Option<f64> {
        self.decode.as_ref()?.tokens_per_s_at_most
    }
}

fn decode(layout: &Layout, plan: &Plan, place: &Place) -> Decode {
    let bound = decode_at_most(&bytes_per_token(layout, plan), |device| place.bandwidth(device));
    let by = match (bound, &place.profile) {
        (Some(_), _) => place.bandwidth_source().to_owned(),
        (None, Some(_)) => "the profile gives no bandwidth of main memory".to_owned(),
        (None, None) => "the bandwidth of this machine's GPUs is not measured".to_owned(),
    };
    Decode { tokens_per_s_at_most: bound, by }
}

/// Prompts after which speeds are predicted, in tokens.
const PROMPTS: [u32; 7] = [128, 512, 1024, 2048, 8192, 16_384, 32_768];
/// The usual one.
pub const PROMPT: u32 = 512;

fn speeds(layout: &Layout, plan: &Plan, place: &Place) -> Result<Vec<Speeds>, String> {
    let prompts = PROMPTS.into_iter().filter(|&tokens| tokens < plan.ctx_per_answer);
    prompts.map(|tokens| place.speeds(layout, plan, tokens)).collect()
}

/// Answers were compared with predictions from main memory alone.
fn correction(layout: &Layout, plan: &Plan, place: &Place) -> Option<Correction> {
    if plan.gpu_layers != 0 {
        return None;
    }
    let correction = place.measured.as_ref()?.1.correction(&Work::of(layout));
    (correction.answers > 0).then_some(correction)
}

/// A wish: how soon the first token of an answer is to come.
#[derive(Clone, Copy, Debug, PartialEq)]
struct FirstToken {
    seconds: f64,
    prompt_tokens: u32,
}

impl FirstToken {
    fn of(question: &FitQuestion) -> Option<Self> {
        let prompt_tokens = question.prompt_tokens.unwrap_or(PROMPT);
        Some(Self { seconds: question.ttft_s?, prompt_tokens })
    }
}

/// Why a first token does not come in time. `high` is the upper end of the interval for a prompt of so many tokens.
fn first_token_too_late(asked: FirstToken, high: impl Fn(u32) -> Result<f64, String>) -> Option<Refused> {
    let FirstToken { seconds, prompt_tokens } = asked;
    let late = match high(prompt_tokens) {
        Ok(late) if late <= seconds => return None,
        Ok(late) => late,
        Err(why) => {
            let message = format!("nobody can say whether its first token comes within {seconds} s: {why}");
            return Some(Refused { message, hint: None });
        }
    };
    let in_time = |tokens: u32| high(tokens).is_ok_and(|late| late <= seconds);
    // Longer prompts never come sooner.
    let (mut in_time_at, mut late_at) = (0, prompt_tokens);
    while late_at - in_time_at > 1 {
        let middle = in_time_at.midpoint(late_at);
        if in_time(middle) { in_time_at = middle } else { late_at = middle }
    }
    let message = format!(
        "after a prompt of {prompt_tokens} tokens its first token is predicted to take up to {late:.1} s, not {seconds} s"
    );
    let hint = match in_time_at {
        0 => "no prompt is short enough for that; a smaller model may do".to_owned(),
        tokens => format!("prompts of up to {tokens} tokens get theirs in time"),
    };
    Some(Refused { message, hint: Some(hint) })
}

fn where_it_is(plan: &Plan, machine: &Machine) -> String {
    let Some(&first) = plan.gpus.first() else { return "main memory".to_owned() };
    let name = machine.gpus.devices.get(first).map_or("GPU", |gpu| gpu.name.as_str());
    let count = plan.gpus.len();
    let gpus = if count > 1 { format!("{count} × {name}") } else { name.to_owned() };
    match (plan.replicas, plan.gpu_layers, plan.host_experts) {
        (2.., ..) => format!("each of {gpus}"),
        (_, -1, 0) => gpus,
        (_, -1, _) => format!("{gpus}, experts in main memory"),
        (_, layers, _) => format!("{gpus} ({layers} layers), main memory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_token_that_comes_too_late_is_refused_with_the_longest_prompt_in_time() {
        let linear = |tokens: u32| Ok(0.1 + f64::from(tokens) / 100.0);
        let asked = |seconds, prompt_tokens| FirstToken { seconds, prompt_tokens };
        assert!(first_token_too_late(asked(5.2, 500), linear).is_none());
        let refused = first_token_too_late(asked(2.1, 500), linear).unwrap();
        assert_eq!(
            refused.message,
            "after a prompt of 500 tokens its first token is predicted to take up to 5.1 s, not 2.1 s"
        );
        assert_eq!(refused.hint.unwrap(), "prompts of up to 200 tokens get theirs in time");
        let never = first_token_too_late(asked(0.05, 500), linear).unwrap();
        assert!(never.hint.unwrap().starts_with("no prompt is short enough"));
        let unknown = first_token_too_late(asked(2.0, 500), |_| Err("not measured".to_owned())).unwrap();
        assert!(unknown.message.ends_with("not measured"));
    }
}
