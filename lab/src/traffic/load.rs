//! A load, and the loop that sends it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;

use super::{Marker, Pacer, Payload};
use crate::error::{Doing, LabError};
use crate::sys::{self, BATCH};

/// Waits shorter than this are spent yielding: a sleep would overrun them.
const SLEEP_FROM_NS: u64 = 20_000;
/// Longest sleep, so that a stop is soon seen.
const SLEEP_MAX_NS: u64 = 10_000_000;
/// Pause after the kernel refused a packet.
const REFUSED_PAUSE: Duration = Duration::from_micros(200);
/// A sender whose every packet is refused for this long gives up.
const GIVE_UP_NS: u64 = 10_000_000_000;

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Marks the packets.
    pub marker: Marker,
    /// Number of the first flow. Numbers within a flow begin at 0 with every load: give each load its own flows.
    pub first_flow: u32,
    /// How many flows; they take turns.
    pub flows: u32,
    /// UDP payload in bytes, at least 28.
    pub payload_size: usize,
    /// Packets a second, of all flows together.
    pub pps: f64,
    /// When to end.
    pub until: Until,
}

/// When a load ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// After exactly so many packets.
    Count(u64),
    /// After this time.
    Elapsed(Duration),
}

/// What was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Number of the first flow.
    pub first_flow: u32,
    /// Packets of each flow.
    pub per_flow: Vec<u64>,
    /// Packets that the kernel took.
    pub packets: u64,
    /// Times that the kernel refused a packet, which was then tried again.
    pub errors: u64,
    /// From the first packet to the last, in nanoseconds.
    pub elapsed_ns: u64,
}

impl Load {
    /// One payload of this load, with all but the header's numbers.
    ///
    /// # Errors
    /// [`LabError::Invalid`] when `payload_size` is too small.
    pub fn message(&self) -> Result<Vec<u8>, LabError> {
        let mut message = vec![0; self.payload_size];
        let payload = Payload {
            marker: self.marker,
            flow: self.first_flow,
            seq: 0,
            sent_ns: 0,
        };
        payload.write(&mut message)?;
        Ok(message)
    }
}

impl Sent {
    /// An account of sending by other means: of each flow from `first_flow` on, how many packets.
    pub fn for_flows(first_flow: u32, per_flow: Vec<u64>) -> Self {
        Sent {
            first_flow,
            packets: per_flow.iter().sum(),
            per_flow,
            errors: 0,
            elapsed_ns: 0,
        }
    }

    /// The flows, each with its number of packets.
    pub fn flows(&self) -> impl Iterator<Item = (u32, u64)> {
        (self.first_flow..).zip(self.per_flow.iter().copied())
    }

    /// Packets a second on average.
    pub fn pps(&self) -> f64 {
        self.packets as f64 * 1e9 / self.elapsed_ns.max(1) as f64
    }
}

/// A load on its way; stopped when dropped.
#[derive(Debug)]
pub struct Running {
    live: Arc<Live>,
    thread: Option<JoinHandle<Result<Sent, LabError>>>,
}

#[derive(Debug, Default)]
struct Live {
    stop: AtomicBool,
    packets: AtomicU64,
}

