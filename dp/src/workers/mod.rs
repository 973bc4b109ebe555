//! Workers: pinned threads that run packets to completion, and the control thread's handle of them.

pub mod stats;

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam::channel::Receiver;

use crate::ports::{Outcome, PortError, PortSpec, Steering};
use crate::tables::{PortIndex, Tables};

/// How to run workers.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// The CPU of each worker, or `None` to leave it to the scheduler; the number of entries is the number of workers.
    pub cpus: Vec<Option<usize>>,
    /// Frames of packet memory a worker.
    pub frames: u32,
    /// Octets of a frame: 2048 or 4096.
    pub frame_size: u32,
    /// Huge pages.
    pub huge_pages: twinseal_xsk::HugePages,
    /// Descriptors of each ring; a power of two.
    pub ring: u32,
    /// Whether a worker spins when there is nothing to do, instead of sleeping in poll(2).
    pub spin: bool,
    /// Lanes of a worker: into how many ordered slices its flows fall, for the spread over the underlay's paths.
    pub lanes: u8,
}

/// A neighbour that packets wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NeighbourRequest {
    /// The edge port.
    pub port: PortIndex,
    /// Its address.
    pub address: IpAddr,
}

/// The running workers.
pub struct Pool {}

impl Pool {
    /// Starts them, with empty tables.
    pub fn start(config: PoolConfig) -> Result<Self, PortError> {
        let _ = config;
        todo!()
    }

    /// How many there are.
    pub fn workers(&self) -> usize {
        todo!()
    }

    /// "huge pages" or "ordinary pages".
    pub fn memory(&self) -> &'static str {
        todo!()
    }

    /// Opens a device and hands its queues to the workers. Its packets go nowhere until tables know the port.
    pub fn add_port(&self, index: PortIndex, spec: &PortSpec) -> Result<(Steering, Outcome), PortError> {
        let _ = (index, spec);
        todo!()
    }

    /// Takes a port away and waits until its queues are closed.
    pub fn remove_port(&self, index: PortIndex) {
        let _ = index;
        todo!()
    }

    /// Makes these the tables of every batch that begins from now on.
    pub fn publish(&mut self, tables: Tables) {
        let _ = tables;
        todo!()
    }

    /// The newest tables.
    pub fn tables(&self) -> Arc<Tables> {
        todo!()
    }

    /// Frees old tables that no worker holds any more; call now and then.
    pub fn reclaim(&mut self) {
        todo!()
    }

    /// Neighbours that packets wait for; a worker asks for each at most once a second.
    pub fn neighbour_requests(&self) -> &Receiver<NeighbourRequest> {
        todo!()
    }

    /// All counters.
    pub fn stats(&self) -> stats::Snapshot {
        todo!()
    }

    /// Stops the workers, closes every port and waits for both.
    pub fn stop(self) {
        todo!()
    }
}
