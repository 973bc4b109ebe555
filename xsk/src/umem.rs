//! Packet memory and its free list.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::chunks::Chunk;
use crate::error::XskError;
use crate::frame::Frame;
use crate::sys::Mapping;

/// Whether to use huge pages (`MAP_HUGETLB`, of the system's default size).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HugePages {
    /// If enough are free, else ordinary pages, which the kernel merges into huge ones where it can.
    #[default]
    Auto,
    /// Ordinary pages.
    Never,
    /// Huge pages, or [`XskError::NoHugePages`].
    Require,
}

/// Which pages the memory got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Huge pages.
    Huge,
    /// Ordinary pages.
    Ordinary,
}

/// How to make a [`Umem`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UmemConfig {
    /// How many chunks. Enough for all rings that are to be full, plus what the worker has in hand.
    pub frame_count: u32,
    /// Bytes in a chunk: a power of two from 2048 to 32768. The kernel takes no chunk larger than a page, 4096 bytes:
    /// larger ones are for memory that no socket is opened on.
    pub frame_size: u32,
    /// Bytes before the packet in a fresh frame, for headers to be prepended. A received packet has at least this
    /// and at least 256 bytes, because the kernel keeps that much for itself before it hands the packet over.
    pub headroom: u32,
    /// How many frames there are besides for packets larger than a chunk: see [`Umem::alloc_jumbo`]. Each takes
    /// [`Umem::JUMBO_SIZE`] bytes.
    pub jumbo_frames: u32,
    /// Whether to use huge pages.
    pub huge: HugePages,
}

impl Default for UmemConfig {
    fn default() -> Self {
        Self {
            frame_count: 8192,
            frame_size: 2048,
            headroom: KERNEL_HEADROOM,
            jumbo_frames: 0,
            huge: HugePages::Auto,
        }
    }
}

/// What the kernel leaves free before each received packet (`XDP_PACKET_HEADROOM`), on top of what it is asked for.
const KERNEL_HEADROOM: u32 = 256;

/// The least chunk that the kernel takes (`XDP_UMEM_MIN_CHUNK_SIZE`), and the largest that a frame can count in.
const MIN_FRAME_SIZE: u32 = 2048;
const MAX_FRAME_SIZE: u32 = 32768;

/// Jumbo frames are for what is under way in one worker; this is far more.
const MAX_JUMBOS: u32 = 1 << 16;

/// The least space for a packet that a headroom must leave. The kernel refuses less than one byte; an Ethernet
/// header is the least that makes sense.
const MIN_SPACE: u32 = 64;

/// Where the chunks lie. Sockets keep a copy to turn addresses into frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) base: NonNull<u8>,
    pub(crate) id: u32,
    /// Chunks, those of jumbo frames among them.
    pub(crate) count: u32,
    /// The first chunk of the first jumbo frame.
    pub(crate) jumbos: u32,
    pub(crate) size: u16,
    pub(crate) headroom: u16,
}

impl Layout {
    /// What the kernel is told to leave free before its own headroom.
    pub(crate) fn kernel_headroom(&self) -> u32 {
        u32::from(self.headroom).saturating_sub(KERNEL_HEADROOM)
    }

    /// Whether a chunk is part of a jumbo frame.
    #[inline]
    pub(crate) fn is_jumbo(&self, number: u32) -> bool {
        number >= self.jumbos
    }

    /// The chunks of the jumbo frame that a chunk is part of.
    pub(crate) fn run(&self, number: u32) -> Range<u32> {
        let chunks = u32::from(Umem::JUMBO_SIZE / self.size);
        let first = number - (number - self.jumbos) % chunks;
        first..first + chunks
    }

    /// Bytes of the frame that begins with this chunk.
    #[inline]
    pub(crate) fn frame_size(&self, number: u32) -> u16 {
        if self.is_jumbo(number) {
            Umem::JUMBO_SIZE
        } else {
            self.size
        }
    }

    /// Bytes that hold chunks, a multiple of the page size as far as the kernel cares: of the chunk size.
    pub(crate) fn bytes(&self) -> usize {
        self.count as usize * usize::from(self.size)
    }
}

