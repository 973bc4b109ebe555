//! Numbers on a page: scales, their ticks, and how a figure is written.

/// Where values lie on a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    from: f64,
    to: f64,
    begin: f64,
    end: f64,
    log: bool,
}

impl Scale {
    /// Values from and to, at the places begin and end, in proportion.
    pub(super) fn linear((from, to): (f64, f64), (begin, end): (f64, f64)) -> Self {
        // A range without width would put everything nowhere.
        let to = if to > from { to } else { from + 1.0 };
        Self {
            from,
            to,
            begin,
            end,
            log: false,
        }
    }

    /// Values by their logarithm, for ranges of many orders. What is not above zero is at the beginning.
    pub(super) fn log((from, to): (f64, f64), place: (f64, f64)) -> Self {
        let from = if from > 0.0 { from } else { 1e-9 };
        let to = if to > from { to } else { from * 10.0 };
        Self {
            from,
            to,
            begin: place.0,
            end: place.1,
            log: true,
        }
    }

    /// The place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = if self.log {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.begin + part * (self.end - self.begin)
    }

    /// Round values inside of the range, some four to eight.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.log {
            return self.log_ticks();
        }
        let step = round_step((self.to - self.from) / 6.0);
        let first = (self.from / step).ceil() as i64;
        let last = (self.to / step + 1e-9).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }

    fn log_ticks(&self) -> Vec<f64> {
        let decades = (self.to / self.from).log10();
        let parts: &[f64] = match decades {
            d if d < 2.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let first = self.from.log10().floor() as i32;
        let last = self.to.log10().ceil() as i32;
        let all = (first..=last).flat_map(|n| parts.iter().map(move |part| part * 10f64.powi(n)));
        let (low, high) = (self.from * (1.0 - 1e-9), self.to * (1.0 + 1e-9));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    }
}

/// The next of 1, 2, 5, 10, 20, ... that is not less.
fn round_step(least: f64) -> f64 {
    let decade = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    let found = steps
        .iter()
        .find(|step| **step * decade >= least * (1.0 - 1e-9));
    found.unwrap_or(&10.0) * decade
}

/// The nearest of 1, 2, 5, 10, 20, ... below or at `least`, and above or at `most`.
pub(super) fn around(least: f64, most: f64) -> (f64, f64) {
    if least <= 0.0 || most <= 0.0 {
        return (least, most);
    }
    // The steps of a decade mirror each other: 1, 2, 5, 10 upwards are 1, 1/2, 1/5, 1/10 downwards.
    (1.0 / round_step(1.0 / least), round_step(most))
}

/// A figure in three digits, or all of a whole number's.
pub(super) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        v if v >= 0.0995 => 3,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => thousands(&text),
    }
}

/// A thin space after each three digits of a long number.
fn thousands(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits),
    };
    if digits.len() < 5 {
        return format!("{sign}{digits}");
    }
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    format!("{sign}{}", groups.join("\u{2009}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let ticks = |from, to| Scale::linear((from, to), (0.0, 1.0)).ticks();
        assert_eq!(
            ticks(0.0, 1.0),
            [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
        );
        assert_eq!(ticks(0.0, 37.0), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(ticks(0.0, 0.0), ticks(0.0, 1.0));
        let log = |from, to| Scale::log((from, to), (0.0, 1.0)).ticks();
        assert_eq!(log(10.0, 10_000.0), [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(log(30.0, 300.0), [50.0, 100.0, 200.0]);
    }

    #[test]
    fn scales_have_their_ends() {
        let scale = Scale::linear((0.0, 4.0), (100.0, 300.0));
        assert_eq!([0.0, 1.0, 4.0].map(|v| scale.at(v)), [100.0, 150.0, 300.0]);
        let scale = Scale::log((1.0, 100.0), (0.0, 10.0));
        assert_eq!(
            [0.0, 1.0, 10.0, 100.0].map(|v| scale.at(v)),
            [0.0, 0.0, 5.0, 10.0]
        );
    }

    #[test]
    fn narrow_ranges_get_round_ends() {
        assert_eq!(around(53.0, 88.0), (50.0, 100.0));
        assert_eq!(around(50.0, 100.0), (50.0, 100.0));
        assert_eq!(around(0.03, 0.9), (0.02, 1.0));
        assert_eq!(around(0.0, 0.0), (0.0, 0.0));
        let (from, to) = around(53.0, 88.0);
        assert_eq!(Scale::log((from, to), (0.0, 1.0)).ticks(), [50.0, 100.0]);
    }

    #[test]
    fn figures_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.02543, "0.0254"),
            (0.98765, "0.988"),
            (1.0, "1"),
            (1.2345, "1.23"),
            (12.345, "12.3"),
            (999.6, "1000"),
            (1234.5, "1234"),
            (1_234_567.0, "1\u{2009}234\u{2009}567"),
            (-12_345.0, "-12\u{2009}345"),
        ] {
            assert_eq!(figure(value), text, "{value}");
        }
    }
}
