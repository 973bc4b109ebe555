//! The one file of the crate: which secrets have sealed before.

mod chain;

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub use chain::BurnMark;
use chain::{Fault, Loaded};

use crate::{Fingerprint, write_whole};

/// Remembers on disk which secrets have been used to seal, so that after a restart, when their
/// counters are lost, they are not used again.
///
/// The file is text: a header line, then one secret a line, as its fingerprint in hex and 16 hex
/// digits of a hash over all lines so far. It only grows, and one process at a time holds it. Lines
/// that are changed, left out or reordered are found by that chain; that its end is missing can only
/// be told by whoever keeps a [`BurnMark`].
///
/// A file is made by [`create`](Self::create), once, and never by [`open`](Self::open): one that is
/// not there has been lost.
#[derive(Debug)]
pub struct BurnGuard {
    path: PathBuf,
    file: File,
    burned: HashSet<Fingerprint>,
    /// Where the chain ends.
    mark: BurnMark,
    /// Bytes that the file has for certain.
    length: u64,
    /// A write failed: what follows those bytes is to be removed first.
    failed: bool,
}

/// Why a secret could not be burned, or the file not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BurnError {
    /// The secret has sealed before. Its counters are lost, so its nonces would repeat.
    #[error("the secret {fingerprint} has been used to seal before: load a new secret")]
    AlreadyBurned {
        /// Its name.
        fingerprint: Fingerprint,
    },
    /// Another process has the file.
    #[error("{} is in use by another process: stop it, or give each process a state directory of its own", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// There is no such file.
    #[error("{} is missing, and with it the memory of which secrets have sealed", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// What is there is no file of this kind, or others may write it.
    #[error("{} {why}", .path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
    /// An earlier version wrote the file, whose lines do not hang together.
    #[error("{} was written by an earlier version, and nothing tells whether lines of it are missing", .path.display())]
    Unchained {
        /// The file.
        path: PathBuf,
    },
    /// A line that is no secret's, or does not follow from the one before.
    #[error("{} line {line} is damaged, or lines before it are missing", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, from 1, which is the header.
        line: usize,
    },
    /// The file is not the one that was written, or not all of it.
    #[error("{} has lost lines, or is an old or foreign copy: {needed} secrets were burned, and it goes to {count}", .path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// Secrets that it accounts for.
        count: u64,
        /// Secrets that it must account for.
        needed: u64,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl BurnGuard {
    /// Makes the file (mode 0600), or puts another in its place: a chain that begins with `start`,
    /// and these secrets burned. When this returns it is on the disk, under its name.
    ///
    /// A new memory begins with a count of zero and a random head. One that takes the place of a
    /// file that was lost begins with the last mark that is known.
    ///
    /// # Errors
    /// [`BurnError::Io`].
    pub fn create(
        path: &Path,
        start: BurnMark,
        fingerprints: impl IntoIterator<Item = Fingerprint>,
    ) -> Result<(), BurnError> {
        let mut text = chain::header(&start);
        let mut mark = start;
        let mut seen = HashSet::new();
        for fingerprint in fingerprints {
            if seen.insert(fingerprint) {
                text.push_str(&chain::line(&mut mark, &fingerprint));
            }
        }
        write_whole(path, text.as_bytes()).map_err(|source| BurnError::Io {
            action: "make",
            path: path.to_owned(),
            source,
        })
    }

    /// Opens the file and locks it until the guard is dropped. It must still have `at_least`, a mark
    /// that the caller has kept; [`BurnMark::default`] asks for nothing.
    ///
    /// A last line that a crash has cut short is removed: its secret never sealed, because
    /// [`burn`](Self::burn) had not returned.
    ///
    /// # Errors
    /// All but [`BurnError::AlreadyBurned`]. But for [`BurnError::Locked`] and [`BurnError::Io`],
    /// secrets may be missing from the file, so none must be used until they are all replaced.
    pub fn open(path: impl Into<PathBuf>, at_least: &BurnMark) -> Result<Self, BurnError> {
        let path = path.into();
        let io = |action| {
            let path = path.clone();
            move |source| BurnError::Io {
                action,
                path,
                source,
            }
        };
        let opened = OpenOptions::new()
            .read(true)
            .append(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        let mut file = opened.map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT) => BurnError::Missing { path: path.clone() },
            Some(libc::ELOOP) => {
                unsafe_file(&path, "is a symbolic link: put the file itself there")
            }
            _ => io("open")(source),
        })?;
        let metadata = file.metadata().map_err(io("look at"))?;
        if !metadata.is_file() {
            return Err(unsafe_file(&path, "is no file: remove it"));
        }
        if metadata.mode() & 0o022 != 0 {
            let why = "can be written by others: see to who did, then set its mode to 0600";
            return Err(unsafe_file(&path, why));
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BurnError::Locked { path: path.clone() },
            TryLockError::Error(source) => io("lock")(source),
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io("read"))?;

        let Loaded {
            burned,
            mark,
            sound,
            missing,
        } = chain::load(&text, at_least).map_err(|fault| match fault {
            Fault::Unchained => BurnError::Unchained { path: path.clone() },
            Fault::Corrupt(line) => BurnError::Corrupt {
                path: path.clone(),
                line,
            },
            Fault::Lost(mark) => BurnError::Lost {
                path: path.clone(),
                count: mark.count,
                needed: at_least.count,
            },
        })?;
        if !missing.is_empty() || sound < text.len() {
            file.set_len(sound as u64).map_err(io("truncate"))?;
            file.write_all(missing.as_bytes()).map_err(io("write"))?;
            file.sync_all().map_err(io("sync"))?;
        }
        Ok(Self {
            path,
            file,
            burned,
            mark,
            length: (sound + missing.len()) as u64,
            failed: false,
        })
    }

    /// Every secret that a file names, however damaged it is; none if it cannot be read.
    #[must_use]
    pub fn salvage(path: &Path) -> Vec<Fingerprint> {
        fs::read(path).map_or_else(|_| Vec::new(), |text| chain::salvage(&text).collect())
    }

    /// Whether the secret has been burned.
    #[must_use]
    pub fn is_burned(&self, fingerprint: &Fingerprint) -> bool {
        self.burned.contains(fingerprint)
    }

    /// How far the file goes.
    #[must_use]
    pub fn mark(&self) -> BurnMark {
        self.mark
    }

    /// Burns the secret: when this returns, it is on the disk. Call it before the first packet is
    /// sealed.
    ///
    /// # Errors
    /// As [`burn_all`](Self::burn_all); the secret must then not seal.
    pub fn burn(&mut self, fingerprint: &Fingerprint) -> Result<(), BurnError> {
        self.burn_all(std::slice::from_ref(fingerprint))
    }

    /// Burns several secrets with one write and one wait for the disk. All of them, or none.
    ///
    /// After a write that failed, as on a full disk, the next call takes back what it may have left
    /// and tries again.
    ///
    /// # Errors
    /// [`BurnError::AlreadyBurned`], also of a secret that is listed twice; [`BurnError::Io`]; or
    /// [`BurnError::Missing`], when somebody has removed or replaced the file.
    pub fn burn_all(&mut self, fingerprints: &[Fingerprint]) -> Result<(), BurnError> {
        let mut new = HashSet::with_capacity(fingerprints.len());
        let mut lines = String::new();
        let mut mark = self.mark;
        for &fingerprint in fingerprints {
            if self.burned.contains(&fingerprint) || !new.insert(fingerprint) {
                return Err(BurnError::AlreadyBurned { fingerprint });
            }
            lines.push_str(&chain::line(&mut mark, &fingerprint));
        }
        let written = self.write(lines.as_bytes());
        self.failed = written.is_err();
        written?;
        self.length += lines.len() as u64;
        self.mark = mark;
        self.burned.extend(new);
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> Result<(), BurnError> {
        let io = |action| {
            let path = self.path.clone();
            move |source| BurnError::Io {
                action,
                path,
                source,
            }
        };
        if self.file.metadata().map_err(io("look at"))?.nlink() == 0 {
            return Err(BurnError::Missing {
                path: self.path.clone(),
            });
        }
        if self.failed {
            self.file
                .set_len(self.length)
                .and_then(|()| self.file.sync_all())
                .map_err(io("truncate"))?;
        }
        self.file
            .write_all(lines)
            .and_then(|()| self.file.sync_data())
            .map_err(io("write"))
    }
}

fn unsafe_file(path: &Path, why: &'static str) -> BurnError {
    BurnError::Unsafe {
        path: path.to_owned(),
        why,
    }
}
