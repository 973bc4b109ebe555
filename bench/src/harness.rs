//! One role of the pipeline with packets made ready ahead, so that only the work on them is timed.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::Serialize;
use twinseal_crypto::CryptoError;
use twinseal_fib::{Fib, PortIndex, hash};
use twinseal_forward::fixture::{EAST, EDGE, FixtureError, WEST, host_frame_v4};
use twinseal_forward::reason::DropReason;
use twinseal_forward::{
    BATCH, Batch, Disposition, FRAME_HEADROOM, Packet, Probe, STAGES, State, process,
    process_probed,
};
use twinseal_wire::{ethernet, ip};
use twinseal_xsk::{HugePages, Umem, UmemConfig, XskError};

use crate::Size;
use crate::net::{A, B, TRANSIT};
use crate::routes::{Draw, Prefix, address_in};

/// Packets a round: with their headroom they fill 8 MiB, as a worker's memory would.
pub const ROUND: usize = 64 * BATCH;

/// What is done with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// From a host: route, circuit seal, link seal.
    Ingress,
    /// From a node to a node: link open, label, link seal.
    Transit,
    /// To a host: link open, circuit open, route.
    Egress,
    /// All three of them, one after the other.
    Path,
}

impl Role {
    /// Every role, in a packet's order.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::Transit, Self::Egress, Self::Path];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Transit => "transit",
            Self::Egress => "egress",
            Self::Path => "path",
        }
    }

    /// The roles that it is made of.
    pub fn parts(self) -> &'static [Self] {
        match self {
            Self::Ingress => &[Self::Ingress],
            Self::Transit => &[Self::Transit],
            Self::Egress => &[Self::Egress],
            Self::Path => &[Self::Ingress, Self::Transit, Self::Egress],
        }
    }

    /// The nodes that do it.
    const fn nodes(self) -> Range<usize> {
        match self {
            Self::Ingress => A..TRANSIT,
            Self::Transit => TRANSIT..B,
            Self::Egress => B..B + 1,
            Self::Path => A..B + 1,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The port that a node's packets leave by.
const fn way_out(node: usize) -> PortIndex {
    match node {
        A => WEST,
        TRANSIT => EAST,
        _ => EDGE,
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
    /// A worker could not be bound to its CPU.
    #[error("worker not pinned to CPU {cpu}: {source}")]
    NotPinned {
        /// Which.
        cpu: usize,
        /// Why not.
        source: std::io::Error,
    },
    /// More workers than CPUs measure the scheduler.
    #[error(
        "{workers} workers need as many CPUs, and this program may run on {cpus}: use --workers {cpus}"
    )]
    TooManyWorkers {
        /// Wanted.
        workers: usize,
        /// There.
        cpus: usize,
    },
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
    AeadOnly {
        /// Whose.
        role: Role,
    },
}

/// A worker of the nodes in one role, and packets for it.
pub struct Harness<'n> {
    tables: &'n [Fib; 3],
    states: &'n mut [State; 3],
    memories: [Umem; 3],
    role: Role,
    /// The frames of a batch, as hosts send them.
    hosts: Vec<Vec<u8>>,
    routes: &'n [Prefix],
    draw: Draw,
    batches: Vec<Batch>,
}

impl<'n> Harness<'n> {
    /// A worker's states on all nodes, with memory and packets of its own; packets go to `routes`, in an order that
    /// `seed` chooses.
    ///
    /// # Errors
    /// No memory.
    pub fn new(
        tables: &'n [Fib; 3],
        states: &'n mut [State; 3],
        routes: &'n [Prefix],
        role: Role,
        size: Size,
        seed: u64,
    ) -> Result<Self, BenchError> {
        // Those before a round's first node only pass a batch on. A round has many, so that none is warm by chance.
        let memory = |node: usize| match role.nodes().contains(&node) {
            true => memory(ROUND, size).map(mixed),
            false => memory(2 * BATCH, size),
        };
        Ok(Self {
            tables,
            states,
            memories: [memory(A)?, memory(TRANSIT)?, memory(B)?],
            role,
            // A flow each: the lanes take turns as they would.
            hosts: (0..BATCH)
                .map(|nth| host_frame_v4(size.of(nth), nth as u16))
                .collect(),
            routes,
            draw: Draw::new(seed),
            batches: Vec::with_capacity(ROUND / BATCH),
        })
    }

