//! Clocks of the processor.

use serde::{Deserialize, Serialize};

use crate::{Reading, tree::Tree};

/// Clocks of the first core. Virtual machines mostly show none but the nominal one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frequency {
    /// What it always reaches: the kernel's `base_frequency`, else what the model's name says (`@ 2.00GHz`).
    pub base_mhz: Reading<u32>,
    /// What it reaches at best (`cpuinfo_max_freq`).
    pub max_mhz: Reading<u32>,
    /// What it ran at when it was looked at. A virtual machine repeats its nominal clock here.
    pub now_mhz: Reading<u32>,
    /// Who chooses the clock: `performance`, `powersave`, `schedutil`.
    pub governor: Reading<String>,
}

const CPUFREQ: &str = "/sys/devices/system/cpu/cpu0/cpufreq";

impl Frequency {
    pub(crate) fn probe(tree: &Tree, nominal_mhz: Option<u32>, now_mhz: Reading<u32>) -> Self {
        let clock = |name: &str| -> Reading<u32> {
            let path = format!("{CPUFREQ}/{name}");
            tree.text(&path)
                .and_then(|text| khz(&text).ok_or_else(|| format!("{path} holds {text:?}")))
                .into()
        };
        let base_mhz = clock("base_frequency");
        Self {
            base_mhz: if base_mhz.known().is_none() {
                nominal_mhz.map_or(base_mhz, Reading::Known)
            } else {
                base_mhz
            },
            max_mhz: clock("cpuinfo_max_freq"),
            now_mhz,
            governor: tree
                .text(&format!("{CPUFREQ}/scaling_governor"))
                .map(|text| text.trim().to_owned())
                .into(),
        }
    }

    pub(crate) fn unread(reason: &str, now_mhz: Reading<u32>) -> Self {
        Self {
            base_mhz: Reading::absent(reason),
            max_mhz: Reading::absent(reason),
            now_mhz,
            governor: Reading::absent(reason),
        }
    }
}

/// The clock in a model's name: 2000 for `Intel(R) Xeon(R) CPU @ 2.00GHz`.
pub fn nominal_mhz(model: &str) -> Option<u32> {
    let (_, clock) = model.rsplit_once('@')?;
    let (whole, part) = clock.trim().strip_suffix("GHz")?.split_once('.')?;
    let hundredths: u32 = part.get(..2).filter(|_| part.len() == 2)?.parse().ok()?;
    let mhz = whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(hundredths.checked_mul(10)?)?;
    (mhz > 0).then_some(mhz)
}

/// Kilohertz in a file of `/sys`, as MHz.
fn khz(text: &str) -> Option<u32> {
    text.trim().parse::<u32>().ok().map(|khz| khz / 1000).filter(|&mhz| mhz > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::fake::FakeTree;

    fn probe(files: &[(&str, &str)], model: &str) -> Frequency {
        Frequency::probe(&FakeTree::new(files).tree(), nominal_mhz(model), Reading::absent("not looked at"))
    }

    #[test]
    fn a_laptop_says_all() {
        let files = [
            ("sys/devices/system/cpu/cpu0/cpufreq/base_frequency", "2400000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "4200000\n"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
        ];
        let found = probe(&files, "11th Gen Intel(R) Core(TM) i5-1135G7 @ 2.50GHz");
        assert_eq!((found.base_mhz, found.max_mhz), (Reading::Known(2400), Reading::Known(4200)));
        assert_eq!(found.governor, Reading::Known("powersave".to_owned()));
    }

    #[test]
    fn a_notebook_has_only_the_clock_in_its_name() {
        let found = probe(&[], "Intel(R) Xeon(R) CPU @ 2.00GHz");
        assert_eq!(found.base_mhz, Reading::Known(2000));
        assert!(found.max_mhz.reason().unwrap().contains("cpuinfo_max_freq: No such file"));
        assert!(found.governor.reason().unwrap().contains("scaling_governor: No such file"));
        assert!(probe(&[], "AMD EPYC 7B13").base_mhz.reason().unwrap().contains("base_frequency"));
    }

    #[test]
    fn a_clock_of_zero_is_no_clock() {
        let found = probe(&[("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "0\n")], "");
        assert!(found.max_mhz.reason().unwrap().ends_with(r#"holds "0\n""#));
        assert_eq!(nominal_mhz("CPU @ 0.00GHz"), None);
    }

    proptest! {
        #[test]
        fn any_name_is_read(model in "[ -~]{0,20}@ ?[0-9.]{0,12}(GHz)?é?") {
            prop_assert!(nominal_mhz(&model) != Some(0));
        }
    }
}
