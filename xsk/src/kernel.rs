//! Opening a socket: memory registration, rings, bind.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use crate::config::{BindMode, Outcome, SocketConfig, ZeroCopy};
use crate::error::XskError;
use crate::ledger::Descriptor;
use crate::release::ReleaseProbe;
use crate::ring::{Consumer, Parts, Producer};
use crate::sys::{self, Mapping};
use crate::umem::Layout;

/// The rings of one socket, each with its own mapping.
#[derive(Debug)]
pub(crate) struct Rings {
    pub(crate) rx: Consumer<Descriptor, Mapping>,
    pub(crate) tx: Producer<Descriptor, Mapping>,
    pub(crate) fill: Producer<u64, Mapping>,
    pub(crate) completion: Consumer<u64, Mapping>,
}

/// What is asked for, and on what.
pub(crate) struct Request<'a> {
    pub(crate) name: &'a str,
    pub(crate) ifindex: u32,
    pub(crate) queue: u32,
    pub(crate) config: &'a SocketConfig,
}

/// The largest chunk that the kernel registers: a page, also on huge pages.
pub(crate) const MAX_FRAME_SIZE: usize = 4096;

/// After a socket is closed, the kernel takes its buffer pool off the queue from a workqueue. Opening waits this
/// long before it believes that a queue is in use.
const BUSY_PATIENCE: Duration = Duration::from_millis(300);

/// Makes a bound socket, and what tells when its queue is free again.
pub(crate) fn open(
    layout: &Layout,
    request: &Request<'_>,
) -> Result<(OwnedFd, Rings, Outcome, ReleaseProbe), XskError> {
    let config = request.config;
    let fd = sys::xdp_socket().map_err(|source| match source.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => XskError::KernelCannot { what: "AF_XDP" },
        _ => XskError::kernel("socket(AF_XDP)", source),
    })?;
    register(&fd, layout)?;
    let rings = map_rings(&fd, config)?;
    // Copy mode sends at most this many packets a call (32 unless told). Kernels before 6.17 do not know the option.
    let _ = sys::set_option(
        fd.as_fd(),
        libc::SOL_XDP,
        sys::XDP_MAX_TX_SKB_BUDGET,
        config.tx_size,
    );
    busy_poll(&fd, config)?;
    // Before the queue is taken: it is free again only some time after its socket is closed.
    let probe = ReleaseProbe::new(request.ifindex, request.queue)?;
    bind(&fd, request)?;
    let options: libc::xdp_options = sys::xdp_option(fd.as_fd(), libc::XDP_OPTIONS)
        .map_err(|source| XskError::kernel("getsockopt(XDP_OPTIONS)", source))?;
    let outcome = Outcome {
        bind: if options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0 {
            ZeroCopy::ZeroCopy
        } else {
            ZeroCopy::Copy
        },
        need_wakeup: config.need_wakeup,
        multi_buffer: config.multi_buffer,
    };
    Ok((fd, rings, outcome, probe))
}

fn register(fd: &OwnedFd, layout: &Layout) -> Result<(), XskError> {
    let registration = libc::xdp_umem_reg {
        addr: layout.base.as_ptr() as u64,
        len: layout.bytes() as u64,
        chunk_size: layout.size.into(),
        headroom: layout.kernel_headroom(),
        flags: 0,
        tx_metadata_len: 0,
    };
    sys::set_option(fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, registration).map_err(|source| {
        match source.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM) => XskError::MemoryLock {
                bytes: layout.bytes(),
            },
            _ => XskError::kernel("setsockopt(XDP_UMEM_REG)", source),
        }
    })
}

fn map_rings(fd: &OwnedFd, config: &SocketConfig) -> Result<Rings, XskError> {
    for (option, size, call) in [
        (libc::XDP_RX_RING, config.rx_size, "setsockopt(XDP_RX_RING)"),
        (libc::XDP_TX_RING, config.tx_size, "setsockopt(XDP_TX_RING)"),
        (
            libc::XDP_UMEM_FILL_RING,
            config.fill_size,
            "setsockopt(XDP_UMEM_FILL_RING)",
        ),
        (
            libc::XDP_UMEM_COMPLETION_RING,
            config.completion_size,
            "setsockopt(XDP_UMEM_COMPLETION_RING)",
        ),
    ] {
        sys::set_option(fd.as_fd(), libc::SOL_XDP, option, size)
            .map_err(|source| XskError::kernel(call, source))?;
    }
    let offsets: libc::xdp_mmap_offsets = sys::xdp_option(fd.as_fd(), libc::XDP_MMAP_OFFSETS)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ENOPROTOOPT) => XskError::KernelCannot {
                what: "need-wakeup flags in AF_XDP rings",
            },
            _ => XskError::kernel("getsockopt(XDP_MMAP_OFFSETS)", source),
        })?;
    let failed = |source| XskError::kernel("mmap of a ring", source);
    // SAFETY: each mapping is that of its ring, so its entries have the type given here and are valid for every bit
    // pattern. The kernel is the other side of each ring and keeps to its part. The socket is new, so there is no
    // second producer or consumer on ours, and there will be none: each ring is mapped here once.
    unsafe {
        let (parts, memory) =
            map_ring(fd, &offsets.rx, config.rx_size, libc::XDP_PGOFF_RX_RING).map_err(failed)?;
        let rx = Consumer::new(parts, memory);
        let (parts, memory) =
            map_ring(fd, &offsets.tx, config.tx_size, libc::XDP_PGOFF_TX_RING).map_err(failed)?;
        let tx = Producer::new(parts, memory);
        let (parts, memory) = map_ring(
            fd,
            &offsets.fr,
            config.fill_size,
            libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
        )
        .map_err(failed)?;
        let fill = Producer::new(parts, memory);
        let (parts, memory) = map_ring(
            fd,
            &offsets.cr,
            config.completion_size,
            libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
        )
        .map_err(failed)?;
        let completion = Consumer::new(parts, memory);
        Ok(Rings {
            rx,
            tx,
            fill,
            completion,
        })
    }
}

