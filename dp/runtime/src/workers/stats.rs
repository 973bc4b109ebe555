//! Counters of the workers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use twinseal_xsk::Amount;

use twinseal_fib::traffic::add;
use twinseal_fib::{MAX_PORTS, PortIndex};
use twinseal_forward::offloads::Offloads;

/// What one worker counts; it alone writes.
#[derive(Debug)]
pub(super) struct WorkerCounters {
    pub(super) ports: [PortCells; MAX_PORTS],
    pub(super) batches: AtomicU64,
    pub(super) packets: AtomicU64,
    pub(super) sleeps: AtomicU64,
    pub(super) frames_free: AtomicU32,
    /// The ports that have a queue whose device is gone, a bit each.
    pub(super) dead: AtomicU64,
}

const _: () = assert!(MAX_PORTS <= u64::BITS as usize);

/// One port's share.
#[derive(Default, Debug)]
pub(super) struct PortCells {
    received_packets: AtomicU64,
    received_bytes: AtomicU64,
    sent_packets: AtomicU64,
    sent_bytes: AtomicU64,
    finished: AtomicU64,
    unfinishable: AtomicU64,
    super_frames: AtomicU64,
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            ports: std::array::from_fn(|_| PortCells::default()),
            batches: AtomicU64::new(0),
            packets: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            frames_free: AtomicU32::new(0),
            dead: AtomicU64::new(0),
        }
    }
}

impl PortCells {
    pub(super) fn received(&self, packets: usize, bytes: usize) {
        add(&self.received_packets, packets as u64);
        add(&self.received_bytes, bytes as u64);
    }

    pub(super) fn sent(&self, packets: u64, bytes: u64) {
        add(&self.sent_packets, packets);
        add(&self.sent_bytes, bytes);
    }

    /// Counts what hosts left to a device.
    #[cold]
    pub(super) fn left_to_us(&self, it: Offloads) {
        add(&self.finished, it.finished);
        add(&self.unfinishable, it.unfinishable);
        add(&self.super_frames, it.super_frames);
    }

    /// Begins anew, for the next port of this index. Only the worker may call it.
    pub(super) fn reset(&self) {
        for counter in [
            &self.received_packets,
            &self.received_bytes,
            &self.sent_packets,
            &self.sent_bytes,
            &self.finished,
            &self.unfinishable,
            &self.super_frames,
        ] {
            counter.store(0, Relaxed);
        }
    }

    /// What is counted of this port. Only the worker may call it.
    pub(super) fn totals(&self, port: PortIndex) -> PortTotals {
        PortTotals {
            port,
            received_packets: self.received_packets.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            sent_packets: self.sent_packets.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            offloads: Offloads {
                finished: self.finished.load(Relaxed),
                unfinishable: self.unfinishable.load(Relaxed),
                super_frames: self.super_frames.load(Relaxed),
            },
            sockets: Vec::new(),
        }
    }
}

/// All workers' counters at one moment.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// Drops by reason, summed over workers; every reason is listed.
    pub drops: Vec<(&'static str, u64)>,
    /// ICMP errors by what became of them, summed over workers.
    pub icmp_errors: Vec<(&'static str, u64)>,
    /// Echo requests and replies of maintenance, summed over workers.
    pub echoes: Vec<(&'static str, u64)>,
    /// By port.
    pub ports: Vec<PortTotals>,
    /// By worker.
    pub workers: Vec<WorkerTotals>,
}

/// A port's counters, summed over workers.
#[derive(Clone, Debug)]
pub struct PortTotals {
    /// Which port.
    pub port: PortIndex,
    /// Frames received.
    pub received_packets: u64,
    /// Their octets.
    pub received_bytes: u64,
    /// Frames sent: the device has taken them.
    pub sent_packets: u64,
    /// Their octets.
    pub sent_bytes: u64,
    /// What hosts left to a device.
    pub offloads: Offloads,
    /// What is counted of its queues outside the packet path, by name.
    pub sockets: Vec<(&'static str, u64)>,
}

/// One worker's counters.
#[derive(Clone, Copy, Default, Debug)]
pub struct WorkerTotals {
    /// Batches that had a packet.
    pub batches: u64,
    /// Packets.
    pub packets: u64,
    /// Times that it slept.
    pub sleeps: u64,
    /// Frames of its packet memory that are free.
    pub frames_free: u32,
    /// Frames of its packet memory.
    pub frames: u32,
}

impl PortTotals {
    /// Adds what another worker counted of the same port.
    pub(super) fn add(&mut self, other: &Self) {
        self.received_packets += other.received_packets;
        self.received_bytes += other.received_bytes;
        self.sent_packets += other.sent_packets;
        self.sent_bytes += other.sent_bytes;
        self.offloads.finished += other.offloads.finished;
        self.offloads.unfinishable += other.offloads.unfinishable;
        self.offloads.super_frames += other.offloads.super_frames;
        self.add_sockets(&other.sockets);
    }

    /// What was counted as sent when a queue took it was not.
    pub(super) fn take_off(&mut self, not_sent: Amount) {
        self.sent_packets = self.sent_packets.saturating_sub(not_sent.packets);
        self.sent_bytes = self.sent_bytes.saturating_sub(not_sent.bytes);
    }

    /// Adds another queue's counters, name by name.
    pub(super) fn add_sockets(&mut self, counters: &[(&'static str, u64)]) {
        for &(name, value) in counters {
            match self.sockets.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => self.sockets.push((name, value)),
            }
        }
    }
}
