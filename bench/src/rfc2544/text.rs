//! The results as people read them.

use std::fmt;

use twinseal_lab::traffic::Finding;

use super::result::{Dut, Results, SocketMode, Throughput, Total, Verdict};
use crate::Sample;

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
            "{family} packets of {} flows{}, trials of {} s; median of {} (min..max)",
            self.flows,
            if self.both_ways {
                ", both ways at once, rates of both together"
            } else {
                ""
            },
            self.trial_seconds,
            self.repeats
        )?;
        self.write_throughput(f)?;
        self.write_latency(f)?;
        self.write_loss(f)?;
        self.write_bursts(f)?;
        write!(f, "\n{}", self.total)?;
        match self.verdict {
            Verdict::Success => Ok(()),
            Verdict::Failure => write!(f, "\nFAILURE: {}", self.reasons.join("; ")),
            Verdict::Inconclusive => write!(f, "\nINCONCLUSIVE: {}", self.reasons.join("; ")),
        }
    }
}

/// What a rate is, if it is not the device's own.
fn remark(it: &Throughput) -> &'static str {
    match it.finding {
        Finding::Found if it.contradicted_by_pps.is_some() => "  contradicted by the loss test",
        Finding::Found => "",
        Finding::AtLeastGenerator => "  at least: the generator can no more",
        Finding::AtLeastTried => "  at least: no more was tried",
        Finding::Lossy => "  packets were lost at every rate",
        Finding::Inconclusive => {
            "  inconclusive: the generator did not keep up, or no rate passed twice"
        }
    }
}

impl Results {
    fn write_throughput(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.sizes.iter().flat_map(|size| {
            let all = size.throughput.iter().chain(&size.tolerant);
            all.map(move |it| (size.size, it))
        });
        for (n, (size, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6} {:>7}  {:>28} {:>8}",
                    "bytes", "loss", "throughput, kpps", "Gbit/s"
                )?;
            }
            let loss = match it.tolerated_loss {
                0.0 => "none".into(),
                part => format!("{} %", part * 100.0),
            };
            writeln!(
                f,
                "{size:>6} {loss:>7}  {:>28} {:>8.3}{}",
                it.pps.scaled(1e-3),
                it.gbps,
                remark(it)
            )?;
        }
        Ok(())
    }

    fn write_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .sizes
            .iter()
            .flat_map(|size| size.latency.iter().map(|it| (size.size, it)));
        for (n, (size, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6} {:>5} {:>8} {:>24} {:>24} {:>24} {:>10} {:>10} {:>10}",
                    "bytes",
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
                "{size:>6} {:>4.0}% {:>8.1} {:>24} {:>24} {:>24} {:>10} {:>10} {:>10}{}",
                it.load * 100.0,
                it.pps * 1e-3,
                it.p50_us,
                spread(it.p90_us),
                spread(it.p99_us),
                median(it.p999_us),
                median(it.p9999_us),
                it.lost,
                kept_up(it.kept_up)
            )?;
        }
        Ok(())
    }

    fn write_loss(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .sizes
            .iter()
            .flat_map(|size| size.loss.iter().map(|it| (size.size, it)));
        for (n, (size, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6} {:>5} {:>13} {:>14} {:>9}",
                    "bytes", "load", "offered, kpps", "received, kpps", "loss"
                )?;
            }
            writeln!(
                f,
                "{size:>6} {:>4.0}% {:>13.1} {:>14.1} {:>8.3}%{}",
                it.load * 100.0,
                it.offered_pps * 1e-3,
                it.received_pps * 1e-3,
                it.lost as f64 * 100.0 / it.sent.max(1) as f64,
                kept_up(it.kept_up)
            )?;
        }
        Ok(())
    }

    fn write_bursts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self
            .sizes
            .iter()
            .filter_map(|size| Some((size.size, size.back_to_back.as_ref()?)));
        for (n, (size, it)) in lines.enumerate() {
            if n == 0 {
                writeln!(
                    f,
                    "\n{:>6}  {:>28} {:>13}",
                    "bytes", "longest burst, packets", "offered, kpps"
                )?;
            }
            let limited = if it.limited {
                "  no longer one was tried"
            } else {
                ""
            };
            writeln!(
                f,
                "{size:>6}  {:>28} {:>13.1}{limited}",
                it.packets,
                it.offered_pps * 1e-3
            )?;
        }
        Ok(())
    }
}

/// Nothing where too few packets were measured to say.
fn spread(it: Option<Sample>) -> String {
    it.map_or_else(|| "-".into(), |it| it.to_string())
}

fn median(it: Option<Sample>) -> String {
    it.map_or_else(|| "-".into(), |it| format!("{:.1}", it.median))
}

fn kept_up(kept_up: bool) -> &'static str {
    if kept_up {
        ""
    } else {
        "  the generator did not keep up"
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
        if self.late > 0 {
            write!(
                f,
                "\n  {} of the lost came when their trial was over",
                self.late
            )?;
        }
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
