//! All figures as comma-separated values.

use std::fmt::Write as _;

use super::Input;
use crate::metrics;

/// One line for each figure of each session, and for each that could not be had (RFC 4180).
#[must_use]
pub fn csv(input: &Input<'_>) -> String {
    let mut out =
        String::from("trial,target,case,metric,unit,value,low,high,coverage,samples,absent_because\r\n");
    for (bundle, summary) in input.sessions {
        let trial = quoted(&bundle.trial.id);
        let unit = |metric: &str| metrics::find(metric).map_or("", |metric| metric.unit);
        let end = |end: Option<f64>| end.map(|end| end.to_string()).unwrap_or_default();
        for figure in &summary.figures {
            let case = quoted(figure.case.as_deref().unwrap_or_default());
            let _ = write!(
                out,
                "{trial},{},{case},{},{},{},{},{},{},{},\r\n",
                quoted(&figure.target),
                figure.metric,
                unit(&figure.metric),
                figure.value,
                end(figure.low),
                end(figure.high),
                end(figure.coverage),
                figure.samples
            );
        }
        for absent in &summary.absent {
            let case = quoted(absent.case.as_deref().unwrap_or_default());
            let (target, reason) = (quoted(&absent.target), quoted(&absent.reason));
            let metric = &absent.metric;
            let _ = write!(out, "{trial},{target},{case},{metric},{},,,,,0,{reason}\r\n", unit(metric));
        }
    }
    out
}

fn quoted(text: &str) -> String {
    // A table program takes a cell that begins with one of these for a formula.
    let text = if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
