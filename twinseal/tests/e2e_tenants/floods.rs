//! What one tenant does to addresses that nobody has, or with packets that run out of hops, costs another nothing: not one
//! of its first packets, and none of its ICMP errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use twinseal_lab::frame::UdpFrame;
use twinseal_lab::inject::Injector;
use twinseal_lab::traffic::{Load, Marker, Receiver, Sender, SenderConfig, Until};
use twinseal_lab::{IpNet, PingConfig};
use twinseal_testbed::plan::{EDGE_PORT, Host};

use crate::common::{FAMILIES, HOSTS, PATIENCE, edge_of};
use crate::network::{PORT as RED_PORT, Tenant, Tenants};

/// Hosts that a tenant sends its first packets to, a flood.
const FRESH: u8 = 40;
const PORT: u16 = 9100;
const MARKER: Marker = *b"first-pk";

/// Red's host sends frames, some 2000 a second, until this is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// UDP to all hosts of a network.
    fn start(tenants: &Tenants, from: Host, to: impl Fn(u8) -> IpAddr, ttl: u8) -> Self {
        let host = tenants.host(Tenant::Red, from);
        let frame = |nth| {
            let udp = UdpFrame {
                dst_mac: gateway_mac(tenants, from),
                src_mac: host.mac("eth0").expect("the host's address"),
                src: from.address(false),
                dst: to(nth),
                src_port: 4000,
                dst_port: 9,
                ttl,
                traffic_class: 0,
            };
            let mut frame = Vec::new();
            udp.write(32, &mut frame);
            udp.seal(&mut frame);
            frame
        };
        Self::of(tenants, from, (3..=252).map(frame).collect())
    }

    fn of(tenants: &Tenants, from: Host, frames: Vec<Vec<u8>>) -> Self {
        let host = tenants.host(Tenant::Red, from);
        let injector = Injector::open(host, "eth0").expect("a packet socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for some in frames.chunks(10).cycle() {
                if stopped.load(Relaxed) {
                    return;
                }
                injector.send_all(some).expect("the device is up");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        // All its effects are there.
        std::thread::sleep(Duration::from_millis(1500));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn gateway_mac(tenants: &Tenants, host: Host) -> [u8; 6] {
    let router = tenants.path.network.router(edge_of(host));
    router.mac("edge1").expect("the gateway's address")
}

/// The host's network, with this at its end.
fn on_site(host: Host, nth: u16, v6: bool) -> IpAddr {
    let [high, low] = nth.to_be_bytes();
    match host.address(v6) {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c.wrapping_add(high), low).into()
        }
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[14..].copy_from_slice(&[high, low]);
            octets.into()
        }
    }
}

/// Sends one packet to each of these hosts of blue's at one end, from the other; none of them has been heard before. Says how many
/// packets came, and of how many.
fn first_packets(tenants: &Tenants, at: Host, hosts: Range<u8>, v6: bool, flood: Flood) -> usize {
    let blue = tenants.host(Tenant::Blue, at);
    let count = hosts.len();
    for nth in hosts.clone() {
        let len = if v6 { 128 } else { 32 };
        let net = IpNet::new(on_site(at, nth.into(), v6), len).expect("a prefix length");
        blue.add_address("eth0", net).expect("an address");
    }
    let any: IpAddr = match v6 {
        false => Ipv4Addr::UNSPECIFIED.into(),
        true => Ipv6Addr::UNSPECIFIED.into(),
    };
    let receiver = Receiver::start(blue, SocketAddr::new(any, PORT), MARKER).expect("a receiver");
    for nth in hosts {
        let to = SocketAddr::new(on_site(at, nth.into(), v6), PORT);
        let from = tenants.host(Tenant::Blue, at.other());
        let mut sender = Sender::open(from, &SenderConfig::new(to, 1)).expect("a socket");
        let load = Load {
            marker: MARKER,
            first_flow: nth.into(),
            flows: 1,
            payload_size: 100,
            pps: 1000.0,
            until: Until::Count(1),
        };
        sender.send(&load).expect("sent");
        std::thread::sleep(Duration::from_millis(10));
    }
    receiver.wait_for(count as u64, Duration::from_secs(3));
    drop(flood);
    let tally = receiver.stop().expect("a tally");
    assert_eq!(tally.received(), tally.flows().count() as u64);
    tally.flows().count()
}

