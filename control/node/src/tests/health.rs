//! Which events are told, and how often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use twinseal_api::v1::{self, event::Event as Kind, item::Item};

use crate::compile::{HostAddress, OpenPort, Sources, Standing};
use crate::events::security::Security;
use crate::events::{Events, Reader, Start};
use crate::health::{Health, Status};
use crate::keys::SaConfig;
use crate::netlink::View;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use twinseal_model::state::PortName;

use super::compile::{Bench, lanes, open, sa_config};
use super::*;
use crate::events::changes::Change;
use twinseal_wire::ethernet::Mac;

/// A bench, its health and what was told.
struct Watched {
    bench: Bench,
    health: Health,
    events: Events,
    reader: Reader,
    /// What was looked at last.
    seen: State,
    view: View,
    /// None: as if every port were open.
    open: Option<BTreeMap<PortName, OpenPort>>,
    /// What was told of ports.
    ports: Vec<String>,
}

impl Watched {
    fn new(config: SaConfig) -> Self {
        let events = Events::new("n", 100);
        Self {
            bench: Bench::with(config),
            health: Health::default(),
            reader: events.log().read(Start::Now, Vec::new()),
            events,
            seen: State::default(),
            view: View::default(),
            open: None,
            ports: Vec::new(),
        }
    }

    /// What is told now, a line each.
    fn update(&mut self) -> Vec<String> {
        let all = open(&self.bench.state);
        let sources = Sources {
            state: &self.bench.state,
            live: &self.bench.live,
            ports: self.open.as_ref().unwrap_or(&all),
            neighbours: &self.bench.neighbours,
            addresses: &self.view.addresses,
            down: &Default::default(),
        };
        let seen = std::mem::replace(&mut self.seen, self.bench.state.clone());
        let change = Change {
            changes: 0,
            cause: "apply",
            pending: None,
            owner: String::new(),
            taken_from: Vec::new(),
        };
        self.health.changed(&self.events, &seen, &self.seen, change);
        self.health.update(&self.events, &sources, &self.view);
        self.told()
    }

    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = self.reader.take() {
            told.push(match event.event.expect("it is something") {
                Kind::Link(it) => format!("link {} {:?} {}", it.link, it.status(), it.reason),
                Kind::Circuit(it) => {
                    format!("circuit {} {:?} {}", it.circuit, it.change(), it.cause)
                }
                Kind::Key(it) => it.change().as_str_name().to_owned(),
                Kind::Security(it) => format!("{} {} {:?}", it.reason, it.count, it.owner),
                Kind::Port(it) => {
                    let (mac, mtu) = (&it.mac, it.mtu);
                    let status = it.status();
                    self.ports
                        .push(format!("{} {status:?} {mac} {mtu} {}", it.port, it.reason));
                    continue;
                }
                // With every look.
                Kind::Table(_) => continue,
                other => format!("{other:?}"),
            });
        }
        told
    }
}

const KEYS: [&str; 6] = [
    "KEY_CHANGE_INSTALLED",
    "KEY_CHANGE_INSTALLED",
    "KEY_CHANGE_INSTALLED",
    "KEY_CHANGE_INSTALLED",
    "KEY_CHANGE_TRANSMITTING",
    "KEY_CHANGE_TRANSMITTING",
];

#[test]
fn links_and_circuits_come_fail_and_go_up() {
    let mut watched = Watched::new(sa_config());
    let told = watched.update();
    assert_eq!(told[0], "circuit c1 Created ");
    assert_eq!(told[1..7], KEYS);
    let down = [
        "link l1 Down its next hop is not resolved",
        "circuit c1 Failed its link is down",
    ];
    assert_eq!(told[7..], down);
    assert!(watched.update().is_empty(), "told once");
    let peer = (11, "192.0.2.2".parse().expect("an address"));
    watched
        .bench
        .neighbours
        .insert(peer, Mac([2, 0, 0, 0, 0, 2]));
    assert_eq!(watched.update(), ["link l1 Up ", "circuit c1 Up "]);
    watched.bench.apply([Item::Circuit(circuit("c2", 8, 101))]);
    let created = ["circuit c2 Created ", "circuit c2 Failed no key transmits"];
    assert_eq!(watched.update(), created);
    // Another way, and then only another word for it.
    watched.bench.apply([Item::Circuit(circuit("c2", 8, 102))]);
    assert_eq!(watched.update(), ["circuit c2 PathUpdated "]);
    watched.bench.apply([Item::Circuit(v1::Circuit {
        tags: [("a".into(), "b".into())].into(),
        ..circuit("c2", 8, 102)
    })]);
    assert!(watched.update().is_empty());
    watched.bench.neighbours.clear();
    let told = watched.update();
    assert_eq!(told[..2], down);
    assert_eq!(told[2], "circuit c2 Failed its link is down");
}

