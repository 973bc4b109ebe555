//! Accounts to the packet: what circuits are said to have carried is what the generator sent, over everything that a
//! controller may do meanwhile, and over a `kill -9`.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{PATIENCE, Path, options, route_by_edge_port};
use serde_json::Value;
use twinseal_api::v1;
use twinseal_lab::traffic::Until;
use twinseal_testbed::items::set;
use twinseal_testbed::plan::{CIRCUIT, EAST, Host, Router, WEST};
use v1::item::Item;

/// An inner packet: 200 octets of payload, UDP, IPv4.
const PACKET: u64 = 200 + 8 + 20;
/// A second label for the same circuit, from edge A to transit.
const OTHER_LABEL: u32 = 7001;

/// Packets and octets of the circuit at one edge.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Sums {
    from_hosts: [u64; 2],
    to_hosts: [u64; 2],
}

#[test]
fn usage_is_what_was_sent_over_moves_rotations_and_a_kill() {
    let mut options = options();
    options.extra = "[usage]\ninterval = 1\n".into();
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let before = [
        sums(&path, Router::EdgeA, false).0,
        sums(&path, Router::EdgeB, false).0,
    ];
    let traffic = path.send(
        Host::A,
        false,
        8,
        2000.0,
        Until::Elapsed(Duration::from_secs(600)),
    );
    pause();
    path.controller
        .rotate(&mut path.plan)
        .expect("keys are taken");
    replace_tables(&mut path);
    move_path(&mut path);
    pause();
    path.controller
        .rotate(&mut path.plan)
        .expect("keys are taken");
    let summary = traffic.stop();
    path.assert_perfect(&summary);

    let (a, records) = sums(&path, Router::EdgeA, false);
    let (b, _) = sums(&path, Router::EdgeB, false);
    let carried = [summary.sent, summary.sent * PACKET];
    assert_eq!(since(a.from_hosts, before[0].from_hosts), carried, "at A");
    assert_eq!(since(b.to_hosts, before[1].to_hosts), carried, "at B");
    assert_eq!(a.to_hosts, before[0].to_hosts);
    let tagged = |record: &Value| record["tags"]["clientId"] == "moved";
    assert!(records.iter().any(tagged) && !records.iter().all(tagged));

    // Once an interval is closed, not even this loses it.
    let begin = Instant::now();
    while sums(&path, Router::EdgeA, true).0 != a {
        assert!(begin.elapsed() < PATIENCE, "the interval was not closed");
        std::thread::sleep(Duration::from_millis(50));
    }
    path.network.kill_daemon(Router::EdgeA).expect("it dies");
    path.network
        .start_daemon(Router::EdgeA)
        .expect("it starts again");
    assert_eq!(sums(&path, Router::EdgeA, true).0, a);
    path.finish();
}

fn pause() {
    std::thread::sleep(Duration::from_millis(700));
}

fn since(now: [u64; 2], before: [u64; 2]) -> [u64; 2] {
    [now[0] - before[0], now[1] - before[1]]
}

/// Routes come and go, so that workers take several snapshots of the tables.
fn replace_tables(path: &mut Path) {
    for n in 0..10 {
        let route = route_by_edge_port(&format!("10.99.{n}.0/24"));
        path.controller
            .apply(Router::EdgeA, vec![set(Item::Route(route))])
            .expect("a route");
    }
}

/// The circuit takes another label at edge A, which transit knows before; it gets a tag at the same time.
fn move_path(path: &mut Path) {
    let items = |path: &mut Path, router| path.controller.get(router).expect("the state").items;
    let mut labels = items(path, Router::Transit).into_iter();
    let swap = labels.find_map(|item| match item.item {
        Some(Item::Label(label)) if label.link == WEST => Some(label),
        _ => None,
    });
    let swap = v1::Label {
        label: OTHER_LABEL,
        ..swap.expect("transit swaps what comes from the west")
    };
    assert!(matches!(&swap.action, Some(v1::label::Action::Swap(to)) if to.link == EAST));
    path.controller
        .apply(Router::Transit, vec![set(Item::Label(swap))])
        .expect("a label");
    let mut circuits = items(path, Router::EdgeA).into_iter();
    let circuit = circuits.find_map(|item| match item.item {
        Some(Item::Circuit(circuit)) => Some(circuit),
        _ => None,
    });
    let circuit = v1::Circuit {
        label: OTHER_LABEL,
        tags: [("clientId".to_owned(), "moved".to_owned())].into(),
        ..circuit.expect("edge A has one")
    };
    path.controller
        .apply(Router::EdgeA, vec![set(Item::Circuit(circuit))])
        .expect("a circuit");
}

/// What `ctl usage` says, and its records.
fn sums(path: &Path, router: Router, closed: bool) -> (Sums, Vec<Value>) {
    let mut sockets = path.network.sockets();
    let (_, socket) = sockets.find(|(it, _)| *it == router).expect("it runs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinseal"));
    command.args(["ctl", "--socket"]).arg(socket);
    command.args(["usage", "--json", "--circuit", CIRCUIT]);
    if closed {
        command.arg("--closed");
    }
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let end = if router == Router::EdgeA {
        "ingress"
    } else {
        "egress"
    };
    let sum = |of: &str, way: &str| -> u64 {
        let counts = records
            .iter()
            .map(|it| it[of][format!("{end}.{way}")].as_u64());
        counts.map(|count| count.expect("a count")).sum()
    };
    let sums = Sums {
        from_hosts: [sum("packets", "rx"), sum("usage", "rx")],
        to_hosts: [sum("packets", "tx"), sum("usage", "tx")],
    };
    (sums, records)
}
