//! Finding out that the kernel is done with a closed socket's memory.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::error::XskError;
use crate::sys::{self, Mapping};

/// A second, idle AF_XDP socket with one page of its own, made together with the real one.
///
/// The kernel lets one buffer pool be on a queue. The real socket's pool leaves the queue only when all of this is
/// over: no duplicate of its descriptor is open, no packet that it sent is in flight, and the driver has been told
/// to let go of the memory. So when this socket's bind is no longer refused with EBUSY, nothing can touch the real
/// socket's chunks.
///
/// It is made in advance because it must be in the same network namespace, and because the process may have given
/// up its privileges, or moved to another namespace, by the time the real socket is closed.
#[derive(Debug)]
pub(crate) struct ReleaseProbe {
    fd: OwnedFd,
    ifindex: u32,
    queue: u32,
    /// Registered with the kernel, never used.
    _page: Mapping,
}

impl ReleaseProbe {
    pub(crate) fn new(ifindex: u32, queue: u32) -> Result<Self, XskError> {
        const PAGE: usize = 4096;
        let call = "preparing the release probe";
        let make = || {
            let page = Mapping::ordinary(PAGE, false)?;
            let fd = sys::xdp_socket()?;
            let registration = libc::xdp_umem_reg {
                addr: page.addr().as_ptr() as u64,
                len: PAGE as u64,
                chunk_size: PAGE as u32,
                headroom: 0,
                flags: 0,
                tx_metadata_len: 0,
            };
            sys::set_option(fd.as_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, registration)?;
            for ring in [
                libc::XDP_UMEM_FILL_RING,
                libc::XDP_UMEM_COMPLETION_RING,
                libc::XDP_RX_RING,
            ] {
                sys::set_option(fd.as_fd(), libc::SOL_XDP, ring, 1u32)?;
            }
            Ok((page, fd))
        };
        let (page, fd) = make().map_err(|source| XskError::kernel(call, source))?;
        Ok(Self {
            fd,
            ifindex,
            queue,
            _page: page,
        })
    }

    /// Waits until the queue has no buffer pool, at most for `limit`. False if it still has one then.
    ///
    /// Copy mode needs no driver, so taking the queue for a moment disturbs nothing on the device.
    pub(crate) fn wait(self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            match sys::bind(self.fd.as_fd(), self.ifindex, self.queue, libc::XDP_COPY) {
                Ok(()) => return true,
                // The device is gone, or the queue is: both take their pools with them. EINVAL has no other cause left.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)) => {
                    return true;
                }
                // EBUSY, or something like ENOMEM that says nothing about the queue.
                Err(_) if Instant::now() >= deadline => return false,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}
