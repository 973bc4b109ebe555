//! Workers on CPUs of their own that forward at the same time, against one of them on its own.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::Net;
use crate::report::{MIN_RUNS, a_packet};
use crate::{BenchError, Harness, Role, Size, cpu};

/// Nanoseconds a packet of every run.
#[derive(Default)]
pub(crate) struct Scaling {
    /// Of the first worker, while the others do nothing.
    pub(crate) one: Vec<f64>,
    /// Of each worker, all at the same time: a list a worker.
    pub(crate) all: Vec<Vec<f64>>,
}

impl Scaling {
    /// Measures all workers of `net` in about `budget`; each has a CPU, a state and memory of its own, and they share
    /// the tables.
    pub(crate) fn measure(
        net: &mut Net,
        role: Role,
        size: Size,
        budget: Duration,
    ) -> Result<Self, BenchError> {
        let cpus = cpu::allowed();
        let workers = net.workers.len();
        if workers > cpus.len() {
            return Err(BenchError::TooManyWorkers {
                workers,
                cpus: cpus.len(),
            });
        }
        let (tables, routes) = (&net.tables, &net.routes);
        let mut rigs = Vec::with_capacity(workers);
        for (nth, states) in net.workers.iter_mut().enumerate() {
            rigs.push(Harness::new(
                tables, states, routes, role, size, nth as u64,
            )?);
        }
        let turns = Turns {
            gate: Barrier::new(workers),
            over: AtomicBool::new(false),
            budget,
        };
        let turns = &turns;
        let done = thread::scope(|scope| {
            let threads = rigs.into_iter().zip(cpus).enumerate();
            let threads: Vec<_> = threads
                .map(|(nth, (rig, cpu))| scope.spawn(move || turns.worker(nth, rig, cpu)))
                .collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            // A worker that panicked did so in a check of the bench.
            joined
                .map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let mut scaling = Self::default();
        for (one, all) in done {
            scaling.one.extend(one);
            scaling.all.push(all);
        }
        Ok(scaling)
    }
}

/// What keeps workers in step.
struct Turns {
    gate: Barrier,
    over: AtomicBool,
    budget: Duration,
}

impl Turns {
    /// The times of runs on its own, which only the first worker has, and with all the others.
    fn worker(
        &self,
        nth: usize,
        mut rig: Harness<'_>,
        cpu: usize,
    ) -> Result<(Vec<f64>, Vec<f64>), BenchError> {
        // Whatever fails, the others must be met at the gate until all stop.
        let pinned = cpu::pin(cpu);
        let mut failed = pinned
            .map_err(|source| BenchError::NotPinned { cpu, source })
            .err();
        let (begin, mut one, mut all) = (Instant::now(), Vec::new(), Vec::new());
        loop {
            self.gate.wait();
            if self.over.load(Relaxed) {
                return failed.map_or(Ok((one, all)), Err);
            }
            self.gate.wait();
            if nth == 0 {
                let mut time = Duration::ZERO;
                let done = rig.round(|work| {
                    let start = Instant::now();
                    work();
                    time += start.elapsed();
                });
                one.push(a_packet(time));
                failed = failed.or(done.err());
            }
            self.gate.wait();
            let mut time = Duration::ZERO;
            let done = rig.round(|work| {
                self.gate.wait();
                let start = Instant::now();
                work();
                time += start.elapsed();
            });
            all.push(a_packet(time));
            failed = failed.or(done.err());
            let enough = nth == 0 && all.len() >= MIN_RUNS && begin.elapsed() >= self.budget;
            if enough || failed.is_some() {
                self.over.store(true, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{B, Extent};
    use twinseal_crypto::{Suite, default_provider};

    fn net(workers: usize) -> Net {
        let extent = Extent {
            workers,
            circuits: 10,
            routes: 10,
        };
        Net::new(default_provider(), Suite::Aes256Gcm, &extent).unwrap()
    }

    #[test]
    fn every_worker_has_times_and_lanes_of_its_own() {
        let workers = cpu::allowed().len().min(2);
        let mut net = net(workers);
        for role in Role::ALL {
            let scaling =
                Scaling::measure(&mut net, role, Size::Octets(64), Duration::ZERO).unwrap();
            assert_eq!((scaling.one.len(), scaling.all.len()), (MIN_RUNS, workers));
            assert!(scaling.all.iter().all(|times| times.len() == MIN_RUNS));
        }
    }

    #[test]
    fn failures_end_all_workers() {
        let workers = cpu::allowed().len();
        assert!(matches!(
            Scaling::measure(
                &mut net(workers + 1),
                Role::Path,
                Size::Imix,
                Duration::ZERO
            ),
            Err(BenchError::TooManyWorkers { .. })
        ));
        let mut net = net(workers.min(2));
        net.tables[B].links[0].labels = Default::default();
        assert!(matches!(
            Scaling::measure(&mut net, Role::Egress, Size::Imix, Duration::ZERO),
            Err(BenchError::Dropped { .. })
        ));
    }
}
