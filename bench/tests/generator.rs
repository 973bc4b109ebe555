//! The AF_XDP generator over real veths: every packet is accounted for.

use std::time::{Duration, Instant};

use twinseal_bench::Size;
use twinseal_bench::generator::{
    Account, End, Generator, GeneratorError, Offer, Options, Route, headers, min_octets,
};
use twinseal_lab::impair::Impairment;
use twinseal_lab::traffic::{Search, Until, find_rate};
use twinseal_lab::wire::ImpairedWire;
use twinseal_lab::{IpNet, Lab, Namespace, VethConfig};

const QUIET: Duration = Duration::from_secs(2);
/// Only a guard against hanging for ever.
const PATIENCE: Duration = Duration::from_secs(20);

fn lab(prefix: &str) -> Option<Lab> {
    if let Err(why) = Lab::available() {
        eprintln!("SKIPPED: {why}");
        return None;
    }
    Some(Lab::new(prefix).expect("a lab where one is available"))
}

fn net(text: &str) -> IpNet {
    text.parse().expect("an address with a prefix length")
}

/// Two namespaces, joined by a veth.
fn pair(lab: &Lab, queues: u32, mtu: u32) -> (Namespace, Namespace) {
    let [a, b] = ["a", "b"].map(|role| lab.namespace(role).expect("namespace"));
    let mut veth = VethConfig::new((&a, "eth0"), (&b, "eth0"));
    (veth.queues, veth.mtu) = (queues, mtu);
    lab.veth(&veth).expect("veth");
    (a, b)
}

fn route(a: &Namespace, b: &Namespace, v6: bool) -> Route {
    let (src, dst) = match v6 {
        false => ("10.0.0.1", "10.0.0.2"),
        true => ("fd00::1", "fd00::2"),
    };
    Route {
        from: End::in_namespace(a, "eth0"),
        to: End::in_namespace(b, "eth0"),
        src: src.parse().expect("address"),
        dst: dst.parse().expect("address"),
        src_mac: a.mac("eth0").expect("mac"),
        dst_mac: b.mac("eth0").expect("mac"),
    }
}

fn options() -> Options {
    Options {
        quiet: QUIET,
        ..Options::default()
    }
}

fn offer(octets: u16, flows: u32, count: u64) -> Offer {
    Offer {
        size: Size::Octets(octets),
        flows,
        pps: 20_000.0,
        until: Until::Count(count),
    }
}

#[test]
fn all_sizes_of_both_families_arrive_once_in_order_and_whole() {
    let Some(lab) = lab("xgen") else { return };
    let (a, b) = pair(&lab, 1, 3500);
    for v6 in [false, true] {
        let mut generator = Generator::open(&route(&a, &b, v6), &options()).expect("a generator");
        let min = min_octets(v6) as u16;
        for octets in [min, 77, 1400, 1500, 3500] {
            let account = generator.run(&offer(octets, 10, 1_003)).expect("sent");
            let summary = account.summary;
            assert!(
                summary.is_perfect() && summary.foreign == 0,
                "{octets}: {summary:?}"
            );
            assert_eq!(
                (summary.sent, summary.received, summary.flows),
                (1_003, 1_003, 10)
            );
            assert!(account.offered_pps > 0.0 && account.received_pps > 0.0);
            let latency = summary.latency;
            assert!(
                0 < latency.min && latency.p50 <= latency.p9999 && latency.p9999 <= latency.max
            );
        }
        // The mix: each packet has the size whose turn it is.
        let mix = Offer {
            size: Size::Imix,
            ..offer(0, 10, 1_200)
        };
        let summary = generator.run(&mix).expect("sent").summary;
        assert!(
            summary.is_perfect() && summary.received == 1_200,
            "{summary:?}"
        );
        let headers = headers(v6);
        let turns = Size::Imix.turns(min.into()).into_iter();
        let payloads: usize = turns.map(|octets| octets - headers).sum();
        assert_eq!(summary.bytes, 100 * payloads as u64);
        let short = generator.run(&offer(min - 1, 1, 1));
        assert!(
            matches!(short, Err(GeneratorError::Short { .. })),
            "{short:?}"
        );
        let long = generator.run(&offer(4_000, 1, 1));
        assert!(matches!(long, Err(GeneratorError::Size { .. })), "{long:?}");
        generator.close().expect("closed");
    }
}

#[test]
fn flows_are_spread_over_queues_and_stay_in_order() {
    let Some(lab) = lab("xgenq") else { return };
    let (a, b) = pair(&lab, 2, 1500);
    let options = Options {
        queues: 2,
        spin: Duration::from_millis(1),
        rx_cpu: Some(0),
        tx_cpu: Some(0),
        ..options()
    };
    let mut generator = Generator::open(&route(&a, &b, false), &options).expect("a generator");
    let account = generator.run(&offer(200, 1_000, 5_000)).expect("sent");
    assert!(account.summary.is_perfect(), "{account:?}");
    assert_eq!(account.summary.flows, 1_000);
    // A burst that rings and queues hold whole.
    let account = generator
        .run(&Offer::burst(Size::Octets(200), 2, 128))
        .expect("sent");
    assert!(account.summary.is_perfect(), "{account:?}");
    // Both ends used one by one, in the background.
    let endless = Offer {
        until: Until::Elapsed(Duration::from_secs(3600)),
        ..offer(100, 4, 0)
    };
    let load = generator.load(&endless).expect("a load");
    let (sender, receiver) = generator.into_ends();
    let running = sender.start(load).expect("started");
    receiver.wait_for(500, QUIET);
    let sent = running.stop().expect("stopped");
    receiver.wait_for(sent.packets, QUIET);
    let account = Account::new(&endless, &sent, &receiver.stop().expect("stopped"));
    assert!(
        account.summary.is_perfect() && account.summary.sent >= 500,
        "{account:?}"
    );
}

