//! The state directory: made by `twinseal init` and by nothing else, held by one process, and looked at before it is
//! believed. A node that would make it itself could not tell a new one from one whose disk is not mounted.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use twinseal_crypto::{BurnError, BurnGuard, BurnMark, Fingerprint};

use super::burned::Burned;
use super::drain::Drains;
use super::model::State;
use super::store::{self, Loaded, Store, StoreError};
use super::usage::{self, UsageConfig};

/// The file that remembers which secrets have sealed.
pub const BURNED_FILE: &str = "burned";
/// The folder that has usage.
pub const USAGE_FOLDER: &str = "usage";
/// The file that whoever uses the directory holds locked; it has their process id.
const LOCK_FILE: &str = "lock";
/// What others must not be able to do to files: write them.
const OTHERS_WRITE: u32 = 0o022;

/// What a node wants of its state directory.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where it is.
    pub path: PathBuf,
    /// Whether tables are stored there.
    pub keep_tables: bool,
    /// How much usage is.
    pub usage: UsageConfig,
}

/// Why a state directory is not used, or not for secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDirError {
    /// Another process uses it.
    #[error("the state directory {} is in use by {}", .path.display(), holder(.pid))]
    InUse {
        /// Where.
        path: PathBuf,
        /// Who, if that can be told.
        pid: Option<u32>,
    },
    /// It is not there.
    #[error("there is no state directory {}", .path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is there, and nothing in it.
    #[error("the state directory {} was never initialised", .path.display())]
    NotInitialised {
        /// Where.
        path: PathBuf,
    },
    /// It came when the node had tables already, and has others.
    #[error("the state directory {} came while the node ran, and has stored tables", .path.display())]
    Late {
        /// Where.
        path: PathBuf,
    },
    /// To be initialised, and it has been.
    #[error("the state directory {} was initialised already", .path.display())]
    Initialised {
        /// Where.
        path: PathBuf,
    },
    /// Others might have written it.
    #[error("{} {why}", .path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The memory of burned secrets cannot be relied on.
    #[error(transparent)]
    Burned(#[from] BurnError),
    /// It lacks a secret that the stored tables transmit with.
    #[error("{} has lost lines: it lacks the secret {fingerprint}, which the stored tables transmit with", .path.display())]
    Forgotten {
        /// The file.
        path: PathBuf,
        /// Which secret.
        fingerprint: Fingerprint,
    },
    /// The stored tables.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store of usage.
    #[error(transparent)]
    Usage(#[from] usage::StoreError),
    /// A call failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl StateDirError {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "stop that, or give each node a state directory of its own",
            Self::Missing { .. } => {
                "mount what it is on; for a node that never ran make it with `twinseal init`"
            }
            Self::NotInitialised { .. } => {
                "mount what should be there; for a node that never ran use `twinseal init`"
            }
            Self::Late { .. } => "restart the node: it then goes on from these",
            Self::Initialised { .. } => {
                "there is nothing to do; if its memory of burned secrets is lost, replace all secrets that the node \
                 transmits with, then use --secrets-replaced"
            }
            Self::Unsafe { .. } => {
                "see to who wrote it; then have it belong to the node's user and be written by nobody else"
            }
            Self::Burned(_) | Self::Forgotten { .. } | Self::Store(_) => {
                "put the right file back; else replace all secrets that this node transmits with by new ones, stop it, use \
                 `twinseal init --secrets-replaced`, and start it"
            }
            Self::Usage(_) | Self::Io { .. } => "see to the disk and its permissions",
        }
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// A state directory that is used by this process as long as this lives.
pub(super) struct StateDir {
    pub(super) lock: Lock,
    pub(super) burned: Burned,
    /// If tables are kept: where, and those that are there.
    pub(super) store: Option<Store>,
    pub(super) tables: Option<State>,
    /// What was refused of what is there.
    pub(super) damage: Vec<String>,
    pub(super) usage: usage::Store,
    pub(super) drains: Drains,
    pub(super) drains_damage: Option<String>,
}

impl StateDir {
    /// Opens a directory that has been initialised. If its memory of burned secrets cannot be relied on, the rest is used
    /// all the same: [`Burned`] then refuses secrets and says why.
    pub(super) fn open(wanted: &Wanted) -> Result<Self, StateDirError> {
        let path = wanted.path.as_path();
        check_folder(path)?;
        for folder in [store::FOLDER, USAGE_FOLDER] {
            check_inner_folder(&path.join(folder))?;
        }
        if !is_begun(path) {
            return Err(StateDirError::NotInitialised {
                path: path.to_owned(),
            });
        }
        let lock = Lock::take(path)?;
        for file in [store::KEY_FILE, store::newest::FILE] {
            check_file(&path.join(file))?;
        }
        let (store, loaded, newest) = if wanted.keep_tables {
            let (store, loaded) = Store::open(path)?;
            (Some(store), loaded, None)
        } else {
            let (newest, reached) = store::newest_alone(path)?;
            let mut loaded = Loaded::default();
            let generation = match reached {
                Ok(reached) => {
                    loaded.burned = reached.burned;
                    reached.generation
                }
                Err(why) => {
                    loaded.damage.push(why);
                    0
                }
            };
            (None, loaded, Some((newest, generation)))
        };
        let guard = open_burned(path, &loaded);
        let (drains, drains_damage) = Drains::open(path);
        Ok(Self {
            lock,
            burned: Burned::new(guard, loaded.burned, newest),
            store,
            tables: loaded.state,
            damage: loaded.damage,
            usage: usage::Store::open(path.join(USAGE_FOLDER), &wanted.usage)?,
            drains,
            drains_damage,
        })
    }
}

/// Opens the memory of burned secrets, which must go as far as what is stored says, and have all that the tables transmit
/// with: what a `Transmit` names was burned before it was stored.
fn open_burned(path: &Path, loaded: &Loaded) -> Result<BurnGuard, StateDirError> {
    let file = path.join(BURNED_FILE);
    check_file(&file)?;
    let guard = BurnGuard::open(&file, &loaded.burned)?;
    let state = loaded.state.iter();
    let lost = state
        .flat_map(|state| state.transmits.keys().map(move |owner| (state, owner)))
        .filter_map(|(state, owner)| state.keys.get(&state.transmitting(owner)?))
        .find(|key| !guard.is_burned(&key.fingerprint));
    match lost {
        Some(key) => Err(StateDirError::Forgotten {
            path: file,
            fingerprint: key.fingerprint,
        }),
        None => Ok(guard),
    }
}

/// Makes and marks a state directory, with what leads to it; on the disk when this returns.
///
/// With `secrets_replaced`, one that was initialised gets a new memory of burned secrets: who says so has replaced all
/// secrets that the node transmitted with. What can still be read of the old one, and all that the stored tables name,
/// stays burned; tables that can be read stay.
///
/// # Errors
/// [`StateDirError::Initialised`] without `secrets_replaced`, and what stands in the way.
pub fn init(path: &Path, secrets_replaced: bool) -> Result<(), StateDirError> {
    make(path)?;
    check_folder(path)?;
    if is_begun(path) && !secrets_replaced {
        return Err(StateDirError::Initialised {
            path: path.to_owned(),
        });
    }
    let _lock = Lock::take(path)?;
    let file = path.join(BURNED_FILE);
    let mut burned = BurnGuard::salvage(&file);
    let mut random = BurnMark::default();
    getrandom::fill(&mut random.head)
        .map_err(|error| StateDirError::io("draw a random number for", &file)(error.into()))?;
    let start = match store::peek(path) {
        Ok(loaded) => {
            if let Some(state) = &loaded.state {
                let sealed = state
                    .keys
                    .iter()
                    .filter(|(id, _)| state.seals(id) == Some(true));
                burned.extend(sealed.map(|(_, key)| key.fingerprint));
            }
            match loaded.burned == BurnMark::default() {
                true => random,
                false => loaded.burned,
            }
        }
        Err(_) => {
            store::set_aside(path)?;
            store::init(path, random)?;
            random
        }
    };
    // Last, as it is what says that all is there.
    BurnGuard::create(&file, start, burned)?;
    Ok(())
}

/// Whether something that only [`init`] makes is there.
fn is_begun(path: &Path) -> bool {
    let files = [
        BURNED_FILE,
        store::KEY_FILE,
        store::newest::FILE,
        store::FOLDER,
    ];
    files
        .iter()
        .any(|file| fs::symlink_metadata(path.join(file)).is_ok())
}

/// Makes a folder and those above it, each of which lasts over a crash when this returns.
fn make(path: &Path) -> Result<(), StateDirError> {
    let mut missing = Vec::new();
    let mut at = Some(path);
    while let Some(folder) = at.filter(|folder| !folder.as_os_str().is_empty() && !folder.exists())
    {
        missing.push(folder);
        at = folder.parent();
    }
    for folder in missing.into_iter().rev() {
        let parent = folder
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .and_then(|()| File::open(parent.unwrap_or(Path::new(".")))?.sync_all())
            .map_err(StateDirError::io("make", folder))?;
    }
    Ok(())
}

/// The directory must be ours, and nobody else may put files there: so what it has is what we put there.
fn check_folder(path: &Path) -> Result<(), StateDirError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => ours(path, &found),
        Ok(_) => Err(StateDirError::Unsafe {
            path: path.to_owned(),
            why: "is no directory".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StateDirError::Missing {
            path: path.to_owned(),
        }),
        Err(error) => Err(StateDirError::io("look at", path)(error)),
    }
}

