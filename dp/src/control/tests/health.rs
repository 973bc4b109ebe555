//! Which events are told, and how often.

use std::time::{Duration, Instant};

use tokio::sync::broadcast::Receiver;
use twinseal_api::v1::{self, event::Event as Kind, item::Item};

use super::super::compile::Sources;
use super::super::health::{Events, Health};
use super::super::keys::SaConfig;
use super::super::netlink::View;
use super::compile::{Bench, lanes, open, sa_config};
use super::*;
use crate::wire::ethernet::Mac;

/// A bench, its health and what was told.
struct Watched {
    bench: Bench,
    health: Health,
    events: Events,
    receiver: Receiver<v1::Event>,
}

impl Watched {
    fn new(config: SaConfig) -> Self {
        let events = Events::default();
        Self {
            bench: Bench::with(config),
            health: Health::default(),
            receiver: events.subscribe(),
            events,
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
        };
        self.health.update(&self.events, &sources, &View::default());
        self.told()
    }

    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(event) = self.receiver.try_recv() {
            told.push(match event.event.expect("it is something") {
                Kind::Link(it) => format!("link {} {} {}", it.link, it.up, it.reason),
                Kind::Circuit(it) => format!("circuit {} {} {}", it.circuit, it.up, it.reason),
                Kind::Key(it) => it.change().as_str_name().to_owned(),
                Kind::Fault(it) => format!("{}: {}", it.kind, it.detail),
                Kind::Table(_) => "table".to_owned(),
            });
        }
        told
    }
}

#[test]
fn links_and_circuits_go_up_and_down() {
    let mut watched = Watched::new(sa_config());
    let down = [
        "link l1 false its next hop is not resolved",
        "circuit c1 false its link is down",
    ];
    assert_eq!(watched.update(), down);
    assert!(watched.update().is_empty(), "told once");
    let peer = (11, "192.0.2.2".parse().expect("an address"));
    watched
        .bench
        .neighbours
        .insert(peer, Mac([2, 0, 0, 0, 0, 2]));
    assert_eq!(watched.update(), ["link l1 true ", "circuit c1 true "]);
    watched.bench.apply([Item::Circuit(circuit("c2", 8, 101))]);
    assert_eq!(watched.update(), ["circuit c2 false no key transmits"]);
    watched.bench.neighbours.clear();
    let told = watched.update();
    assert_eq!(told[..2], down);
    assert_eq!(told[2], "circuit c2 false its link is down");
}

#[test]
fn what_is_deleted_is_told() {
    let mut watched = Watched::new(sa_config());
    watched.update();
    watched.bench.state = State::default();
    let told = watched.update();
    assert_eq!(told, ["link l1 false deleted", "circuit c1 false deleted"]);
    assert!(watched.update().is_empty());
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
    assert_eq!(watched.update(), ["KEY_CHANGE_NEARLY_EXHAUSTED"]);
    assert!(sa.reserve(&owner, 0, 3).is_none());
    let told = watched.update();
    assert_eq!(told, ["KEY_CHANGE_EXHAUSTED"]);
    assert!(watched.update().is_empty());
}

#[test]
fn suspicious_drops_are_told_at_once_and_then_now_and_then() {
    let mut watched = Watched::new(sa_config());
    let start = Instant::now();
    let mut drops = |after: u64, link: u64, circuit: u64| {
        let now = start + Duration::from_secs(after);
        let drops = [
            ("link_authentication", link),
            ("circuit_authentication", circuit),
            ("no_route", 1_000_000 + after),
        ];
        watched.health.drops(&watched.events, now, &drops);
        watched.told()
    };
    assert!(drops(0, 0, 0).is_empty());
    let first = drops(1, 3, 0);
    assert_eq!(first.len(), 1);
    assert!(
        first[0].starts_with("authentication_failures: 3 packets"),
        "{first:?}"
    );
    assert!(drops(2, 5, 7).is_empty(), "not again so soon");
    let next = drops(11, 5, 8);
    assert!(
        next[0].starts_with("authentication_failures: 10 packets"),
        "{next:?}"
    );
    assert!(next[0].contains("circuit_authentication 8"), "{next:?}");
    assert!(drops(30, 5, 8).is_empty());
}
