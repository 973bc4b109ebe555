//! The items of the protocol.

use std::net::SocketAddr;

use twinseal_api::v1;
use twinseal_crypto::Suite;

use super::{Action, Item, ItemKey, Kept, Parser};
use crate::port::{BindMode, Device, PortSpec, XdpMode};
use crate::state::{
    Checksum, Circuit, Hop, Key, KeyId, LabelAction, Link, LinkName, Member, Name, Owner, Port,
    Role, Target,
};
use twinseal_base::text::quoted;
use twinseal_wire::ip::Dscp;

/// What to do about a label that is missing.
const LABEL: &str = "give a number of 1 or more, the same at both ends of the link";
/// The same of an epoch.
const EPOCH: &str = "give the key's generation, 1 or more";

impl Parser<'_> {
    pub(super) fn item(&mut self, item: v1::Item) -> Option<Action> {
        use v1::item::Item as Proto;
        let item = match item.item {
            Some(Proto::Key(key)) => return self.key(key),
            Some(Proto::Port(port)) => self.port(port),
            Some(Proto::Vrf(vrf)) => {
                self.item = format!("vrf {}", quoted(&vrf.name));
                self.name("name", &vrf.name).map(Item::Vrf)
            }
            Some(Proto::Link(link)) => self.link(link),
            Some(Proto::Circuit(circuit)) => self.circuit(circuit),
            Some(Proto::Label(label)) => self.label(label),
            Some(Proto::Group(group)) => self.group(group),
            Some(Proto::Route(route)) => self.route(route),
            Some(Proto::Neighbour(neighbour)) => self.neighbour(neighbour),
            Some(Proto::Transmit(transmit)) => self.transmit(transmit),
            None => self.refuse("item", "it is empty or of a kind that this version does not know", "give one of port, vrf, link, circuit, label, group, route, neighbour, key, transmit"),
        };
        item.map(Action::Set)
    }

    pub(super) fn reference(&mut self, item: v1::ItemRef) -> Option<ItemKey> {
        use v1::item_ref::Item as Proto;
        match item.item {
            Some(Proto::Port(name)) => self.named("port", &name).map(ItemKey::Port),
            Some(Proto::Vrf(name)) => self.named("vrf", &name).map(ItemKey::Vrf),
            Some(Proto::Link(name)) => self.named("link", &name).map(ItemKey::Link),
            Some(Proto::Circuit(name)) => self.named("circuit", &name).map(ItemKey::Circuit),
            Some(Proto::Group(name)) => self.named("group", &name).map(ItemKey::Group),
            Some(Proto::Label(label)) => {
                self.item = format!("label {} on link {}", label.label, quoted(&label.link));
                let link = self.name("link", &label.link)?;
                Some(ItemKey::Label(link, label.label))
            }
            Some(Proto::Route(route)) => {
                self.item = route_text(&route.vrf, &route.prefix);
                let (vrf, prefix) = (self.name("vrf", &route.vrf), self.prefix(&route.prefix));
                Some(ItemKey::Route(vrf?, prefix?))
            }
            Some(Proto::Neighbour(neighbour)) => {
                self.item = neighbour_text(&neighbour.port, &neighbour.address);
                let port = self.name("port", &neighbour.port);
                let address = self.address("address", &neighbour.address);
                Some(ItemKey::Neighbour(port?, address?))
            }
            Some(Proto::Key(key)) => {
                let owner = match key.owner {
                    Some(v1::key_ref::Owner::Link(name)) => Some((true, name)),
                    Some(v1::key_ref::Owner::Circuit(name)) => Some((false, name)),
                    None => None,
                };
                self.key_id(owner, key.direction, key.epoch)
                    .map(ItemKey::Key)
            }
            Some(Proto::Transmit(transmit)) => {
                let owner = match transmit.owner {
                    Some(v1::transmit_ref::Owner::Link(name)) => Some((true, name)),
                    Some(v1::transmit_ref::Owner::Circuit(name)) => Some((false, name)),
                    None => None,
                };
                self.item = format!("transmit of {}", owner_text(&owner));
                self.owner(owner).map(ItemKey::Transmit)
            }
            None => self.refuse(
                "delete",
                "it is empty or of a kind that this version does not know",
                "name one of port, vrf, link, circuit, label, group, route, neighbour, key, transmit",
            ),
        }
    }

    fn port(&mut self, port: v1::Port) -> Option<Item> {
        self.item = format!("port {}", quoted(&port.name));
        let name = self.name("name", &port.name);
        let mtu = match port.mtu {
            0 => Some(0),
            576..=65535 => Some(port.mtu as u16),
            mtu => self.refuse(
                "mtu",
                format!("{mtu} is not 576 to 65535"),
                "give 0 for the device's own",
            ),
        };
        // What it may have does not depend on whether all of its role makes sense.
        let is_underlay = port.role() == v1::PortRole::Underlay;
        let role = match v1::PortRole::try_from(port.role) {
            Ok(v1::PortRole::Edge) if port.vrf.is_empty() => {
                self.refuse("vrf", "an edge port belongs to a VRF", "name it")
            }
            Ok(v1::PortRole::Edge) => self.refers("vrf", &port.vrf, ItemKey::Vrf).map(Role::Edge),
            Ok(v1::PortRole::Underlay) if !port.vrf.is_empty() => self.refuse(
                "vrf",
                "an underlay port belongs to no VRF",
                "leave it empty, or make the port an edge port",
            ),
            Ok(v1::PortRole::Underlay) => Some(Role::Underlay),
            _ => self.refuse(
                "role",
                "it is not given or not known",
                "give edge or underlay",
            ),
        };
        let device = match port.device {
            Some(v1::port::Device::AfXdp(device)) => self.af_xdp(&device),
            Some(v1::port::Device::Tap(tap)) => self
                .netdev("tap.netdev", &tap.netdev)
                .map(|netdev| Device::Tap { netdev }),
            Some(v1::port::Device::Memory(memory)) => self.memory(&memory),
            None => self.refuse(
                "device",
                "it is not given",
                "give one of af_xdp, tap, memory",
            ),
        };
        let device = match device {
            Some(Device::AfXdp { owned: true, .. }) if is_underlay => self.refuse(
                "af_xdp.owned",
                "only edge ports have it",
                "leave it out: no packet of a host comes in by an underlay port",
            ),
            device => device,
        };
        let checksum = self.checksum(port.checksum, is_underlay);
        let local = self.local(&port.local, is_underlay);
        let (role, mtu, device) = (role?, mtu?, device?);
        let (checksum, local) = (checksum?, local?);
        let spec = PortSpec {
            edge: role != Role::Underlay,
            mtu,
            device,
        };
        Some(Item::Port(
            name?,
            Port {
                role,
                spec,
                local,
                checksum,
            },
        ))
    }

    /// A number that is never 0, which is what one has that was not given.
    fn not_0(&mut self, field: &str, number: u32, fix: &str) -> Option<u32> {
        match number {
            0 => self.refuse(field, "it is 0, or not given", fix),
            number => Some(number),
        }
    }

    fn checksum(&mut self, number: i32, is_underlay: bool) -> Option<Checksum> {
        let checksum = match v1::Checksum::try_from(number) {
            Ok(v1::Checksum::Auto) => Checksum::Auto,
            Ok(v1::Checksum::Finish) => Checksum::Finish,
            Ok(v1::Checksum::Trust) => Checksum::Trust,
            Err(_) => {
                return self.refuse("checksum", "it is not known", "give auto, finish or trust");
            }
        };
        if is_underlay && checksum != Checksum::Auto {
            return self.refuse(
                "checksum",
                "an underlay port has no hosts",
                "leave it out, or make the port an edge port",
            );
        }
        Some(checksum)
    }

    fn af_xdp(&mut self, device: &v1::AfXdp) -> Option<Device> {
        let netdev = self.netdev("af_xdp.netdev", &device.netdev);
        let bind = match v1::BindMode::try_from(device.bind) {
            Ok(v1::BindMode::Auto) => Some(BindMode::Auto),
            Ok(v1::BindMode::ZeroCopy) => Some(BindMode::ZeroCopy),
            Ok(v1::BindMode::Copy) => Some(BindMode::Copy),
            Err(_) => self.refuse(
                "af_xdp.bind",
                "it is not known",
                "give auto, zero-copy or copy",
            ),
        };
        let xdp = match v1::XdpMode::try_from(device.xdp) {
            Ok(v1::XdpMode::Auto) => Some(XdpMode::Auto),
            Ok(v1::XdpMode::Native) => Some(XdpMode::Native),
            Ok(v1::XdpMode::Generic) => Some(XdpMode::Generic),
            Err(_) => self.refuse(
                "af_xdp.xdp",
                "it is not known",
                "give auto, native or generic",
            ),
        };
        Some(Device::AfXdp {
            netdev: netdev?,
            bind: bind?,
            xdp: xdp?,
            busy_poll: device.busy_poll,
            owned: device.owned,
        })
    }

    fn memory(&mut self, memory: &v1::Memory) -> Option<Device> {
        // A wire is named as everything else is.
        let wire = self.name::<()>("memory.wire", &memory.wire);
        let mac = self.mac("memory.mac", &memory.mac);
        Some(Device::Memory {
            wire: wire?.as_str().to_owned(),
            mac: mac?,
        })
    }

    fn link(&mut self, link: v1::Link) -> Option<Item> {
        self.item = format!("link {}", quoted(&link.name));
        let name = self.name("name", &link.name);
        let end = self.end(link.end);
        let port = self.name("port", &link.port);
        if let Some(port) = &port {
            self.refers_to("port".into(), ItemKey::Port(port.clone()), Some(false));
        }
        let local = self.address("local", &link.local);
        let remote = self.address("remote", &link.remote);
        let local_port = self.udp_port("local_port", link.local_port);
        let remote_port = self.udp_port("remote_port", link.remote_port);
        let next_hop = match link.next_hop.as_str() {
            "" => Some(None),
            text => self.address("next_hop", text).map(Some),
        };
        let mut fits = Some(());
        if let (Some(local), Some(remote)) = (local, remote) {
            if local.is_ipv4() != remote.is_ipv4() {
                fits = self.refuse(
                    "remote",
                    format!("{remote} and local {local} are of different families"),
                    "give both of one family",
                );
            }
            if local == remote {
                fits = self.refuse(
                    "remote",
                    format!("{remote} is also local"),
                    "give the peer's address",
                );
            }
        }
        if let (Some(local), Some(Some(hop))) = (local, next_hop)
            && local.is_ipv4() != hop.is_ipv4()
        {
            fits = self.refuse(
                "next_hop",
                format!("{hop} and local {local} are of different families"),
                "give a neighbour of the family of local",
            );
        }
        fits?;
        let link = Link {
            end: end?,
            port: port?,
            local: SocketAddr::new(local?, local_port?),
            remote: SocketAddr::new(remote?, remote_port?),
            next_hop: next_hop?,
        };
        Some(Item::Link(name?, link))
    }

    fn circuit(&mut self, circuit: v1::Circuit) -> Option<Item> {
        self.item = format!("circuit {}", quoted(&circuit.name));
        let name = self.name("name", &circuit.name);
        let id = match circuit.id {
            0 => self.refuse(
                "id",
                "it is 0",
                "give a number that both edges and no other circuit have",
            ),
            id => Some(id),
        };
        let end = self.end(circuit.end);
        let vrf = self.refers("vrf", &circuit.vrf, ItemKey::Vrf);
        let link = self.refers("link", &circuit.link, ItemKey::Link);
        let hop_limit = match circuit.hop_limit {
            0 => Some(64),
            1..=255 => Some(circuit.hop_limit as u8),
            limit => self.refuse(
                "hop_limit",
                format!("{limit} is not 1 to 255"),
                "give 0 for 64",
            ),
        };
        let dscp = match (v1::Dscp::try_from(circuit.dscp), circuit.dscp_value) {
            (Ok(v1::Dscp::Copy), 0) => Some(Dscp::Copy),
            (Ok(v1::Dscp::Zero), 0) => Some(Dscp::Fixed(0)),
            (Ok(v1::Dscp::Fixed), value @ 0..=63) => Some(Dscp::Fixed(value as u8)),
            (Ok(v1::Dscp::Fixed), value) => self.refuse(
                "dscp_value",
                format!("{value} is not 0 to 63"),
                "give the six bits of the DSCP",
            ),
            (Ok(_), _) => self.refuse(
                "dscp_value",
                "it is given but dscp is not fixed",
                "set dscp to fixed, or dscp_value to 0",
            ),
            (Err(_), _) => self.refuse("dscp", "it is not known", "give copy, fixed or zero"),
        };
        let label = self.not_0("label", circuit.label, LABEL);
        let tags = self.tags(circuit.tags);
        let circuit = Circuit {
            id: id?,
            end: end?,
            vrf: vrf?,
            link: link?,
            label: label?,
            hop_limit: hop_limit?,
            dscp: dscp?,
            tags: tags?,
        };
        Some(Item::Circuit(name?, circuit))
    }

    fn label(&mut self, label: v1::Label) -> Option<Item> {
        self.item = format!("label {} on link {}", label.label, quoted(&label.link));
        let link = self.refers("link", &label.link, ItemKey::Link);
        let number = self.not_0("label", label.label, LABEL);
        let action = match label.action {
            Some(v1::label::Action::Swap(swap)) => {
                let link = self.refers("swap.link", &swap.link, ItemKey::Link);
                let label = self.not_0("swap.label", swap.label, LABEL);
                link.zip(label)
                    .map(|(link, label)| LabelAction::Swap { link, label })
            }
            Some(v1::label::Action::Egress(egress)) => self
                .refers("egress.circuit", &egress.circuit, ItemKey::Circuit)
                .map(LabelAction::Egress),
            None => self.refuse("action", "it is not given", "give swap or egress"),
        };
        Some(Item::Label(link?, number?, action?))
    }

    fn group(&mut self, group: v1::Group) -> Option<Item> {
        self.item = format!("group {}", quoted(&group.name));
        let name = self.name("name", &group.name);
        let count = group.members.len();
        let sound = match count {
            1..=64 => Some(()),
            _ => self.refuse("members", format!("there are {count}"), "give 1 to 64"),
        };
        let weight = |member: &v1::Member| member.weight.unwrap_or(1);
        let some = match group.members.iter().all(|member| weight(member) == 0) {
            true if count > 0 => self.refuse(
                "members",
                "all weights are 0, so none takes flows",
                "give one a weight of 1 or more, or lead the routes elsewhere",
            ),
            _ => Some(()),
        };
        let members: Vec<_> = group
            .members
            .into_iter()
            .enumerate()
            .map(|(n, member)| {
                let field = format!("members[{n}]");
                let weight = weight(&member);
                let hop = match member.target {
                    Some(v1::member::Target::Circuit(circuit)) => self
                        .refers(format!("{field}.circuit"), &circuit, ItemKey::Circuit)
                        .map(Hop::Circuit),
                    Some(v1::member::Target::Via(via)) => self.via(&field, &via).map(Hop::Via),
                    None => self.refuse(&field, "it has no target", "give circuit or via"),
                };
                Some(Member { hop: hop?, weight })
            })
            .collect();
        let members = members.into_iter().collect::<Option<_>>();
        sound.and(some)?;
        Some(Item::Group(name?, members?))
    }

    fn route(&mut self, route: v1::Route) -> Option<Item> {
        use v1::route::Target as Proto;
        self.item = route_text(&route.vrf, &route.prefix);
        let vrf = self.refers("vrf", &route.vrf, ItemKey::Vrf);
        let prefix = self.prefix(&route.prefix);
        let target = match route.target {
            Some(Proto::Circuit(name)) => self
                .refers("circuit", &name, ItemKey::Circuit)
                .map(|name| Target::Hop(Hop::Circuit(name))),
            Some(Proto::Group(name)) => self
                .refers("group", &name, ItemKey::Group)
                .map(Target::Group),
            Some(Proto::Via(via)) => self.via("", &via).map(|via| Target::Hop(Hop::Via(via))),
            Some(Proto::Blackhole(v1::Blackhole {})) => Some(Target::Blackhole),
            None => self.refuse(
                "target",
                "it is not given",
                "give one of circuit, group, via, blackhole",
            ),
        };
        Some(Item::Route(vrf?, prefix?, target?))
    }

    fn neighbour(&mut self, neighbour: v1::Neighbour) -> Option<Item> {
        self.item = neighbour_text(&neighbour.port, &neighbour.address);
        let port = self.refers("port", &neighbour.port, ItemKey::Port);
        let address = self.address("address", &neighbour.address);
        let mac = self.mac("mac", &neighbour.mac);
        Some(Item::Neighbour(port?, address?, mac?))
    }

    fn key(&mut self, mut key: v1::Key) -> Option<Action> {
        let owner = match key.owner {
            Some(v1::key::Owner::Link(name)) => Some((true, name)),
            Some(v1::key::Owner::Circuit(name)) => Some((false, name)),
            None => None,
        };
        let names = owner_key(&owner);
        let id = self.key_id(owner, key.direction, key.epoch);
        self.refers_to_owner(names);
        let epoch = self.not_0("epoch", key.epoch, EPOCH);
        let fingerprint = match key.fingerprint.as_slice() {
            [] => Some(None),
            bytes => self.fingerprint(bytes).map(Some),
        };
        let secret = match key.secret.is_empty() {
            true => Some(None),
            false => self.secret(&mut key.secret).map(Some),
        };
        let suite = match v1::Suite::try_from(key.suite) {
            Ok(v1::Suite::Unspecified | v1::Suite::Aes256Gcm) => Some(Suite::Aes256Gcm),
            Ok(v1::Suite::Aes128Gcm) => Some(Suite::Aes128Gcm),
            Ok(v1::Suite::Chacha20Poly1305) => Some(Suite::ChaCha20Poly1305),
            Err(_) => self.refuse(
                "suite",
                "it is not known",
                "give aes-256-gcm, aes-128-gcm or chacha20-poly1305",
            ),
        };
        let receiver_index = match (&id, key.receiver_index) {
            (
                Some(KeyId {
                    owner: Owner::Link(_),
                    ..
                }),
                0,
            ) => self.refuse(
                "receiver_index",
                "a link's key is named by it in packets, and it is 0",
                "give a number that no other key has at the receiving node",
            ),
            (
                Some(KeyId {
                    owner: Owner::Circuit(_),
                    ..
                }),
                index @ 1..,
            ) => self.refuse(
                "receiver_index",
                format!("a circuit's key has none, and it is {index}"),
                "leave it 0",
            ),
            (_, index) => Some(index),
        };
        let limits = key.limits.unwrap_or_default().into();
        let (id, suite, receiver_index) = (id?, suite?, receiver_index?);
        let (secret, fingerprint) = (secret?, fingerprint?);
        epoch?;
        let Some(secret) = secret else {
            let kept = Kept {
                suite,
                receiver_index,
                fingerprint,
                limits,
                needed: key.needed,
            };
            return Some(Action::Keep(id, kept));
        };
        let own = secret.fingerprint();
        if fingerprint.is_some_and(|given| given != own) {
            return self.refuse(
                "fingerprint",
                format!("that of the secret is {own}"),
                "leave it empty, or give the one of this secret",
            );
        }
        let key = Key {
            suite,
            fingerprint: own,
            receiver_index,
            limits,
            installed: true,
        };
        Some(Action::Install(id, key, secret))
    }

    fn transmit(&mut self, transmit: v1::Transmit) -> Option<Item> {
        let owner = match transmit.owner {
            Some(v1::transmit::Owner::Link(name)) => Some((true, name)),
            Some(v1::transmit::Owner::Circuit(name)) => Some((false, name)),
            None => None,
        };
        self.item = format!("transmit of {}", owner_text(&owner));
        let names = owner_key(&owner);
        let owner = self.owner(owner);
        self.refers_to_owner(names);
        let epoch = self.not_0("epoch", transmit.epoch, EPOCH);
        Some(Item::Transmit(owner?, epoch?))
    }

    fn refers_to_owner(&mut self, owner: Option<ItemKey>) {
        if let Some(owner) = owner {
            self.refers_to(owner.kind().into(), owner, None);
        }
    }
}

fn owner_key(owner: &Option<(bool, String)>) -> Option<ItemKey> {
    match owner.as_ref()? {
        (true, name) => Name::new(name).map(ItemKey::Link),
        (false, name) => Name::new(name).map(ItemKey::Circuit),
    }
}

pub(super) fn owner_text(owner: &Option<(bool, String)>) -> String {
    let named = |name: &str| match LinkName::new(name) {
        Some(_) => quoted(name),
        // It may be a secret in the wrong place.
        None => "without a name".to_owned(),
    };
    match owner {
        Some((true, name)) => format!("link {}", named(name)),
        Some((false, name)) => format!("circuit {}", named(name)),
        None => "nothing".to_owned(),
    }
}

fn route_text(vrf: &str, prefix: &str) -> String {
    format!(
        "route {} in vrf {}",
        quoted(prefix).trim_matches('"'),
        quoted(vrf)
    )
}

fn neighbour_text(port: &str, address: &str) -> String {
    format!(
        "neighbour {} on port {}",
        quoted(address).trim_matches('"'),
        quoted(port)
    )
}
