//! The thread that writes: transactions to the journal, with one wait for the disk for all that came meanwhile; snapshots
//! beside it, on a thread of their own.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use tokio::sync::oneshot;
use twinseal_api::v1;
use twinseal_crypto::BurnMark;

use super::format::{Kind, Record, Writer};
use super::load::set;
use super::newest::{self, Newest, Reached};
use super::snapshot::{clear, create, write_snapshot};
use super::{Change, Name, Stored, Told, files, name};
use twinseal_model::items;
use twinseal_model::owners::Owners;
use twinseal_model::state::{OwnerName, State};

/// A journal of so many octets, or as many as the last snapshot if that is more, is followed by a snapshot.
const JOURNAL: u64 = 16 << 20;
/// How often it is looked whether the files are still there, when nothing is written.
const LOOK: Duration = Duration::from_secs(2);
/// A failure that goes on is told again after this.
const AGAIN: Duration = Duration::from_secs(600);

/// What the thread is told.
pub(super) enum Order {
    /// To write a transaction; who waits for it is told when it is on the disk.
    Append(Entry, Reply),
    /// To begin a journal anew, and to write the state that it follows.
    Snapshot(Box<Whole>, Option<Reply>),
}

/// Where it is told whether something is on the disk. Dropped, it tells that it is not.
pub(super) struct Reply {
    asker: oneshot::Sender<Stored>,
    audit: SyncSender<Stored>,
}

impl Reply {
    pub(super) fn new() -> (Self, Told) {
        let (asker, for_asker) = oneshot::channel();
        let (audit, for_audit) = sync_channel(1);
        (Self { asker, audit }, (for_asker, for_audit))
    }
}

/// A transaction, or the announcement of one.
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) generation: u64,
    pub(super) changes: Vec<Change>,
    pub(super) burned: BurnMark,
    /// Whose it is.
    pub(super) owner: OwnerName,
    /// When each owner changed something.
    pub(super) owners: Owners,
}

/// A whole state.
pub(super) struct Whole {
    pub(super) state: State,
    pub(super) burned: BurnMark,
    /// Whether what is on the disk comes to just this state. If not, nothing that follows it counts as stored before it is
    /// written itself.
    pub(super) follows: bool,
}

/// What the control thread may look at.
#[derive(Default)]
pub(super) struct Signals {
    /// It is time for a snapshot. Who orders one takes it back, so that each asking is followed once.
    pub(super) wants_snapshot: AtomicBool,
    /// The last thing that was to be written was not.
    pub(super) failing: AtomicBool,
    /// Why not, and where.
    pub(super) why: Mutex<String>,
    /// What somebody took away since it was asked.
    pub(super) lost: Mutex<Vec<String>>,
    /// Octets of the last snapshot.
    snapshot: AtomicU64,
}

impl Signals {
    fn failed(&self, why: &str) {
        why.clone_into(&mut lock(&self.why));
        self.failing.store(true, Relaxed);
        self.wants_snapshot.store(true, Relaxed);
    }
}

/// What a mutex has.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one can leave it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Thread {
    pub(super) dir: PathBuf,
    pub(super) key: hmac::Key,
    pub(super) signals: Arc<Signals>,
    /// `None` if it was lost before the start.
    newest: Option<Newest>,
    /// What is written, but for the wait for the disk.
    reached: Reached,
    /// What `newest` says; `None` if that was lost and this run has not stored anything.
    told: Option<Reached>,
    /// Where the journal is.
    path: PathBuf,
    /// `None` before the first snapshot is ordered, and after a write failed: nobody knows how the file ends.
    journal: Option<Writer<File>>,
    /// Something could not be written: what comes now does not follow what is there.
    gap: bool,
    /// Why the last write failed.
    failure: String,
    /// What was said of that, and when.
    said: Option<(String, Instant)>,
    background: Option<JoinHandle<()>>,
}

