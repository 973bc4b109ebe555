//! A provider that leaves every octet as it is: what is left of a packet's cost is everything but the AEAD.

use twinseal_crypto::{Aead, CryptoError, Key, Nonce, Provider, Suite, TAG_LEN};

/// The name on the command line.
pub const NAME: &str = "none";

/// Seals nothing, and opens everything.
pub struct NoopAead;

struct Keyed(Suite);

impl Provider for NoopAead {
    fn name(&self) -> &'static str {
        NAME
    }

    fn key(&self, suite: Suite, _key: &[u8]) -> Result<Key, CryptoError> {
        Ok(Key::new(Box::new(Keyed(suite))))
    }
}

impl Aead for Keyed {
    fn suite(&self) -> Suite {
        self.0
    }

    fn seal_one(&self, _nonce: &Nonce, _aad: &[u8], data: &mut [u8]) -> bool {
        data.len() >= TAG_LEN
    }

    fn open_one(&self, _nonce: &Nonce, _aad: &[u8], data: &mut [u8]) -> bool {
        data.len() >= TAG_LEN
    }
}
