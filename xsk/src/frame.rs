//! A token over one chunk, and the packet inside it.

use std::fmt;
use std::ptr::NonNull;

use crate::chunks::Chunk;
use crate::umem::{Layout, Umem};

/// A packet in a chunk of a [`Umem`](crate::Umem), or in a run of chunks if it is a jumbo frame. Whoever holds the frame
/// owns them.
///
/// ```text
///  0         start          start+len      frame size
///  | headroom  |    data()    |   tailroom   |
/// ```
///
/// Headers are put on and taken off by moving `start`; the bytes stay where they are. A frame is given back with
/// [`Umem::free`](crate::Umem::free) or [`Socket::transmit`](crate::Socket::transmit); one that is merely dropped
/// loses its chunk to the pool.
///
/// It cannot be cloned, so nobody can touch a packet that was given away:
///
/// ```compile_fail
/// # use twinseal_xsk::{Umem, UmemConfig};
/// let mut umem = Umem::new(&UmemConfig::default()).unwrap();
/// let mut frame = umem.alloc().unwrap();
/// umem.free(frame);
/// frame.append(1); // error: use of moved value
/// ```
///
/// ```compile_fail
/// # use twinseal_xsk::Frame;
/// fn copy(frame: &Frame) -> Frame { frame.clone() }
/// ```
#[must_use = "a frame that is dropped is lost to its Umem: free or transmit it"]
pub struct Frame {
    first: NonNull<u8>,
    chunk: Chunk,
    umem: u32,
    start: u16,
    len: u16,
    size: u16,
    initial: u16,
}

// SAFETY: the frame is the only way to its chunk (see the crate documentation), and the memory is bound to no
// thread. It stays mapped while the frame exists, whichever thread drops the Umem.
unsafe impl Send for Frame {}
// SAFETY: a shared frame gives only shared access to the bytes.
unsafe impl Sync for Frame {}

impl Frame {
    /// Makes the frame of an owned chunk.
    ///
    /// # Safety
    /// The chunk is of the memory that `layout` describes, and the first of its run if it is of a jumbo frame.
    /// `start + len` is at most the size of the chunk, or of the run.
    #[inline]
    pub(crate) unsafe fn new(layout: &Layout, chunk: Chunk, start: u16, len: u16) -> Self {
        let size = layout.frame_size(chunk.number());
        debug_assert!(start as usize + len as usize <= size as usize);
        Self {
            // SAFETY: the chunk lies within the mapping, by the caller's promise.
            first: unsafe {
                layout
                    .base
                    .add(chunk.number() as usize * layout.size as usize)
            },
            chunk,
            umem: layout.id,
            start,
            len,
            size,
            initial: layout.headroom,
        }
    }

    /// The packet.
    #[inline]
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: `start + len <= size` always holds, the chunk is mapped and initialised (anonymous memory starts
        // as zeros), and this frame is the only way to it.
        unsafe {
            std::slice::from_raw_parts(self.first.as_ptr().add(self.start.into()), self.len())
        }
    }

