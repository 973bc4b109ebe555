//! What the daemons take of the machine, and whether it grows.

use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Timer;
use crate::testbed::Testbed;

/// Looks in a soak, however long it is.
const LOOKS: u32 = 400;
/// This part at the beginning and the end is what is compared.
const WINDOW: usize = 10;
/// This part at the beginning is warming up.
const WARM_UP: usize = 5;

/// What one daemon took.
#[derive(Debug, Serialize)]
pub struct Daemon {
    /// Its node.
    pub name: String,
    /// Resident memory after warming up (the first fifth of the looks), in bytes: the mean over a tenth of the looks.
    pub rss_first: u64,
    /// Resident memory in the last tenth.
    pub rss_last: u64,
    /// The slope of resident memory after warming up, bytes an hour, by least squares.
    pub rss_slope: f64,
    /// Descriptors after warming up.
    pub fds_first: u64,
    /// Descriptors at the end.
    pub fds_last: u64,
    /// All looks.
    pub looks: Vec<Look>,
}

/// One look at a daemon.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Look {
    /// Since the beginning.
    pub seconds: f64,
    /// Resident memory, bytes.
    pub rss: u64,
    /// Descriptors.
    pub fds: u64,
}

/// The daemons, looked at now and then.
pub(super) struct Watched {
    begin: Instant,
    timer: Timer,
    daemons: Vec<(String, u32, Vec<Look>)>,
}

impl Watched {
    pub(super) fn new(testbed: &mut Testbed, duration: Duration) -> Self {
        let every = (duration / LOOKS).max(Duration::from_millis(100));
        let nodes = testbed.nodes().iter();
        Self {
            begin: Instant::now(),
            timer: Timer::new(every),
            daemons: nodes
                .map(|node| (node.name().to_owned(), node.pid(), Vec::new()))
                .collect(),
        }
    }

    pub(super) fn look_if_due(&mut self) {
        if !self.timer.is_due() {
            return;
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        for (_, pid, looks) in &mut self.daemons {
            // One that has ended is noticed elsewhere.
            if let Some((rss, fds)) = look(*pid) {
                looks.push(Look { seconds, rss, fds });
            }
        }
    }

    /// The last look, for people.
    pub(super) fn line(&self) -> String {
        let last = self.daemons.iter().filter_map(|(name, _, looks)| {
            let last = looks.last()?;
            Some(format!("{name} {:.1} MiB {} fds", mib(last.rss), last.fds))
        });
        last.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn finish(self) -> Vec<Daemon> {
        let daemons = self.daemons.into_iter();
        daemons
            .map(|(name, _, looks)| Daemon::new(name, looks))
            .collect()
    }
}

impl Daemon {
    fn new(name: String, looks: Vec<Look>) -> Self {
        let warm = &looks[looks.len() / WARM_UP..];
        let window = (looks.len() / WINDOW).clamp(1, warm.len().max(1));
        let first = &warm[..window.min(warm.len())];
        let last = &warm[warm.len() - window.min(warm.len())..];
        let mean = |looks: &[Look]| {
            looks.iter().map(|look| look.rss).sum::<u64>() / looks.len().max(1) as u64
        };
        let fds = |looks: &[Look]| looks.iter().map(|look| look.fds).max().unwrap_or(0);
        Self {
            name,
            rss_first: mean(first),
            rss_last: mean(last),
            rss_slope: slope(warm) * 3600.0,
            fds_first: fds(first),
            fds_last: fds(last),
            looks,
        }
    }

    /// By how much its memory grew, bytes.
    pub fn growth(&self) -> i64 {
        self.rss_last as i64 - self.rss_first as i64
    }
}

/// Resident memory in bytes, and open descriptors.
fn look(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    Some((kib * 1024, fds as u64))
}

/// Bytes a second, by least squares.
fn slope(looks: &[Look]) -> f64 {
    let n = looks.len().max(1) as f64;
    let mean = |of: fn(&Look) -> f64| looks.iter().map(of).sum::<f64>() / n;
    let (time, rss) = (mean(|look| look.seconds), mean(|look| look.rss as f64));
    let both = looks
        .iter()
        .map(|look| (look.seconds - time) * (look.rss as f64 - rss));
    let square = looks.iter().map(|look| (look.seconds - time).powi(2));
    match square.sum::<f64>() {
        0.0 => 0.0,
        square => both.sum::<f64>() / square,
    }
}

/// Bytes in MiB.
pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(count: u32, rss: impl Fn(f64) -> f64) -> Vec<Look> {
        let look = |n: u32| {
            let seconds = f64::from(n) * 2.0;
            Look {
                seconds,
                rss: rss(seconds) as u64,
                fds: 20,
            }
        };
        (0..count).map(look).collect()
    }

    #[test]
    fn growth_and_slope_are_those_after_warming_up() {
        let warming = |seconds: f64| 1e6 + 1e6 * (seconds / 40.0).min(1.0);
        let daemon = Daemon::new("n".into(), looks(100, warming));
        assert_eq!(
            (daemon.growth(), daemon.rss_last, daemon.fds_last),
            (0, 2_000_000, 20)
        );
        assert_eq!(daemon.rss_slope, 0.0);
        let daemon = Daemon::new("n".into(), looks(100, |seconds| 1e6 + 50.0 * seconds));
        assert!(
            (daemon.rss_slope - 180_000.0).abs() < 1.0,
            "{}",
            daemon.rss_slope
        );
        // From the middle of the first window to that of the last: 70 looks.
        assert_eq!(daemon.growth(), 7_000);
    }

    #[test]
    fn few_looks_or_none_are_no_trouble() {
        for count in 0..12 {
            assert_eq!(Daemon::new("n".into(), looks(count, |_| 5e6)).growth(), 0);
        }
    }

    #[test]
    fn looks_at_this_process() {
        let (rss, fds) = look(std::process::id()).expect("this process");
        assert!(rss > 100_000 && fds >= 3, "{rss} {fds}");
    }
}
