//! The audit log: who changed what, and what came of it. Names and kinds of items, never secrets.
//!
//! The node itself takes down what it did, whether or not anybody waits for the answer, and the answer waits for the line.
//! The line of what is stored waits until it is: so one that says `done`, and not `not_stored`, is of what a restart has.
//! What was stored and has no line yet when the program is killed, the line of the restart names (`restored`).
//!
//! Lines are JSON, written by a thread of their own: a disk that hangs holds up that answer for some seconds and nobody
//! else. They are with the kernel then and outlive the program, not a power failure. Without a file the same goes to the
//! program's log, target `twinseal::audit`.

mod describe;
mod last;

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use twinseal_api::v1;

use crate::jsonl::{Lines, Writer};
use crate::store::Stored;
use describe::{describe, diff, set};
pub use last::last_generation;
use twinseal_access::Caller;
use twinseal_base::text::{hide_secrets, word};
use twinseal_base::time::{rfc3339, unix_nanos};
use twinseal_model::diff::Summary;
use twinseal_model::owners;
use twinseal_model::refusal::{Refused, text};

/// Items of a transaction that are named; the others are counted.
pub(super) const NAMED: usize = 100;
/// Reasons of a refusal that are told.
const REASONS: usize = 20;
/// Entries that may wait for the disk.
const QUEUE: usize = 4096;
/// Entries that are written at once, at most.
const CHUNK: usize = 64;
/// How long an answer waits for its line.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is being done, and by whom.
pub struct Entry {
    caller: Option<Caller>,
    method: &'static str,
    items: Vec<String>,
    count: usize,
    owner: String,
    /// What became of the tables.
    changed: Option<Summary>,
    /// The request's name, empty for none.
    request_id: String,
    /// It had been done before: its answer was given again, and nothing was changed.
    pub(super) repeated: bool,
    /// Nothing is changed.
    pub dry_run: bool,
}

/// A trace or capture that is to begin.
pub struct Tapping {
    /// Who does it.
    pub entry: Entry,
    /// Of what.
    pub what: String,
}

impl Tapping {
    /// It begins, within these limits, or is refused.
    pub(super) fn begun(mut self, limits: Option<&v1::TapLimits>) -> Entry {
        self.entry.item(match limits {
            None => self.what,
            Some(it) => format!(
                "begin: {}; at most {} in {} s, {} octets of each",
                self.what, it.count, it.seconds, it.snap_length
            ),
        });
        self.entry
    }
}

/// As the log names it: bounded, and without a secret that stands where a name should.
fn named(what: &str) -> String {
    word(&hide_secrets(what)).into_owned()
}

/// What came of it.
pub enum Outcome<'a> {
    /// It was done, and the tables are of this generation.
    Done {
        /// Which.
        generation: u64,
    },
    /// It was not.
    Refused(&'a Refused),
}

impl<'a> From<Result<u64, &'a Refused>> for Outcome<'a> {
    fn from(generation: Result<u64, &'a Refused>) -> Self {
        match generation {
            Ok(generation) => Self::Done { generation },
            Err(refused) => Self::Refused(refused),
        }
    }
}

impl Entry {
    /// Of a method that this caller called; none: of the node itself.
    pub fn new(caller: Option<Caller>, method: &'static str) -> Self {
        Self {
            caller,
            method,
            items: Vec::new(),
            count: 0,
            owner: String::new(),
            changed: None,
            request_id: String::new(),
            repeated: false,
            dry_run: false,
        }
    }

    /// Takes down the name that the client gave its request.
    pub fn request(&mut self, id: &str) {
        self.request_id = named(id);
    }

    /// Takes down for whom it is, as the request says it.
    pub fn owner(&mut self, told: &str) {
        self.owner = named(&owners::shown(told));
    }

    /// Takes down what became of the tables, which may be more than was asked for by name: Replace deletes what it does not
    /// name.
    pub(super) fn changed(mut self, changed: Option<Summary>) -> Self {
        self.changed = changed;
        self
    }

