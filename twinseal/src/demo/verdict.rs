//! How the demo ended.

use serde::Serialize;
use twinseal_lab::traffic::Finding;

use crate::demo::capture::Findings;
use twinseal_testbed::drops;
use twinseal_testbed::drops::Drops;

/// The verdict in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// Everything was as it should be.
    Success,
    /// Something was not.
    Failure,
    /// Nothing was wrong, but the rate could not be measured.
    Inconclusive,
}

/// The verdict; with `--json` it is printed as it stands here.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    /// How it ended.
    pub(super) verdict: Outcome,
    /// Whether everything was as it should be.
    pub(super) success: bool,
    /// What was not.
    pub(super) failures: Vec<String>,
    /// Why the rate says nothing of the path.
    pub(super) doubts: Vec<String>,
    /// "af_xdp", or "in-memory" without root.
    pub(super) mode: &'static str,
    /// What each port's sockets really got.
    pub(super) sockets: Vec<SocketMode>,
    /// Test packets sent, both ways, after the rate was found.
    pub(super) sent: u64,
    /// Those received.
    pub(super) received: u64,
    /// Those not received.
    pub(super) lost: u64,
    /// Received more than once, out of order within their flow, or with other content.
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    pub(super) damaged: u64,
    /// Octets of an inner IP packet of the main load.
    pub(super) size: u16,
    /// Octets of inner IP packets received a second, in 10^9 bits.
    pub(super) gbps: f64,
    /// Inner packets received a second, in millions.
    pub(super) mpps: f64,
    /// How the search for the rate without loss ended: whether it is the path's ("found"), or the path may do more.
    pub(super) rate_finding: Finding,
    /// The rate that it found (0 if none), and the one that was then driven, in packets a second.
    pub(super) rate_found_pps: f64,
    pub(super) rate_pps: f64,
    /// The rate at which the driven packets really left.
    pub(super) offered_pps: f64,
    pub(super) sender_kept_up: bool,
    /// Whether packets were lost at three quarters of the rate that was found, so that less was driven.
    pub(super) slowed: bool,
    /// How often the load was driven: more than once if packets were lost, or the sender did not keep up.
    pub(super) attempts: u32,
    /// One way, from one host's send call to the other's receive call, in microseconds.
    pub(super) latency_us: LatencyUs,
    /// Whether all pings were answered, both ways.
    pub(super) ping4: bool,
    pub(super) ping6: bool,
    pub(super) pings_sent: u32,
    pub(super) pings_answered: u32,
    /// Times that all six keys were replaced under load.
    pub(super) rotations: u32,
    /// Whether the captures on the underlays show inner plaintext. Null in memory, where nothing is captured.
    pub(super) plaintext_found: Option<bool>,
    pub(super) capture: Option<Findings>,
    /// All routers' drops by reason while the load was driven, where there are any; also what the kernel dropped at sockets.
    pub(super) drops: Drops,
    /// Those while the rate was looked for, which goes on until packets are lost.
    pub(super) search_drops: Drops,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct SocketMode {
    pub(super) router: String,
    pub(super) port: String,
    pub(super) xdp: String,
    pub(super) bind: Vec<String>,
    pub(super) need_wakeup: bool,
    pub(super) memory: String,
}

#[derive(Clone, Copy, Default, Debug, Serialize)]
pub(super) struct LatencyUs {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
}

impl LatencyUs {
    pub(super) fn from_ns([p50, p99, p999]: [u64; 3]) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        Self {
            p50: us(p50),
            p99: us(p99),
            p999: us(p999),
        }
    }
}

impl Verdict {
    /// Finds what is not as it should be.
    pub(super) fn judge(&mut self) {
        let mut expect = |good: bool, failure: String| {
            if !good {
                self.failures.push(failure);
            }
        };
        expect(self.ping4, "not all pings over IPv4 were answered".into());
        expect(self.ping6, "not all pings over IPv6 were answered".into());
        expect(self.sent > 0, "no packets were sent".into());
        expect(self.lost == 0, format!("{} packets were lost", self.lost));
        expect(
            self.duplicates + self.reordered + self.damaged == 0,
            "packets were duplicated, reordered or damaged".into(),
        );
        expect(self.rotations > 0, "no keys were rotated".into());
        if let Some(capture) = self.capture {
            expect(
                capture.with_plaintext == 0,
                "plaintext was on an underlay".into(),
            );
            expect(
                capture.both_underlays,
                "nothing was captured on an underlay".into(),
            );
            expect(
                capture.search_works,
                "the search for plaintext does not find it even on a host's own wire".into(),
            );
        }
        expect(
            self.rate_finding != Finding::Lossy,
            "packets were lost at every rate that was tried".into(),
        );
        if self.rate_finding == Finding::Inconclusive {
            self.doubts.push(
                "no rate could be found: the sender did not keep up, or no rate passed twice"
                    .into(),
            );
        }
        if !self.sender_kept_up {
            self.doubts.push(format!(
                "the sender came to {:.0} of {:.0} packets a second",
                self.offered_pps, self.rate_pps
            ));
        }
        if self.slowed {
            self.doubts.push(format!(
                "the rate of {:.0} packets a second that was found did not hold",
                self.rate_found_pps
            ));
        }
        self.success = self.failures.is_empty() && self.doubts.is_empty();
        self.verdict = match (self.failures.is_empty(), self.success) {
            (false, _) => Outcome::Failure,
            (true, false) => Outcome::Inconclusive,
            (true, true) => Outcome::Success,
        };
    }

