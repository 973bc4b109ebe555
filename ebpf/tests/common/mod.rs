//! A network namespace of the test's own with a veth pair, and an AF_XDP socket on it.
#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod frames;
pub(crate) mod reference;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;

/// The port under test; its peer is [`PEER`].
pub(crate) const PORT: &str = "tw0";
pub(crate) const PEER: &str = "tw1";
pub(crate) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
pub(crate) const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// Runs `test` in a thread with a network namespace of its own, which the kernel removes with the thread, panic or not.
/// Without the rights or a program (beside `ip`) for that, says so and returns.
pub(crate) fn in_namespace(programs: &[&str], test: impl FnOnce() + Send + 'static) {
    for program in [&["ip"], programs].concat() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            eprintln!("SKIPPED: no program {program} in PATH");
            return;
        }
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: moves this thread alone to a new namespace; touches no memory.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let why = io::Error::last_os_error();
            eprintln!("SKIPPED: cannot make a network namespace: {why}");
            return;
        }
        ip("link set lo up");
        ip(&format!(
            "link add {PORT} address {} numrxqueues 2 numtxqueues 2 type veth peer name {PEER} address {} numrxqueues 2 numtxqueues 2",
            mac(MAC),
            mac(PEER_MAC)
        ));
        // Else the kernel's own neighbour discovery is among the counted frames.
        for device in [PORT, PEER] {
            ip(&format!("link set {device} addrgenmode none up"));
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// `ip` with these arguments, in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) {
    run("ip", arguments);
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

const FRAMES: usize = 64;
const FRAME_SIZE: usize = 2048;
const RING: usize = 64;

/// A bare AF_XDP socket in copy mode that only receives: memory, a fill ring with all frames in it, and a receive ring.
pub(crate) struct Xsk {
    fd: OwnedFd,
    umem: Mapping,
    rx: Mapping,
    rx_offsets: libc::xdp_ring_offset,
    // Kept mapped: the kernel reads it.
    _fill: Mapping,
}

impl Xsk {
    /// A closed socket gives its queue back a little later (the kernel frees its buffers in a work queue), so a queue that
    /// is busy is tried again for a while.
    pub(crate) fn bind(device: &str, queue: u32) -> io::Result<Self> {
        for _ in 0..200 {
            match Self::try_bind(device, queue) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                done => return done,
            }
        }
        Self::try_bind(device, queue)
    }

    fn try_bind(device: &str, queue: u32) -> io::Result<Self> {
        // SAFETY: plain socket call; the descriptor is ours.
        let fd = unsafe {
            let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let umem = Mapping::anonymous(FRAMES * FRAME_SIZE)?;
        let registration = libc::xdp_umem_reg {
            addr: umem.start as u64,
            len: umem.length as u64,
            chunk_size: FRAME_SIZE as u32,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        set(&fd, libc::XDP_UMEM_REG, &registration)?;
        set(&fd, libc::XDP_UMEM_FILL_RING, &(RING as u32))?;
        set(&fd, libc::XDP_UMEM_COMPLETION_RING, &(RING as u32))?;
        set(&fd, libc::XDP_RX_RING, &(RING as u32))?;

        // SAFETY: all zeroes is a valid value of these structures of integers.
        let (mut offsets, mut address): (libc::xdp_mmap_offsets, libc::sockaddr_xdp) =
            unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&offsets) as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes to `offsets`.
        check(unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_XDP,
                libc::XDP_MMAP_OFFSETS,
                (&raw mut offsets).cast(),
                &raw mut length,
            )
        })?;
        let fill = Mapping::of(
            &fd,
            offsets.fr.desc as usize + RING * 8,
            libc::XDP_UMEM_PGOFF_FILL_RING as i64,
        )?;
        let rx = Mapping::of(
            &fd,
            offsets.rx.desc as usize + RING * 16,
            libc::XDP_PGOFF_RX_RING,
        )?;
        for frame in 0..RING {
            fill.write(
                offsets.fr.desc as usize + frame * 8,
                (frame * FRAME_SIZE) as u64,
            );
        }
        fill.write(offsets.fr.producer as usize, RING as u32);

        address.sxdp_family = libc::AF_XDP as u16;
        address.sxdp_flags = libc::XDP_COPY;
        address.sxdp_ifindex =
            if_index(device).ok_or_else(|| io::Error::other(format!("no device {device}")))?;
        address.sxdp_queue_id = queue;
        // SAFETY: a whole `sockaddr_xdp`.
        check(unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        })?;
        Ok(Self {
            fd,
            umem,
            rx,
            rx_offsets: offsets.rx,
            _fill: fill,
        })
    }

    /// The next received frame, if one comes within two seconds.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut poll = libc::pollfd {
            fd: self.fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid entry.
        if unsafe { libc::poll(&raw mut poll, 1, 2_000) } <= 0 {
            return None;
        }
        let consumer: u32 = self.rx.read(self.rx_offsets.consumer as usize);
        let producer: u32 = self.rx.read(self.rx_offsets.producer as usize);
        assert_ne!(consumer, producer, "readable, so not empty");
        let slot = consumer as usize % RING;
        let descriptor: libc::xdp_desc = self.rx.read(self.rx_offsets.desc as usize + slot * 16);
        self.rx
            .write(self.rx_offsets.consumer as usize, consumer.wrapping_add(1));
        Some(
            (0..descriptor.len as usize)
                .map(|at| self.umem.read(descriptor.addr as usize + at))
                .collect(),
        )
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub(crate) fn if_index(device: &str) -> Option<u32> {
    let name = std::ffi::CString::new(device).unwrap();
    // SAFETY: a string that ends in NUL.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

fn set<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads the size given.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Memory from `mmap`, shared with the kernel.
struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    fn anonymous(length: usize) -> io::Result<Self> {
        Self::map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn of(fd: &OwnedFd, length: usize, offset: i64) -> io::Result<Self> {
        Self::map(
            length,
            libc::MAP_SHARED | libc::MAP_POPULATE,
            fd.as_raw_fd(),
            offset,
        )
    }

    fn map(length: usize, flags: libc::c_int, fd: libc::c_int, offset: i64) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    fn read<T: Copy>(&self, at: usize) -> T {
        assert!(at + size_of::<T>() <= self.length);
        // SAFETY: in bounds; integers and structures of integers only.
        unsafe { self.start.add(at).cast::<T>().read_volatile() }
    }

    fn write<T: Copy>(&self, at: usize, value: T) {
        assert!(at + size_of::<T>() <= self.length);
        // SAFETY: in bounds, aligned by the kernel's layout of rings.
        unsafe { self.start.add(at).cast::<T>().write_volatile(value) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, used by nobody any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}
