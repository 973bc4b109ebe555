//! Injecting frames with an account of each, and listening for answers.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use twinseal_forward::reason::DropReason;
use twinseal_lab::capture::{Capture, CaptureLimits, Captured};
use twinseal_lab::inject::Injector;
use twinseal_testbed::kernel::Network;
use twinseal_testbed::plan::{EAST, Host, Router, WEST};

use crate::common::{PATIENCE, Path};
use crate::forger::Hop;

/// Frames injected before their drops are counted; a receive ring takes far more.
const BURST: usize = 32;
/// Counters of sockets that count lost packets.
const SOCKET_DROPS: [&str; 5] = [
    "rx_dropped",
    "rx_ring_full",
    "multi_buffer_dropped",
    "rx_overflow",
    "tx_invalid_descs",
];
/// How long an answer may take that we say does not come.
const SILENCE: Duration = Duration::from_millis(300);

/// Injects frames towards a router and accounts for each.
pub(crate) struct Attack<'a> {
    path: &'a mut Path,
    injector: Injector,
    victim: Router,
}

impl<'a> Attack<'a> {
    pub(crate) fn new(path: &'a mut Path, hop: Hop) -> Self {
        let switch = path.network.switch(hop.link());
        Attack {
            injector: Injector::open(switch, "p1").expect("an injector"),
            victim: hop.victim(),
            path,
        }
    }

    /// Injects frames, each of which must be dropped for this reason, and nothing else dropped anywhere.
    #[track_caller]
    pub(crate) fn dropped(&mut self, reason: DropReason, frames: &[Vec<u8>]) {
        assert!(
            !frames.is_empty(),
            "nothing to be dropped for {}",
            reason.name()
        );
        let mut want = drops(self.path);
        for burst in frames.chunks(BURST) {
            self.injector.send_all(burst).expect("frames are injected");
            *want
                .entry((self.victim.name(), reason.name().into()))
                .or_default() += burst.len() as u64;
            let total: u64 = want.values().sum();
            let begin = Instant::now();
            // Polled, as nothing tells that a frame was looked at but the counters.
            while drops(self.path).values().sum::<u64>() < total && begin.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(1));
            }
            let got = drops(self.path);
            assert_eq!(
                got,
                want,
                "{} frames were to be {}",
                burst.len(),
                reason.name()
            );
        }
    }

    /// Injects frames, each of which must be dropped for the reason beside it.
    #[track_caller]
    pub(crate) fn each_dropped(&mut self, frames: impl Iterator<Item = (DropReason, Vec<u8>)>) {
        let mut by_reason: HashMap<DropReason, Vec<Vec<u8>>> = HashMap::new();
        for (reason, frame) in frames {
            by_reason.entry(reason).or_default().push(frame);
        }
        for (reason, frames) in by_reason {
            self.dropped(reason, &frames);
        }
    }

    /// Injects frames and accounts for none.
    pub(crate) fn inject(&self, frames: &[Vec<u8>]) {
        self.injector.send_all(frames).expect("frames are injected");
    }
}

/// What each router and its sockets lost, by reason, where that is not zero.
pub(crate) fn drops(path: &mut Path) -> BTreeMap<(&'static str, String), u64> {
    let mut all = BTreeMap::new();
    for router in Router::ALL {
        let stats = path.controller.stats(router).expect("counters");
        let sockets = stats.ports.into_iter().flat_map(|port| port.sockets);
        let sockets = sockets.filter(|counter| SOCKET_DROPS.contains(&counter.name.as_str()));
        for drop in stats.drops.into_iter().chain(sockets) {
            if drop.value > 0 {
                *all.entry((router.name(), drop.name)).or_default() += drop.value;
            }
        }
    }
    all
}

/// Listens on both underlays and at both hosts for whatever a router says.
pub(crate) struct Ears(Vec<(String, Capture)>);

impl Ears {
    pub(crate) fn new(network: &Network) -> Self {
        let places = [
            (network.switch(WEST), "p0", Router::EdgeA, "west0"),
            (network.switch(WEST), "p1", Router::Transit, "west0"),
            (network.switch(EAST), "p0", Router::Transit, "east0"),
            (network.switch(EAST), "p1", Router::EdgeB, "east0"),
            (network.host(Host::A), "eth0", Router::EdgeA, "edge0"),
            (network.host(Host::B), "eth0", Router::EdgeB, "edge0"),
        ];
        let ears = places.map(|(ns, ifname, router, netdev)| {
            let mac = network.router(router).mac(netdev).expect("its address");
            let filter = move |frame: &[u8]| frame[6..12] == mac && !is_housekeeping(frame);
            let limits = CaptureLimits::default();
            let capture = Capture::start(ns, ifname, limits, Some(Box::new(filter)));
            let name = format!("{} on {netdev}", router.name());
            (name, capture.expect("a capture"))
        });
        Ears(ears.into())
    }

    /// What each router said at each place.
    pub(crate) fn stop(self) -> Vec<(String, Captured)> {
        let stop = |(name, capture): (String, Capture)| (name, capture.stop().expect("a capture"));
        self.0.into_iter().map(stop).collect()
    }

    /// Waits until this many packets were heard in all.
    #[track_caller]
    pub(crate) fn wait_for(&self, count: u64) {
        let begin = Instant::now();
        while self.0.iter().map(|(_, ear)| ear.seen()).sum::<u64>() < count {
            assert!(
                begin.elapsed() < PATIENCE,
                "fewer than {count} packets were heard"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Asserts that no router said anything, nor will.
    #[track_caller]
    pub(crate) fn assert_silence(self) {
        std::thread::sleep(SILENCE);
        for (name, heard) in self.stop() {
            assert!(
                heard.packets.is_empty(),
                "{name} said {:02x?}",
                heard.packets
            );
            assert_eq!(heard.dropped, 0, "{name}: frames were not looked at");
        }
    }
}

/// What kernels say unasked, at any time: ARP, neighbour discovery, multicast reports.
fn is_housekeeping(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => false,
        [0x86, 0xdd] => match frame.get(20) {
            Some(0) => true,
            Some(58) => matches!(frame.get(54), Some(133..=137)),
            _ => false,
        },
        _ => true,
    }
}
