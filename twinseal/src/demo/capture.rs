//! Captures on both underlays, and the search for plaintext in them.

use std::num::NonZeroU32;

use twinseal_lab::capture::{Capture, CaptureLimits, Captured};

use twinseal_testbed::kernel::Network;
use twinseal_testbed::plan::{EAST, Host, Plan, WEST};

/// Packets that one capture keeps.
const MAX_PACKETS: usize = 20_000;
/// Under load one packet in so many is kept: to look at all would cost the load more than the routers do.
const SAMPLE: NonZeroU32 = NonZeroU32::new(16).unwrap();

/// What is looked for: octets that only a packet's plaintext has.
pub(super) struct Needles(Vec<Vec<u8>>);

/// Captures under way on both underlays, and one on host A's own wire, where plaintext must be found: a search that
/// finds nothing there is no search.
pub(super) struct Captures {
    underlays: Vec<Capture>,
    control: Capture,
}

/// What the captures showed.
#[derive(Clone, Copy, Default, Debug, serde::Serialize)]
pub(super) struct Findings {
    /// Packets captured on both underlays.
    pub(super) captured: usize,
    /// Those of them that had plaintext in them.
    pub(super) with_plaintext: usize,
    /// Whether the same search finds plaintext where it is, on host A's wire.
    pub(super) search_works: bool,
    /// Whether packets were seen on each underlay.
    pub(super) both_underlays: bool,
}

impl Needles {
    /// The load's marker, the hosts' addresses as they stand in an inner header, and the circuit's id.
    pub(super) fn new(plan: &Plan, marker: [u8; 8]) -> Self {
        let mut needles = vec![marker.to_vec(), plan.circuit_id().to_be_bytes().to_vec()];
        for from in [Host::A, Host::B] {
            for v6 in [false, true] {
                let octets = |host: Host| match host.address(v6) {
                    std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                    std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                needles.push([octets(from), octets(from.other())].concat());
            }
        }
        Self(needles)
    }

    fn found_in(&self, packet: &[u8]) -> bool {
        let starts = |at: usize, needle: &[u8]| packet[at..].starts_with(needle);
        (0..packet.len()).any(|at| self.0.iter().any(|needle| starts(at, needle)))
    }
}

impl Captures {
    /// Begins; `sampled` where there will be much.
    pub(super) fn start(network: &Network, sampled: bool) -> anyhow::Result<Self> {
        let limits = CaptureLimits {
            max_packets: MAX_PACKETS,
            snaplen: 2048,
            sample_one_in: sampled.then_some(SAMPLE),
        };
        let on = |link| Capture::start(network.switch(link), "p0", limits, None);
        let few = CaptureLimits {
            max_packets: 100,
            ..limits
        };
        Ok(Self {
            underlays: vec![on(WEST)?, on(EAST)?],
            control: Capture::start(network.host(Host::A), "eth0", few, None)?,
        })
    }

    /// Ends and searches.
    pub(super) fn finish(self, needles: &Needles) -> anyhow::Result<Findings> {
        let mut findings = Findings {
            both_underlays: true,
            ..Findings::default()
        };
        for capture in self.underlays {
            let Captured { packets, .. } = capture.stop()?;
            findings.both_underlays &= !packets.is_empty();
            findings.captured += packets.len();
            let found = packets.iter().filter(|packet| needles.found_in(packet));
            findings.with_plaintext += found.count();
        }
        let control = self.control.stop()?;
        findings.search_works = control.packets.iter().any(|p| needles.found_in(p));
        Ok(findings)
    }
}

impl Findings {
    /// Both phases together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            captured: self.captured + other.captured,
            with_plaintext: self.with_plaintext + other.with_plaintext,
            search_works: self.search_works && other.search_works,
            both_underlays: self.both_underlays && other.both_underlays,
        }
    }
}
