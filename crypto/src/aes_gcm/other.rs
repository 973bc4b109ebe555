//! Stands in for the kernel on other architectures, and for that of ChaCha20-Poly1305: there is no provider, so there are no
//! keys.

use crate::{Nonce, Packet, Provider, Seal, Suite};

pub(crate) fn kernel() -> Option<&'static dyn Provider> {
    None
}

pub(crate) fn kernels() -> &'static [&'static dyn Provider] {
    &[]
}

pub(crate) fn missing() -> Vec<&'static str> {
    vec!["x86_64"]
}

/// A key that nobody can make.
pub(crate) enum GcmKey {}

impl GcmKey {
    pub(crate) fn prefetch(&self) {
        match *self {}
    }

    pub(crate) fn prefetch_short(&self) {
        match *self {}
    }

    pub(crate) fn prefetch_all(&self) {
        match *self {}
    }

    pub(crate) fn suite(&self) -> Suite {
        match *self {}
    }

    pub(crate) fn seal_one(&self, _: &Nonce, _: &[u8], _: &mut [u8]) -> bool {
        match *self {}
    }

    pub(crate) fn open_one(&self, _: &Nonce, _: &[u8], _: &mut [u8]) -> bool {
        match *self {}
    }
}

pub(crate) struct Batch<const OPEN: bool>;

impl<const OPEN: bool> Batch<OPEN> {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn push(&mut self, key: &GcmKey, _: &mut Packet<'_>) {
        match *key {}
    }

    pub(crate) fn finish(&mut self) {}
}

impl Batch<false> {
    pub(crate) fn push_two(
        &mut self,
        (key, _): (&GcmKey, &Seal<'_>),
        _: (&GcmKey, &mut Packet<'_>),
    ) {
        match *key {}
    }
}

pub(crate) struct Layers;

impl Layers {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn push_one(&mut self, key: &GcmKey, _: &mut Packet<'_>) {
        match *key {}
    }

    pub(crate) fn push_two(
        &mut self,
        (key, _): (&GcmKey, &Seal<'_>),
        _: (&GcmKey, &mut Packet<'_>),
    ) {
        match *key {}
    }

    pub(crate) fn finish(&mut self) {}
}
