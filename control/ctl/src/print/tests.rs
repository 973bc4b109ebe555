use super::*;

fn text(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    print(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn counter(name: &str, value: u64) -> v1::Counter {
    v1::Counter {
        name: name.into(),
        value,
    }
}

fn sample() -> v1::StatsResponse {
    v1::StatsResponse {
        generation: 7,
        ports: vec![v1::PortStats {
            port: "wan".into(),
            received_packets: 1000,
            received_bytes: 1_500_000,
            sent_packets: 5,
            sent_bytes: 40,
            steering: vec![counter("redirected", 990), counter("passed", 0)],
            offloads: vec![counter("super_frames", 4), counter("checksums_finished", 0)],
            ..Default::default()
        }],
        links: vec![v1::Traffic {
            name: "to-b".into(),
            received_packets: 10,
            ..Default::default()
        }],
        circuits: Vec::new(),
        drops: vec![counter("no_route", 0), counter("replayed", 3)],
        workers: vec![v1::WorkerStats {
            batches: 6,
            packets: 12,
            sleeps: 1,
            frames_free: 8,
            frames: 9,
            worker: 0,
        }],
        provider: "ring".into(),
        boot: 8,
        ..Default::default()
    }
}

#[test]
fn tables_align_and_leave_zero_counters_out() {
    assert_eq!(
        text(|out| stats(out, &sample())),
        "\
PORT  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES
wan         1000   1500000           5        40
LINK  RX PACKETS  RX BYTES  TX PACKETS  TX BYTES
to-b          10         0           0         0
WORKER  BATCHES  PACKETS  SLEEPS  FREE FRAMES  FRAMES
0             6       12       1            8       9
DROPS     COUNT
replayed      3
XDP VERDICTS OF wan  COUNT
redirected             990
OFFLOADS OF wan  COUNT
super_frames         4
SEALED BY  ring
BOOT  8
"
    );
}

#[test]
fn rates_are_of_a_second() {
    let before = sample();
    let mut now = sample();
    now.ports[0].received_packets += 100;
    now.links[0].received_packets = 4; // made anew
    now.drops[1].value += 7;
    now.workers[0].frames_free = 2;
    now.circuits.push(v1::Traffic {
        name: "new".into(),
        sent_bytes: 50,
        ..Default::default()
    });
    let rates = rates(&now, &before, Duration::from_secs(2));
    assert_eq!(rates.ports[0].received_packets, 50);
    assert_eq!(rates.ports[0].sent_bytes, 0);
    assert_eq!(rates.links[0].received_packets, 0);
    assert_eq!(
        rates.drops,
        vec![counter("no_route", 0), counter("replayed", 4)]
    );
    assert_eq!(
        (rates.workers[0].frames_free, rates.workers[0].packets),
        (2, 0)
    );
    assert_eq!(rates.circuits[0].sent_bytes, 25);
}

#[test]
fn events_have_a_line_and_an_object() {
    use v1::event::Event;
    let key = v1::KeyRef {
        owner: Some(v1::key_ref::Owner::Circuit("c".into())),
        direction: v1::Direction::AToB.into(),
        epoch: 4,
    };
    let cases = [
        (
            Event::Table(v1::TableEvent {
                generation: 3,
                changes: 2,
                cause: "rolled_back".into(),
                pending: None,
                owner: "bgp".into(),
                taken_from: Vec::new(),
            }),
            "tables: generation 3, 2 changes, of owner bgp, rolled back",
        ),
        (
            Event::Link(v1::LinkEvent {
                link: "l".into(),
                status: v1::LinkStatus::Degraded.into(),
                reason: "no key receives".into(),
                remote: String::new(),
            }),
            "link l degraded: no key receives",
        ),
        (
            Event::Circuit(v1::CircuitEvent {
                circuit: "c".into(),
                change: v1::CircuitChange::Up.into(),
                ..Default::default()
            }),
            "circuit c up",
        ),
        (
            Event::Key(v1::KeyEvent {
                key: Some(key),
                change: v1::KeyChange::NearlyExhausted.into(),
                limit: "bytes".into(),
            }),
            "key of circuit c, a-to-b, epoch 4: nearly exhausted, by its limit of bytes",
        ),
        (
            Event::Fault(v1::FaultEvent {
                kind: "usage_lost".into(),
                detail: "9".into(),
            }),
            "fault usage_lost: 9",
        ),
        (
            Event::Gap(v1::GapEvent {
                first: 3,
                next: 7,
                cause: v1::GapCause::TooOld.into(),
            }),
            "events 3 to 6 are missing: the node keeps them no more",
        ),
        (
            Event::Drain(v1::DrainEvent {
                target: Some(v1::DrainTarget {
                    target: Some(v1::drain_target::Target::Node(v1::WholeNode {})),
                }),
                status: v1::DrainStatus::Draining.into(),
                by: "user 0 (group 0)".into(),
            }),
            "the node drains, by user 0 (group 0)",
        ),
        (
            Event::Security(v1::SecurityEvent {
                reason: "link_replayed".into(),
                owner: Some(v1::security_event::Owner::Link("l".into())),
                count: 5,
                total: 9,
                period_nanos: 1_500_000_000,
            }),
            "security: link_replayed on link l: 5 within 1.5 s, 9 in all",
        ),
    ];
    for (kind, line) in cases {
        let it = v1::Event {
            unix_nanos: 1_000_000,
            event: Some(kind),
            ..Default::default()
        };
        assert_eq!(event(&it), format!("1970-01-01T00:00:00.001Z {line}"));
    }
    assert!(event(&v1::Event::default()).ends_with("an event of a later version"));
}

#[test]
fn the_outcome_is_comments() {
    let key = |transmitter, transmitting| v1::KeyState {
        key: Some(v1::KeyRef {
            owner: Some(v1::key_ref::Owner::Link("to-b".into())),
            direction: v1::Direction::BToA.into(),
            epoch: 1,
        }),
        suite: v1::Suite::Aes256Gcm.into(),
        receiver_index: 9,
        transmitter,
        transmitting,
        packets: 5,
        exhausted: transmitting,
        needed: false,
    };
    let got = v1::GetResponse {
        node: "a".into(),
        version: "1".into(),
        generation: 2,
        workers: 1,
        provider: "ring".into(),
        memory: "ordinary pages".into(),
        ports: vec![v1::PortState {
            port: "wan".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            xdp: "native".into(),
            bind: vec!["copy".into(), "copy".into()],
            need_wakeup: true,
            up: true,
            checksum: "finish".into(),
            warnings: vec!["it has no address".into()],
            ..Default::default()
        }],
        links: vec![v1::LinkState {
            link: "to-b".into(),
            up: false,
            next_hop_mac: String::new(),
            reason: "its next hop is not resolved".into(),
            draining: true,
            warnings: Vec::new(),
        }],
        keys: vec![key(false, false), key(true, true)],
        neighbours: vec![v1::NeighbourState {
            port: "lan".into(),
            address: "10.0.0.1".into(),
            mac: "02:00:00:00:00:02".into(),
            r#static: true,
        }],
        items: Vec::new(),
        pending: Some(v1::Pending {
            generation: 2,
            until_unix_nanos: 0,
        }),
        restoring: String::new(),
        rollback_incomplete: "a port is missing".into(),
        warnings: vec!["it can't work".into()],
        secrets_refused: String::new(),
        tables_not_stored: "no room".into(),
        stored_tables_damaged: "half of it".into(),
        drains: vec![v1::DrainState {
            target: Some(v1::DrainTarget {
                target: Some(v1::drain_target::Target::Link("to-b".into())),
            }),
            since_unix_nanos: 0,
            by: "user 0 (group 0)".into(),
        }],
        owners: vec![
            v1::OwnerState {
                owner: "controller".into(),
                generation: 1,
                items: 7,
                pending: None,
            },
            v1::OwnerState {
                owner: "etcd".into(),
                generation: 2,
                items: 3,
                pending: Some(v1::Pending {
                    generation: 2,
                    until_unix_nanos: 0,
                }),
            },
        ],
    };
    assert_eq!(
        text(|out| outcome(out, &got)),
        "\
# node a, version 1, generation 2, workers 1, ring, ordinary pages
# generation 2 waits for its confirmation until 1970-01-01T00:00:00.000Z
# owner controller: 7 items, changed in generation 1
# owner etcd: 3 items, changed in generation 2, generation 2 waits for its confirmation until 1970-01-01T00:00:00.000Z
# the rollback is not complete: a port is missing
# WARNING: it can't work
# what applies is not stored, and is lost with a restart: no room
# stored tables were refused at the start: half of it
# link to-b drains since 1970-01-01T00:00:00.000Z, by user 0 (group 0)
# port wan: up, 02:00:00:00:00:01, mtu 1500, native XDP, copy copy, need-wakeup, finishes checksums
# link to-b: down (its next hop is not resolved), drains
# key of link to-b, b-to-a, epoch 1: aes-256-gcm, receiver index 9, receives
# key of link to-b, b-to-a, epoch 1: aes-256-gcm, receiver index 9, transmits, 5 packets sealed, exhausted
# neighbour 10.0.0.1 on lan: 02:00:00:00:00:02, static
"
    );
    let json = key_json(&got.keys[1]).to_string();
    assert!(
        json.contains(r#""link":"to-b""#) && json.contains(r#""suite":"aes-256-gcm""#),
        "{json}"
    );
}
