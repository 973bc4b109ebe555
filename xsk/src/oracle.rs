//! Models that rings, frames and a socket's account are checked against. Property tests and fuzz targets feed them
//! bytes.
//!
//! Each function turns the bytes into operations, does them on the real thing and on an obvious model, and says
//! where the two first differ.

use std::collections::{BTreeSet, VecDeque};

use crate::frame::Frame;
use crate::ledger::{Descriptor, Ledger};
use crate::ring::pair;
use crate::umem::{HugePages, Umem, UmemConfig};

/// Checks a ring over plain memory of `capacity` entries, both positions starting at `start`, against a queue.
///
/// # Errors
/// What differed, and at which operation.
pub fn ring(ops: &[u8], capacity: u32, start: u32) -> Result<(), String> {
    let Some((mut producer, mut consumer)) = pair::<u64>(capacity, start) else {
        return if capacity.is_power_of_two() {
            Err("refused a power of two".into())
        } else {
            Ok(())
        };
    };
    // Entries written ahead, published, and read but not handed back.
    let (mut written, mut published, mut read) = (VecDeque::new(), VecDeque::new(), 0usize);
    let mut value = 0u64;
    for (at, op) in ops.iter().enumerate() {
        let differs = |what: &str| Err(format!("operation {at} ({op}): {what}"));
        match op % 4 {
            0 => {
                let fits = written.len() + published.len() + read < capacity as usize;
                if producer.push(value) != fits {
                    return differs("push");
                }
                if fits {
                    written.push_back(value);
                    value += 1;
                }
            }
            1 => {
                producer.submit();
                published.append(&mut written);
            }
            2 => {
                let expected = published.pop_front();
                read += usize::from(expected.is_some());
                if consumer.pop() != expected {
                    return differs("pop");
                }
            }
            _ => {
                consumer.release();
                read = 0;
            }
        }
        if producer.position().filled() as usize != published.len() + read {
            return differs("filled");
        }
        if producer.pending() as usize != written.len() + published.len() + read {
            return differs("pending");
        }
        if producer.position() != consumer.position() {
            return differs("positions");
        }
    }
    Ok(())
}

/// Checks one frame against a byte vector: growing, trimming, truncating, writing and copying, with the chunks
/// around it filled and compared, so that a byte out of place shows.
///
/// # Errors
/// What differed, and at which operation.
pub fn frame(ops: &[u8]) -> Result<(), String> {
    let config = UmemConfig {
        frame_count: 3,
        frame_size: 2048,
        headroom: 100,
        huge: HugePages::Never,
        ..UmemConfig::default()
    };
    let mut umem = Umem::new(&config).map_err(|error| error.to_string())?;
    let mut frames: Vec<_> = std::iter::from_fn(|| umem.alloc()).collect();
    for (neighbour, fill) in [(0, 0x11), (2, 0x33)] {
        let whole = frames[neighbour].headroom();
        if !(frames[neighbour].prepend(whole) && frames[neighbour].append(2048 - whole)) {
            return Err("cannot use a whole chunk".into());
        }
        frames[neighbour].data_mut().fill(fill);
    }
    let frame = &mut frames[1];
    let (mut model, mut head) = (Vec::new(), 100);

    for (at, op) in ops.chunks_exact(3).enumerate() {
        let differs = |what: &str| Err(format!("operation {at} ({op:?}): {what}"));
        let n = usize::from(u16::from_be_bytes([op[1], op[2]]) % 2200);
        let tail = 2048 - head - model.len();
        // Where a cut begins, so that some are within the packet and some beyond its end.
        let skip = usize::from(op[0]);
        let (done, expected) = match op[0] % 8 {
            0 => (frame.prepend(n), n <= head),
            1 => (frame.append(n), n <= tail),
            2 => (frame.trim_front(n), n <= model.len()),
            3 => {
                frame.truncate(n);
                model.truncate(n);
                (true, true)
            }
            4 => {
                frame.reset();
                model.clear();
                head = 100;
                (true, true)
            }
            5 => (frame.copy_from(&vec![op[0]; n]), n <= 2048 - 100),
            6 => {
                frame.settle();
                head = head.min(100);
                (true, true)
            }
            _ => (frame.narrow(skip, n), skip + n <= model.len()),
        };
        if done != expected {
            return differs("fits");
        }
        if done {
            match op[0] % 8 {
                0 => {
                    frame.data_mut()[..n].fill(op[0]);
                    model.splice(0..0, std::iter::repeat_n(op[0], n));
                    head -= n;
                }
                1 => {
                    let old = model.len();
                    frame.data_mut()[old..].fill(op[0]);
                    model.resize(old + n, op[0]);
                }
                2 => {
                    model.drain(..n);
                    head += n;
                }
                5 => {
                    model = vec![op[0]; n];
                    head = 100;
                }
                7 => {
                    model = model[skip..skip + n].to_vec();
                    head += skip;
                }
                _ => {}
            }
        }
        if frame.data() != model {
            return differs("content");
        }
        if (frame.headroom(), frame.tailroom()) != (head, 2048 - head - model.len()) {
            return differs("room");
        }
    }

    for (neighbour, fill) in [(0, 0x11), (2, 0x33)] {
        if frames[neighbour].data().iter().any(|byte| *byte != fill) {
            return Err(format!("chunk {neighbour} was written by its neighbour"));
        }
    }
    frames.drain(..).for_each(|frame| umem.free(frame));
    if umem.available() == umem.frame_count() {
        Ok(())
    } else {
        Err("a chunk is missing".into())
    }
}

