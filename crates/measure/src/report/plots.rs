//! The drawings of a report.

use super::{
    Input,
    document::Block,
    svg::{Axis, Point, Series, Style, chart, rows},
};
use crate::{
    bundle::{Bundle, Case, CaseKind, Probe},
    metrics,
    summary::{Summary, gaps_ms, samples, ttft_ms},
};

/// Points of a series; of more, so many are shown.
const POINTS: usize = 1500;
const GIB: f64 = (1_u64 << 30) as f64;

/// One target of one session.
struct Side<'a> {
    /// Empty when there is but one.
    name: String,
    bundle: &'a Bundle,
    summary: &'a Summary,
    target: &'a str,
}

impl Side<'_> {
    /// Name of a series about something of this side.
    fn named(&self, what: &str) -> String {
        [what, &self.name].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join(", ")
    }

    fn cases(&self, kinds: &[CaseKind]) -> Vec<&Case> {
        self.bundle.workload.cases.iter().filter(|case| kinds.contains(&case.kind)).collect()
    }

    /// Place, value and interval of a metric in the cases of some kinds.
    fn over(&self, kinds: &[CaseKind], metric: &str, place: fn(&Case) -> u32) -> Vec<Point> {
        let point = |case: &&Case| {
            let figure = self.summary.figure(metric, Some(&case.id), self.target)?;
            Some((f64::from(place(case)), figure.value, figure.low.zip(figure.high)))
        };
        let mut points: Vec<_> = self.cases(kinds).iter().filter_map(point).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    }
}

pub(super) fn plots(input: &Input<'_>) -> Vec<Block> {
    let sides = sides(input);
    let drawn = [
        ("Time to first token: share of requests that were as fast", ttft(&sides)),
        ("Gaps between tokens over the trial", gaps(&sides)),
        ("Memory over the trial", memory(&sides)),
        ("Decode rate behind a context", decode(&sides)),
        ("Throughput over requests at the same time", throughput(&sides)),
        ("Memory bandwidth between samples", probed(&sides, "GB/s", |probe| probe.bandwidth_bytes_per_s)),
        (
            "Compute rate between samples",
            probed(&sides, "10⁹ multiply-adds/s", |probe| probe.compute_macs_per_s),
        ),
        ("Measured (bar) over predicted (dot at 1, with the prediction's interval)", predictions(&sides)),
        ("Questions answered correctly, with Wilson's intervals", quality(&sides)),
    ];
    let drawn =
        drawn.into_iter().filter_map(|(title, svg)| Some(Block::Plot { title: title.to_owned(), svg: svg? }));
    drawn.collect()
}

fn sides<'a>(input: &Input<'a>) -> Vec<Side<'a>> {
    let one = input.sessions.len() == 1;
    let mut sides = Vec::new();
    for (index, (bundle, summary)) in input.sessions.iter().enumerate() {
        let several = bundle.workload.targets.len() > 1;
        for target in &bundle.workload.targets {
            let session = (!one).then(|| format!("session {}", index + 1));
            let server = several.then(|| target.server.clone());
            let name = [session, server].into_iter().flatten().collect::<Vec<_>>().join(", ");
            sides.push(Side { name, bundle, summary, target: &target.id });
        }
    }
    sides
}

const fn axis(label: &'static str) -> Axis {
    Axis { label, log: false, zero: true }
}

const fn log(label: &'static str) -> Axis {
    Axis { label, log: true, zero: false }
}

