//! Tables that change by the thousand under traffic: no packet is lost, and every route ends as it was told.

mod node;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use twinseal_api::v1::{self, change::Change, item::Item};
use twinseal_runtime::ports::memory::{End, EndQueue};

use node::*;

/// Routes that change, each a /24 under 20.0.0.0/8; half as many come and go within them.
const ROUTES: u32 = 2000;
/// Transactions, each of all routes: 3000 changes, one every [`PACE`], are 100,000 changes a second for ten seconds. A
/// machine that cannot keep up takes longer.
const TRANSACTIONS: u32 = 334;
const PACE: Duration = Duration::from_millis(30);
/// Frames that may be under way: fewer than a wire or a worker's memory holds.
const WINDOW: u64 = 256;
/// How long a packet may be under way.
const PATIENCE: Duration = Duration::from_secs(5);
const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 2, 1];

/// The hosts that routes lead to in turn.
fn host(n: u32) -> (String, String) {
    let n = n % 2 + 1;
    (format!("10.9.0.{n}"), format!("02:00:00:00:09:0{n}"))
}

fn prefix(route: u32) -> [u8; 4] {
    (20 << 24 | route << 8).to_be_bytes()
}

fn route(prefix: String, to: u32) -> Item {
    Item::Route(v1::Route {
        vrf: "red".into(),
        prefix,
        target: Some(v1::route::Target::Via(v1::Via {
            port: "out".into(),
            address: host(to).0,
        })),
    })
}

/// Whether the upper half of a route leads elsewhere in this generation; in the next it does not.
fn halved(generation: u32, route: u32) -> bool {
    route.is_multiple_of(2) && (route / 2 + generation).is_multiple_of(2)
}

/// The routes of a generation: each leads to one host, and the upper half of some to the other, now and then.
fn generation(generation: u32) -> v1::ApplyRequest {
    let mut changes = Vec::new();
    let mut set = |item| {
        let item = v1::Item {
            item: Some(item),
            ..Default::default()
        };
        changes.push(Change::Set(item));
    };
    for n in 0..ROUTES {
        let [a, b, c, _] = prefix(n);
        set(route(format!("{a}.{b}.{c}.0/24"), n + generation));
        if halved(generation, n) {
            set(route(format!("{a}.{b}.{c}.128/25"), n + generation + 1));
        }
    }
    if generation > 0 {
        for n in (0..ROUTES).filter(|n| halved(generation - 1, *n)) {
            let [a, b, c, _] = prefix(n);
            changes.push(Change::Delete(v1::ItemRef {
                item: Some(v1::item_ref::Item::Route(v1::RouteRef {
                    vrf: "red".into(),
                    prefix: format!("{a}.{b}.{c}.128/25"),
                })),
            }));
        }
    }
    let changes = changes.into_iter();
    v1::ApplyRequest {
        changes: changes
            .map(|change| v1::Change {
                change: Some(change),
            })
            .collect(),
        ..Default::default()
    }
}

/// Where a generation leads an address.
fn expected(generation: u32, route: u32, host: u8) -> u32 {
    let upper = host >= 128 && halved(generation, route);
    (route + generation + u32::from(upper)) % 2 + 1
}

fn packet(route: u32, host: u8) -> Vec<u8> {
    let [a, b, c, _] = prefix(route);
    frame(PORT_MAC, [10, 1, 0, 9], [a, b, c, host], &[0; 18])
}

/// Sends to every route in turn until `done`, and then waits for what is under way. Returns what was sent and received.
fn traffic(hosts_in: &EndQueue, hosts_out: &EndQueue, done: &AtomicBool) -> (u64, u64) {
    let (mut sent, mut received) = (0u64, 0u64);
    let mut last = Instant::now();
    loop {
        let done = done.load(Relaxed);
        if done && (sent == received || last.elapsed() > PATIENCE) {
            return (sent, received);
        }
        if !done && sent - received < WINDOW {
            // Both halves of a route.
            let frame = packet(sent as u32 % ROUTES, (sent * 89) as u8);
            assert!(hosts_in.send(&frame), "the wire has room");
            sent += 1;
        }
        match hosts_out.receive_one(|frame| frame[5]) {
            Some(host) => {
                assert!(matches!(host, 1 | 2), "it went to a host");
                received += 1;
                last = Instant::now();
            }
            None => std::thread::yield_now(),
        }
    }
}

#[test]
fn nothing_is_lost_while_routes_change() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    let tag = tag("scale");
    let wire = |name: &str| format!("{tag}-{name}");
    let open = |name: &str| {
        let end = End::open(&wire(name), 1);
        Arc::new(end.expect("one end is free").queue(0))
    };
    let (hosts_in, hosts_out) = (open("in"), open("out"));
    on_runtime(async {
        let mut client = connect(&config).await;
        let mut items = vec![
            Item::Vrf(v1::Vrf { name: "red".into() }),
            port("in", "red", &wire("in"), "02:00:00:00:02:01"),
            port("out", "red", &wire("out"), "02:00:00:00:02:02"),
        ];
        for n in 0..2 {
            let (address, mac) = host(n);
            items.push(Item::Neighbour(v1::Neighbour {
                port: "out".into(),
                address,
                mac,
            }));
        }
        apply(&mut client, items).await.expect("sound");
        client.apply(generation(0)).await.expect("sound");

        let done = Arc::new(AtomicBool::new(false));
        let sender = std::thread::spawn({
            let (hosts_in, hosts_out) = (Arc::clone(&hosts_in), Arc::clone(&hosts_out));
            let done = Arc::clone(&done);
            move || traffic(&hosts_in, &hosts_out, &done)
        });
        let start = Instant::now();
        let mut changes = 0;
        let mut pace = tokio::time::interval(PACE);
        for number in 1..=TRANSACTIONS {
            pace.tick().await;
            let request = generation(number);
            changes += request.changes.len();
            client.apply(request).await.expect("sound");
        }
        let took = start.elapsed();
        done.store(true, Relaxed);
        let (sent, received) = sender.join().expect("no panic");
        println!("{changes} changes in {took:?}, {sent} packets meanwhile");
        assert_eq!(received, sent, "packets were lost");
        assert!(sent > 0);
        let counters = stats(&mut client).await;
        let drops: Vec<_> = counters
            .drops
            .iter()
            .filter(|drop| drop.value > 0)
            .collect();
        assert!(drops.is_empty(), "{drops:?}");

        for route in 0..ROUTES {
            for host in [1, 200] {
                assert!(hosts_in.send(&packet(route, host)));
                let asked = Instant::now();
                let found = loop {
                    if let Some(found) = hosts_out.receive_one(|frame| u32::from(frame[5])) {
                        break found;
                    }
                    assert!(asked.elapsed() < PATIENCE, "route {route} lost a packet");
                    std::thread::yield_now();
                };
                assert_eq!(found, expected(TRANSACTIONS, route, host), "route {route}");
            }
        }
    });
    node.stop();
}