    /// What the search came to.
    fn found(&self) -> String {
        match self.rate_finding {
            Finding::Found => format!("found {:.0} pps", self.rate_found_pps),
            Finding::AtLeastGenerator => format!(
                "found at least {:.0} pps, the generator can no more",
                self.rate_found_pps
            ),
            Finding::AtLeastTried => format!(
                "found at least {:.0} pps, no more was tried",
                self.rate_found_pps
            ),
            Finding::Lossy | Finding::Inconclusive => "found none".into(),
        }
    }

    /// The verdict for people.
    pub(super) fn print(&self) {
        println!();
        println!("mode        {}", self.mode);
        for socket in &self.sockets {
            println!(
                "  {:<8} {:<5} XDP {}, AF_XDP {}{}, {}",
                socket.router,
                socket.port,
                socket.xdp,
                socket.bind.join(" and "),
                if socket.need_wakeup {
                    ", need-wakeup"
                } else {
                    ""
                },
                socket.memory,
            );
        }
        println!(
            "pings       {} of {} answered (IPv4 {}, IPv6 {})",
            self.pings_answered,
            self.pings_sent,
            yes(self.ping4),
            yes(self.ping6)
        );
        println!(
            "delivered   {} of {} packets, {} lost, {} duplicated, {} reordered, {} damaged",
            self.received, self.sent, self.lost, self.duplicates, self.reordered, self.damaged
        );
        match self.doubts.is_empty() {
            true => println!(
                "rate        {:.3} Mpps, {:.3} Gbit/s of {}-byte packets ({}, drove {:.0}, attempt {})",
                self.mpps,
                self.gbps,
                self.size,
                self.found(),
                self.rate_pps,
                self.attempts
            ),
            false => println!(
                "rate        not measured ({}, drove {:.0} pps, attempt {})",
                self.found(),
                self.rate_pps,
                self.attempts
            ),
        }
        let latency = self.latency_us;
        println!(
            "latency     p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, one way, host to host",
            latency.p50, latency.p99, latency.p999
        );
        println!("rotations   {} of all six keys, under load", self.rotations);
        match &self.capture {
            Some(capture) => println!(
                "plaintext   in {} of {} packets captured on both underlays",
                capture.with_plaintext, capture.captured
            ),
            None => println!("plaintext   not looked for: nothing is on a wire"),
        }
        println!("drops       {}", drops::text(&self.drops));
        if !self.search_drops.is_empty() {
            println!(
                "            (and while the rate was looked for: {})",
                drops::text(&self.search_drops)
            );
        }
        match self.verdict {
            Outcome::Success => println!("verdict     success"),
            Outcome::Failure => println!("verdict     FAILURE: {}", self.failures.join("; ")),
            Outcome::Inconclusive => println!(
                "verdict     inconclusive: {}; run it again on a machine that is less busy",
                self.doubts.join("; ")
            ),
        }
    }
}

fn yes(good: bool) -> &'static str {
    if good { "all" } else { "NOT ALL" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Verdict {
        Verdict {
            verdict: Outcome::Failure,
            success: false,
            failures: Vec::new(),
            doubts: Vec::new(),
            mode: "af_xdp",
            sockets: Vec::new(),
            sent: 10,
            received: 10,
            lost: 0,
            duplicates: 0,
            reordered: 0,
            damaged: 0,
            size: 1400,
            gbps: 1.0,
            mpps: 0.1,
            rate_finding: Finding::Found,
            rate_found_pps: 1.0,
            rate_pps: 1.0,
            offered_pps: 1.0,
            sender_kept_up: true,
            slowed: false,
            attempts: 1,
            latency_us: LatencyUs::default(),
            ping4: true,
            ping6: true,
            pings_sent: 4,
            pings_answered: 4,
            rotations: 1,
            plaintext_found: Some(false),
            capture: Some(Findings {
                captured: 2,
                with_plaintext: 0,
                search_works: true,
                both_underlays: true,
            }),
            drops: Drops::new(),
            search_drops: Drops::new(),
        }
    }

    #[test]
    fn every_fault_fails_it() {
        let mut verdict = good();
        verdict.judge();
        assert!(verdict.success && verdict.verdict == Outcome::Success);
        let faults: [fn(&mut Verdict); 10] = [
            |v| v.ping4 = false,
            |v| v.ping6 = false,
            |v| v.sent = 0,
            |v| v.lost = 1,
            |v| v.reordered = 1,
            |v| v.rotations = 0,
            |v| v.rate_finding = Finding::Lossy,
            |v| v.capture.as_mut().unwrap().with_plaintext = 1,
            |v| v.capture.as_mut().unwrap().both_underlays = false,
            |v| v.capture.as_mut().unwrap().search_works = false,
        ];
        for fault in faults {
            let mut verdict = good();
            fault(&mut verdict);
            verdict.judge();
            assert!(!verdict.success && verdict.failures.len() == 1);
            assert_eq!(verdict.verdict, Outcome::Failure);
        }
    }

    #[test]
    fn a_rate_that_could_not_be_measured_is_no_success() {
        let doubts: [fn(&mut Verdict); 3] = [
            |v| v.rate_finding = Finding::Inconclusive,
            |v| v.sender_kept_up = false,
            |v| v.slowed = true,
        ];
        for doubt in doubts {
            let mut verdict = good();
            doubt(&mut verdict);
            verdict.judge();
            assert!(!verdict.success && verdict.failures.is_empty() && verdict.doubts.len() == 1);
            assert_eq!(verdict.verdict, Outcome::Inconclusive);
            // What is wrong comes first.
            verdict.lost = 1;
            verdict.judge();
            assert_eq!(verdict.verdict, Outcome::Failure);
        }
        for at_least in [Finding::AtLeastGenerator, Finding::AtLeastTried] {
            let mut verdict = good();
            verdict.rate_finding = at_least;
            verdict.judge();
            assert!(verdict.success && verdict.found().contains("at least"));
        }
    }
}
