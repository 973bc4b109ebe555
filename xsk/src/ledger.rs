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
    /// What became of the packet over several chunks whose parts are coming.
    parts: Parts,
    counters: Counters,
}

/// The state of a packet over several chunks between two of its parts.
#[derive(Debug)]
enum Parts {
    /// There is none.
    None,
    /// The parts so far, in one piece.
    Joined(Frame),
    /// It is being dropped.
    Dropped,
}

// SAFETY: the only thing in it that is not Send by itself is the pointer in the layout, to memory that is bound to no
// thread and that is reached by way of chunks that this ledger owns.
unsafe impl Send for Ledger {}

impl Ledger {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            layout: *layout,
            held: ChunkSet::new(layout.count),
            parts: Parts::None,
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

    /// Counts a packet that the device dropped.
    #[cold]
    pub(crate) fn count_dropped(&mut self, bytes: u64) {
        self.counters.tx_dropped += 1;
        self.counters.tx_dropped_bytes += bytes;
    }

    /// Notes that the kernel has this chunk now. It must be of this account's memory.
    #[inline]
    pub(crate) fn give(&mut self, chunk: Chunk) {
        self.held.insert(chunk);
    }

    /// Notes that the kernel has this jumbo frame's chunks now, `parts` of them from the `from`th on, at least one.
    pub(crate) fn give_run(&mut self, run: Chunk, from: u32, parts: u32) {
        self.held.insert_run(run, from, parts);
    }

    /// The token of a chunk at an address that the kernel names, if the kernel has it; counts if not. A jumbo frame's
    /// comes when the kernel has none of its chunks any more.
    #[inline]
    pub(crate) fn take_back(&mut self, address: u64) -> Option<Chunk> {
        // The size is a power of two: a shift instead of a division.
        let number = address >> self.layout.size.trailing_zeros();
        if number >= self.layout.jumbos.into() {
            return self.take_back_part(number);
        }
        let chunk = self.held.remove(number);
        self.counters.unknown_address += u64::from(chunk.is_none());
        chunk
    }

    #[cold]
    fn take_back_part(&mut self, number: u64) -> Option<Chunk> {
        let part = u32::try_from(number)
            .ok()
            .filter(|&n| n < self.layout.count);
        let taken = part.and_then(|part| {
            let run = self.layout.run(part);
            self.held.remove_part(number, run)
        });
        self.counters.unknown_address += u64::from(taken.is_none());
        taken.flatten()
    }

    /// The packet of an rx descriptor. If it must be dropped, its chunk goes back to `umem`, which must be the memory
    /// of this account.
    #[inline]
    pub(crate) fn accept(&mut self, umem: &mut Umem, descriptor: Descriptor) -> Option<Frame> {
        if descriptor.options & libc::XDP_PKT_CONTD == 0 && matches!(self.parts, Parts::None) {
            self.single(umem, descriptor)
        } else {
            self.join(umem, descriptor)
        }
    }

    /// What is in the one chunk of a descriptor.
    #[inline]
    fn single(&mut self, umem: &mut Umem, descriptor: Descriptor) -> Option<Frame> {
        let chunk = self.take_back(descriptor.addr)?;
        let size = u32::from(self.layout.size);
        let start = descriptor.addr as u32 & (size - 1);
        // The kernel was given no jumbo frame to receive into.
        if descriptor.len > size - start || self.layout.is_jumbo(chunk.number()) {
            self.counters.rx_invalid += 1;
            umem.put(chunk);
            return None;
        }
        // SAFETY: the chunk is from this account, which has only chunks of the layout's memory; the length was checked
        // just now.
        Some(unsafe { Frame::new(&self.layout, chunk, start as u16, descriptor.len as u16) })
    }

    /// Copies a part of a packet to the others in a jumbo frame, so that the packet is in one piece. Returns it when this
    /// was the last.
    #[cold]
    fn join(&mut self, umem: &mut Umem, descriptor: Descriptor) -> Option<Frame> {
        let before = std::mem::replace(&mut self.parts, Parts::Dropped);
        let part = self.single(umem, descriptor);
        let mut whole = match before {
            Parts::None => umem.alloc_jumbo(),
            Parts::Joined(whole) => Some(whole),
            Parts::Dropped => None,
        };
        let fits = match (&mut whole, &part) {
            (Some(whole), Some(part)) => {
                let fits = append(whole, part.data());
                self.counters.rx_oversized += u64::from(!fits);
                fits
            }
            _ => false,
        };
        part.into_iter().for_each(|part| umem.free(part));
        if !fits {
            whole.take().into_iter().for_each(|whole| umem.free(whole));
        }
        if descriptor.options & libc::XDP_PKT_CONTD == 0 {
            self.parts = Parts::None;
            self.counters.rx_multi_buffer += u64::from(whole.is_none());
            return whole;
        }
        if let Some(whole) = whole {
            self.parts = Parts::Joined(whole);
        }
        None
    }

    /// Gives up the tokens of all chunks. Only when the kernel cannot touch them any more.
    pub(crate) fn into_chunks(mut self) -> impl Iterator<Item = Chunk> {
        let joined = match std::mem::replace(&mut self.parts, Parts::None) {
            Parts::Joined(frame) => Some(frame.into_chunk()),
            Parts::None | Parts::Dropped => None,
        };
        let held = std::iter::from_fn(move || {
            let chunk = self.held.pop()?;
            if !self.layout.is_jumbo(chunk.number()) {
                return Some(chunk);
            }
            let run = self.layout.run(chunk.number());
            Some(self.held.remove_rest(chunk, run))
        });
        joined.into_iter().chain(held)
    }
}

