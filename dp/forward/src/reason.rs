//! Why packets are dropped. Every drop has one reason, and every reason a counter in each worker.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use twinseal_fib::traffic::{REASONS, add};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[DropReason] = &[$(DropReason::$variant,)*];

            /// As the control protocol and people call it.
            pub fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// It arrived on a port that the tables do not know (yet, or any more).
    UnknownPort => "unknown_port",
    /// It ends before its headers or the length that they say.
    Truncated => "truncated",
    /// The frame is for another hardware address.
    NotForUs => "not_for_us",
    /// Neither IPv4 nor IPv6.
    NotIp => "not_ip",
    /// It came from a host and holds more than its device's packets may: several in one, as segmentation offload leaves
    /// them to a device.
    SuperFrame => "super_frame",
    /// An IP header that makes no sense.
    BadIpHeader => "bad_ip_header",
    /// The IPv4 header's checksum is wrong.
    BadChecksum => "bad_checksum",
    /// A fragment of an outer packet; nodes send none.
    OuterFragment => "outer_fragment",
    /// It came from the underlay and is not UDP.
    NotOverlay => "not_overlay",
    /// The link header has a version, type or flag that we do not speak.
    BadLinkHeader => "bad_link_header",
    /// No link key has this receiver index.
    UnknownReceiver => "unknown_receiver",
    /// The link seal's counter was seen before.
    LinkReplayed => "link_replayed",
    /// The link seal's counter is older than the replay window.
    LinkTooOld => "link_too_old",
    /// The link seal does not verify: another key, or a changed packet.
    LinkAuthentication => "link_authentication",
    /// No label of this value on this link.
    UnknownLabel => "unknown_label",
    /// The circuit header's hop limit ran out.
    HopLimit => "hop_limit",
    /// Congestion was marked on a packet that cannot carry the mark (RFC 6040).
    EcnViolation => "ecn_violation",
    /// A payload type that we neither forward nor answer.
    UnsupportedPayload => "unsupported_payload",
    /// The circuit has no receive key of this epoch.
    UnknownEpoch => "unknown_epoch",
    /// The circuit seal's counter was seen before.
    CircuitReplayed => "circuit_replayed",
    /// The circuit seal's counter is older than the replay window.
    CircuitTooOld => "circuit_too_old",
    /// The circuit seal does not verify: another key, or a changed packet.
    CircuitAuthentication => "circuit_authentication",
    /// A source that no packet may have: multicast, loopback, unspecified, link-local, IPv4 in IPv6, an address of this
    /// node's own or the end of a subnet at an edge port of the VRF.
    BadSource => "bad_source",
    /// A destination that is not forwarded: multicast, loopback, link-local, IPv4 in IPv6, the end of a subnet at an edge
    /// port of the VRF.
    BadDestination => "bad_destination",
    /// The time to live or hop limit of the inner packet ran out.
    TtlExpired => "ttl_expired",
    /// The VRF has no route.
    NoRoute => "no_route",
    /// It is for an address of this node's own at an edge port of the VRF, and no echo request, which is all that is
    /// answered there. What comes in by that very port is the host's and never gets here.
    OwnAddress => "own_address",
    /// It is an echo request for an address of this node's own, and the VRF had too many answered of late.
    EchoLimited => "echo_limited",
    /// The route says so.
    Blackhole => "blackhole",
    /// No member of the group that its route leads to is up.
    GroupDown => "group_down",
    /// It would not fit the way out.
    PacketTooBig => "packet_too_big",
    /// The next hop's hardware address is not known yet; it is being asked for.
    NeighbourUnresolved => "neighbour_unresolved",
    /// The link's next hop is not known yet.
    LinkUnresolved => "link_unresolved",
    /// The link or circuit has no key to transmit with.
    NoTransmitKey => "no_transmit_key",
    /// The transmit key's counter reached its limit.
    CounterExhausted => "counter_exhausted",
    /// The frame has no room for the headers.
    NoHeadroom => "no_headroom",
    /// The port that it came by, or should leave by, is gone, or another VRF's now.
    PortGone => "port_gone",
    /// The port that it should leave by takes no more.
    TransmitFull => "transmit_full",
    /// A maintenance message (OAM) of a version, type or flags that we do not speak.
    OamUnknown => "oam_unknown",
    /// A maintenance request of a link or circuit that has had all of its answers for the moment.
    OamBudget => "oam_budget",
    /// It is for the node itself, and more of its kind have come than the node looks at for the moment.
    PuntBudget => "punt_budget",
    /// It is for the node itself, which is behind with those before it.
    PuntFull => "punt_full",
}

const _: () = assert!(
    DropReason::ALL.len() <= REASONS,
    "raise twinseal_fib::traffic::REASONS"
);

/// Why an inner packet is not forwarded, and the size that would have fitted where that is the reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused {
    pub(super) reason: DropReason,
    pub(super) mtu: u16,
}

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self { reason, mtu: 0 }
    }
}

/// One worker's counters.
#[derive(Debug)]
pub struct Drops {
    counts: [AtomicU64; DropReason::ALL.len()],
    /// The last receiver index that no key has; 0 if there was none.
    unknown_receiver: AtomicU32,
}

impl Default for Drops {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            unknown_receiver: AtomicU32::new(0),
        }
    }
}

impl Drops {
    /// Counts `n` packets. Only the owning worker's thread may call it.
    #[inline]
    pub fn count(&self, reason: DropReason, n: u64) {
        add(&self.counts[reason as usize], n);
    }

    /// How many so far.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize].load(Relaxed)
    }

    /// Notes what a packet that is dropped asked for.
    pub(super) fn note_unknown_receiver(&self, receiver: u32) {
        self.unknown_receiver.store(receiver, Relaxed);
    }

    /// The last one that was noted, once.
    pub fn take_unknown_receiver(&self) -> u32 {
        self.unknown_receiver.swap(0, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_numbers_index() {
        let names: std::collections::BTreeSet<_> =
            DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (n, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, n);
        }
    }
}
