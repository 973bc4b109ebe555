//! The key of the macs: whoever has it can make tables that the node believes.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use aws_lc_rs::hmac;

use super::{KEY_FILE, StoreError};

/// The key of the macs.
pub(super) fn key(state_dir: &Path) -> Result<hmac::Key, StoreError> {
    let path = state_dir.join(KEY_FILE);
    let io = |action| {
        let path = path.clone();
        move |source| StoreError::Io {
            action,
            path,
            source,
        }
    };
    let mut octets = zeroize::Zeroizing::new(Vec::with_capacity(33));
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => StoreError::KeyMissing { path: path.clone() },
            _ => io("open")(source),
        })?;
    let mode = file.metadata().map_err(io("look at"))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::KeyMode { path, mode });
    }
    file.take(33).read_to_end(&mut octets).map_err(io("read"))?;
    if octets.len() != 32 {
        return Err(StoreError::Key { path });
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &octets))
}