/// Packet memory: equal chunks, and the list of the free ones. One thread owns it.
///
/// The pages are populated in [`Umem::new`], so calling it on the worker's own core puts them on that core's NUMA
/// node. They are kept out of core dumps and of forked children.
///
/// ```
/// use twinseal_xsk::{Umem, UmemConfig};
/// let mut umem = Umem::new(&UmemConfig { frame_count: 64, ..Default::default() })?;
/// let mut frame = umem.alloc().expect("a fresh pool");
/// assert!(frame.copy_from(b"packet") && frame.prepend(2));
/// frame.data_mut()[..2].copy_from_slice(b"a ");
/// assert_eq!(frame.data(), b"a packet");
/// umem.free(frame);
/// assert_eq!(umem.available(), 64);
/// # Ok::<(), twinseal_xsk::XskError>(())
/// ```
#[derive(Debug)]
pub struct Umem {
    layout: Layout,
    /// Used as a stack: the chunk freed last is the warmest in the cache.
    free: Vec<Chunk>,
    /// The same of jumbo frames.
    free_jumbos: Vec<Chunk>,
    pages: Pages,
    strays: u64,
    /// `None` only while dropping.
    mapping: Option<Mapping>,
}

// SAFETY: the pointer inside is to memory that is bound to no thread, and all access to it is by frames, each the only
// way to its own chunk.
unsafe impl Send for Umem {}

impl Umem {
    /// Bytes of a jumbo frame: a packet of 9216 bytes, and more room around it than any headers need.
    pub const JUMBO_SIZE: u16 = 12288;

    /// Maps the memory; all of it is free.
    ///
    /// # Errors
    /// A `Bad…` error names the setting that is out of range. [`XskError::NoHugePages`] if they were required.
    /// [`XskError::Kernel`] if there is not enough memory.
    pub fn new(config: &UmemConfig) -> Result<Self, XskError> {
        let UmemConfig {
            frame_count,
            frame_size,
            headroom,
            jumbo_frames,
            huge,
        } = *config;
        if !frame_size.is_power_of_two() || !(MIN_FRAME_SIZE..=MAX_FRAME_SIZE).contains(&frame_size)
        {
            return Err(XskError::BadFrameSize { value: frame_size });
        }
        // The kernel limits registered memory to what a u32 of pages can count; far below that is enough.
        let max = u32::MAX / frame_size * 256;
        if frame_count == 0 || frame_count > max {
            return Err(XskError::BadFrameCount {
                value: frame_count,
                max,
            });
        }
        let max = frame_size - KERNEL_HEADROOM - MIN_SPACE;
        if headroom > max {
            return Err(XskError::BadHeadroom {
                value: headroom,
                max,
            });
        }
        // Chunks of a jumbo frame lie side by side, so that the packet is in one piece.
        let chunks = u32::from(Self::JUMBO_SIZE) / frame_size;
        if jumbo_frames > 0 && (chunks < 2 || jumbo_frames > MAX_JUMBOS) {
            return Err(XskError::BadJumboFrames {
                value: jumbo_frames,
                max: if chunks < 2 { 0 } else { MAX_JUMBOS },
            });
        }
        let count = frame_count + jumbo_frames * chunks;
        let bytes = count as usize * frame_size as usize;
        let (mapping, pages) = map(bytes, huge)?;
        Ok(Self {
            layout: Layout {
                base: mapping.addr(),
                id: next_id()?,
                count,
                jumbos: frame_count,
                size: frame_size as u16,
                headroom: headroom as u16,
            },
            free: Chunk::all(0..frame_count, 1),
            free_jumbos: Chunk::all(frame_count..count, chunks.max(1) as usize),
            pages,
            strays: 0,
            mapping: Some(mapping),
        })
    }

    /// Takes a free chunk: an empty packet with the configured headroom. `None` if all are in use.
    #[inline]
    pub fn alloc(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        // SAFETY: the free list has only chunks of this memory, and the configured headroom is below the frame size.
        Some(unsafe { Frame::new(&self.layout, chunk, self.layout.headroom, 0) })
    }

    /// Takes a free jumbo frame: [`Umem::JUMBO_SIZE`] bytes in one piece, with the configured headroom. It is sent in as
    /// many parts as it has chunks, by sockets with [`SocketConfig::multi_buffer`](crate::SocketConfig::multi_buffer).
    /// `None` if all are in use.
    pub fn alloc_jumbo(&mut self) -> Option<Frame> {
        let chunk = self.free_jumbos.pop()?;
        // SAFETY: this free list has only first chunks of this memory's runs, and the headroom is below their size.
        Some(unsafe { Frame::new(&self.layout, chunk, self.layout.headroom, 0) })
    }

    /// Gives a chunk back.
    ///
    /// A frame of another `Umem` is not taken: it is counted ([`Umem::strays`]) and its chunk stays lost to its owner.
    #[inline]
    pub fn free(&mut self, frame: Frame) {
        if frame.umem_id() == self.layout.id {
            self.put(frame.into_chunk());
        } else {
            self.strays += 1;
        }
    }

