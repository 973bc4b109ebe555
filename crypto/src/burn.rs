//! The one file of the crate: which secrets have sealed before.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::Fingerprint;

const HEADER: &str = "# twinseal burned secrets v1\n";

/// Remembers on disk which secrets have been used to seal, so that after a restart, when their
/// counters are lost, they are not used again.
///
/// The file is text: a header line, then the hex fingerprint of one secret a line. It only grows,
/// and one process at a time holds it.
#[derive(Debug)]
pub struct BurnGuard {
    path: PathBuf,
    file: File,
    burned: HashSet<Fingerprint>,
    /// After a failed write nobody knows what the file holds.
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
    /// A line that is no fingerprint. Secrets may be missing from the file, so it is not safe to go
    /// on.
    #[error(
        "{} line {line} is damaged: restore the file, or replace all secrets and delete it",
        .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The line, from 1, which is the header.
        line: usize,
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
    /// An earlier write failed, so what the file holds is not known.
    #[error("an earlier write to {} failed: mend the disk and open the file again", .path.display())]
    Failed {
        /// The file.
        path: PathBuf,
    },
}

impl BurnGuard {
    /// Opens the file, or makes it (mode 0600), and locks it until the guard is dropped.
    ///
    /// A last line that a crash has cut short is removed: its secret never sealed, because
    /// [`burn`](Self::burn) had not returned.
    ///
    /// # Errors
    /// [`BurnError::Locked`], [`BurnError::Corrupt`] or [`BurnError::Io`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, BurnError> {
        let path = path.into();
        let io = |action| {
            let path = path.clone();
            move |source| BurnError::Io {
                action,
                path,
                source,
            }
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("open"))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => BurnError::Locked { path: path.clone() },
            TryLockError::Error(source) => io("lock")(source),
        })?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(io("read"))?;

        let loaded = load(&text).map_err(|line| BurnError::Corrupt {
            path: path.clone(),
            line,
        })?;
        if loaded.missing.is_some() || loaded.sound < text.len() {
            file.set_len(loaded.sound as u64).map_err(io("truncate"))?;
            file.write_all(loaded.missing.unwrap_or("").as_bytes())
                .map_err(io("write"))?;
            file.sync_all().map_err(io("sync"))?;
            sync_parent(&path).map_err(io("sync the folder of"))?;
        }
        Ok(Self {
            path,
            file,
            burned: loaded.burned,
            failed: false,
        })
    }

    /// Whether the secret has been burned.
    #[must_use]
    pub fn is_burned(&self, fingerprint: &Fingerprint) -> bool {
        self.burned.contains(fingerprint)
    }

    /// Burns the secret: when this returns, it is on the disk. Call it before the first packet is
    /// sealed.
    ///
    /// # Errors
    /// [`BurnError::AlreadyBurned`], [`BurnError::Io`] or [`BurnError::Failed`]; the secret must
    /// then not seal.
    pub fn burn(&mut self, fingerprint: &Fingerprint) -> Result<(), BurnError> {
        self.burn_all(std::slice::from_ref(fingerprint))
    }

    /// Burns several secrets with one write and one wait for the disk. All of them, or none.
    ///
    /// # Errors
    /// As [`burn`](Self::burn); a secret that is listed twice counts as already burned.
    pub fn burn_all(&mut self, fingerprints: &[Fingerprint]) -> Result<(), BurnError> {
        if self.failed {
            return Err(BurnError::Failed {
                path: self.path.clone(),
            });
        }
        let mut new = HashSet::with_capacity(fingerprints.len());
        let mut lines = String::with_capacity(65 * fingerprints.len());
        for &fingerprint in fingerprints {
            if self.burned.contains(&fingerprint) || !new.insert(fingerprint) {
                return Err(BurnError::AlreadyBurned { fingerprint });
            }
            lines.push_str(&format!("{fingerprint}\n"));
        }
        if let Err(source) = self
            .file
            .write_all(lines.as_bytes())
            .and_then(|()| self.file.sync_data())
        {
            self.failed = true;
            return Err(BurnError::Io {
                action: "write",
                path: self.path.clone(),
                source,
            });
        }
        self.burned.extend(new);
        Ok(())
    }
}

/// What a file holds.
struct Loaded {
    burned: HashSet<Fingerprint>,
    /// Bytes from the start that stay.
    sound: usize,
    /// What to write after them.
    missing: Option<&'static str>,
}

/// Reads the file's text; the error is the number of a damaged line.
fn load(text: &[u8]) -> Result<Loaded, usize> {
    let mut burned = HashSet::new();
    let Some(body) = text.strip_prefix(HEADER.as_bytes()) else {
        // An empty file, or one whose making was cut short, has burned nothing.
        let torn = HEADER.as_bytes().starts_with(text);
        return if torn {
            Ok(Loaded {
                burned,
                sound: 0,
                missing: Some(HEADER),
            })
        } else {
            Err(1)
        };
    };
    let mut sound = HEADER.len();
    for (number, line) in (2..).zip(body.split_inclusive(|&byte| byte == b'\n')) {
        let digits = line.strip_suffix(b"\n");
        let fingerprint = str::from_utf8(digits.unwrap_or(line))
            .ok()
            .and_then(|text| text.parse().ok());
        match (fingerprint, digits) {
            (Some(fingerprint), Some(_)) => {
                burned.insert(fingerprint);
                sound += line.len();
            }
            // Only the line's end is missing: on the safe side, the secret is burned.
            (Some(fingerprint), None) => {
                burned.insert(fingerprint);
                sound += line.len();
                return Ok(Loaded {
                    burned,
                    sound,
                    missing: Some("\n"),
                });
            }
            (None, None)
                if line
                    .iter()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                    && line.len() < 64 =>
            {
                break;
            }
            (None, _) => return Err(number),
        }
    }
    Ok(Loaded {
        burned,
        sound,
        missing: None,
    })
}

/// Makes a new file's name last over a crash.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}
