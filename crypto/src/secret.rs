//! Secrets, in memory of their own. All unsafe code of the crate is here and in `aes_gcm`.

use std::{fmt, io, ptr::NonNull, str::FromStr};

use zeroize::Zeroize;

use crate::{CryptoError, SECRET_LEN, kdf};

/// 32 secret bytes, alone in a page that is locked into memory, left out of core dumps, and wiped
/// when dropped.
///
/// It cannot be printed, copied or compared. Keys that are derived from it live inside the AEAD
/// provider, in ordinary memory.
pub struct Secret {
    page: NonNull<[u8; SECRET_LEN]>,
    locked: bool,
}

// SAFETY: the page belongs to this value alone, as a Box's memory would, and nothing in it is tied
// to a thread.
unsafe impl Send for Secret {}
// SAFETY: a shared reference only reads the bytes, which nobody writes between construction and
// drop.
unsafe impl Sync for Secret {}

impl Secret {
    /// Takes the secret over and wipes the source, also when it fails.
    ///
    /// # Errors
    /// [`CryptoError::SecretMemory`] when the kernel gives no page.
    pub fn from_bytes(source: &mut [u8; SECRET_LEN]) -> Result<Self, CryptoError> {
        let secret = Self::zero().map(|mut secret| {
            secret.bytes_mut().copy_from_slice(source);
            secret
        });
        source.zeroize();
        secret
    }

    /// Takes the secret over and wipes the source with its whole capacity, also when it fails.
    ///
    /// # Errors
    /// [`CryptoError::SecretLength`] unless the source has [`SECRET_LEN`] bytes;
    /// [`CryptoError::SecretMemory`] when the kernel gives no page.
    pub fn from_vec(source: &mut Vec<u8>) -> Result<Self, CryptoError> {
        let secret = match <&mut [u8; SECRET_LEN]>::try_from(source.as_mut_slice()) {
            Ok(bytes) => Self::from_bytes(bytes),
            Err(_) => Err(CryptoError::SecretLength(source.len())),
        };
        source.zeroize();
        secret
    }

    /// Whether the page is locked into memory. If not (`RLIMIT_MEMLOCK` is too low), it may reach
    /// swap: tell the operator.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// A name for the secret that may be logged and stored.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(kdf::fingerprint(self.bytes()))
    }

    pub(crate) fn bytes(&self) -> &[u8; SECRET_LEN] {
        // SAFETY: the page is mapped readable and at least this long until drop, and only
        // `bytes_mut` writes it.
        unsafe { self.page.as_ref() }
    }

    fn bytes_mut(&mut self) -> &mut [u8; SECRET_LEN] {
        // SAFETY: the page is mapped writable and at least this long until drop, and `self` is
        // borrowed exclusively.
        unsafe { self.page.as_mut() }
    }

    /// A new page. Locking is best effort and reported; everything else must succeed.
    fn zero() -> Result<Self, CryptoError> {
        let refused = || CryptoError::SecretMemory(io::Error::last_os_error());
        let (protection, flags) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        );
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory in
        // use.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), SECRET_LEN, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(refused());
        }
        let page = NonNull::new(page.cast()).ok_or_else(refused)?;
        let mut secret = Self {
            page,
            locked: false,
        };
        // SAFETY: the range is the mapping just made; the advice leaves its contents alone.
        if unsafe { libc::madvise(page.as_ptr().cast(), SECRET_LEN, libc::MADV_DONTDUMP) } != 0 {
            return Err(refused());
        }
        // SAFETY: the range is the mapping just made; locking leaves its contents alone.
        secret.locked = unsafe { libc::mlock(page.as_ptr().cast(), SECRET_LEN) } == 0;
        Ok(secret)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        // SAFETY: the mapping was made in `zero` with this length and is not used after; unmapping
        // also unlocks it.
        unsafe { libc::munmap(self.page.as_ptr().cast(), SECRET_LEN) };
    }
}

/// A public name of a [`Secret`]: it betrays nothing of it, and the same secret always has the same
/// one. Shown as hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub(crate) [u8; 32]);

