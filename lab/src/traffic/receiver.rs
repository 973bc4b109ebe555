//! The receiving end: a UDP socket with a thread that keeps the tally.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Marker, Tally};
use crate::Namespace;
use crate::error::{Doing, LabError};
use crate::sys::{self, RecvBatch};

/// Longest datagram.
const PAYLOAD_MAX: usize = 65_536;
/// Kernel buffer: a burst of 100,000 small packets.
const RECEIVE_BUFFER: i32 = 128 << 20;
/// How often the thread looks whether it should stop.
const LOOK_NS: u64 = 10_000_000;
/// Of the latencies that are told while packets still come.
const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
/// How often they are worked out.
const QUANTILES_NS: u64 = 250_000_000;
/// Batches that stop() still takes from a socket that never runs dry.
const LAST_BATCHES: usize = 10_000;
/// `SO_MEMINFO`, and where it has the drops.
const SO_MEMINFO: i32 = 55;
const MEMINFO_DROPS: usize = 8;

/// Receives test packets until it is stopped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    live: Arc<Live>,
    thread: Option<JoinHandle<io::Result<Tally>>>,
}

#[derive(Debug, Default)]
struct Live {
    stop: AtomicBool,
    received: AtomicU64,
    arrived: AtomicU64,
    /// See [`Receiver::latency`].
    latency: [AtomicU64; QUANTILES.len()],
}

impl Receiver {
    /// Binds a UDP socket in `ns`. When it returns it receives. Port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(ns: &Namespace, bind: SocketAddr, marker: Marker) -> Result<Self, LabError> {
        let socket =
            ns.open(|| open(bind).doing(|| format!("receive on {bind} in {}", ns.name())))?;
        let address = socket.local_addr().doing(|| "ask for an address".into())?;
        let live = Arc::new(Live::default());
        let thread = std::thread::spawn({
            let live = live.clone();
            move || receive(&socket, Tally::new(marker), &live)
        });
        Ok(Receiver {
            address,
            live,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Different packets received so far.
    pub fn received(&self) -> u64 {
        self.live.received.load(Ordering::Relaxed)
    }

    /// Datagrams that arrived so far, of any kind.
    pub fn arrived(&self) -> u64 {
        self.live.arrived.load(Ordering::Relaxed)
    }

    /// Latencies so far in nanoseconds: median, 99 % and 99.9 %. They may be a quarter of a second old.
    pub fn latency(&self) -> [u64; 3] {
        std::array::from_fn(|n| self.live.latency[n].load(Ordering::Relaxed))
    }

    /// Waits until `count` different packets are here, or nothing has arrived for `quiet`. Returns how many are.
    pub fn wait_for(&self, count: u64, quiet: Duration) -> u64 {
        wait_for(count, quiet, || self.received(), || self.arrived())
    }

    /// Takes what is queued, then ends.
    ///
    /// # Errors
    /// When the socket failed meanwhile.
    pub fn stop(mut self) -> Result<Tally, LabError> {
        self.live.stop.store(true, Ordering::Relaxed);
        let thread = self
            .thread
            .take()
            .expect("only stop and drop take the thread");
        match thread.join() {
            Ok(result) => result.doing(|| format!("receive on {}", self.address)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.live.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until `received` says `count`, or `arrived` has not changed for `quiet`. Returns what `received` says then.
pub fn wait_for(
    count: u64,
    quiet: Duration,
    received: impl Fn() -> u64,
    arrived: impl Fn() -> u64,
) -> u64 {
    let (mut last, mut since) = (arrived(), Instant::now());
    while received() < count && since.elapsed() < quiet {
        std::thread::sleep(Duration::from_millis(2));
        if arrived() != last {
            (last, since) = (arrived(), Instant::now());
        }
    }
    received()
}

fn open(bind: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(bind)?;
    sys::set_option(
        socket.as_fd(),
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        RECEIVE_BUFFER,
    )?;
    Ok(socket)
}

fn receive(socket: &UdpSocket, mut tally: Tally, live: &Live) -> io::Result<Tally> {
    let mut batch = RecvBatch::new(PAYLOAD_MAX);
    let mut last_batches = LAST_BATCHES;
    let mut quantiles_due = 0;
    loop {
        // Read before the socket: what was queued when stop() was called is still taken.
        let stopping = live.stop.load(Ordering::Relaxed);
        let count = batch.recv(socket.as_fd())?;
        let now = sys::monotonic_ns();
        for (payload, _) in batch.iter() {
            tally.record(now, payload);
        }
        if now >= quantiles_due {
            for (live, quantile) in live.latency.iter().zip(QUANTILES) {
                let value = tally.latency().value_at_quantile(quantile);
                live.store(value, Ordering::Relaxed);
            }
            quantiles_due = now + QUANTILES_NS;
        }
        live.received.store(tally.received(), Ordering::Relaxed);
        live.arrived.fetch_add(count as u64, Ordering::Relaxed);
        if stopping {
            last_batches -= 1;
            if count == 0 || last_batches == 0 {
                // The counter behind SO_RXQ_OVFL, which would only tell of drops before a later packet.
                let info: [u32; 9] = sys::get_option(socket.as_fd(), libc::SOL_SOCKET, SO_MEMINFO)?;
                tally.add_socket_drops(info[MEMINFO_DROPS].into());
                return Ok(tally);
            }
        } else if count == 0 {
            sys::wait_readable(&[socket.as_fd()], LOOK_NS)?;
        }
    }
}