    /// The packet, for writing.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `self` is borrowed exclusively.
        unsafe {
            std::slice::from_raw_parts_mut(self.first.as_ptr().add(self.start.into()), self.len())
        }
    }

    /// Bytes in the packet.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.into()
    }

    /// Whether the packet has no bytes.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes free before the packet.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.start.into()
    }

    /// Bytes free after the packet.
    #[inline]
    #[must_use]
    pub fn tailroom(&self) -> usize {
        (self.size - self.start - self.len).into()
    }

    /// Grows the packet by `n` bytes at the front; their content is whatever the chunk held. False, and nothing is
    /// changed, if the headroom is too small.
    #[inline]
    #[must_use]
    pub fn prepend(&mut self, n: usize) -> bool {
        let fits = n <= self.headroom();
        if fits {
            self.start -= n as u16;
            self.len += n as u16;
        }
        fits
    }

    /// Grows the packet by `n` bytes at the end; their content is whatever the chunk held. False, and nothing is
    /// changed, if the tailroom is too small.
    #[inline]
    #[must_use]
    pub fn append(&mut self, n: usize) -> bool {
        let fits = n <= self.tailroom();
        if fits {
            self.len += n as u16;
        }
        fits
    }

    /// Takes `n` bytes off the front. False, and nothing is changed, if the packet is shorter.
    #[inline]
    #[must_use]
    pub fn trim_front(&mut self, n: usize) -> bool {
        let fits = n <= self.len();
        if fits {
            self.start += n as u16;
            self.len -= n as u16;
        }
        fits
    }

    /// Leaves of the packet the `len` bytes that are `skip` bytes behind its first. False, and nothing is changed, if the
    /// packet does not have them.
    #[inline]
    #[must_use]
    pub fn narrow(&mut self, skip: usize, len: usize) -> bool {
        let fits = skip <= self.len() && len <= self.len() - skip;
        if fits {
            self.start += skip as u16;
            self.len = len as u16;
        }
        fits
    }

    /// Shortens the packet to `len` bytes; does nothing if it is shorter already.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.len = len as u16;
        }
    }

    /// Makes the packet empty, with the headroom that the [`Umem`](crate::Umem) was configured with before it.
    #[inline]
    pub fn reset(&mut self) {
        self.start = self.initial;
        self.len = 0;
    }

    /// Replaces the packet by a copy of `bytes`, at the configured headroom. False, and nothing is changed, if they
    /// do not fit.
    #[must_use]
    pub fn copy_from(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= usize::from(self.size - self.initial);
        if fits {
            self.start = self.initial;
            self.len = bytes.len() as u16;
            self.data_mut().copy_from_slice(bytes);
        }
        fits
    }

    /// Moves the packet to the configured headroom, where it makes room behind it; does nothing if it begins there or
    /// before.
    pub fn settle(&mut self) {
        if self.start > self.initial {
            let moved = usize::from(self.start - self.initial);
            self.start = self.initial;
            // First with what lies between, which is overwritten then.
            self.len += moved as u16;
            self.data_mut().copy_within(moved.., 0);
            self.len -= moved as u16;
        }
    }

    /// Asks the processor to load the cache line that is `at` bytes behind the packet's first byte, or before it where
    /// that is negative.
    #[inline]
    pub fn prefetch(&self, at: isize) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let byte = self.first.as_ptr().wrapping_add(self.start.into());
            // SAFETY: a prefetch accesses nothing architecturally, for any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(byte.wrapping_offset(at).cast()) };
        }
    }

    /// Whether it is a [jumbo frame](crate::Umem::alloc_jumbo).
    #[inline]
    #[must_use]
    pub fn is_jumbo(&self) -> bool {
        self.size == Umem::JUMBO_SIZE
    }

    /// Which [`Umem`](crate::Umem) the chunk belongs to.
    #[inline]
    #[must_use]
    pub fn umem_id(&self) -> u32 {
        self.umem
    }

    /// The chunk's number within its [`Umem`](crate::Umem).
    #[inline]
    #[must_use]
    pub fn number(&self) -> u32 {
        self.chunk.number()
    }

    /// Where the packet starts within its memory, in bytes: what a descriptor says.
    #[inline]
    pub(crate) fn address(&self, layout: &Layout) -> u64 {
        u64::from(self.number()) * u64::from(layout.size) + u64::from(self.start)
    }

    #[inline]
    pub(crate) fn into_chunk(self) -> Chunk {
        self.chunk
    }
}

impl fmt::Debug for Frame {
    // Never the bytes: they may be a tenant's plaintext.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("umem", &self.umem)
            .field("number", &self.number())
            .field("start", &self.start)
            .field("len", &self.len)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::oracle;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_byte_vector(ops in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(oracle::frame(&ops), Ok(()));
        }
    }

    #[test]
    fn is_small() {
        // Batches of frames are moved about; three words is what they cost.
        assert_eq!(size_of::<Option<super::Frame>>(), 24);
    }
}
