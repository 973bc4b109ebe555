//! The last events, numbered. Readers take them at their own pace; a reader that falls behind the ring is told how much
//! it missed, and holds nothing but its place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use twinseal_api::v1::{self, EventKind, GapCause, event::Event as Body};

use twinseal_base::time::unix_nanos;

/// The writing end. With it the readers end.
pub struct Events {
    log: Log,
    newest: watch::Sender<u64>,
}

/// Where readers come from.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
}

struct Shared {
    node: String,
    boot: u64,
    ring: Mutex<Ring>,
}

struct Ring {
    events: VecDeque<Arc<v1::Event>>,
    capacity: usize,
    /// The number of the next event.
    next: u64,
}

impl Ring {
    /// The number of the oldest event that is kept, or of the next one.
    fn oldest(&self) -> u64 {
        self.next - self.events.len() as u64
    }

    fn get(&self, sequence: u64) -> Option<&Arc<v1::Event>> {
        let nth = sequence.checked_sub(self.oldest())?;
        self.events.get(usize::try_from(nth).ok()?)
    }
}

/// Where a reader begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// With the next event.
    Now,
    /// With this number.
    At {
        /// The first event wanted.
        sequence: u64,
        /// The life of the node that it is of; 0: not known.
        boot: u64,
    },
}

/// Takes events one by one.
pub struct Reader {
    log: Log,
    next: u64,
    /// Told before anything else.
    gap: Option<v1::GapEvent>,
    /// Empty: all kinds.
    kinds: Vec<EventKind>,
}

impl Events {
    /// Those of a node, which keeps the last `capacity` of them.
    pub fn new(node: &str, capacity: usize) -> Self {
        // Events are numbered from 1, so that 0 is before all.
        let (newest, watched) = watch::channel(0);
        let shared = Shared {
            node: node.to_owned(),
            boot: unix_nanos(),
            ring: Mutex::new(Ring {
                events: VecDeque::new(),
                capacity: capacity.max(1),
                next: 1,
            }),
        };
        Self {
            log: Log {
                shared: Arc::new(shared),
                newest: watched,
            },
            newest,
        }
    }

    /// Tells everyone.
    pub fn emit(&self, kind: EventKind, body: Body) {
        let mut event = self.log.shared.event(kind, body);
        let mut ring = self.log.shared.ring();
        let sequence = ring.next;
        event.sequence = sequence;
        if ring.events.len() == ring.capacity {
            ring.events.pop_front();
        }
        ring.events.push_back(Arc::new(event));
        ring.next += 1;
        drop(ring);
        self.newest.send_replace(sequence);
    }

    /// This life of the node.
    pub fn boot(&self) -> u64 {
        self.log.shared.boot
    }

    /// Where readers come from.
    pub fn log(&self) -> Log {
        self.log.clone()
    }
}

impl Log {
    /// A reader of these kinds, or of all if there are none.
    pub fn read(&self, start: Start, kinds: Vec<EventKind>) -> Reader {
        let ring = self.shared.ring();
        let (oldest, newest) = (ring.oldest(), ring.next);
        drop(ring);
        let (next, gap) = match start {
            Start::Now => (newest, None),
            // A number that was never given can only be of an earlier life, as one of another boot is.
            Start::At { sequence, boot }
                if sequence > newest || (boot != 0 && boot != self.shared.boot) =>
            {
                (oldest, Some(gap(sequence, oldest, GapCause::Restarted)))
            }
            Start::At { sequence, .. } if sequence.max(1) < oldest => {
                (oldest, Some(gap(sequence.max(1), oldest, GapCause::TooOld)))
            }
            Start::At { sequence, .. } => (sequence.max(1), None),
        };
        Reader {
            log: self.clone(),
            next,
            gap,
            kinds,
        }
    }
}

fn gap(first: u64, next: u64, cause: GapCause) -> v1::GapEvent {
    v1::GapEvent {
        first,
        next,
        cause: cause.into(),
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing that holds it can leave it half changed.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, kind: EventKind, body: Body) -> v1::Event {
        v1::Event {
            unix_nanos: unix_nanos(),
            event: Some(body),
            sequence: 0,
            boot: self.boot,
            kind: kind.into(),
            // Every reader gets it from the reader: it would take room in each event.
            node: String::new(),
        }
    }
}

impl Reader {
    /// The number of the event that comes next, and the life of the node that it is of.
    pub fn position(&self) -> (u64, u64) {
        (self.next, self.log.shared.boot)
    }

