//! AF_XDP memory, rings and sockets.
//!
//! # What is here
//!
//! | module | what |
//! |---|---|
//! | [`Umem`] | packet memory cut into equal chunks, and the list of the free ones |
//! | [`Frame`] | a move-only token over one chunk, and the packet inside it |
//! | [`Socket`] | one queue of one device: its four rings and what they hold |
//! | [`ring`] | ring arithmetic, which knows no kernel and runs over plain memory too |
//!
//! A worker thread owns one [`Umem`] and opens any number of [`Socket`]s on it, on different devices. Each socket
//! registers the memory itself, so a frame that was received on one device leaves on another with no copy, and
//! closing one socket leaves the others as they are. A `Umem` works with no socket as well: in-memory ports, tests
//! and fuzz targets use the same frames.
//!
//! # Who owns a chunk
//!
//! The safety of the whole crate stands on one rule: **a chunk is in exactly one place**.
//!
//! ```text
//!                    alloc                  transmit
//!   free list of ------------> Frame ----------------------> held by a Socket
//!     the Umem   <------------ (code) <---------------------- (kernel may touch it)
//!        |            free             receive                  |        ^
//!        |                                                      |        |
//!        +<------------------- complete, close -----------------+        |
//!        +----------------------------- fill ----------------------------+
//! ```
//!
//! - The free list holds the chunk's number; nobody holds a pointer to it.
//! - A [`Frame`] is the only way to the bytes. It cannot be cloned, and each arrow above consumes it or creates it,
//!   so two frames never name one chunk and `data_mut()` never aliases.
//! - A socket keeps one bit for each chunk that it gave to the kernel. A descriptor that comes back is believed
//!   only if its bit is set; the bit is cleared before the token is made. So a kernel or driver that reports an
//!   address twice, or one it never got, is counted ([`Counters`]) and ignored: it cannot forge a token.
//!
//! A jumbo frame is a run of chunks that lie side by side, apart from the others. It moves as one, with the first
//! chunk's token for all; only a socket takes note of each chunk, and makes the token anew when the kernel has none of
//! them any more. The kernel receives into ordinary chunks alone: a packet over several of them is copied into a jumbo
//! frame. Sending copies nothing. Packets that fit a chunk have no part in this.
//!
//! What may still be touched is never unmapped. Dropping a [`Umem`] unmaps only if every chunk is on the free list;
//! otherwise the mapping is left in place for the rest of the process, so an outstanding `Frame` stays valid.
//! Dropping a [`Socket`] without [`Socket::close`] loses its chunks to the pool, which is a leak and no danger.
//!
//! # Closing
//!
//! `close(2)` on an AF_XDP socket does not mean that the device is done with the memory: the kernel takes the
//! buffer pool off the queue later, from a workqueue, and a zero-copy device may still write into it until then. A
//! duplicate of the descriptor or a child between `fork` and `exec` keeps the socket alive as well. Therefore
//! [`Socket::close`] waits until the kernel says that the queue is free, and only then gives the chunks back. If
//! that does not happen in time they are kept out of the pool and reported in [`Closed::kept`].
//!
//! # Cost
//!
//! [`Socket::fill`], [`Socket::receive`], [`Socket::transmit`], [`Socket::complete`], [`Umem::alloc`] and
//! [`Umem::free`] take no lock, allocate nothing and make no system call. Each of the ring calls touches the shared
//! producer and consumer words once a batch. System calls are made only in [`Socket::wake_tx`] and
//! [`Socket::wake_rx`].

mod chunks;
mod config;
mod error;
mod frame;
mod kernel;
mod ledger;
#[cfg(any(test, feature = "oracle"))]
pub mod oracle;
mod release;
pub mod ring;
mod socket;
mod sys;
mod umem;

pub use config::{
    Amount, BindMode, BusyPoll, Counters, Outcome, Positions, RingPosition, SocketConfig,
    Statistics, Wake, ZeroCopy,
};
pub use error::{RingName, XskError};
pub use frame::Frame;
pub use socket::{Closed, Socket};
pub use sys::queue_count;
pub use umem::{HugePages, Pages, Umem, UmemConfig};
