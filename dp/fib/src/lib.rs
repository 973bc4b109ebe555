//! What workers look up: one immutable snapshot, published whole.
//!
//! A worker takes a reference to the snapshot for a batch ([`publish::Reader`]); the control thread builds the next one
//! beside it, sharing what did not change, and publishes it with a single store. So no packet sees half a transaction,
//! or a route whose target is not there.

pub mod draft;
pub mod group;
pub mod hash;
pub mod neighbour;
pub mod outer;
pub mod own;
pub mod paged;
pub mod prefetch;
pub mod publish;
pub mod traffic;
pub mod trie;

use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use twinseal_crypto::{OpenSa, SealSa};

use group::Group;
use hash::FastMap;
use neighbour::Neighbour;
use outer::OuterHeaders;
use own::{Barred, Source};
use paged::Paged;
use traffic::Traffic;
use trie::{Leaf, Tries, bitmap, burst};
use twinseal_wire::ethernet::{self, Mac};
use twinseal_wire::ip::{Dscp, Mapped};
use twinseal_wire::overlay::OVERHEAD;

/// A port's place in [`Fib::ports`] and in every worker; the same for as long as the port lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct PortIndex(pub u8);

/// How many ports a node may have.
pub const MAX_PORTS: usize = 64;

/// A link's place in [`Fib::links`]; the same for as long as the link is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkIndex(pub u32);

/// A circuit's place in [`Fib::circuits`]; the same for as long as the circuit is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CircuitIndex(pub u32);

/// A VRF's place in [`Fib::vrfs`]; the same for as long as the VRF is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VrfIndex(pub u32);

/// A group's place in [`Fib::groups`]; the same for as long as the group is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GroupIndex(pub u32);

/// A next hop's place in [`Fib::vias`]; the same for as long as anything leads there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NextHopIndex(pub u32);

/// Everything that a worker needs to forward. All indices in it are valid. Cloning shares it.
#[derive(Clone, Default)]
pub struct Fib {
    /// The number of the transaction, or neighbour change, that it came from.
    pub generation: u64,
    /// By [`PortIndex`]; `None` where no port has that index.
    pub ports: Vec<Option<Port>>,
    /// By [`VrfIndex`].
    pub vrfs: Paged<Vrf>,
    /// By [`LinkIndex`].
    pub links: Paged<Link>,
    /// By [`CircuitIndex`].
    pub circuits: Paged<Circuit>,
    /// By [`GroupIndex`].
    pub groups: Paged<Group>,
    /// By [`NextHopIndex`].
    pub vias: Paged<NextHop>,
    /// Where labels are swapped to; see [`Fib::label_action`].
    swaps: Paged<Swap>,
    /// Receive keys of links; see [`Fib::receiver`].
    receivers: Paged<InboundSa>,
    /// Finds them by the receiver index of the link header.
    pub receiver_root: burst::Root,
    /// What roots here, in links and in VRFs are looked up in.
    pub tries: Tries,
    /// Hardware addresses on edge ports.
    pub neighbours: Arc<FastMap<NeighbourKey, Neighbour>>,
}

/// A port as the pipeline sees it.
#[derive(Clone, Debug)]
pub struct Port {
    /// What it faces.
    pub role: PortRole,
    /// Its own hardware address, the source of frames that leave.
    pub mac: Mac,
    /// What else hosts may send frames for us to: the addresses of virtual routers.
    pub more_macs: Vec<Mac>,
    /// Octets of the largest IP packet that may leave.
    pub mtu: u16,
    /// Whether hosts may have left checksums and segmentation to a device that is none, so that packets are looked at for
    /// that as they come; never on an underlay port.
    pub finishes: bool,
    /// Octets of the largest IP packet that the device itself takes.
    pub device_mtu: u16,
    /// Where every frame goes, on a port with one peer only (a TAP device's host); else neighbours are looked up.
    pub peer: Option<Mac>,
    /// What the node's own packets out of it may come from, best first; only errors do.
    pub sources: Arc<[Source]>,
    /// The generation of the first tables in which this index is this port's, and it has this role. What is kept from
    /// one snapshot to another and names a port by its index, compares this too: the index may be another's by then.
    pub since: u64,
}

/// What a port faces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortRole {
    /// Hosts of one VRF.
    Edge(VrfIndex),
    /// Other nodes.
    Underlay,
}

/// A tenant's isolated layer 3 table.
#[derive(Clone, Default, Debug)]
pub struct Vrf {
    /// IPv4 routes; a leaf says a [`Target`].
    pub routes_v4: burst::Root,
    /// IPv6 routes.
    pub routes_v6: bitmap::Root,
    /// This node's IPv4 address on one of its edge ports, the source of ICMP errors where the port that they leave by has
    /// none; without either none are sent.
    pub v4: Option<Ipv4Addr>,
    /// The same for ICMPv6; not link-local.
    pub v6: Option<Ipv6Addr>,
    /// That no packet may come from.
    pub barred: Barred,
    /// One of its edge ports, whose place its budgets of ICMP errors and echo replies have; without it none are
    /// sent.
    pub errors: Option<PortIndex>,
}

/// Where a route leads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// Into a circuit.
    Circuit(CircuitIndex),
    /// Out of an edge port.
    NextHop(NextHopIndex),
    /// To one of several of the above, by flow.
    Group(GroupIndex),
    /// To nowhere.
    Blackhole,
    /// To this node itself: an address of its own at an edge port of the VRF.
    Own,
    /// To the network or broadcast address of a subnet at an edge port, which is nobody's.
    SubnetEnd,
}

