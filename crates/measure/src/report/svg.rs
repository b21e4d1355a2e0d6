//! Drawings. Colours and fonts come from the page's style, so that one drawing is right on paper, in the dark and in the light; that is why
//! no library draws them, which would write both into each element.

use std::fmt::Write as _;

use super::{html::escape, number};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 42.0;
/// Ticks that an axis has, about.
const TICKS: f64 = 5.0;

/// What one axis shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// Its quantity and unit.
    pub label: &'static str,
    /// Powers of ten at equal distances.
    pub log: bool,
    /// Begins at 0 (not of logarithmic ones).
    pub zero: bool,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// A line.
    Line,
    /// A line with a dot and, where there is one, an interval at each point.
    Ranges,
    /// Dots, many of them.
    Dots,
    /// A line that goes up in steps.
    Steps,
}

/// Place, value, and where there is one the value's interval.
pub(super) type Point = (f64, f64, Option<(f64, f64)>);

/// Points with one name.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub name: String,
    pub style: Style,
    pub points: Vec<Point>,
}

/// Draws series over two axes; `None` without a point.
pub(super) fn chart(x: Axis, y: Axis, series: &[Series]) -> Option<String> {
    let x_scale = Scale::new(
        x,
        series.iter().flat_map(|one| one.points.iter().map(|point| point.0)),
        (LEFT, WIDTH - RIGHT),
    )?;
    let heights = series.iter().flat_map(|one| &one.points).flat_map(|(_, value, range)| {
        [Some(*value), range.map(|range| range.0), range.map(|range| range.1)].into_iter().flatten()
    });
    let y_scale = Scale::new(y, heights, (HEIGHT - BOTTOM, TOP))?;
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    push_axes(&mut out, &x_scale, &y_scale);
    for (index, one) in series.iter().enumerate() {
        push_series(&mut out, one, index % 6, &x_scale, &y_scale);
    }
    push_key(&mut out, series);
    out.push_str("</svg>");
    Some(out)
}

/// A name, an interval, a dot, and a bar.
pub(super) type Row = (String, Option<(f64, f64)>, f64, Option<f64>);

/// A line for each thing: an interval, a dot within and a second one, over a common axis.
pub(super) fn rows(x: Axis, rows: &[Row]) -> Option<String> {
    const LABELS: f64 = 250.0;
    const STEP: f64 = 26.0;
    let values = rows.iter().flat_map(|(_, range, first, second)| {
        [Some(*first), *second, range.map(|range| range.0), range.map(|range| range.1)].into_iter().flatten()
    });
    let scale = Scale::new(x, values, (LABELS, WIDTH - RIGHT))?;
    let bottom = TOP + STEP * rows.len() as f64;
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", bottom + BOTTOM);
    push_x_axis(&mut out, &scale, bottom);
    for (index, (name, range, first, second)) in rows.iter().enumerate() {
        let y = TOP + STEP * (index as f64 + 0.5);
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LABELS - 10.0,
            y + 4.0,
            escape(name)
        );
        if let Some((low, high)) = range {
            let _ = write!(
                out,
                "<path class=\"line c0\" d=\"M{:.1} {y:.1}H{:.1}\"/>",
                scale.at(*low),
                scale.at(*high)
            );
        }
        let _ = write!(
            out,
            "<path class=\"dots c0\" style=\"stroke-width:7\" d=\"M{:.1} {y:.1}h0\"/>",
            scale.at(*first)
        );
        if let Some(second) = second {
            let _ =
                write!(out, "<path class=\"line c1\" d=\"M{:.1} {:.1}v14\"/>", scale.at(*second), y - 7.0);
        }
    }
    out.push_str("</svg>");
    Some(out)
}

