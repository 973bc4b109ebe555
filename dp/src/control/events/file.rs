//! Events as JSON lines, written by a thread of their own: a disk that hangs holds up nobody but its own reader.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use futures::executor::block_on;

use super::json::json;
use super::{EventKind, Log, Start};
use crate::control::lines::{Lines, Output};

/// Objects that are written at once, at most.
const CHUNK: usize = 256;
/// How long the last lines may take once the node stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

/// The writing thread. It ends with the node's events.
pub struct Writer {
    ended: Receiver<()>,
}

impl Writer {
    /// Writes all events of these kinds, from the first that is kept.
    pub fn start(log: &Log, kinds: Vec<EventKind>, mut lines: Lines) -> std::io::Result<Self> {
        let first = Start::At {
            sequence: 1,
            boot: 0,
        };
        let mut reader = log.read(first, kinds);
        let (end, ended) = channel();
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                let mut failing = false;
                while let Some(event) = block_on(reader.next()) {
                    let mut objects = vec![json(&event)];
                    while objects.len() < CHUNK
                        && let Some(event) = reader.take()
                    {
                        objects.push(json(&event));
                    }
                    let written = lines.write(&objects);
                    if let Err(error) = &written
                        && !failing
                    {
                        tracing::error!(%error, "the file of events cannot be written: they are lost until it can");
                    }
                    failing = written.is_err();
                }
                drop(end);
            })?;
        Ok(Self { ended })
    }

    /// Waits until all is written, not for ever.
    pub fn finish(self) {
        // The thread sends nothing; its end of the channel goes when it ends.
        let _ = self.ended.recv_timeout(LAST_WORDS);
    }
}