impl Thread {
    pub(super) fn new(
        dir: PathBuf,
        key: hmac::Key,
        signals: Arc<Signals>,
        newest: Option<Newest>,
        told: Option<Reached>,
    ) -> Self {
        Self {
            dir,
            key,
            signals,
            newest,
            reached: Reached::default(),
            told,
            path: PathBuf::new(),
            journal: None,
            gap: false,
            failure: String::new(),
            said: None,
            background: None,
        }
    }

    /// Writes until nobody can order any more.
    pub(super) fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let first = match orders.recv_timeout(LOOK) {
                Ok(first) => first,
                Err(RecvTimeoutError::Timeout) => {
                    self.look(true);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.look(false);
            let mut waiting = Vec::new();
            let mut result = Ok(());
            for order in std::iter::once(first).chain(orders.try_iter()) {
                match order {
                    Order::Append(entry, reply) => {
                        if result.is_ok() {
                            result = self.append(entry);
                        }
                        waiting.push(reply);
                    }
                    Order::Snapshot(whole, reply) => {
                        let done = self.sync(result);
                        self.tell(&mut waiting, &done);
                        result = self.snapshot(*whole);
                        waiting.extend(reply);
                    }
                }
            }
            let done = self.sync(result);
            let large = JOURNAL.max(self.signals.snapshot.load(Relaxed));
            // Before anybody is told: whoever hears that it failed finds it failing.
            match &self.journal {
                Some(journal) if journal.written > large => {
                    self.signals.wants_snapshot.store(true, Relaxed);
                }
                Some(_) => {}
                None => self.signals.failed(&self.failure),
            }
            self.tell(&mut waiting, &done);
        }
        if let Some(background) = self.background.take() {
            let _ = background.join();
        }
    }

    fn append(&mut self, entry: Entry) -> io::Result<()> {
        let Some(journal) = &mut self.journal else {
            // How far the burned secrets went must be known all the same: that is written in place, also on a full disk.
            if let (Some(newest), Some(told)) = (&self.newest, &mut self.told) {
                told.burned = entry.burned;
                newest.write(told)?;
            }
            return Err(io::Error::other(self.failure.clone()));
        };
        let changes = entry.changes.iter().map(|change| match change {
            Change::Set(item, owner) => set(items::proto(item, owner)),
            Change::Delete(key) => v1::Change {
                change: Some(v1::change::Change::Delete(items::reference(key))),
            },
        });
        let (generation, burned) = (entry.generation, entry.burned);
        let mut record = Record::new(entry.kind, generation, &burned, changes.collect());
        record.owner = entry.owner.told();
        record.say(&entry.owners);
        journal.write(&record)?;
        // What waits may be announced again, behind what others did since.
        let generation = generation.max(self.reached.generation);
        self.reached = Reached { generation, burned };
        Ok(())
    }

    /// Waits for the disk. After a failure all must be written anew.
    fn sync(&mut self, result: io::Result<()>) -> io::Result<()> {
        let synced = result.and_then(|()| match &mut self.journal {
            Some(journal) => {
                journal.get_mut().sync_data()?;
                self.told = Some(self.reached);
                match &self.newest {
                    Some(newest) => newest.write(&self.reached),
                    None => Ok(()),
                }
            }
            None => Ok(()),
        });
        if let Err(error) = &synced {
            self.failure = error.to_string();
            self.journal = None;
            self.gap = true;
        }
        synced
    }

