//! The processor that the figures are of.

use std::io;
use std::time::{Duration, Instant};

use rustix::thread::CpuSet;

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
/// There is no such CPU, or the kernel does not let this program run on it.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
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
