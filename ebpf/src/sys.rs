//! The system calls that neither std nor aya has: the crate's only unsafe code, but for [`aya::Pod`].

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `BPF_OBJ_GET_INFO_BY_FD`, `BPF_LINK_CREATE`, `BPF_LINK_DETACH` and `BPF_XDP` of `linux/bpf.h`.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_DETACH: libc::c_int = 34;
const BPF_XDP: u32 = 37;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
pub(crate) const GENERIC: u32 = 1 << 1;
pub(crate) const NATIVE: u32 = 1 << 2;

/// `ETHTOOL_GFLAGS` and `ETH_FLAG_RXVLAN` of `linux/ethtool.h`.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// The index of the device of that name in the calling thread's network namespace.
pub(crate) fn if_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // glibc asks by a socket, and does not say why it has none.
    drop(netlink_socket()?);
    // SAFETY: a string that ends in NUL and lives until the call returns.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// How many files the process may have open.
pub(crate) fn most_files() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes two integers, which live until the call returns. It cannot fail.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// Whether the process can open so many files more.
pub(crate) fn room_for_files(count: usize) -> io::Result<()> {
    let socket = netlink_socket()?;
    let copies: io::Result<Vec<_>> = (1..count).map(|_| socket.try_clone()).collect();
    copies.map(drop)
}

/// An XDP program's hold on a device. It ends on drop, or when the process ends in any way.
pub(crate) struct XdpLink {
    fd: OwnedFd,
    /// What was attached: the program's number, and the device's.
    attached: Option<(u32, u32)>,
}

impl XdpLink {
    /// Whether it still holds the same program to the same device.
    pub(crate) fn is_attached(&self) -> bool {
        // What the kernel did not tell then it does not tell now.
        self.attached.is_none() || self.holds() == self.attached
    }

    /// The program's number and the device's; that is 0 once the link holds nothing.
    fn holds(&self) -> Option<(u32, u32)> {
        /// The head of `struct bpf_link_info`, with what it says of XDP.
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            kind: u32,
            id: u32,
            program: u32,
            padding: u32,
            if_index: u32,
            end: u32,
        }
        /// The head of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
        #[repr(C)]
        struct GetInfo {
            fd: i32,
            size: u32,
            info: u64,
        }
        let mut info = Info::default();
        let mut attributes = GetInfo {
            fd: self.fd.as_raw_fd(),
            size: size_of::<Info>() as u32,
            info: &raw mut info as u64,
        };
        // SAFETY: the kernel reads the attributes in the size given and writes their `size`, and writes at most that many
        // bytes of plain integers to `info`; both live until it returns.
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_OBJ_GET_INFO_BY_FD,
                &raw mut attributes,
                size_of::<GetInfo>(),
            )
        };
        (done == 0).then_some((info.program, info.if_index))
    }
}

impl Drop for XdpLink {
    /// Closing alone would not do: if another thread is just starting a program, its copy of the descriptor lives until
    /// that program runs, and the attachment with it.
    fn drop(&mut self) {
        let attributes = self.fd.as_raw_fd();
        // SAFETY: `union bpf_attr` for `BPF_LINK_DETACH` is one descriptor; the kernel reads exactly the size given.
        // It fails only when the device itself is gone, and the link with it.
        unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_LINK_DETACH,
                &raw const attributes,
                size_of_val(&attributes),
            )
        };
    }
}

/// Attaches an XDP program to a device by a link.
///
/// aya's own attach falls back to netlink where this fails with `EINVAL`. What is attached by netlink outlives its
/// process, which is what we must not have.
pub(crate) fn xdp_link(program: BorrowedFd<'_>, if_index: u32, mode: u32) -> io::Result<XdpLink> {
    /// The head of `union bpf_attr` for `BPF_LINK_CREATE`; the kernel takes what follows as zero.
    #[repr(C)]
    struct LinkCreate {
        program: i32,
        if_index: u32,
        attach_type: u32,
        flags: u32,
    }
    let attributes = LinkCreate {
        program: program.as_raw_fd(),
        if_index,
        attach_type: BPF_XDP,
        flags: mode,
    };
    // SAFETY: the kernel reads exactly the size given, and writes nothing.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const attributes,
            size_of::<LinkCreate>(),
        )
    };
    let fd = i32::try_from(fd).expect("a descriptor or -1");
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us (close-on-exec, as all of bpf's).
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut link = XdpLink { fd, attached: None };
    link.attached = link.holds();
    Ok(link)
}

/// A socket to ask the kernel about network devices (rtnetlink(7)).
pub(crate) fn netlink_socket() -> io::Result<OwnedFd> {
    // SAFETY: no memory is handed over.
    let fd = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the device takes VLAN tags out of received frames.
pub(crate) fn rx_vlan_offload(name: &str) -> io::Result<bool> {
    /// `struct ethtool_value`.
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value {
        command: ETHTOOL_GFLAGS,
        data: 0,
    };
    // SAFETY: all zeroes is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
    // SAFETY: the kernel reads the request, and reads and writes the `Value` it points to; both live until it returns.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data & ETH_FLAG_RXVLAN != 0)
}
