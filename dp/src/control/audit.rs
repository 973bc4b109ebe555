//! The audit log: who changed what, and what came of it. Names and kinds of items, never secrets.
//!
//! Lines are JSON, written by a thread of their own: a disk that hangs holds up nobody. Without a file the same goes to
//! the program's log, target `twinseal::audit`.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use serde_json::{Map, Value, json};
use twinseal_api::v1::{
    self, change::Change, item::Item, item_ref, key, key_ref, transmit, transmit_ref,
};

use super::access::Caller;
use super::lines::{Lines, Writer};
use super::refusal::{Refused, text};
use crate::time::{rfc3339, unix_nanos};

/// Items of a transaction that are named; the others are counted.
const NAMED: usize = 100;
/// Reasons of a refusal that are told.
const REASONS: usize = 20;
/// Entries that may wait for the disk.
const QUEUE: usize = 4096;
/// Entries that are written at once, at most.
const CHUNK: usize = 64;

/// What is being done, and by whom.
pub struct Entry {
    caller: Option<Caller>,
    method: &'static str,
    items: Vec<String>,
    count: usize,
    /// Nothing is changed.
    pub dry_run: bool,
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

impl Entry {
    /// Of a method that this caller called; none: of the node itself.
    pub fn new(caller: Option<Caller>, method: &'static str) -> Self {
        Self {
            caller,
            method,
            items: Vec::new(),
            count: 0,
            dry_run: false,
        }
    }

    /// Takes down something that is done.
    pub fn item(&mut self, what: String) {
        self.count += 1;
        if self.items.len() < NAMED {
            self.items.push(what);
        }
    }

    /// Takes down what is changed.
    pub fn changes(&mut self, changes: &[v1::Change]) {
        self.count += changes.len();
        let room = NAMED.saturating_sub(self.items.len());
        self.items.extend(changes.iter().take(room).map(describe));
    }

    /// The same of items that are set.
    pub fn items(&mut self, items: &[v1::Item]) {
        self.count += items.len();
        let room = NAMED.saturating_sub(self.items.len());
        let items = items.iter().take(room);
        self.items
            .extend(items.map(|item| format!("set {}", set(item))));
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
        object.insert("dry_run".into(), self.dry_run.into());
        object.insert("changes".into(), self.count.into());
        object.insert("items".into(), self.items.into());
        match outcome {
            Outcome::Done { generation } => {
                object.insert("outcome".into(), "done".into());
                object.insert("generation".into(), (*generation).into());
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
    queue: Option<SyncSender<Value>>,
}

impl Audit {
    /// To the program's log.
    pub fn to_log(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            queue: None,
        }
    }

    /// To a file. The writer ends when no [`Audit`] is left.
    pub fn to_file(node: &str, lines: Lines) -> io::Result<(Self, Writer)> {
        let (queue, entries) = sync_channel::<Value>(QUEUE);
        let next = move || {
            let mut objects = vec![entries.recv().ok()?];
            objects.extend(entries.try_iter().take(CHUNK - 1));
            Some(objects)
        };
        let done = |written: io::Result<()>, objects: Vec<Value>| {
            if let Err(error) = written {
                // They must not be lost: the program's log has them then.
                tracing::error!(%error, "the audit log cannot be written");
                for object in objects {
                    tracing::warn!(target: "twinseal::audit", "{object}");
                }
            }
        };
        let writer = Writer::start("audit", lines, next, done)?;
        let audit = Self {
            node: node.to_owned(),
            queue: Some(queue),
        };
        Ok((audit, writer))
    }

    /// Takes down what came of something.
    pub fn write(&self, entry: Entry, outcome: Outcome<'_>) {
        let object = entry.json(&self.node, &outcome);
        let left = match &self.queue {
            Some(queue) => queue.try_send(object).err().map(|error| match error {
                std::sync::mpsc::TrySendError::Full(object)
                | std::sync::mpsc::TrySendError::Disconnected(object) => object,
            }),
            None => Some(object),
        };
        if let Some(object) = left {
            tracing::info!(target: "twinseal::audit", "{object}");
        }
    }
}

/// A change for people: what is done to which item.
fn describe(change: &v1::Change) -> String {
    match &change.change {
        Some(Change::Set(item)) => format!("set {}", set(item)),
        Some(Change::Delete(item)) => format!("delete {}", deleted(item)),
        None => "nothing known".to_owned(),
    }
}

fn set(item: &v1::Item) -> String {
    match &item.item {
        Some(Item::Port(it)) => format!("port {}", it.name),
        Some(Item::Vrf(it)) => format!("vrf {}", it.name),
        Some(Item::Link(it)) => format!("link {}", it.name),
        Some(Item::Circuit(it)) => format!("circuit {}", it.name),
        Some(Item::Label(it)) => format!("label {} on {}", it.label, it.link),
        Some(Item::Group(it)) => format!("group {}", it.name),
        Some(Item::Route(it)) => format!("route {} in {}", it.prefix, it.vrf),
        Some(Item::Neighbour(it)) => format!("neighbour {} on {}", it.address, it.port),
        Some(Item::Key(it)) => {
            let owner = match &it.owner {
                Some(key::Owner::Link(name)) => format!("link {name}"),
                Some(key::Owner::Circuit(name)) => format!("circuit {name}"),
                None => "nobody".to_owned(),
            };
            format!(
                "key of {owner}, {}, epoch {}",
                way(it.direction()),
                it.epoch
            )
        }
        Some(Item::Transmit(it)) => {
            let owner = match &it.owner {
                Some(transmit::Owner::Link(name)) => format!("link {name}"),
                Some(transmit::Owner::Circuit(name)) => format!("circuit {name}"),
                None => "nobody".to_owned(),
            };
            format!("transmit of {owner}, epoch {}", it.epoch)
        }
        None => "something unknown".to_owned(),
    }
}

fn deleted(item: &v1::ItemRef) -> String {
    use item_ref::Item as Ref;
    match &item.item {
        Some(Ref::Port(name)) => format!("port {name}"),
        Some(Ref::Vrf(name)) => format!("vrf {name}"),
        Some(Ref::Link(name)) => format!("link {name}"),
        Some(Ref::Circuit(name)) => format!("circuit {name}"),
        Some(Ref::Group(name)) => format!("group {name}"),
        Some(Ref::Label(it)) => format!("label {} on {}", it.label, it.link),
        Some(Ref::Route(it)) => format!("route {} in {}", it.prefix, it.vrf),
        Some(Ref::Neighbour(it)) => format!("neighbour {} on {}", it.address, it.port),
        Some(Ref::Key(it)) => {
            let owner = match &it.owner {
                Some(key_ref::Owner::Link(name)) => format!("link {name}"),
                Some(key_ref::Owner::Circuit(name)) => format!("circuit {name}"),
                None => "nobody".to_owned(),
            };
            format!(
                "key of {owner}, {}, epoch {}",
                way(it.direction()),
                it.epoch
            )
        }
        Some(Ref::Transmit(it)) => match &it.owner {
            Some(transmit_ref::Owner::Link(name)) => format!("transmit of link {name}"),
            Some(transmit_ref::Owner::Circuit(name)) => format!("transmit of circuit {name}"),
            None => "transmit of nobody".to_owned(),
        },
        None => "something unknown".to_owned(),
    }
}

fn way(direction: v1::Direction) -> &'static str {
    match direction {
        v1::Direction::AToB => "a-to-b",
        v1::Direction::BToA => "b-to-a",
        v1::Direction::Unspecified => "of no direction",
    }
}
