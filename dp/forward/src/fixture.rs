//! A path on paper: edge A, a transit node and edge B with tables made by hand, no control, no kernel, no threads.
//!
//! Pipeline tests, benches and fuzz targets stand on it. Hosts are 10.1.0.2 and 2001:db8:1::2 behind A, 10.2.0.2 and
//! 2001:db8:2::2 behind B. On every node port 0 is the edge port and ports 1 and 2 are underlay ports; the path is
//! A.1 - 1.transit.2 - 1.B.

mod scale;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use twinseal_crypto::{
    Context, CryptoError, Direction, Lanes, Layer, MAX_COUNTER, OpenSa, Provider, SECRET_LEN,
    SealSa, Secret, Suite,
};
use twinseal_xsk::{HugePages, Umem, UmemConfig, XskError};

use crate::{Batch, Disposition, FRAME_HEADROOM, Packet, State, process};
use twinseal_fib::draft::Draft;
use twinseal_fib::traffic::Traffic;
use twinseal_fib::trie::burst::Root;
use twinseal_fib::{
    Circuit, CircuitIndex, Fib, InboundSa, LabelAction, Link, LinkIndex, NeighbourKey, NextHop,
    NextHopIndex, OutboundSa, Port, PortIndex, PortRole, Swap, Target, Vrf, VrfIndex,
    outer::OuterHeaders,
};
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip::Dscp;
use twinseal_wire::{ip, overlay};

pub use scale::Scale;
pub use twinseal_wire::fixture::{host_frame_v4, host_frame_v6, host_mac, host_v6};

/// The edge port of every node.
pub const EDGE: PortIndex = PortIndex(0);
/// The underlay port towards A.
pub const WEST: PortIndex = PortIndex(1);
/// The underlay port towards B.
pub const EAST: PortIndex = PortIndex(2);
/// The circuit's end-to-end id.
pub const CIRCUIT_ID: u64 = 0x0123_4567_89ab_cdef;
/// The circuit's label from A to the transit node.
pub const LABEL_AT_TRANSIT: u32 = 1001;
/// The circuit's label from the transit node to B.
pub const LABEL_AT_B: u32 = 2002;
/// Receiver index of the transit node's key.
pub const RECEIVER_AT_TRANSIT: u32 = 0x11;
/// Receiver index of B's key.
pub const RECEIVER_AT_B: u32 = 0x22;
/// Every key's epoch.
pub const EPOCH: u32 = 1;
/// Lanes of every worker.
pub const LANES: u16 = 4;
/// Octets of an IP packet on every port.
pub const MTU: u16 = 1500;

/// A node: what [`process`] needs.
pub struct Node {
    /// Its only worker's state.
    pub state: State,
    /// Its only worker's lanes.
    pub lanes: Lanes,
    /// Its tables: what its packets meet.
    pub tables: Fib,
    draft: Draft,
    /// Its worker's packet memory.
    pub memory: Umem,
}

/// The three nodes, for packets from A to B.
pub struct Path {
    /// Where packets enter.
    pub a: Node,
    /// Where labels are swapped.
    pub transit: Node,
    /// Where packets leave.
    pub b: Node,
}

/// Which secret: the fixture's are all different and never change.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Seal {
    /// Of the link from A to the transit node.
    FirstLink = 1,
    /// Of the link from the transit node to B.
    SecondLink = 2,
    /// Of the circuit.
    Circuit = 3,
}

impl Seal {
    /// The secret's octets.
    pub fn secret(self) -> [u8; SECRET_LEN] {
        [self as u8; SECRET_LEN]
    }

    fn context(self, suite: Suite) -> Context {
        Context {
            layer: match self {
                Self::Circuit => Layer::Circuit,
                _ => Layer::Link,
            },
            direction: Direction::AToB,
            suite,
            epoch: EPOCH,
        }
    }

    /// A key to transmit with, whose counters begin at zero.
    pub fn seal_sa(
        self,
        provider: &dyn Provider,
        suite: Suite,
        lanes: Lanes,
    ) -> Result<SealSa, CryptoError> {
        let secret = Secret::from_bytes(&mut self.secret())?;
        SealSa::new(provider, &secret, self.context(suite), lanes, MAX_COUNTER)
    }

    /// A key to receive with, whose windows are empty.
    pub fn open_sa(self, provider: &dyn Provider, suite: Suite) -> Result<OpenSa, CryptoError> {
        let secret = Secret::from_bytes(&mut self.secret())?;
        OpenSa::new(provider, &secret, self.context(suite), 2048)
    }
}

