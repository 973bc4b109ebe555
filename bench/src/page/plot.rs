//! The kinds of plots: bars with their spread, bars of parts, and lines.

use maud::{Markup, html};

use super::axis::{Scale, around, figure};
use super::svg::Svg;

const WIDTH: f64 = 760.0;
/// Room left of bars for their labels, and right of them for their values.
const LABELS: f64 = 160.0;
const VALUES: f64 = 150.0;
const BAR: f64 = 16.0;
const STEP: f64 = 24.0;
/// Of plots with two axes: their height, and the room for ticks and titles.
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;
/// Colours in the style sheet: `c0` to `c7`.
const COLOURS: usize = 8;

/// A bar with its spread.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// The least and the greatest of several runs.
    pub(super) spread: Option<(f64, f64)>,
    pub(super) colour: usize,
    /// After the value.
    pub(super) note: String,
}

/// Horizontal bars.
pub(super) fn bars(describe: &str, unit: &str, bars: &[Bar]) -> Markup {
    let greatest = |bar: &Bar| {
        bar.spread
            .map_or(bar.value, |(_, high)| high.max(bar.value))
    };
    let most = bars.iter().map(greatest).fold(0.0, f64::max);
    let scale = Scale::linear((0.0, most), (LABELS, WIDTH - VALUES));
    let mut svg = Svg::new(WIDTH, bars.len() as f64 * STEP + 4.0);
    for (place, bar) in bars.iter().enumerate() {
        let y = 2.0 + place as f64 * STEP + (STEP - BAR) / 2.0;
        let middle = y + BAR / 2.0;
        let about = format!("{}: {} {unit}", bar.label, figure(bar.value));
        svg.text("label end", (LABELS - 8.0, middle), &bar.label);
        let size = (scale.at(bar.value) - LABELS, BAR);
        svg.rect(&colour(bar.colour), (LABELS, y), size, &about);
        let mut end = scale.at(greatest(bar));
        if let Some((low, high)) = bar.spread.filter(|(low, high)| low < high) {
            let (low, high) = (scale.at(low), scale.at(high));
            svg.line("whisker", (low, middle), (high, middle));
            for x in [low, high] {
                svg.line("whisker", (x, middle - 3.5), (x, middle + 3.5));
            }
            end = end.max(high);
        }
        let value = format!("{} {unit}", figure(bar.value));
        svg.text("value", (end + 8.0, middle), value + &bar.note);
    }
    svg.finish(describe)
}

/// A bar of parts.
pub(super) struct Stack {
    pub(super) label: String,
    /// Each part's series, and its length.
    pub(super) parts: Vec<(usize, f64)>,
}

/// Horizontal bars of parts, each part a series.
pub(super) fn stacks(describe: &str, unit: &str, series: &[&str], stacks: &[Stack]) -> Markup {
    let total = |stack: &Stack| stack.parts.iter().map(|(_, value)| value).sum::<f64>();
    let most = stacks.iter().map(total).fold(0.0, f64::max);
    let scale = Scale::linear((0.0, most), (LABELS, WIDTH - VALUES));
    let mut svg = Svg::new(WIDTH, stacks.len() as f64 * STEP + 4.0);
    for (place, stack) in stacks.iter().enumerate() {
        let y = 2.0 + place as f64 * STEP + (STEP - BAR) / 2.0;
        svg.text("label end", (LABELS - 8.0, y + BAR / 2.0), &stack.label);
        let mut sum = 0.0;
        for &(part, value) in &stack.parts {
            let (from, to) = (scale.at(sum), scale.at(sum + value));
            let about = format!("{}: {} {unit}", series[part], figure(value));
            svg.rect(&colour(part), (from, y), (to - from, BAR), &about);
            sum += value;
        }
        let after = (scale.at(sum) + 8.0, y + BAR / 2.0);
        svg.text("value", after, format!("{} {unit}", figure(sum)));
    }
    html! {
        (svg.finish(describe))
        (legend(series))
    }
}

