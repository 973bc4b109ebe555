//! The tables on disk, so that a node which restarts without a controller forwards as before, once it has keys.
//!
//! In the folder `tables` of the state directory:
//!
//! | file | what |
//! |---|---|
//! | `snapshot-<generation>` | a whole state; the last two are kept |
//! | `journal-<generation>` | the transactions since that generation |
//!
//! and beside it `mac.key`, made when the state directory is, under which both are authenticated ([`format`]), and
//! [`newest`], which tells how far they went. No secret is in any of them. The control thread only hands over what changed;
//! a thread of its own writes, and whoever asked for a transaction is answered when it is on the disk.
//!
//! Each record says how far the [burned secrets](twinseal_crypto::BurnGuard) went: so a file of these that was cut, lost
//! or put back is found out, as long as the tables were not put back with it.

mod changed;
mod format;
mod key;
mod load;
pub(super) mod newest;
mod snapshot;
#[cfg(test)]
mod tests;
mod writer;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::sync::oneshot;
use twinseal_crypto::{BurnMark, write_whole};

use format::Kind;
pub(super) use key::check as check_key;
use key::key;
pub(super) use load::Loaded;
use newest::{Newest, Reached};
use twinseal_model::diff::Difference;
use twinseal_model::owners::Owners;
use twinseal_model::parse::{Item, ItemKey};
use twinseal_model::state::{OwnerName, State};
use writer::{Entry, Order, Reply, Signals, Thread, Whole, lock};

/// The folder of the state directory.
pub(super) const FOLDER: &str = "tables";
/// The file of the state directory with the key of the macs.
pub(super) const KEY_FILE: &str = "mac.key";
/// While the disk fails it is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Orders that may wait for the disk. If it is slower than that, all is written anew when it has caught up.
const QUEUE: usize = 1024;

/// Whether a transaction is on the disk, or why not.
pub(super) type Stored = Result<(), String>;

/// Tells both who asked and the audit log, whose thread can only wait as threads do.
pub(super) type Told = (oneshot::Receiver<Stored>, mpsc::Receiver<Stored>);

/// Why tables cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The key is not whole.
    #[error("{} must hold 32 bytes", .path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
    },
    /// The key is not there.
    #[error("{} is missing", .path.display())]
    KeyMissing {
        /// The key's file.
        path: PathBuf,
    },
    /// Others can read the key, and so make tables that the node would believe.
    #[error("{} can be read or written by others: its mode is {mode:o}, and must be 600", .path.display())]
    KeyMode {
        /// The key's file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Something to be stored.
enum Change {
    Set(Item, OwnerName),
    Delete(ItemKey),
}

/// Stores what changes.
pub(super) struct Store {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    signals: Arc<Signals>,
    /// Something could not even be ordered: a whole state must come before anything else.
    behind: bool,
    /// When a whole state may be ordered again.
    again: Instant,
}

impl Store {
    /// Opens what is stored in a state directory, and reads it. Nothing is written before [`begin`](Self::begin) or
    /// [`follow`](Self::follow).
    pub(super) fn open(state_dir: &Path) -> Result<(Self, Loaded), StoreError> {
        let dir = state_dir.join(FOLDER);
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io {
                action,
                path,
                source,
            }
        };
        let key = key(state_dir)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .and_then(|()| fs::File::open(state_dir)?.sync_all())
            .map_err(io("make", &dir))?;
        let loaded = load::load(state_dir, &key).map_err(io("read", &dir))?;
        // One that is lost stays lost: written anew it would say that nothing is missing.
        let newest = match loaded.newest_lost {
            Some(_) => None,
            None => Some(Newest::open(state_dir, &key)?),
        };
        let signals = Arc::new(Signals::default());
        let thread = Thread::new(
            dir.clone(),
            key,
            Arc::clone(&signals),
            newest,
            loaded.reached,
        );
        let (orders, receiver) = mpsc::sync_channel(QUEUE);
        let handle = std::thread::Builder::new()
            .name("tables".to_owned())
            .spawn(move || thread.run(&receiver))
            .map_err(io("start the thread that writes", &dir))?;
        let store = Self {
            orders: Some(orders),
            thread: Some(handle),
            signals,
            behind: true,
            again: Instant::now(),
        };
        Ok((store, loaded))
    }

    /// Stores this state, whatever is stored, and what changes from now on.
    pub(super) fn begin(&mut self, state: &State, burned: BurnMark) -> Told {
        let (reply, told) = Reply::new();
        self.whole(state, burned, false, Some(reply));
        told
    }

    /// The same of a state that what is stored comes to.
    pub(super) fn follow(&mut self, state: &State, burned: BurnMark) {
        self.whole(state, burned, true, None);
    }

    fn whole(&mut self, state: &State, burned: BurnMark, follows: bool, reply: Option<Reply>) {
        self.signals.wants_snapshot.store(false, Relaxed);
        let whole = Whole {
            state: state.clone(),
            burned,
            follows,
        };
        self.behind = !self.order(Order::Snapshot(Box::new(whole), reply));
    }

    /// Whether it is time for a whole state: the journal is large, or something is not on the disk that should be.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let due = self.behind || self.signals.wants_snapshot.load(Relaxed);
        let due = due && now >= self.again;
        if due {
            self.again = now + RETRY;
        }
        due
    }

    /// Whether all that was ordered is on the disk, or will be.
    pub(super) fn is_failing(&self) -> bool {
        self.behind || self.signals.failing.load(Relaxed)
    }

    /// Why what was ordered is not on the disk; empty if it is.
    pub(super) fn failing(&self) -> String {
        if self.signals.failing.load(Relaxed) {
            return lock(&self.signals.why).clone();
        }
        match self.behind {
            true => "the disk is slower than transactions come".to_owned(),
            false => String::new(),
        }
    }

    /// What somebody took away since the last call.
    pub(super) fn take_lost(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.signals.lost))
    }

    /// Stores an owner's transaction that brought the tables to this state.
    pub(super) fn commit(
        &mut self,
        state: &State,
        burned: BurnMark,
        owner: &OwnerName,
        differences: Vec<Difference>,
    ) -> Told {
        let changes = differences
            .into_iter()
            .map(|difference| match difference.new {
                Some(item) => Change::Set(item, difference.owners.1),
                None => Change::Delete(difference.key),
            });
        self.append(Entry {
            kind: Kind::Commit,
            generation: state.generation,
            changes: changes.collect(),
            burned,
            owner: owner.clone(),
            owners: state.owners.clone(),
        })
    }

    /// Stores that a generation is used by an owner's transaction that waits for its confirmation.
    /// What it would change comes with [`commit`](Self::commit) when it stays; until then what is stored holds.
    pub(super) fn wait(&mut self, generation: u64, burned: BurnMark, owner: &OwnerName) -> Told {
        self.append(Entry {
            kind: Kind::Waiting,
            generation,
            changes: Vec::new(),
            burned,
            owner: owner.clone(),
            owners: Owners::default(),
        })
    }

    fn append(&mut self, entry: Entry) -> Told {
        let (reply, told) = Reply::new();
        if !self.behind && !self.order(Order::Append(entry, reply)) {
            self.behind = true;
        }
        told
    }

    /// Whether there was room.
    fn order(&self, order: Order) -> bool {
        let orders = self.orders.as_ref();
        orders.is_some_and(|orders| orders.try_send(order).is_ok())
    }
}