/// What the kernel tells of a device.
fn device(index: u32, name: &str, up: bool, carrier: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Carrier(carrier.into()),
    ];
    message
}

#[test]
fn a_port_and_its_links_say_what_is_wrong_with_the_device() {
    let mut watched = Watched::new(sa_config());
    for (name, vrf, netdev) in [("under", "", "eth1"), ("hosts", "red", "eth2")] {
        let device = v1::port::Device::AfXdp(v1::AfXdp {
            netdev: netdev.into(),
            ..Default::default()
        });
        let mut port = port(name, vrf);
        port.device = Some(device);
        watched.bench.apply([Item::Port(port)]);
    }
    let peer = (11, "192.0.2.2".parse().expect("an address"));
    watched
        .bench
        .neighbours
        .insert(peer, Mac([2, 0, 0, 0, 0, 2]));
    let local = HostAddress {
        ifindex: 11,
        address: "192.0.2.1".parse().expect("an address"),
        len: 24,
    };
    let has = Standing::Preferred;
    watched.view.addresses.insert(local, has);
    // Edge ports are told of like others. Ports stand on devices 10 and 11 here.
    let eth1 = |up, carrier| device(11, "eth1", up, carrier);
    watched.view.devices.hear(&eth1(true, true), true);
    watched
        .view
        .devices
        .hear(&device(10, "eth2", true, false), true);
    let told = watched.update();
    assert_eq!(told.last().expect("the circuit's"), "circuit c1 Up ");
    let (hosts, under) = (
        "hosts Down 02:00:00:00:01:00 1500",
        "02:00:00:00:01:01 1500",
    );
    let up = format!("under Up {under} ");
    assert_eq!(
        watched.ports,
        [format!("{hosts} its device has no carrier"), up.clone()]
    );
    let link = |watched: &mut Watched, told: &str| {
        let all = watched.update();
        assert_eq!(all[0], format!("link l1 {told}"));
        assert!(watched.update().is_empty(), "told once");
        watched.ports.pop().expect("the port's")
    };
    // A VRF takes no frames; a bridge does.
    for (kind, status, why) in [
        (
            InfoKind::Bridge,
            "Degraded",
            "eth1 is a member of m0, which takes its frames: name m0, or take eth1 out (`ip link set eth1 nomaster`)",
        ),
        (InfoKind::Vrf, "Up", ""),
    ] {
        let mut master = device(20, "m0", true, true);
        let kind = LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]);
        master.attributes.push(kind);
        watched.view.devices.hear(&master, true);
        let mut member = eth1(true, true);
        member.attributes.push(LinkAttribute::Controller(20));
        watched.view.devices.hear(&member, true);
        assert!(watched.update().is_empty(), "the link may go on");
        let told = watched.ports.last().expect("the port's");
        assert_eq!(*told, format!("under {status} {under} {why}"));
    }
    // It leaves a bridge, of which the kernel says so in these words.
    let mut left = eth1(true, true);
    left.header.interface_family = rtnetlink::packet_route::AddressFamily::Bridge;
    assert!(watched.view.devices.hear(&left, false));
    assert!(!watched.view.devices.hear(&left, false));
    watched.view.devices.hear(&eth1(false, false), true);
    let port = link(&mut watched, "Down port under: its device is set down");
    assert_eq!(port, format!("under Down {under} its device is set down"));
    watched.view.devices.hear(&eth1(true, true), true);
    assert_eq!(link(&mut watched, "Up "), up);
    watched
        .view
        .devices
        .hear(&device(11, "eth9", true, true), true);
    watched.update();
    let port = watched.ports.pop().expect("it is told");
    assert_eq!(
        port,
        format!("under Degraded {under} its device is called eth9 now")
    );
    watched.view.devices.hear(&eth1(true, true), true);
    watched.update();
    watched.view.addresses.clear();
    let gone = "Down its local address 192.0.2.1 is not on this host";
    link(&mut watched, gone);
    watched.view.addresses.insert(local, has);
    // Closed for its device is gone, then open on another one.
    let mut open = open(&watched.bench.state);
    let port = open.values_mut().nth(1).expect("under");
    (port.ifindex, port.device) = (None, Status::Down("its device was deleted".into()));
    watched.open = Some(open.clone());
    let port = link(&mut watched, "Down port under: its device was deleted");
    assert_eq!(port, format!("under Down {under} its device was deleted"));
    let port = open.values_mut().nth(1).expect("under");
    (port.ifindex, port.device) = (Some(11), Status::Up);
    (port.mac, port.mtu) = (Mac([2, 0, 0, 0, 9, 9]), 1400);
    watched.open = Some(open);
    assert_eq!(
        link(&mut watched, "Up "),
        "under Up 02:00:00:00:09:09 1400 "
    );
}

