//! The key of the macs: whoever has it can make tables that the node believes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;

use super::{KEY_FILE, StoreError};

/// Bytes of the key.
const LEN: usize = 32;

/// The key of the macs.
pub(super) fn key(state_dir: &Path) -> Result<hmac::Key, StoreError> {
    let (path, file) = open(state_dir)?;
    let mut octets = zeroize::Zeroizing::new(Vec::with_capacity(33));
    match file.take(33).read_to_end(&mut octets) {
        Ok(LEN) => Ok(hmac::Key::new(hmac::HMAC_SHA256, &octets)),
        Ok(_) => Err(StoreError::Key { path }),
        Err(error) => Err(io("read", &path)(error)),
    }
}

/// Whether it is there as the next start wants it.
pub(crate) fn check(state_dir: &Path) -> Result<(), StoreError> {
    let (path, file) = open(state_dir)?;
    match file.metadata().map_err(io("look at", &path))?.len() {
        len if len == LEN as u64 => Ok(()),
        _ => Err(StoreError::Key { path }),
    }
}

fn open(state_dir: &Path) -> Result<(PathBuf, File), StoreError> {
    let path = state_dir.join(KEY_FILE);
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::KeyMissing { path: path.clone() },
            _ => io("open", &path)(source),
        })?;
    let found = file.metadata().map_err(io("look at", &path))?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::KeyMode { path, mode });
    }
    Ok((path, file))
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source,
    }
}