/// Maps one ring.
///
/// # Safety
/// `offsets`, `capacity` and `page_offset` are those of a ring of `fd` whose entries are `T`.
unsafe fn map_ring<T>(
    fd: &OwnedFd,
    offsets: &libc::xdp_ring_offset,
    capacity: u32,
    page_offset: libc::off_t,
) -> io::Result<(Parts<T>, Mapping)> {
    let len = offsets.desc as usize + capacity as usize * size_of::<T>();
    let memory = Mapping::ring(fd.as_fd(), len, page_offset)?;
    // SAFETY: the kernel places every part within the mapping, aligned for its type; the entries are the last.
    let at = |offset: u64| -> NonNull<u8> { unsafe { memory.addr().add(offset as usize) } };
    let parts = Parts {
        producer: at(offsets.producer).cast(),
        consumer: at(offsets.consumer).cast(),
        flags: at(offsets.flags).cast(),
        entries: at(offsets.desc).cast(),
        capacity,
    };
    Ok((parts, memory))
}

fn busy_poll(fd: &OwnedFd, config: &SocketConfig) -> Result<(), XskError> {
    let Some(poll) = config.busy_poll else {
        return Ok(());
    };
    for (option, value, call) in [
        (
            sys::SO_PREFER_BUSY_POLL,
            1,
            "setsockopt(SO_PREFER_BUSY_POLL)",
        ),
        (sys::SO_BUSY_POLL, poll.usecs, "setsockopt(SO_BUSY_POLL)"),
        (
            sys::SO_BUSY_POLL_BUDGET,
            poll.budget.into(),
            "setsockopt(SO_BUSY_POLL_BUDGET)",
        ),
    ] {
        sys::set_option(fd.as_fd(), libc::SOL_SOCKET, option, value).map_err(
            |source| match source.raw_os_error() {
                Some(libc::ENOPROTOOPT) => XskError::KernelCannot {
                    what: "preferred busy polling",
                },
                _ => XskError::kernel(call, source),
            },
        )?;
    }
    Ok(())
}

fn bind(fd: &OwnedFd, request: &Request<'_>) -> Result<(), XskError> {
    let Request {
        name,
        ifindex,
        queue,
        config,
    } = *request;
    // Without either flag the kernel tries zero-copy and falls back to copy.
    let mut flags = match config.bind {
        BindMode::Auto => 0,
        BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
        BindMode::Copy => libc::XDP_COPY,
    };
    if config.need_wakeup {
        flags |= libc::XDP_USE_NEED_WAKEUP;
    }
    if config.multi_buffer {
        flags |= libc::XDP_USE_SG;
    }
    let deadline = Instant::now() + BUSY_PATIENCE;
    let source = loop {
        match sys::bind(fd.as_fd(), ifindex, queue, flags) {
            Ok(()) => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => break error,
        }
    };
    let name = name.to_owned();
    Err(match source.raw_os_error() {
        Some(libc::EBUSY) => XskError::QueueBusy { name, queue },
        Some(libc::ENODEV | libc::ENXIO) => XskError::NoSuchDevice { name },
        Some(libc::EOPNOTSUPP) => {
            let what = if config.multi_buffer {
                "bind zero-copy with multi-buffer"
            } else {
                "bind zero-copy"
            };
            XskError::DriverCannot { name, what }
        }
        Some(libc::EINVAL) => match sys::queue_count(&name) {
            Some(queues) if queue >= queues => XskError::NoSuchQueue {
                name,
                queue,
                queues,
            },
            // The only flag here that an AF_XDP kernel may not know.
            _ if config.multi_buffer => XskError::KernelCannot {
                what: "multi-buffer AF_XDP",
            },
            _ => XskError::kernel("bind(AF_XDP)", source),
        },
        _ => XskError::kernel("bind(AF_XDP)", source),
    })
}