/// Plays a kernel that returns any address with any length and any options, and checks that no chunk is ever in two
/// places: not as two frames, and not in the pool while the kernel or a frame has it. Jumbo frames take part.
///
/// # Errors
/// What went wrong, and at which operation.
pub fn kernel(ops: &[u8]) -> Result<(), String> {
    let config = UmemConfig {
        frame_count: CHUNKS,
        frame_size: SIZE as u32,
        headroom: HEADROOM as u32,
        jumbo_frames: JUMBOS,
        huge: HugePages::Never,
    };
    let mut umem = Umem::new(&config).map_err(|error| error.to_string())?;
    let mut ledger = Ledger::new(umem.layout());
    let mut frames: Vec<Frame> = Vec::new();
    let mut model = KernelModel::default();

    for (at, op) in ops.chunks_exact(5).enumerate() {
        let differs = |what: &str| Err(format!("operation {at} ({op:?}): {what}"));
        // Addresses around the memory, now and then far outside.
        let end = u64::from(CHUNKS + JUMBOS * RUN + 1) * SIZE;
        let low = u64::from(u16::from_be_bytes([op[1], op[2]])) * 2 % end;
        let address = if op[0] & 0x80 == 0 {
            low
        } else {
            low << (op[1] % 60)
        };
        match op[0] % 6 {
            0 => {
                if let Some(chunk) = umem.take() {
                    model.held.insert(chunk.number().into());
                    ledger.give(chunk);
                }
            }
            1 => {
                if let Some(frame) = frames.pop() {
                    let first = u64::from(frame.number());
                    let parts = if frame.is_jumbo() { 1 + op[1] % 3 } else { 1 };
                    model.held.extend(first..first + u64::from(parts));
                    if frame.is_jumbo() {
                        ledger.give_run(frame.into_chunk(), 0, parts.into());
                    } else {
                        ledger.give(frame.into_chunk());
                    }
                }
            }
            2 => {
                let expected = model.take_back(address / SIZE);
                let chunk = ledger.take_back(address);
                if chunk.as_ref().map(|chunk| chunk.number().into()) != expected {
                    return differs("completion");
                }
                if let Some(chunk) = chunk {
                    umem.put(chunk);
                }
            }
            3 => {
                let len = u64::from(u16::from_be_bytes([op[3], op[4]])) % 5000;
                let descriptor = Descriptor {
                    addr: address,
                    len: len as u32,
                    options: u32::from(op[4] & 1),
                };
                let jumbos = umem.jumbos_available();
                let expected = model.accept(address, len, op[4] & 1 == 1, jumbos > 0);
                let frame = ledger.accept(&mut umem, descriptor);
                let place = frame
                    .as_ref()
                    .map(|f| (f.headroom() as u64, f.len() as u64));
                if place != expected {
                    return differs("a frame that is not what the descriptors say");
                }
                if let Some(mut frame) = frame {
                    frame.data_mut().fill(op[0]);
                    frames.push(frame);
                }
            }
            4 => frames.extend(umem.alloc_jumbo()),
            _ => {
                if let Some(frame) = frames.pop() {
                    umem.free(frame);
                }
            }
        }
        if ledger.held() != model.held.len() {
            return differs("what the kernel has");
        }
        let numbers: BTreeSet<_> = frames.iter().map(Frame::number).collect();
        if numbers.len() != frames.len() {
            return differs("two frames of one chunk");
        }
        let (small, runs) = model.tokens();
        let jumbos = frames.iter().filter(|frame| frame.is_jumbo()).count();
        if small + frames.len() - jumbos + umem.available() != CHUNKS as usize {
            return differs("a chunk was lost or doubled");
        }
        let joining = usize::from(matches!(model.joining, Joining::Len(_)));
        if runs + jumbos + joining + umem.jumbos_available() != JUMBOS as usize {
            return differs("a jumbo frame was lost or doubled");
        }
    }
    ledger.into_chunks().for_each(|chunk| umem.put(chunk));
    frames.drain(..).for_each(|frame| umem.free(frame));
    if umem.outstanding() == 0 {
        Ok(())
    } else {
        Err("a chunk is missing".into())
    }
}