/// Why the fixture could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A key.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
    /// The packet memory.
    #[error(transparent)]
    Memory(#[from] XskError),
}

/// The hardware address of a port of node 1 (A), 2 (transit), 3 (B).
pub fn mac(node: u8, port: PortIndex) -> Mac {
    Mac([2, 0, 0, 0, node, port.0])
}

impl Path {
    /// Makes the three nodes.
    pub fn new(provider: &dyn Provider, suite: Suite) -> Result<Self, FixtureError> {
        Ok(Self::with_workers(provider, suite, 1)?.0)
    }

    /// As [`Path::new`], and the states of each node's further workers.
    fn with_workers(
        provider: &dyn Provider,
        suite: Suite,
        workers: usize,
    ) -> Result<(Self, [Vec<State>; 3]), FixtureError> {
        let (mut a, further_a) = Node::new(1, workers)?;
        a.tables.links.push(Link {
            transmit: Some(OutboundSa {
                sa: Arc::new(Seal::FirstLink.seal_sa(provider, suite, a.lanes)?),
                receiver: RECEIVER_AT_TRANSIT,
            }),
            ..link(
                WEST,
                mac(1, WEST),
                mac(2, WEST),
                [192, 0, 2, 1],
                [192, 0, 2, 2],
            )
        });
        a.tables.circuits.push(Circuit {
            label: LABEL_AT_TRANSIT,
            transmit: Some(Arc::new(Seal::Circuit.seal_sa(provider, suite, a.lanes)?)),
            ..circuit()
        });
        a.route(
            [10, 2, 0, 0],
            "2001:db8:2::",
            Target::Circuit(CircuitIndex(0)),
        );

        let (mut transit, further_transit) = Node::new(2, workers)?;
        transit.tables.links.push(link(
            WEST,
            mac(2, WEST),
            mac(1, WEST),
            [192, 0, 2, 2],
            [192, 0, 2, 1],
        ));
        transit.tables.links.push(Link {
            transmit: Some(OutboundSa {
                sa: Arc::new(Seal::SecondLink.seal_sa(provider, suite, transit.lanes)?),
                receiver: RECEIVER_AT_B,
            }),
            ..link(
                EAST,
                mac(2, EAST),
                mac(3, WEST),
                [198, 51, 100, 2],
                [198, 51, 100, 3],
            )
        });
        let receiver = InboundSa {
            link: LinkIndex(0),
            sa: Arc::new(Seal::FirstLink.open_sa(provider, suite)?),
        };
        let swap = Swap {
            link: LinkIndex(1),
            label: LABEL_AT_B,
        };
        transit.write(|draft| {
            draft.set_receiver(RECEIVER_AT_TRANSIT, receiver);
            draft.set_label(LinkIndex(0), LABEL_AT_TRANSIT, LabelAction::Swap(swap));
        });

        let (mut b, further_b) = Node::new(3, workers)?;
        b.tables.links.push(link(
            WEST,
            mac(3, WEST),
            mac(2, EAST),
            [198, 51, 100, 3],
            [198, 51, 100, 2],
        ));
        let receiver = InboundSa {
            link: LinkIndex(0),
            sa: Arc::new(Seal::SecondLink.open_sa(provider, suite)?),
        };
        b.write(|draft| {
            draft.set_receiver(RECEIVER_AT_B, receiver);
            let egress = LabelAction::Egress(CircuitIndex(0));
            draft.set_label(LinkIndex(0), LABEL_AT_B, egress);
        });
        let mut far = circuit();
        far.receive[EPOCH as usize] = Some(Arc::new(Seal::Circuit.open_sa(provider, suite)?));
        b.tables.circuits.push(far);
        let via = NextHop {
            port: EDGE,
            address: None,
            neighbour: None,
        };
        b.tables.vias.set(0, via);
        b.route(
            [10, 2, 0, 0],
            "2001:db8:2::",
            Target::NextHop(NextHopIndex(0)),
        );
        Ok((
            Self { a, transit, b },
            [further_a, further_transit, further_b],
        ))
    }
}