impl Fingerprint {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// The text was not 64 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 lower-case hex digits")]
pub struct ParseFingerprintError;

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let digits: &[u8; 64] = text
            .as_bytes()
            .try_into()
            .map_err(|_| ParseFingerprintError)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn digit(digit: u8) -> Result<u8, ParseFingerprintError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(ParseFingerprintError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_wiped_and_bytes_kept() {
        let mut source = [5; SECRET_LEN];
        let secret = Secret::from_bytes(&mut source).unwrap();
        assert_eq!(
            (source, secret.bytes()),
            ([0; SECRET_LEN], &[5; SECRET_LEN])
        );

        let mut source = vec![6; SECRET_LEN];
        let secret = Secret::from_vec(&mut source).unwrap();
        assert!(source.is_empty());
        assert_eq!(secret.bytes(), &[6; SECRET_LEN]);
    }

    #[test]
    fn wrong_lengths_are_refused_and_wiped() {
        for len in [0, SECRET_LEN - 1, SECRET_LEN + 1] {
            let mut source = vec![6; len];
            assert!(
                matches!(Secret::from_vec(&mut source), Err(CryptoError::SecretLength(got)) if got == len)
            );
            assert!(source.is_empty());
        }
    }

    #[test]
    fn the_page_is_locked_and_not_dumped() {
        let secret = Secret::from_bytes(&mut [1; SECRET_LEN]).unwrap();
        let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else {
            eprintln!("SKIPPED: /proc/self/smaps cannot be read");
            return;
        };
        let start = format!("{:x}-", secret.page.as_ptr() as usize);
        let mut mapping = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = mapping
            .find(|line| line.starts_with("VmFlags:"))
            .expect("the page is a mapping of its own");
        let flags: Vec<_> = flags.split_whitespace().collect();
        assert!(flags.contains(&"dd"), "MADV_DONTDUMP: {flags:?}");
        assert_eq!(flags.contains(&"lo"), secret.locked(), "mlock: {flags:?}");
    }

    #[test]
    fn fingerprints_print_and_parse() {
        let one = Secret::from_bytes(&mut [1; SECRET_LEN])
            .unwrap()
            .fingerprint();
        let again = Secret::from_bytes(&mut [1; SECRET_LEN])
            .unwrap()
            .fingerprint();
        let two = Secret::from_bytes(&mut [2; SECRET_LEN])
            .unwrap()
            .fingerprint();
        assert!(one == again && one != two);
        assert_eq!(one.to_string().parse(), Ok(one));
        assert_eq!(format!("{one:?}"), format!("Fingerprint({one})"));

        let upper = one.to_string().to_uppercase();
        for wrong in ["", "00", &upper, &"é".repeat(32), &format!("{one}0")] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(ParseFingerprintError));
        }
    }

    /// Whether a type has a trait: the inherent constant wins over the trait's where its bound
    /// holds.
    macro_rules! has {
        ($type:ty: $bound:path) => {{
            #[allow(dead_code, reason = "used only for types that lack the trait")]
            trait Not {
                const HAS: bool = false;
            }
            impl<T: ?Sized> Not for T {}
            struct Probe<T>(std::marker::PhantomData<T>);
            #[allow(dead_code, reason = "used only for types that have the trait")]
            impl<T: $bound> Probe<T> {
                const HAS: bool = true;
            }
            <Probe<$type>>::HAS
        }};
    }

    #[test]
    fn a_secret_cannot_be_printed_copied_or_compared() {
        assert!(
            has!(Fingerprint: fmt::Debug) && has!(Fingerprint: PartialEq),
            "the probe works"
        );
        assert!(!has!(Secret: fmt::Debug) && !has!(Secret: fmt::Display));
        assert!(!has!(Secret: Clone) && !has!(Secret: PartialEq));
        assert!(!has!(Secret: AsRef<[u8]>) && !has!(Secret: std::ops::Deref));
        assert!(has!(Secret: Send) && has!(Secret: Sync));
    }
}
