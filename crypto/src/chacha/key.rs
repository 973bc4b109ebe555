use zeroize::{Zeroize, ZeroizeOnDrop};

use super::group::{Job, MAX_TEXT, run};
use crate::{CryptoError, Nonce, Suite, TAG_LEN, aes_gcm::clear_deep};

/// A proof that the CPU has all that the kernel is compiled for.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(());

impl Cpu {
    /// None where this CPU cannot run the kernel.
    pub(crate) fn detect() -> Option<Self> {
        let can = is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vl");
        can.then_some(Self(()))
    }
}

/// A ChaCha20-Poly1305 key: nothing is made of it that lasts longer than a packet.
///
/// It stays in its box, so that no copy is left behind by a move, and on one cache line.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(align(32))]
pub(crate) struct ChaChaKey {
    words: [u8; 32],
    #[zeroize(skip)]
    _cpu: Cpu,
}

impl ChaChaKey {
    /// A copy of the key; the caller wipes its own.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] when the key is not of the suite's length.
    pub(crate) fn new(cpu: Cpu, key: &[u8]) -> Result<Box<Self>, CryptoError> {
        let suite = Suite::ChaCha20Poly1305;
        if key.len() != suite.key_len() {
            let got = key.len();
            return Err(CryptoError::KeyLength { suite, got });
        }
        let mut made = Box::new(Self {
            words: [0; 32],
            _cpu: cpu,
        });
        made.words.copy_from_slice(key);
        // SAFETY: there is a `Cpu`, so the CPU has the features.
        unsafe { clear_deep() };
        Ok(made)
    }

    /// Asks the processor for it.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        crate::prefetch::prefetch(self);
    }

    pub(crate) fn suite(&self) -> Suite {
        Suite::ChaCha20Poly1305
    }

    #[inline]
    pub(super) fn words(&self) -> &[u8; 32] {
        &self.words
    }

    /// As [`Key::seal_one`](crate::Key::seal_one).
    pub(crate) fn seal_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        self.one::<false>(nonce, aad, data)
    }

    /// As [`Key::open_one`](crate::Key::open_one).
    pub(crate) fn open_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        self.one::<true>(nonce, aad, data)
    }

    fn one<const OPEN: bool>(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        if !(TAG_LEN..=MAX_TEXT + TAG_LEN).contains(&data.len()) {
            return false;
        }
        let mut jobs = [Job::new(self, nonce, aad, data)];
        // SAFETY: there is a key, so there was a `Cpu`, which has the features.
        unsafe {
            run::<OPEN>(&mut jobs);
            clear_deep();
        }
        jobs[0].ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_wiped_on_drop() {
        fn wipes<T: ZeroizeOnDrop>(_: &T) {}

        let Some(cpu) = Cpu::detect() else {
            eprintln!("SKIPPED: this CPU cannot run the kernel");
            return;
        };
        let mut key = ChaChaKey::new(cpu, &[7; 32]).unwrap();
        assert_eq!(*key.words(), [7; 32]);
        wipes(&*key);
        key.zeroize();
        assert_eq!(*key.words(), [0; 32]);
    }
}
