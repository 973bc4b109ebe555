//! The desired state as typed values: parsed once, never validated again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use smol_str::SmolStr;
use twinseal_api::v1;
use twinseal_crypto::{Direction, Fingerprint, Layer, Suite};

use crate::owners::Owners;
pub use crate::persistent_map::PersistentMap;
use crate::port::PortSpec;
use twinseal_wire::ethernet::Mac;
use twinseal_wire::ip::Dscp;

/// Everything that a controller has set. Cloning shares all tables, and what a clone changes it alone sees: the old
/// state is there to go back to.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct State {
    /// How many transactions it took.
    pub generation: u64,
    /// Ports.
    pub ports: PersistentMap<PortName, Port>,
    /// VRFs.
    pub vrfs: PersistentMap<VrfName, ()>,
    /// Links.
    pub links: PersistentMap<LinkName, Link>,
    /// Circuits.
    pub circuits: PersistentMap<CircuitName, Circuit>,
    /// Labels, by the link on which they arrive.
    pub labels: PersistentMap<(LinkName, u32), LabelAction>,
    /// Groups.
    pub groups: PersistentMap<GroupName, Vec<Member>>,
    /// Routes by VRF; a VRF without routes has no entry.
    pub routes: PersistentMap<VrfName, PersistentMap<Prefix, Target>>,
    /// Static neighbours.
    pub neighbours: PersistentMap<(PortName, IpAddr), Mac>,
    /// Keys, without their secrets.
    pub keys: PersistentMap<KeyId, Key>,
    /// Which epoch transmits.
    pub transmits: PersistentMap<Owner, u32>,
    /// Whose each of them is.
    pub owners: Owners,
}

/// A name of 1 to 64 of `A-Z a-z 0-9 _ . -`, of a thing of one kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<K> {
    // Most are short enough to lie in the tables themselves: to compare or copy one follows no pointer.
    text: SmolStr,
    kind: PhantomData<K>,
}

/// Longest name, in octets.
pub const MAX_NAME: usize = 64;

impl<K> Name<K> {
    /// `None` unless the text is a name.
    pub fn new(text: &str) -> Option<Self> {
        let sound = (1..=MAX_NAME).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        sound.then(|| Self {
            text: SmolStr::new(text),
            kind: PhantomData,
        })
    }

    /// A name that the program itself gives.
    pub(crate) const fn fixed(text: &'static str) -> Self {
        Self {
            text: SmolStr::new_static(text),
            kind: PhantomData,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl<K> fmt::Display for Name<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<K> fmt::Debug for Name<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text.as_str(), f)
    }
}

macro_rules! kinds {
    ($($kind:ident $name:ident $what:literal),*) => {$(
        #[doc = concat!("Marks names of ", $what, "s.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $kind;

        #[doc = concat!("The name of a ", $what, ".")]
        pub type $name = Name<$kind>;
    )*};
}

kinds! {
    PortKind PortName "port",
    VrfKind VrfName "VRF",
    LinkKind LinkName "link",
    CircuitKind CircuitName "circuit",
    GroupKind GroupName "group",
    OwnerKind OwnerName "owner of item"
}

/// A port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// What it faces.
    pub role: Role,
    /// What to open; its `edge` agrees with the role.
    pub spec: PortSpec,
    /// Addresses that are the node's own here, besides those that the host has on the device (edge).
    pub local: BTreeSet<IpAddr>,
    /// What is done about transport checksums of hosts; `Auto` on underlay ports.
    pub checksum: Checksum,
}

/// What an edge port does about transport checksums that hosts leave to a device.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Checksum {
    /// Finishes them where hosts may leave them: on devices without a wire.
    #[default]
    Auto,
    /// Finishes them.
    Finish,
    /// Takes them as they are.
    Trust,
}

impl Port {
    /// Whether it finishes checksums, if hosts may leave them to its device or not.
    pub fn finishes(&self, offloads: bool) -> bool {
        let wanted = match self.checksum {
            Checksum::Auto => offloads,
            Checksum::Finish => true,
            Checksum::Trust => false,
        };
        wanted && self.role != Role::Underlay
    }
}

/// What a port faces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// Hosts of this VRF.
    Edge(VrfName),
    /// Other nodes.
    Underlay,
}

/// Which end of a link or circuit this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The first.
    A,
    /// The second.
    B,
}

impl End {
    /// The direction in which this end seals.
    pub fn transmits(self) -> Direction {
        match self {
            Self::A => Direction::AToB,
            Self::B => Direction::BToA,
        }
    }
}

/// A hop to another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Which end we are.
    pub end: End,
    /// The underlay port.
    pub port: PortName,
    /// Where we receive.
    pub local: SocketAddr,
    /// Where the peer receives; of the same family.
    pub remote: SocketAddr,
    /// The neighbour to send to, `None` for the peer itself.
    pub next_hop: Option<IpAddr>,
}

impl Link {
    /// The neighbour whose hardware address frames go to.
    pub fn neighbour(&self) -> IpAddr {
        self.next_hop.unwrap_or(self.remote.ip())
    }
}

/// One edge's side of an end-to-end path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Circuit {
    /// The same at both edges and nowhere else.
    pub id: u64,
    /// Which end we are.
    pub end: End,
    /// Where packets out of it are routed.
    pub vrf: VrfName,
    /// The first hop.
    pub link: LinkName,
    /// Its label there.
    pub label: u32,
    /// Hops that packets start with.
    pub hop_limit: u8,
    /// Where the DSCP comes from.
    pub dscp: Dscp,
    /// The controller's own words for it.
    pub tags: Tags,
}