impl Node {
    /// A node, with the state of its first worker, and the states of the others.
    fn new(number: u8, workers: usize) -> Result<(Self, Vec<State>), FixtureError> {
        let memory = Umem::new(&UmemConfig {
            frame_count: 256,
            frame_size: 2048,
            headroom: FRAME_HEADROOM as u32,
            jumbo_frames: 0,
            huge: HugePages::Never,
        })?;
        let port = |index, role| {
            Some(Port {
                role,
                mac: mac(number, index),
                more_macs: Vec::new(),
                mtu: MTU,
                finishes: false,
                device_mtu: MTU,
                peer: None,
                sources: Arc::default(),
                since: 0,
            })
        };
        let mut tables = Fib::default();
        tables.ports = vec![
            port(EDGE, PortRole::Edge(VrfIndex(0))),
            port(WEST, PortRole::Underlay),
            port(EAST, PortRole::Underlay),
        ];
        tables.vrfs.push(Vrf {
            v4: Some(Ipv4Addr::new(10, number, 0, 1)),
            v6: Some(Ipv6Addr::new(0x2001, 0xdb8, number.into(), 0, 0, 0, 0, 1)),
            errors: Some(EDGE),
            ..Vrf::default()
        });
        let hosts = [[10, 1, 0, 2], [10, 2, 0, 2]].map(IpAddr::from);
        let hosts = hosts
            .into_iter()
            .chain([host_v6(1), host_v6(2)].map(IpAddr::V6));
        tables.neighbours = Arc::new(
            hosts
                .map(|host| {
                    let key = NeighbourKey {
                        port: EDGE,
                        address: ip::mapped(host),
                    };
                    (key, host_mac(number).into())
                })
                .collect(),
        );
        let (lanes, owners) = Lanes::split(workers, LANES)?;
        let owners = owners.into_iter().enumerate();
        let mut states = owners.map(|(worker, owner)| State::new(worker, owner));
        let node = Self {
            state: states.next().ok_or(CryptoError::Lanes(0))?,
            lanes,
            tables,
            draft: Draft::default(),
            memory,
        };
        Ok((node, states.collect()))
    }

    /// Changes what is looked up: receivers, labels, routes.
    pub fn write(&mut self, change: impl FnOnce(&mut Draft)) {
        self.draft.tables = std::mem::take(&mut self.tables);
        change(&mut self.draft);
        self.tables = self.draft.publish(0);
    }

    fn route(&mut self, v4: [u8; 4], v6: &str, target: Target) {
        let v6: Ipv6Addr = v6.parse().unwrap_or(Ipv6Addr::UNSPECIFIED);
        self.write(|draft| {
            draft.set_route(VrfIndex(0), v4, 16, target);
            draft.set_route(VrfIndex(0), v6.octets(), 48, target);
        });
    }

    /// Copies frames that arrive on a port into a batch; at most [`BATCH`](crate::BATCH).
    pub fn batch(&mut self, port: PortIndex, frames: &[Vec<u8>]) -> Batch {
        frames
            .iter()
            .map(|octets| {
                let mut frame = self.memory.alloc().expect("the fixture frees its frames");
                assert!(frame.copy_from(octets), "a frame of the fixture fits");
                Packet::new(frame, port)
            })
            .collect()
    }

    /// Runs frames that arrive on a port through the pipeline, and returns what became of each.
    pub fn run(&mut self, port: PortIndex, frames: &[Vec<u8>]) -> Vec<(Disposition, Vec<u8>)> {
        let mut batch = self.batch(port, frames);
        process(&mut self.state, &self.tables, &mut batch);
        let mut results = Vec::with_capacity(batch.len());
        for packet in batch.drain(..) {
            results.push((packet.disposition, packet.frame.data().to_vec()));
            self.memory.free(packet.frame);
        }
        results
    }
}

fn link(port: PortIndex, source: Mac, peer: Mac, local: [u8; 4], remote: [u8; 4]) -> Link {
    Link {
        port,
        outer: OuterHeaders::new(
            source,
            Some(peer),
            local.into(),
            remote.into(),
            overlay::DEFAULT_PORT,
        )
        .expect("one address family"),
        mtu: MTU,
        transmit: None,
        source_port_salt: 0,
        labels: Root::default(),
        traffic: Traffic::new(1),
    }
}

fn circuit() -> Circuit {
    Circuit {
        id: CIRCUIT_ID,
        vrf: VrfIndex(0),
        link: LinkIndex(0),
        label: 0,
        hop_limit: 64,
        dscp: Dscp::Copy,
        transmit: None,
        receive: Default::default(),
        traffic: Traffic::new(1),
    }
}
