//! A state file as it is written. Sections and fields mirror the control protocol, which has their meaning; `read` takes
//! the same.

use std::collections::BTreeMap;

use serde::Serialize;
use twinseal_api::v1;

use super::fields::Word;

/// What an entry of `keys` has for a secret that is on the node already: such a key is left as it is.
pub(super) const INSTALLED: &str = "installed";
/// And for one that was lost when the node restarted: a new one is needed, and until then the key is left as it is.
pub(super) const NEEDED: &str = "needed";

#[derive(Debug, Default, Serialize)]
pub(super) struct File {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ports: Vec<Owned<Port>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) vrfs: Vec<Owned<Vrf>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<Owned<Link>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) circuits: Vec<Owned<Circuit>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) labels: Vec<Owned<Label>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<Owned<Group>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) routes: Vec<Owned<Route>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) neighbours: Vec<Owned<Neighbour>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<Owned<Key>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) transmit: Vec<Owned<Transmit>>,
}

/// An entry, with whose it is if that is not the controller.
#[derive(Debug, Serialize)]
pub(super) struct Owned<T> {
    #[serde(flatten)]
    pub(super) entry: T,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) owner: String,
}

/// Fields that have their protocol's default are not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Makes an enum whose values in the file are these words, and its conversions from and to the protocol's. What the
/// file leaves out is the protocol's "unspecified".
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
        pub(crate) enum $name {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl Word for $name {
            const WORDS: &'static [&'static str] = &[$($word),+];

            fn number_of(word: &str) -> Option<i32> {
                match word {
                    $($word => Some(v1::$name::$variant as i32),)+
                    _ => None,
                }
            }
        }

        impl $name {
            /// From the protocol's number; `None` if that is unspecified or of a later protocol.
            pub(crate) fn from_number(number: i32) -> Option<Self> {
                match v1::$name::try_from(number) {
                    $(Ok(v1::$name::$variant) => Some(Self::$variant),)+
                    #[allow(unreachable_patterns, reason = "not every enum has an unspecified value")]
                    _ => None,
                }
            }

            /// As the file has it.
            #[allow(dead_code, reason = "only some are printed by themselves")]
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

words!(PortRole { Edge = "edge", Underlay = "underlay" });
words!(BindMode { Auto = "auto", ZeroCopy = "zero-copy", Copy = "copy" });
words!(XdpMode { Auto = "auto", Native = "native", Generic = "generic" });
words!(Checksum { Auto = "auto", Finish = "finish", Trust = "trust" });
words!(End { A = "a", B = "b" });
words!(Dscp { Copy = "copy", Fixed = "fixed", Zero = "zero" });
words!(Direction { AToB = "a-to-b", BToA = "b-to-a" });
words!(Suite {
    Aes256Gcm = "aes-256-gcm",
    Aes128Gcm = "aes-128-gcm",
    Chacha20Poly1305 = "chacha20-poly1305",
});

#[derive(Debug, Serialize)]
pub(super) struct Port {
    pub(super) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) role: Option<PortRole>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) vrf: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) mtu: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) checksum: Option<Checksum>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) local: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) af_xdp: Option<AfXdp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tap: Option<Tap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
}

#[derive(Debug, Serialize)]
pub(super) struct AfXdp {
    pub(super) netdev: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) bind: Option<BindMode>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) xdp: Option<XdpMode>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) busy_poll: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) owned: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Tap {
    pub(super) netdev: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Memory {
    pub(super) wire: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) mac: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Vrf {
    pub(super) name: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Link {
    pub(super) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) end: Option<End>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) port: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) local: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) remote: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) local_port: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) remote_port: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) next_hop: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Circuit {
    pub(super) name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) id: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) end: Option<End>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) vrf: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) link: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) label: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) hop_limit: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) dscp: Option<Dscp>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) dscp_value: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Label {
    pub(super) link: String,
    pub(super) label: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) swap: Option<Swap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) egress: Option<Egress>,
}

#[derive(Debug, Serialize)]
pub(super) struct Swap {
    pub(super) link: String,
    pub(super) label: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct Egress {
    pub(super) circuit: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) members: Vec<Member>,
}

#[derive(Debug, Serialize)]
pub(super) struct Member {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<Via>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<u32>,
}

#[derive(Debug, Serialize)]
pub(super) struct Via {
    pub(super) port: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) address: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Route {
    pub(super) vrf: String,
    pub(super) prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<Via>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) blackhole: Option<Blackhole>,
}

#[derive(Debug, Serialize)]
pub(super) struct Blackhole {}

#[derive(Debug, Serialize)]
pub(super) struct Neighbour {
    pub(super) port: String,
    pub(super) address: String,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) mac: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Key {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) direction: Option<Direction>,
    pub(super) epoch: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) suite: Option<Suite>,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) receiver_index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limits: Option<KeyLimits>,
    /// A word in its place: secrets are never written.
    pub(super) secret: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Transmit {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    pub(super) epoch: u32,
}

#[derive(Debug, Serialize)]
pub(super) struct KeyLimits {
    #[serde(skip_serializing_if = "is_default")]
    pub(super) packets: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) bytes: u64,
    #[serde(skip_serializing_if = "is_default")]
    pub(super) seconds: u32,
}
