//! The state directory: made by `twinseal init` and by nothing else, held by one process, and looked at before it is
//! believed. A node that would make it itself could not tell a new one from one whose disk is not mounted.

mod error;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use twinseal_crypto::{BurnError, BurnGuard, BurnMark, BurnUse};

use crate::burned::Burned;
use crate::drain::Drains;
use crate::store::{Loaded, Store};
use crate::usage::UsageConfig;
use crate::{store, usage};
use twinseal_model::state::State;

pub use error::StateDirError;

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

/// A state directory that is used by this process as long as this lives.
pub struct StateDir {
    pub(super) lock: Lock,
    pub(super) burned: Burned,
    /// If tables are kept: where, and those that are there.
    pub(super) store: Option<Store>,
    pub(super) tables: Option<State>,
    /// The generation of a transaction that waited for its confirmation, and is not in them.
    pub(super) waiting: Vec<u64>,
    /// What was refused of what is there.
    pub(super) damage: Vec<String>,
    pub(super) usage: usage::Store,
    pub(super) drains: Drains,
    pub(super) drains_damage: Option<String>,
}

impl StateDir {
    /// Opens a directory that has been initialised. If its memory of burned secrets cannot be relied on, the rest is used
    /// all the same: [`Burned`] then refuses secrets and says why.
    pub fn open(wanted: &Wanted) -> Result<Self, StateDirError> {
        let path = wanted.path.as_path();
        check_folders(path)?;
        if !is_begun(path) {
            return Err(StateDirError::NotInitialised {
                path: path.to_owned(),
            });
        }
        let lock = Lock::take(path)?;
        check_unused(&path.join(BURNED_FILE))?;
        check_files(path)?;
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
                    loaded.newest_lost = Some(why);
                    0
                }
            };
            (None, loaded, newest.map(|newest| (newest, generation)))
        };
        let guard = open_burned(path, &loaded);
        let (drains, drains_damage) = Drains::open(path);
        Ok(Self {
            lock,
            burned: Burned::new(guard, loaded.burned, newest),
            store,
            tables: loaded.state,
            waiting: loaded.waiting,
            damage: loaded.damage,
            usage: usage::Store::open(path.join(USAGE_FOLDER), &wanted.usage)?,
            drains,
            drains_damage,
        })
    }
}

/// Opens the memory of burned secrets, which must go as far as what is stored says, and have all that the tables transmit
/// with: what a `Transmit` names was burned before it was stored. If `newest` is lost, nobody knows whether it goes as far as
/// it went: `init` makes that file and every start keeps it, so it does not go by itself.
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
        None => match &loaded.newest_lost {
            Some(why) => Err(StateDirError::Newest { why: why.clone() }),
            None => Ok(guard),
        },
    }
}

/// Who removed `lock` of a node that runs must not start a second one on its files.
fn check_unused(file: &Path) -> Result<(), StateDirError> {
    let Ok(held) = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(file)
    else {
        // Who opens it to use it says why.
        return Ok(());
    };
    match held.try_lock() {
        Err(TryLockError::WouldBlock) => Err(BurnError::Locked {
            path: file.to_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Makes and marks a state directory, with what leads to it; on the disk when this returns.
///
/// With `secrets_replaced`, one that was initialised gets a new memory of burned secrets: who says so has replaced all
/// secrets that the node used. What can still be read of the old one, and all that the stored tables name, stays burned;
/// tables that can be read stay.
///
/// # Errors
/// [`StateDirError::Initialised`] without `secrets_replaced`, and what stands in the way.
pub fn init(path: &Path, secrets_replaced: bool) -> Result<(), StateDirError> {
    if !path.is_absolute() {
        return Err(StateDirError::Relative {
            path: path.to_owned(),
        });
    }
    make(path)?;
    check_folder(path)?;
    if is_begun(path) && !secrets_replaced {
        return Err(StateDirError::Initialised {
            path: path.to_owned(),
        });
    }
    let _lock = Lock::take(path)?;
    let file = path.join(BURNED_FILE);
    check_unused(&file)?;
    let mut burned = BurnGuard::salvage(&file);
    let mut random = BurnMark::default();
    getrandom::fill(&mut random.head)
        .map_err(|error| StateDirError::io("draw a random number for", &file)(error.into()))?;
    let Ok(loaded) = store::peek(path) else {
        store::set_aside(path)?;
        store::init(path, random)?;
        // Last, as it is what says that all is there.
        BurnGuard::create(&file, random, burned)?;
        return Ok(());
    };
    for (id, key) in loaded.state.iter().flat_map(|state| state.keys.iter()) {
        let seals = loaded.state.as_ref().and_then(|state| state.seals(id));
        let used = match seals {
            Some(true) => BurnUse::Sealed,
            _ => BurnUse::Opened,
        };
        burned.push((key.fingerprint, used));
    }
    let start = match loaded.burned == BurnMark::default() {
        true => random,
        false => loaded.burned,
    };
    let mark = BurnGuard::create(&file, start, burned)?;
    if loaded.newest_lost.is_some() {
        // After the other: until it is there, no secret is taken.
        let generation = loaded.state.map_or(0, |state| state.generation);
        store::make_newest(path, generation, mark)?;
    }
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

/// It and the folders in it, of which one that is missing is made by who needs it.
fn check_folders(path: &Path) -> Result<(), StateDirError> {
    check_folder(path)?;
    [store::FOLDER, USAGE_FOLDER]
        .iter()
        .try_for_each(|folder| check_inner_folder(&path.join(folder)))
}

/// The files in it, of which one that is missing is told by who opens it.
fn check_files(path: &Path) -> Result<(), StateDirError> {
    [store::KEY_FILE, store::newest::FILE]
        .iter()
        .try_for_each(|file| check_file(&path.join(file)))
}

/// What the next start would not take of a directory that this process uses, as somebody changed it meanwhile. What is
/// written all the time is looked at by who writes it.
pub(super) fn look(path: &Path) -> Option<String> {
    let found = check_folders(path)
        .and_then(|()| check_files(path))
        .and_then(|()| Ok(store::check_key(path)?));
    match found {
        // A disk that fails for a moment takes nothing away.
        Ok(())
        | Err(StateDirError::Io { .. } | StateDirError::Store(store::StoreError::Io { .. })) => {
            None
        }
        Err(StateDirError::Store(store::StoreError::KeyMissing { path })) => Some(format!(
            "{} was removed while the node ran: without it the next start restores nothing and takes no secret; put it back",
            path.display()
        )),
        Err(error) => Some(format!(
            "{error} since the node runs: the next start does not use the state directory; {}",
            error.fix()
        )),
    }
}

/// A folder in it is a folder, and ours.
fn check_inner_folder(path: &Path) -> Result<(), StateDirError> {
    check_inside(
        path,
        fs::Metadata::is_dir,
        "is no directory, or a link to one",
    )
}

/// A file must be ours too.
fn check_file(path: &Path) -> Result<(), StateDirError> {
    check_inside(path, fs::Metadata::is_file, "is no file, or a link to one")
}

/// What is in it, if it is there, is of this kind, and ours; a link is of neither.
fn check_inside(
    path: &Path,
    kind: fn(&fs::Metadata) -> bool,
    why: &str,
) -> Result<(), StateDirError> {
    match fs::symlink_metadata(path) {
        Ok(found) if kind(&found) => ours(path, &found),
        Ok(_) => Err(StateDirError::Unsafe {
            path: path.to_owned(),
            why: why.to_owned(),
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
