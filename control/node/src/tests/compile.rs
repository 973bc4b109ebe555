//! Compilation, with ports that are only said to be open.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use twinseal_api::v1::{self, Direction::AToB, Direction::BToA, item::Item};

use crate::compile::{Compiler, HostAddresses, KernelNeighbours, OpenPort, Sources};
use crate::down::Down;
use twinseal_crypto::{LaneOwner, Lanes};

use super::*;
use crate::health::Status;
use crate::keys::{Live, SaConfig};
use twinseal_fib::neighbour::Neighbour;
use twinseal_fib::trie::Number;
use twinseal_fib::{
    CircuitIndex, Fib, InboundSa, LabelAction, LinkIndex, NeighbourKey, PortIndex, PortRole, Swap,
    Target, VrfIndex,
};
use twinseal_model::state::PortName;
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip::mapped;

/// Two lanes, and the right to their counters.
pub(super) fn lanes() -> (Lanes, LaneOwner) {
    let (lanes, mut owners) = Lanes::split(1, 2).expect("few lanes");
    (lanes, owners.remove(0))
}

pub(super) fn sa_config() -> SaConfig {
    SaConfig {
        provider: twinseal_crypto::default_provider(),
        window_bits: 2048,
        lanes: lanes().0,
        lane_limit: 1 << 20,
        workers: 2,
    }
}

/// As if every port were open on a device of its own: index and ifindex in order.
pub(super) fn open(state: &State) -> BTreeMap<PortName, OpenPort> {
    state
        .ports
        .keys()
        .zip(0u8..)
        .map(|(name, n)| {
            let port = OpenPort {
                index: PortIndex(n),
                mac: Mac([2, 0, 0, 0, 1, n]),
                mtu: 1500,
                device_mtu: 1500,
                offloads: false,
                more_macs: Vec::new(),
                peer: None,
                ifindex: Some(10 + u32::from(n)),
                seen: true,
                device: Status::Up,
            };
            (name.clone(), port)
        })
        .collect()
}

/// A node without its ports.
pub(super) struct Bench {
    pub(super) compiler: Compiler,
    pub(super) config: SaConfig,
    pub(super) state: State,
    pub(super) live: Live,
    pub(super) neighbours: KernelNeighbours,
    pub(super) addresses: HostAddresses,
    pub(super) down: Arc<Down>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(sa_config())
    }

    pub(super) fn with(config: SaConfig) -> Self {
        let mut bench = Self {
            compiler: Compiler::default(),
            config,
            state: State::default(),
            live: Live::default(),
            neighbours: HashMap::new(),
            addresses: HostAddresses::new(),
            down: Arc::default(),
        };
        bench.apply(edge_items());
        bench
    }

    pub(super) fn apply(&mut self, items: impl IntoIterator<Item = Item>) {
        self.change(sets(items));
    }

    pub(super) fn change(&mut self, changes: Vec<v1::Change>) {
        let outcome = apply(&self.state, changes);
        self.live = self
            .live
            .next(&outcome.state, &outcome.secrets, &self.config)
            .expect("keys are sound");
        self.state = outcome.state;
    }

    /// Calls `of` with what tables would be made from.
    pub(super) fn look<T>(
        &self,
        ports: &BTreeMap<PortName, OpenPort>,
        of: impl FnOnce(&Sources<'_>) -> T,
    ) -> T {
        of(&Sources {
            state: &self.state,
            live: &self.live,
            ports,
            neighbours: &self.neighbours,
            addresses: &self.addresses,
            down: &self.down,
        })
    }

    pub(super) fn compile(&mut self) -> Fib {
        self.compile_with(&open(&self.state))
    }

    pub(super) fn compile_with(&mut self, ports: &BTreeMap<PortName, OpenPort>) -> Fib {
        self.make(1, ports)
    }

    pub(super) fn compile_at(&mut self, generation: u64) -> Fib {
        self.make(generation, &open(&self.state))
    }

    fn make(&mut self, generation: u64, ports: &BTreeMap<PortName, OpenPort>) -> Fib {
        let sources = Sources {
            state: &self.state,
            live: &self.live,
            ports,
            neighbours: &self.neighbours,
            addresses: &self.addresses,
            down: &self.down,
        };
        self.compiler
            .compile(generation, &sources)
            .expect("a checked state compiles")
    }
}

pub(super) fn v4(tables: &Fib, address: [u8; 4]) -> Option<Target> {
    Target::of(tables.tries.lookup(&tables.vrfs[0].routes_v4, address))
}