/// A folder in it is a folder, and ours; one that is missing is made by who needs it.
fn check_inner_folder(path: &Path) -> Result<(), StateDirError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => ours(path, &found),
        Ok(_) => Err(StateDirError::Unsafe {
            path: path.to_owned(),
            why: "is no directory, or a link to one".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StateDirError::io("look at", path)(error)),
    }
}

/// A file must be ours too; one that is missing is told by who opens it.
fn check_file(path: &Path) -> Result<(), StateDirError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => ours(path, &found),
        Ok(_) => Err(StateDirError::Unsafe {
            path: path.to_owned(),
            why: "is no file, or a link to one".to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StateDirError::io("look at", path)(error)),
    }
}

fn ours(path: &Path, found: &fs::Metadata) -> Result<(), StateDirError> {
    let us = rustix::process::geteuid().as_raw();
    let why = if found.uid() != us {
        format!(
            "belongs to user {} and not to user {us}, who runs this",
            found.uid()
        )
    } else if found.mode() & OTHERS_WRITE != 0 {
        format!(
            "can be written by others: its mode is {:o}",
            found.mode() & 0o7777
        )
    } else {
        return Ok(());
    };
    Err(StateDirError::Unsafe {
        path: path.to_owned(),
        why,
    })
}

/// The directory is used by this process, until this is dropped.
#[derive(Debug)]
pub(super) struct Lock(#[expect(dead_code, reason = "it is locked while it is open")] File);

impl Lock {
    fn take(folder: &Path) -> Result<Self, StateDirError> {
        let path = folder.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(StateDirError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = file.take(32).read_to_string(&mut text);
                return Err(StateDirError::InUse {
                    path: folder.to_owned(),
                    pid: read.ok().and_then(|_| text.trim().parse().ok()),
                });
            }
            Err(TryLockError::Error(error)) => {
                return Err(StateDirError::io("lock", &path)(error));
            }
        }
        // For people, who can do without it on a full disk.
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "the process id could not be written");
        }
        Ok(Self(file))
    }
}
