//! A bad wire between edge A and transit: whatever it does, hosts get intact packets, each once, and every packet that
//! they do not get is accounted for.

mod common;

use std::time::Duration;

use common::{Path, edge_of, options};
use twinseal_api::v1;
use twinseal_lab::impair::Impairment;
use twinseal_lab::traffic::Until;
use twinseal_lab::wire::ImpairedWire;
use twinseal_testbed::items::set;
use twinseal_testbed::kernel::netdev;
use twinseal_testbed::plan::{Host, Router, Underlay, WEST};

const PACKETS: u64 = 6_000;

#[test]
fn a_bad_wire_loses_packets_but_delivers_nothing_twice_and_nothing_damaged() {
    run(Underlay::V4);
}

#[test]
fn outer_headers_without_a_checksum_make_no_difference() {
    run(Underlay::V6);
}

fn run(underlay: Underlay) {
    let mut options = options();
    options.underlay = underlay;
    let Some(mut path) = Path::start(options) else {
        return;
    };
    take_switch_away(&mut path, underlay);
    assert_accounts(&mut path, underlay, Host::A, 7);
    assert_accounts(&mut path, underlay, Host::B, 8);
    path.finish();
}

/// Opens the underlay's switch for a wire, and has its ends send nothing but links' packets, so that these can be
/// counted exactly.
fn take_switch_away(path: &mut Path, underlay: Underlay) {
    let ends = [Router::EdgeA, Router::Transit];
    for (router, peer) in [(ends[0], ends[1]), (ends[1], ends[0])] {
        let device = netdev(WEST);
        let mac = path.network.router(peer).mac(device).expect("an address");
        let address = underlay.address(peer, WEST).0;
        // Neither the daemon nor the kernel is to ask for it any more.
        let neighbour = v1::Neighbour {
            port: WEST.into(),
            address: address.to_string(),
            mac: mac.map(|octet| format!("{octet:02x}")).join(":"),
        };
        let neighbour = set(v1::item::Item::Neighbour(neighbour));
        path.controller
            .apply(router, vec![neighbour])
            .expect("a static neighbour");
        let namespace = path.network.router(router);
        namespace
            .set_neighbour(device, address, mac)
            .expect("a neighbour for good");
        if underlay == Underlay::V4 {
            namespace
                .sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "1")
                .expect("an underlay without IPv6");
        }
    }
    let switch = path.network.switch(WEST);
    switch
        .sysctl("net/ipv6/conf/all/disable_ipv6", "1")
        .expect("a switch without IPv6");
    switch.delete_link("br0").expect("the bridge goes");
}

