//! One role of the pipeline with packets made ready ahead, so that only the work on them is timed.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use twinseal::fixture::{EAST, EDGE, FixtureError, Node, Path, WEST, host_frame_v4};
use twinseal::pipeline::reason::DropReason;
use twinseal::pipeline::{
    BATCH, Batch, Disposition, HEADROOM, Packet, Probe, STAGES, process, process_probed,
};
use twinseal::tables::{PortIndex, hash};
use twinseal_crypto::{CryptoError, Provider, Suite};
use twinseal_xsk::{HugePages, Umem, UmemConfig, XskError};

/// Octets of the inner IP packets that are measured.
pub const SIZES: [usize; 3] = [64, 512, 1400];
/// Packets a round: with their headroom they fill 8 MiB, as a worker's memory would.
pub const ROUND: usize = 64 * BATCH;

/// What a node does with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// From a host: route, circuit seal, link seal.
    Ingress,
    /// From a node to a node: link open, label, link seal.
    Transit,
    /// To a host: link open, circuit open, route.
    Egress,
}

impl Role {
    /// Every role, in a packet's order.
    pub const ALL: [Self; 3] = [Self::Ingress, Self::Transit, Self::Egress];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Transit => "transit",
            Self::Egress => "egress",
        }
    }

    /// The port that its packets leave by.
    const fn way_out(self) -> PortIndex {
        match self {
            Self::Ingress => WEST,
            Self::Transit => EAST,
            Self::Egress => EDGE,
        }
    }

    fn node(self, path: &mut Path) -> &mut Node {
        match self {
            Self::Ingress => &mut path.a,
            Self::Transit => &mut path.transit,
            Self::Egress => &mut path.b,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The nodes could not be made.
    #[error(transparent)]
    Fixture(#[from] FixtureError),
    /// A key for the AEAD calls alone.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// Packet memory.
    #[error(transparent)]
    Memory(#[from] XskError),
    /// Packets were lost, so a time would mean nothing.
    #[error("{role} dropped {packets} of {ROUND} packets, the first as {}: the pipeline is broken", .first.name())]
    Dropped {
        /// Where.
        role: Role,
        /// How many.
        packets: usize,
        /// Why the first was.
        first: DropReason,
    },
    /// An AEAD call alone did not verify, so it did not do the pipeline's work.
    #[error("the AEAD calls alone of {role} failed: they no longer follow the wire format")]
    Alone {
        /// Whose.
        role: Role,
    },
}

/// A node in one role, and packets of one size for it.
pub struct Rig {
    path: Path,
    role: Role,
    hosts: Vec<Vec<u8>>,
    batches: Vec<Batch>,
}

impl Rig {
    /// Makes the nodes. `octets` is the size of the inner IPv4 packets, 28 to 1408.
    ///
    /// # Errors
    /// No memory, or no key.
    pub fn new(
        provider: &dyn Provider,
        suite: Suite,
        role: Role,
        octets: usize,
    ) -> Result<Self, BenchError> {
        let mut path = Path::new(provider, suite)?;
        // The fixture's own memory holds a few batches; a round has many, so that none of it is warm by chance.
        role.node(&mut path).memory = mixed(Umem::new(&UmemConfig {
            frame_count: ROUND as u32,
            frame_size: 2048,
            headroom: HEADROOM.next_multiple_of(64) as u32,
            jumbo_frames: 0,
            huge: HugePages::Auto,
        })?);
        Ok(Self {
            path,
            role,
            // A flow each: the lanes take turns as they would.
            hosts: (0..BATCH as u16)
                .map(|flow| host_frame_v4(octets, flow))
                .collect(),
            batches: Vec::with_capacity(ROUND / BATCH),
        })
    }

    /// What the node does.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Makes [`ROUND`] packets ready, has `measure` call the work on them once, and checks that all were sent.
    ///
    /// # Errors
    /// [`BenchError::Dropped`].
    pub fn round<T>(
        &mut self,
        measure: impl FnOnce(&mut dyn FnMut()) -> T,
    ) -> Result<T, BenchError> {
        self.prepare();
        let node = self.role.node(&mut self.path);
        let batches = &mut self.batches;
        let measured = measure(&mut || {
            for batch in batches.iter_mut() {
                process(&mut node.state, &node.tables, batch);
            }
        });
        self.take_back()?;
        Ok(measured)
    }

    /// As [`Rig::round`], and returns how long all batches together took in each of [`STAGES`].
    ///
    /// # Errors
    /// [`BenchError::Dropped`].
    pub fn stages(&mut self) -> Result<[Duration; STAGES.len()], BenchError> {
        self.prepare();
        let node = self.role.node(&mut self.path);
        let mut watch = Watch {
            last: Instant::now(),
            stages: Default::default(),
        };
        for batch in &mut self.batches {
            watch.last = Instant::now();
            process_probed(&mut node.state, &node.tables, batch, &mut watch);
        }
        self.take_back()?;
        Ok(watch.stages)
    }

    /// Makes the same packets ready, but has `work` done on each batch of frames instead of the pipeline's.
    pub(crate) fn round_instead<T>(&mut self, mut work: impl FnMut(&mut Batch) -> T) -> Vec<T> {
        self.prepare();
        let done = self.batches.iter_mut().map(&mut work).collect();
        self.free();
        done
    }

    fn prepare(&mut self) {
        let Path { a, transit, b } = &mut self.path;
        for _ in 0..ROUND / BATCH {
            let mut batch = a.batch(EDGE, &self.hosts);
            if self.role != Role::Ingress {
                batch = hop(a, batch, transit);
            }
            if self.role == Role::Egress {
                batch = hop(transit, batch, b);
            }
            self.batches.push(batch);
        }
    }

    fn take_back(&mut self) -> Result<(), BenchError> {
        let (mut packets, mut first) = (0, None);
        for packet in self.batches.iter().flatten() {
            let reason = match packet.disposition {
                Disposition::Send(port) if port == self.role.way_out() => continue,
                Disposition::Drop(reason) => reason,
                // The fixture has no other way out and knows all neighbours, and nothing may be left undecided.
                Disposition::Send(_) | Disposition::Wait(_) | Disposition::Pending => {
                    DropReason::PortGone
                }
            };
            packets += 1;
            first.get_or_insert(reason);
        }
        self.free();
        match first {
            None => Ok(()),
            Some(first) => Err(BenchError::Dropped {
                role: self.role,
                packets,
                first,
            }),
        }
    }

    /// Gives all frames back, last one first: the memory is a stack, so every round gets them in the same order.
    fn free(&mut self) {
        let node = self.role.node(&mut self.path);
        for packet in self
            .batches
            .drain(..)
            .rev()
            .flat_map(|batch| batch.into_iter().rev())
        {
            node.memory.free(packet.frame);
        }
    }
}

/// Takes the time of each stage.
struct Watch {
    last: Instant,
    stages: [Duration; STAGES.len()],
}

impl Probe for Watch {
    fn passed(&mut self, stage: usize) {
        let now = Instant::now();
        self.stages[stage] += now - self.last;
        self.last = Instant::now();
    }
}

/// Memory that gives out its chunks in no order, as after hours of traffic; else the processor's prefetcher would
/// know the next packet.
fn mixed(mut memory: Umem) -> Umem {
    let mut frames: Vec<_> = std::iter::from_fn(|| memory.alloc()).collect();
    frames.sort_by_key(|frame| hash::words(0, &[frame.number().into()]));
    for frame in frames {
        memory.free(frame);
    }
    memory
}

/// Takes a batch through a node, and copies what it sends into frames that arrive at the next.
fn hop(from: &mut Node, mut batch: Batch, to: &mut Node) -> Batch {
    process(&mut from.state, &from.tables, &mut batch);
    batch
        .drain(..)
        .map(|packet| {
            let mut frame = to.memory.alloc().expect("a round's packets fit the memory");
            assert!(
                frame.copy_from(packet.frame.data()),
                "a frame fits a chunk of the same size"
            );
            from.memory.free(packet.frame);
            Packet::new(frame, WEST)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinseal_crypto::{default_provider, providers};

    #[test]
    fn every_role_sends_every_packet_round_after_round() {
        for provider in providers() {
            for role in Role::ALL {
                let mut rig = Rig::new(*provider, Suite::Aes256Gcm, role, 64).unwrap();
                for _ in 0..3 {
                    let calls = rig
                        .round(|work| {
                            work();
                            1
                        })
                        .unwrap();
                    assert_eq!(calls, 1);
                    assert_eq!(role.node(&mut rig.path).memory.outstanding(), 0);
                }
            }
        }
    }

    #[test]
    fn a_dropped_packet_is_an_error() {
        let provider = default_provider();
        let mut rig = Rig::new(provider, Suite::Aes256Gcm, Role::Egress, 64).unwrap();
        rig.path.b.tables.labels.clear();
        let Err(BenchError::Dropped { packets, first, .. }) = rig.round(|work| work()) else {
            panic!("the drops were not seen");
        };
        assert_eq!((packets, first), (ROUND, DropReason::UnknownLabel));
        // Nothing was worked on: that is not a result either.
        assert!(rig.round(|_| ()).is_err());
    }
}