    /// What is done.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Octets of the inner packets, on average.
    pub fn octets(&self) -> f64 {
        let octets: usize = self.hosts.iter().map(Vec::len).sum();
        octets as f64 / self.hosts.len() as f64 - ethernet::LEN as f64
    }

    /// Makes [`ROUND`] packets ready, has `measure` call each node's work on them once, and checks that all were sent.
    ///
    /// # Errors
    /// [`BenchError::Dropped`].
    pub fn round(&mut self, mut measure: impl FnMut(&mut dyn FnMut())) -> Result<(), BenchError> {
        self.prepare();
        for node in self.role.nodes() {
            self.advance(node);
            let (state, tables) = (&mut self.states[node], &self.tables[node]);
            let batches = &mut self.batches;
            measure(&mut || {
                for batch in batches.iter_mut() {
                    process(state, tables, batch);
                }
            });
        }
        self.take_back()
    }

    /// As [`Harness::round`], and returns how long all batches together took in each of [`STAGES`].
    ///
    /// # Errors
    /// [`BenchError::Dropped`].
    pub fn stages(&mut self) -> Result<[Duration; STAGES.len()], BenchError> {
        let mut watch = Watch {
            last: Instant::now(),
            stages: Default::default(),
        };
        self.prepare();
        for node in self.role.nodes() {
            self.advance(node);
            for batch in &mut self.batches {
                watch.last = Instant::now();
                process_probed(
                    &mut self.states[node],
                    &self.tables[node],
                    batch,
                    &mut watch,
                );
            }
        }
        self.take_back()?;
        Ok(watch.stages)
    }

    /// Makes the same packets ready, but has `work` done on each batch of frames instead of the pipeline's.
    pub(crate) fn round_instead<T>(&mut self, mut work: impl FnMut(&mut Batch) -> T) -> Vec<T> {
        self.prepare();
        let done = self.batches.iter_mut().map(&mut work).collect();
        self.free(self.role.nodes().start);
        done
    }

    /// Brings packets of hosts to the role's first node.
    fn prepare(&mut self) {
        for _ in 0..ROUND / BATCH {
            for frame in &mut self.hosts {
                if !self.routes.is_empty() {
                    let nth = hash::reduce(self.draw.number(), self.routes.len());
                    readdress(frame, address_in(self.routes[nth], &mut self.draw));
                }
            }
            let memory = &mut self.memories[A];
            let mut batch = self
                .hosts
                .iter()
                .map(|octets| arrive(memory, octets, EDGE))
                .collect();
            for node in A..self.role.nodes().start {
                process(&mut self.states[node], &self.tables[node], &mut batch);
                self.hop(node, &mut batch);
            }
            self.batches.push(batch);
        }
    }

    /// Brings the packets to this node, if they have not just been made ready there.
    fn advance(&mut self, node: usize) {
        if node > self.role.nodes().start {
            let mut batches = std::mem::take(&mut self.batches);
            for batch in &mut batches {
                self.hop(node - 1, batch);
            }
            self.batches = batches;
        }
    }

    /// Copies what a node sends into frames that arrive at the next; what it drops, is gone.
    fn hop(&mut self, from: usize, batch: &mut Batch) {
        let [sent, to] = self
            .memories
            .get_disjoint_mut([from, from + 1])
            .expect("B sends nothing on");
        let packets = batch.drain(..).collect::<Batch>();
        batch.extend(packets.into_iter().map(|packet| {
            let arrived = arrive(to, packet.frame.data(), WEST);
            sent.free(packet.frame);
            arrived
        }));
    }

