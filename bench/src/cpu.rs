//! The processor that the figures are of.

use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

use crate::BenchError;

/// Its name, as the kernel has it.
pub fn name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| {
            let line = info.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".into())
}

/// Ticks of the time stamp counter a nanosecond. That is the processor's nominal rate, not what it runs at just now.
pub fn cycles_per_ns() -> f64 {
    let (start, from) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(20));
    let (ticks, time) = (ticks() - from, start.elapsed());
    ticks as f64 / time.as_nanos() as f64
}

/// The CPUs that this program may run on.
pub fn allowed() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..CpuSet::MAX_CPU)
        .filter(|cpu| set.is_set(*cpu))
        .collect()
}

/// Keeps this thread on a CPU.
///
/// # Errors
/// The kernel does not let it.
pub fn pin(cpu: usize) -> Result<(), BenchError> {
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| BenchError::NotPinned {
        cpu,
        source: error.into(),
    })
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    0
}
