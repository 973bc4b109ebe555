//! Memory that grows in place: one range of addresses, of which pages are only there once they are written.
//!
//! Lookups add an index to a base; no list of pieces is looked through. The kernel is asked for huge pages, as a lookup in
//! a large table reads lines far apart, and with ordinary pages most of these miss the translation cache too.

use std::sync::atomic::AtomicU64;

/// Bytes of addresses to ask for: 16 GiB.
const RESERVE: usize = 1 << 34;
/// The same where the kernel keeps memory for all that anyone asks for (`vm.overcommit_memory` = 2).
const RESERVE_STRICT: usize = 1 << 29;
/// With less there is no point.
const LEAST: usize = if cfg!(miri) { 1 << 20 } else { 1 << 26 };

/// Zeroes, until they are written.
pub(super) struct Memory {
    #[cfg(not(miri))]
    map: memmap2::MmapRaw,
    #[cfg(miri)]
    words: Box<[AtomicU64]>,
}

impl Memory {
    /// As many addresses as there are, up to 16 GiB: some 800 million IPv4 routes.
    pub(super) fn reserve() -> Self {
        #[cfg(miri)]
        return Self {
            words: (0..LEAST / 8).map(|_| AtomicU64::new(0)).collect(),
        };
        #[cfg(not(miri))]
        {
            let policy = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
            let strict = policy.is_ok_and(|policy| policy.trim() == "2");
            let map = map(if strict { RESERVE_STRICT } else { RESERVE });
            Self { map }
        }
    }

    #[inline(always)]
    pub(super) fn words(&self) -> &[AtomicU64] {
        #[cfg(miri)]
        return &self.words;
        #[cfg(not(miri))]
        // SAFETY: the mapping is this long, page-aligned, readable and writable as long as `self` is there, and nobody
        // else has its address; any bits are an `AtomicU64`.
        unsafe {
            std::slice::from_raw_parts(self.map.as_ptr().cast(), self.map.len() / 8)
        }
    }

    /// Copies `count` words from one place to another.
    ///
    /// # Safety
    /// The places do not overlap, nobody writes the first, and nobody else reads or writes the second meanwhile.
    pub(super) unsafe fn copy(&self, from: usize, to: usize, count: usize) {
        let words = self.words();
        let (from, to) = (&words[from..from + count], &words[to..to + count]);
        // SAFETY: both are this long, an atomic may be changed through a shared reference, and the caller promises the rest.
        unsafe {
            let to = to.as_ptr().cast_mut();
            std::ptr::copy_nonoverlapping(from.as_ptr().cast::<u64>(), to.cast::<u64>(), count);
        }
    }
}

/// Reserves addresses: fewer if the user may not have so many (`RLIMIT_AS`).
#[cfg(not(miri))]
fn map(bytes: usize) -> memmap2::MmapRaw {
    let mut options = memmap2::MmapOptions::new();
    match options.len(bytes).no_reserve_swap().map_anon() {
        Ok(map) => {
            let map = memmap2::MmapRaw::from(map);
            // A kernel without huge pages has the others.
            let _ = map.advise(memmap2::Advice::HugePage);
            map
        }
        Err(_) if bytes > LEAST => map(bytes / 2),
        Err(error) => panic!("no addresses for {bytes} bytes of tables: {error}"),
    }
}
