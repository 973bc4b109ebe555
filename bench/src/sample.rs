//! Several runs of one thing.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The middle, and how far the others are from it.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Sample {
    /// Of any values; all zero if there are none.
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
        let median = if values.len() % 2 == 1 || values.is_empty() {
            at(middle)
        } else {
            (at(middle - 1) + at(middle)) / 2.0
        };
        Self {
            median,
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }

    /// In another unit.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            median: self.median * factor,
            min: self.min * factor,
            max: self.max * factor,
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.1} ({:.1}..{:.1})", self.median, self.min, self.max);
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spread() {
        let sample = |values: &[f64]| Sample::new(values.to_vec());
        let of = |median, min, max| Sample { median, min, max };
        assert_eq!(sample(&[3.0, 1.0, 2.0]), of(2.0, 1.0, 3.0));
        assert_eq!(sample(&[4.0, 1.0, 2.0, 3.0]), of(2.5, 1.0, 4.0));
        assert_eq!(sample(&[]), of(0.0, 0.0, 0.0));
        assert_eq!(sample(&[7.0, 7.0]).to_string(), "7.0 (7.0..7.0)");
    }
}