fn ttft(sides: &[Side<'_>]) -> Option<String> {
    let mut series = Vec::new();
    for side in sides {
        for case in side.cases(&[CaseKind::ColdStart, CaseKind::Warm, CaseKind::PrefixHit]) {
            let found = samples(side.bundle, side.summary, &case.id, side.target);
            let mut times: Vec<f64> = found.iter().filter_map(|request| ttft_ms(request)).collect();
            times.sort_by(f64::total_cmp);
            let count = times.len() as f64;
            let mut points: Vec<_> =
                (1..).zip(&times).map(|(rank, ms)| (*ms, 100.0 * f64::from(rank) / count, None)).collect();
            if let Some(&first) = times.first() {
                points.insert(0, (first, 0.0, None));
            }
            series.push(Series { name: side.named(&case.id), style: Style::Steps, points });
        }
    }
    series.truncate(6);
    chart(log("milliseconds"), axis("% of requests"), &series)
}

fn gaps(sides: &[Side<'_>]) -> Option<String> {
    let series = sides.iter().map(|side| {
        let mut points = Vec::new();
        for request in side.bundle.requests.iter().filter(|request| request.target == side.target) {
            let Some(first_us) = request.client.first_us else { continue };
            let mut at_s = first_us as f64 / 1e6;
            for ms in gaps_ms(request) {
                at_s += ms / 1000.0;
                points.push((at_s, ms, None));
            }
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: side.name.clone(), style: Style::Dots, points: fewer(&points) }
    });
    chart(axis("seconds from the beginning of the trial"), log("gap in ms"), &series.collect::<Vec<_>>())
}

/// Every so many points, and the highest of those between, so that no peak is lost.
fn fewer(points: &[Point]) -> Vec<Point> {
    let step = points.len().div_ceil(POINTS).max(1);
    let highest = |chunk: &[Point]| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    let usual = |chunk: &[Point]| chunk.first().copied();
    // One in eight shows the peak of its stretch: all would make the usual gap look long.
    let pick = |(index, chunk): (usize, &[Point])| {
        if index % 8 == 0 { highest(chunk) } else { usual(chunk) }
    };
    points.chunks(step).enumerate().filter_map(pick).collect()
}

fn memory(sides: &[Side<'_>]) -> Option<String> {
    let mut series = Vec::new();
    for side in sides {
        let lines = side.bundle.telemetry.iter().filter(|line| line.target == side.target);
        let mut host = Vec::new();
        let mut gpus = Vec::new();
        for line in lines {
            let at_s = line.at_us as f64 / 1e6;
            host.extend(line.rss_bytes.map(|bytes| (at_s, bytes as f64 / GIB, None)));
            let used: Option<u64> = line.gpus.iter().map(|gpu| gpu.target_bytes.or(gpu.used_bytes)).sum();
            gpus.extend(used.filter(|_| !line.gpus.is_empty()).map(|bytes| (at_s, bytes as f64 / GIB, None)));
        }
        for (what, points) in [("resident", host), ("on GPUs", gpus)] {
            if !points.is_empty() {
                series.push(Series { name: side.named(what), style: Style::Line, points: peaks(&points) });
            }
        }
    }
    chart(axis("seconds from the beginning of the trial"), axis("GiB"), &series)
}

/// The highest point of each stretch.
fn peaks(points: &[Point]) -> Vec<Point> {
    let step = points.len().div_ceil(POINTS).max(1);
    points.chunks(step).filter_map(|chunk| chunk.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1))).collect()
}

fn decode(sides: &[Side<'_>]) -> Option<String> {
    let kinds = [CaseKind::Warm, CaseKind::Depth];
    let place = |case: &Case| case.depth_tokens + case.prompt_tokens;
    let mut series = Vec::new();
    for side in sides {
        let points = side.over(&kinds, "decode_tokens_per_s", place);
        series.push(Series { name: side.named("measured"), style: Style::Ranges, points });
    }
    if let [side] = sides {
        let predicted = side.summary.predictions.iter().filter(|one| one.metric == "decode_tokens_per_s");
        let mut points: Vec<_> = predicted
            .filter_map(|one| {
                let case =
                    side.bundle.workload.cases.iter().find(|case| Some(&case.id) == one.case.as_ref())?;
                Some((f64::from(place(case)), one.predicted, one.low.zip(one.high)))
            })
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !points.is_empty() {
            series.push(Series { name: "predicted before".to_owned(), style: Style::Ranges, points });
        }
    }
    chart(axis("tokens in the context"), axis("tokens/s"), &series)
}

fn throughput(sides: &[Side<'_>]) -> Option<String> {
    let series = sides.iter().map(|side| {
        let points = side.over(&[CaseKind::Concurrency], "throughput_tokens_per_s", |case| case.concurrency);
        Series { name: side.name.clone(), style: Style::Ranges, points }
    });
    chart(axis("requests at the same time"), axis("tokens/s of all"), &series.collect::<Vec<_>>())
}

/// What was read between samples, in units of 10⁹.
fn probed(sides: &[Side<'_>], unit: &'static str, of: fn(&Probe) -> f64) -> Option<String> {
    let mut series: Vec<Series> = Vec::new();
    for side in sides {
        let points: Vec<_> = side
            .bundle
            .probes
            .iter()
            .map(|probe| (probe.at_us as f64 / 1e6, of(probe) / 1e9, None))
            .collect();
        // Two targets of one session share its probes.
        if series.last().is_none_or(|last| last.points != points) {
            series.push(Series { name: side.name.clone(), style: Style::Ranges, points });
        }
    }
    chart(axis("seconds from the beginning of the trial"), axis(unit), &series)
}

fn predictions(sides: &[Side<'_>]) -> Option<String> {
    let side = sides.first()?;
    let told = side.summary.predictions.iter().filter(|one| one.predicted > 0.0).map(|one| {
        let case = one.case.as_ref().map(|case| format!(" {case}")).unwrap_or_default();
        let range = one.low.zip(one.high).map(|(low, high)| (low / one.predicted, high / one.predicted));
        (format!("{}{case}", one.metric), range, 1.0, one.measured.map(|measured| measured / one.predicted))
    });
    rows(axis("measured over predicted"), &told.collect::<Vec<_>>())
}

fn quality(sides: &[Side<'_>]) -> Option<String> {
    let mut told = Vec::new();
    for side in sides {
        for metric in metrics::METRICS.iter().filter(|metric| metric.name.starts_with("quality_")) {
            let Some(figure) = side.summary.figure(metric.name, None, side.target) else { continue };
            let name = if metric.name == "quality_percent" { "all questions" } else { metric.what };
            told.push((side.named(name), figure.low.zip(figure.high), figure.value, None));
        }
    }
    rows(axis("% correct"), &told)
}
