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
        let (done, expected) = match op[0] % 6 {
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
            _ => (frame.copy_from(&vec![op[0]; n]), n <= 2048 - 100),
        };
        if done != expected {
            return differs("fits");
        }
        if done {
            match op[0] % 6 {
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
/// places: not as two frames, and not in the pool while the kernel or a frame has it.
///
/// # Errors
/// What went wrong, and at which operation.
pub fn kernel(ops: &[u8]) -> Result<(), String> {
    const CHUNKS: u32 = 6;
    let config = UmemConfig {
        frame_count: CHUNKS,
        frame_size: 4096,
        headroom: 300,
        huge: HugePages::Never,
    };
    let mut umem = Umem::new(&config).map_err(|error| error.to_string())?;
    let mut ledger = Ledger::new(umem.layout());
    let mut frames: Vec<Frame> = Vec::new();
    let mut with_kernel = BTreeSet::new();

    for (at, op) in ops.chunks_exact(5).enumerate() {
        let differs = |what: &str| Err(format!("operation {at} ({op:?}): {what}"));
        // Addresses around the memory, now and then far outside.
        let low = u64::from(u16::from_be_bytes([op[1], op[2]])) % (u64::from(CHUNKS + 1) * 4096);
        let address = if op[0] & 0x80 == 0 {
            low
        } else {
            low << (op[1] % 60)
        };
        let known = u32::try_from(address / 4096).is_ok_and(|number| with_kernel.contains(&number));
        let number = (address / 4096) as u32;
        match op[0] % 5 {
            0 => {
                if let Some(chunk) = umem.take() {
                    with_kernel.insert(chunk.number());
                    ledger.give(chunk);
                }
            }
            1 => {
                if let Some(frame) = frames.pop() {
                    with_kernel.insert(frame.number());
                    ledger.give(frame.into_chunk());
                }
            }
            2 => {
                let chunk = ledger.take_back(address);
                if chunk.is_some() != known {
                    return differs("completion");
                }
                if let Some(chunk) = chunk {
                    with_kernel.remove(&number);
                    umem.put(chunk);
                }
            }
            3 => {
                let len = u32::from(u16::from_be_bytes([op[3], op[4]])) % 5000;
                let descriptor = Descriptor {
                    addr: address,
                    len,
                    options: u32::from(op[4] & 1),
                };
                let frame = ledger.accept(&mut umem, descriptor);
                if known {
                    with_kernel.remove(&number);
                }
                if let Some(mut frame) = frame {
                    let place = (frame.number(), frame.headroom() as u64, frame.len());
                    if !known || place != (number, address % 4096, len as usize) {
                        return differs("a frame that is not what the descriptor says");
                    }
                    frame.data_mut().fill(op[0]);
                    frames.push(frame);
                }
            }
            _ => {
                if let Some(frame) = frames.pop() {
                    umem.free(frame);
                }
            }
        }
        if frames
            .iter()
            .map(Frame::number)
            .collect::<BTreeSet<_>>()
            .len()
            != frames.len()
        {
            return differs("two frames of one chunk");
        }
        if ledger.held() != with_kernel.len() {
            return differs("what the kernel has");
        }
        if ledger.held() + frames.len() + umem.available() != CHUNKS as usize {
            return differs("a chunk was lost or doubled");
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
