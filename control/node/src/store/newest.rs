//! How far what is stored went: files that were cut, removed or put back since are missed.
//!
//! The file `newest` of the state directory is written after what it tells of is on the disk, in place and without a wait
//! of its own. So after a crash it may tell less than there is, but never more.
//!
//! It is made by `init` alone. One that is missing at a start, or cannot be read, is not made anew: then no secret is taken.
//! One that goes while the node runs is, for the node knows what was in it.
//!
//! ```text
//! "twinseal newest\n", generation u64, burned secrets: count u64, head [32]; mac [32]
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::hmac;
use twinseal_crypto::{BurnMark, write_whole};

use super::StoreError;

/// The file of the state directory.
pub(crate) const FILE: &str = "newest";
const MAGIC: &[u8; 16] = b"twinseal newest\n";
const TEXT: usize = 16 + 8 + 8 + 32;
const MAC: usize = 32;

/// What the disk is known to have.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Reached {
    /// The last generation that was stored.
    pub(crate) generation: u64,
    /// How far the burned secrets went then.
    pub(crate) burned: BurnMark,
}

/// The file, to be written.
pub(crate) struct Newest {
    state_dir: PathBuf,
    file: File,
    key: hmac::Key,
}

impl Newest {
    /// Opens the file.
    pub(super) fn open(state_dir: &Path, key: &hmac::Key) -> Result<Self, StoreError> {
        let path = state_dir.join(FILE);
        let file = open(&path).map_err(|source| StoreError::Io {
            action: "open",
            path,
            source,
        })?;
        Ok(Self {
            state_dir: state_dir.to_owned(),
            file,
            key: key.clone(),
        })
    }

    /// Takes down what is on the disk by now.
    pub(crate) fn write(&self, reached: &Reached) -> io::Result<()> {
        self.file.write_all_at(&bytes(&self.key, reached), 0)
    }

    /// Makes the file anew, with this in it, if somebody has removed, replaced or cut it. Tells whether it was so.
    pub(crate) fn look(&mut self, reached: &Reached) -> io::Result<bool> {
        let path = self.state_dir.join(FILE);
        if is_whole(&self.file, &path, (TEXT + MAC) as u64)? {
            return Ok(false);
        }
        make(&self.state_dir, &self.key, reached)?;
        self.file = open(&path)?;
        Ok(true)
    }
}

impl Newest {
    /// What somebody did to it.
    pub(crate) fn lost(&self) -> String {
        let path = self.state_dir.join(FILE);
        format!(
            "{} was removed, replaced or cut while the node ran,",
            path.display()
        )
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
}

/// Whether an open file is still the one of this name, with so many bytes at least.
pub(super) fn is_whole(file: &File, path: &Path, length: u64) -> io::Result<bool> {
    let held = file.metadata()?;
    let named = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        named => named?,
    };
    Ok((held.dev(), held.ino()) == (named.dev(), named.ino()) && held.len() >= length)
}

/// Makes the file, in place of any other; on the disk when this returns.
pub(super) fn make(state_dir: &Path, key: &hmac::Key, reached: &Reached) -> io::Result<()> {
    write_whole(&state_dir.join(FILE), &bytes(key, reached))
}

fn bytes(key: &hmac::Key, reached: &Reached) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TEXT + MAC);
    bytes.extend(MAGIC);
    bytes.extend(reached.generation.to_be_bytes());
    bytes.extend(reached.burned.count.to_be_bytes());
    bytes.extend(reached.burned.head);
    let mac = hmac::sign(key, &bytes);
    bytes.extend(mac.as_ref());
    bytes
}

/// What a state directory's file tells, or why it tells nothing.
pub(super) fn read(state_dir: &Path, key: &hmac::Key) -> Result<Reached, String> {
    let path: PathBuf = state_dir.join(FILE);
    let tells = |why: &str| {
        let path = path.display();
        format!(
            "{path} {why}: whether the last transactions and burned secrets are missing cannot be told"
        )
    };
    let mut bytes = Vec::new();
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .and_then(|file| file.take(TEXT as u64 + 64).read_to_end(&mut bytes))
        .map_err(|error| tells(&format!("cannot be read ({error})")))?;
    let Some((text, mac)) = bytes.split_at_checked(TEXT) else {
        return Err(tells("is cut off"));
    };
    if hmac::verify(key, text, mac).is_err() || text[..16] != MAGIC[..] {
        return Err(tells("is damaged, or comes from another node"));
    }
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&text[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let mut head = [0; 32];
    head.copy_from_slice(&text[32..]);
    Ok(Reached {
        generation: number(16),
        burned: BurnMark {
            count: number(24),
            head,
        },
    })
}