impl Drop for Store {
    /// Waits until all is written.
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes what must be there before anything can be stored: a new key, in place of any other, and the file that tells that
/// nothing is.
pub(super) fn init(state_dir: &Path, burned: BurnMark) -> Result<(), StoreError> {
    let path = state_dir.join(KEY_FILE);
    let io = |action| {
        let path = path.clone();
        move |source| StoreError::Io {
            action,
            path,
            source,
        }
    };
    let mut octets = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(octets.as_mut()).map_err(|error| io("draw")(io::Error::other(error)))?;
    write_whole(&path, octets.as_ref()).map_err(io("write"))?;
    make_newest(state_dir, 0, burned)
}

/// Says anew how far what is stored went, whatever was said before.
pub(super) fn make_newest(
    state_dir: &Path,
    generation: u64,
    burned: BurnMark,
) -> Result<(), StoreError> {
    let reached = Reached { generation, burned };
    newest::make(state_dir, &key(state_dir)?, &reached).map_err(|source| StoreError::Io {
        action: "write",
        path: state_dir.join(newest::FILE),
        source,
    })
}

/// What is stored, for who will write nothing.
pub(super) fn peek(state_dir: &Path) -> Result<Loaded, StoreError> {
    let key = key(state_dir)?;
    let dir = state_dir.join(FOLDER);
    load::load(state_dir, &key).map_err(|source| StoreError::Io {
        action: "read",
        path: dir,
        source,
    })
}

/// Renames what is stored: it is kept for people and never read again.
pub(super) fn set_aside(state_dir: &Path) -> Result<(), StoreError> {
    let dir = state_dir.join(FOLDER);
    if !dir.exists() {
        return Ok(());
    }
    let aside = dir.with_extension(format!("refused-{}", twinseal_base::time::unix().as_secs()));
    fs::rename(&dir, aside).map_err(|source| StoreError::Io {
        action: "set aside",
        path: dir,
        source,
    })
}

/// How far what is stored went, and the file to say it in if it is not lost; for a node that stores no tables.
pub(super) fn newest_alone(
    state_dir: &Path,
) -> Result<(Option<Newest>, Result<Reached, String>), StoreError> {
    let key = key(state_dir)?;
    let reached = newest::read(state_dir, &key);
    let newest = match reached {
        Ok(_) => Some(Newest::open(state_dir, &key)?),
        Err(_) => None,
    };
    Ok((newest, reached))
}

/// What a file of the folder is, by the generation that it begins with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Name {
    Snapshot(u64),
    Journal(u64),
}

fn name(name: Name) -> String {
    match name {
        Name::Snapshot(generation) => format!("snapshot-{generation:020}"),
        Name::Journal(generation) => format!("journal-{generation:020}"),
    }
}

/// The files, snapshots before journals, each in the order of generations.
fn files(dir: &Path) -> io::Result<Vec<(Name, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let text = entry.file_name();
        let Some((kind, number)) = text.to_str().and_then(|text| text.split_once('-')) else {
            continue;
        };
        let name = match (kind, number.parse()) {
            ("snapshot", Ok(generation)) => Name::Snapshot(generation),
            ("journal", Ok(generation)) => Name::Journal(generation),
            _ => continue,
        };
        files.push((name, entry.path()));
    }
    files.sort();
    Ok(files)
}
