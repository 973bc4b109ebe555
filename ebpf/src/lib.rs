//! The XDP steering program: its object, its map layout and its loader.
//!
//! One program serves both roles of a port. It hands the frames that are Twinseal's to the AF_XDP socket of their
//! receive queue and passes all others to the kernel; it changes nothing, and drops nothing but on edge ports: what fills
//! the kernel's table of neighbours, and on owned ones what the kernel does not need. Each [`Steering`] is an
//! instance of its own, with its own maps, on one network device:
//!
//! ```no_run
//! use std::os::fd::BorrowedFd;
//! use twinseal_ebpf::{Role, Steering, XdpMode};
//!
//! # fn run(xsk: BorrowedFd<'_>) -> Result<(), twinseal_ebpf::SteerError> {
//! let mut port = Steering::attach("eth1", Role::Underlay, XdpMode::Auto)?;
//! port.set_endpoints(&["192.0.2.1:51820".parse().unwrap()])?;
//! port.register(0, xsk)?; // last: from here on frames come
//! println!("steering in {} mode", port.outcome());
//! # Ok(())
//! # }
//! ```
//!
//! The program is attached by a `bpf_link`. When its file descriptor goes, on drop or because the process died by
//! whatever signal, the kernel detaches the program and the host hears all its traffic again.
//!
//! # What the program cannot see
//! - A VLAN tag that the hardware has taken out of the frame. On such a port a tagged frame looks untagged, so turn
//!   the offload off (`ethtool -K <dev> rxvlan off`; on a veth `txvlan off` at the other end): see
//!   [`Steering::vlan_tags_hidden`].
//! - Whether the socket had room. [`Verdict::Redirected`] counts what was handed over; the socket's own statistics
//!   count what it dropped.
//!
//! # The object
//! The program's source is `program/`, built for the BPF target by another toolchain. The object is committed, so that
//! building this crate needs no such toolchain; `ci/build-ebpf` rebuilds it, `ci/check-ebpf` proves that it belongs to
//! the source. `README.md` tells more.

mod attached;
mod caps;
mod error;
mod files;
pub mod layout;
mod load;
mod neighbours;
mod role;
mod set;
mod steering;
mod sys;

pub use caps::{lacking, missing as missing_capabilities};
pub use error::SteerError;
pub use files::too_many as too_many_files;
pub use layout::Verdict;
pub use role::{Action, Role, XdpMode, XdpOutcome};
pub use steering::Steering;

/// The ELF object of the XDP program, as committed.
pub const OBJECT: &[u8] = aya::include_bytes_aligned!("../twinseal.bpf.o");
