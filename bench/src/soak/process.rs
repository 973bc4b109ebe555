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
/// This part at the beginning is warming up, and this time at least: until rings of events are full.
const WARM_UP: f64 = 0.2;
const FULL: f64 = 120.0;

/// What one daemon took.
#[derive(Debug, Serialize)]
pub struct Daemon {
    /// Its node.
    pub name: String,
    /// Resident memory after warming up, in bytes: the mean over a tenth of the looks.
    pub rss_first: u64,
    /// Resident memory in the last tenth.
    pub rss_last: u64,
    /// The slope of resident memory after warming up, bytes an hour, by least squares. None where the soak ended before
    /// warming up was over: its memory is not judged.
    pub rss_slope: Option<f64>,
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
        let length = looks.last().map_or(0.0, |look| look.seconds);
        let after = |seconds: f64| {
            let cold = looks.iter().take_while(|look| look.seconds < seconds);
            // Of a short soak the last look is all that there is.
            &looks[cold.count().min(looks.len().saturating_sub(1))..]
        };
        let warm_up = (length * WARM_UP).max(FULL);
        let (settled, warm) = (after(length * WARM_UP), after(warm_up));
        let mean = |looks: &[Look]| {
            looks.iter().map(|look| look.rss).sum::<u64>() / looks.len().max(1) as u64
        };
        let fds = |looks: &[Look]| looks.iter().map(|look| look.fds).max().unwrap_or(0);
        let ends = |of: &[Look]| {
            let window = (looks.len() / WINDOW)
                .clamp(1, of.len().max(1))
                .min(of.len());
            (of[..window].to_vec(), of[of.len() - window..].to_vec())
        };
        let ((fds_first, fds_last), (rss_first, rss_last)) = (ends(settled), ends(warm));
        Self {
            name,
            rss_first: mean(&rss_first),
            rss_last: mean(&rss_last),
            rss_slope: (length > warm_up).then(|| slope(warm) * 3600.0),
            fds_first: fds(&fds_first),
            fds_last: fds(&fds_last),
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
        // 1000 seconds, the first 200 of which are warming up.
        let warming = |seconds: f64| 1e6 + 1e6 * (seconds / 200.0).min(1.0);
        let daemon = Daemon::new("n".into(), looks(500, warming));
        assert_eq!(
            (daemon.growth(), daemon.rss_last, daemon.fds_last),
            (0, 2_000_000, 20)
        );
        assert_eq!(daemon.rss_slope, Some(0.0));
        let daemon = Daemon::new("n".into(), looks(500, |seconds| 1e6 + 50.0 * seconds));
        let slope = daemon.rss_slope.expect("it was long enough");
        assert!((slope - 180_000.0).abs() < 1.0, "{slope}");
        // From the middle of the first window to that of the last: 350 looks.
        assert_eq!(daemon.growth(), 35_000);
    }

    #[test]
    fn few_looks_or_none_are_no_trouble() {
        for count in 0..12 {
            let daemon = Daemon::new("n".into(), looks(count, |_| 5e6));
            assert_eq!((daemon.growth(), daemon.rss_slope), (0, None));
        }
        // Nothing is said of a soak that ended while rings were still filling.
        let daemon = Daemon::new("n".into(), looks(50, |seconds| 1e6 + 1e6 * seconds));
        assert_eq!((daemon.growth(), daemon.rss_slope), (0, None));
    }

    #[test]
    fn looks_at_this_process() {
        let (rss, fds) = look(std::process::id()).expect("this process");
        assert!(rss > 100_000 && fds >= 3, "{rss} {fds}");
    }
}
