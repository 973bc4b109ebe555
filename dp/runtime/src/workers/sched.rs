//! What a worker's thread asks of the scheduler.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

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

/// How long the calling thread has been ready to run, and others ran.
///
/// What time it was without its core does not tell: a hypervisor may have taken that from the whole machine, and then
/// nobody here wants it.
#[derive(Default)]
pub(super) struct Queued {
    file: Option<File>,
    /// What it had been the last time, and when that was.
    last: Option<(Duration, Instant)>,
}

/// How often it is looked at without a reason, so that many short times do not look like one.
const REFRESH: Duration = Duration::from_millis(10);

impl Queued {
    /// Whether that was more than `least` since the last look, if there is a reason to `ask`. Always true where the system
    /// does not say. All calls are from one thread.
    #[inline]
    pub(super) fn for_more_than(&mut self, least: Duration, now: Instant, ask: bool) -> bool {
        let last = match self.last {
            Some((_, then)) if !ask && now - then < REFRESH => return false,
            last => last.map(|(queued, _)| queued),
        };
        let queued = self.read();
        self.last = Some((queued.unwrap_or_default(), now));
        ask && match (queued, last) {
            (Some(queued), Some(last)) => queued.saturating_sub(last) > least,
            _ => true,
        }
    }

    /// The second number of `schedstat` (proc(5)), in nanoseconds.
    #[cold]
    fn read(&mut self) -> Option<Duration> {
        if self.file.is_none() {
            self.file = File::open("/proc/thread-self/schedstat").ok();
        }
        let mut text = [0; 64];
        let length = self.file.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = str::from_utf8(text.get(..length)?).ok()?;
        let nanos = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    /// Whether Linux is of this version or a later one.
    fn is_since(major: u32, minor: u32) -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.split(['.', '-']).map(|it| it.parse().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
    }

    #[test]
    fn who_sleeps_is_not_queued_and_who_shares_a_core_is() {
        const SLICE: Duration = Duration::from_millis(3);
        let share = |others: usize| {
            let done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                for _ in 0..others {
                    scope.spawn(|| {
                        prepare(Some(first_cpu()), SLICE);
                        while !done.load(Relaxed) {
                            std::hint::spin_loop();
                        }
                    });
                }
                let asked = scope.spawn(|| {
                    prepare(Some(first_cpu()), SLICE);
                    let mut queued = Queued::default();
                    queued.for_more_than(Duration::ZERO, Instant::now(), true);
                    std::thread::sleep(Duration::from_millis(20));
                    let begin = Instant::now();
                    while begin.elapsed() < Duration::from_millis(50) {}
                    queued.for_more_than(Duration::from_millis(5), Instant::now(), true)
                });
                let asked = asked.join();
                done.store(true, Relaxed);
                asked.expect("it ran")
            })
        };
        if !std::path::Path::new("/proc/thread-self/schedstat").exists() {
            return eprintln!("SKIPPED: this kernel does not say how long threads wait");
        }
        assert!(share(2), "two others wanted its core");
        // With nobody else; other tests and programs may be in the way for a while.
        assert!((0..2000).any(|_| !share(0)), "nobody wanted its core");
    }

    fn first_cpu() -> usize {
        let set = rustix::thread::sched_getaffinity(None).expect("a set");
        (0..CpuSet::MAX_CPU)
            .find(|&cpu| set.is_set(cpu))
            .expect("a CPU")
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
