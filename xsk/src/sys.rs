//! System calls, each wrapped so that the rest of the crate calls it safely.

use std::ffi::CString;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

// From asm-generic/socket.h and linux/if_xdp.h; not in the libc crate.
pub(crate) const SO_BUSY_POLL: libc::c_int = 46;
pub(crate) const SO_PREFER_BUSY_POLL: libc::c_int = 69;
pub(crate) const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
pub(crate) const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// From linux/ethtool.h.
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// Memory mapped into this process, unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    addr: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process and not to a thread; access to the memory is the user's business.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed memory on ordinary pages, populated. If they are to be `merged`, the kernel makes huge pages of them where
    /// it can, which spares the processor misses of its translation cache.
    pub(crate) fn ordinary(len: usize, merged: bool) -> io::Result<Self> {
        let mapping = Self::anonymous(len, 0)?;
        if merged {
            // A kernel without them has the others.
            let _ = mapping.advise(libc::MADV_HUGEPAGE);
        }
        mapping.advise(libc::MADV_POPULATE_WRITE)?;
        Ok(mapping)
    }

    /// Zeroed memory on huge pages, populated. The kernel rounds the length up itself.
    pub(crate) fn huge(len: usize) -> io::Result<Self> {
        // munmap wants the rounded length. 1 GiB pages as the system's default size waste more, but work.
        let page = huge_page_size().unwrap_or(2 << 20);
        Self::anonymous(
            len.next_multiple_of(page),
            libc::MAP_HUGETLB | libc::MAP_POPULATE,
        )
    }

    fn anonymous(len: usize, flags: libc::c_int) -> io::Result<Self> {
        let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let mapping = Self::map(len, flags, -1, 0)?;
        // Packets are nobody's business in a core dump.
        mapping.advise(libc::MADV_DONTDUMP)?;
        Ok(mapping)
    }

    /// A ring of an AF_XDP socket.
    pub(crate) fn ring(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::map(len, flags, fd.as_raw_fd(), offset)
    }

    fn map(
        len: usize,
        flags: libc::c_int,
        fd: libc::c_int,
        offset: libc::off_t,
    ) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let addr = unsafe { libc::mmap(ptr::null_mut(), len, prot, flags, fd, offset) };
        if addr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let addr = NonNull::new(addr.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let mapping = Self { addr, len };
        // A child must not inherit it: copy-on-write would move pinned pages away from under us, and an inherited
        // ring would keep the socket open.
        mapping.advise(libc::MADV_DONTFORK)?;
        Ok(mapping)
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is our mapping, and the advice that is given here leaves its content alone.
        check(unsafe { libc::madvise(self.addr.as_ptr().cast(), self.len, advice) }).map(drop)
    }

    pub(crate) fn addr(&self) -> NonNull<u8> {
        self.addr
    }

    /// Leaves the memory mapped for the rest of the process.
    pub(crate) fn leak(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and whoever drops the mapping has given up every pointer into it.
        unsafe { libc::munmap(self.addr.as_ptr().cast(), self.len) };
    }
}

/// The system's default huge page size in bytes, if it says so.
fn huge_page_size() -> Option<usize> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? << 10)
}

/// A new AF_XDP socket, closed on exec.
pub(crate) fn xdp_socket() -> io::Result<OwnedFd> {
    socket(libc::AF_XDP, libc::SOCK_RAW)
}

fn socket(domain: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Types that the kernel reads and writes as they are: plain integers with no padding.
///
/// # Safety
/// Every bit pattern is a value, and no byte of a value is padding.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: integers, or C structs of integers whose sizes leave no gaps.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}

/// `setsockopt(2)`.
pub(crate) fn set_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: the pointer and the length are of `value`, which outlives the call.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// `getsockopt(2)` at level `SOL_XDP`. A shorter answer, from a kernel that knows an older structure, is an error.
pub(crate) fn xdp_option<T: Plain>(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length are of `value`, which outlives the call.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            name,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    })?;
    if (len as usize) < size_of::<T>() {
        return Err(io::Error::from_raw_os_error(libc::ENOPROTOOPT));
    }
    // SAFETY: it was zeroed, which is a value of a plain type, and the kernel wrote another.
    Ok(unsafe { value.assume_init() })
}

/// `bind(2)` of an AF_XDP socket.
pub(crate) fn bind(fd: BorrowedFd<'_>, ifindex: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
    // SAFETY: the pointer and the length are of `address`, which outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

/// Makes the kernel look at the tx ring.
#[inline]
pub(crate) fn kick_tx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an empty message from no buffer to no address.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            ptr::null(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null(),
            0,
        )
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes the kernel look at the fill ring.
#[inline]
pub(crate) fn kick_rx(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: receives nothing, into no buffer.
    let got = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            ptr::null_mut(),
            0,
            libc::MSG_DONTWAIT,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    if got < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The index of a device in this thread's network namespace.
pub(crate) fn ifindex(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // glibc asks by a socket, and does not say why it has none.
    drop(socket(libc::AF_UNIX, libc::SOCK_DGRAM)?);
    // SAFETY: the name ends with a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// How many queues the device of this name receives on, if its driver says so (`ETHTOOL_GCHANNELS`).
pub fn queue_count(name: &str) -> Option<u32> {
    /// `struct ethtool_channels`.
    #[repr(C)]
    #[derive(Default)]
    struct Channels {
        command: u32,
        max: [u32; 4],
        rx: u32,
        tx: u32,
        other: u32,
        combined: u32,
    }
    let fd = socket(libc::AF_INET, libc::SOCK_DGRAM).ok()?;
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Channels::default()
    };
    // SAFETY: `ifreq` is integers, byte arrays and a pointer, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    // SAFETY: the request has a zero-terminated name and points to a structure as the command has it; both outlive
    // the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) }).ok()?;
    Some(channels.combined + channels.rx.max(channels.tx))
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