impl Running {
    /// Sends a load through any outlet, on a thread of its own.
    pub fn start(mut outlet: impl Outlet + Send + 'static, load: Load) -> Self {
        let live = Arc::new(Live::default());
        let thread = std::thread::spawn({
            let live = live.clone();
            move || run(&mut outlet, &load, &live)
        });
        Running {
            live,
            thread: Some(thread),
        }
    }

    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.live.packets.load(Ordering::Relaxed)
    }

    /// Waits for the end of the load.
    ///
    /// # Errors
    /// As [`Sender::send`](super::Sender::send).
    pub fn join(mut self) -> Result<Sent, LabError> {
        let thread = self
            .thread
            .take()
            .expect("only join and drop take the thread");
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Ends the load now.
    ///
    /// # Errors
    /// As [`Sender::send`](super::Sender::send).
    pub fn stop(self) -> Result<Sent, LabError> {
        self.live.stop.store(true, Ordering::Relaxed);
        self.join()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.live.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a load is sent through. A batch goes through one channel; flow n belongs to channel n modulo their number.
pub trait Outlet {
    /// How many channels it has, at least one.
    fn channels(&self) -> usize;
    /// Makes [`BATCH`] messages ready.
    ///
    /// # Errors
    /// When such a load cannot be sent.
    fn prepare(&mut self, load: &Load) -> Result<(), LabError>;
    /// Puts a payload into a message.
    ///
    /// # Errors
    /// When it does not fit.
    fn stage(&mut self, message: usize, flow: usize, payload: &Payload) -> Result<(), LabError>;
    /// Sends staged messages; how many went.
    ///
    /// # Errors
    /// Why the first did not; it is tried again.
    fn transmit(&mut self, channel: usize, messages: Range<usize>) -> io::Result<usize>;
    /// Makes sure that all that was transmitted has left; called once after the last.
    ///
    /// # Errors
    /// When something cannot leave.
    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Where it leads, for people.
    fn name(&self) -> String;
}

/// Sends a load through any outlet, on the calling thread.
///
/// # Errors
/// As [`Sender::send`](super::Sender::send).
pub fn send(outlet: &mut impl Outlet, load: &Load) -> Result<Sent, LabError> {
    run(outlet, load, &Live::default())
}

fn run(outlet: &mut impl Outlet, load: &Load, live: &Live) -> Result<Sent, LabError> {
    sys::precise_sleep();
    outlet.prepare(load)?;
    let flows = load.flows.max(1) as usize;
    let mut sent = Sent::for_flows(load.first_flow, vec![0; flows]);
    // A channel without flows is not used.
    let channels = outlet.channels().min(flows);
    let mut turn = vec![0; channels];
    let start = sys::monotonic_ns();
    let mut pacer = Pacer::new(load.pps, BATCH as u32, start);
    for channel in (0..channels).cycle() {
        let count = loop {
            let now = sys::monotonic_ns();
            let left = match load.until {
                Until::Count(count) => count - sent.packets,
                Until::Elapsed(time) if now - start >= time.as_nanos() as u64 => 0,
                Until::Elapsed(_) => u64::MAX,
            };
            if left == 0 || live.stop.load(Ordering::Relaxed) {
                sent.elapsed_ns = now - start;
                outlet
                    .finish()
                    .doing(|| format!("send the last packets to {}", outlet.name()))?;
                return Ok(sent);
            }
            match pacer.grant(now, left.min(BATCH as u64) as u32) {
                0 => pause(pacer.wait_ns()),
                count => break count as usize,
            }
        };
        // The flows of this channel take turns: channel, channel + channels, ...
        let own_flows = (flows - channel).div_ceil(channels);
        let sent_ns = sys::monotonic_ns();
        let mut staged = [0; BATCH];
        for (message, flow_of_message) in staged[..count].iter_mut().enumerate() {
            let flow = channel + channels * turn[channel];
            turn[channel] = (turn[channel] + 1) % own_flows;
            let payload = Payload {
                marker: load.marker,
                flow: load.first_flow.wrapping_add(flow as u32),
                seq: sent.per_flow[flow],
                sent_ns,
            };
            outlet.stage(message, flow, &payload)?;
            *flow_of_message = flow;
            sent.per_flow[flow] += 1;
        }
        let done = transmit(outlet, channel, count, &mut sent.errors, live)?;
        // Stopped while the kernel refused: what did not leave was not sent.
        (staged[done..count].iter()).for_each(|flow| sent.per_flow[*flow] -= 1);
        sent.packets += done as u64;
        live.packets.store(sent.packets, Ordering::Relaxed);
    }
    unreachable!("there is at least one channel, and the cycle has no end")
}

/// Sends all staged messages, again and again while the kernel refuses: numbers given out must leave. Returns how many
/// did, which is all of them unless it was stopped.
fn transmit(
    outlet: &mut impl Outlet,
    channel: usize,
    count: usize,
    errors: &mut u64,
    live: &Live,
) -> Result<usize, LabError> {
    let mut done = 0;
    let mut refused_since = None;
    while done < count {
        match outlet.transmit(channel, done..count) {
            Ok(n) => {
                done += n;
                refused_since = None;
            }
            Err(e) => {
                *errors += 1;
                let now = sys::monotonic_ns();
                let since = *refused_since.get_or_insert(now);
                let hopeless = e.raw_os_error() == Some(libc::EMSGSIZE);
                if live.stop.load(Ordering::Relaxed) {
                    return Ok(done);
                }
                if hopeless || now - since > GIVE_UP_NS {
                    return Err(e).doing(|| format!("send to {}", outlet.name()));
                }
                // A refused connection is the news of an earlier packet; this one may go at once.
                if e.kind() != io::ErrorKind::ConnectionRefused {
                    std::thread::sleep(REFUSED_PAUSE);
                }
            }
        }
    }
    Ok(done)
}

fn pause(ns: u64) {
    if ns < SLEEP_FROM_NS {
        std::thread::yield_now();
    } else {
        std::thread::sleep(Duration::from_nanos(ns.min(SLEEP_MAX_NS)));
    }
}
