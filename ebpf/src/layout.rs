//! What the XDP program and its loader agree on: map names and shapes, roles, verdicts.
//!
//! The program includes this very file by path, so the two cannot drift apart. It therefore uses `core` only.
//! Multi-byte fields are in network order, as in a packet: the program compares bytes and swaps nothing.

/// Receive queues a port may have: the size of the map of AF_XDP sockets.
pub const MAX_QUEUES: u32 = 256;

/// Own addresses of the host a port may know.
pub const MAX_LOCAL_ADDRESSES: u32 = 16_384;

/// MAC addresses besides its own that an edge port may have.
pub const MAX_MACS: u32 = 1_024;

/// UDP endpoints an underlay port may listen on.
pub const MAX_ENDPOINTS: u32 = 4_096;

/// Senders that an edge port remembers to have let through to the kernel.
pub const MAX_SENDERS: u32 = 1_024;

/// Neighbours of the kernel's that an edge port knows; others count as new.
pub const MAX_KNOWN: u32 = 65_536;

/// How long one that was let through costs nothing more. Neighbours that the kernel asks for in vain are gone by then.
pub const SENDER_NS: u64 = 10_000_000_000;

/// What an edge port's budgets save up at most: what comes to them in this time. It is also how long the kernel keeps a
/// neighbour at least, so that in any such time no more are made than twice that.
pub const BUDGET_NS: u64 = 5_000_000_000;

/// The time in which a host that is in the map `KNOWN` may ask once more, and tell once more. It can save up what comes in
/// [`BUDGET_NS`]: ten. Hosts ask for their gateway once a second at most, so this is for those that do not stop.
pub const KNOWN_NS: u64 = BUDGET_NS / 10;

/// The budgets of an edge port, each a place in the map `BUDGETS`, and behind these once more for IPv6, as the kernel has a
/// table of neighbours for each family: frames that make the kernel learn a neighbour. They are
/// apart, so that none of these uses up what another needs. What hosts of the map `KNOWN` ask and tell uses none of them up.
pub mod budget {
    /// ARP requests and neighbour solicitations for the port's own addresses.
    pub const ASKED: u32 = 0;
    /// Others of ARP and neighbour discovery that nobody here asked for.
    pub const TOLD: u32 = 1;
    /// Packets to the kernel from senders that have not been heard lately: it answers them, and so asks for them.
    pub const SENDERS: u32 = 2;
    /// How many a family has.
    pub const COUNT: u32 = 3;
}

/// IPv6 extension headers the program walks before it gives a packet to the kernel.
pub const MAX_EXTENSION_HEADERS: usize = 4;

/// Key of the map of own addresses: an IPv6 address, or an IPv4 address in its mapped form (RFC 4291, 2.5.5.2).
/// Its bytes in memory are those of the packet. (Words, as the program's stack wants aligned stores.)
pub type LocalKey = [u32; 4];

/// Key of the map of MAC addresses: its bytes in memory are those of the packet, and two zeroes.
pub type MacKey = u64;

/// The key of a MAC address as it stands in a packet.
#[inline(always)]
pub const fn mac_key([a, b, c, d, e, f]: [u8; 6]) -> MacKey {
    u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])
}

/// Key of the map of hosts that the kernel knows as neighbours: an address and a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct HostKey {
    /// The address.
    pub address: LocalKey,
    /// The MAC address that the kernel knows it by.
    pub mac: MacKey,
}

/// Up to when a host of the map `KNOWN` has spent what it may ask ([`budget::ASKED`]), and what it may tell
/// ([`budget::TOLD`]).
pub type HostSpent = [u64; 2];

/// Key of the map of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct EndpointKey {
    /// The local address.
    pub address: LocalKey,
    /// The UDP port; its bytes in memory are those of the packet.
    pub port: u16,
    /// Zero: the kernel hashes all bytes of a key, so there is no padding.
    pub zero: u16,
}

impl EndpointKey {
    /// The key of an address and a UDP port as they stand in a packet.
    #[inline(always)]
    pub const fn new(address: LocalKey, port: [u8; 2]) -> Self {
        Self {
            address,
            port: u16::from_ne_bytes(port),
            zero: 0,
        }
    }
}

/// The key of an IPv4 address as it stands in a packet.
#[inline(always)]
pub const fn v4_key(address: [u8; 4]) -> LocalKey {
    [0, 0, MAPPED, u32::from_ne_bytes(address)]
}

