//! Packets that workers leave to the node itself, and packets of the node's own that they seal and send: a ring each way for
//! every worker.
//!
//! Records are allocated once, as those of [taps](super::taps) are, so neither side allocates or waits: what finds no room
//! is counted and dropped. A worker looks for packets of the node's own once a loop, before it receives; that look is a
//! load and a branch for up to a batch of each queue. It wakes the node once a batch that had something for it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use twinseal_fib::{LinkIndex, PortIndex};
use twinseal_forward::punt::{CameBy, PuntKind, Towards};
use twinseal_xsk::{Frame, Umem};

use super::taps::ring::Ring;
use twinseal_wire::oam::Echo;

/// Punted packets of a kind, of one worker, that may wait for the node.
const PUNTED: usize = 512;
/// Bytes that are kept of each.
const KEPT: usize = 64;
/// Packets of the node's own that may wait for a worker.
const INJECTED: usize = 128;
/// The longest.
pub const MESSAGE: usize = 512;
/// Those that a worker takes at a time, before it looks for data again.
pub(super) const AT_ONCE: usize = 32;

/// A packet that a worker left to the node.
#[derive(Clone, Debug)]
pub struct Punted {
    /// By which worker.
    pub worker: usize,
    /// When it took it, since the workers began.
    pub at: Duration,
    /// What it came out of.
    pub came: CameBy,
    /// Its first bytes: an echo message without its padding.
    pub message: ArrayVec<u8, KEPT>,
}

/// A packet of the node's own.
struct Injected {
    towards: Towards,
    message: Vec<u8>,
}

/// What one worker and the node have in common.
pub(super) struct Crossing {
    punted: [Ring<Punted>; PuntKind::ALL.len()],
    injected: Ring<Injected>,
    /// Whether there may be an injected packet.
    waiting: AtomicBool,
    /// Tells the node that something was punted.
    told: Arc<OwnedFd>,
}

impl Crossing {
    pub(super) fn new(worker: usize, told: Arc<OwnedFd>) -> Arc<Self> {
        let nothing = || Punted {
            worker,
            at: Duration::ZERO,
            came: CameBy {
                port: PortIndex(0),
                link: LinkIndex(0),
                circuit: None,
            },
            message: ArrayVec::new(),
        };
        Arc::new(Self {
            punted: PuntKind::ALL.map(|_| Ring::new(PUNTED, nothing)),
            injected: Ring::new(INJECTED, || Injected {
                towards: Towards::Port(PortIndex(0)),
                message: Vec::with_capacity(MESSAGE),
            }),
            waiting: AtomicBool::new(false),
            told,
        })
    }

    /// Whether there may be a packet of the node's own.
    #[inline(always)]
    pub(super) fn waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Leaves a packet to the node; false if that is behind. Only the worker may call it.
    pub(super) fn punt(&self, kind: PuntKind, at: Duration, came: CameBy, message: &[u8]) -> bool {
        self.punted[kind as usize].put(|record| {
            (record.at, record.came) = (at, came);
            record.message.clear();
            record.message.extend(message.iter().take(KEPT).copied());
        })
    }

    /// Tells the node of punted packets.
    pub(super) fn tell(&self) {
        wake(&self.told);
    }

    /// Takes packets of the node's own, in frames of the worker's memory; requests are stamped. Only the worker may call it.
    pub(super) fn take(
        &self,
        now: Duration,
        memory: &mut Umem,
    ) -> ArrayVec<(Frame, Towards), AT_ONCE> {
        // Before the ring is looked at: what comes from now on sets it again.
        self.waiting.swap(false, Ordering::Acquire);
        let mut taken = ArrayVec::new();
        while !taken.is_full() {
            let Some(mut frame) = memory.alloc() else {
                break;
            };
            let mut of = None;
            self.injected.take(|record| {
                // A message is shorter than any frame.
                of = Some((frame.copy_from(&record.message), record.towards));
            });
            match of {
                Some((true, towards)) => {
                    // A frame is sent as it is.
                    if !matches!(towards, Towards::Port(_)) {
                        Echo::stamp(frame.data_mut(), now.as_nanos() as u64);
                    }
                    taken.push((frame, towards));
                }
                Some((false, _)) => memory.free(frame),
                None => {
                    memory.free(frame);
                    return taken;
                }
            }
        }
        // There may be more.
        self.waiting.store(true, Ordering::Relaxed);
        taken
    }
}

/// The node's end of it all. There is one.
pub struct Exchange {
    began: Instant,
    told: Arc<OwnedFd>,
    /// Of each worker, with what wakes it.
    workers: Vec<(Arc<Crossing>, Arc<OwnedFd>)>,
}

/// Wakes whoever waits for an [`Exchange`].
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// [`Exchange::wait`] returns.
    pub fn wake(&self) {
        wake(&self.0);
    }
}

impl Exchange {
    pub(super) fn new(
        began: Instant,
        told: Arc<OwnedFd>,
        workers: Vec<(Arc<Crossing>, Arc<OwnedFd>)>,
    ) -> Self {
        Self {
            began,
            told,
            workers,
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The time by the workers' clock.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What ends a wait.
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.told))
    }

    /// Has a worker send a message or frame of the node's own, before any data; one that sleeps is woken. False if it is
    /// longer than [`MESSAGE`], or the worker is behind with those before it, or there is none of that number.
    pub fn inject(&mut self, worker: usize, towards: Towards, message: &[u8]) -> bool {
        let Some((crossing, event)) = self.workers.get(worker) else {
            return false;
        };
        let put = message.len() <= MESSAGE
            && crossing.injected.put(|record| {
                record.towards = towards;
                record.message.clear();
                record.message.extend_from_slice(message);
            });
        if put {
            crossing.waiting.store(true, Ordering::Release);
            wake(event);
        }
        put
    }

    /// Hands over what workers have left to the node.
    pub fn take(&mut self, mut read: impl FnMut(PuntKind, &Punted)) {
        for (crossing, _) in &self.workers {
            for kind in PuntKind::ALL {
                while crossing.punted[kind as usize].take(|record| read(kind, record)) {}
            }
        }
    }

    /// Waits until there is something to take, somebody wakes us, or the time is over.
    pub fn wait(&self, most: Duration) {
        let time = Timespec {
            tv_sec: most.as_secs() as i64,
            tv_nsec: most.subsec_nanos().into(),
        };
        // Interrupted or not, whoever waits looks at everything again.
        let _ = poll(
            &mut [PollFd::from_borrowed_fd(self.told.as_fd(), PollFlags::IN)],
            Some(&time),
        );
        let _ = rustix::io::read(&self.told, &mut [0; 8]);
    }
}

fn wake(event: &OwnedFd) {
    // If it can't be written it is set already.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