    fn take_back(&mut self) -> Result<(), BenchError> {
        let last = self.role.nodes().end - 1;
        let (mut packets, mut first) = (0, None);
        for packet in self.batches.iter().flatten() {
            let reason = match packet.disposition {
                Disposition::Send(port) if port == way_out(last) => continue,
                Disposition::Drop(reason) => reason,
                // The fixture has no other way out and knows all neighbours, and nothing may be left undecided.
                Disposition::Send(_)
                | Disposition::Wait(_)
                | Disposition::Punt(_)
                | Disposition::Pending => DropReason::PortGone,
            };
            packets += 1;
            first.get_or_insert(reason);
        }
        self.free(last);
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
    fn free(&mut self, node: usize) {
        for packet in self
            .batches
            .drain(..)
            .rev()
            .flat_map(|batch| batch.into_iter().rev())
        {
            self.memories[node].free(packet.frame);
        }
    }
}

/// Takes the time of each stage.
struct Watch {
    last: Instant,
    stages: [Duration; STAGES.len()],
}

impl Probe for Watch {
    fn passed(&mut self, stage: usize, _: &Fib, _: &Batch) {
        let now = Instant::now();
        self.stages[stage] += now - self.last;
        self.last = Instant::now();
    }
}

fn memory(frames: usize, size: Size) -> Result<Umem, XskError> {
    // What an inner packet of 1408 octets needs with every header, as on a device of 1500.
    let frame_size = match size.largest() {
        0..=1408 => 2048,
        _ => 16384,
    };
    Umem::new(&UmemConfig {
        frame_count: frames as u32,
        frame_size,
        headroom: FRAME_HEADROOM as u32,
        jumbo_frames: 0,
        huge: HugePages::Auto,
    })
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

fn arrive(memory: &mut Umem, octets: &[u8], port: PortIndex) -> Packet {
    let mut frame = memory.alloc().expect("a round's packets fit the memory");
    assert!(
        frame.copy_from(octets),
        "chunks are chosen for the largest packet"
    );
    Packet::new(frame, port)
}

/// Sends a host's frame elsewhere.
pub(crate) fn readdress(frame: &mut [u8], destination: [u8; 4]) {
    let header = &mut frame[ethernet::LEN..][..ip::V4_LEN];
    header[16..20].copy_from_slice(&destination);
    header[10..12].fill(0);
    let sum = ip::checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Extent, Net};
    use twinseal_crypto::{Suite, default_provider, providers};

    fn net(extent: &Extent) -> Net {
        Net::new(default_provider(), Suite::Aes256Gcm, extent).unwrap()
    }

    fn rig(net: &mut Net, role: Role, size: Size) -> Harness<'_> {
        let worker = &mut net.workers[0];
        Harness::new(&net.tables, worker, &net.routes, role, size, 1).unwrap()
    }

    fn rounds(net: &mut Net, role: Role, size: Size) {
        let mut rig = rig(net, role, size);
        for _ in 0..3 {
            let mut calls = 0;
            rig.round(|work| {
                work();
                calls += 1;
            })
            .unwrap();
            assert_eq!(calls, role.parts().len());
            let outstanding = rig.memories.each_ref().map(Umem::outstanding);
            assert_eq!(outstanding, [0; 3], "{role}");
        }
    }

    #[test]
    fn every_role_sends_every_packet_round_after_round() {
        for provider in providers() {
            let extent = Extent::default();
            let mut net = Net::new(*provider, Suite::Aes256Gcm, &extent).unwrap();
            for role in Role::ALL {
                rounds(&mut net, role, Size::Octets(64));
            }
        }
    }

    #[test]
    fn packets_of_all_sizes_find_their_ways_over_many_routes_and_circuits() {
        let mut net = net(&Extent {
            circuits: 300,
            routes: 1000,
            ..Extent::default()
        });
        for size in [Size::Imix, Size::Octets(Size::MIN), Size::Octets(Size::MAX)] {
            rounds(&mut net, Role::Path, size);
        }
        let circuits = net.tables[B].circuits.iter();
        let used = circuits.filter(|(_, it)| it.traffic.totals().received_packets > 0);
        assert_eq!(used.count(), 300);
    }

    #[test]
    fn octets_are_those_of_the_packets() {
        let mut net = net(&Extent::default());
        let octets = |net: &mut Net, size| rig(net, Role::Ingress, size).octets();
        assert_eq!(octets(&mut net, Size::Octets(64)), 64.0);
        let imix = octets(&mut net, Size::Imix);
        assert!((330.0..370.0).contains(&imix), "{imix}");
    }

    #[test]
    fn a_dropped_packet_is_an_error() {
        let mut net = net(&Extent::default());
        net.tables[B].links[0].labels = Default::default();
        let mut rig = rig(&mut net, Role::Egress, Size::Octets(64));
        let Err(BenchError::Dropped { packets, first, .. }) = rig.round(|work| work()) else {
            panic!("the drops were not seen");
        };
        assert_eq!((packets, first), (ROUND, DropReason::UnknownLabel));
        // Nothing was worked on: that is not a result either.
        assert!(rig.round(|_| ()).is_err());
    }

    #[test]
    fn stages_are_those_that_packets_pass() {
        let mut net = net(&Extent::default());
        let mut rig = rig(&mut net, Role::Transit, Size::Octets(64));
        let passed = rig.stages().unwrap().map(|time| !time.is_zero());
        assert_eq!(passed, [true, true, true, false, false, false, true]);
    }
}
