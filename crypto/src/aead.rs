use std::{fmt, sync::LazyLock};

use crate::{
    AAD_LEN, CryptoError, HEADER_LEN, Nonce, Suite, TAG_LEN,
    aes_gcm::{self, GcmKey},
    chacha::{self, ChaChaKey},
    libs,
    prefetch::prefetch_all,
};

/// One packet of a batch.
///
/// To seal, `data` is the plaintext and [`TAG_LEN`](crate::TAG_LEN) spare bytes, which take the
/// tag. To open, it is the ciphertext and its tag; the plaintext comes to stand in
/// `data[..data.len() - TAG_LEN]`.
#[derive(Debug)]
pub struct Packet<'a> {
    /// What it is sealed or opened with; the packets of a batch need not have it in common.
    pub key: &'a Key,
    /// The bytes that change in place.
    pub data: &'a mut [u8],
    /// Must be unique under the key when sealing: take the whole packet from
    /// [`SealSa::packet`](crate::SealSa::packet).
    pub nonce: Nonce,
    /// Authenticated, not encrypted: the packet's header.
    pub aad: [u8; AAD_LEN],
    /// The result, whatever it was before. False after `open`: the tag did not verify. False after
    /// either: `data` is too short. What `data` then holds is unspecified, but it is no
    /// plaintext that failed authentication.
    pub ok: bool,
}

impl<'a> Packet<'a> {
    /// A packet that is not yet sealed or opened.
    #[inline]
    #[must_use]
    pub fn new(key: &'a Key, nonce: Nonce, aad: [u8; AAD_LEN], data: &'a mut [u8]) -> Self {
        Self {
            key,
            data,
            nonce,
            aad,
            ok: false,
        }
    }
}

/// What one seal is made with.
#[derive(Clone, Copy, Debug)]
pub struct Seal<'a> {
    /// What it is sealed with.
    pub key: &'a Key,
    /// Must be unique under the key: take the whole from [`SealSa::seal`](crate::SealSa::seal).
    pub nonce: Nonce,
    /// Authenticated, not encrypted.
    pub aad: [u8; AAD_LEN],
}

/// One packet of a batch in which some take both seals and some the link's alone.
///
/// `link.data` is, with both, a header of [`HEADER_LEN`](crate::HEADER_LEN) bytes, the text, and spare bytes for two
/// tags. The circuit seal covers the text, the link seal the header and all that the circuit seal
/// made. Without the circuit's it is as for [`seal`].
///
/// So all of this comes before the call: both counters are reserved, the circuit's header stands in `link.data` and
/// in `circuit.aad` as far as that covers it, and the link's header is in `link.aad`.
#[derive(Debug)]
pub struct Layered<'a> {
    /// The seal over the text, from [`SealSa::seal`](crate::SealSa::seal); none when the packet is sealed
    /// already and only goes over a link.
    pub circuit: Option<Seal<'a>>,
    /// The packet with the seal over all of it, from [`SealSa::packet`](crate::SealSa::packet). Its `ok` is the
    /// packet's. Where it is false, what `data` holds is unspecified and must not be sent.
    pub link: Packet<'a>,
}

