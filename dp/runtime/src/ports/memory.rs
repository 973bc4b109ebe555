//! Memory ports: frame pipes inside the process, for tests, benches and the demo without root.
//!
//! A wire has a name and two ends. An end has a receive queue for each worker of its node; a frame sent by worker i
//! arrives on queue i modulo the other end's queues. Frames sent while the other end is not there, or has no room, are
//! lost, as on a cable.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use crossbeam::queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};
use twinseal_xsk::{Amount, Frame, Umem};

use super::{PortError, Queue};

/// Frames that a queue holds.
const DEPTH: usize = 4096;
/// Octets of the largest frame.
const FRAME: usize = 2048;
/// Octets of the largest IP packet that a memory port takes.
pub const MTU: u16 = 1500;

/// All wires of the process, by name. An entry goes when both its ends are gone.
static WIRES: LazyLock<Mutex<HashMap<String, Arc<Wire>>>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Wire {
    ends: [ArcSwapOption<Vec<Inbox>>; 2],
}

/// One receive queue.
struct Inbox {
    full: ArrayQueue<Buffer>,
    empty: ArrayQueue<Buffer>,
    /// Set while its reader sleeps or is about to.
    armed: AtomicBool,
    event: OwnedFd,
    /// Frames that found no room.
    overflows: AtomicU64,
}

struct Buffer {
    octets: Box<[u8; FRAME]>,
    len: usize,
}

/// One end of a wire: takes part in it until dropped.
pub struct End {
    name: String,
    wire: Arc<Wire>,
    side: usize,
    inboxes: Arc<Vec<Inbox>>,
}

/// One queue of an end.
pub struct EndQueue {
    end: Arc<End>,
    queue: usize,
}

impl End {
    /// Takes one end of the wire of this name, with this many receive queues.
    pub fn open(name: &str, queues: usize) -> Result<Arc<Self>, PortError> {
        let inboxes = (0..queues.max(1))
            .map(|_| Inbox::new())
            .collect::<Result<Vec<_>, _>>()?;
        let inboxes = Arc::new(inboxes);
        let mut wires = WIRES.lock().unwrap_or_else(PoisonError::into_inner);
        let wire = Arc::clone(wires.entry(name.to_owned()).or_default());
        let side = (0..2)
            .find(|&side| wire.ends[side].load().is_none())
            .ok_or_else(|| PortError::WireTaken {
                wire: name.to_owned(),
            })?;
        wire.ends[side].store(Some(Arc::clone(&inboxes)));
        Ok(Arc::new(Self {
            name: name.to_owned(),
            wire,
            side,
            inboxes,
        }))
    }

    /// Queue `queue` of this end.
    pub fn queue(self: &Arc<Self>, queue: usize) -> EndQueue {
        EndQueue {
            end: Arc::clone(self),
            queue: queue % self.inboxes.len(),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut wires = WIRES.lock().unwrap_or_else(PoisonError::into_inner);
        self.wire.ends[self.side].store(None);
        if self.wire.ends.iter().all(|end| end.load().is_none()) {
            wires.remove(&self.name);
        }
    }
}

impl Inbox {
    fn new() -> Result<Self, PortError> {
        let inbox = Self {
            full: ArrayQueue::new(DEPTH),
            empty: ArrayQueue::new(DEPTH),
            armed: AtomicBool::new(false),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|source| PortError::system("eventfd")(source.into()))?,
            overflows: AtomicU64::new(0),
        };
        for _ in 0..DEPTH {
            let octets = Box::new([0; FRAME]);
            // The queue has room for all of them.
            let _ = inbox.empty.push(Buffer { octets, len: 0 });
        }
        Ok(inbox)
    }

    /// False if there is no room, or the frame is too large.
    fn put(&self, frame: &[u8]) -> bool {
        let Some(mut buffer) = self.empty.pop() else {
            self.overflows.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        let fits = frame.len() <= FRAME;
        if fits {
            buffer.octets[..frame.len()].copy_from_slice(frame);
            buffer.len = frame.len();
        }
        let queue = if fits { &self.full } else { &self.empty };
        // There are as many buffers as each queue has room for.
        let _ = queue.push(buffer);
        fits
    }

    fn take<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let buffer = self.full.pop()?;
        let result = read(&buffer.octets[..buffer.len]);
        let _ = self.empty.push(buffer);
        Some(result)
    }

