//! What the machine did while it was measured: load, clocks, temperature, power, throttling.

use std::collections::BTreeSet;

use super::{
    document::{Block, Table},
    number,
};
use crate::bundle::{Bundle, GpuTelemetry, Telemetry};

/// A table with a row for each value that was read at least once.
pub fn meanwhile(bundle: &Bundle) -> Option<Block> {
    // Each line has the machine's values, whichever target it is of.
    let target = bundle.telemetry.first()?.target.as_str();
    let lines: Vec<&Telemetry> = bundle.telemetry.iter().filter(|line| line.target == target).collect();
    let of = |read: fn(&Telemetry) -> Option<f64>| lines.iter().filter_map(|line| read(line)).collect();
    let mut rows = Vec::new();
    rows.extend(spread("machine busy, % of all cores", of(|line| line.machine_percent)));
    rows.extend(spread("server and runners, % of one core", of(|line| line.cpu_percent)));
    rows.extend(spread("clock of the cores, MHz", of(|line| line.cpu_mhz)));
    rows.extend(spread("hottest sensor of the processor, °C", of(|line| line.cpu_celsius)));
    rows.extend(spread("processor's power, W", of(|line| line.cpu_watts)));
    rows.extend(slowed(&lines));
    let gpus: BTreeSet<u32> = lines.iter().flat_map(|line| &line.gpus).map(|gpu| gpu.index).collect();
    for index in gpus {
        let moments: Vec<&GpuTelemetry> =
            lines.iter().flat_map(|line| &line.gpus).filter(|gpu| gpu.index == index).collect();
        rows.extend(gpu(index, &moments));
    }
    Table::block("The machine meanwhile", &["what", "least", "median", "most"], rows)
}

fn gpu(index: u32, moments: &[&GpuTelemetry]) -> Vec<Vec<String>> {
    let of = |read: fn(&GpuTelemetry) -> Option<f64>| moments.iter().filter_map(|gpu| read(gpu)).collect();
    let name = |what: &str| format!("GPU {index}: {what}");
    let mut rows: Vec<Vec<String>> = [
        spread(&name("busy, %"), of(|gpu| gpu.busy_percent)),
        spread(&name("clock of its multiprocessors, MHz"), of(|gpu| gpu.sm_mhz)),
        spread(&name("clock of its memory, MHz"), of(|gpu| gpu.memory_mhz)),
        spread(&name("temperature, °C"), of(|gpu| gpu.celsius)),
        spread(&name("power, W"), of(|gpu| gpu.watts)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let reasons: Vec<&Vec<String>> = moments.iter().filter_map(|gpu| gpu.throttled.as_ref()).collect();
    if !reasons.is_empty() {
        let held = reasons.iter().filter(|reasons| !reasons.is_empty()).count();
        let names: BTreeSet<&str> =
            reasons.iter().flat_map(|reasons| reasons.iter()).map(String::as_str).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let told = format!("{held} of {} readings {names}", reasons.len());
        rows.push(vec![name("clocks held down"), String::new(), told.trim_end().to_owned(), String::new()]);
    }
    rows
}

/// How often cores were slowed by heat from the first reading to the last.
fn slowed(lines: &[&Telemetry]) -> Option<Vec<String>> {
    let mut counted = lines.iter().filter_map(|line| line.cpu_throttled);
    let first = counted.next()?;
    let times = counted.next_back().unwrap_or(first).saturating_sub(first);
    Some(vec!["cores slowed by heat, times".to_owned(), String::new(), times.to_string(), String::new()])
}

fn spread(what: &str, mut values: Vec<f64>) -> Option<Vec<String>> {
    values.sort_unstable_by(f64::total_cmp);
    let (least, most) = (values.first()?, values.last()?);
    let median = values[values.len() / 2];
    Some(vec![what.to_owned(), number(*least), number(median), number(*most)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_read_has_no_row() {
        assert_eq!(spread("clock", Vec::new()), None);
        let row = spread("clock", vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!(row, ["clock", "1", "2", "3"]);
    }

    #[test]
    fn a_gpu_s_held_clocks_are_counted_with_their_reasons() {
        let moment = |throttled: &[&str]| GpuTelemetry {
            busy_percent: Some(90.0),
            throttled: Some(throttled.iter().map(|&reason| reason.to_owned()).collect()),
            ..GpuTelemetry::default()
        };
        let moments = [moment(&[]), moment(&["power cap"]), moment(&["power cap", "heat"])];
        let rows = gpu(1, &moments.iter().collect::<Vec<_>>());
        assert_eq!(rows[0], ["GPU 1: busy, %", "90", "90", "90"]);
        assert_eq!(rows[1][2], "2 of 3 readings heat, power cap");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn slowdowns_by_heat_are_those_since_the_beginning() {
        let line = |cpu_throttled| Telemetry { cpu_throttled, ..Telemetry::default() };
        let lines = [line(None), line(Some(7)), line(Some(9))];
        assert_eq!(slowed(&lines.iter().collect::<Vec<_>>()).unwrap()[2], "2");
        assert_eq!(slowed(&[]), None);
    }
}
