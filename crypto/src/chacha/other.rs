//! Stands in for the kernel on other architectures: there are no keys.

use crate::{Nonce, Packet, Seal, Suite};

/// A key that nobody can make.
pub(crate) enum ChaChaKey {}

impl ChaChaKey {
    pub(crate) fn prefetch(&self) {
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

    pub(crate) fn push(&mut self, key: &ChaChaKey, _: &mut Packet<'_>) {
        match *key {}
    }

    pub(crate) fn finish(self) {}
}

impl Batch<false> {
    pub(crate) fn push_two(
        &mut self,
        (key, _): (&ChaChaKey, &Seal<'_>),
        _: (&ChaChaKey, &mut Packet<'_>),
    ) {
        match *key {}
    }
}
