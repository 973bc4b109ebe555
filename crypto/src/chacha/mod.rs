//! Our own ChaCha20-Poly1305 (RFC 8439), for batches of packets on CPUs with AVX-512.
//!
//! Sixteen blocks of ChaCha20 are made at a time, each in a lane of its own, of whichever packets and
//! keys; and Poly1305 takes eight packets at a time, or eight blocks of a long one. See
//! `docs/sealing-kernel.md`.

#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(target_arch = "x86_64")]
mod field;
#[cfg(target_arch = "x86_64")]
mod group;
#[cfg(target_arch = "x86_64")]
mod hash;
#[cfg(target_arch = "x86_64")]
mod key;
#[cfg(target_arch = "x86_64")]
mod stream;
#[cfg(target_arch = "x86_64")]
mod transpose;

// On others nobody can make a key of either kind.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use crate::aes_gcm::{Batch, GcmKey as ChaChaKey};
#[cfg(target_arch = "x86_64")]
pub(crate) use batch::Batch;
#[cfg(target_arch = "x86_64")]
pub(crate) use key::{ChaChaKey, Cpu};
