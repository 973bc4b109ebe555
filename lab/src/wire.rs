//! A wire with [impairments](crate::impair) between two interfaces, in place of the kernel's netem.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use serde::Serialize;

use crate::Namespace;
use crate::error::LabError;
use crate::impair::{Counters, Impairment, Stage};
use crate::packet::{PacketSocket, Use};
use crate::sys::{self, BATCH, RecvBatch};

/// Longest frame relayed: the largest MTU of a veth that is of use here (9216), Ethernet header and two VLAN tags.
const FRAME_MAX: usize = 9216 + 22;
/// How often the thread looks whether it should stop.
const LOOK_NS: u64 = 20_000_000;

/// Relays frames between two interfaces of a namespace until it is dropped.
///
/// Both should be veth ends made without offloads; else frames may be longer than the wire takes. Frames on the wire
/// when it is dropped are lost.
#[derive(Debug)]
pub struct ImpairedWire {
    stop: Arc<AtomicBool>,
    shared: Arc<[Shared; 2]>,
    thread: Option<JoinHandle<()>>,
}

/// What the wire did in one direction, in frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WireCounters {
    /// What the impairments did.
    pub impairment: Counters,
    /// Lost because the thread did not take them from the kernel in time.
    pub missed: u64,
    /// Refused by the outgoing interface.
    pub unsent: u64,
}

/// Counters as the thread shows them, in the order of `WireCounters`.
#[derive(Debug, Default)]
struct Shared([AtomicU64; 8]);

impl Shared {
    fn store(&self, c: &WireCounters) {
        let i = c.impairment;
        let values = [
            i.forwarded,
            i.lost,
            i.duplicated,
            i.reordered,
            i.corrupted,
            i.overflowed,
            c.missed,
            c.unsent,
        ];
        for (cell, value) in self.0.iter().zip(values) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    fn load(&self) -> WireCounters {
        let value = |i: usize| self.0[i].load(Ordering::Relaxed);
        WireCounters {
            impairment: Counters {
                forwarded: value(0),
                lost: value(1),
                duplicated: value(2),
                reordered: value(3),
                corrupted: value(4),
                overflowed: value(5),
            },
            missed: value(6),
            unsent: value(7),
        }
    }
}

impl ImpairedWire {
    /// Connects `if_a` and `if_b` of `ns`. When it returns it relays.
    ///
    /// # Errors
    /// When an interface is not there or the kernel refuses.
    pub fn start(
        ns: &Namespace,
        if_a: &str,
        if_b: &str,
        a_to_b: Impairment,
        b_to_a: Impairment,
    ) -> Result<Self, LabError> {
        let a = PacketSocket::open(ns, if_a, Use::Relay)?;
        let b = PacketSocket::open(ns, if_b, Use::Relay)?;
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new([Shared::default(), Shared::default()]);
        let mut relay = Relay {
            sockets: [a, b],
            stages: [Stage::new(a_to_b), Stage::new(b_to_a)],
            counters: [WireCounters::default(); 2],
            batch: RecvBatch::new(FRAME_MAX),
            out: Vec::with_capacity(BATCH),
        };
        let thread = std::thread::spawn({
            let (stop, shared) = (stop.clone(), shared.clone());
            move || {
                sys::precise_sleep();
                while !stop.load(Ordering::Relaxed) {
                    if let Err(e) = relay.turn(&shared) {
                        eprintln!("twinseal-lab: a wire ends: {e}");
                        return;
                    }
                }
            }
        });
        Ok(ImpairedWire {
            stop,
            shared,
            thread: Some(thread),
        })
    }

    /// What happened so far to frames from `if_a` to `if_b`.
    pub fn a_to_b(&self) -> WireCounters {
        self.shared[0].load()
    }

    /// What happened so far to frames from `if_b` to `if_a`.
    pub fn b_to_a(&self) -> WireCounters {
        self.shared[1].load()
    }
}

impl Drop for ImpairedWire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's state; direction 0 is from socket 0 to socket 1.
struct Relay {
    sockets: [PacketSocket; 2],
    stages: [Stage; 2],
    counters: [WireCounters; 2],
    batch: RecvBatch,
    out: Vec<Vec<u8>>,
}

impl Relay {
    /// Takes a batch from each side, sends what is due, waits when there was nothing to do.
    fn turn(&mut self, shared: &[Shared; 2]) -> io::Result<()> {
        let mut received = 0;
        for (direction, shared) in shared.iter().enumerate() {
            let count = self.sockets[direction].recv(&mut self.batch)?;
            let now = sys::monotonic_ns();
            for (frame, wire_len) in self.batch.iter() {
                if frame.len() < wire_len {
                    self.counters[direction].unsent += 1;
                } else {
                    self.stages[direction].push(now, frame);
                }
            }
            received += count;
            let sent = self.send_due(direction);
            if count > 0 || sent {
                self.counters[direction].missed += self.sockets[direction].take_drops();
                self.counters[direction].impairment = self.stages[direction].counters();
                shared.store(&self.counters[direction]);
            }
        }
        if received > 0 {
            return Ok(());
        }
        let due = self.stages.iter().filter_map(Stage::next_due).min();
        let wait = due.map_or(LOOK_NS, |due| {
            due.saturating_sub(sys::monotonic_ns()).min(LOOK_NS)
        });
        sys::wait_readable(&[self.sockets[0].as_fd(), self.sockets[1].as_fd()], wait)
    }

    fn send_due(&mut self, direction: usize) -> bool {
        let now = sys::monotonic_ns();
        let mut any = false;
        loop {
            let stage = &mut self.stages[direction];
            self.out.clear();
            self.out
                .extend(std::iter::from_fn(|| stage.pop_due(now)).take(BATCH));
            if self.out.is_empty() {
                return any;
            }
            any = true;
            let mut rest = &self.out[..];
            while !rest.is_empty() {
                // An error is of the first frame only; the others may still go.
                let sent = self.sockets[1 - direction].send(rest).unwrap_or_else(|_| {
                    self.counters[direction].unsent += 1;
                    1
                });
                rest = &rest[sent..];
            }
        }
    }
}