    /// Takes down something that is done.
    pub fn item(&mut self, what: String) {
        self.count += 1;
        if self.items.len() < NAMED {
            self.items.push(named(&what));
        }
    }

    /// Takes down that there are so many more, without their names.
    pub(super) fn more(&mut self, count: usize) {
        self.count += count;
    }

    /// Takes down what is changed.
    pub fn changes(&mut self, changes: &[v1::Change]) {
        self.count += changes.len();
        let room = NAMED.saturating_sub(self.items.len());
        let changes = changes.iter().take(room);
        self.items.extend(changes.map(|it| named(&describe(it))));
    }

    /// The same of items that are set.
    pub fn items(&mut self, items: &[v1::Item]) {
        self.count += items.len();
        let room = NAMED.saturating_sub(self.items.len());
        let items = items.iter().take(room);
        self.items
            .extend(items.map(|item| named(&format!("set {}", set(item)))));
    }

    fn json(self, node: &str, outcome: &Outcome<'_>) -> Value {
        let mut object = Map::new();
        object.insert("timestamp".into(), rfc3339(unix_nanos()).into());
        object.insert("node".into(), node.into());
        let (who, role) = match &self.caller {
            Some(caller) => (caller.peer.json(), caller.role.to_string()),
            None => (json!({ "node": node }), "node".to_owned()),
        };
        object.insert("who".into(), who);
        object.insert("role".into(), role.into());
        object.insert("method".into(), self.method.into());
        if !self.request_id.is_empty() {
            object.insert("request_id".into(), self.request_id.into());
        }
        if !self.owner.is_empty() {
            object.insert("owner".into(), self.owner.into());
        }
        object.insert("dry_run".into(), self.dry_run.into());
        object.insert("changes".into(), self.count.into());
        object.insert("items".into(), self.items.into());
        match outcome {
            Outcome::Done { generation } => {
                object.insert("outcome".into(), "done".into());
                object.insert("generation".into(), (*generation).into());
                if self.repeated {
                    object.insert("repeated".into(), true.into());
                }
                if let Some(changed) = &self.changed {
                    object.insert("diff".into(), diff(changed));
                }
            }
            Outcome::Refused(refused) => {
                object.insert("outcome".into(), "refused".into());
                let reasons = refused.items().iter().take(REASONS);
                let reasons: Vec<Value> = reasons.map(|item| text(item).into()).collect();
                object.insert("reasons".into(), reasons.into());
            }
        }
        object.into()
    }
}

/// Where entries go. Clones share it.
#[derive(Clone)]
pub struct Audit {
    node: String,
    queue: Option<SyncSender<Line>>,
    last: Option<u64>,
    /// Why the file could not be written, if nobody was told yet.
    failed: Arc<Mutex<Option<String>>>,
}

/// A line, and who waits for it.
struct Line {
    object: Value,
    stored: Option<Storing>,
    waiter: oneshot::Sender<()>,
}

/// What tells whether something is on the disk, and how long that is waited for. All lines wait for the same disk, each
/// since it was made: so none waits longer for those before it.
struct Storing(Receiver<Stored>, Instant);

impl Storing {
    /// Says in the line if it is not there by then.
    fn settle(self, object: &mut Value) {
        let patience = self.1.saturating_duration_since(Instant::now());
        let stored = self.0.recv_timeout(patience);
        if !matches!(stored, Ok(Ok(())))
            && let Some(object) = object.as_object_mut()
        {
            object.insert("not_stored".into(), true.into());
        }
    }
}

/// Told once an entry is where it belongs.
#[derive(Default)]
pub struct Written(Option<oneshot::Receiver<()>>);

impl Written {
    /// Waits for that, though not for ever: a disk may hang.
    pub async fn done(self) {
        if let Some(written) = self.0
            && tokio::time::timeout(PATIENCE, written).await.is_err()
        {
            tracing::warn!(
                "the audit log's disk is slow: an answer goes out before its line is written"
            );
        }
    }
}

