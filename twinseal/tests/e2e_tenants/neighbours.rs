//! Neighbours that packets go to are looked after, whoever learnt them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use twinseal_lab::IpNet;
use twinseal_lab::traffic::{Load, Marker, Receiver, Running, Sender, SenderConfig, Until};
use twinseal_testbed::plan::Host;

use crate::common::{PATIENCE, Path, edge_of, options};
use crate::wait_until;

const PORT: u16 = 9200;
const MARKER: Marker = *b"neighbrs";

/// B's host with an address that its router's kernel learnt without the node's doing, and a load to it, one way.
struct OneWay {
    path: Path,
    address: IpAddr,
    receiver: Receiver,
    running: Running,
}

impl OneWay {
    fn start() -> Option<Self> {
        let path = Path::start(options())?;
        let host = path.network.host(Host::B);
        let address: IpAddr = "10.2.0.77".parse().expect("an address");
        let net = IpNet::new(address, 32).expect("a prefix length");
        host.add_address("eth0", net).expect("an address");
        // The router answers that nobody listens there, and for that asks for the host.
        let gateway = SocketAddr::new(Host::B.gateway(false), PORT);
        let config = SenderConfig {
            src: Some(address),
            ..SenderConfig::new(gateway, 1)
        };
        let mut sender = Sender::open(host, &config).expect("a socket");
        sender.send(&load(Until::Count(1))).expect("sent");
        let router = path.network.router(edge_of(Host::B));
        wait_until(|| {
            let known = router.neighbour("edge0", address).expect("the table");
            known.is_some()
        });
        let to = SocketAddr::new(address, PORT);
        let receiver = Receiver::start(host, to, MARKER).expect("a receiver");
        let from = path.network.host(Host::A);
        let sender = Sender::open(from, &SenderConfig::new(to, 1)).expect("a socket");
        let running = sender.start(load(Until::Elapsed(Duration::from_secs(600))));
        wait_until(|| receiver.received() > 0);
        Some(Self {
            path,
            address,
            receiver,
            running,
        })
    }
}

fn load(until: Until) -> Load {
    Load {
        marker: MARKER,
        first_flow: 0,
        flows: 1,
        payload_size: 100,
        pps: 500.0,
        until,
    }
}

#[test]
fn a_host_whose_hardware_address_changes_silently_is_found_again() {
    let Some(one_way) = OneWay::start() else {
        return;
    };
    let host = one_way.path.network.host(Host::B);
    host.set_mac("eth0", [2, 0, 0, 0, 0x99, 0x99]).expect("set");
    // What was on its way has arrived, or is lost.
    std::thread::sleep(Duration::from_millis(500));
    let before = one_way.receiver.received();
    let begin = Instant::now();
    while one_way.receiver.received() == before {
        assert!(begin.elapsed() < PATIENCE, "it is not found");
        std::thread::sleep(Duration::from_millis(5));
    }
    one_way.running.stop().expect("sent");
    one_way.path.finish();
}

#[test]
fn a_neighbour_that_the_kernel_forgets_under_traffic_costs_no_packet() {
    let Some(one_way) = OneWay::start() else {
        return;
    };
    let router = one_way.path.network.router(edge_of(Host::B));
    for _ in 0..5 {
        // As its garbage collection does; by then the node has seen that it is in use.
        std::thread::sleep(Duration::from_millis(1200));
        let address = one_way.address;
        router
            .forget_neighbour("edge0", address)
            .expect("it is there");
        wait_until(|| {
            router
                .neighbour("edge0", address)
                .expect("the table")
                .is_some()
        });
    }
    let sent = one_way.running.stop().expect("sent");
    one_way
        .receiver
        .wait_for(sent.packets, Duration::from_secs(2));
    let summary = one_way.receiver.stop().expect("a tally").summary(&sent);
    assert!(summary.is_perfect(), "{summary:?}");
    one_way.path.finish();
}