    /// How many chunks are free, without jumbo frames.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// How many jumbo frames are free.
    #[must_use]
    pub fn jumbos_available(&self) -> usize {
        self.free_jumbos.len()
    }

    /// How many jumbo frames there are.
    #[must_use]
    pub fn jumbo_count(&self) -> usize {
        let chunks = self.layout.count - self.layout.jumbos;
        chunks as usize * self.frame_size() / usize::from(Self::JUMBO_SIZE)
    }

    /// How many chunks there are, without those of jumbo frames.
    #[must_use]
    pub fn frame_count(&self) -> usize {
        self.layout.jumbos as usize
    }

    /// Bytes in a chunk.
    #[must_use]
    pub fn frame_size(&self) -> usize {
        self.layout.size.into()
    }

    /// How many chunks and jumbo frames are in use or with sockets.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let jumbos = self.jumbo_count() - self.jumbos_available();
        self.frame_count() - self.available() + jumbos
    }

    /// How many frames of another `Umem` were handed to [`Umem::free`]. Anything but 0 is a bug in the caller.
    #[must_use]
    pub fn strays(&self) -> u64 {
        self.strays
    }

    /// Which pages the memory is on.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.pages
    }

    /// The number of this memory, different for each one in the process; see [`Frame::umem_id`].
    #[must_use]
    pub fn id(&self) -> u32 {
        self.layout.id
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes a free chunk, not of a jumbo frame.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<Chunk> {
        self.free.pop()
    }

    /// Takes back a chunk of this memory. Never allocates: the list has room for every chunk.
    #[inline]
    pub(crate) fn put(&mut self, chunk: Chunk) {
        let list = if self.layout.is_jumbo(chunk.number()) {
            &mut self.free_jumbos
        } else {
            &mut self.free
        };
        debug_assert!(list.len() < list.capacity());
        list.push(chunk);
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        // A chunk that is not at home may be read or written through its frame, or by a device. Leaking the mapping
        // is the price of frames that need no reference count.
        if self.outstanding() > 0
            && let Some(mapping) = self.mapping.take()
        {
            mapping.leak();
        }
    }
}

fn map(bytes: usize, huge: HugePages) -> Result<(Mapping, Pages), XskError> {
    if huge != HugePages::Never {
        match Mapping::huge(bytes) {
            Ok(mapping) => return Ok((mapping, Pages::Huge)),
            Err(_) if huge == HugePages::Auto => {}
            Err(_) => return Err(XskError::NoHugePages { bytes }),
        }
    }
    match Mapping::ordinary(bytes, huge == HugePages::Auto) {
        Ok(mapping) => Ok((mapping, Pages::Ordinary)),
        Err(source) => Err(XskError::Kernel {
            call: "mmap of packet memory",
            source,
        }),
    }
}

