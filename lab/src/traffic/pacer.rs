//! When the next packets may go.

/// A token bucket. Pure: it is told the time.
#[derive(Debug, Clone)]
pub struct Pacer {
    ns_per_packet: f64,
    burst: f64,
    /// Packets that may go now; fractions are kept.
    tokens: f64,
    last_ns: u64,
}

impl Pacer {
    /// `pps` packets a second from `now_ns` on, at most `burst` at once. A rate of 0 or less stands for one packet a day.
    pub fn new(pps: f64, burst: u32, now_ns: u64) -> Self {
        Pacer {
            ns_per_packet: (1e9 / pps.max(1.0 / 86_400.0)).max(f64::MIN_POSITIVE),
            burst: f64::from(burst.max(1)),
            tokens: 1.0,
            last_ns: now_ns,
        }
    }

    /// How many of `wanted` packets may go now; they are taken off.
    pub fn grant(&mut self, now_ns: u64, wanted: u32) -> u32 {
        let passed = now_ns.saturating_sub(self.last_ns) as f64;
        self.last_ns = self.last_ns.max(now_ns);
        // What could not be sent in time is not made up for beyond one burst: a late sender must not flood.
        self.tokens = (self.tokens + passed / self.ns_per_packet).min(self.burst);
        let granted = (self.tokens as u32).min(wanted);
        self.tokens -= f64::from(granted);
        granted
    }

    /// Nanoseconds after the last [`grant`](Pacer::grant) until one packet may go.
    pub fn wait_ns(&self) -> u64 {
        ((1.0 - self.tokens).max(0.0) * self.ns_per_packet).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_burst(pps in 1.0..1e7f64, steps in prop::collection::vec(1u64..1_000_000, 1..200)) {
            let mut pacer = Pacer::new(pps, 64, 0);
            let (mut now, mut total) = (0, 0u64);
            for step in steps {
                now += step;
                total += u64::from(pacer.grant(now, 64));
            }
            prop_assert!(total as f64 <= now as f64 * pps / 1e9 + 65.0);
        }

        #[test]
        fn a_punctual_caller_gets_the_rate(pps in 10.0..1e6f64) {
            let mut pacer = Pacer::new(pps, 64, 0);
            let (mut now, mut total) = (0, 0u64);
            while now < 200_000_000 {
                total += u64::from(pacer.grant(now, 64));
                now += pacer.wait_ns().max(1);
            }
            let ideal = now as f64 * pps / 1e9;
            prop_assert!((total as f64 - ideal).abs() <= 2.0 + ideal * 0.001, "{} of {}", total, ideal);
        }
    }

    #[test]
    fn a_pause_is_made_up_for_by_one_burst_only() {
        let mut pacer = Pacer::new(1000.0, 8, 0);
        assert_eq!(pacer.grant(60_000_000_000, 100), 8);
        assert_eq!(pacer.grant(60_000_000_000, 100), 0);
    }
}