#[test]
fn a_scan_takes_no_first_packet_from_another_tenant() {
    let Some(tenants) = Tenants::start() else {
        return;
    };
    let mut fresh = 0;
    // Of its own network at the near edge, and of the far one through its circuit; the other tenant's new hosts are at
    // the edge where that hurts.
    for (scanner, scanned) in [(Host::A, Host::A), (Host::A, Host::B), (Host::B, Host::B)] {
        let hosts = 100 + fresh..100 + fresh + FRESH;
        fresh += FRESH;
        let flood = Flood::start(
            &tenants,
            scanner,
            |nth| on_site(scanned, nth.into(), false),
            64,
        );
        let came = first_packets(&tenants, scanned, hosts, false, flood);
        assert_eq!(
            came,
            usize::from(FRESH),
            "{scanner:?} scanned {scanned:?}'s network"
        );
    }
    tenants.path.finish();
}

#[test]
fn packets_that_run_out_of_hops_take_no_icmp_error_from_another_tenant() {
    let Some(tenants) = Tenants::start() else {
        return;
    };
    for from in HOSTS {
        let to = from.other();
        // The near edge takes the first hop off, the far one the second.
        for ttl in [1, 2] {
            let _flood = Flood::start(&tenants, from, |nth| on_site(to, nth.into(), false), ttl);
            let config = PingConfig {
                count: 20,
                interval: Duration::from_millis(20),
                timeout: Duration::from_secs(1),
                ttl: Some(ttl),
                ..PingConfig::default()
            };
            let blue = tenants.host(Tenant::Blue, from);
            let result = twinseal_lab::ping(blue, to.address(false), &config).expect("a ping");
            let told = result
                .errors
                .iter()
                .filter(|it| (it.kind, it.code) == (11, 0));
            assert_eq!(told.count(), 20, "from {from:?}, {ttl} hops: {result}");
            // Path MTU discovery: it is told, or knows since it was.
            let config = PingConfig {
                count: 1,
                size: 1452,
                ttl: None,
                dont_fragment: true,
                ..config
            };
            let result = twinseal_lab::ping(blue, to.address(true), &config).expect("a ping");
            let told = result.errors.first().map(|it| (it.kind, it.mtu));
            assert!(told == Some((2, 1408)) || result.refused == 1, "{result}");
        }
    }
    tenants.path.finish();
}

/// What makes the router's kernel learn the sender.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Claim {
    ArpRequest,
    NeighbourSolicitation,
    RouterSolicitation,
    /// Of the gateway: the kernel answers, so it asks for the sender.
    Ping,
}

impl Claim {
    /// From the nth of so many senders, each with an address and a MAC address of its own. ARP's are of no network.
    pub(crate) fn frame(self, tenants: &Tenants, from: Host, nth: u16) -> Vec<u8> {
        let [high, low] = nth.to_be_bytes();
        let mac = [2, 0, 0, 0x77, high, low];
        let frame = |to: [u8; 6], ether_type: u16, payload: &[u8]| {
            [&to[..], &mac, &ether_type.to_be_bytes(), payload].concat()
        };
        let address = |it: IpAddr| match it {
            IpAddr::V4(it) => it.octets().to_vec(),
            IpAddr::V6(it) => it.octets().to_vec(),
        };
        let gateway = address(from.gateway(!matches!(self, Self::ArpRequest)));
        let mut source = address(on_site(from, nth, true));
        source[12] = 1;
        let over_v6 = |to: &[u8], body: &[u8]| {
            let mut message = body.to_vec();
            let sum = icmpv6_checksum(&source, to, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let length = (message.len() as u16).to_be_bytes();
            let head = [0x60, 0, 0, 0, length[0], length[1], 58, 255];
            frame(
                gateway_mac(tenants, from),
                0x86dd,
                &[&head[..], &source, to, &message].concat(),
            )
        };
        let source_mac = [&[1, 1][..], &mac].concat();
        match self {
            Self::ArpRequest => {
                let head = [0, 1, 8, 0, 6, 4, 0, 1];
                let sender = [10, 99, high, low];
                let arp = [&head[..], &mac, &sender, &[0; 6], &gateway].concat();
                frame([0xff; 6], 0x0806, &arp)
            }
            Self::NeighbourSolicitation => {
                let head = [135, 0, 0, 0, 0, 0, 0, 0];
                over_v6(&gateway, &[&head[..], &gateway, &source_mac].concat())
            }
            Self::RouterSolicitation => {
                let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).octets();
                let head = [133, 0, 0, 0, 0, 0, 0, 0];
                over_v6(&all_routers, &[&head[..], &source_mac].concat())
            }
            Self::Ping => over_v6(&gateway, &[128, 0, 0, 0, 0, 1, high, low]),
        }
    }
}

