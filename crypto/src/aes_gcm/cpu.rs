use std::sync::LazyLock;

use super::{GcmKey, NAME};
use crate::{
    CryptoError, Key, Provider, Suite,
    chacha::{self, ChaChaKey},
    libs,
};

/// A form of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// On vectors of four blocks: [`avx512`](super::avx512), [`double`](super::double).
    Vaes512,
    /// On vectors of two blocks: [`avx2`](super::avx2).
    Vaes256,
}

/// A proof that the CPU has all that a form is compiled for.
#[derive(Clone, Copy)]
pub(super) struct Cpu(Form);

impl Cpu {
    /// What this CPU can run, the fastest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Form::Vaes512, Form::Vaes256]
            .into_iter()
            .filter(|form| form.missing().is_empty())
            .map(Self)
    }

    #[inline]
    pub(super) fn form(self) -> Form {
        self.0
    }

    /// What our own ChaCha20-Poly1305 needs; it has a wide form only.
    fn chacha(self) -> Option<chacha::Cpu> {
        match self.0 {
            Form::Vaes512 => chacha::Cpu::detect(),
            Form::Vaes256 => None,
        }
    }
}

impl Form {
    /// The features that it is compiled for and this CPU lacks.
    fn missing(self) -> Vec<&'static str> {
        let both = [
            ("aes", is_x86_feature_detected!("aes")),
            ("avx2", is_x86_feature_detected!("avx2")),
            ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
            ("vaes", is_x86_feature_detected!("vaes")),
            ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ];
        let wide = [
            ("bmi2", is_x86_feature_detected!("bmi2")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
            ("avx512vl", is_x86_feature_detected!("avx512vl")),
            ("avx512vbmi", is_x86_feature_detected!("avx512vbmi")),
        ];
        let wide = &wide[..if self == Self::Vaes512 { wide.len() } else { 0 }];
        both.iter()
            .chain(wide)
            .filter_map(|&(feature, here)| (!here).then_some(feature))
            .collect()
    }
}

/// The provider in the best form that the CPU can run.
pub(crate) fn kernel() -> Option<&'static dyn Provider> {
    kernels().first().copied()
}

/// The provider in every form that the CPU can run, the fastest first.
pub(crate) fn kernels() -> &'static [&'static dyn Provider] {
    static KERNELS: LazyLock<Vec<&'static dyn Provider>> = LazyLock::new(|| {
        let kernel = |cpu| &*Box::leak(Box::new(Kernel(cpu))) as &dyn Provider;
        Cpu::all().map(kernel).collect()
    });
    &KERNELS
}

/// The features that every form is compiled for and this CPU lacks.
pub(crate) fn missing() -> Vec<&'static str> {
    Form::Vaes256.missing()
}

struct Kernel(Cpu);

impl Provider for Kernel {
    fn name(&self) -> &'static str {
        NAME
    }

    fn label(&self) -> &'static str {
        match (self.0.form(), self.0.chacha()) {
            (Form::Vaes512, Some(_)) => "twinseal (vaes-512, ifma-512)",
            (Form::Vaes512, None) => "twinseal (vaes-512)",
            (Form::Vaes256, _) => "twinseal (vaes-256)",
        }
    }

    fn key(&self, suite: Suite, key: &[u8]) -> Result<Key, CryptoError> {
        match suite {
            Suite::Aes256Gcm | Suite::Aes128Gcm => {
                GcmKey::new(self.0, suite, key).map(Key::of_kernel)
            }
            Suite::ChaCha20Poly1305 => match self.0.chacha() {
                Some(cpu) => ChaChaKey::new(cpu, key).map(Key::of_chacha),
                None => libs::LIBRARIES[0].key(suite, key),
            },
        }
    }
}
