use std::{fmt, str::FromStr};

use crate::CryptoError;

/// An AEAD algorithm, by its number on the wire and in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Suite {
    /// AES-256-GCM (NIST SP 800-38D), the default.
    Aes256Gcm = 1,
    /// AES-128-GCM (NIST SP 800-38D).
    Aes128Gcm = 2,
    /// ChaCha20-Poly1305 (RFC 8439), for cores without AES instructions.
    ChaCha20Poly1305 = 3,
}

impl Suite {
    /// Every suite.
    pub const ALL: [Self; 3] = [Self::Aes256Gcm, Self::Aes128Gcm, Self::ChaCha20Poly1305];
    /// Bytes of the longest key.
    pub const MAX_KEY_LEN: usize = 32;

    /// Bytes of this suite's key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
        }
    }

    /// The name in configuration, such as `aes-256-gcm`; [`FromStr`] reads it back.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Suite {
    type Err = CryptoError;

    fn from_str(name: &str) -> Result<Self, CryptoError> {
        Self::ALL
            .into_iter()
            .find(|suite| suite.name() == name)
            .ok_or_else(|| CryptoError::UnknownSuiteName(name.to_owned()))
    }
}

impl TryFrom<u8> for Suite {
    type Error = CryptoError;

    fn try_from(number: u8) -> Result<Self, CryptoError> {
        Self::ALL
            .into_iter()
            .find(|&suite| suite as u8 == number)
            .ok_or(CryptoError::UnknownSuite(number))
    }
}

/// Which of the two seals a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Layer {
    /// Hop by hop.
    Link = 1,
    /// End to end.
    Circuit = 2,
}

/// Which way packets go between the two ends, A and B. The controller says which end is A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// A seals, B opens.
    AToB = 0,
    /// B seals, A opens.
    BToA = 1,
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::AToB => Self::BToA,
            Self::BToA => Self::AToB,
        }
    }
}

/// What a key is derived for besides its secret. Both ends must agree on all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context {
    /// Link or circuit.
    pub layer: Layer,
    /// Who seals.
    pub direction: Direction,
    /// The algorithm that the key is for.
    pub suite: Suite,
    /// The generation of the key state.
    pub epoch: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_round_trip() {
        for suite in Suite::ALL {
            assert_eq!(suite.to_string().parse::<Suite>().unwrap(), suite);
            assert_eq!(Suite::try_from(suite as u8).unwrap(), suite);
            assert!(suite.key_len() <= Suite::MAX_KEY_LEN);
        }
        assert_eq!(format!("{:>12}|", Suite::Aes128Gcm), " aes-128-gcm|");
    }

    #[test]
    fn unknown_suites_are_refused_with_the_known_ones() {
        for number in [0, 4, 255] {
            assert!(
                matches!(Suite::try_from(number), Err(CryptoError::UnknownSuite(n)) if n == number)
            );
        }
        let error = "AES-256-GCM".parse::<Suite>().unwrap_err().to_string();
        assert!(error.contains("chacha20-poly1305"), "{error}");
    }

    #[test]
    fn directions_reverse() {
        assert_eq!(Direction::AToB.reverse(), Direction::BToA);
        assert_eq!(Direction::BToA.reverse(), Direction::AToB);
    }
}