#[test]
fn a_search_runs_one_trial_after_another() {
    let Some(lab) = lab("xgens") else { return };
    let (a, b) = pair(&lab, 1, 1500);
    let mut generator = Generator::open(&route(&a, &b, false), &options()).expect("a generator");
    let search = Search {
        start_pps: 1_000.0,
        max_pps: 4_000.0,
        trials: 6,
        ..Search::default()
    };
    let rate = find_rate(&search, |pps| {
        let account = generator.run(&Offer {
            pps,
            ..offer(64, 3, 100)
        })?;
        assert_eq!(account.summary.sent, 100);
        Ok::<_, GeneratorError>(account.trial())
    });
    assert!(!rate.expect("trials").trials.is_empty());
}

/// Two hosts, and what has the wire between them.
fn with_wire(lab: &Lab) -> [Namespace; 3] {
    let [a, wire, b] = ["a", "wire", "b"].map(|role| lab.namespace(role).expect("namespace"));
    lab.veth(&VethConfig::new((&a, "eth0"), (&wire, "p0")))
        .expect("veth");
    let far = VethConfig::new((&b, "eth0"), (&wire, "p1"));
    lab.veth(&far.addresses(&[net("10.0.0.2/24")], &[]))
        .expect("veth");
    // IPv6 chatter of the interfaces shares the wire; without it the counters are ours alone.
    for (ns, ifname) in [(&a, "eth0"), (&b, "eth0"), (&wire, "p0"), (&wire, "p1")] {
        ns.sysctl(&format!("net/ipv6/conf/{ifname}/disable_ipv6"), "1")
            .expect("sysctl");
    }
    [a, wire, b]
}

#[test]
fn what_comes_after_its_account_is_late_in_the_next() {
    let Some(lab) = lab("xgenlate") else { return };
    let [a, wire, b] = with_wire(&lab);
    let impatient = Options {
        quiet: Duration::from_millis(20),
        ..Options::default()
    };
    let mut generator = Generator::open(&route(&a, &b, false), &impatient).expect("a generator");
    let slow = Impairment {
        delay: Duration::from_millis(500),
        ..Impairment::default()
    };
    let _relay =
        ImpairedWire::start(&wire, "p0", "p1", slow, Impairment::default()).expect("a wire");
    let run = |generator: &mut Generator| {
        let account = generator.run(&offer(200, 2, 100)).expect("sent");
        let begin = Instant::now();
        while generator.receiver().received() < account.summary.lost {
            assert!(begin.elapsed() < PATIENCE, "{account:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        account
    };
    let first = run(&mut generator);
    let second = run(&mut generator);
    assert_eq!(second.late.received, first.summary.lost);
    for it in [&first, &second] {
        let came = it.summary.received + it.summary.lost;
        assert_eq!((it.summary.sent, came), (100, 100), "{it:?}");
    }
    let last = generator.close().expect("closed");
    assert_eq!(last.received, second.summary.lost);
}

#[test]
fn the_account_agrees_with_a_bad_wire() {
    let Some(lab) = lab("xgenbad") else { return };
    let [a, wire, b] = with_wire(&lab);
    let mut generator = Generator::open(&route(&a, &b, false), &options()).expect("a generator");
    let mut run = |bad: Impairment| {
        let bad = Impairment { seed: 7, ..bad };
        let relay =
            ImpairedWire::start(&wire, "p0", "p1", bad, Impairment::default()).expect("wire");
        let summary = generator.run(&offer(200, 2, 5_000)).expect("sent").summary;
        let counters = relay.a_to_b();
        assert_eq!(
            (counters.missed, counters.unsent, summary.socket_drops),
            (0, 0, 0)
        );
        (summary, counters.impairment)
    };

    let (summary, wire) = run(Impairment {
        loss: 0.05,
        duplicate: 0.05,
        reorder: 0.05,
        ..Impairment::default()
    });
    assert_eq!(
        (summary.lost, summary.duplicates),
        (wire.lost, wire.duplicated)
    );
    assert!(wire.lost > 100 && wire.duplicated > 100, "{wire:?}");
    // The wire counts late copies too, the tally only first arrivals, and only those of their own flow.
    assert!(
        summary.reordered > 50 && summary.reordered <= wire.reordered,
        "{summary:?}: {wire:?}"
    );
    assert_eq!((summary.damaged, summary.foreign), (0, 0));

    let (summary, wire) = run(Impairment {
        corrupt: 0.05,
        ..Impairment::default()
    });
    // A changed marker is foreign, a changed destination never comes; a changed hardware address does not matter.
    assert!(
        wire.corrupted > 100 && summary.damaged > 100,
        "{summary:?}: {wire:?}"
    );
    assert!(
        summary.damaged + summary.foreign <= summary.lost,
        "{summary:?}"
    );
    assert!(summary.lost <= wire.corrupted, "{summary:?}: {wire:?}");
    assert_eq!((summary.duplicates, summary.reordered), (0, 0));
}
