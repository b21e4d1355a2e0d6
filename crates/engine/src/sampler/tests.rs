//! The whole chain against plain references.

use super::*;

const LOGITS: [f32; 6] = [1.0, 3.0, 2.0, -1.0, 0.5, 2.9];

fn settings(temperature: f32) -> Sampling {
    Sampling { temperature, top_k: 0, top_p: 1.0, seed: Some(5), ..Sampling::default() }
}

fn greedy(settings: Sampling, history: &[TokenId]) -> TokenId {
    let mut sampler = Sampler::new(Sampling { temperature: 0.0, ..settings }, history.to_vec());
    sampler.choose(&LOGITS, 0, None).unwrap()
}

/// How often each token is chosen over many positions.
fn counts(settings: &Sampling, draws: u32) -> [u32; 6] {
    let mut sampler = Sampler::new(settings.clone(), Vec::new());
    let mut counts = [0; 6];
    for position in 0..draws {
        counts[sampler.choose(&LOGITS, position, None).unwrap() as usize] += 1;
    }
    counts
}

/// Allows one set of tokens, whatever came before.
#[derive(Clone)]
struct Only(Vec<TokenId>);

impl Constraint for Only {
    fn mask(&mut self, logits: &mut [f32]) {
        for (id, logit) in logits.iter_mut().enumerate() {
            if !self.0.contains(&(id as TokenId)) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
    fn allows(&mut self, token: TokenId) -> bool {
        self.0.contains(&token)
    }
    fn accept(&mut self, _: TokenId) -> Result<(), ConstraintError> {
        Ok(())
    }
    fn boxed_clone(&self) -> Box<dyn Constraint> {
        Box::new(self.clone())
    }
}

#[test]
fn greedy_takes_the_best() {
    assert_eq!(greedy(settings(0.0), &[]), 1);
}

#[test]
fn bias_and_penalties_move_the_best() {
    let off = settings(0.0);
    assert_eq!(greedy(Sampling { logit_bias: vec![(3, 10.0)], ..off.clone() }, &[]), 3);
    assert_eq!(
        greedy(Sampling { logit_bias: vec![(1, -100.0), (99, 1.0), (-4, 1.0)], ..off.clone() }, &[]),
        5
    );
    assert_eq!(greedy(Sampling { repeat_penalty: 1.2, ..off.clone() }, &[1]), 5);
    assert_eq!(greedy(Sampling { presence_penalty: 0.2, ..off.clone() }, &[1]), 5);
    assert_eq!(greedy(Sampling { frequency_penalty: 0.06, ..off.clone() }, &[1, 1]), 5);
    assert_eq!(greedy(Sampling { frequency_penalty: 0.06, ..off }, &[1]), 1);
}

#[test]
fn penalties_look_only_at_their_window() {
    let settings = Sampling { repeat_penalty: 2.0, repeat_last_n: 2, ..settings(0.0) };
    assert_eq!(greedy(settings.clone(), &[1, 0, 0]), 1);
    assert_eq!(greedy(Sampling { repeat_last_n: -1, ..settings.clone() }, &[1, 0, 0]), 5);
    assert_eq!(greedy(Sampling { repeat_last_n: 0, ..settings }, &[1, 1, 1]), 1);
}

#[test]
fn draws_follow_the_softmax() {
    let draws = 20_000;
    let counts = counts(&settings(1.0), draws);
    let sum: f32 = LOGITS.iter().map(|logit| logit.exp()).sum();
    for (id, count) in counts.iter().enumerate() {
        let expected = f64::from(LOGITS[id].exp() / sum);
        let seen = f64::from(*count) / f64::from(draws);
        assert!((seen - expected).abs() < 0.015, "token {id}: {seen} instead of {expected}");
    }
}

#[test]
fn filters_leave_the_rest_undrawn() {
    let top_k = counts(&Sampling { top_k: 2, ..settings(5.0) }, 500);
    assert_eq!(top_k.iter().filter(|&&count| count > 0).count(), 2);
    let top_p = counts(&Sampling { top_p: 0.5, ..settings(5.0) }, 500);
    assert!(top_p[1] > 0 && top_p[5] > 0 && top_p[3] == 0);
    let min_p = counts(&Sampling { min_p: 0.5, ..settings(5.0) }, 500);
    assert_eq!((min_p[0], min_p[3]), (0, 0));
}

#[test]
fn a_constraint_is_kept_whatever_the_draw() {
    let mut constraint: Box<dyn Constraint> = Box::new(Only(vec![0, 3]));
    let mut sampler = Sampler::new(settings(1.0), Vec::new());
    for position in 0..200 {
        let token = sampler.choose(&LOGITS, position, Some(&mut constraint)).unwrap();
        assert!(token == 0 || token == 3);
    }
    let mut nothing: Box<dyn Constraint> = Box::new(Only(Vec::new()));
    assert_eq!(sampler.choose(&LOGITS, 0, Some(&mut nothing)), Err(SampleError::NoCandidate));
}

#[test]
fn numbers_that_are_none_are_an_error() {
    for temperature in [0.0, 1.0] {
        let mut sampler = Sampler::new(settings(temperature), Vec::new());
        assert_eq!(sampler.choose(&[1.0, f32::NAN], 0, None), Err(SampleError::NotANumber));
    }
}

#[test]
fn log_probabilities_sum_to_one_and_come_best_first() {
    let tokenizer = crate::fake::FakeTokenizer;
    let report = log_probabilities(&LOGITS, 3, 6, &tokenizer);
    let sum: f32 = report.top.iter().map(|rival| rival.logprob.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    assert_eq!(report.top[0].id, 1);
    assert_eq!(report.chosen.id, 3);
    assert!(report.top.windows(2).all(|pair| pair[0].logprob >= pair[1].logprob));
}