    /// Looks whether somebody took away or cut what is written, of which no write would tell: what is in a file without a
    /// name is lost with a restart. All is written anew then, which is safe, as the node has all that was in it.
    fn look(&mut self, thorough: bool) {
        let (Some(journal), Some(told)) = (&mut self.journal, &self.told) else {
            return;
        };
        let written = journal.written;
        let whole = newest::is_whole(journal.get_mut(), &self.path, written);
        let snapshots = !thorough
            || self.background.as_ref().is_some_and(|it| !it.is_finished())
            || may_hold_snapshots(&files(&self.dir));
        let mut lost = Vec::new();
        if matches!(whole, Ok(false)) || !snapshots {
            let what = match whole {
                Ok(false) => self.path.display().to_string(),
                _ => format!("every snapshot of {}", self.dir.display()),
            };
            let detail = format!(
                "{what} was removed, replaced or cut while the node ran: the tables are written anew"
            );
            self.failure.clone_from(&detail);
            self.journal = None;
            self.gap = true;
            self.signals.failed(&detail);
            lost.push(detail);
        }
        if let Some(newest) = &mut self.newest
            && let Ok(true) = newest.look(told)
        {
            lost.push(format!("{} and is written anew", newest.lost()));
        }
        for lost in lost {
            tracing::error!("{lost}");
            lock(&self.signals.lost).push(lost);
        }
    }

    /// Tells who waits. What fails is logged when it begins or is another failure, then now and then.
    fn tell(&mut self, waiting: &mut Vec<Reply>, done: &io::Result<()>) {
        if let Err(error) = done {
            let error = error.to_string();
            let known = self.said.as_ref();
            if known.is_none_or(|(said, when)| *said != error || when.elapsed() >= AGAIN) {
                tracing::error!(
                    error,
                    dir = %self.dir.display(),
                    "the tables could not be stored: see to the disk, or make room; it is tried again every two seconds"
                );
                self.said = Some((error, Instant::now()));
            }
        } else if self.journal.is_some() {
            self.said = None;
        }
        for reply in waiting.drain(..) {
            let stored = done.as_ref().map_err(ToString::to_string).copied();
            // Either may have gone.
            let _ = reply.audit.try_send(stored.clone());
            let _ = reply.asker.send(stored);
        }
    }

    fn snapshot(&mut self, whole: Whole) -> io::Result<()> {
        // The one before is done by now, but for a disk that is slower than transactions come.
        if let Some(background) = self.background.take() {
            let _ = background.join();
        }
        self.gap |= !whole.follows;
        let generation = whole.state.generation;
        // Somebody may have removed it; not what it is in, which may be a disk that is not mounted any more.
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if self.gap {
            let size = write_snapshot(&self.dir, &self.key, &whole)?;
            self.signals.snapshot.store(size, Relaxed);
        }
        let path = self.dir.join(name(Name::Journal(generation)));
        if path.exists() {
            // The journal of an earlier run that begins here and could not be read to its end.
            fs::rename(&path, path.with_extension("old"))?;
        }
        let file = create(&path)?;
        self.journal = Some(Writer::new(file, &self.key, generation)?);
        self.path = path;
        File::open(&self.dir)?.sync_all()?;
        self.reached = Reached {
            generation,
            burned: whole.burned,
        };
        self.signals.failing.store(false, Relaxed);
        if std::mem::take(&mut self.gap) {
            if let Err(error) = clear(&self.dir) {
                tracing::warn!(%error, dir = %self.dir.display(), "files that are not needed any more stay behind");
            }
            return Ok(());
        }
        let (dir, key) = (self.dir.clone(), self.key.clone());
        let signals = Arc::clone(&self.signals);
        let background = std::thread::Builder::new().name("tables-snapshot".to_owned());
        self.background = Some(background.spawn(move || {
            match write_snapshot(&dir, &key, &whole).and_then(|size| clear(&dir).map(|()| size)) {
                Ok(size) => signals.snapshot.store(size, Relaxed),
                Err(error) => {
                    tracing::error!(%error, dir = %dir.display(), "the tables could not be written; the journal before is kept");
                    signals.failed(&error.to_string());
                }
            }
        })?);
        Ok(())
    }
}

/// Whether there are snapshots among a folder's files. Who could not look, as for too many open files, has not found them gone.
pub(super) fn may_hold_snapshots(files: &io::Result<Vec<(Name, PathBuf)>>) -> bool {
    match files {
        Ok(files) => files
            .iter()
            .any(|(name, _)| matches!(name, Name::Snapshot(_))),
        Err(error) => error.kind() != io::ErrorKind::NotADirectory,
    }
}
