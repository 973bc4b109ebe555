//! The providers over aws-lc-rs and ring. The former copies the latter's interface, so one macro
//! serves both.

use crate::{Aead, CryptoError, Key, Nonce, Provider, Suite, TAG_LEN};

/// The libraries that were built in, the default first.
pub(crate) const LIBRARIES: &[&dyn Provider] = &[
    #[cfg(feature = "aws-lc-rs")]
    &AwsLc,
    #[cfg(feature = "ring")]
    &Ring,
];

macro_rules! provider {
    ($provider:ident, $library:ident, $name:literal) => {
        struct $provider;

        impl Provider for $provider {
            fn name(&self) -> &'static str {
                $name
            }

            fn key(&self, suite: Suite, key: &[u8]) -> Result<Key, CryptoError> {
                use $library::aead;

                let algorithm = match suite {
                    Suite::Aes256Gcm => &aead::AES_256_GCM,
                    Suite::Aes128Gcm => &aead::AES_128_GCM,
                    Suite::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
                };
                let key =
                    aead::UnboundKey::new(algorithm, key).map_err(|_| CryptoError::KeyLength {
                        suite,
                        got: key.len(),
                    })?;

                struct Keyed(Suite, aead::LessSafeKey);

                impl Aead for Keyed {
                    fn suite(&self) -> Suite {
                        self.0
                    }

                    #[inline]
                    fn seal_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
                        let Some((text, tag)) = data.split_last_chunk_mut::<TAG_LEN>() else {
                            return false;
                        };
                        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
                        match self
                            .1
                            .seal_in_place_separate_tag(nonce, aead::Aad::from(aad), text)
                        {
                            Ok(made) => tag.copy_from_slice(made.as_ref()),
                            Err(_) => return false,
                        }
                        true
                    }

                    #[inline]
                    fn open_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
                        let nonce = aead::Nonce::assume_unique_for_key(*nonce);
                        data.len() >= TAG_LEN
                            && self
                                .1
                                .open_in_place(nonce, aead::Aad::from(aad), data)
                                .is_ok()
                    }
                }

                Ok(Key::new(Box::new(Keyed(
                    suite,
                    aead::LessSafeKey::new(key),
                ))))
            }
        }
    };
}

#[cfg(feature = "aws-lc-rs")]
provider!(AwsLc, aws_lc_rs, "aws-lc-rs");
#[cfg(feature = "ring")]
provider!(Ring, ring, "ring");
