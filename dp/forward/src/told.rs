//! What became of the ICMP errors that dropped packets called for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use twinseal_fib::traffic::add;

/// What became of an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Told {
    /// It is on its way to the sender.
    Sent,
    /// There were too many of late.
    RateLimited,
    /// This node has no address that it could come from.
    NoSource,
    /// The packet may not be answered: it is an error itself, or not the first fragment.
    NotAnswerable,
    /// There is no way back to the sender.
    NoWayBack,
}

impl Told {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Sent,
        Self::RateLimited,
        Self::NoSource,
        Self::NotAnswerable,
        Self::NoWayBack,
    ];

    /// As the control protocol and people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::RateLimited => "rate_limited",
            Self::NoSource => "no_source_address",
            Self::NotAnswerable => "not_answerable",
            Self::NoWayBack => "no_way_back",
        }
    }
}

/// One worker's counters.
#[derive(Default, Debug)]
pub struct Errors([AtomicU64; Told::ALL.len()]);

impl Errors {
    /// Counts one. Only the owning worker's thread may call it.
    pub(super) fn count(&self, told: Told) {
        add(&self.0[told as usize], 1);
    }

    /// How many so far.
    pub fn get(&self, told: Told) -> u64 {
        self.0[told as usize].load(Relaxed)
    }
}
