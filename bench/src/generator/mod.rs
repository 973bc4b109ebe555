//! A packet generator and receiver over AF_XDP, with exact accounting.
//!
//! A [`Sender`] puts numbered, stamped UDP packets into the rings of one device; a [`Receiver`] takes them from those of
//! another and keeps a [`Tally`](twinseal_lab::traffic::Tally): sent, received, lost, duplicated, reordered within a flow,
//! damaged, and one-way times. Loads, payloads and the search for a rate are those of [`twinseal_lab::traffic`]. A
//! [`Generator`] is a sender and a receiver with the device under test in between, and runs one [`Offer`] after another:
//!
//! ```no_run
//! use twinseal_bench::generator::{End, Generator, Offer, Options, Route};
//! use twinseal_bench::Size;
//! use twinseal_lab::traffic::{Search, Until, find_rate};
//! use twinseal_lab::{Lab, VethConfig};
//! # use std::time::Duration;
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::new("example")?;
//! let (a, b) = (lab.namespace("a")?, lab.namespace("b")?);
//! lab.veth(&VethConfig::new((&a, "eth0"), (&b, "eth0")).addresses(&["10.0.0.1/24".parse()?], &["10.0.0.2/24".parse()?]))?;
//!
//! let route = Route {
//!     from: End::in_namespace(&a, "eth0"),
//!     to: End::in_namespace(&b, "eth0"),
//!     src: "10.0.0.1".parse()?,
//!     dst: "10.0.0.2".parse()?,
//!     src_mac: a.mac("eth0")?,
//!     dst_mac: b.mac("eth0")?, // or the gateway's
//! };
//! let mut generator = Generator::open(&route, &Options::default())?;
//! // 1400-octet IP packets of 64 flows, 100,000 a second.
//! let offer = Offer { size: Size::Octets(1400), flows: 64, pps: 1e5, until: Until::Elapsed(Duration::from_secs(1)) };
//! let account = generator.run(&offer)?;
//! println!("{} lost, p99 {} ns", account.summary.lost, account.summary.latency.p99);
//! // As fast as it goes: what comes through?
//! let flood = generator.run(&Offer { pps: Offer::FLAT_OUT, ..offer })?;
//! println!("{:.0} of {:.0} packets a second", flood.received_pps, flood.offered_pps);
//! // The highest rate without loss.
//! let rate = find_rate(&Search::default(), |pps| Ok::<_, anyhow::Error>(generator.run(&Offer { pps, ..offer })?.trial()))?;
//! println!("{:.0} packets a second", rate.pps);
//! # Ok(())
//! # }
//! ```
//!
//! # What the numbers mean
//! - **Size** is bytes of the IP packet, 56 to 3826 over IPv4 (76 over IPv6), or IMIX: a frame is 14 more, 18 with its
//!   checksum.
//! - **Sent** is what the socket's ring took and the kernel took from there. Whether a driver then had room is no longer the
//!   generator's to know: what the device under test could not take in is lost, as it should be.
//! - **Latency** is from just before a batch is given to the kernel until just after a batch was received from it. It thus
//!   has both kernels' parts in it, and both threads' waking up. At low rates a batch is one packet.
//! - **Lost** has a part that is the measurement's own fault, `socket_drops`: what found no room at the receiver. What comes
//!   after an offer's account was made is lost there, and `late` in the next one.

mod error;
mod frame;
mod receiver;
mod sender;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use twinseal_ebpf::XdpMode;
use twinseal_lab::Namespace;
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::traffic::{Load, Marker, Sent, Summary, TrialResult, Until};
use twinseal_xsk::BindMode;

use crate::Size;

pub use error::GeneratorError;
pub use frame::{headers, min_octets};
pub use receiver::{Received, Receiver, ReceiverConfig};
pub use sender::{Sender, SenderConfig};

/// Where test packets go to: the discard port (RFC 863), should one ever reach a host's stack.
pub const PORT: u16 = 9;
/// A source port a flow.
const SRC_PORTS: std::ops::RangeInclusive<u16> = 10_000..=59_999;

/// A device and where it is.
#[derive(Debug, Clone)]
pub struct End {
    namespace: Option<Namespace>,
    netdev: String,
}

impl End {
    /// In the calling thread's namespace.
    pub fn here(netdev: &str) -> Self {
        Self {
            namespace: None,
            netdev: netdev.into(),
        }
    }

    /// In a namespace of a lab.
    pub fn in_namespace(namespace: &Namespace, netdev: &str) -> Self {
        Self {
            namespace: Some(namespace.clone()),
            netdev: netdev.into(),
        }
    }

