//! Which events are told, and how often.

use std::time::{Duration, Instant};

use twinseal_api::v1::{self, event::Event as Kind, item::Item};

use super::super::compile::Sources;
use super::super::events::security::Security;
use super::super::events::{Events, Reader, Start};
use super::super::health::Health;
use super::super::keys::SaConfig;
use super::super::netlink::View;
use super::compile::{Bench, lanes, open, sa_config};
use super::*;
use crate::control::events::changes::Change;
use crate::wire::ethernet::Mac;

/// A bench, its health and what was told.
struct Watched {
    bench: Bench,
    health: Health,
    events: Events,
    reader: Reader,
    /// What was looked at last.
    seen: State,
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
        }
    }

    /// What is told now, a line each.
    fn update(&mut self) -> Vec<String> {
        let sources = Sources {
            state: &self.bench.state,
            live: &self.bench.live,
            ports: &open(&self.bench.state),
            neighbours: &self.bench.neighbours,
            addresses: &Default::default(),
            down: &Default::default(),
        };
        let seen = std::mem::replace(&mut self.seen, self.bench.state.clone());
        let change = Change {
            changes: 0,
            cause: "apply",
            pending: None,
        };
        self.health.changed(&self.events, &seen, &self.seen, change);
        self.health.update(&self.events, &sources, &View::default());
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
    let replayed = crate::pipeline::reason::DropReason::LinkReplayed;
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
