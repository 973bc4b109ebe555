//! The tables on disk, so that a node which restarts without a controller forwards as before, once it has keys.
//!
//! In the folder `tables` of the state directory:
//!
//! | file | what |
//! |---|---|
//! | `snapshot-<generation>` | a whole state; the last two are kept |
//! | `journal-<generation>` | the transactions since that generation |
//!
//! and beside it `mac.key`, made at the first start, under which both are authenticated ([`format`]). No secret is in
//! any of them. The control thread only hands over what changed; a thread of its own writes, and whoever asked for a
//! transaction is answered when it is on the disk.

mod format;
mod load;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use aws_lc_rs::hmac;
use tokio::sync::oneshot;

use super::diff::Difference;
use super::model::State;
use super::parse::{Item, ItemKey};
use format::Kind;
pub(super) use load::Loaded;
use writer::{Entry, Order, Signals, Thread};

/// The folder of the state directory.
const FOLDER: &str = "tables";
/// The file of the state directory with the key of the macs.
const KEY_FILE: &str = "mac.key";
/// Orders that may wait for the disk. If it is slower than that, all is written anew when it has caught up.
const QUEUE: usize = 1024;

/// Whether a transaction is on the disk, or why not.
pub(super) type Stored = Result<(), String>;

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
    /// The key.
    #[error("{} must hold 32 octets and belong to this user alone (mode 0600): restore it, or remove it and {} together", .path.display(), .folder.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is stored under it.
        folder: PathBuf,
    },
}

/// Something to be stored.
enum Change {
    Set(Item),
    Delete(ItemKey),
}

/// Stores what changes.
pub(super) struct Store {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    signals: Arc<Signals>,
    /// A snapshot must come before anything else.
    behind: bool,
}

impl Store {
    /// Opens, or makes, what is stored in a state directory, and reads it. Nothing is written before
    /// [`begin`](Self::begin).
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
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(io("make", &dir))?;
        let key = key(state_dir, &dir)?;
        let loaded = load::load(&dir, &key).map_err(io("read", &dir))?;
        let signals = Arc::new(Signals::default());
        let thread = Thread::new(dir.clone(), key, Arc::clone(&signals));
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
        };
        Ok((store, loaded))
    }

    /// Stores this state, and what changes from now on.
    pub(super) fn begin(&mut self, state: &State) {
        self.behind = !self.order(Order::Snapshot(Box::new(state.clone())));
    }

    /// Stores a transaction that brought the tables to this state.
    pub(super) fn commit(
        &mut self,
        state: &State,
        differences: Vec<Difference>,
    ) -> oneshot::Receiver<Stored> {
        let changes = differences
            .into_iter()
            .map(|difference| match difference.new {
                Some(item) => Change::Set(item),
                None => Change::Delete(difference.key),
            });
        let answer = self.append(Entry {
            kind: Kind::Commit,
            generation: state.generation,
            changes: changes.collect(),
        });
        if self.behind || self.signals.wants_snapshot.load(Relaxed) {
            self.begin(state);
        }
        answer
    }

    /// Stores that a generation is used by a transaction that waits for its confirmation.
    /// What it would change comes with [`commit`](Self::commit) when it stays; until then this state holds.
    pub(super) fn wait(&mut self, before: &State, generation: u64) -> oneshot::Receiver<Stored> {
        if self.behind {
            self.begin(before);
        }
        self.append(Entry {
            kind: Kind::Waiting,
            generation,
            changes: Vec::new(),
        })
    }

    fn append(&mut self, entry: Entry) -> oneshot::Receiver<Stored> {
        let (reply, answer) = oneshot::channel();
        if !self.behind && !self.order(Order::Append(entry, reply)) {
            self.behind = true;
        }
        answer
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

/// The key of the macs; made if there is none and nothing is stored under it.
fn key(state_dir: &Path, dir: &Path) -> Result<hmac::Key, StoreError> {
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
    match OpenOptions::new().read(true).open(&path) {
        Ok(file) => {
            let mode = file.metadata().map_err(io("look at"))?.permissions().mode();
            file.take(33).read_to_end(&mut octets).map_err(io("read"))?;
            if octets.len() != 32 || mode & 0o077 != 0 {
                return Err(StoreError::Key {
                    path,
                    folder: dir.to_owned(),
                });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            octets.resize(32, 0);
            getrandom::fill(&mut octets).map_err(|error| io("draw")(io::Error::other(error)))?;
            // Whole under its name, or not there.
            let temporary = path.with_extension("new");
            let _ = fs::remove_file(&temporary);
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&temporary)
                .and_then(|mut file| {
                    file.write_all(&octets)?;
                    file.sync_all()
                })
                .and_then(|()| fs::rename(&temporary, &path))
                .and_then(|()| fs::File::open(state_dir)?.sync_all())
                .map_err(io("write"))?;
        }
        Err(error) => return Err(io("open")(error)),
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &octets))
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
    for entry in fs::read_dir(dir)? {
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
