//! A neighbour, and whether packets go to it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use twinseal_wire::ethernet::Mac;

/// A neighbour's hardware address. Workers mark those that they send to, so that the control thread knows which to keep
/// fresh; the mark is no part of what a neighbour is.
#[derive(Debug)]
pub struct Neighbour {
    mac: Mac,
    used: AtomicBool,
}

impl Neighbour {
    /// Its hardware address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its hardware address, to send to.
    #[inline(always)]
    pub fn send_to(&self) -> Mac {
        // As a rule it is set, and the cache line stays everybody's.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        self.mac
    }

    /// Whether packets were sent to it since this was last asked.
    pub fn take_used(&self) -> bool {
        self.used.load(Relaxed) && self.used.swap(false, Relaxed)
    }
}

impl From<Mac> for Neighbour {
    fn from(mac: Mac) -> Self {
        Self {
            mac,
            used: AtomicBool::new(false),
        }
    }
}

impl Clone for Neighbour {
    fn clone(&self) -> Self {
        Self {
            mac: self.mac,
            used: AtomicBool::new(self.used.load(Relaxed)),
        }
    }
}

impl PartialEq for Neighbour {
    fn eq(&self, other: &Self) -> bool {
        self.mac == other.mac
    }
}

impl Eq for Neighbour {}
