//! How old the calibration is that a prediction is made from, and whether it still holds.

use std::time::{SystemTime, UNIX_EPOCH};

use firepot_calibrate::DeviceRates;
use serde::Serialize;

/// What a prediction is made from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Basis {
    /// Seconds since it was measured.
    pub age_s: u64,
    /// Bytes per second at which memory was read then.
    pub bandwidth_then: f64,
    /// And is read now; absent where nobody looked, as on GPUs.
    pub bandwidth_now: Option<f64>,
    /// Whether these are near enough to each other; `true` where nobody looked.
    pub holds: bool,
}

impl Basis {
    /// Of what was measured of a device whose memory is read at this rate now.
    pub fn of(device: &DeviceRates, bandwidth_now: Option<f64>) -> Self {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self {
            age_s: now_s.saturating_sub(device.taken_at_s),
            bandwidth_then: device.bandwidth,
            bandwidth_now,
            holds: bandwidth_now.is_none_or(|now| device.holds(now)),
        }
    }

    /// In words, with what can be done where it does not hold.
    pub fn told(&self) -> String {
        let age = age(self.age_s);
        let giga = |rate: f64| format!("{:.1} GB/s", rate / 1e9);
        match self.bandwidth_now.filter(|_| !self.holds) {
            None => format!("The calibration is {age} old."),
            Some(now) => format!(
                "The calibration is {age} old and does not hold now: memory is read at {}, and was at {}.\nhint: firepot calibrate --again",
                giga(now),
                giga(self.bandwidth_then)
            ),
        }
    }
}

fn age(seconds: u64) -> String {
    let counted = |count: u64, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
    match seconds {
        0..60 => counted(seconds, "second"),
        60..3600 => counted(seconds / 60, "minute"),
        3600..86_400 => counted(seconds / 3600, "hour"),
        _ => counted(seconds / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use firepot_calibrate::{Attention, Threads};

    use super::*;

    #[test]
    fn a_prediction_says_how_old_its_calibration_is_and_when_it_does_not_hold() {
        let attention = Attention { decode_s: 0.0, score_s: 0.0, mac_s: 0.0 };
        let device = DeviceRates {
            taken_at_s: 0,
            threads: Threads::both(2),
            bandwidth: 30e9,
            kinds: Vec::new(),
            layer_s: 0.0,
            element_s: 0.0,
            plain: attention,
            flash: attention,
        };
        let told = |now, age_s| Basis { age_s, ..Basis::of(&device, now) }.told();
        assert_eq!(told(Some(28e9), 1), "The calibration is 1 second old.");
        assert_eq!(told(None, 150), "The calibration is 2 minutes old.");
        assert_eq!(
            told(Some(20e9), 3600),
            "The calibration is 1 hour old and does not hold now: memory is read at 20.0 GB/s, and was at 30.0 GB/s.\n\
             hint: firepot calibrate --again"
        );
        assert!(told(Some(40e9), 200_000).starts_with("The calibration is 2 days old and does not hold"));
    }
}
