use crate::{AAD_LEN, CryptoError, Nonce, Suite, libs};

/// One packet of a batch.
///
/// To seal, `data` is the plaintext and [`TAG_LEN`](crate::TAG_LEN) spare bytes, which take the
/// tag. To open, it is the ciphertext and its tag; the plaintext comes to stand in
/// `data[..data.len() - TAG_LEN]`.
#[derive(Debug)]
pub struct Packet<'a> {
    /// Must be unique under the key when sealing: take it from
    /// [`SealSa::nonce`](crate::SealSa::nonce).
    pub nonce: Nonce,
    /// Authenticated, not encrypted: the packet's header.
    pub aad: [u8; AAD_LEN],
    /// The bytes that change in place.
    pub data: &'a mut [u8],
    /// The result, whatever it was before. False after `open`: the tag did not verify. False after
    /// either: `data` is too short. What `data` then holds is unspecified, but it is no
    /// plaintext that failed authentication.
    pub ok: bool,
}

impl<'a> Packet<'a> {
    /// A packet that is not yet sealed or opened.
    #[inline]
    #[must_use]
    pub fn new(nonce: Nonce, aad: [u8; AAD_LEN], data: &'a mut [u8]) -> Self {
        Self {
            nonce,
            aad,
            data,
            ok: false,
        }
    }
}

/// An algorithm with one key. The key cannot be read back.
///
/// An implementation needs only the calls for one packet; one that is faster over many overrides
/// those for batches.
pub trait Aead: Send + Sync {
    /// The algorithm.
    fn suite(&self) -> Suite;

    /// Seals one packet in place, with associated data of any length; see [`Packet`] for `data` and
    /// the result.
    fn seal_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool;

    /// Opens one packet in place, with associated data of any length; see [`Packet`] for `data` and
    /// the result.
    fn open_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool;

    /// Seals every packet of the batch and sets its `ok`.
    fn seal(&self, batch: &mut [Packet<'_>]) {
        for packet in batch {
            packet.ok = self.seal_one(&packet.nonce, &packet.aad, packet.data);
        }
    }

    /// Opens every packet of the batch and sets its `ok`.
    fn open(&self, batch: &mut [Packet<'_>]) {
        for packet in batch {
            packet.ok = self.open_one(&packet.nonce, &packet.aad, packet.data);
        }
    }
}

/// A library that implements the suites.
pub trait Provider: Send + Sync {
    /// The name in configuration.
    fn name(&self) -> &'static str;

    /// An AEAD with a copy of this key; the caller wipes its own.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] when the key is not of the suite's length.
    fn aead(&self, suite: Suite, key: &[u8]) -> Result<Box<dyn Aead>, CryptoError>;
}

/// The name of the provider to use when the user names none.
pub const DEFAULT_PROVIDER: &str = if cfg!(feature = "aws-lc-rs") {
    "aws-lc-rs"
} else {
    "ring"
};

/// Every provider that was built in, the default first.
#[must_use]
pub fn providers() -> &'static [&'static dyn Provider] {
    &[
        #[cfg(feature = "aws-lc-rs")]
        &libs::AwsLc,
        #[cfg(feature = "ring")]
        &libs::Ring,
    ]
}

/// The provider of that name: `aws-lc-rs` or `ring`.
///
/// # Errors
/// [`CryptoError::UnknownProvider`] with the known names, when none has that name.
pub fn provider(name: &str) -> Result<&'static dyn Provider, CryptoError> {
    providers()
        .iter()
        .find(|p| p.name() == name)
        .copied()
        .ok_or_else(|| CryptoError::UnknownProvider {
            name: name.to_owned(),
            known: providers().iter().map(|p| p.name()).collect(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_found_by_name() {
        assert_eq!(providers()[0].name(), DEFAULT_PROVIDER);
        for known in providers() {
            assert_eq!(provider(known.name()).unwrap().name(), known.name());
        }
        let Err(error) = provider("openssl") else {
            panic!("no such provider")
        };
        assert!(error.to_string().contains(DEFAULT_PROVIDER), "{error}");
    }
}