/// What a controller says of a circuit for its own use.
pub type Tags = Arc<BTreeMap<String, String>>;

/// What to do with a label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LabelAction {
    /// Send on.
    Swap {
        /// The next hop.
        link: LinkName,
        /// The label there.
        label: u32,
    },
    /// This node is the path's end.
    Egress(CircuitName),
}

/// A next hop on an edge port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Via {
    /// The port.
    pub port: PortName,
    /// The next hop, `None` for the packet's own destination.
    pub address: Option<IpAddr>,
}

/// One of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Where it leads.
    pub hop: Hop,
    /// Its share; 0: it takes no flows.
    pub weight: u32,
}

/// Where a member of a group leads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Hop {
    /// Into a circuit.
    Circuit(CircuitName),
    /// Out of an edge port.
    Via(Via),
}

/// Where a route leads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Target {
    /// One next hop.
    Hop(Hop),
    /// One of several.
    Group(GroupName),
    /// To nowhere.
    Blackhole,
}

/// An IP prefix without host bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// Cuts the host bits off; `None` if the family has no such length.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(a) if len <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4((a.to_bits() & mask).into())
            }
            IpAddr::V6(a) if len <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6((a.to_bits() & mask).into())
            }
            _ => return None,
        };
        Some(Self { address, len })
    }

    /// Of one address.
    pub fn host(address: IpAddr) -> Self {
        let len = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        Self { address, len }
    }

    /// Whether it has one address only.
    pub fn is_host(&self) -> bool {
        *self == Self::host(self.address)
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its length in bits.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it is a default route's.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// What has keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Owner {
    /// A link.
    Link(LinkName),
    /// A circuit.
    Circuit(CircuitName),
}

impl Owner {
    /// For key derivation.
    pub fn layer(&self) -> Layer {
        match self {
            Self::Link(_) => Layer::Link,
            Self::Circuit(_) => Layer::Circuit,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "link {name:?}"),
            Self::Circuit(name) => write!(f, "circuit {name:?}"),
        }
    }
}

/// What makes a key unique.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId {
    /// Whose it is.
    pub owner: Owner,
    /// Who seals.
    pub direction: Direction,
    /// Its generation.
    pub epoch: u32,
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::AToB => "a-to-b",
            Direction::BToA => "b-to-a",
        };
        write!(
            f,
            "key of {}, {direction}, epoch {}",
            self.owner, self.epoch
        )
    }
}

/// What may be told of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Key {
    /// The algorithm.
    pub suite: Suite,
    /// The public name of its secret.
    pub fingerprint: Fingerprint,
    /// Names it in packets; 0 for circuits.
    pub receiver_index: u32,
    /// When it must stop to transmit.
    pub limits: Limits,
    /// Whether the node has had its secret in this run. If not it is known from before a restart, and of no use.
    pub installed: bool,
}

/// How long a key may transmit; `None` is as the node's configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Packets.
    pub packets: Option<NonZeroU64>,
    /// Octets, as traffic counters have them.
    pub bytes: Option<NonZeroU64>,
    /// Seconds since it began to transmit.
    pub seconds: Option<NonZeroU32>,
}

impl Limits {
    /// These, or where there are none the others.
    pub fn or(self, others: Self) -> Self {
        Self {
            packets: self.packets.or(others.packets),
            bytes: self.bytes.or(others.bytes),
            seconds: self.seconds.or(others.seconds),
        }
    }
}

impl From<v1::KeyLimits> for Limits {
    fn from(limits: v1::KeyLimits) -> Self {
        Self {
            packets: NonZeroU64::new(limits.packets),
            bytes: NonZeroU64::new(limits.bytes),
            seconds: NonZeroU32::new(limits.seconds),
        }
    }
}

impl From<Limits> for v1::KeyLimits {
    fn from(limits: Limits) -> Self {
        Self {
            packets: limits.packets.map_or(0, NonZeroU64::get),
            bytes: limits.bytes.map_or(0, NonZeroU64::get),
            seconds: limits.seconds.map_or(0, NonZeroU32::get),
        }
    }
}

impl State {
    /// Whether links and circuits, and what they need to carry packets, are untouched since one was cloned from the other.
    pub fn carries_as(&self, other: &Self) -> bool {
        self.ports.same(&other.ports)
            && self.links.same(&other.links)
            && self.circuits.same(&other.circuits)
            && self.neighbours.same(&other.neighbours)
            && self.keys.same(&other.keys)
            && self.transmits.same(&other.transmits)
    }

    /// Which end of it we are; `None` if there is no such link or circuit.
    pub fn end(&self, owner: &Owner) -> Option<End> {
        match owner {
            Owner::Link(name) => self.links.get(name).map(|link| link.end),
            Owner::Circuit(name) => self.circuits.get(name).map(|circuit| circuit.end),
        }
    }

    /// Whether we seal with this key (else we open); `None` without its owner.
    pub fn seals(&self, id: &KeyId) -> Option<bool> {
        Some(self.end(&id.owner)?.transmits() == id.direction)
    }

    /// The key that transmits for this owner.
    pub fn transmitting(&self, owner: &Owner) -> Option<KeyId> {
        Some(KeyId {
            owner: owner.clone(),
            direction: self.end(owner)?.transmits(),
            epoch: *self.transmits.get(owner)?,
        })
    }
}