/// The key of an IPv6 address as it stands in a packet.
#[inline(always)]
pub const fn v6_key(address: [u8; 16]) -> LocalKey {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

/// Whether the key of an IPv6 address is that of an IPv4 address too. An IPv6 header never rightly carries a mapped
/// address (RFC 6890), and here it would be mistaken for IPv4.
#[inline(always)]
pub const fn is_mapped(v6: &LocalKey) -> bool {
    v6[0] == 0 && v6[1] == 0 && v6[2] == MAPPED
}

const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// What a port is, as written in [`Config::role`]. Zero, the value of a fresh map, steers nothing.
pub mod role {
    /// Everything passes to the kernel.
    pub const NONE: u8 = 0;
    /// Faces other nodes: our UDP endpoints are ours.
    pub const UNDERLAY: u8 = 1;
    /// Faces hosts and routes: what is addressed through us, not to us, is ours.
    pub const EDGE: u8 = 2;
    /// Faces hosts and bridges: all frames that a bridge would forward are ours.
    pub const BRIDGE: u8 = 3;
}

/// The only entry of the map `CONFIG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// One of [`role`].
    pub role: u8,
    /// 1 if nothing may reach the kernel but what it needs itself, 0 else (edge).
    pub owned: u8,
    /// The port's own MAC address (edge and bridge).
    pub mac: [u8; 6],
    /// The time in which one more frame of [`budget::ASKED`] may pass, half a frame of the others: over IPv4, and over IPv6. 0:
    /// no budget (edge).
    pub interval_ns: [u64; 2],
}

/// The interval with which an edge port's hosts can make this many neighbours in any [`BUDGET_NS`]: half of them by
/// [`budget::ASKED`], a quarter by each other.
pub const fn interval_ns(neighbours: u32) -> u64 {
    let neighbours = if neighbours == 0 { 1 } else { neighbours };
    4 * BUDGET_NS / neighbours as u64
}

/// Declares [`Verdict`], its list and its names in one place.
macro_rules! verdicts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal or $dropped:literal,)*) => {
        /// What the program decided about a frame, and the index of that decision's counter. On an owned port most of what
        /// passes elsewhere is dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Verdict {
            $($(#[$doc])* $variant,)*
        }

        impl Verdict {
            /// All verdicts, in the order of their counters.
            pub const ALL: &'static [Verdict] = &[$(Verdict::$variant,)*];

            /// How many verdicts there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The counter's name; empty for what never passes.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Verdict::$variant => $name,)*
                }
            }

            /// The name of the counter of frames that were dropped for it on an edge port, at [`COUNT`](Self::COUNT) and
            /// its number. None for what is never dropped.
            pub const fn dropped_name(self) -> Option<&'static str> {
                let name = match self {
                    $(Verdict::$variant => $dropped,)*
                };
                match name.is_empty() {
                    true => None,
                    false => Some(name),
                }
            }
        }
    };
}

verdicts! {
    /// Ours: handed to the AF_XDP socket of its receive queue. (That socket may still drop it: its ring counts that.)
    Redirected = "redirected" or "",
    /// Ours, but its receive queue has no AF_XDP socket: passed to the kernel.
    NoSocket = "no_socket" or "drop_no_socket",
    /// The port has no role yet.
    PassUnconfigured = "pass_unconfigured" or "",
    /// Neither IPv4 nor IPv6: ARP, LLDP, LACP, MPLS and so on.
    PassNotIp = "pass_not_ip" or "drop_not_ip",
    /// Carries an 802.1Q or 802.1ad tag: the kernel's VLAN devices have these. (A tag of VLAN 0 only tells a priority: it is
    /// looked through, but on a bridge port. Of several tags, and of another type's, the first must not be of VLAN 0 on an edge
    /// port: the kernel would not see it.)
    PassVlan = "pass_vlan" or "drop_vlan",
    /// Underlay: not UDP to one of our endpoints.
    PassNotOurs = "pass_not_ours" or "drop_not_ours",
    /// Edge: the frame is for another station's MAC address, or for one of the device's that the program was not told.
    PassOtherMac = "pass_other_mac" or "drop_other_mac",
    /// Edge and bridge: addressed to this host itself.
    PassLocal = "pass_local" or "",
    /// Edge: a group MAC address, or a multicast or broadcast destination.
    PassMulticast = "pass_multicast" or "drop_multicast",
    /// Edge: a destination that no router forwards: link-local, loopback, unspecified, IPv4-mapped.
    PassScope = "pass_scope" or "drop_scope",
    /// Bridge: 802.1D link control (01-80-C2-00-00-0x: STP, LACP, LLDP), which no bridge forwards.
    PassLinkControl = "pass_link_control" or "drop_link_control",
    /// Underlay: an IP fragment; the kernel reassembles or answers it.
    PassFragment = "pass_fragment" or "drop_fragment",
    /// Underlay: more IPv6 extension headers than we walk, or a routing header with hops still to visit.
    PassExtension = "pass_extension" or "drop_extension",
    /// The frame ends inside a header.
    PassTruncated = "pass_truncated" or "drop_truncated",
    /// A version or header length that contradicts the EtherType.
    PassMalformed = "pass_malformed" or "drop_malformed",
    /// Edge: the kernel would have learnt a neighbour by it, and the port's hosts make more than their share.
    NeighbourShare = "" or "drop_neighbour_share",
    /// Edge: ARP or neighbour discovery of a host that the kernel knows, again and again.
    Repeated = "" or "drop_repeated",
    /// Owned edge: a router advertisement or a redirect, by which a host would tell this router its routes.
    RouterClaim = "" or "drop_router_claim",
    /// Edge: a packet to a unicast address that is not the port's own, in a frame to a multicast or broadcast MAC address.
    UnicastInMulticast = "" or "drop_unicast_in_multicast",
}
