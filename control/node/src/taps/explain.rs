//! Where a packet would be led, by the tables that workers have and a packet that exists on paper only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use twinseal_api::v1;
use zerocopy::IntoBytes;

use super::{missing, parse};
use crate::compile::Wanted;
use crate::node::Node;
use crate::{health, losses};
use twinseal_fib::neighbour::Neighbour;
use twinseal_fib::{self as fib, CircuitIndex, NeighbourKey, Target};
use twinseal_forward::reason::DropReason;
use twinseal_forward::trace;
use twinseal_model::parse::ItemKey;
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::{CircuitName, GroupName, Hop, LinkName, PortName, Role, Via, VrfName};
use twinseal_wire::ip;

impl Node {
    /// Where it would go, and why it would not arrive there as far as this node knows.
    pub fn explain(&self, request: &v1::ExplainRequest) -> Result<v1::ExplainResponse, Refused> {
        let item = "explain";
        let mut refused = Refused::default();
        let vrf = VrfName::new(&request.vrf)
            .and_then(|name| Some((self.compiler.vrf_index(&name)?, name)));
        if vrf.is_none() {
            refused.append(missing(item, "vrf", "vrf", &request.vrf));
        }
        let to = parse::address(&request.destination, "destination", item, &mut refused);
        let from = match request.source.as_str() {
            "" => None,
            text => parse::address(text, "source", item, &mut refused),
        };
        let protocol = parse::number(Some(request.protocol), "protocol", item, &mut refused);
        let mut port = |field, port| parse::number(Some(port), field, item, &mut refused);
        let ports = port("source_port", request.source_port)
            .zip(port("destination_port", request.destination_port));
        if let (Some(from), Some(to)) = (from, to)
            && from.is_ipv4() != to.is_ipv4()
        {
            let why = "source and destination are of two families".to_owned();
            let fix = "give addresses of one family";
            refused.append(Refused::about(item, Code::Invalid, "source", why, fix));
        }
        refused.unless(())?;
        let (Some((index, vrf)), Some(to)) = (vrf, to) else {
            return Ok(v1::ExplainResponse::default());
        };
        let packet = packet(
            from,
            to,
            protocol.unwrap_or_default(),
            ports.unwrap_or_default(),
        );
        let routed = match to {
            IpAddr::V4(to) => ip::v4_is_routed(to.octets()),
            IpAddr::V6(to) => ip::v6_is_routed(to.octets()),
        };
        if !routed {
            return Ok(v1::ExplainResponse {
                problem: problem(DropReason::BadDestination),
                ..Default::default()
            });
        }
        let (group, target) = trace::route(self.compiler.tables(), index, &packet);
        let mut told = v1::ExplainResponse {
            route: self.route(&vrf, to),
            ..Default::default()
        };
        told.skipped = self.skipped(told.route.as_ref());
        match target {
            Some(Target::Circuit(circuit)) => self.lead_into(circuit, &mut told),
            Some(Target::NextHop(via)) => {
                let via = &self.compiler.tables().vias[via.0];
                self.lead_out_of(via, to, &mut told);
            }
            Some(Target::Blackhole) => told.problem = problem(DropReason::Blackhole),
            Some(Target::Own) => {
                let sources = self.sources();
                let port = sources.own_port(&vrf, to);
                told.own_port = port.map(ToString::to_string).unwrap_or_default();
                if !matches!(protocol, Some(1 | 58)) {
                    told.problem = problem(DropReason::OwnAddress);
                }
            }
            Some(Target::SubnetEnd) => told.problem = problem(DropReason::BadDestination),
            None if group.is_some() => told.problem = problem(DropReason::GroupDown),
            Some(Target::Group(_)) | None => told.problem = problem(DropReason::NoRoute),
        }
        told.losses = self.losses_on_the_way(&vrf, &told.out_port);
        told.warnings = self.warnings_on_the_way(&vrf, &told);
        Ok(told)
    }

    /// What ports by which it may have come, and the one by which it would leave, have lost.
    fn losses_on_the_way(&self, vrf: &VrfName, out_port: &str) -> Vec<String> {
        let stats = self.pool.stats();
        let mut told = Vec::new();
        for (name, port) in self.state.ports.iter() {
            let of_vrf = port.role == Role::Edge(vrf.clone());
            let open = self.ports.open().get(name);
            let open = open.filter(|_| of_vrf || name.as_str() == out_port);
            let Some(open) = open else {
                continue;
            };
            let totals = stats.ports.iter().find(|it| it.port == open.index);
            for loss in totals.map_or_else(Vec::new, |totals| losses::of(port, open, totals)) {
                told.push(loss.sentence(name, loss.count));
            }
        }
        told
    }

    /// Of the circuit and link that it would enter, of the port that it would leave by, and of those by which it may have
    /// come.
    fn warnings_on_the_way(&self, vrf: &VrfName, told: &v1::ExplainResponse) -> Vec<String> {
        let into = told.into.as_ref();
        let circuit = into.and_then(|it| CircuitName::new(&it.circuit));
        let link = into.and_then(|it| LinkName::new(&it.link));
        let port = PortName::new(&told.out_port);
        let items = [
            circuit.map(ItemKey::Circuit),
            link.map(ItemKey::Link),
            port.map(ItemKey::Port),
        ];
        let of = |item: ItemKey| {
            let warnings = self.warnings.of(&item).into_iter();
            warnings.map(move |warning| format!("{item}: {warning}"))
        };
        let mut items: Vec<_> = items.into_iter().flatten().collect();
        let edge = Role::Edge(vrf.clone());
        for (name, _) in self.state.ports.iter().filter(|(_, it)| it.role == edge) {
            let item = ItemKey::Port(name.clone());
            if !items.contains(&item) {
                items.push(item);
            }
        }
        items.into_iter().flat_map(of).collect()
    }

