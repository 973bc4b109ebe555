//! The sending end: paced batches from UDP sockets or of crafted frames.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::{Range, RangeInclusive};
use std::os::fd::AsFd;

use super::Payload;
use super::load::{Load, Outlet, Running, Sent, send};
use crate::Namespace;
use crate::error::{Doing, LabError};
use crate::frame::UdpFrame;
use crate::packet::{PacketSocket, Use};
use crate::sys::{self, BATCH};

/// Kernel buffer of a sending socket, in bytes.
const SEND_BUFFER: i32 = 4 << 20;
/// Sockets of a [`Sender`] at most, unless it is told else.
const SOCKETS: u32 = 64;

/// Where a [`Sender`] sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderConfig {
    /// Destination.
    pub dst: SocketAddr,
    /// Source address; the kernel's choice when none.
    pub src: Option<IpAddr>,
    /// Sockets, each with a source port of its own; flows are dealt out among them.
    pub sockets: u32,
}

impl SenderConfig {
    /// To `dst` with as many sockets as flows, up to 64.
    pub fn new(dst: SocketAddr, flows: u32) -> Self {
        SenderConfig {
            dst,
            src: None,
            sockets: flows.clamp(1, SOCKETS),
        }
    }
}

/// Sends through UDP sockets of a namespace: the kernel routes and resolves.
#[derive(Debug)]
pub struct Sender {
    sockets: Vec<UdpSocket>,
    dst: SocketAddr,
    /// Messages of the current load.
    messages: Vec<Vec<u8>>,
}

impl Sender {
    /// Opens the sockets.
    ///
    /// # Errors
    /// When the kernel refuses one, as it does without a route.
    pub fn open(ns: &Namespace, config: &SenderConfig) -> Result<Self, LabError> {
        let src = config.src.unwrap_or(match config.dst {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        });
        let open = || {
            let socket = UdpSocket::bind((src, 0))?;
            sys::set_option(
                socket.as_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUFFORCE,
                SEND_BUFFER,
            )?;
            socket.connect(config.dst)?;
            Ok(socket)
        };
        let sockets = ns.open(|| {
            (0..config.sockets.max(1))
                .map(|_| open())
                .collect::<io::Result<Vec<_>>>()
                .doing(|| format!("open sockets to {} in {}", config.dst, ns.name()))
        })?;
        Ok(Sender {
            sockets,
            dst: config.dst,
            messages: Vec::new(),
        })
    }

    /// Sends a load and returns when it is sent.
    ///
    /// # Errors
    /// [`LabError::Invalid`] for a load that cannot be; a system error when the kernel took nothing for ten seconds.
    pub fn send(&mut self, load: &Load) -> Result<Sent, LabError> {
        send(self, load)
    }

    /// Sends a load in the background.
    pub fn start(self, load: Load) -> Running {
        Running::start(self, load)
    }
}

/// What frames a [`RawSender`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawConfig {
    /// Addresses of all frames; its source port is not used.
    pub frame: UdpFrame,
    /// Source ports: flow n has the n-th of them, from the start again when they run out.
    pub src_ports: RangeInclusive<u16>,
}

/// Sends crafted frames out of an interface: any number of flows, told apart by source port, with no socket each.
pub struct RawSender {
    socket: PacketSocket,
    config: RawConfig,
    place: String,
    /// Frames of the current load, with the payload written.
    frames: Vec<Vec<u8>>,
}

impl RawSender {
    /// Opens the packet socket.
    ///
    /// # Errors
    /// When the interface is not there, or source and destination are of two families.
    pub fn open(ns: &Namespace, ifname: &str, config: &RawConfig) -> Result<Self, LabError> {
        let UdpFrame { src, dst, .. } = config.frame;
        if src.is_ipv4() != dst.is_ipv4() || config.src_ports.is_empty() {
            return Err(LabError::Invalid {
                what: "raw sender",
                value: format!("{src} to {dst}, ports {:?}", config.src_ports),
                fix: "give two addresses of one family and at least one port",
            });
        }
        Ok(RawSender {
            socket: PacketSocket::open(ns, ifname, Use::Send)?,
            config: config.clone(),
            place: format!("{ifname} in {}", ns.name()),
            frames: Vec::new(),
        })
    }

    /// Sends a load and returns when it is sent.
    ///
    /// # Errors
    /// [`LabError::Invalid`] for a load that cannot be; a system error when the kernel took nothing for ten seconds.
    pub fn send(&mut self, load: &Load) -> Result<Sent, LabError> {
        send(self, load)
    }

    /// Sends a load in the background.
    pub fn start(self, load: Load) -> Running {
        Running::start(self, load)
    }
}

impl std::fmt::Debug for RawSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RawSender").field(&self.place).finish()
    }
}

impl Outlet for Sender {
    fn channels(&self) -> usize {
        self.sockets.len()
    }

    fn prepare(&mut self, load: &Load) -> Result<(), LabError> {
        self.messages = vec![load.message()?; BATCH];
        Ok(())
    }

    fn stage(&mut self, message: usize, _: usize, payload: &Payload) -> Result<(), LabError> {
        payload.write_header(&mut self.messages[message])
    }

    fn transmit(&mut self, channel: usize, messages: Range<usize>) -> io::Result<usize> {
        sys::send_batch(self.sockets[channel].as_fd(), &self.messages[messages], 0)
    }

    fn name(&self) -> String {
        self.dst.to_string()
    }
}

impl Outlet for RawSender {
    fn channels(&self) -> usize {
        1
    }

    fn prepare(&mut self, load: &Load) -> Result<(), LabError> {
        /// What UDP over IPv4 can carry.
        const MAX: usize = 65_507;
        let message = load.message()?;
        if message.len() > MAX {
            return Err(LabError::Invalid {
                what: "payload size",
                value: message.len().to_string(),
                fix: "use 65,507 bytes or less",
            });
        }
        let mut frame = Vec::new();
        self.config.frame.write(message.len(), &mut frame);
        frame[self.config.frame.payload_offset()..].copy_from_slice(&message);
        self.frames = vec![frame; BATCH];
        Ok(())
    }

    fn stage(&mut self, message: usize, flow: usize, payload: &Payload) -> Result<(), LabError> {
        let RawConfig {
            frame: udp,
            src_ports,
        } = &self.config;
        let frame = &mut self.frames[message];
        let at = udp.payload_offset();
        let ports = usize::from(src_ports.end() - src_ports.start()) + 1;
        let port = src_ports.start() + (flow % ports) as u16;
        frame[at - 8..at - 6].copy_from_slice(&port.to_be_bytes());
        payload.write_header(&mut frame[at..])?;
        udp.seal(frame);
        Ok(())
    }

    fn transmit(&mut self, _: usize, messages: Range<usize>) -> io::Result<usize> {
        self.socket.send(&self.frames[messages])
    }

    fn name(&self) -> String {
        self.place.clone()
    }
}
