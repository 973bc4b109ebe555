//! What can go wrong, and what to do about it.

use std::error::Error;
use std::io;

use crate::caps::{self, lacking};
use crate::files::too_many;

/// Why steering could not be set up or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SteerError {
    /// The network namespace has no device of this name.
    #[error("no network device {name:?} in this network namespace: `ip link` lists them")]
    NoSuchDevice {
        /// The name as given.
        name: String,
    },

    /// Another XDP program is attached to the device; only one can be.
    #[error(
        "another XDP program is attached to {name}: {by}. `ip -details link show {name}` shows it, \
         `ip link set {name} xdp off` detaches it (if a bpf_link holds it, stop the program that owns the link)"
    )]
    AlreadyAttached {
        /// The device.
        name: String,
        /// What is known about the other program: its name, id and mode.
        by: String,
    },

    /// The process may not load or attach BPF programs.
    #[error("{action}: not permitted: {}", lacking(.missing))]
    NoPermission {
        /// What was attempted.
        action: String,
        /// The capabilities that the process does not have.
        missing: Vec<&'static str>,
    },

    /// The driver does not take this program, and native mode was asked for.
    #[error(
        "the driver of {name} refuses native XDP: {source}. Often the MTU is too large, the queues are too few, or the \
         driver has no XDP (`dmesg` may say which). Change that, or ask for generic mode and accept its speed"
    )]
    NativeUnsupported {
        /// The device.
        name: String,
        /// The driver's answer.
        source: io::Error,
    },

    /// The kernel's verifier rejected the program.
    #[error(
        "the kernel's verifier rejected the steering program (it needs Linux 5.18 or newer). Please report this with \
         the kernel's version and this log:\n{log}"
    )]
    Verifier {
        /// The verifier's log.
        log: String,
    },

    /// A receive queue beyond what the program's socket map has room for.
    #[error(
        "receive queue {queue} is out of range: at most {max} queues (`ethtool -L <device> combined {max}`)"
    )]
    QueueOutOfRange {
        /// The queue as given.
        queue: u32,
        /// How many queues there may be.
        max: u32,
    },

    /// More entries than a map has room for. What was set before stays.
    #[error("{given} {what}: the steering program has room for {max}")]
    TooMany {
        /// What was given.
        what: &'static str,
        /// How many.
        given: usize,
        /// How many there may be.
        max: u32,
    },

    /// The process, or the system, has too many open files.
    #[error("{action}: {why}")]
    TooManyFiles {
        /// What was attempted.
        action: String,
        /// Whose files they are, and what to do.
        why: String,
    },

    /// The committed object is not what this crate expects: a broken build.
    #[error("the embedded BPF object is unusable: {detail}. Rebuild it with ci/build-ebpf")]
    Object {
        /// What is missing or wrong.
        detail: String,
    },

    /// The kernel refused a step for another reason.
    #[error("{action}: {source}")]
    Kernel {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl SteerError {
    /// The kernel's answer to `action`, sorted.
    pub(crate) fn kernel(action: impl Into<String>, source: io::Error) -> Self {
        let action = action.into();
        if let Some(why) = too_many(&source) {
            return Self::TooManyFiles { action, why };
        }
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::NoPermission {
                action,
                missing: caps::missing(),
            },
            _ => Self::Kernel { action, source },
        }
    }

    /// An error from aya. It says what failed in words of its own; the errno, if any, is at the end of its sources.
    pub(crate) fn aya(action: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(os) = error.downcast_ref::<io::Error>()
                && let Some(errno) = os.raw_os_error()
            {
                return Self::kernel(action, io::Error::from_raw_os_error(errno));
            }
            cause = error.source();
        }
        Self::Object {
            detail: format!("{}: {error}", action.into()),
        }
    }
}
