//! Files with secrets in them that people make: keys of links and circuits, private keys of certificates, passwords. Each must
//! be its owner's alone, so that a secret which others could have read is not put to use unnoticed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::text;

/// Why such a file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// Not its owner alone may read or write it.
    #[error(
        "{0} has mode {mode:04o}: others may read or write the secret in it; put a new secret there, or, if nobody else has \
         read it: chmod 600 {0}",
        text::path(.path)
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}", text::path(.path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Reads a file that is its owner's alone. What is read is wiped when it is dropped.
///
/// # Errors
/// See [`PrivateError`].
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PrivateError> {
    let failed = |source| PrivateError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    // Of the file that is open: the name may become another's meanwhile.
    let about = file.metadata().map_err(failed)?;
    if let Some(mode) = open_mode(&about) {
        let path = path.to_owned();
        return Err(PrivateError::Open { path, mode });
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let length = usize::try_from(about.len()).unwrap_or_default();
    let mut bytes = Zeroizing::new(Vec::with_capacity(length + 1));
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Whether a file is not its owner's alone.
pub fn others_may_read(path: &Path) -> bool {
    let about = std::fs::metadata(path);
    about.is_ok_and(|about| open_mode(&about).is_some())
}

/// The permission bits of a file that not its owner alone may read or write. What is no file, as a pipe of the shell, is
/// whoever's opened it.
fn open_mode(about: &Metadata) -> Option<u32> {
    let mode = about.permissions().mode() & 0o7777;
    (about.is_file() && mode & 0o077 != 0).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_its_owner_alone_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        let missing = read(&path).expect_err("it is not there").to_string();
        assert!(missing.starts_with("cannot read "), "{missing}");
        std::fs::write(&path, "secret").expect("a file");
        for mode in [0o600, 0o400] {
            set_mode(&path, mode);
            assert!(!others_may_read(&path));
            assert_eq!(**read(&path).expect("its owner's"), *b"secret");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644] {
            set_mode(&path, mode);
            assert!(others_may_read(&path));
            let refused = read(&path).expect_err("others may read it").to_string();
            assert!(
                refused.contains(&format!("has mode {mode:04o}")),
                "{refused}"
            );
            assert!(refused.contains("chmod 600 "), "{refused}");
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("ours");
    }
}
