//! The system calls that rustix does not wrap. Together with `ethtool` all of this crate's unsafe code.

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::thread::UnshareFlags;

/// Most messages that one [`send_batch`] or [`RecvBatch::recv`] moves.
pub const BATCH: usize = 64;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Gives the calling thread its own copies of the namespaces in `flags`.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the danger of unshare is CLONE_FILES, which leaves descriptors of other threads behind; excluded above.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// A new close-on-exec socket in the network namespace of the calling thread.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel just returned and nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Values that may be handed to the kernel as socket options: plain integers and C structs without padding.
pub(crate) trait Plain: Copy {}
impl Plain for i32 {}
impl Plain for u32 {}
impl Plain for [u32; 9] {}
impl Plain for libc::packet_mreq {}
impl Plain for libc::tpacket_stats {}

/// `setsockopt` of a plain value.
pub(crate) fn set_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: T,
) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as u32,
        )
    };
    check(r).map(drop)
}

/// `getsockopt` of a plain value; what the kernel leaves out stays zero.
pub(crate) fn get_option<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    // SAFETY: all zero is a value of every `Plain` type.
    let mut value: T = unsafe { zeroed() };
    let mut len = size_of::<T>() as u32;
    // SAFETY: pointer and length describe `value`; the kernel writes at most `len` bytes.
    let r = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    check(r)?;
    Ok(value)
}

/// Attaches a classic BPF program; packets for which it returns 0 are not queued.
pub(crate) fn attach_filter(
    fd: BorrowedFd<'_>,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let fprog = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `fprog` describes `program`; both outlive the call, and the kernel copies them.
    let r = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const fprog).cast(),
            size_of_val(&fprog) as u32,
        )
    };
    check(r).map(drop)
}

/// Binds an AF_PACKET socket to an interface; `protocol` is an EtherType in host order, 0 receives nothing.
pub(crate) fn bind_packet(fd: BorrowedFd<'_>, ifindex: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: all zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex as i32;
    // SAFETY: pointer and length describe `address`.
    let r = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    check(r).map(drop)
}

/// `send` of one message on a connected or bound socket.
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `data`.
    let r = unsafe { libc::send(fd.as_raw_fd(), data.as_ptr().cast(), data.len(), 0) };
    length(r)
}

/// `sendto` of one message to an address, with no port: for raw IP sockets.
pub(crate) fn send_to(fd: BorrowedFd<'_>, data: &[u8], to: IpAddr) -> io::Result<()> {
    // SAFETY: all zero is a valid sockaddr_in6.
    let mut v6: libc::sockaddr_in6 = unsafe { zeroed() };
    // SAFETY: all zero is a valid sockaddr_in.
    let mut v4: libc::sockaddr_in = unsafe { zeroed() };
    let (address, len) = match to {
        IpAddr::V4(ip) => {
            v4.sin_family = libc::AF_INET as u16;
            v4.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
            ((&raw const v4).cast(), size_of_val(&v4))
        }
        IpAddr::V6(ip) => {
            v6.sin6_family = libc::AF_INET6 as u16;
            v6.sin6_addr.s6_addr = ip.octets();
            ((&raw const v6).cast(), size_of_val(&v6))
        }
    };
    // SAFETY: pointers and lengths describe `data` and one of the two addresses; all outlive the call.
    let r = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            0,
            address,
            len as u32,
        )
    };
    length(r).map(drop)
}

/// `recv` of one message, cut to the buffer.
pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length describe `buf`.
    let r = unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), 0) };
    length(r)
}

/// Sends up to [`BATCH`] messages on a connected or bound socket; returns how many went.
///
/// # Errors
/// The error of the first message; errors of later ones end the batch early and show on the next call.
pub(crate) fn send_batch<M: AsRef<[u8]>>(
    fd: BorrowedFd<'_>,
    messages: &[M],
    flags: i32,
) -> io::Result<usize> {
    // SAFETY: iovec and mmsghdr are C structs for which all zero is valid.
    let mut iov: [libc::iovec; BATCH] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
    let count = messages.len().min(BATCH);
    for (i, message) in messages[..count].iter().enumerate() {
        let message = message.as_ref();
        // The kernel only reads through this pointer; iovec has no const form.
        iov[i].iov_base = message.as_ptr().cast_mut().cast();
        iov[i].iov_len = message.len();
        headers[i].msg_hdr.msg_iov = &raw mut iov[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers point at `iov` entries that describe `messages`; all outlive the call.
    let r = unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count as u32, flags) };
    length(r as isize)
}

/// Bytes kept free before each received frame, so that a stripped VLAN tag can be put back in place.
const TAG: usize = 4;
/// Control space of one message: room for `PACKET_AUXDATA`.
type Control = [u64; 6];

/// Buffers for up to [`BATCH`] messages received by one system call.
pub(crate) struct RecvBatch {
    size: usize,
    data: Vec<u8>,
    control: Vec<Control>,
    /// Where each message came from; an AF_PACKET address, which is shorter, is of no use.
    sources: Vec<libc::sockaddr_in6>,
    /// Of each message: where it begins in its slot, its stored length and its length on the wire.
    messages: Vec<(usize, usize, usize)>,
}