/// Sends from a host to the other over the bad wire, and follows every packet.
fn assert_accounts(path: &mut Path, underlay: Underlay, from: Host, seed: u64) {
    let bad = Impairment {
        loss: 0.03,
        duplicate: 0.04,
        reorder: 0.05,
        corrupt: 0.05,
        delay: Duration::from_micros(200),
        jitter: Duration::from_micros(300),
        seed,
        ..Impairment::default()
    };
    let (forth, back) = match from {
        Host::A => (bad, Impairment::default()),
        Host::B => (Impairment::default(), bad),
    };
    let (sender, receiver) = match from {
        Host::A => (Router::EdgeA, Router::Transit),
        Host::B => (Router::Transit, Router::EdgeA),
    };
    let wire = ImpairedWire::start(path.network.switch(WEST), "p0", "p1", forth, back)
        .expect("a bad wire");
    let before = [Account::of(path, sender), Account::of(path, receiver)];
    let load = path.send(from, from == Host::B, 16, 2_000.0, Until::Count(PACKETS));
    let hosts = load.finish();
    let sent = Account::of(path, sender).since(&before[0]);
    let arrived = Account::of(path, receiver).since(&before[1]);
    let counters = match from {
        Host::A => wire.a_to_b(),
        Host::B => wire.b_to_a(),
    };
    let all = format!("{hosts:#?}\n{counters:#?}\nsent {sent:#?}\narrived {arrived:#?}");

    // What hosts see.
    assert_eq!(
        (hosts.duplicates, hosts.damaged, hosts.foreign),
        (0, 0, 0),
        "{all}"
    );
    assert_eq!(hosts.sent, PACKETS);

    // Into the wire, and out of it.
    let wired = counters.impairment;
    assert_eq!(sent.link_sent, PACKETS, "{all}");
    assert_eq!(
        (counters.missed, counters.unsent, wired.overflowed),
        (0, 0, 0),
        "{all}"
    );
    let entered = wired.forwarded + wired.lost - wired.duplicated;
    // Over IPv6 a kernel may have had to say something too (MLD).
    let strangers = entered
        .checked_sub(sent.link_sent)
        .expect("no fewer than were sent");
    assert!(strangers == 0 || underlay == Underlay::V6, "{all}");
    assert!(
        wired.lost > 0 && wired.duplicated > 0 && wired.corrupted > 0,
        "{all}"
    );

    // At the next router: steered to the kernel (no longer a link's packet), dropped for a reason, or taken.
    assert_eq!(wired.forwarded, arrived.steered + arrived.passed, "{all}");
    // Where no checksum covers the outer header, a flipped bit may mark congestion on what cannot carry the mark; that
    // is found behind the seal.
    let marked = arrived.reason("ecn_violation");
    assert!(marked == 0 || underlay == Underlay::V6, "{all}");
    let taken = arrived.link_received - marked;
    assert_eq!(arrived.steered, taken + arrived.dropped(), "{all}");
    assert_eq!(taken, hosts.received, "{all}");

    // And for the right reasons: a copy is a replay unless it was damaged, and damage shows.
    let replayed = arrived.reason("link_replayed");
    let damaged = arrived.dropped() - replayed + arrived.passed;
    assert!(replayed > 0 && replayed <= wired.duplicated, "{all}");
    assert!(arrived.reason("link_authentication") > 0, "{all}");
    assert!(damaged <= 2 * wired.corrupted + strangers, "{all}");
    assert_eq!(
        path.dropped(edge_of(from.other()), "circuit_replayed"),
        0,
        "{all}"
    );
}

/// A router's counters of the wire's link.
#[derive(Debug)]
struct Account {
    link_sent: u64,
    link_received: u64,
    /// Frames that XDP gave to the daemon, and to the kernel.
    steered: u64,
    passed: u64,
    drops: Vec<(String, u64)>,
}

impl Account {
    fn of(path: &mut Path, router: Router) -> Self {
        let stats = path.controller.stats(router).expect("counters");
        let link = stats.links.iter().find(|link| link.name == WEST);
        let port = stats.ports.iter().find(|port| port.port == WEST);
        let (link, port) = link.zip(port).expect("the wire's link and port");
        let verdicts = |ours: bool| {
            let of = port.steering.iter();
            of.filter(|verdict| (verdict.name == "redirected") == ours)
                .map(|verdict| verdict.value)
                .sum()
        };
        Self {
            link_sent: link.sent_packets,
            link_received: link.received_packets,
            steered: verdicts(true),
            passed: verdicts(false),
            drops: stats.drops.into_iter().map(|c| (c.name, c.value)).collect(),
        }
    }

    fn since(self, before: &Self) -> Self {
        let drops = self.drops.into_iter().zip(&before.drops);
        let drops = drops.map(|((name, now), (_, then))| (name, now - then));
        Self {
            link_sent: self.link_sent - before.link_sent,
            link_received: self.link_received - before.link_received,
            steered: self.steered - before.steered,
            passed: self.passed - before.passed,
            drops: drops.filter(|(_, n)| *n > 0).collect(),
        }
    }

    fn dropped(&self) -> u64 {
        self.drops.iter().map(|(_, n)| n).sum()
    }

    fn reason(&self, name: &str) -> u64 {
        let found = self.drops.iter().find(|(reason, _)| reason == name);
        found.map_or(0, |(_, n)| *n)
    }
}
