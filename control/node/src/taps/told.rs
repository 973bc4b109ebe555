//! Traces in names.

use std::net::IpAddr;

use twinseal_api::v1::{self, item::Item};

use super::Taken;
use crate::compile::{Names, Wanted};
use crate::node::Node;
use twinseal_fib::PortIndex;
use twinseal_forward::trace::{Checksum, Segment, Trace};
use twinseal_forward::{Disposition, STAGES};
use twinseal_model::items;
use twinseal_model::state::{PortName, Prefix, VrfName};
use twinseal_wire::checksum::State;
use twinseal_wire::flow_key::FlowKey;

impl Node {
    /// Traces as the API tells them. Names are those of now; what has gone meanwhile has none.
    pub(crate) fn told(&self, taken: &[Taken]) -> Vec<v1::TracedPacket> {
        let mut wanted = Wanted::default();
        for (_, _, trace) in taken {
            wanted.vrfs.extend(trace.vrf.map(|it| it.0));
            for segment in [&trace.from, &trace.into] {
                wanted.links.extend(segment.link.map(|it| it.0));
                wanted.circuits.extend(segment.circuit.map(|it| it.0));
            }
        }
        let names = self.compiler.names(&wanted);
        let tell = |(worker, when, trace): &Taken| v1::TracedPacket {
            unix_nanos: *when,
            worker: *worker as u32,
            ..self.tell_one(trace, &names)
        };
        taken.iter().map(tell).collect()
    }

    fn tell_one(&self, it: &Trace, names: &Names) -> v1::TracedPacket {
        let vrf = it.vrf.and_then(|vrf| names.vrf(vrf, it.generation));
        let (fate, reason, out) = match (it.disposition, it.answered) {
            (Disposition::Drop(reason), _) => (v1::PacketFate::Dropped, Some(reason), None),
            (Disposition::Wait(_), reason) => (v1::PacketFate::Held, reason, None),
            (Disposition::Send(port), None) => (v1::PacketFate::Sent, None, Some(port)),
            (Disposition::Send(port), reason) => (v1::PacketFate::Answered, reason, Some(port)),
            (Disposition::Punt(_), _) => (v1::PacketFate::Punted, None, None),
            (Disposition::Pending, _) => (v1::PacketFate::Unspecified, None, None),
        };
        let stages = STAGES.iter().enumerate();
        let stages = stages.filter(|(nth, _)| it.stages & 1 << nth != 0);
        let route = vrf
            .zip(it.packet)
            .and_then(|(vrf, packet)| self.route(vrf, packet.destination));
        v1::TracedPacket {
            port: self.port_name(it.port, it.generation),
            received_bytes: it.received as u32,
            stages: stages.map(|(_, name)| (*name).to_owned()).collect(),
            from: segment(&it.from, names, it.generation),
            packet: it.packet.as_ref().map(header),
            vrf: vrf.map(VrfName::to_string).unwrap_or_default(),
            route,
            into: segment(&it.into, names, it.generation),
            fate: fate.into(),
            reason: reason.map(|it| it.name().to_owned()).unwrap_or_default(),
            out_port: out
                .map(|port| self.port_name(port, it.generation))
                .unwrap_or_default(),
            sent_bytes: it.sent as u32,
            checksum: match it.checksum {
                Checksum::Is(State::None) => "",
                Checksum::Is(State::Right) => "right",
                Checksum::Is(State::Unfinished) => "unfinished",
                Checksum::Is(State::Wrong) => "wrong",
                Checksum::Finished => "finished",
            }
            .to_owned(),
            ..Default::default()
        }
    }

    /// The name of the port that had an index in the tables of a generation, if it has it still.
    pub(super) fn port_name(&self, index: PortIndex, generation: u64) -> String {
        let port = self.compiler.tables().port(index);
        if port.is_none_or(|port| port.since > generation) {
            return String::new();
        }
        let mut open = self.ports.open().iter();
        let found = open.find(|(_, port)| port.index == index);
        found
            .map(|(name, _)| PortName::to_string(name))
            .unwrap_or_default()
    }

    /// The longest prefix that an address falls into.
    pub(super) fn route(&self, vrf: &VrfName, to: IpAddr) -> Option<v1::Route> {
        let routes = self.state.routes.get(vrf)?;
        let longest = if to.is_ipv4() { 32 } else { 128 };
        let prefixes = (0..=longest).rev().filter_map(|len| Prefix::new(to, len));
        let (prefix, target) = prefixes
            .filter_map(|prefix| Some((prefix, routes.get(&prefix)?)))
            .next()?;
        match items::route(vrf, &prefix, target) {
            Item::Route(route) => Some(route),
            _ => None,
        }
    }
}

fn header(it: &FlowKey) -> v1::PacketHeader {
    let (source_port, destination_port) = it.ports.unwrap_or_default();
    v1::PacketHeader {
        source: it.source.to_string(),
        destination: it.destination.to_string(),
        protocol: it.protocol.into(),
        source_port: source_port.into(),
        destination_port: destination_port.into(),
        length: it.length,
        ttl: it.ttl.into(),
    }
}

fn segment(it: &Segment, names: &Names, generation: u64) -> Option<v1::Segment> {
    if *it == Segment::default() {
        return None;
    }
    let (receiver_index, link_lane, link_epoch) = it.link_seal.unwrap_or_default();
    let (circuit_lane, circuit_epoch) = it.circuit_seal.unwrap_or_default();
    let link = it.link.and_then(|link| names.link(link, generation));
    let circuit = it
        .circuit
        .and_then(|circuit| names.circuit(circuit, generation));
    Some(v1::Segment {
        link: link.map(ToString::to_string).unwrap_or_default(),
        receiver_index,
        link_epoch: link_epoch.unwrap_or_default(),
        link_lane: link_lane.into(),
        label: it.label.unwrap_or_default(),
        circuit: circuit.map(ToString::to_string).unwrap_or_default(),
        circuit_epoch: circuit_epoch.unwrap_or_default(),
        circuit_lane: circuit_lane.into(),
    })
}