/// One of two axes.
pub(super) struct Axis<'a> {
    pub(super) title: &'a str,
    pub(super) log: bool,
    /// Ticks with words of their own instead of round values.
    pub(super) named: Vec<(f64, String)>,
}

impl<'a> Axis<'a> {
    pub(super) fn linear(title: &'a str) -> Self {
        Self {
            title,
            log: false,
            named: Vec::new(),
        }
    }

    pub(super) fn log(title: &'a str) -> Self {
        Self {
            log: true,
            ..Self::linear(title)
        }
    }

    fn scale(&self, values: impl Iterator<Item = f64> + Clone, place: (f64, f64)) -> Scale {
        let most = values.clone().fold(0.0, f64::max);
        let least = values
            .filter(|v| !self.log || *v > 0.0)
            .fold(most, f64::min);
        match self.log {
            // Out to round values, or a narrow range has no tick to read it by.
            true if self.named.is_empty() => Scale::log(around(least, most), place),
            true => Scale::log((least, most), place),
            // From zero, so that heights are in proportion.
            false => Scale::linear((least.min(0.0), most), place),
        }
    }

    fn ticks(&self, scale: &Scale) -> Vec<(f64, String)> {
        if !self.named.is_empty() {
            return self.named.clone();
        }
        let ticks = scale.ticks().into_iter();
        ticks.map(|tick| (tick, figure(tick))).collect()
    }
}

/// A line through points.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

impl Series {
    pub(super) fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.into(),
            points,
        }
    }
}

/// Lines over two axes.
pub(super) fn lines(describe: &str, x: &Axis<'_>, y: &Axis<'_>, series: &[Series]) -> Markup {
    let points = || series.iter().flat_map(|series| series.points.iter());
    let across = x.scale(points().map(|(x, _)| *x), (LEFT, WIDTH - RIGHT));
    let up = y.scale(points().map(|(_, y)| *y), (HEIGHT - BOTTOM, TOP));
    let mut svg = Svg::new(WIDTH, HEIGHT);
    for (tick, text) in y.ticks(&up) {
        let at = up.at(tick);
        svg.line("grid", (LEFT, at), (WIDTH - RIGHT, at));
        svg.text("label end", (LEFT - 8.0, at), text);
    }
    for (tick, text) in x.ticks(&across) {
        let at = across.at(tick);
        svg.line("grid", (at, HEIGHT - BOTTOM), (at, HEIGHT - BOTTOM + 4.0));
        svg.text("label middle", (at, HEIGHT - BOTTOM + 14.0), text);
    }
    svg.line(
        "axis",
        (LEFT, HEIGHT - BOTTOM),
        (WIDTH - RIGHT, HEIGHT - BOTTOM),
    );
    svg.text(
        "label middle",
        ((LEFT + WIDTH) / 2.0, HEIGHT - 10.0),
        x.title,
    );
    for (place, series) in series.iter().enumerate() {
        let at: Vec<(f64, f64)> = series
            .points
            .iter()
            .map(|&(x, y)| (across.at(x), up.at(y)))
            .collect();
        svg.polyline(&format!("line s{}", place % COLOURS), &at);
        for (&dot, &(x_value, y_value)) in at.iter().zip(&series.points) {
            let about = format!(
                "{}: {} at {}",
                series.name,
                figure(y_value),
                figure(x_value)
            );
            svg.dot(&colour(place), dot, &about);
        }
    }
    let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
    html! {
        p.axis-title { (y.title) }
        (svg.finish(describe))
        (legend(&names))
    }
}

fn colour(series: usize) -> String {
    format!("c{}", series % COLOURS)
}

fn legend(series: &[&str]) -> Markup {
    html! {
        ul.legend {
            @for (place, name) in series.iter().enumerate() {
                li { span.(colour(place)) {} (name) }
            }
        }
    }
}
