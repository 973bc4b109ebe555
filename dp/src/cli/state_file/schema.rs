//! A state file as it is written. Sections and fields mirror the control protocol, which has their meaning.
//!
//! What is missing or makes no sense is the node's to refuse; only what the protocol cannot express is refused here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;
use twinseal_api::v1;
use zeroize::Zeroizing;

/// What an entry of `keys` has for a secret that is on the node already: such a key is left as it is.
pub(super) const INSTALLED: &str = "installed";

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) ports: Vec<Spanned<Port>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) vrfs: Vec<Spanned<Vrf>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) links: Vec<Spanned<Link>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) circuits: Vec<Spanned<Circuit>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) labels: Vec<Spanned<Label>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<Spanned<Group>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) routes: Vec<Spanned<Route>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) neighbours: Vec<Spanned<Neighbour>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) keys: Vec<Spanned<Key>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) transmit: Vec<Spanned<Transmit>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) delete: Vec<Spanned<Delete>>,
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
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
        pub(in crate::cli) enum $name {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// The protocol's number.
            pub(super) fn number(this: Option<Self>) -> i32 {
                match this {
                    None => 0,
                    $(Some(Self::$variant) => v1::$name::$variant as i32,)+
                }
            }

            /// From the protocol's number; `None` if that is unspecified or of a later protocol.
            pub(in crate::cli) fn from_number(number: i32) -> Option<Self> {
                match v1::$name::try_from(number) {
                    $(Ok(v1::$name::$variant) => Some(Self::$variant),)+
                    #[allow(unreachable_patterns, reason = "not every enum has an unspecified value")]
                    _ => None,
                }
            }

            /// As the file has it.
            #[allow(dead_code, reason = "only some are printed by themselves")]
            pub(in crate::cli) fn word(self) -> &'static str {
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

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) role: Option<PortRole>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) vrf: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) mtu: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) checksum: Option<Checksum>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) local: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) af_xdp: Option<AfXdp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tap: Option<Tap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) memory: Option<Memory>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AfXdp {
    pub(super) netdev: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) bind: Option<BindMode>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) xdp: Option<XdpMode>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) busy_poll: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) owned: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tap {
    pub(super) netdev: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    pub(super) wire: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) mac: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vrf {
    pub(super) name: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) end: Option<End>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) port: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) local: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) remote: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) local_port: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) remote_port: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) next_hop: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Circuit {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) id: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) end: Option<End>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) vrf: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) link: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) label: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) hop_limit: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) dscp: Option<Dscp>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) dscp_value: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) tags: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    pub(super) link: String,
    pub(super) label: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) swap: Option<Swap>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) egress: Option<Egress>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Swap {
    pub(super) link: String,
    pub(super) label: u32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Egress {
    pub(super) circuit: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) name: String,
    #[serde(default)]
    pub(super) members: Vec<Spanned<Member>>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<Via>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) weight: u32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Via {
    pub(super) port: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) address: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    pub(super) vrf: String,
    pub(super) prefix: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) via: Option<Via>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blackhole: Option<Blackhole>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Blackhole {}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Neighbour {
    pub(super) port: String,
    pub(super) address: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) mac: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) direction: Option<Direction>,
    pub(super) epoch: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) suite: Option<Suite>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) receiver_index: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limits: Option<KeyLimits>,
    /// In base64, or [`INSTALLED`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<SecretText>,
    /// A file with the secret in base64; relative to the directory of this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret_file: Option<PathBuf>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transmit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    pub(super) epoch: u32,
}

/// Which item to delete: one key, named like the section without its plural.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Delete {
    Port(String),
    Vrf(String),
    Link(String),
    Circuit(String),
    Label(LabelRef),
    Group(String),
    Route(RouteRef),
    Neighbour(NeighbourRef),
    Key(KeyRef),
    Transmit(TransmitRef),
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyLimits {
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) packets: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) seconds: u32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TransmitRef {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelRef {
    pub(super) link: String,
    pub(super) label: u32,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteRef {
    pub(super) vrf: String,
    pub(super) prefix: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NeighbourRef {
    pub(super) port: String,
    pub(super) address: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRef {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) circuit: Option<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) direction: Option<Direction>,
    pub(super) epoch: u32,
}

/// Text of a secret: wiped when dropped, shown by nobody, and never written out.
pub(super) struct SecretText(pub(super) Zeroizing<String>);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(INSTALLED)
    }
}
