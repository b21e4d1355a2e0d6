//! How many threads compute.

use firepot_machine::Cpu;

use crate::{
    Fastest, PlanError, Want,
    error::in_range,
    limits::{THREADS_MAX, THREADS_UNKNOWN},
};

/// The decision, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Threads {
    pub decode: u32,
    pub decode_why: String,
    pub prefill: u32,
    pub prefill_why: String,
}

impl Threads {
    /// What was asked for; else what was measured to be fastest; else one for each core.
    pub fn of(cpu: &Cpu, want: &Want) -> Result<Self, PlanError> {
        let asked = want.threads.map(|threads| in_range("threads", threads, 1, THREADS_MAX)).transpose()?;
        let (usual, why) = asked.map_or_else(|| cores(cpu), |threads| (threads, "asked for".to_owned()));
        let as_usual = Fastest { threads: usual, threads_batch: usual, gains: None };
        let found = want.fastest.filter(|_| asked.is_none()).unwrap_or(as_usual);
        let [decode, prefill] = [found.threads, found.threads_batch].map(at_most);
        let faster = || format!("measured here: faster than {usual}, {why}");
        let reason = |threads| if threads == usual { why.clone() } else { faster() };
        let decode_why = reason(decode);
        let prefill_why = if prefill == decode { "as for decode".to_owned() } else { reason(prefill) };
        Ok(Self { decode, decode_why, prefill, prefill_why })
    }
}

/// Threads that a model gets when nobody asks for others and none were measured.
#[must_use]
pub fn threads(cpu: &Cpu) -> u32 {
    cores(cpu).0
}

/// Other numbers that may be faster: all logical cores where two share a physical one, and half of the usual, which leaves more of a
/// narrow memory to each. Of two cores neither is spared: one is faster than both only while another program has the other.
#[must_use]
pub fn other_threads(cpu: &Cpu) -> Vec<u32> {
    let usual = threads(cpu);
    let all = allowed(cpu).map(at_most).filter(|&all| all > usual);
    all.into_iter().chain((usual > 2).then_some(usual / 2)).collect()
}

/// One thread for each core that may be used. Two on one physical core compete for its vector units.
fn cores(cpu: &Cpu) -> (u32, String) {
    let physical = cpu.cores_physical.known().copied();
    match (allowed(cpu), physical) {
        (Some(allowed), Some(physical)) if physical < allowed => {
            (at_most(physical), format!("physical cores below the {allowed} logical ones that may be used"))
        }
        (Some(allowed), _) => (at_most(allowed), "cores that this process may use".to_owned()),
        (None, _) => (THREADS_UNKNOWN, "the cores cannot be counted; a careful default".to_owned()),
    }
}

fn allowed(cpu: &Cpu) -> Option<u32> {
    cpu.cores_allowed.known().or(cpu.cores_logical.known()).copied()
}

fn at_most(cores: u32) -> u32 {
    cores.clamp(1, THREADS_MAX)
}

#[cfg(test)]
mod tests {
    use firepot_machine::Reading;

    use super::*;

    fn cpu(allowed: u32, physical: u32) -> Cpu {
        Cpu { cores_physical: Reading::Known(physical), ..Cpu::of(allowed, &[]) }
    }

    #[test]
    fn other_numbers_are_all_logical_cores_and_half_of_the_usual() {
        assert_eq!(other_threads(&cpu(16, 8)), [16, 4]);
        assert_eq!(other_threads(&cpu(8, 8)), [4]);
        assert_eq!(other_threads(&cpu(3, 3)), [1]);
        // A quota of fewer cores than there are.
        assert_eq!(other_threads(&cpu(4, 16)), [2]);
        assert_eq!(other_threads(&cpu(2, 1)), [2]);
        for few in [1, 2] {
            assert!(other_threads(&cpu(few, few)).is_empty());
        }
    }

    #[test]
    fn what_was_measured_to_be_fastest_is_taken_unless_another_number_is_asked_for() {
        let fastest = Some(Fastest { threads: 4, threads_batch: 16, gains: None });
        let want = Want { fastest, ..Want::default() };
        let found = Threads::of(&cpu(16, 8), &want).unwrap();
        assert_eq!((found.decode, found.prefill), (4, 16));
        for why in [&found.decode_why, &found.prefill_why] {
            assert_eq!(
                why,
                "measured here: faster than 8, physical cores below the 16 logical ones that may be used"
            );
        }
        let same = Some(Fastest { threads: 8, threads_batch: 8, gains: None });
        let same = Threads::of(&cpu(16, 8), &Want { fastest: same, ..Want::default() }).unwrap();
        assert_eq!(same, Threads::of(&cpu(16, 8), &Want::default()).unwrap());
        let asked = Threads::of(&cpu(16, 8), &Want { threads: Some(3), ..want }).unwrap();
        assert_eq!((asked.decode, asked.prefill, asked.decode_why.as_str()), (3, 3, "asked for"));
    }
}