impl RecvBatch {
    /// `size`: the longest message kept whole, in bytes.
    pub(crate) fn new(size: usize) -> Self {
        RecvBatch {
            size,
            data: vec![0; BATCH * (size + TAG)],
            control: vec![[0; 6]; BATCH],
            // SAFETY: all zero is a valid sockaddr_in6.
            sources: vec![unsafe { zeroed() }; BATCH],
            messages: Vec::with_capacity(BATCH),
        }
    }

    /// Receives what is queued without waiting; returns how many messages, 0 when none.
    pub(crate) fn recv(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        self.messages.clear();
        // SAFETY: iovec and mmsghdr are C structs for which all zero is valid.
        let mut iov: [libc::iovec; BATCH] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { zeroed() };
        let slots = self.data.chunks_exact_mut(self.size + TAG);
        for (i, (slot, control)) in slots.zip(self.control.iter_mut()).enumerate() {
            iov[i].iov_base = slot[TAG..].as_mut_ptr().cast();
            iov[i].iov_len = self.size;
            headers[i].msg_hdr.msg_iov = &raw mut iov[i];
            headers[i].msg_hdr.msg_iovlen = 1;
            headers[i].msg_hdr.msg_control = control.as_mut_ptr().cast();
            headers[i].msg_hdr.msg_controllen = size_of::<Control>();
            headers[i].msg_hdr.msg_name = (&raw mut self.sources[i]).cast();
            headers[i].msg_hdr.msg_namelen = size_of::<libc::sockaddr_in6>() as u32;
        }
        // SAFETY: each header points at its own iovec, slot, source and control space, whose lengths are given; all outlive the call.
        let r = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                std::ptr::null_mut(),
            )
        };
        let count = match length(r as isize) {
            Ok(n) => n,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                0
            }
            Err(e) => return Err(e),
        };
        for (i, header) in headers[..count].iter().enumerate() {
            let wire = header.msg_len as usize;
            let stored = wire.min(self.size);
            let message = match vlan_of(&header.msg_hdr) {
                Some(tag) if stored >= 12 => {
                    let slot = &mut self.data[i * (self.size + TAG)..];
                    slot.copy_within(TAG..TAG + 12, 0);
                    slot[12..12 + TAG].copy_from_slice(&tag);
                    (0, stored + TAG, wire + TAG)
                }
                _ => (TAG, stored, wire),
            };
            self.messages.push(message);
        }
        Ok(count)
    }

    /// The IP addresses that the messages of the last [`RecvBatch::recv`] came from; of IP sockets only.
    pub(crate) fn sources(&self) -> impl Iterator<Item = IpAddr> {
        self.sources.iter().map(|source| {
            if i32::from(source.sin6_family) == libc::AF_INET6 {
                return IpAddr::from(source.sin6_addr.s6_addr);
            }
            // In a sockaddr_in the address is where a sockaddr_in6 has its flow label.
            IpAddr::from(source.sin6_flowinfo.to_ne_bytes())
        })
    }

    /// The messages of the last [`RecvBatch::recv`], each with its length on the wire.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], usize)> {
        let slots = self.data.chunks_exact(self.size + TAG);
        self.messages
            .iter()
            .zip(slots)
            .map(|(&(start, len, wire), slot)| (&slot[start..start + len], wire))
    }
}

/// The four bytes of the VLAN tag that the kernel took out of a frame, from `PACKET_AUXDATA`.
fn vlan_of(header: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: `header` was filled by the kernel and its control space is alive (caller's `self.control`).
    let cmsg = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    if (cmsg.cmsg_level, cmsg.cmsg_type) != (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
        return None;
    }
    // SAFETY: a PACKET_AUXDATA message carries a tpacket_auxdata; read unaligned as alignment is not promised.
    let aux: libc::tpacket_auxdata =
        unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(cmsg).cast()) };
    if aux.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid = match aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
        0 => 0x8100,
        _ => aux.tp_vlan_tpid,
    };
    let (p, t) = (tpid.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes());
    Some([p[0], p[1], t[0], t[1]])
}

/// Waits until one of `fds` is readable or `timeout_ns` have passed.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], timeout_ns: u64) -> io::Result<()> {
    let mut polls: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let timeout = Timespec {
        tv_sec: (timeout_ns / 1_000_000_000) as i64,
        tv_nsec: (timeout_ns % 1_000_000_000) as i64,
    };
    match rustix::event::poll(&mut polls, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Asks for sleeps of this thread that end within a microsecond of their time (the default is 50).
pub(crate) fn precise_sleep() {
    // SAFETY: no pointers; a refusal only leaves sleeps coarser.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
}

fn check(r: i32) -> io::Result<i32> {
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(r)
}

fn length(r: isize) -> io::Result<usize> {
    usize::try_from(r).map_err(|_| io::Error::last_os_error())
}