/// The memory of [`kernel`]: ordinary chunks, then runs of three for jumbo frames.
const CHUNKS: u32 = 6;
const JUMBOS: u32 = 2;
const RUN: u32 = 3;
const SIZE: u64 = 4096;
const HEADROOM: u64 = 300;

/// What a ledger should do.
#[derive(Default)]
struct KernelModel {
    /// Chunks that the kernel has.
    held: BTreeSet<u64>,
    joining: Joining,
}

/// A packet whose parts are coming.
#[derive(Default, Clone, Copy)]
enum Joining {
    #[default]
    None,
    Len(u64),
    Dropped,
}

impl KernelModel {
    /// The token that comes back for a chunk.
    fn take_back(&mut self, number: u64) -> Option<u64> {
        if !self.held.remove(&number) {
            return None;
        }
        match Self::run(number) {
            None => Some(number),
            Some(first) => {
                let rest = self.held.range(first..first + u64::from(RUN));
                (rest.count() == 0).then_some(first)
            }
        }
    }

    /// The first chunk of the jumbo frame that a chunk is of.
    fn run(number: u64) -> Option<u64> {
        let into = number.checked_sub(CHUNKS.into())?;
        Some(number - into % u64::from(RUN))
    }

    /// Headroom and length of the frame that comes of a descriptor.
    fn accept(&mut self, address: u64, len: u64, more: bool, free: bool) -> Option<(u64, u64)> {
        let (number, start) = (address / SIZE, address % SIZE);
        let known = self.held.contains(&number);
        self.take_back(number);
        let good = known && Self::run(number).is_none() && start + len <= SIZE;
        let before = match self.joining {
            Joining::None if !more => return good.then_some((start, len)),
            Joining::None => free.then_some(0),
            Joining::Len(len) => Some(len),
            Joining::Dropped => None,
        };
        let room = u64::from(Umem::JUMBO_SIZE) - HEADROOM;
        let after = before.map(|before| before + len);
        let after = after.filter(|&after| good && after <= room);
        if more {
            self.joining = after.map_or(Joining::Dropped, Joining::Len);
            return None;
        }
        self.joining = Joining::None;
        after.map(|len| (HEADROOM, len))
    }

    /// How many ordinary chunks, and how many jumbo frames, the kernel has any part of.
    fn tokens(&self) -> (usize, usize) {
        let runs: BTreeSet<_> = self.held.iter().filter_map(|&n| Self::run(n)).collect();
        let small = self.held.iter().filter(|&&n| Self::run(n).is_none());
        (small.count(), runs.len())
    }
}
