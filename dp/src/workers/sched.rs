//! What a worker's thread asks of the scheduler.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_setaffinity};

/// How long a worker computes at most before another program on its core has a turn, if none is configured: the least that
/// there is. Whoever asks for little is served sooner (EEVDF), and most of what keeps a packet waiting on a shared core is
/// the turn of somebody else.
pub const DEFAULT_SLICE: Duration = Duration::from_micros(100);

/// Binds the calling thread to a CPU, if there is one for it, and sets its time slice. It runs without either, too.
pub(super) fn prepare(cpu: Option<usize>, slice: Duration) {
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        set.set(cpu);
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::warn!(cpu, %error, "worker not pinned");
        }
    }
    if let Err(error) = set_slice(slice) {
        tracing::warn!(%error, "the worker has the system's time slice");
    }
}

/// Asks for a time slice (Linux 6.12; older ones take no notice), if the thread is of a class that has one; all else stays
/// as it is.
fn set_slice(slice: Duration) -> io::Result<()> {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = MaybeUninit::<libc::sched_attr>::zeroed();
    // SAFETY: the call writes no more than `size` bytes there, which are as many.
    let read = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            0,
            attributes.as_mut_ptr(),
            size,
            0_u32,
        )
    };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is made of integers, of which zeroes are any.
    let mut attributes = unsafe { attributes.assume_init() };
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the call reads the structure, which says its size, and changes nothing but how this thread is scheduled.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0_u32) };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether Linux is of this version or a later one.
    fn is_since(major: u32, minor: u32) -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(['.', '-']).map(|it| it.parse().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
    }

    #[test]
    fn a_thread_has_the_slice_that_it_asked_for() {
        let asked = std::thread::spawn(|| {
            prepare(None, Duration::from_micros(300));
            std::fs::read_to_string("/proc/thread-self/sched").ok()
        });
        let sched = asked.join().expect("it ran");
        let slice = sched.as_deref().and_then(|sched| {
            let line = sched.lines().find(|line| line.starts_with("se.slice"))?;
            line.rsplit(':').next()?.trim().parse::<u64>().ok()
        });
        // Such kernels print what their threads may ask for.
        match slice.filter(|_| is_since(6, 12)) {
            Some(slice) => assert_eq!(slice, 300_000),
            None => {
                eprintln!("SKIPPED: this kernel has no time slices to ask for, or does not say")
            }
        }
    }
}
