//! The one file of the crate: which secrets have sealed or opened before.

mod chain;

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

pub use chain::{BurnMark, BurnUse};
use chain::{Fault, Loaded};

use crate::{Fingerprint, write_whole};

/// Remembers on disk which secrets have been used to seal or to open, so that after a restart, when
/// their counters and replay windows are lost, they are not used again.
///
/// The file is text: a header line, then one secret a line, as its fingerprint in hex, 16 hex
/// digits of a hash over all lines so far, and `opened` if that is what it did. It only grows, and one process at a time holds it. Lines
/// that are changed, left out or reordered are found by that chain; that its end is missing can only
/// be told by whoever keeps a [`BurnMark`].
///
/// A file is made by [`create`](Self::create), once, and never by [`open`](Self::open): one that is
/// not there has been lost.
#[derive(Debug)]
pub struct BurnGuard {
    path: PathBuf,
    file: File,
    burned: HashMap<Fingerprint, BurnUse>,
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
    /// The secret has sealed or opened before. Its counters are lost, so its nonces would repeat, or its replay windows.
    #[error("the secret {fingerprint} has been used before: load a new secret")]
    AlreadyBurned {
        /// Its name.
        fingerprint: Fingerprint,
    },
    /// Another process has the file.
    #[error("{} is in use by another process", .path.display())]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Somebody cut or wrote the file while it was held.
    #[error("{} {why} while it was in use", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What became of it.
        why: &'static str,
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
    #[error("{} {}", .path.display(), lost(*.count, *.needed))]
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

/// Where no secret is missing it is what they are that differs.
fn lost(count: u64, needed: u64) -> String {
    match count < needed {
        true => {
            format!("has lost lines, or is an old copy: it has {count} secrets, and had {needed}")
        }
        false => format!(
            "comes from another node, or from another time: it has {count} secrets, and does not go on from the {needed} that \
             this node knows of"
        ),
    }
}

impl BurnGuard {
    /// Makes the file (mode 0600), or puts another in its place: a chain that begins with `start`,
    /// and these secrets burned. Tells how far it goes. When this returns it is on the disk, under its name.
    ///
    /// A new memory begins with a count of zero and a random head. One that takes the place of a
    /// file that was lost begins with the last mark that is known.
    ///
    /// # Errors
    /// [`BurnError::Io`].
    pub fn create(
        path: &Path,
        start: BurnMark,
        secrets: impl IntoIterator<Item = (Fingerprint, BurnUse)>,
    ) -> Result<BurnMark, BurnError> {
        let mut text = chain::header(&start);
        let mut mark = start;
        let mut seen = HashMap::new();
        for (fingerprint, used) in secrets {
            let before = seen.get(&fingerprint).copied();
            chain::remember(&mut seen, fingerprint, used);
            if before != seen.get(&fingerprint).copied() {
                text.push_str(&chain::line(&mut mark, &fingerprint, used));
            }
        }
        let written = write_whole(path, text.as_bytes());
        written.map(|()| mark).map_err(|source| BurnError::Io {
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
    pub fn salvage(path: &Path) -> Vec<(Fingerprint, BurnUse)> {
        fs::read(path).map_or_else(|_| Vec::new(), |text| chain::salvage(&text).collect())
    }

    /// Whether the secret has been burned to seal.
    #[must_use]
    pub fn is_burned(&self, fingerprint: &Fingerprint) -> bool {
        self.burned.get(fingerprint) == Some(&BurnUse::Sealed)
    }

    /// Whether the secret is remembered to have opened, and not to have sealed.
    #[must_use]
    pub fn has_opened(&self, fingerprint: &Fingerprint) -> bool {
        self.burned.get(fingerprint) == Some(&BurnUse::Opened)
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
    /// # Errors
    /// As [`remember`](Self::remember).
    pub fn burn_all(&mut self, fingerprints: &[Fingerprint]) -> Result<(), BurnError> {
        let sealed = fingerprints.iter().map(|it| (*it, BurnUse::Sealed));
        self.remember(&sealed.collect::<Vec<_>>())
    }

    /// Burns secrets of both kinds, as [`burn_all`](Self::burn_all). Those that are to open are
    /// written before the first packet is opened with them.
    ///
    /// What a write that failed left behind, as on a full disk, is taken back at once: nobody must
    /// read it as burned. If that fails too, the next call does it first.
    ///
    /// # Errors
    /// [`BurnError::AlreadyBurned`], also of a secret that is listed twice; [`BurnError::Io`]; or
    /// [`BurnError::Missing`], when somebody has removed or replaced the file.
    pub fn remember(&mut self, secrets: &[(Fingerprint, BurnUse)]) -> Result<(), BurnError> {
        let mut new = HashMap::with_capacity(secrets.len());
        let mut lines = String::new();
        let mut mark = self.mark;
        for &(fingerprint, used) in secrets {
            let known = match used {
                BurnUse::Sealed => self.is_burned(&fingerprint),
                BurnUse::Opened => self.burned.contains_key(&fingerprint),
            };
            if known || new.insert(fingerprint, used).is_some() {
                return Err(BurnError::AlreadyBurned { fingerprint });
            }
            lines.push_str(&chain::line(&mut mark, &fingerprint, used));
        }
        if let Err(error) = self.write(lines.as_bytes()) {
            self.failed = self.take_back().is_err();
            return Err(error);
        }
        self.failed = false;
        self.length += lines.len() as u64;
        self.mark = mark;
        self.burned.extend(new);
        Ok(())
    }

    /// Whether the file is still there under its name, with all that was written. What was written
    /// over in place is found by who opens it next.
    ///
    /// # Errors
    /// [`BurnError::Missing`], [`BurnError::Changed`] or [`BurnError::Io`].
    pub fn check(&self) -> Result<(), BurnError> {
        let io = |source| BurnError::Io {
            action: "look at",
            path: self.path.clone(),
            source,
        };
        let changed = |why| BurnError::Changed {
            path: self.path.clone(),
            why,
        };
        let held = self.file.metadata().map_err(io)?;
        let named = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BurnError::Missing {
                    path: self.path.clone(),
                });
            }
            named => named.map_err(io)?,
        };
        if (held.dev(), held.ino()) != (named.dev(), named.ino()) {
            return Err(changed("was replaced"));
        }
        match held.len() {
            length if length < self.length => Err(changed("was cut")),
            length if length > self.length && !self.failed => {
                Err(changed("was written to by somebody else"))
            }
            _ => Ok(()),
        }
    }

    /// Removes what follows the bytes that are for certain.
    fn take_back(&self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.sync_all()
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
            self.take_back().map_err(io("truncate"))?;
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
