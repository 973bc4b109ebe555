//! Our own AES-GCM (NIST SP 800-38D), for batches of packets on CPUs with AES on vectors.
//!
//! A library's call costs more than sealing a short packet. Here there is nothing around AES and
//! GHASH, and short packets alike in length go through them in pairs, whatever their keys. See
//! `docs/sealing-kernel.md`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod batch;
#[cfg(target_arch = "x86_64")]
mod clear;
#[cfg(target_arch = "x86_64")]
mod cpu;
#[cfg(target_arch = "x86_64")]
mod double;
#[cfg(target_arch = "x86_64")]
mod double_long;
#[cfg(target_arch = "x86_64")]
mod ghash;
#[cfg(target_arch = "x86_64")]
mod key;
#[cfg(target_arch = "x86_64")]
mod long;
#[cfg(target_arch = "x86_64")]
mod open;
#[cfg(not(target_arch = "x86_64"))]
mod other;
#[cfg(target_arch = "x86_64")]
mod stream;
#[cfg(target_arch = "x86_64")]
mod tag;
#[cfg(target_arch = "x86_64")]
mod tail;
#[cfg(target_arch = "x86_64")]
mod text;

#[cfg(target_arch = "x86_64")]
pub(crate) use batch::{Batch, Layers};
#[cfg(target_arch = "x86_64")]
pub(crate) use clear::clear_deep;
#[cfg(target_arch = "x86_64")]
pub(crate) use cpu::{kernel, kernels, missing};
#[cfg(target_arch = "x86_64")]
pub(crate) use key::GcmKey;
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use other::{Batch, GcmKey, Layers, kernel, kernels, missing};
#[cfg(target_arch = "x86_64")]
pub(crate) use tag::settle;

/// The provider's name in configuration.
pub(crate) const NAME: &str = "twinseal";