pub(crate) fn icmpv6_checksum(source: &[u8], to: &[u8], message: &[u8]) -> u16 {
    let rest = [0, 0, 0, message.len() as u8, 0, 0, 0, 58];
    let all = [source, to, &rest, message].concat();
    let words = all
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A host that the router's kernel knows asks for its gateway anew, and finds it.
fn finds_its_gateway(tenants: &Tenants, tenant: Tenant, from: Host, v6: bool) -> bool {
    let host = tenants.host(tenant, from);
    (0..3).all(|_| {
        let forgotten = host.forget_neighbour("eth0", from.gateway(v6));
        forgotten.expect("it had one");
        tenants.ping(tenant, from, v6).all_answered()
    })
}

/// The kernel's table of neighbours is one for all tenants, and it learns whoever asks it.
#[test]
fn those_whom_a_tenant_has_the_kernel_learn_take_no_first_packet_from_another() {
    let Some(mut tenants) = Tenants::start() else {
        return;
    };
    let router = edge_of(Host::A);
    // A kernel that learns from router solicitations too.
    tenants
        .path
        .network
        .router(router)
        .sysctl("net/ipv6/conf/edge1/forwarding", "1")
        .expect("the kernel is a router");
    let (mut fresh, mut found) = (20, 0);
    for claim in [
        Claim::ArpRequest,
        Claim::NeighbourSolicitation,
        Claim::RouterSolicitation,
        Claim::Ping,
    ] {
        for v6 in FAMILIES {
            let hosts = fresh..fresh + 25;
            fresh += 25;
            let frames = (0x1000..0x3000).map(|nth| claim.frame(&tenants, Host::A, nth));
            // Red's own host is known. After the flood before it may have to wait, as any new one of red's.
            let begin = Instant::now();
            while !tenants.ping(Tenant::Red, Host::A, v6).all_answered() {
                assert!(begin.elapsed() < PATIENCE, "{claim:?}, IPv6: {v6}");
            }
            let flood = Flood::of(&tenants, Host::A, frames.collect());
            // Red's other hosts have used up what new ones may; this one is none.
            found += usize::from(finds_its_gateway(&tenants, Tenant::Red, Host::A, v6));
            let came = first_packets(&tenants, Host::A, hosts, v6, flood);
            assert_eq!(came, 25, "{claim:?}, IPv6: {v6}");
        }
    }
    // It is one of red's entries, and what is too much of these goes: so not always.
    assert!(found >= 4, "{found} of 8");
    let stats = tenants.path.controller.stats(router).expect("counters");
    let dropped = |port: &str| {
        let port = stats.ports.iter().find(|it| it.port == port);
        let mut counters = port.expect("the port").steering.iter();
        let counter = counters.find(|it| it.name == "drop_neighbour_share");
        counter.expect("the counter").value
    };
    assert!(dropped(RED_PORT) > 10_000, "red's are dropped");
    assert_eq!(dropped(EDGE_PORT), 0, "and nobody else's");
    let state = tenants.path.controller.get(router).expect("its state");
    let told = state.warnings.iter();
    let told: Vec<_> = told
        .filter(|it| it.contains("drop_neighbour_share"))
        .collect();
    assert!(
        told.len() == 1 && told[0].contains(RED_PORT),
        "{:?}",
        state.warnings
    );
    tenants.path.finish();
}