/// From values to places.
struct Scale {
    axis: Axis,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Scale {
    fn new(axis: Axis, values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Option<Self> {
        let usable = values.filter(|value| value.is_finite() && (!axis.log || *value > 0.0));
        let range = usable.fold(None, |range: Option<(f64, f64)>, value| {
            Some(range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
        });
        let (mut low, mut high) = range?;
        if axis.log {
            (low, high) = (low.log10(), high.log10());
            let room = ((high - low) * 0.05).max(0.05);
            (low, high) = (low - room, high + room);
            let ticks = log_ticks(low, high);
            return Some(Self { axis, low, high, from, to, ticks });
        }
        if axis.zero {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high <= low {
            (low, high) = (low - 0.5, high + 0.5);
        }
        let step = nice((high - low) / TICKS);
        let (first, last) = ((low / step).floor(), (high / step).ceil());
        let count = (last - first) as usize;
        let ticks = (0..=count).map(|tick| (first + tick as f64) * step).collect();
        Some(Self { axis, low: first * step, high: last * step, from, to, ticks })
    }

    fn at(&self, value: f64) -> f64 {
        let value = if self.axis.log { value.max(f64::MIN_POSITIVE).log10() } else { value };
        self.from + (self.to - self.from) * (value - self.low) / (self.high - self.low)
    }
}

/// 1, 2 or 5 times a power of ten.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= step * 0.999);
    power * factor.unwrap_or(10.0)
}

/// Powers of ten, and twice and five times them where there are few.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let between = if high - low < 2.5 { &[1.0, 2.0, 5.0][..] } else { &[1.0][..] };
    let powers = (low.floor() as i32)..=(high.ceil() as i32);
    let all = powers.flat_map(|power| between.iter().map(move |factor| factor * 10_f64.powi(power)));
    all.filter(|tick| (low..=high).contains(&tick.log10())).collect()
}

fn push_axes(out: &mut String, x: &Scale, y: &Scale) {
    for tick in &y.ticks {
        let at = y.at(*tick);
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(*tick)
        );
    }
    let _ = write!(out, "<text x=\"4\" y=\"14\">{}</text>", escape(y.axis.label));
    push_x_axis(out, x, HEIGHT - BOTTOM);
}

fn push_x_axis(out: &mut String, x: &Scale, bottom: f64) {
    let _ = write!(out, "<path class=\"axis\" d=\"M{} {bottom}H{}\"/>", x.from, x.to);
    for tick in &x.ticks {
        let at = x.at(*tick);
        let _ = write!(
            out,
            "<path class=\"axis\" d=\"M{at:.1} {bottom}v4\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            number(*tick)
        );
    }
    let _ = write!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        x.to,
        bottom + 36.0,
        escape(x.axis.label)
    );
}

fn push_series(out: &mut String, series: &Series, colour: usize, x: &Scale, y: &Scale) {
    let points: Vec<(f64, f64)> =
        series.points.iter().map(|(place, value, _)| (x.at(*place), y.at(*value))).collect();
    let path = |d: String, class: &str| format!("<path class=\"{class} c{colour}\" d=\"{d}\"/>");
    let dots = || points.iter().fold(String::new(), |path, (x, y)| path + &format!("M{x:.1} {y:.1}h0"));
    match series.style {
        Style::Dots => out.push_str(&path(dots(), "dots many")),
        Style::Line | Style::Ranges => {
            out.push_str(&path(joined(&points, |x, y| format!("L{x:.1} {y:.1}")), "line"));
        }
        Style::Steps => out.push_str(&path(joined(&points, |x, y| format!("H{x:.1}V{y:.1}")), "line")),
    }
    if series.style == Style::Ranges {
        let bars = series.points.iter().filter_map(|(place, _, range)| {
            let (low, high) = (*range)?;
            Some(format!("M{:.1} {:.1}V{:.1}", x.at(*place), y.at(low), y.at(high)))
        });
        let bars: String = bars.collect();
        if !bars.is_empty() {
            let _ =
                write!(out, "<path class=\"line c{colour}\" style=\"stroke-dasharray:none\" d=\"{bars}\"/>");
        }
        let _ = write!(out, "<path class=\"dots c{colour}\" style=\"stroke-width:7\" d=\"{}\"/>", dots());
    }
}

fn joined(points: &[(f64, f64)], next: impl Fn(f64, f64) -> String) -> String {
    let Some((x, y)) = points.first() else { return String::new() };
    let begin = format!("M{x:.1} {y:.1}");
    points[1..].iter().fold(begin, |path, (x, y)| path + &next(*x, *y))
}

/// Names of the series, at the top.
fn push_key(out: &mut String, series: &[Series]) {
    /// Width of a letter, about: the font is the reader's.
    const LETTER: f64 = 6.6;
    let width: f64 = series.iter().map(|one| 26.0 + LETTER * one.name.chars().count() as f64).sum();
    let mut at = (WIDTH - RIGHT - width).max(LEFT + 100.0);
    for (index, one) in series.iter().enumerate().filter(|(_, one)| !one.name.is_empty()) {
        let _ = write!(
            out,
            "<rect class=\"key c{}\" x=\"{at:.1}\" y=\"6\" width=\"10\" height=\"10\"/><text x=\"{:.1}\" y=\"15\">{}</text>",
            index % 6,
            at + 14.0,
            escape(&one.name)
        );
        at += 26.0 + LETTER * one.name.chars().count() as f64;
    }
}