    fn run<T: Send>(
        &self,
        f: impl FnOnce() -> Result<T, GeneratorError> + Send,
    ) -> Result<T, GeneratorError> {
        match &self.namespace {
            None => f(),
            Some(namespace) => namespace.run(f)?,
        }
    }
}

/// From where to where test packets go.
#[derive(Debug, Clone)]
pub struct Route {
    /// The device that sends.
    pub from: End,
    /// The device that receives.
    pub to: End,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source of the frames: the sending device's own.
    pub src_mac: [u8; 6],
    /// Destination of the frames: the next hop's.
    pub dst_mac: [u8; 6],
}

/// How to send and receive.
#[derive(Debug, Clone)]
pub struct Options {
    /// Queues of each device. Flows are spread over them.
    pub queues: u32,
    /// The first queue to send by. A device that receives at the same time has its first ones for that.
    pub send_queue: u32,
    /// Native or generic XDP at the receiver.
    pub xdp: XdpMode,
    /// Zero-copy or copy.
    pub bind: BindMode,
    /// See [`ReceiverConfig::spin`].
    pub spin: Duration,
    /// How long nothing must have come before the rest counts as lost. RFC 2544 (23) has two seconds.
    pub quiet: Duration,
    /// The processor that sends.
    pub tx_cpu: Option<usize>,
    /// The processor that receives.
    pub rx_cpu: Option<usize>,
}

impl Default for Options {
    /// One queue, whatever mode works, a receiver that sleeps, 0.3 seconds of quiet, no pinning.
    fn default() -> Self {
        Self {
            queues: 1,
            send_queue: 0,
            xdp: XdpMode::Auto,
            bind: BindMode::Auto,
            spin: Duration::ZERO,
            quiet: Duration::from_millis(300),
            tx_cpu: None,
            rx_cpu: None,
        }
    }
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offer {
    /// Of the IP packets.
    pub size: Size,
    /// Flows, each with a source port of its own (up to 50,000); they take turns.
    pub flows: u32,
    /// Packets a second, of all flows together.
    pub pps: f64,
    /// When to end.
    pub until: Until,
}

impl Offer {
    /// A rate that no machine reaches: packets leave back to back.
    pub const FLAT_OUT: f64 = 1e12;

    /// Half of it, for one of two ways.
    #[must_use]
    pub fn half(&self) -> Self {
        Self {
            pps: self.pps / 2.0,
            until: match self.until {
                Until::Count(count) => Until::Count(count.div_ceil(2)),
                elapsed => elapsed,
            },
            ..*self
        }
    }

    /// So many packets, back to back.
    pub fn burst(size: Size, flows: u32, packets: u64) -> Self {
        Self {
            size,
            flows,
            pps: Self::FLAT_OUT,
            until: Until::Count(packets),
        }
    }
}

/// What became of an offer.
#[derive(Debug, Clone, Serialize)]
pub struct Account {
    /// Of the IP packets.
    pub size: Size,
    /// The rate at which packets left.
    pub offered_pps: f64,
    /// The rate at which they came, from the first to the last.
    pub received_pps: f64,
    /// Sent, received, lost and so on, and latencies.
    pub summary: Summary,
    /// What came of offers before, or was found to have been dropped at the receiver, after their own accounts were made.
    /// There it is among the lost.
    pub late: Summary,
}

impl Account {
    /// What became of an offer, out of what its sender and its receiver say.
    pub fn new(offer: &Offer, sent: &Sent, received: &Received) -> Self {
        let (mut summary, late) = (received.tally.summary(sent), received.late(sent));
        summary.flows -= late.flows;
        summary.received -= late.received;
        summary.duplicates -= late.duplicates;
        summary.reordered -= late.reordered;
        summary.bytes -= late.bytes;
        Self {
            size: offer.size,
            offered_pps: sent.pps(),
            received_pps: received.pps(),
            summary,
            late,
        }
    }

    /// Of two offers that were made at the same time, one each way. The rate is that of both, as if the slower sender's
    /// were the other's too: if one of them lags, they do not offer what they should.
    pub fn both(there: &Self, back: &Self) -> Self {
        Self {
            size: there.size,
            offered_pps: 2.0 * there.offered_pps.min(back.offered_pps),
            received_pps: there.received_pps + back.received_pps,
            summary: there.summary.and(&back.summary),
            late: there.late.and(&back.late),
        }
    }

