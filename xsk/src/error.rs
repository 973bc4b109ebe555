//! What can go wrong, and what to do about it.

use std::fmt;
use std::io;

/// Which of a socket's four rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingName {
    /// Received packets, kernel to user.
    Rx,
    /// Packets to send, user to kernel.
    Tx,
    /// Empty chunks for reception, user to kernel.
    Fill,
    /// Chunks whose packet was sent, kernel to user.
    Completion,
}

impl fmt::Display for RingName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
            Self::Fill => "fill",
            Self::Completion => "completion",
        })
    }
}

/// An error of this crate. Every message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XskError {
    /// No device of this name is in the network namespace of the calling thread.
    #[error("no network device '{name}' in this network namespace: check the name with `ip link`")]
    NoSuchDevice {
        /// The name that was asked for.
        name: String,
    },
    /// The device has fewer queues than asked for.
    #[error(
        "device '{name}' has no queue {queue}, it has {queues}: use a lower queue, or add queues with `ethtool -L`"
    )]
    NoSuchQueue {
        /// The device.
        name: String,
        /// The queue that was asked for, counted from 0.
        queue: u32,
        /// How many queues the device has.
        queues: u32,
    },
    /// Another socket is bound to this queue.
    #[error(
        "queue {queue} of '{name}' is in use by another AF_XDP socket: stop that program or use another queue"
    )]
    QueueBusy {
        /// The device.
        name: String,
        /// The queue, counted from 0.
        queue: u32,
    },
    /// The process may not do this.
    #[error(
        "not permitted ({call}): give the process CAP_NET_RAW (and CAP_NET_ADMIN and CAP_BPF for XDP and busy polling)"
    )]
    NoPermission {
        /// The call that was refused.
        call: &'static str,
    },
    /// The driver cannot do what was asked for.
    #[error(
        "the driver of '{name}' cannot {what}: use bind mode 'auto' or 'copy', or turn the feature off"
    )]
    DriverCannot {
        /// The device.
        name: String,
        /// The feature that is missing.
        what: &'static str,
    },
    /// The kernel is too old, or built without AF_XDP.
    #[error(
        "this kernel has no {what}: use Linux 5.11 or later with CONFIG_XDP_SOCKETS (6.6 for multi-buffer)"
    )]
    KernelCannot {
        /// What is missing.
        what: &'static str,
    },
    /// A ring size is not a power of two from 1 to 2^20.
    #[error("{which} ring size {value} is not usable: use a power of two from 1 to 1048576")]
    BadRingSize {
        /// Which ring.
        which: RingName,
        /// The size that was asked for, in entries.
        value: u32,
    },
    /// The chunk size is no power of two from 2048 to 32768, or too large for the kernel.
    #[error(
        "frame size {value} is not usable: use 2048 or 4096 (up to 32768 only for memory without sockets)"
    )]
    BadFrameSize {
        /// The size that was asked for, in bytes.
        value: u32,
    },
    /// No chunks at all, or too many to address.
    #[error("frame count {value} is not usable: use 1 to {max}")]
    BadFrameCount {
        /// The count that was asked for.
        value: u32,
        /// The largest count allowed.
        max: u32,
    },
    /// Too many jumbo frames, or chunks so large that there is no need of them.
    #[error("{value} jumbo frames are not usable: use at most {max} with this frame size")]
    BadJumboFrames {
        /// The count that was asked for.
        value: u32,
        /// The largest count allowed.
        max: u32,
    },
    /// The headroom leaves no space for a packet.
    #[error("headroom {value} is not usable: use at most {max} bytes with this frame size")]
    BadHeadroom {
        /// The headroom that was asked for, in bytes.
        value: u32,
        /// The largest headroom allowed, in bytes.
        max: u32,
    },
    /// Huge pages were required and there are not enough free ones.
    #[error(
        "no {bytes} bytes of free huge pages: raise /proc/sys/vm/nr_hugepages, or do not require huge pages"
    )]
    NoHugePages {
        /// How many bytes were needed.
        bytes: usize,
    },
    /// The kernel refused to pin the memory.
    #[error(
        "cannot pin {bytes} bytes of packet memory: raise the locked-memory limit (`ulimit -l`, LimitMEMLOCK=), or give CAP_IPC_LOCK"
    )]
    MemoryLock {
        /// How many bytes were to be pinned.
        bytes: usize,
    },
    /// The device went away under the socket.
    #[error("device '{name}' is gone: close the socket, and open it again when the device is back")]
    DeviceGone {
        /// The device.
        name: String,
    },
    /// The process, or the system, has too many open files.
    #[error(
        "{call}: {source}: raise the limit of open files (`ulimit -n`, LimitNOFILE=; `sysctl fs.file-max` for the system's)"
    )]
    TooManyFiles {
        /// The call that failed.
        call: &'static str,
        /// Whose limit it is: `EMFILE` or `ENFILE`.
        source: io::Error,
    },
    /// A system call failed in another way.
    #[error("{call} failed: {source}")]
    Kernel {
        /// The call that failed.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl XskError {
    /// The error of a call whose `errno` has no special meaning there, apart from permission.
    pub(crate) fn kernel(call: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::NoPermission { call },
            Some(libc::EMFILE | libc::ENFILE) => Self::TooManyFiles { call, source },
            _ => Self::Kernel { call, source },
        }
    }
}
