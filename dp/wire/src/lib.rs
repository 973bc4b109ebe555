//! The wire as typed structs of asserted sizes. Every integer is in network byte order.
//!
//! `docs/protocol.md` says the same byte for byte, for people who write a decoder of their own.

#![forbid(unsafe_code)]

pub mod checksum;
pub mod ecn;
pub mod ethernet;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod flow_key;
pub mod ip;
pub mod oam;
pub mod overlay;
pub mod udp;

/// Octets that a packet grows by over an IPv4 underlay: IPv4, UDP, both Twinseal headers and both tags.
pub const OVERHEAD_V4: usize = 20 + 8 + overlay::OVERHEAD;
/// Octets that a packet grows by over an IPv6 underlay.
pub const OVERHEAD_V6: usize = 40 + 8 + overlay::OVERHEAD;

const _: () = assert!(OVERHEAD_V4 == 92 && OVERHEAD_V6 == 112);
