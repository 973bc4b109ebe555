use std::sync::LazyLock;

use super::{GcmKey, NAME};
use crate::{CryptoError, Key, Provider, Suite, libs};

/// A proof that the CPU has all that [`missing`] looks for.
#[derive(Clone, Copy)]
pub(super) struct Cpu(());

impl Cpu {
    pub(super) fn detect() -> Option<Self> {
        missing().is_empty().then_some(Self(()))
    }
}

/// The provider, where the CPU has what it takes.
pub(crate) fn kernel() -> Option<&'static dyn Provider> {
    static KERNEL: LazyLock<Option<Kernel>> = LazyLock::new(|| Cpu::detect().map(Kernel));
    KERNEL.as_ref().map(|kernel| kernel as &dyn Provider)
}

/// The features that the kernel is compiled for and this CPU lacks.
pub(crate) fn missing() -> Vec<&'static str> {
    [
        ("aes", is_x86_feature_detected!("aes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
    ]
    .into_iter()
    .filter_map(|(feature, here)| (!here).then_some(feature))
    .collect()
}

struct Kernel(Cpu);

impl Provider for Kernel {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key(&self, suite: Suite, key: &[u8]) -> Result<Key, CryptoError> {
        match suite {
            Suite::Aes256Gcm | Suite::Aes128Gcm => {
                GcmKey::new(self.0, suite, key).map(Key::of_kernel)
            }
            // Of no interest where there is AES in hardware.
            Suite::ChaCha20Poly1305 => libs::LIBRARIES[0].key(suite, key),
        }
    }
}
