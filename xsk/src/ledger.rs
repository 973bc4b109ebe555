//! Which chunks a socket has given to the kernel, and what to believe of what comes back.
//!
//! Apart from the socket, so that tests and fuzz targets can play the kernel.

use crate::chunks::{Chunk, ChunkSet};
use crate::config::Counters;
use crate::frame::Frame;
use crate::umem::{Layout, Umem};

/// A descriptor of the rx and tx rings.
pub(crate) type Descriptor = libc::xdp_desc;

/// The account of one socket.
#[derive(Debug)]
pub(crate) struct Ledger {
    layout: Layout,
    /// Every chunk that was given to the kernel and did not come back.
    held: ChunkSet,
    /// Within a packet over several chunks, which is being dropped.
    in_multi_buffer: bool,
    counters: Counters,
}

// SAFETY: the only thing in it that is not Send by itself is the pointer in the layout, to memory that is bound to no
// thread and that is reached by way of chunks that this ledger owns.
unsafe impl Send for Ledger {}

impl Ledger {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            layout: *layout,
            held: ChunkSet::new(layout.count),
            in_multi_buffer: false,
            counters: Counters::default(),
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether `umem` is the memory of this account; counts if not.
    #[inline]
    pub(crate) fn is_of(&mut self, umem: &Umem) -> bool {
        let same = umem.id() == self.layout.id;
        self.counters.wrong_umem += u64::from(!same);
        same
    }

    /// Counts frames that were not fit to send.
    pub(crate) fn count_refused(&mut self, frames: u64) {
        self.counters.tx_refused += frames;
    }

    /// Notes that the kernel has this chunk now. It must be of this account's memory.
    #[inline]
    pub(crate) fn give(&mut self, chunk: Chunk) {
        self.held.insert(chunk);
    }

    /// The chunk at an address that the kernel names, if the kernel has it; counts if not.
    #[inline]
    pub(crate) fn take_back(&mut self, address: u64) -> Option<Chunk> {
        // The size is a power of two: a shift instead of a division.
        let chunk = self
            .held
            .remove(address >> self.layout.size.trailing_zeros());
        self.counters.unknown_address += u64::from(chunk.is_none());
        chunk
    }

    /// The packet of an rx descriptor. If it must be dropped, its chunk goes back to `umem`, which must be the memory
    /// of this account.
    #[inline]
    pub(crate) fn accept(&mut self, umem: &mut Umem, descriptor: Descriptor) -> Option<Frame> {
        let continued = descriptor.options & libc::XDP_PKT_CONTD != 0;
        let part = continued || self.in_multi_buffer;
        self.in_multi_buffer = continued;
        self.counters.rx_multi_buffer += u64::from(part && !continued);

        let chunk = self.take_back(descriptor.addr)?;
        let size = u32::from(self.layout.size);
        let start = descriptor.addr as u32 & (size - 1);
        if part || descriptor.len > size - start {
            self.counters.rx_invalid += u64::from(!part);
            umem.put(chunk);
            return None;
        }
        // SAFETY: the chunk is from this account, which has only chunks of the layout's memory; the length was checked
        // just now.
        Some(unsafe { Frame::new(&self.layout, chunk, start as u16, descriptor.len as u16) })
    }

    /// Gives up every chunk. Only when the kernel cannot touch them any more.
    pub(crate) fn into_chunks(mut self) -> impl Iterator<Item = Chunk> {
        std::iter::from_fn(move || self.held.pop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;
    use crate::umem::{HugePages, UmemConfig};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_descriptor_makes_two_frames_of_a_chunk(ops in proptest::collection::vec(any::<u8>(), 0..800)) {
            prop_assert_eq!(oracle::kernel(&ops), Ok(()));
        }
    }

    #[test]
    fn a_lying_kernel_is_not_believed() {
        let config = UmemConfig {
            frame_count: 4,
            huge: HugePages::Never,
            ..UmemConfig::default()
        };
        let mut umem = Umem::new(&config).expect("memory");
        let mut ledger = Ledger::new(umem.layout());
        let descriptor = |addr, len, options| Descriptor { addr, len, options };
        for _ in 0..3 {
            ledger.give(umem.take().expect("a free chunk"));
        }

        let first = ledger
            .accept(&mut umem, descriptor(256, 100, 0))
            .expect("the kernel has chunk 0");
        assert_eq!(
            (first.number(), first.headroom(), first.len()),
            (0, 256, 100)
        );
        assert!(
            ledger.accept(&mut umem, descriptor(256, 100, 0)).is_none(),
            "a second time"
        );
        assert!(
            ledger
                .accept(&mut umem, descriptor(3 * 2048, 100, 0))
                .is_none(),
            "a free chunk"
        );
        assert!(
            ledger
                .accept(&mut umem, descriptor(u64::MAX, 100, 0))
                .is_none(),
            "no chunk at all"
        );
        assert!(
            ledger.take_back(300).is_none(),
            "a frame's chunk as completed"
        );
        assert_eq!(ledger.counters().unknown_address, 4);

        assert!(
            ledger
                .accept(&mut umem, descriptor(2048 + 256, 1793, 0))
                .is_none(),
            "beyond the chunk"
        );
        assert_eq!(
            (
                ledger.counters().rx_invalid,
                ledger.held(),
                umem.available()
            ),
            (1, 1, 2)
        );
        assert!(
            ledger
                .accept(&mut umem, descriptor(2 * 2048, 2048, libc::XDP_PKT_CONTD))
                .is_none()
        );
        assert!(
            ledger
                .accept(&mut umem, descriptor(2 * 2048, 2048, 0))
                .is_none(),
            "the rest of that packet"
        );
        assert_eq!(ledger.counters().rx_multi_buffer, 1);
        umem.free(first);
        assert_eq!((ledger.held(), umem.available()), (0, 4));
    }
}