    /// The next event; waits for it. `None` once the node has stopped and all was read.
    pub async fn next(&mut self) -> Option<v1::Event> {
        loop {
            if let Some(event) = self.take() {
                return Some(event);
            }
            // An error means that no more will come; what came before it was looked at is still there.
            if self.log.newest.changed().await.is_err() {
                return self.take();
            }
        }
    }

    /// The next event, if there is one.
    pub fn take(&mut self) -> Option<v1::Event> {
        let shared = &self.log.shared;
        let mut event = match self.gap.take() {
            Some(gap) => shared.missing(gap),
            None => loop {
                let ring = shared.ring();
                if let Some(event) = ring.get(self.next) {
                    let event = Arc::clone(event);
                    drop(ring);
                    self.next += 1;
                    if self.kinds.is_empty() || self.kinds.contains(&event.kind()) {
                        break (*event).clone();
                    }
                } else if self.next < ring.oldest() {
                    let oldest = ring.oldest();
                    drop(ring);
                    let gap = gap(self.next, oldest, GapCause::SlowReader);
                    self.next = oldest;
                    break shared.missing(gap);
                } else {
                    return None;
                }
            },
        };
        event.node.clone_from(&shared.node);
        Some(event)
    }
}

impl Shared {
    /// A gap is told with the number of the last event missing: a reader may always go on at the next one.
    fn missing(&self, gap: v1::GapEvent) -> v1::Event {
        let sequence = gap.next.saturating_sub(1);
        v1::Event {
            sequence,
            ..self.event(EventKind::Fault, Body::Gap(gap))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(events: &Events, kind: EventKind, generation: u64) {
        let body = Body::Table(v1::TableEvent {
            generation,
            changes: 0,
            ..Default::default()
        });
        events.emit(kind, body);
    }

    /// What is there to read: sequence and generation, or a gap.
    fn all(reader: &mut Reader) -> Vec<String> {
        let next = || {
            let event = reader.take()?;
            assert_eq!(event.node, "n");
            Some(match event.event.expect("it is something") {
                Body::Table(table) => format!("{}:{}", event.sequence, table.generation),
                Body::Gap(gap) => {
                    assert_eq!(event.sequence + 1, gap.next);
                    format!("{}..{} {:?}", gap.first, gap.next, gap.cause())
                }
                other => panic!("{other:?}"),
            })
        };
        std::iter::from_fn(next).collect()
    }

    fn at(sequence: u64, boot: u64) -> Start {
        Start::At { sequence, boot }
    }

    #[test]
    fn readers_begin_where_they_want() {
        let events = Events::new("n", 3);
        let log = events.log();
        let mut early = log.read(Start::Now, Vec::new());
        for generation in 10..15 {
            tell(&events, EventKind::Configuration, generation);
        }
        assert_eq!(all(&mut early), ["1..3 SlowReader", "3:12", "4:13", "5:14"]);
        assert!(all(&mut early).is_empty());
        let boot = log.shared.boot;
        let read = |start| all(&mut log.read(start, Vec::new()));
        assert!(read(Start::Now).is_empty());
        assert_eq!(read(at(5, boot)), ["5:14"]);
        assert_eq!(read(at(4, 0)), ["4:13", "5:14"]);
        assert_eq!(
            read(at(0, boot)),
            ["1..3 TooOld", "3:12", "4:13", "5:14"],
            "from the beginning"
        );
        assert!(read(at(6, boot)).is_empty(), "the next one");
        assert_eq!(read(at(7, boot))[0], "7..3 Restarted");
        assert_eq!(read(at(5, boot + 1))[0], "5..3 Restarted");
    }

    #[test]
    fn kinds_are_filtered_and_gaps_are_not() {
        let events = Events::new("n", 4);
        let mut reader = events.log().read(Start::Now, vec![EventKind::Security]);
        tell(&events, EventKind::Security, 1);
        tell(&events, EventKind::Fault, 2);
        tell(&events, EventKind::Security, 3);
        assert_eq!(all(&mut reader), ["1:1", "3:3"]);
        for _ in 0..6 {
            tell(&events, EventKind::Fault, 0);
        }
        assert_eq!(all(&mut reader), ["4..6 SlowReader"]);
    }

    #[tokio::test]
    async fn waits_for_the_next_and_ends_with_the_node() {
        let events = Events::new("n", 4);
        let mut reader = events.log().read(Start::Now, Vec::new());
        let read = tokio::spawn(async move {
            let mut sequences = Vec::new();
            while let Some(event) = reader.next().await {
                sequences.push(event.sequence);
            }
            sequences
        });
        for generation in 0..3 {
            tell(&events, EventKind::Fault, generation);
            tokio::task::yield_now().await;
        }
        drop(events);
        assert_eq!(read.await.expect("no panic"), [1, 2, 3]);
    }
}