#[test]
fn what_is_deleted_is_told() {
    let mut watched = Watched::new(sa_config());
    watched.update();
    watched.bench.state = State::default();
    let told = watched.update();
    assert_eq!(told[0], "circuit c1 Deleted ");
    assert_eq!(told[1..5], ["KEY_CHANGE_RETIRED"; 4]);
    assert_eq!(told[5..], ["link l1 Down deleted"]);
    assert!(watched.update().is_empty());
}

#[test]
fn a_link_without_all_of_its_keys_is_degraded() {
    let mut watched = Watched::new(sa_config());
    let peer = (11, "192.0.2.2".parse().expect("an address"));
    watched
        .bench
        .neighbours
        .insert(peer, Mac([2, 0, 0, 0, 0, 2]));
    watched.update();
    let received = v1::KeyRef {
        owner: Some(v1::key_ref::Owner::Link("l1".into())),
        direction: v1::Direction::BToA.into(),
        epoch: 1,
    };
    watched
        .bench
        .change(vec![delete(v1::item_ref::Item::Key(received))]);
    let told = watched.update();
    assert_eq!(
        told,
        ["KEY_CHANGE_RETIRED", "link l1 Degraded no key receives"]
    );
}

#[test]
fn keys_near_their_end_are_told_once() {
    let (lanes, owner) = lanes();
    let config = SaConfig {
        lanes,
        lane_limit: 16,
        ..sa_config()
    };
    let mut watched = Watched::new(config);
    watched.update();
    let (_, sa) = watched.bench.live.seals().next().expect("one transmits");
    let sa = std::sync::Arc::clone(sa);
    assert!(sa.reserve(&owner, 0, 14).is_some());
    let told = watched.update();
    assert_eq!(told[0], "KEY_CHANGE_NEARLY_EXHAUSTED");
    assert!(sa.reserve(&owner, 0, 3).is_none());
    let told = watched.update();
    assert_eq!(told, ["KEY_CHANGE_EXHAUSTED"]);
    assert!(watched.update().is_empty());
}

#[test]
fn suspicious_drops_are_told_at_once_and_then_now_and_then() {
    let mut watched = Watched::new(sa_config());
    let start = Instant::now();
    let mut security = Security::new(start);
    let traffic = watched.bench.live.links().next().expect("one").1.clone();
    let replayed = twinseal_forward::reason::DropReason::LinkReplayed;
    let mut drops = |after: u64, forged: u64, of_link: u64, replays: u64| {
        for _ in 0..of_link {
            traffic.dropped(replayed as usize);
        }
        let now = start + Duration::from_secs(after);
        let drops = [
            ("circuit_authentication", forged),
            ("link_replayed", replays),
            ("no_route", 1_000_000 + after),
        ];
        security.tell(&watched.events, now, &drops, &watched.bench.live);
        watched.told()
    };
    assert!(drops(0, 0, 0, 0).is_empty());
    assert_eq!(drops(1, 3, 0, 0), ["circuit_authentication 3 None"]);
    assert!(drops(2, 7, 0, 0).is_empty(), "not again so soon");
    assert_eq!(drops(11, 8, 0, 0), ["circuit_authentication 5 None"]);
    // On the account of a link, and those of none.
    let told = drops(30, 8, 2, 5);
    let link = "link_replayed 2 Some(Link(\"l1\"))";
    assert_eq!(told, [link, "link_replayed 3 None"]);
    assert_eq!(drops(50, 8, 1, 6), ["link_replayed 1 Some(Link(\"l1\"))"]);
    assert!(drops(70, 8, 0, 6).is_empty());
}
