//! A traffic generator with exact accounting.
//!
//! [`Sender`] (UDP sockets) and [`RawSender`] (crafted frames, any number of flows) send a [`Load`] of numbered
//! [`Payload`]s; a [`Receiver`] keeps a [`Tally`] of what became of them. [`Payload`] and [`Tally`] are pure and serve any
//! other transport as well. [`find_rate`] looks for the highest rate that loses nothing,
//! and tells the path's limit from the generator's.

mod load;
mod pacer;
mod payload;
mod rate;
mod receiver;
mod sender;
mod tally;

pub use crate::sys::BATCH;
pub use load::{Load, Outlet, Running, Sent, Until, send};
pub use pacer::Pacer;
pub use payload::{HEADER, Marker, Payload};
pub use rate::{
    Finding, KEEPS_UP, Rate, Search, Trial, TrialResult, VOID_AGAIN, Verdict, find_rate,
};
pub use receiver::{Receiver, wait_for};
pub use sender::{RawConfig, RawSender, Sender, SenderConfig};
pub use tally::{FlowTally, Latency, Summary, Tally};

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of [`Payload::sent_ns`].
pub fn now_ns() -> u64 {
    crate::sys::monotonic_ns()
}
