//! Events as JSON lines, written by a thread of their own: a disk that hangs holds up nobody but its own reader.

use futures::executor::block_on;

use super::{EventKind, Log, Start};
use crate::jsonl::{Lines, Output, Writer};
use twinseal_model::json::json;

/// Objects that are written at once, at most.
const CHUNK: usize = 256;

/// Where events go besides those who watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventsConfig {
    /// Events that are kept for readers.
    pub ring: usize,
    /// A file of JSON lines.
    pub output: Option<Output>,
    /// The kinds that are written there; none: all.
    pub kinds: Vec<EventKind>,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            ring: super::DEFAULT_RING,
            output: None,
            kinds: Vec::new(),
        }
    }
}

/// Writes all events of these kinds, from the first that is kept, until the node's events end.
pub fn write(log: &Log, kinds: Vec<EventKind>, lines: Lines) -> std::io::Result<Writer> {
    let first = Start::At {
        sequence: 1,
        boot: 0,
    };
    let mut reader = log.read(first, kinds);
    let next = move || {
        let mut objects = vec![json(&block_on(reader.next())?)];
        while objects.len() < CHUNK
            && let Some(event) = reader.take()
        {
            objects.push(json(&event));
        }
        Some(objects)
    };
    let mut failing = false;
    let done = move |written: std::io::Result<()>, _| {
        if let Err(error) = &written
            && !failing
        {
            tracing::error!(%error, "the file of events cannot be written: they are lost until it can");
        }
        failing = written.is_err();
    };
    Writer::start("events", lines, next, done)
}