impl Audit {
    /// To the program's log.
    pub fn to_log(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            queue: None,
            last: None,
            failed: Arc::default(),
        }
    }

    /// To a file. The writer ends when no [`Audit`] is left.
    ///
    /// `last` is the generation that the last line before tells of, if that can be known.
    pub fn to_file(node: &str, lines: Lines, last: Option<u64>) -> io::Result<(Self, Writer)> {
        let (queue, entries) = sync_channel::<Line>(QUEUE);
        let failed: Arc<Mutex<Option<String>>> = Arc::default();
        let waiting: Arc<Mutex<Vec<oneshot::Sender<()>>>> = Arc::default();
        let next = {
            let waiting = Arc::clone(&waiting);
            move || {
                let mut lines = vec![entries.recv().ok()?];
                lines.extend(entries.try_iter().take(CHUNK - 1));
                let settled = lines.into_iter().map(|mut line| {
                    if let Some(storing) = line.stored {
                        storing.settle(&mut line.object);
                    }
                    (line.object, line.waiter)
                });
                let (objects, waiters): (Vec<_>, Vec<_>) = settled.unzip();
                *lock(&waiting) = waiters;
                Some(objects)
            }
        };
        let done = {
            let failed = Arc::clone(&failed);
            move |written: io::Result<()>, objects: Vec<Value>| {
                if let Err(error) = written {
                    // They must not be lost: the program's log has them then.
                    tracing::error!(%error, "the audit log cannot be written");
                    *lock(&failed) = Some(error.to_string());
                    for object in objects {
                        tracing::warn!(target: "twinseal::audit", "{object}");
                    }
                }
                for waiter in std::mem::take(&mut *lock(&waiting)) {
                    // It may have gone.
                    let _ = waiter.send(());
                }
            }
        };
        let writer = Writer::start("audit", lines, next, done)?;
        let audit = Self {
            node: node.to_owned(),
            queue: Some(queue),
            last,
            failed,
        };
        Ok((audit, writer))
    }

    /// Takes down what came of something.
    pub fn write(&self, entry: Entry, outcome: Outcome<'_>) -> Written {
        self.write_stored(entry, outcome, None)
    }

    /// The same of something that is being stored: once it is, or could not be.
    pub(super) fn write_stored(
        &self,
        entry: Entry,
        outcome: Outcome<'_>,
        stored: Option<Receiver<Stored>>,
    ) -> Written {
        let object = entry.json(&self.node, &outcome);
        let stored = stored.map(|stored| Storing(stored, Instant::now() + PATIENCE));
        let (waiter, written) = oneshot::channel();
        let line = Line {
            object,
            stored,
            waiter,
        };
        let left = match &self.queue {
            Some(queue) => queue.try_send(line).err().map(|error| match error {
                std::sync::mpsc::TrySendError::Full(line)
                | std::sync::mpsc::TrySendError::Disconnected(line) => line,
            }),
            None => Some(line),
        };
        match left {
            Some(line) => {
                log(line);
                Written(None)
            }
            None => Written(Some(written)),
        }
    }

    /// The generation that the last line before this start tells of; `None` if the lines go where they cannot be read back.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Why the file could not be written since the last call.
    pub(super) fn take_failure(&self) -> Option<String> {
        lock(&self.failed).take()
    }
}

/// A line for the program's log.
fn log(line: Line) {
    let Line {
        mut object, stored, ..
    } = line;
    let write = move || {
        if let Some(storing) = stored {
            storing.settle(&mut object);
        }
        tracing::info!(target: "twinseal::audit", "{object}");
    };
    match tokio::runtime::Handle::try_current() {
        // The control thread does not wait for a disk.
        Ok(runtime) => drop(runtime.spawn_blocking(write)),
        Err(_) => write(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one can leave it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
