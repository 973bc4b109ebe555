use std::io;

use crate::{MAX_COUNTER, MAX_LANES, SECRET_LEN, Suite};

/// Why a secret, key or SA could not be made. None of these arises per packet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// No AEAD provider of that name was built in.
    #[error("unknown AEAD provider {name:?}: use one of {known:?}")]
    UnknownProvider {
        /// What was asked for.
        name: String,
        /// The names that [`provider`](crate::provider) accepts, the default first.
        known: Vec<&'static str>,
    },
    /// An AEAD provider that this CPU cannot run.
    #[error("the AEAD provider {name:?} needs a CPU with {missing:?}: use one of {known:?}")]
    UnsupportedProvider {
        /// What was asked for.
        name: &'static str,
        /// The CPU features that are missing.
        missing: Vec<&'static str>,
        /// The names that [`provider`](crate::provider) accepts, the default first.
        known: Vec<&'static str>,
    },
    /// No suite has that number.
    #[error(
        "unknown suite number {0}: use 1 (aes-256-gcm), 2 (aes-128-gcm) or 3 (chacha20-poly1305)"
    )]
    UnknownSuite(u8),
    /// No suite has that name.
    #[error("unknown suite {0:?}: use aes-256-gcm, aes-128-gcm or chacha20-poly1305")]
    UnknownSuiteName(String),
    /// A key of the wrong length for its suite.
    #[error("{suite} takes a key of {want} bytes, not {got}", want = .suite.key_len())]
    KeyLength {
        /// The suite that the key was meant for.
        suite: Suite,
        /// Bytes given.
        got: usize,
    },
    /// A secret of the wrong length.
    #[error("a secret has {SECRET_LEN} bytes, not {0}")]
    SecretLength(usize),
    /// The kernel gave no memory for a secret.
    #[error("no memory page for a secret: {0}; raise the memory limit of the process")]
    SecretMemory(#[source] io::Error),
    /// A lane count outside 1 to [`MAX_LANES`].
    #[error("a node has 1 to {MAX_LANES} lanes over all workers, not {0}")]
    Lanes(usize),
    /// A counter limit outside 1 to [`MAX_COUNTER`].
    #[error("an SA's counter limit is 1 to {MAX_COUNTER}, not {0}")]
    CounterLimit(u64),
    /// A replay window that is no power of two or outside its bounds.
    #[error(
        "a replay window is a power of two from {min} to {max} bits, not {0}",
        min = crate::MIN_WINDOW_BITS,
        max = crate::MAX_WINDOW_BITS
    )]
    WindowBits(u32),
}
