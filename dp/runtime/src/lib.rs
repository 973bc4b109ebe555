//! What runs packets: [`ports`], where they enter and leave, and [`workers`], the threads between.

pub mod ports;
pub mod workers;

use std::time::SystemTime;

/// Nanoseconds since 1970 by the system's clock; zero if that is before.
fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() as u64
}
