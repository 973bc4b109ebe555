//! Recording the frames that pass an interface.
//!
//! A capture sees what the kernel's stack sees. Frames that an AF_XDP socket sends, or that XDP redirects, do not pass the
//! stack of their own interface: capture at the far end of the veth, best on a port of a [bridge](crate::Lab::bridge).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Namespace;
use crate::error::LabError;
use crate::packet::{PacketSocket, Use};
use crate::sys::{self, RecvBatch};

/// Decides which frames are kept.
pub type Filter = Box<dyn Fn(&[u8]) -> bool + Send>;

/// How often the thread looks whether it should stop.
const LOOK_NS: u64 = 20_000_000;
/// Batches that stop() still takes from a socket that never runs dry.
const LAST_BATCHES: usize = 4096;

/// How much a capture keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLimits {
    /// Frames kept; later ones are only counted.
    pub max_packets: usize,
    /// Bytes kept of each frame.
    pub snaplen: usize,
    /// Takes one frame in so many, chosen at random by the kernel; all when none.
    pub sample_one_in: Option<NonZeroU32>,
}

impl Default for CaptureLimits {
    /// 100,000 frames, whole up to 9216 bytes (a jumbo frame), no sampling.
    fn default() -> Self {
        CaptureLimits {
            max_packets: 100_000,
            snaplen: 9216,
            sample_one_in: None,
        }
    }
}

/// A running capture; dropping it discards what it has.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<Captured>>>,
}

/// What a capture recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The frames in the order seen, from the Ethernet header, VLAN tags in place.
    pub packets: Vec<Vec<u8>>,
    /// Some frames were left out for `max_packets` or cut to `snaplen`.
    pub truncated: bool,
    /// Frames that the kernel could not hand over in time.
    pub dropped: u64,
    /// Of each packet: nanoseconds since 1970, length on the wire.
    meta: Vec<(u64, usize)>,
}

impl Capture {
    /// Starts to record frames that arrive at and leave by an interface. When it returns it is recording.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn start(
        ns: &Namespace,
        ifname: &str,
        limits: CaptureLimits,
        filter: Option<Filter>,
    ) -> Result<Self, LabError> {
        let socket = PacketSocket::open(ns, ifname, Use::Watch(limits.sample_one_in))?;
        let (stop, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = std::thread::spawn({
            let (stop, seen) = (stop.clone(), seen.clone());
            move || record(&socket, limits, filter, &stop, &seen)
        });
        Ok(Capture {
            stop,
            seen,
            thread: Some(thread),
        })
    }

    /// Frames that matched so far, also those beyond `max_packets`.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// Ends the capture after taking what is queued.
    ///
    /// # Errors
    /// When the socket failed meanwhile.
    pub fn stop(mut self) -> Result<Captured, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self
            .thread
            .take()
            .expect("only stop and drop take the thread");
        match thread.join() {
            Ok(result) => result.map_err(|source| LabError::System {
                doing: "capture".into(),
                source,
                detail: None,
            }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Captured {
    /// Whether any frame contains these bytes.
    pub fn contains(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty()
            && (self.packets.iter()).any(|p| p.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Writes a pcap file (nanosecond times, Ethernet), readable by Wireshark.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_pcap(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        self.write_pcap_to(&mut out)?;
        out.flush()
    }

    fn write_pcap_to(&self, out: &mut impl Write) -> io::Result<()> {
        /// "Nanosecond" magic, version 2.4, no zone, no accuracy, largest length, LINKTYPE_ETHERNET.
        const HEAD: [u32; 6] = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 0x0004_0000, 1];
        let mut words = |words: &[u32]| {
            words
                .iter()
                .try_for_each(|w| out.write_all(&w.to_le_bytes()))
        };
        words(&HEAD)?;
        for (packet, (time, len)) in self.packets.iter().zip(&self.meta) {
            let (seconds, nanos) = (time / 1_000_000_000, time % 1_000_000_000);
            let record = [
                seconds as u32,
                nanos as u32,
                packet.len() as u32,
                *len as u32,
            ];
            record
                .iter()
                .try_for_each(|w| out.write_all(&w.to_le_bytes()))?;
            out.write_all(packet)?;
        }
        Ok(())
    }
}

fn record(
    socket: &PacketSocket,
    limits: CaptureLimits,
    filter: Option<Filter>,
    stop: &AtomicBool,
    seen: &AtomicU64,
) -> io::Result<Captured> {
    let mut batch = RecvBatch::new(limits.snaplen);
    let mut captured = Captured::default();
    let mut last_batches = LAST_BATCHES;
    loop {
        // Read before the socket: what was queued when stop() was called is still taken.
        let stopping = stop.load(Ordering::Relaxed);
        let count = socket.recv(&mut batch)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as u64;
        for (frame, wire_len) in batch.iter() {
            if filter.as_ref().is_some_and(|keep| !keep(frame)) {
                continue;
            }
            seen.fetch_add(1, Ordering::Relaxed);
            let full = captured.packets.len() >= limits.max_packets;
            captured.truncated |= full || frame.len() < wire_len;
            if !full {
                captured.packets.push(frame.to_vec());
                captured.meta.push((now, wire_len));
            }
        }
        if stopping {
            last_batches -= 1;
            if count == 0 || last_batches == 0 {
                captured.dropped = socket.take_drops();
                return Ok(captured);
            }
        } else if count == 0 {
            sys::wait_readable(&[socket.as_fd()], LOOK_NS)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pcap_is_byte_exact() {
        let captured = Captured {
            packets: vec![vec![1, 2, 3]],
            meta: vec![(5_000_000_007, 60)],
            ..Captured::default()
        };
        let mut bytes = Vec::new();
        captured.write_pcap_to(&mut bytes).expect("write to memory");
        let head = [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0];
        assert_eq!(bytes[..8], head);
        assert_eq!(bytes[20..24], [1, 0, 0, 0]);
        let record = [5, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 60, 0, 0, 0, 1, 2, 3];
        assert_eq!(bytes[24..], record);
    }

    #[test]
    fn contains_finds_bytes_anywhere_in_a_frame() {
        let captured = Captured {
            packets: vec![vec![0; 20], b"xxsecretxx".to_vec()],
            ..Captured::default()
        };
        assert!(captured.contains(b"secret"));
        assert!(!captured.contains(b"secrets"));
        assert!(!captured.contains(b""));
    }
}
