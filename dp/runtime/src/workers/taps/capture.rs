//! Frames as they come and go at a port.

use std::sync::Arc;

use twinseal_xsk::Frame;

use super::{Filter, Tap};
use twinseal_fib::PortIndex;
use twinseal_wire::flow_key::FlowKey;

/// A copy of a frame, or of its beginning.
#[derive(Debug)]
pub struct Captured {
    /// Since 1970, in nanoseconds.
    pub unix_nanos: u64,
    /// Which way.
    pub direction: Direction,
    /// Octets of the whole frame.
    pub length: usize,
    /// What was taken of it.
    pub octets: Vec<u8>,
}

/// Which way a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// It was received.
    In,
    /// It is handed to the device. What the device has no room for is then dropped.
    Out,
}

/// What is captured, and where it goes.
#[derive(Clone)]
pub struct Capture {
    /// The port.
    pub port: PortIndex,
    /// Frames that are received.
    pub incoming: bool,
    /// Frames that are sent.
    pub outgoing: bool,
    /// Which of them.
    pub filter: Filter,
    /// Octets that are taken of each.
    pub snap_length: usize,
    /// Where they go.
    pub tap: Arc<Tap<Captured>>,
}

impl Capture {
    /// The memory of a capture.
    pub fn tap(workers: usize, snap_length: usize, count: u64) -> Arc<Tap<Captured>> {
        /// Octets for each worker.
        const MEMORY: usize = 4 << 20;
        let depth = (MEMORY / snap_length.max(1)).clamp(64, 4096);
        Tap::new(workers, depth, count, || Captured {
            unix_nanos: 0,
            direction: Direction::In,
            length: 0,
            octets: Vec::with_capacity(snap_length),
        })
    }

    /// Offers frames at a port to it.
    pub(in crate::workers) fn offer<'f>(
        &self,
        worker: usize,
        port: PortIndex,
        direction: Direction,
        unix_nanos: u64,
        frames: impl Iterator<Item = &'f Frame>,
    ) {
        let wanted = match direction {
            Direction::In => self.incoming,
            Direction::Out => self.outgoing,
        };
        if port != self.port || !wanted || self.tap.ended() {
            return;
        }
        for frame in frames {
            let data = frame.data();
            if !self.filter.fits(|| FlowKey::of_frame(data)) {
                continue;
            }
            self.tap.put(worker, |record| {
                record.unix_nanos = unix_nanos;
                record.direction = direction;
                record.length = data.len();
                record.octets.clear();
                // No more than it was made for, so that nothing is allocated.
                record
                    .octets
                    .extend_from_slice(&data[..data.len().min(self.snap_length)]);
            });
        }
    }
}