/// Seals every packet of the batch in place and sets its `ok`.
#[inline]
pub fn seal(batch: &mut [Packet<'_>]) {
    each::<false>(batch);
}

/// Opens every packet of the batch in place and sets its `ok`.
#[inline]
pub fn open(batch: &mut [Packet<'_>]) {
    each::<true>(batch);
}

/// Seals every packet of the batch in place and sets its `link.ok`: as two calls of [`seal`] do it, first with the
/// circuits' keys and then with the links', and faster at every length where both keys are of our own kernel and of
/// one size. A library makes one seal after the other.
#[inline]
pub fn seal_layers(mut batch: &mut [Layered<'_>]) {
    let (mut kernel, mut chacha) = (aes_gcm::Layers::new(), chacha::Batch::<false>::new());
    while let Some((Layered { circuit, link }, rest)) = batch.split_first_mut() {
        if let Some(next) = rest.first() {
            let circuit = next.circuit.as_ref().map(|circuit| circuit.key);
            prefetch_long(circuit.unwrap_or(next.link.key), next.link.data);
        }
        match (&*circuit, &link.key.0) {
            (None, Kind::Kernel(key)) => kernel.push_one(key, link),
            (None, Kind::ChaCha(key)) => chacha.push(key, link),
            (None, Kind::Library(aead)) => {
                link.ok = aead.seal_one(&link.nonce, &link.aad, link.data);
            }
            (Some(circuit), Kind::Kernel(outer)) if let Kind::Kernel(inner) = &circuit.key.0 => {
                kernel.push_two((inner, circuit), (outer, link));
            }
            (Some(circuit), Kind::ChaCha(outer)) if let Kind::ChaCha(inner) = &circuit.key.0 => {
                chacha.push_two((inner, circuit), (outer, link));
            }
            (Some(circuit), _) => one_by_one(circuit, link),
        }
        batch = rest;
    }
    kernel.finish();
    chacha.finish();
}

/// The part of a packet's data that its inner seal is made of; none when it is too short.
pub(crate) fn inside(data: &mut [u8]) -> Option<&mut [u8]> {
    let end = data.len().checked_sub(TAG_LEN)?;
    data.get_mut(HEADER_LEN..end)
}

/// Makes one seal after the other.
fn one_by_one(circuit: &Seal<'_>, link: &mut Packet<'_>) {
    let sealed = inside(link.data)
        .is_some_and(|text| circuit.key.seal_one(&circuit.nonce, &circuit.aad, text));
    link.ok = sealed && link.key.seal_one(&link.nonce, &link.aad, link.data);
}

#[inline]
fn each<const OPEN: bool>(mut batch: &mut [Packet<'_>]) {
    let (mut kernel, mut chacha) = (aes_gcm::Batch::<OPEN>::new(), chacha::Batch::<OPEN>::new());
    while let Some((packet, rest)) = batch.split_first_mut() {
        if let Some(next) = rest.first() {
            prefetch_long(next.key, next.data);
        }
        match &packet.key.0 {
            Kind::Library(aead) => {
                let Packet { nonce, aad, .. } = packet;
                packet.ok = if OPEN {
                    aead.open_one(nonce, aad, packet.data)
                } else {
                    aead.seal_one(nonce, aad, packet.data)
                };
            }
            Kind::Kernel(key) => kernel.push(key, packet),
            Kind::ChaCha(key) => chacha.push(key, packet),
        }
        batch = rest;
    }
    kernel.finish();
    chacha.finish();
}

/// A packet from this length on takes so long that the next one's octets and key can be asked for meanwhile.
const LONG: usize = 256;

/// Asks the processor for a packet and its key while another is being worked on, if it is long: the processor guesses the
/// rest of it only after its first lines. Those of short ones are at hand with their headers, and their keys have been
/// asked for a stage ahead: see [`Key::prefetch`].
#[inline(always)]
fn prefetch_long(key: &Key, data: &[u8]) {
    if data.len() > LONG {
        prefetch_all(data);
        if let Kind::Kernel(key) = &key.0 {
            key.prefetch_all();
        }
    }
}

/// An algorithm with one key, which cannot be read back.
pub struct Key(Kind);

enum Kind {
    Library(Box<dyn Aead>),
    /// Of our own, which takes batches.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "there is no kernel to make one")
    )]
    Kernel(Box<GcmKey>),
    /// The other one of our own.
    #[cfg_attr(
        not(target_arch = "x86_64"),
        allow(dead_code, reason = "there is no kernel to make one")
    )]
    ChaCha(Box<ChaChaKey>),
}

impl Key {
    /// A key of a library.
    pub fn new(aead: Box<dyn Aead>) -> Self {
        Self(Kind::Library(aead))
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of_kernel(key: Box<GcmKey>) -> Self {
        Self(Kind::Kernel(key))
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of_chacha(key: Box<ChaChaKey>) -> Self {
        Self(Kind::ChaCha(key))
    }

    /// Asks the processor for what a packet of `len` bytes needs of it, if the time of the packet before is too short for
    /// that.
    #[inline(always)]
    pub(crate) fn prefetch(&self, len: usize) {
        match &self.0 {
            Kind::Kernel(key) if len <= LONG => key.prefetch_short(),
            Kind::ChaCha(key) => key.prefetch(),
            Kind::Kernel(_) | Kind::Library(_) => {}
        }
    }

    /// The algorithm.
    #[must_use]
    pub fn suite(&self) -> Suite {
        match &self.0 {
            Kind::Library(aead) => aead.suite(),
            Kind::Kernel(key) => key.suite(),
            Kind::ChaCha(key) => key.suite(),
        }
    }

    /// Seals one packet in place, with associated data of any length; see [`Packet`] for `data` and
    /// the result.
    #[inline]
    pub fn seal_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        match &self.0 {
            Kind::Library(aead) => aead.seal_one(nonce, aad, data),
            Kind::Kernel(key) => key.seal_one(nonce, aad, data),
            Kind::ChaCha(key) => key.seal_one(nonce, aad, data),
        }
    }

    /// Opens one packet in place, with associated data of any length; see [`Packet`] for `data` and
    /// the result.
    #[inline]
    pub fn open_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool {
        match &self.0 {
            Kind::Library(aead) => aead.open_one(nonce, aad, data),
            Kind::Kernel(key) => key.open_one(nonce, aad, data),
            Kind::ChaCha(key) => key.open_one(nonce, aad, data),
        }
    }
}

impl fmt::Debug for Key {
    // Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("suite", &self.suite()).finish()
    }
}