    /// The members of the group that a route leads to which no flow takes: their weight is 0, or they are down.
    fn skipped(&self, route: Option<&v1::Route>) -> Vec<String> {
        let Some(v1::route::Target::Group(name)) = route.and_then(|it| it.target.as_ref()) else {
            return Vec::new();
        };
        let members = GroupName::new(name).and_then(|name| self.state.groups.get(&name));
        let members = members.into_iter().flatten();
        let down = members.filter_map(|member| {
            let down = self.members.down().why(&member.hop);
            let down = down.map(|why| why.to_string());
            let why = match member.weight {
                0 => down.map_or_else(
                    || "its weight is 0".to_owned(),
                    |why| format!("its weight is 0, and {why}"),
                ),
                _ => down?,
            };
            Some(match &member.hop {
                Hop::Circuit(name) => format!("circuit {name}: {why}"),
                Hop::Via(Via { port, address }) => match address {
                    Some(address) => format!("{address} on port {port}: {why}"),
                    None => format!("port {port}: {why}"),
                },
            })
        });
        down.collect()
    }

    fn lead_into(&self, index: CircuitIndex, told: &mut v1::ExplainResponse) {
        let tables = self.compiler.tables();
        let circuit = tables.circuit(index);
        let link = tables.link(circuit.link);
        let names = self.compiler.names(&Wanted {
            links: [circuit.link.0].into(),
            circuits: [index.0].into(),
            ..Wanted::default()
        });
        let name = names.link(circuit.link, tables.generation);
        told.into = Some(v1::Segment {
            link: name.map(ToString::to_string).unwrap_or_default(),
            receiver_index: link.transmit.as_ref().map_or(0, |it| it.receiver),
            link_epoch: link.transmit.as_ref().map_or(0, |it| it.sa.epoch()),
            label: circuit.label,
            circuit: names
                .circuit(index, tables.generation)
                .map(ToString::to_string)
                .unwrap_or_default(),
            circuit_epoch: circuit.transmit.as_ref().map_or(0, |sa| sa.epoch()),
            ..Default::default()
        });
        told.out_port = self.port_name(link.port, tables.generation);
        let sources = self.sources();
        if let Some(it) = name.and_then(|name| self.state.links.get(name)) {
            told.next_hop = it.neighbour().to_string();
        }
        let mac = name.and_then(|name| sources.next_hop(name));
        told.next_hop_mac = mac.map(|mac| mac.to_string()).unwrap_or_default();
        told.problem = if circuit.transmit.is_none() {
            problem(DropReason::NoTransmitKey)
        } else if let Some(name) = name {
            match health::link(&sources, &self.netlink.view, name).reason() {
                "" => String::new(),
                reason => format!("link {name}: {reason}"),
            }
        } else {
            String::new()
        };
    }

    fn lead_out_of(&self, via: &fib::NextHop, to: IpAddr, told: &mut v1::ExplainResponse) {
        let tables = self.compiler.tables();
        told.out_port = self.port_name(via.port, tables.generation);
        let address = via.address.unwrap_or_else(|| ip::mapped(to));
        told.next_hop = ip::unmapped(address).to_string();
        let key = NeighbourKey {
            port: via.port,
            address,
        };
        let sources = self.sources();
        let open = self.ports.open().iter();
        let dead = open
            .filter(|(_, open)| open.index == via.port)
            .map(|(name, _)| (name, health::port(&sources, &self.netlink.view, name)))
            .find(|(_, status)| !status.carries());
        if let Some((name, status)) = dead {
            told.problem = format!("port {name}: {}", status.reason());
            return;
        }
        let peer = tables.port(via.port).and_then(|port| port.peer);
        let known = || tables.neighbours.get(&key).map(Neighbour::mac);
        match peer.or_else(known) {
            Some(mac) => told.next_hop_mac = mac.to_string(),
            None => {
                told.problem =
                    "the next hop's hardware address is not known: the first packet has it asked for".to_owned();
            }
        }
    }
}

/// A drop reason, as counters and traces call it.
fn problem(reason: DropReason) -> String {
    reason.name().to_owned()
}

/// Its headers are all that is looked at.
fn packet(from: Option<IpAddr>, to: IpAddr, protocol: u8, ports: (u16, u16)) -> Vec<u8> {
    let mut packet = match to {
        IpAddr::V4(to) => ip::V4Header {
            version_ihl: 0x45,
            traffic_class: 0,
            total_length: 24.into(),
            identification: 0.into(),
            fragment: 0.into(),
            ttl: 64,
            protocol,
            checksum: 0.into(),
            source: match from {
                Some(IpAddr::V4(from)) => from.octets(),
                _ => Ipv4Addr::UNSPECIFIED.octets(),
            },
            destination: to.octets(),
        }
        .as_bytes()
        .to_vec(),
        IpAddr::V6(to) => ip::V6Header {
            version_class_flow: (6 << 28).into(),
            payload_length: 4.into(),
            next_header: protocol,
            hop_limit: 64,
            source: match from {
                Some(IpAddr::V6(from)) => from.octets(),
                _ => Ipv6Addr::UNSPECIFIED.octets(),
            },
            destination: to.octets(),
        }
        .as_bytes()
        .to_vec(),
    };
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet
}
