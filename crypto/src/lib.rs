//! Suites, AEAD providers, keys, lanes, replay windows and key derivation.
//!
//! The crate seals and opens packets in place and keeps the two promises on which counter-mode
//! AEADs stand:
//!
//! - **a nonce never repeats under a key**: [`SealSa::reserve`] hands out every counter of a lane
//!   at most once, to the lane's one [`LaneOwner`], and stops at a limit; [`BurnGuard`] remembers,
//!   over restarts, which secrets have sealed before;
//! - **a packet is accepted once**: [`OpenSa::commit`] says [`Replay::Fresh`] at most once for a
//!   lane and counter, also when several threads race.
//!
//! It knows no packet format, no clock and no tables. The only I/O is [`BurnGuard`]'s file.
//!
//! A packet's way: `reserve` a counter, build the header that carries lane and counter, `packet`,
//! [`seal`]; at the receiver `packet`, [`open`], and only after the tag verified, `commit`.
//!
//! ```
//! use twinseal_crypto::*;
//!
//! let context = Context {
//!     layer: Layer::Link,
//!     direction: Direction::AToB,
//!     suite: Suite::Aes256Gcm,
//!     epoch: 1,
//! };
//! let (lanes, owners) = Lanes::split(1, 4)?;
//! let secret = Secret::from_bytes(&mut [7; SECRET_LEN])?;
//! let tx = SealSa::new(
//!     provider(DEFAULT_PROVIDER)?,
//!     &secret,
//!     context,
//!     lanes,
//!     MAX_COUNTER,
//! )?;
//! let rx = OpenSa::new(provider(DEFAULT_PROVIDER)?, &secret, context, 2048)?;
//!
//! let (lane, aad) = (3, [0; AAD_LEN]);
//! let counter = tx.reserve(&owners[0], lane, 1).expect("a new SA has counters");
//! let mut data = *b"hello................";
//! seal(&mut [tx.packet(lane, counter, aad, &mut data)]);
//!
//! let mut batch = [rx.packet(lane, counter, aad, &mut data)];
//! open(&mut batch);
//! assert!(batch[0].ok && rx.commit(lane, counter) == Replay::Fresh);
//! assert_eq!(&data[..5], b"hello");
//! assert_eq!(rx.commit(lane, counter), Replay::Replayed);
//! # Ok::<(), CryptoError>(())
//! ```

mod aead;
mod aes_gcm;
mod burn;
mod chacha;
mod commits;
mod counter;
mod error;
mod kdf;
mod lanes;
mod libs;
mod prefetch;
mod replay;
mod sa;
mod secret;
mod suite;
mod sync;
mod whole;
mod wipe;

pub use aead::{
    Aead, DEFAULT_PROVIDER, Key, Layered, Packet, Provider, Seal, all_forms, default_provider,
    open, provider, provider_names, providers, seal, seal_layers,
};
pub use burn::{BurnError, BurnGuard, BurnMark, BurnUse};
pub use commits::{Commits, Committed};
pub use error::CryptoError;
pub use lanes::{LaneOwner, Lanes};
pub use replay::Replay;
pub use sa::{MAX_WINDOW_BITS, MIN_WINDOW_BITS, OpenSa, SealSa};
pub use secret::{Fingerprint, Secret};
pub use suite::{Context, Direction, Layer, Suite};
pub use whole::write_whole;
pub use wipe::Wiping;

/// Bytes of an authentication tag, at the end of every sealed packet.
pub const TAG_LEN: usize = 16;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes of a packet's associated data: one header.
pub const AAD_LEN: usize = 16;
/// Bytes of the header before the text of a [`Layered`], which only the link seal covers.
pub const HEADER_LEN: usize = 16;
/// Bytes of a [`Secret`].
pub const SECRET_LEN: usize = 32;
/// The lanes that a link or circuit may have: a lane number is one byte.
pub const MAX_LANES: u16 = 256;
/// The first counter that may never be used, on any lane.
///
/// 2^40 packets a lane last for nine hours at 32 Mpps, and they keep the replay window's generation
/// in 32 bits. Should all 256 lanes use them all with packets of 1500 bytes, an attacker's advantage
/// against the confidentiality of AES-GCM is near 2^-20 (blocks squared over 2^129). Where that is
/// too much, give [`SealSa::new`] a lower limit.
pub const MAX_COUNTER: u64 = 1 << 40;

/// A nonce, in the byte order that the AEAD takes.
pub type Nonce = [u8; NONCE_LEN];

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!(
    "twinseal-crypto needs a library for its AEADs: enable the feature `aws-lc-rs`, `ring` or both"
);