/// What a library does with one key.
pub trait Aead: Send + Sync {
    /// The algorithm.
    fn suite(&self) -> Suite;

    /// As [`Key::seal_one`].
    fn seal_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool;

    /// As [`Key::open_one`].
    fn open_one(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> bool;
}

/// An implementation of the suites.
pub trait Provider: Send + Sync {
    /// The name in configuration.
    fn name(&self) -> &'static str;

    /// The name, and which form of the code this CPU runs if there are several.
    fn label(&self) -> &'static str {
        self.name()
    }

    /// A copy of this key, ready for use; the caller wipes its own.
    ///
    /// # Errors
    /// [`CryptoError::KeyLength`] when the key is not of the suite's length.
    fn key(&self, suite: Suite, key: &[u8]) -> Result<Key, CryptoError>;
}

/// The name of the provider to use when the user names none: [`default_provider`], whichever that is
/// here.
pub const DEFAULT_PROVIDER: &str = "auto";

/// Every provider that works here: the libraries that were built in, and our own kernel `twinseal` where
/// the CPU has what it takes.
#[must_use]
pub fn providers() -> &'static [&'static dyn Provider] {
    static PROVIDERS: LazyLock<Vec<&'static dyn Provider>> = LazyLock::new(|| {
        libs::LIBRARIES
            .iter()
            .copied()
            .chain(aes_gcm::kernel())
            .collect()
    });
    &PROVIDERS
}

/// [`providers`], and our own kernel also in the forms that this CPU could run but that are not the
/// best for it: for tests of them.
#[doc(hidden)]
#[must_use]
pub fn all_forms() -> Vec<&'static dyn Provider> {
    let others = aes_gcm::kernels().iter().skip(1);
    providers().iter().chain(others).copied().collect()
}

/// The provider to use when the user names none: our own kernel where the CPU has what it takes, else
/// the first library.
#[must_use]
pub fn default_provider() -> &'static dyn Provider {
    aes_gcm::kernel().unwrap_or(libs::LIBRARIES[0])
}

/// The provider of that name: `auto`, `aws-lc-rs`, `ring` or `twinseal`.
///
/// # Errors
/// [`CryptoError::UnsupportedProvider`] when it needs a better CPU,
/// [`CryptoError::UnknownProvider`] when none has that name; both with the names to use.
pub fn provider(name: &str) -> Result<&'static dyn Provider, CryptoError> {
    if name == DEFAULT_PROVIDER {
        return Ok(default_provider());
    }
    if let Some(found) = providers().iter().find(|p| p.name() == name) {
        return Ok(*found);
    }
    let known = provider_names();
    Err(match name {
        aes_gcm::NAME => CryptoError::UnsupportedProvider {
            name: aes_gcm::NAME,
            missing: aes_gcm::missing(),
            known,
        },
        _ => CryptoError::UnknownProvider {
            name: name.to_owned(),
            known,
        },
    })
}

/// The names that [`provider`] finds here.
#[must_use]
pub fn provider_names() -> Vec<&'static str> {
    let known = providers().iter().map(|p| p.name());
    [DEFAULT_PROVIDER].into_iter().chain(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_found_by_name() {
        let default = provider(DEFAULT_PROVIDER).unwrap();
        assert_eq!(default.name(), default_provider().name());
        let kernel = providers().iter().find(|p| p.name() == aes_gcm::NAME);
        assert_eq!(
            default.name(),
            kernel.unwrap_or(&providers()[0]).name(),
            "our own where it works"
        );
        for known in providers() {
            assert_eq!(provider(known.name()).unwrap().name(), known.name());
        }
        let Err(error) = provider("openssl") else {
            panic!("no such provider")
        };
        assert!(error.to_string().contains(DEFAULT_PROVIDER), "{error}");
    }
}
