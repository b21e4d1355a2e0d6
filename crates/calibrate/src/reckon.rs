//! Times of the probe's models → what matrices, layers and attention cost.

use firepot_gguf::TensorType;

use crate::{
    Attention, CalibrateError, DeviceRates, KindRates, KindWork, Rates, Work,
    timed::{Deep, Narrow, Scale, Wide},
};

/// Differences between early and late are attention alone; models with heads of two lengths tell scores and multiplications apart.
/// What the cache of so small a model holds need not come from main memory.
pub fn attention(models: &[Narrow; 2], scale: Scale) -> Result<Attention, CalibrateError> {
    let looked = |model: &Narrow| model.work.attention(scale.long - scale.part);
    let [short, long] = models;
    let longer_s: f64 = models.iter().map(|model| model.late_token_s - model.token_s).sum();
    let multiplications: f64 = models.iter().map(|model| looked(model).macs).sum();
    let decode_s = longer_s.max(0.0) / multiplications;
    let per_score = |model: &Narrow| model.later_s.max(0.0) / f64::from(scale.part) / looked(model).scores;
    let per_head = |model: &Narrow| looked(model).macs / looked(model).scores;
    let slope = (per_score(long) - per_score(short)) / (per_head(long) - per_head(short));
    let mac_s = slope.max(0.0).min(per_score(short) / per_head(short));
    let score_s = per_score(short) - mac_s * per_head(short);
    let found = Attention { decode_s, score_s, mac_s };
    usable(found, |found| found.decode_s.is_finite() && found.score_s.is_finite() && found.mac_s.is_finite())
}

/// b of two equations (matrices · a + the rest · b = time).
fn second((m1, r1, t1): (f64, f64, f64), (m2, r2, t2): (f64, f64, f64)) -> Result<f64, CalibrateError> {
    let found = (t1 * m2 - t2 * m1) / (r1 * m2 - r2 * m1);
    usable(found.max(0.0), |found| found.is_finite())
}

/// A token reads about as much of the deep model as of the wide one, in many more layers.
pub fn layer_s(
    deep: &Deep,
    wide: &Wide,
    attention: Attention,
    kind: TensorType,
    scale: Scale,
) -> Result<f64, CalibrateError> {
    let token = |work: &Work, time: f64| {
        let matrices = matrices(work, kind)?.decode_bytes;
        Ok::<_, CalibrateError>((matrices, work.layers, time - attention.decode(work.attention(scale.part))))
    };
    second(token(&deep.work, deep.token_s)?, token(&wide.work, wide.token_s)?)
}

/// A prompt's token does more in narrow models beside its matrices, and less in the wide one. What a pass takes is little in so long a
/// prompt.
pub fn element_s(
    narrow: [(&[Narrow; 2], Attention); 2],
    (wide, attention): (&Wide, Attention),
    kind: TensorType,
    scale: Scale,
) -> Result<f64, CalibrateError> {
    let prompt = |work: &Work, tokens: u32, time: f64, attention: Attention| {
        let each = time / f64::from(tokens) - attention.prefill(work.attention(scale.part));
        Ok::<_, CalibrateError>((matrices(work, kind)?.prefill_macs, work.elements, each))
    };
    let mut all = (0.0, 0.0, 0.0);
    for (models, attention) in narrow {
        for narrow in models {
            let (macs, elements, each) = prompt(&narrow.work, scale.part, narrow.part_s, attention)?;
            all = (all.0 + macs, all.1 + elements, all.2 + each);
        }
    }
    second(all, prompt(&wide.work, scale.prompts[1], wide.long_s, attention)?)
}

/// What a token reads and computes of matrices of this type.
fn matrices(work: &Work, kind: TensorType) -> Result<&KindWork, CalibrateError> {
    work.kinds.iter().find(|known| known.kind == kind.name).ok_or(CalibrateError::Unusable)
}

/// Share of a wide model's time that matrices take at least; what is subtracted from it is noisy.
const MATRICES_MIN: f64 = 0.75;

/// More tokens than any type's pass takes.
const PASS_MAX: f64 = 64.0;

/// Rates of a type from a wide model's times. What a long prompt takes beyond a short one are its tokens; the rest of the short one is
/// the pass.
pub fn rates(
    wide: &Wide,
    found: &DeviceRates,
    kind: TensorType,
    scale: Scale,
) -> Result<Rates, CalibrateError> {
    let work = &wide.work;
    let (matrices, looked) = (matrices(work, kind)?, work.attention(scale.part));
    let beside_s = work.layers * found.layer_s + found.plain.decode(looked);
    let token_s = (wide.token_s - beside_s).max(wide.token_s * MATRICES_MIN);
    let decode_bytes = matrices.decode_bytes / token_s;
    let once_s = work.layers * found.layer_s + matrices.last_bytes / decode_bytes;
    let each_s = work.elements * found.element_s + found.plain.prefill(looked);
    let multiplied = |tokens: f64, time: f64| (time - once_s - tokens * each_s).max(time * MATRICES_MIN);
    let [short, long] = scale.prompts.map(f64::from);
    let (short_s, long_s) = (multiplied(short, wide.short_s), multiplied(long, wide.long_s));
    let token_s = ((long_s - short_s) / (long - short)).max(long_s / (long + PASS_MAX));
    let pass_tokens = (long_s / token_s - long).max(0.0);
    let prefill_macs = (long * matrices.prefill_macs + pass_tokens * matrices.pass_elements) / long_s;
    usable(Rates { decode_bytes, prefill_macs, pass_tokens }, |rates| {
        let positive = |rate: f64| rate.is_finite() && rate > 0.0;
        positive(rates.decode_bytes) && positive(rates.prefill_macs)
    })
}

/// Times of one second differ by as much from those of the next on a shared machine.
const NOISE: f64 = 1.25;

/// What differs no more than noise was measured twice.
pub fn told_apart(kind: TensorType, mut plain: Rates, mut repacked: Rates, scale: Scale) -> KindRates {
    let same = |plain: f64, repacked: f64| (1.0 / NOISE..=NOISE).contains(&(repacked / plain));
    if same(plain.decode_bytes, repacked.decode_bytes) {
        let decode_bytes = (plain.decode_bytes * repacked.decode_bytes).sqrt();
        (plain, repacked) = (Rates { decode_bytes, ..plain }, Rates { decode_bytes, ..repacked });
    }
    let prompt = |rates: Rates| rates.prefill_macs / (f64::from(scale.prompts[1]) + rates.pass_tokens);
    if same(prompt(plain), prompt(repacked)) {
        let prefill_macs = (plain.prefill_macs * repacked.prefill_macs).sqrt();
        let pass_tokens = f64::midpoint(plain.pass_tokens, repacked.pass_tokens);
        (plain, repacked) =
            (Rates { prefill_macs, pass_tokens, ..plain }, Rates { prefill_macs, pass_tokens, ..repacked });
    }
    KindRates { kind: kind.name.to_owned(), plain, repacked }
}

fn usable<T>(found: T, is: impl Fn(&T) -> bool) -> Result<T, CalibrateError> {
    if is(&found) { Ok(found) } else { Err(CalibrateError::Unusable) }
}
