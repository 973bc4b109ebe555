//! The results as people read them.

use std::fmt;

use super::result::{Dut, Results, SocketMode, Total};

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        write!(f, "{}", self.dut)?;
        for socket in &self.sockets {
            writeln!(f, "{socket}")?;
        }
        let family = if self.v6 { "IPv6" } else { "IPv4" };
        writeln!(
            f,
            "{family} packets of {} flows, trials of {} s; median of {} (min..max)",
            self.flows, self.trial_seconds, self.repeats
        )?;
        self.write_throughput(f)?;
        self.write_latency(f)?;
        self.write_loss(f)?;
        self.write_bursts(f)?;
        write!(f, "\n{}", self.total)
    }
}

impl Results {
    fn write_throughput(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .sizes
            .iter()
            .filter_map(|size| Some((size.octets, size.throughput.as_ref()?)));
        for (n, (octets, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6}  {:>28} {:>8}",
                    "octets", "throughput, kpps", "Gbit/s"
                )?;
            }
            let limited = if it.generator_limited {
                "  the generator can no more"
            } else {
                ""
            };
            writeln!(
                f,
                "{octets:>6}  {:>28} {:>8.3}{limited}",
                it.pps.scaled(1e-3),
                it.gbps
            )?;
        }
        Ok(())
    }

    fn write_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .sizes
            .iter()
            .flat_map(|size| size.latency.iter().map(|it| (size.octets, it)));
        for (n, (octets, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6} {:>5} {:>8} {:>24} {:>24} {:>24} {:>10} {:>10} {:>10}",
                    "octets",
                    "load",
                    "kpps",
                    "p50 µs",
                    "p90 µs",
                    "p99 µs",
                    "p99.9 µs",
                    "p99.99 µs",
                    "lost"
                )?;
            }
            writeln!(
                f,
                "{octets:>6} {:>4.0}% {:>8.1} {:>24} {:>24} {:>24} {:>10.1} {:>10.1} {:>10}",
                it.load * 100.0,
                it.pps * 1e-3,
                it.p50_us,
                it.p90_us,
                it.p99_us,
                it.p999_us.median,
                it.p9999_us.median,
                it.lost
            )?;
        }
        Ok(())
    }

    fn write_loss(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .sizes
            .iter()
            .flat_map(|size| size.loss.iter().map(|it| (size.octets, it)));
        for (n, (octets, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6} {:>5} {:>13} {:>14} {:>9}",
                    "octets", "load", "offered, kpps", "received, kpps", "loss"
                )?;
            }
            writeln!(
                f,
                "{octets:>6} {:>4.0}% {:>13.1} {:>14.1} {:>8.3}%",
                it.load * 100.0,
                it.offered_pps * 1e-3,
                it.received_pps * 1e-3,
                it.lost as f64 * 100.0 / it.sent.max(1) as f64
            )?;
        }
        Ok(())
    }

    fn write_bursts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .sizes
            .iter()
            .filter_map(|size| Some((size.octets, size.back_to_back.as_ref()?)));
        for (n, (octets, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6}  {:>28} {:>13}",
                    "octets", "longest burst, packets", "offered, kpps"
                )?;
            }
            let limited = if it.limited {
                "  no longer one was tried"
            } else {
                ""
            };
            writeln!(
                f,
                "{octets:>6}  {:>28} {:>13.1}{limited}",
                it.packets,
                it.offered_pps * 1e-3
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Dut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes.is_empty() {
            writeln!(f, "device under test: between the two devices")?;
        }
        for node in &self.nodes {
            writeln!(
                f,
                "{}: twinseal {}, {} workers, {}, {}",
                node.name, node.version, node.workers, node.provider, node.memory
            )?;
            for socket in &node.sockets {
                writeln!(f, "  {socket}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: AF_XDP, {}", self.name, self.bind.join(", "))?;
        if let Some(xdp) = &self.xdp {
            write!(f, ", {xdp} XDP")?;
        }
        if self.need_wakeup {
            write!(f, ", need-wakeup")?;
        }
        Ok(())
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} trials: {} packets sent, {} received, {} lost, {} twice, {} reordered, {} damaged",
            self.trials,
            self.sent,
            self.received,
            self.lost,
            self.duplicates,
            self.reordered,
            self.damaged
        )?;
        if self.receiver_drops > 0 {
            write!(
                f,
                "\n  {} of the lost at the receiver's own sockets",
                self.receiver_drops
            )?;
        }
        for (place, count) in self.drops.iter().flatten() {
            write!(f, "\n  {count} of the lost: {place}")?;
        }
        if let Some(unexplained) = self.unexplained() {
            write!(f, "\n  {unexplained} of the lost unexplained")?;
        }
        Ok(())
    }
}