/// A number no other `Umem` of this process has had.
fn next_id() -> Result<u32, XskError> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    // Stops at the end instead of wrapping: a repeated number would let one memory take another's chunks.
    NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1))
        .map_err(|_| XskError::Kernel {
            call: "numbering packet memory",
            source: std::io::Error::from_raw_os_error(libc::EOVERFLOW),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(frame_count: u32) -> UmemConfig {
        UmemConfig {
            frame_count,
            huge: HugePages::Never,
            ..UmemConfig::default()
        }
    }

    #[test]
    fn gives_each_chunk_once_and_takes_it_back() {
        let mut umem = Umem::new(&config(100)).expect("memory");
        assert_eq!(umem.pages(), Pages::Ordinary);
        let mut frames: Vec<_> = std::iter::from_fn(|| umem.alloc()).collect();
        assert_eq!(
            (frames.len(), umem.available(), umem.outstanding()),
            (100, 0, 100)
        );
        for (i, frame) in frames.iter_mut().enumerate() {
            assert_eq!(
                (frame.len(), frame.headroom(), frame.tailroom()),
                (0, 256, 2048 - 256)
            );
            assert!(frame.copy_from(&[i as u8; 1792]) && !frame.append(1));
        }
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(frame.data(), [i as u8; 1792]);
        }
        frames.drain(..).for_each(|frame| umem.free(frame));
        assert_eq!(
            (umem.available(), umem.outstanding(), umem.strays()),
            (100, 0, 0)
        );
    }

    #[test]
    fn refuses_a_frame_of_another_memory() {
        let (mut one, mut other) = (
            Umem::new(&config(2)).expect("memory"),
            Umem::new(&config(2)).expect("memory"),
        );
        assert_ne!(one.id(), other.id());
        other.free(one.alloc().expect("a frame"));
        assert_eq!((other.available(), other.strays()), (2, 1));
        assert_eq!((one.available(), one.outstanding()), (1, 1));
    }

    #[test]
    fn a_frame_outlives_its_memory_on_another_thread() {
        let mut umem = Umem::new(&config(4)).expect("memory");
        let mut frame = umem.alloc().expect("a frame");
        assert!(frame.copy_from(b"still here"));
        drop(umem);
        let frame = std::thread::spawn(move || {
            frame.data_mut()[0] = b'S';
            frame
        })
        .join()
        .expect("no panic");
        assert_eq!(frame.data(), b"Still here");
    }

    #[test]
    fn says_what_is_wrong_with_a_configuration() {
        let with = |change: fn(&mut UmemConfig)| {
            let mut config = config(16);
            change(&mut config);
            Umem::new(&config).expect_err("a bad configuration")
        };
        assert!(matches!(
            with(|c| c.frame_size = 1024),
            XskError::BadFrameSize { value: 1024 }
        ));
        assert!(matches!(
            with(|c| c.frame_size = 0),
            XskError::BadFrameSize { value: 0 }
        ));
        assert!(matches!(
            with(|c| c.frame_size = 65536),
            XskError::BadFrameSize { value: 65536 }
        ));
        assert!(matches!(
            with(|c| c.frame_count = 0),
            XskError::BadFrameCount { value: 0, .. }
        ));
        assert!(matches!(
            with(|c| c.frame_count = u32::MAX),
            XskError::BadFrameCount { .. }
        ));
        assert!(matches!(
            with(|c| {
                c.frame_size = 16384;
                c.jumbo_frames = 1;
            }),
            XskError::BadJumboFrames { value: 1, max: 0 }
        ));
        assert!(matches!(
            with(|c| c.jumbo_frames = u32::MAX),
            XskError::BadJumboFrames { .. }
        ));
        assert!(matches!(
            with(|c| c.headroom = 2000),
            XskError::BadHeadroom {
                value: 2000,
                max: 1728
            }
        ));
    }

    #[test]
    fn chunks_without_a_socket_may_be_large() {
        for frame_size in [2048, 8192, 32768] {
            let mut umem = Umem::new(&UmemConfig {
                frame_size,
                ..config(2)
            })
            .expect("memory");
            let whole = frame_size as usize - 256;
            let mut frames: Vec<_> = std::iter::from_fn(|| umem.alloc()).collect();
            for (fill, frame) in (1..).zip(&mut frames) {
                assert!(!frame.copy_from(&vec![fill; whole + 1]));
                assert!(frame.copy_from(&vec![fill; whole]) && frame.tailroom() == 0);
            }
            for (fill, frame) in (1..).zip(frames) {
                assert_eq!(frame.data(), vec![fill; whole]);
                umem.free(frame);
            }
        }
    }

    #[test]
    fn jumbo_frames_are_apart_from_the_others() {
        let mut umem = Umem::new(&UmemConfig {
            jumbo_frames: 3,
            ..config(4)
        })
        .expect("memory");
        assert_eq!((umem.frame_count(), umem.jumbo_count()), (4, 3));
        let size = usize::from(Umem::JUMBO_SIZE) - 256;
        let mut frames: Vec<_> = std::iter::from_fn(|| umem.alloc()).collect();
        let mut jumbos: Vec<_> = std::iter::from_fn(|| umem.alloc_jumbo()).collect();
        assert_eq!((frames.len(), jumbos.len(), umem.outstanding()), (4, 3, 7));
        for (fill, frame) in (1..).zip(frames.iter_mut().chain(&mut jumbos)) {
            let room = frame.tailroom();
            assert!(frame.copy_from(&vec![fill; room]) && !frame.append(1));
        }
        assert!(jumbos.iter().all(|jumbo| jumbo.len() == size));
        for (fill, frame) in (1..).zip(frames.into_iter().chain(jumbos)) {
            assert!(frame.data().iter().all(|byte| *byte == fill));
            umem.free(frame);
        }
        assert_eq!((umem.available(), umem.jumbos_available()), (4, 3));
        assert_eq!(umem.outstanding(), 0);
    }

    #[test]
    fn says_which_pages_it_got() {
        let want = |huge| {
            Umem::new(&UmemConfig {
                huge,
                ..config(1024)
            })
        };
        let auto = want(HugePages::Auto).expect("memory of some kind").pages();
        match (want(HugePages::Require), auto) {
            (Ok(umem), _) => assert_eq!(umem.pages(), Pages::Huge),
            (Err(XskError::NoHugePages { bytes }), _) => assert_eq!(bytes, 2 << 20),
            (Err(error), _) => panic!("{error}"),
        }
    }
}