fn receiver(tables: &Fib, index: u32) -> Option<&InboundSa> {
    tables.receiver(tables.tries.lookup(&tables.receiver_root, Number(index)))
}

fn label(tables: &Fib, label: u32) -> Option<LabelAction> {
    let link = tables.link(LinkIndex(0));
    tables.label_action(tables.tries.lookup(&link.labels, Number(label)))
}

#[test]
fn an_open_port_learns_what_to_do_about_checksums() {
    let mut bench = Bench::new();
    for (checksum, finishes) in [
        (v1::Checksum::Finish, true),
        (v1::Checksum::Trust, false),
        // Its device is not one where hosts leave them.
        (v1::Checksum::Auto, false),
    ] {
        bench.apply([Item::Port(v1::Port {
            checksum: checksum.into(),
            ..port("hosts", "red")
        })]);
        let tables = bench.compile();
        assert_eq!(tables.port(PortIndex(0)).expect("hosts").finishes, finishes);
        assert!(!tables.port(PortIndex(1)).expect("under").finishes);
    }
    let hosts = PortName::new("hosts").expect("a name");
    let hosts = bench.state.ports.get(&hosts).expect("hosts");
    assert!(hosts.finishes(true) && !hosts.finishes(false));
}

#[test]
fn every_item_has_its_place() {
    let tables = Bench::new().compile();
    // In the order of names: "hosts", "under".
    let hosts = tables.port(PortIndex(0)).expect("hosts");
    assert_eq!(hosts.role, PortRole::Edge(VrfIndex(0)));
    let under = tables.port(PortIndex(1)).expect("under");
    assert_eq!(under.role, PortRole::Underlay);

    let link = tables.link(LinkIndex(0));
    assert_eq!((link.port, link.mtu), (PortIndex(1), 1500));
    assert_eq!(link.outer.octets()[6..12], [2, 0, 0, 0, 1, 1]);
    assert_eq!(link.outer.octets()[26..34], [192, 0, 2, 1, 192, 0, 2, 2]);
    assert_eq!(link.outer.octets()[36..38], 21591u16.to_be_bytes());
    assert!(!link.outer.resolved);
    let transmit = link.transmit.as_ref().expect("epoch 1 transmits");
    assert_eq!(
        (transmit.receiver, transmit.sa.epoch(), transmit.sa.lanes()),
        (1, 1, 2)
    );
    let received = receiver(&tables, 2).expect("installed");
    assert_eq!((received.link, received.sa.epoch()), (LinkIndex(0), 1));
    let sealed = receiver(&tables, 1);
    assert!(sealed.is_none(), "what we seal with is not received");

    let circuit = tables.circuit(CircuitIndex(0));
    assert_eq!((circuit.id, circuit.label, circuit.hop_limit), (7, 100, 64));
    assert!(circuit.transmit.is_some());
    let epochs: Vec<_> = (0..16).filter(|n| circuit.receive[*n].is_some()).collect();
    assert_eq!(epochs, [1]);

    let egress = LabelAction::Egress(CircuitIndex(0));
    assert_eq!(label(&tables, 200), Some(egress));
    let swap = Swap {
        link: LinkIndex(0),
        label: 301,
    };
    assert_eq!(label(&tables, 300), Some(LabelAction::Swap(swap)));
    assert_eq!(label(&tables, 301), None);

    assert_eq!(
        v4(&tables, [10, 1, 2, 3]),
        Some(Target::Circuit(CircuitIndex(0)))
    );
    assert!(matches!(v4(&tables, [10, 2, 0, 1]), Some(Target::Group(_))));
    let Some(Target::NextHop(connected)) = v4(&tables, [10, 0, 0, 5]) else {
        panic!("not connected");
    };
    let connected = &tables.vias[connected.0];
    assert_eq!((connected.port, connected.address), (PortIndex(0), None));
    assert_eq!(v4(&tables, [10, 3, 0, 1]), None);
    let mut v6 = [0; 16];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let leaf = tables.tries.lookup(&tables.vrfs[0].routes_v6, v6);
    assert_eq!(Target::of(leaf), Some(Target::Blackhole));
}

