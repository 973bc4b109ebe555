//! The fields of items.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use twinseal_api::v1;
use twinseal_crypto::{Direction, Fingerprint, SECRET_LEN, Secret};
use zeroize::Zeroize;

use super::items::owner_text;
use super::{ItemKey, Parser, Reference};
use crate::state::{End, KeyId, Name, Owner, Prefix, Tags, Via};
use twinseal_base::text::quoted;
use twinseal_wire::ethernet::Mac;
use twinseal_wire::overlay::DEFAULT_PORT;

/// How many tags a circuit may have.
const MAX_TAGS: usize = 16;
/// Octets of a tag's key.
const MAX_TAG_KEY: usize = 64;
/// Octets of a tag's value.
const MAX_TAG_VALUE: usize = 256;
/// Addresses of its own that a port may be given.
const MAX_LOCAL: usize = 64;

impl Parser<'_> {
    /// The owner as (is it a link, its name). What is no name is not quoted: it may be a secret in the wrong place.
    pub(super) fn owner(&mut self, owner: Option<(bool, String)>) -> Option<Owner> {
        const FIX: &str = "give 1 to 64 of A-Z a-z 0-9 _ . -";
        let (field, owner) = match owner {
            Some((true, name)) => ("link", Name::new(&name).map(Owner::Link)),
            Some((false, name)) => ("circuit", Name::new(&name).map(Owner::Circuit)),
            None => return self.refuse("owner", "it is not given", "give link or circuit"),
        };
        owner.or_else(|| self.refuse(field, "it is not a name", FIX))
    }

    pub(super) fn key_id(
        &mut self,
        owner: Option<(bool, String)>,
        direction: i32,
        epoch: u32,
    ) -> Option<KeyId> {
        let (way, direction) = match v1::Direction::try_from(direction) {
            Ok(v1::Direction::AToB) => ("a-to-b", Some(Direction::AToB)),
            Ok(v1::Direction::BToA) => ("b-to-a", Some(Direction::BToA)),
            _ => ("?", None),
        };
        self.item = format!("key of {}, {way}, epoch {epoch}", owner_text(&owner));
        let owner = self.owner(owner);
        if direction.is_none() {
            self.refuse::<()>(
                "direction",
                "it is not given or not known",
                "give a-to-b or b-to-a",
            );
        }
        Some(KeyId {
            owner: owner?,
            direction: direction?,
            epoch,
        })
    }

    pub(super) fn tags(&mut self, tags: BTreeMap<String, String>) -> Option<Tags> {
        let mut sound = Some(());
        if tags.len() > MAX_TAGS {
            return self.refuse(
                "tags",
                format!("there are {}", tags.len()),
                &format!("give at most {MAX_TAGS}"),
            );
        }
        for (key, value) in &tags {
            if !(1..=MAX_TAG_KEY).contains(&key.len()) {
                sound = self.refuse(
                    "tags",
                    format!("the key {} has {} bytes", quoted(key), key.len()),
                    &format!("give keys of 1 to {MAX_TAG_KEY} bytes"),
                );
            }
            if value.len() > MAX_TAG_VALUE {
                sound = self.refuse(
                    "tags",
                    format!("the value of {} has {} bytes", quoted(key), value.len()),
                    &format!("give values of at most {MAX_TAG_VALUE} bytes"),
                );
            }
        }
        sound?;
        Some(Arc::new(tags))
    }

    pub(super) fn fingerprint(&mut self, bytes: &[u8]) -> Option<Fingerprint> {
        match <[u8; 32]>::try_from(bytes) {
            Ok(bytes) => Some(Fingerprint::from(bytes)),
            Err(_) => self.refuse(
                "fingerprint",
                format!("it has {} bytes, not 32", bytes.len()),
                "give it as it is read back, or leave it empty",
            ),
        }
    }

    /// Takes the secret over; what the request held is wiped whatever happens.
    pub(super) fn secret(&mut self, bytes: &mut Vec<u8>) -> Option<Secret> {
        const FIX: &str = "give 32 bytes from a CSPRNG, as `twinseal genkey` makes them; a secret is never read back";
        let len = bytes.len();
        if len == SECRET_LEN && bytes.iter().all(|&byte| byte == 0) {
            return self.refuse("secret", "it is all zeroes", FIX);
        }
        match Secret::from_vec(bytes) {
            Ok(secret) => {
                if !secret.locked() {
                    tracing::debug!(
                        "a secret's memory could not be locked: raise RLIMIT_MEMLOCK, or the secret may reach swap until its keys are derived"
                    );
                }
                Some(secret)
            }
            Err(error) => {
                bytes.zeroize();
                match len {
                    SECRET_LEN => self.refuse(
                        "secret",
                        error.to_string(),
                        "raise the daemon's memory limits",
                    ),
                    _ => self.refuse(
                        "secret",
                        format!("it has {len} bytes, not {SECRET_LEN}"),
                        FIX,
                    ),
                }
            }
        }
    }

    pub(super) fn named<K>(&mut self, kind: &str, text: &str) -> Option<Name<K>> {
        self.item = format!("{kind} {}", quoted(text));
        self.name("name", text)
    }

    pub(super) fn name<K>(&mut self, field: &str, text: &str) -> Option<Name<K>> {
        const FIX: &str = "give 1 to 64 of A-Z a-z 0-9 _ . -";
        match Name::new(text) {
            Some(name) => Some(name),
            None if text.is_empty() => self.refuse(field, "it is empty", FIX),
            None => self.refuse(field, format!("{} is not a name", quoted(text)), FIX),
        }
    }

    /// The name of another item, which must be there.
    pub(super) fn refers<K: Clone>(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        text: &str,
        key: fn(Name<K>) -> ItemKey,
    ) -> Option<Name<K>> {
        let field = field.into();
        let name = self.name(&field, text)?;
        self.refers_to(field, key(name.clone()), None);
        Some(name)
    }

    /// Takes down what the item refers to.
    pub(super) fn refers_to(&mut self, field: Cow<'static, str>, to: ItemKey, edge: Option<bool>) {
        self.references.push(Reference {
            index: self.index,
            item: String::new(),
            field,
            to,
            edge,
        });
    }

    /// A name that the kernel takes for a network device.
    pub(super) fn netdev(&mut self, field: &str, text: &str) -> Option<String> {
        let sound = (1..=15).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%')
            && text != "."
            && text != "..";
        if sound {
            return Some(text.to_owned());
        }
        self.refuse(
            field,
            format!("{} is not a device name", quoted(text)),
            "give 1 to 15 printable characters without / : %, as in /sys/class/net",
        )
    }

    pub(super) fn end(&mut self, end: i32) -> Option<End> {
        match v1::End::try_from(end) {
            Ok(v1::End::A) => Some(End::A),
            Ok(v1::End::B) => Some(End::B),
            _ => self.refuse(
                "end",
                "it is not given or not known",
                "give a at one end and b at the other",
            ),
        }
    }

    pub(super) fn via(&mut self, field: &str, via: &v1::Via) -> Option<Via> {
        let field = match field {
            "" => "via".to_owned(),
            field => format!("{field}.via"),
        };
        let port_field = format!("{field}.port");
        let port = self.name(&port_field, &via.port);
        if let Some(port) = &port {
            self.refers_to(port_field.into(), ItemKey::Port(port.clone()), Some(true));
        }
        let address = match via.address.as_str() {
            "" => Some(None),
            text => self.address(&format!("{field}.address"), text).map(Some),
        };
        Some(Via {
            port: port?,
            address: address?,
        })
    }

    /// A unicast address.
    pub(super) fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let Ok(address) = text.parse::<IpAddr>() else {
            return self.refuse(
                field,
                format!("{} is not an IP address", quoted(text)),
                "write it like 192.0.2.1 or 2001:db8::1",
            );
        };
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => self.refuse(
                field,
                format!("{address} is an IPv4 address in IPv6"),
                "write it as IPv4",
            ),
            IpAddr::V4(v4) if v4.is_broadcast() => self.refuse(
                field,
                format!("{address} is the broadcast address"),
                "give a unicast address",
            ),
            _ if address.is_multicast() || address.is_unspecified() => self.refuse(
                field,
                format!("{address} is no unicast address"),
                "give a unicast address",
            ),
            _ => Some(address),
        }
    }

    /// Addresses that are the node's own at a port.
    pub(super) fn local(
        &mut self,
        texts: &[String],
        is_underlay: bool,
    ) -> Option<BTreeSet<IpAddr>> {
        if is_underlay && !texts.is_empty() {
            return self.refuse(
                "local",
                "an underlay port has no tenants",
                "leave it empty, or make the port an edge port",
            );
        }
        if texts.len() > MAX_LOCAL {
            return self.refuse(
                "local",
                format!("there are {}", texts.len()),
                &format!("give at most {MAX_LOCAL}"),
            );
        }
        let addresses = texts.iter().zip(0..).map(|(text, n)| {
            let field = format!("local[{n}]");
            let address = self.address(&field, text)?;
            let link_local = match address {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            if link_local || address.is_loopback() {
                let why = format!("{address} is never routed");
                return self.refuse(&field, why, "give an address that hosts reach by a router");
            }
            Some(address)
        });
        let parsed: Vec<_> = addresses.collect();
        parsed.into_iter().collect()
    }

    pub(super) fn prefix(&mut self, text: &str) -> Option<Prefix> {
        let parsed = text.split_once('/').and_then(|(address, len)| {
            let address: IpAddr = address.parse().ok()?;
            // from_str takes a sign and leading zeroes.
            let digits =
                !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
            let len = digits.then(|| len.parse().ok())??;
            Some((address, Prefix::new(address, len)?))
        });
        match parsed {
            None => self.refuse(
                "prefix",
                format!("{} is not a prefix", quoted(text)),
                "write it like 10.0.0.0/8 or 2001:db8::/32",
            ),
            Some((address, prefix)) if address != prefix.address() => self.refuse(
                "prefix",
                format!("{} has bits beyond its length", quoted(text)),
                &format!("write {prefix}"),
            ),
            Some((IpAddr::V6(v6), prefix))
                if prefix.len() >= 96 && v6.to_ipv4_mapped().is_some() =>
            {
                self.refuse(
                    "prefix",
                    format!("{} is of IPv4 addresses in IPv6", quoted(text)),
                    "write it as IPv4",
                )
            }
            Some((_, prefix)) => Some(prefix),
        }
    }

    pub(super) fn mac(&mut self, field: &str, text: &str) -> Option<Mac> {
        match text.parse::<Mac>() {
            Err(error) => {
                let error = error.to_string();
                let fix = error.rsplit(": ").next().unwrap_or_default().to_owned();
                self.refuse(
                    field,
                    format!("{} is not a MAC address", quoted(text)),
                    &fix,
                )
            }
            Ok(mac) if mac.0[0] & 1 != 0 => self.refuse(
                field,
                format!("{mac} is a multicast address"),
                "give a unicast one: its first octet is even",
            ),
            Ok(mac) if mac == Mac::default() => {
                self.refuse(field, "it is all zeroes", "give the device's address")
            }
            Ok(mac) => Some(mac),
        }
    }

    pub(super) fn udp_port(&mut self, field: &str, port: u32) -> Option<u16> {
        match u16::try_from(port) {
            Ok(0) => Some(DEFAULT_PORT),
            Ok(port) => Some(port),
            Err(_) => self.refuse(
                field,
                format!("{port} is not 1 to 65535"),
                "give 0 for 21591",
            ),
        }
    }
}
