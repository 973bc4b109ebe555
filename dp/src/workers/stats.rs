//! Counters of the workers.

use crate::tables::PortIndex;

/// All workers' counters at one moment.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// Drops by reason, summed over workers; every reason is listed.
    pub drops: Vec<(&'static str, u64)>,
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
    /// Frames sent.
    pub sent_packets: u64,
    /// Their octets.
    pub sent_bytes: u64,
    /// What the kernel counts of its sockets, by name.
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
