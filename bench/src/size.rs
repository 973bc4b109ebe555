//! Sizes of packets.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Octets of the inner IPv4 packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// All the same.
    Octets(u16),
    /// Of twelve packets seven of 64, four of 576 and one of 1400: the "simple IMIX", as far as it fits an inner MTU.
    Imix,
}

const IMIX: [u16; 12] = [64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 64, 576];

impl Size {
    /// What is measured if nothing else is said.
    pub const ALL: [Self; 8] = [
        Self::Octets(64),
        Self::Octets(128),
        Self::Octets(256),
        Self::Octets(512),
        Self::Imix,
        Self::Octets(1024),
        Self::Octets(1400),
        Self::Octets(8900),
    ];
    /// The smallest: headers of IPv4 and UDP.
    pub const MIN: u16 = 28;
    /// The largest that there is memory for.
    pub const MAX: u16 = 9000;

    /// Of packet `nth`.
    pub fn of(self, nth: usize) -> usize {
        match self {
            Self::Octets(octets) => octets.into(),
            Self::Imix => IMIX[nth % IMIX.len()].into(),
        }
    }

    /// Sizes of packets in turn, none below `least`: one, or the mix.
    pub fn turns(self, least: usize) -> Vec<usize> {
        let count = match self {
            Self::Octets(_) => 1,
            Self::Imix => IMIX.len(),
        };
        (0..count).map(|nth| self.of(nth).max(least)).collect()
    }

    /// Bytes of a packet on average, of packets that have `least` at least.
    pub fn mean(self, least: usize) -> f64 {
        let turns = self.turns(least);
        turns.iter().sum::<usize>() as f64 / turns.len() as f64
    }

    /// Of the largest packet.
    pub fn largest(self) -> usize {
        (0..IMIX.len())
            .map(|nth| self.of(nth))
            .max()
            .unwrap_or_default()
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Octets(octets) => f.pad(&octets.to_string()),
            Self::Imix => f.pad("imix"),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::Imix);
        }
        match text.parse() {
            Ok(octets) if (Self::MIN..=Self::MAX).contains(&octets) => Ok(Self::Octets(octets)),
            _ => Err(format!(
                "write octets of an IPv4 packet, {} to {}, or imix",
                Self::MIN,
                Self::MAX
            )),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for size in Size::ALL {
            assert_eq!(size.to_string().parse(), Ok(size));
        }
        for bad in ["27", "9001", "", "big", "-1"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        assert_eq!((Size::Imix.of(12), Size::Imix.largest()), (64, 1400));
        assert_eq!((Size::Imix.mean(0), Size::Imix.turns(76)[0]), (346.0, 76));
        assert_eq!(Size::Octets(1400).turns(56), [1400]);
    }
}
