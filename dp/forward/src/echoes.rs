//! How many echo requests and replies there were.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use twinseal_fib::traffic::add;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Counted {
    /// This node asks.
    Asked,
    /// Another asked, and the reply is on its way.
    Answered,
    /// Another has replied to this node.
    Replied,
}

impl Counted {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Asked, Self::Answered, Self::Replied];

    /// As the control protocol and people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Asked => "requests_sent",
            Self::Answered => "requests_answered",
            Self::Replied => "replies_received",
        }
    }
}

/// One worker's counters.
#[derive(Default, Debug)]
pub struct Echoes([AtomicU64; Counted::ALL.len()]);

impl Echoes {
    /// Counts one. Only the owning worker's thread may call it.
    pub(super) fn count(&self, what: Counted) {
        add(&self.0[what as usize], 1);
    }

    /// How many so far.
    pub fn get(&self, what: Counted) -> u64 {
        self.0[what as usize].load(Relaxed)
    }
}
