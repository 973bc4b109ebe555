//! AF_PACKET sockets: whole Ethernet frames on one interface.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::Namespace;
use crate::error::{Doing, LabError};
use crate::sys::{self, RecvBatch};

/// Kernel buffer of a receiving socket, in bytes: a second of full-size frames at 500 Mbit/s.
const RECEIVE_BUFFER: i32 = 64 << 20;
/// `ETH_P_ALL`.
const EVERYTHING: u16 = 3;

/// What a socket is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// Only sends.
    Send,
    /// Receives what passes the interface in both directions, one in so many.
    Watch(Option<NonZeroU32>),
    /// Takes what arrives, whatever its destination address; what is sent here does not come back.
    Relay,
}

/// A packet socket bound to one interface.
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one on an interface of `ns`. From here on it receives.
    pub(crate) fn open(ns: &Namespace, ifname: &str, purpose: Use) -> Result<Self, LabError> {
        let index = ns.interface(ifname)?.index;
        ns.open(|| {
            open(index, purpose)
                .map(PacketSocket)
                .doing(|| format!("open a packet socket on {ifname} in {}", ns.name()))
        })
    }

    /// Receives what is queued; 0 when nothing is, also while the interface is down.
    pub(crate) fn recv(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        match batch.recv(self.0.as_fd()) {
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => Ok(0),
            other => other,
        }
    }

    /// Sends up to [`sys::BATCH`] frames; returns how many went before the first error.
    pub(crate) fn send<M: AsRef<[u8]>>(&self, frames: &[M]) -> io::Result<usize> {
        sys::send_batch(self.0.as_fd(), frames, 0)
    }

    /// Frames dropped since the last call because the socket's buffer was full.
    pub(crate) fn take_drops(&self) -> u64 {
        sys::get_option::<libc::tpacket_stats>(
            self.0.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
        )
        .map_or(0, |s| s.tp_drops.into())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(index: u32, purpose: Use) -> io::Result<OwnedFd> {
    // With protocol 0 nothing is received before the socket is set up and bound.
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let fd = socket.as_fd();
    let set = |name, value: i32| sys::set_option(fd, libc::SOL_PACKET, name, value);
    let receive = || {
        // The kernel takes VLAN tags out of received frames and tells of them beside.
        set(libc::PACKET_AUXDATA, 1)?;
        sys::set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER)
    };
    match purpose {
        Use::Send => {
            // Straight to the device: a queue between would only reorder and drop.
            set(libc::PACKET_QDISC_BYPASS, 1)?;
            sys::bind_packet(fd, index, 0)?;
        }
        Use::Watch(sample) => {
            receive()?;
            if let Some(n) = sample {
                sys::attach_filter(fd, &mut one_in(n))?;
            }
            sys::bind_packet(fd, index, EVERYTHING)?;
        }
        Use::Relay => {
            receive()?;
            set(libc::PACKET_IGNORE_OUTGOING, 1)?;
            let promiscuous = libc::packet_mreq {
                mr_ifindex: index as i32,
                mr_type: libc::PACKET_MR_PROMISC as u16,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            sys::set_option(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                promiscuous,
            )?;
            sys::bind_packet(fd, index, EVERYTHING)?;
        }
    }
    Ok(socket)
}

/// Classic BPF that accepts a packet when a random number of the kernel's divides by `n`.
fn one_in(n: NonZeroU32) -> [libc::sock_filter; 5] {
    let op = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, random),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, n.get()),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ]
}