/// How many circuits, groups, next hops or labels to swap there may be, each.
pub const MAX_PLACES: u32 = 1 << 28;

impl Target {
    /// Itself in 30 bits, never 0: two of kind, and a place.
    #[inline(always)]
    pub fn leaf(self) -> Leaf {
        match self {
            Self::Blackhole => 1,
            Self::Own => 2,
            Self::SubnetEnd => 3,
            Self::Circuit(CircuitIndex(place)) => 1 << 28 | place,
            Self::Group(GroupIndex(place)) => 2 << 28 | place,
            Self::NextHop(NextHopIndex(place)) => 3 << 28 | place,
        }
    }

    /// What a leaf says; `None` if it is none.
    #[inline(always)]
    pub fn of(leaf: Leaf) -> Option<Self> {
        let place = leaf & (MAX_PLACES - 1);
        match leaf >> 28 {
            1 => Some(Self::Circuit(CircuitIndex(place))),
            2 => Some(Self::Group(GroupIndex(place))),
            3 => Some(Self::NextHop(NextHopIndex(place))),
            _ => match leaf {
                1 => Some(Self::Blackhole),
                2 => Some(Self::Own),
                3 => Some(Self::SubnetEnd),
                _ => None,
            },
        }
    }
}

/// A next hop on an edge port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NextHop {
    /// The port.
    pub port: PortIndex,
    /// The neighbour; `None`: the packet's own destination.
    pub address: Option<Mapped>,
    /// What [`Fib::neighbours`] has of it, which then need not be searched.
    pub neighbour: Option<Neighbour>,
}

/// A hop to another node.
#[derive(Clone)]
pub struct Link {
    /// The underlay port.
    pub port: PortIndex,
    /// Ethernet, IP and UDP headers.
    pub outer: OuterHeaders,
    /// Octets of the largest outer IP packet.
    pub mtu: u16,
    /// What to seal with; `None` before a key transmits.
    pub transmit: Option<OutboundSa>,
    /// Offset of the lanes' source ports, so that links between the same nodes differ.
    pub source_port_salt: u16,
    /// Labels that may arrive on it; see [`Fib::label_action`].
    pub labels: burst::Root,
    /// Counters.
    pub traffic: Traffic,
}

impl Link {
    /// Octets of the largest inner packet that it carries.
    #[inline]
    pub fn inner_mtu(&self) -> u16 {
        let overhead = self.outer.len() - ethernet::LEN + OVERHEAD;
        self.mtu.saturating_sub(overhead as u16)
    }
}

/// A link's transmit key.
#[derive(Clone)]
pub struct OutboundSa {
    /// The key.
    pub sa: Arc<SealSa>,
    /// How the peer knows it.
    pub receiver: u32,
}

/// A link's receive key.
#[derive(Clone)]
pub struct InboundSa {
    /// The link that it belongs to.
    pub link: LinkIndex,
    /// The key.
    pub sa: Arc<OpenSa>,
}

/// An end-to-end path's edge. In its first cache line is all that sealing needs; keys to open with come after it.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Circuit {
    /// The same at both edges; goes into the additional data of the circuit seal.
    pub id: u64,
    /// Counters.
    pub traffic: Traffic,
    /// What to seal with; `None` before a key transmits.
    pub transmit: Option<Arc<SealSa>>,
    /// Where packets out of it are routed.
    pub vrf: VrfIndex,
    /// The first hop.
    pub link: LinkIndex,
    /// Its label there.
    pub label: u32,
    /// That packets start with.
    pub hop_limit: u8,
    /// Of the circuit header.
    pub dscp: Dscp,
    /// What to open with, by the low four bits of the epoch.
    pub receive: [Option<Arc<OpenSa>>; 16],
}

const _: () = assert!(std::mem::offset_of!(Circuit, receive) <= 64);

/// What to do with a label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LabelAction {
    /// Send on, under another label.
    Swap(Swap),
    /// Open; this node is the path's end.
    Egress(CircuitIndex),
}

/// Where a label leads, and what it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Swap {
    /// The next hop.
    pub link: LinkIndex,
    /// The label there.
    pub label: u32,
}

/// The key of [`Fib::neighbours`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NeighbourKey {
    /// The port that it is on.
    pub port: PortIndex,
    /// Its address.
    pub address: Mapped,
}

impl Hash for NeighbourKey {
    /// Two words: as derived it would be four.
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [high, low] = self.address;
        state.write_u64(high ^ u64::from(self.port.0));
        state.write_u64(low);
    }
}

impl Fib {
    /// The port of this index.
    #[inline]
    pub fn port(&self, index: PortIndex) -> Option<&Port> {
        self.ports.get(usize::from(index.0))?.as_ref()
    }

    /// Tells of the neighbours that packets were sent to since this was last called.
    pub fn take_used(&self, mut tell: impl FnMut(NeighbourKey)) {
        let neighbours = self.neighbours.iter();
        for (key, _) in neighbours.filter(|(_, neighbour)| neighbour.take_used()) {
            tell(*key);
        }
        for (_, via) in self.vias.iter() {
            if let (Some(address), Some(neighbour)) = (via.address, &via.neighbour)
                && neighbour.take_used()
            {
                let port = via.port;
                tell(NeighbourKey { port, address });
            }
        }
    }

    /// The link of this index, which came from this snapshot.
    #[inline]
    pub fn link(&self, index: LinkIndex) -> &Link {
        &self.links[index.0]
    }

    /// The circuit of this index, which came from this snapshot.
    #[inline]
    pub fn circuit(&self, index: CircuitIndex) -> &Circuit {
        &self.circuits[index.0]
    }
}