#[test]
fn neighbours_come_from_the_kernel_unless_they_are_static() {
    let mut bench = Bench::new();
    let peer: IpAddr = "192.0.2.2".parse().expect("an address");
    let host: IpAddr = "10.0.0.9".parse().expect("an address");
    let other: IpAddr = "2001:db8::9".parse().expect("an address");
    let (kernel, fixed) = (Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 0, 9]));
    // "hosts" has ifindex 10, "under" 11; 12 is a device that is no port.
    for key in [(11, peer), (10, host), (10, other), (12, host)] {
        bench.neighbours.insert(key, kernel);
    }
    let tables = bench.compile();
    let outer = tables.link(LinkIndex(0)).outer;
    assert!(outer.resolved && outer.octets()[..6] == kernel.0);
    let find = |address| {
        let address = mapped(address);
        let port = PortIndex(0);
        tables
            .neighbours
            .get(&NeighbourKey { port, address })
            .map(Neighbour::mac)
    };
    assert_eq!(find(host), Some(fixed));
    assert_eq!(find(other), Some(kernel));
    assert_eq!(tables.neighbours.len(), 2, "only those of edge ports");

    bench.apply([Item::Neighbour(v1::Neighbour {
        port: "under".into(),
        address: peer.to_string(),
        mac: fixed.to_string(),
    })]);
    let outer = bench.compile().link(LinkIndex(0)).outer;
    assert_eq!(outer.octets()[..6], fixed.0);
}

#[test]
fn a_next_hop_stands_for_the_peer() {
    let mut bench = Bench::new();
    bench.apply([Item::Link(v1::Link {
        next_hop: "192.0.2.254".into(),
        ..link("l1")
    })]);
    let mac = Mac([2, 0, 0, 0, 2, 254]);
    bench
        .neighbours
        .insert((11, "192.0.2.254".parse().expect("an address")), mac);
    let outer = bench.compile().link(LinkIndex(0)).outer;
    assert!(outer.resolved && outer.octets()[..6] == mac.0);
}

#[test]
fn key_state_and_counters_outlive_transactions() {
    let (lanes, owner) = lanes();
    let mut bench = Bench::with(SaConfig {
        lanes,
        ..sa_config()
    });
    let before = bench.compile();
    let sa = Arc::clone(
        before
            .circuit(CircuitIndex(0))
            .transmit
            .as_ref()
            .expect("transmits"),
    );
    assert_eq!(sa.reserve(&owner, 0, 5), Some(0));
    before.link(LinkIndex(0)).traffic.sent(0, 1, 100);

    // The same items again, and new ones.
    let mut items = edge_items();
    items.push(Item::Circuit(circuit("a-first", 8, 101)));
    bench.apply(items);
    let after = bench.compile();
    assert_eq!(after.circuit(CircuitIndex(1)).id, 8);
    let circuit = after.circuit(CircuitIndex(0));
    assert_eq!(circuit.id, 7, "its place has not moved");
    let same = circuit.transmit.as_ref().expect("transmits");
    assert!(Arc::ptr_eq(same, &sa));
    assert_eq!(same.reserve(&owner, 0, 1), Some(5), "counters go on");
    let [old, new] = [&before, &after].map(|tables| receiver(tables, 2).expect("installed"));
    assert!(Arc::ptr_eq(&old.sa, &new.sa));
    assert_eq!(after.link(LinkIndex(0)).traffic.totals().sent_packets, 1);

    // Make before break: both epochs receive, the new one transmits.
    bench.apply([
        Item::Key(key(circuit_owner("c1"), AToB, 2, 9)),
        Item::Key(key(circuit_owner("c1"), BToA, 2, 10)),
        transmit_circuit("c1", 2),
    ]);
    let rekeyed = bench.compile();
    let circuit = rekeyed.circuit(CircuitIndex(0));
    assert_eq!(circuit.transmit.as_ref().map(|sa| sa.epoch()), Some(2));
    assert!(circuit.receive[1].is_some() && circuit.receive[2].is_some());
}

#[test]
fn what_did_not_change_stays_where_it_is() {
    let mut bench = Bench::new();
    bench.compile();
    bench.apply([vrf("blue")]);
    let before = bench.compile();
    bench.apply([
        Item::Circuit(circuit("a-first", 8, 101)),
        route(
            "blue",
            "10.0.0.0/8",
            v1::route::Target::Blackhole(v1::Blackhole {}),
        ),
    ]);
    let after = bench.compile();
    // "red" was there first.
    let [red, blue] = [0, 1];
    assert_ne!(before.vrfs[blue].routes_v4, after.vrfs[blue].routes_v4);
    assert_eq!(before.vrfs[red].routes_v4, after.vrfs[red].routes_v4);
    let circuit = Some(Target::Circuit(CircuitIndex(0)));
    assert_eq!(v4(&before, [10, 1, 0, 1]), circuit);
    assert_eq!(v4(&after, [10, 1, 0, 1]), circuit);
}
