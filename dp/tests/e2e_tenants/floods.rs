//! What one tenant does to addresses that nobody has, or with packets that run out of hops, costs another nothing: not one
//! of its first packets, and none of its ICMP errors.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use twinseal::cli::demo::plan::Host;
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::inject::Injector;
use twinseal_lab::traffic::{Load, Marker, Receiver, Sender, SenderConfig, Until};
use twinseal_lab::{IpNet, PingConfig};

use crate::common::{HOSTS, edge_of};
use crate::network::{Tenant, Tenants};

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
    fn start(tenants: &Tenants, from: Host, to: impl Fn(u8) -> IpAddr, ttl: u8) -> Self {
        let host = tenants.host(Tenant::Red, from);
        let injector = Injector::open(host, "eth0").expect("a packet socket");
        let router = tenants.path.network.router(edge_of(from));
        let frames: Vec<_> = (3..=252)
            .map(|nth| {
                let udp = UdpFrame {
                    dst_mac: router.mac("edge1").expect("the gateway's address"),
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
            })
            .collect();
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

fn on_site(host: Host, nth: u8) -> IpAddr {
    let IpAddr::V4(address) = host.address(false) else {
        unreachable!("it was asked for IPv4");
    };
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, nth).into()
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
        let blue = tenants.host(Tenant::Blue, scanned);
        for nth in hosts.clone() {
            let net = IpNet::new(on_site(scanned, nth), 32).expect("a prefix length");
            blue.add_address("eth0", net).expect("an address");
        }
        let bind = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PORT);
        let receiver = Receiver::start(blue, bind, MARKER).expect("a receiver");
        let flood = Flood::start(&tenants, scanner, |nth| on_site(scanned, nth), 64);
        for nth in hosts {
            let to = SocketAddr::new(on_site(scanned, nth), PORT);
            let from = tenants.host(Tenant::Blue, scanned.other());
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
        receiver.wait_for(FRESH.into(), Duration::from_secs(3));
        drop(flood);
        let tally = receiver.stop().expect("a tally");
        let came = (tally.received(), tally.flows().count());
        let all = (u64::from(FRESH), usize::from(FRESH));
        assert_eq!(came, all, "{scanner:?} scanned {scanned:?}'s network");
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
            let _flood = Flood::start(&tenants, from, |nth| on_site(to, nth), ttl);
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