    /// For [`find_rate`](twinseal_lab::traffic::find_rate).
    pub fn trial(&self) -> TrialResult {
        TrialResult {
            offered_pps: self.offered_pps,
            sent: self.summary.sent,
            received: self.summary.sent - self.summary.lost,
        }
    }
}

/// A sender and a receiver, with the device under test in between.
#[derive(Debug)]
pub struct Generator {
    sender: Sender,
    receiver: Receiver,
    marker: Marker,
    v6: bool,
    quiet: Duration,
    next_flow: u32,
}

impl Generator {
    /// Opens both ends. The receiving device's other traffic goes to the kernel as before.
    ///
    /// # Errors
    /// As [`Sender::open`] and [`Receiver::start`].
    pub fn open(route: &Route, options: &Options) -> Result<Self, GeneratorError> {
        let sender = SenderConfig {
            netdev: route.from.netdev.clone(),
            queues: options.queues,
            first_queue: options.send_queue,
            bind: options.bind,
            frame: UdpFrame {
                dst_mac: route.dst_mac,
                src_mac: route.src_mac,
                src: route.src,
                dst: route.dst,
                src_port: 0,
                dst_port: PORT,
                ttl: 64,
                traffic_class: 0,
            },
            src_ports: SRC_PORTS,
            cpu: options.tx_cpu,
        };
        let receiver = ReceiverConfig {
            netdev: route.to.netdev.clone(),
            queues: options.queues,
            xdp: options.xdp,
            bind: options.bind,
            endpoints: vec![SocketAddr::new(route.dst, PORT)],
            spin: options.spin,
            cpu: options.rx_cpu,
        };
        // Two generators on one network do not take each other's packets for their own.
        let marker = marker();
        Ok(Self {
            sender: route.from.run(|| Sender::open(&sender))?,
            receiver: route.to.run(|| Receiver::start(&receiver, marker))?,
            marker,
            v6: route.dst.is_ipv6(),
            quiet: options.quiet,
            next_flow: 0,
        })
    }

    /// Sends an offer, waits for it, and accounts for it.
    ///
    /// # Errors
    /// [`GeneratorError::Short`] and [`GeneratorError::Size`]; a system error when the kernel took nothing for ten seconds.
    pub fn run(&mut self, offer: &Offer) -> Result<Account, GeneratorError> {
        let load = self.load(offer)?;
        let before = self.receiver.take().of_nothing();
        let sent = self.sender.send(&load)?;
        self.wait_for(&sent);
        let mut account = Account::new(offer, &sent, &self.receiver.take());
        account.late = account.late.and(&before);
        Ok(account)
    }

    /// Waits for what was sent. What comes of offers before stands for none of it.
    fn wait_for(&self, sent: &Sent) {
        let mut late = 0;
        loop {
            self.receiver.wait_for(sent.packets + late, self.quiet);
            let now = self.receiver.late(sent);
            if now == late {
                return;
            }
            late = now;
        }
    }

    /// The two ends, to drive them otherwise.
    pub fn into_ends(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// The sending end.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The receiving end.
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// The load that an offer is, with flows of its own.
    ///
    /// # Errors
    /// [`GeneratorError::Short`].
    pub fn load(&mut self, offer: &Offer) -> Result<Load, GeneratorError> {
        let (min, headers) = (min_octets(self.v6), headers(self.v6));
        if let Size::Octets(octets) = offer.size
            && usize::from(octets) < min
        {
            return Err(GeneratorError::Short {
                octets: octets.into(),
                min,
            });
        }
        let mix = offer.size.turns(min).into_iter().map(|size| size - headers);
        self.sender.set_mix(&mix.collect::<Vec<_>>());
        let first_flow = self.next_flow;
        self.next_flow = first_flow.wrapping_add(offer.flows.max(1));
        Ok(Load {
            marker: self.marker,
            first_flow,
            flows: offer.flows,
            payload_size: offer.size.largest() - headers,
            pps: offer.pps,
            until: offer.until,
        })
    }

    /// Closes both ends and waits until the kernel has let go of them. Returns what came since the last account, as
    /// [`Account::late`].
    ///
    /// # Errors
    /// When the receiving device failed meanwhile.
    pub fn close(self) -> Result<Summary, GeneratorError> {
        self.sender.close();
        Ok(self.receiver.stop()?.of_nothing())
    }
}

/// A marker that no other generator has.
fn marker() -> Marker {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new()
        .hash_one(std::process::id())
        .to_ne_bytes()
}

/// Keeps the calling thread on one processor, if it is to be.
fn pin(cpu: Option<usize>) -> Result<(), GeneratorError> {
    let Some(cpu) = cpu else { return Ok(()) };
    crate::cpu::pin(cpu).map_err(|source| GeneratorError::Cpu { cpu, source })
}