    /// Wakes the reader if it sleeps.
    fn wake(&self) {
        // Pairs with `arm`: either its look at the queue sees our frame, or we see its flag.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::Relaxed) {
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    fn arm(&self) -> bool {
        // Forget earlier wake-ups, or the next sleep would end at once.
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
        self.armed.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        self.full.is_empty()
    }
}

impl EndQueue {
    /// Sends one frame. False if it was lost: nobody at the other end, no room there, or it is too large.
    pub fn send(&self, frame: &[u8]) -> bool {
        self.send_all(std::iter::once(frame)).packets == 0
    }

    /// Sends frames and wakes the reader once; returns what was lost.
    fn send_all<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) -> Amount {
        let mut lost = Amount::default();
        let peer = self.end.wire.ends[1 - self.end.side].load();
        let Some(inbox) = peer
            .as_ref()
            .map(|inboxes| &inboxes[self.queue % inboxes.len()])
        else {
            return frames.fold(lost, |lost, frame| lost.and(frame.len()));
        };
        for frame in frames {
            if !inbox.put(frame) {
                lost = lost.and(frame.len());
            }
        }
        inbox.wake();
        lost
    }

    /// Takes the next frame that arrived and reads it in place.
    pub fn receive_one<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.inbox().take(read)
    }

    /// Frames that found no room here.
    pub fn overflows(&self) -> u64 {
        self.inbox().overflows.load(Ordering::Relaxed)
    }

    fn inbox(&self) -> &Inbox {
        &self.end.inboxes[self.queue]
    }
}

impl Queue for EndQueue {
    fn receive(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>, max: usize) -> usize {
        for received in 0..max {
            let Some(mut frame) = memory.alloc() else {
                return received;
            };
            match self.receive_one(|octets| frame.copy_from(octets)) {
                Some(true) => frames.push(frame),
                // Frames are no larger than `FRAME`, which fits every chunk but one of 2048 with its headroom.
                Some(false) => memory.free(frame),
                None => {
                    memory.free(frame);
                    return received;
                }
            }
        }
        max
    }

    fn transmit(&mut self, memory: &mut Umem, frames: &mut Vec<Frame>) -> Amount {
        let lost = self.send_all(frames.iter().map(Frame::data));
        for frame in frames.drain(..) {
            memory.free(frame);
        }
        lost
    }

    fn arm(&mut self) -> bool {
        self.inbox().arm()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.inbox().event.as_fd())
    }

    fn kernel_counters(&self) -> Vec<(&'static str, u64)> {
        vec![("rx_overflow", self.overflows())]
    }

    fn close(self: Box<Self>, _: &mut Umem) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_has_two_ends_and_frees_its_name() {
        let name = "memory::tests::two_ends";
        let (a, b) = (End::open(name, 1).unwrap(), End::open(name, 2).unwrap());
        assert!(matches!(
            End::open(name, 1),
            Err(PortError::WireTaken { .. })
        ));
        assert!(a.queue(0).send(b"to b"));
        assert_eq!(
            b.queue(0).receive_one(<[u8]>::to_vec).as_deref(),
            Some(&b"to b"[..])
        );
        assert_eq!(b.queue(1).receive_one(<[u8]>::len), None);
        assert!(b.queue(1).send(b"to a"));
        assert_eq!(a.queue(0).receive_one(<[u8]>::len), Some(4));
        drop(b);
        assert!(!a.queue(0).send(b"nobody"));
        drop(a);
        assert!(!WIRES.lock().unwrap().contains_key(name));
    }

    #[test]
    fn overflow_is_counted_and_oversize_refused() {
        let name = "memory::tests::overflow";
        let (a, b) = (End::open(name, 1).unwrap(), End::open(name, 1).unwrap());
        let (a, b) = (a.queue(0), b.queue(0));
        assert!(!a.send(&[0; FRAME + 1]));
        assert!((0..DEPTH).all(|_| a.send(b"x")));
        assert!(!a.send(b"x"));
        assert_eq!(b.overflows(), 1);
        assert_eq!(b.receive_one(<[u8]>::len), Some(1));
        assert!(a.send(b"x"));
    }

    #[test]
    fn an_armed_queue_is_woken() {
        let name = "memory::tests::armed";
        let (a, b) = (End::open(name, 1).unwrap(), End::open(name, 1).unwrap());
        let (a, mut b) = (a.queue(0), b.queue(0));
        assert!(b.arm());
        a.send(b"x");
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(&b.inbox().event, &mut count), Ok(8));
        assert!(!b.arm(), "there is a frame already");
    }
}