/// Puts bytes at a packet's end. False, and nothing is changed, if they do not fit.
fn append(frame: &mut Frame, bytes: &[u8]) -> bool {
    let len = frame.len();
    let fits = frame.append(bytes.len());
    if fits {
        frame.data_mut()[len..].copy_from_slice(bytes);
    }
    fits
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
        assert_eq!(
            ledger.counters().rx_multi_buffer,
            1,
            "there are no jumbo frames"
        );
        umem.free(first);
        assert_eq!((ledger.held(), umem.available()), (0, 4));
    }

    /// A ledger and its memory of eight chunks, all with the kernel, and one jumbo frame.
    fn jumbo() -> (Umem, Ledger) {
        let config = UmemConfig {
            frame_count: 8,
            jumbo_frames: 1,
            huge: HugePages::Never,
            ..UmemConfig::default()
        };
        let mut umem = Umem::new(&config).expect("memory");
        let mut ledger = Ledger::new(umem.layout());
        while let Some(chunk) = umem.take() {
            ledger.give(chunk);
        }
        (umem, ledger)
    }

    /// The kernel's descriptor of a part in chunk `number`.
    fn part(number: u64, len: u32, more: bool) -> Descriptor {
        Descriptor {
            addr: number * 2048 + 256,
            len,
            options: if more { libc::XDP_PKT_CONTD } else { 0 },
        }
    }

    #[test]
    fn a_packet_over_several_chunks_comes_in_one_piece() {
        let (mut umem, mut ledger) = jumbo();
        for number in 0..3 {
            let layout = ledger.layout();
            let chunk = ledger.take_back(number * 2048).expect("it was given");
            // SAFETY: a whole chunk of this memory.
            let mut frame = unsafe { Frame::new(&layout, chunk, 0, 2048) };
            frame.data_mut().fill(number as u8 + 1);
            ledger.give(frame.into_chunk());
        }
        assert!(ledger.accept(&mut umem, part(0, 1792, true)).is_none());
        assert!(ledger.accept(&mut umem, part(1, 1792, true)).is_none());
        let whole = ledger.accept(&mut umem, part(2, 100, false));
        let whole = whole.expect("the last part came");
        let expected = [vec![1; 1792], vec![2; 1792], vec![3; 100]].concat();
        assert_eq!((whole.data(), whole.headroom()), (&expected[..], 256));
        assert!(whole.is_jumbo());
        assert_eq!((umem.available(), umem.jumbos_available()), (3, 0));

        // The next one finds no jumbo frame, is dropped whole, and breaks nothing of the one after it.
        assert!(ledger.accept(&mut umem, part(3, 1792, true)).is_none());
        assert!(ledger.accept(&mut umem, part(4, 1, false)).is_none());
        let counters = ledger.counters();
        assert_eq!((counters.rx_multi_buffer, counters.rx_oversized), (1, 0));
        let small = ledger.accept(&mut umem, part(5, 60, false));
        umem.free(small.expect("an ordinary packet"));
        umem.free(whole);
        assert_eq!((umem.available(), umem.jumbos_available()), (6, 1));
    }

    #[test]
    fn a_packet_that_is_too_large_or_broken_is_dropped_whole() {
        let (mut umem, mut ledger) = jumbo();
        // 7 x 1792 bytes and the headroom are more than a jumbo frame has.
        for number in 0..7 {
            let more = number < 6;
            assert!(ledger.accept(&mut umem, part(number, 1792, more)).is_none());
        }
        assert_eq!((umem.available(), umem.jumbos_available()), (7, 1));
        let counters = ledger.counters();
        assert_eq!((counters.rx_multi_buffer, counters.rx_oversized), (1, 1));
        // Its second part is in a chunk that the kernel does not have.
        assert!(ledger.accept(&mut umem, part(7, 1792, true)).is_none());
        assert!(ledger.accept(&mut umem, part(0, 10, false)).is_none());
        let counters = ledger.counters();
        assert_eq!((counters.rx_multi_buffer, counters.unknown_address), (2, 1));
        assert_eq!(umem.outstanding(), 0);
    }

    #[test]
    fn a_jumbo_frame_comes_back_with_its_last_part() {
        let (mut umem, mut ledger) = jumbo();
        let frame = umem.alloc_jumbo().expect("one");
        let first = u64::from(frame.number());
        ledger.give_run(frame.into_chunk(), 0, 3);
        assert_eq!(ledger.held(), 8 + 3);
        // The kernel has no business to receive into it.
        let lie = ledger.accept(&mut umem, part(first + 1, 100, false));
        assert!(lie.is_none());
        assert!(ledger.take_back((first + 3) * 2048).is_none(), "not given");
        assert!(ledger.take_back(first * 2048).is_none(), "not the last");
        let run = ledger.take_back((first + 2) * 2048).expect("the last");
        assert_eq!(u64::from(run.number()), first);
        umem.put(run);
        // At the end, all tokens come once: of eight chunks and of a run that has two parts with the kernel.
        let frame = umem.alloc_jumbo().expect("it is back");
        ledger.give_run(frame.into_chunk(), 4, 2);
        ledger.into_chunks().for_each(|chunk| umem.put(chunk));
        assert_eq!((umem.available(), umem.jumbos_available()), (8, 1));
    }
}
