//! Traces, captured frames and explanations, for people and for programs.

use std::fmt::Write;

use serde_json::{Map, Value, json};
use twinseal_api::v1::{self, route::Target};

use twinseal_base::time::rfc3339;
use twinseal_wire::flow_key::FlowKey;

/// A trace in one line.
pub(crate) fn traced(it: &v1::TracedPacket) -> String {
    let mut text = format!(
        "{} {} {} B",
        rfc3339(it.unix_nanos),
        it.port,
        it.received_bytes
    );
    if let Some(from) = &it.from {
        text += &format!("; out of {}", segment(from));
    }
    if let Some(packet) = &it.packet {
        text += &format!(": {}", header(packet));
        if !it.checksum.is_empty() {
            text += &format!(", checksum {}", it.checksum);
        }
    }
    if !it.vrf.is_empty() {
        text += &format!("; vrf {}", it.vrf);
    }
    if let Some(route) = &it.route {
        text += &format!(", route {} {}", route.prefix, target(route));
    }
    if let Some(into) = &it.into {
        text += &format!("; into {}", segment(into));
    }
    let stage = it.stages.last().map_or("", String::as_str);
    text += &match it.fate() {
        v1::PacketFate::Sent => format!("; sent by {}, {} B", it.out_port, it.sent_bytes),
        v1::PacketFate::Held => "; held: its neighbour is being asked for".to_owned(),
        v1::PacketFate::Dropped => format!("; DROPPED in {stage}: {}", it.reason),
        v1::PacketFate::Answered => {
            format!(
                "; DROPPED: {}, and its sender told by {}",
                it.reason, it.out_port
            )
        }
        v1::PacketFate::Punted => "; for the node itself".to_owned(),
        v1::PacketFate::Unspecified => "; its fate is of a later version".to_owned(),
    };
    text
}

fn header(it: &v1::PacketHeader) -> String {
    let end = |address: &str, port: u32| match (port, address.contains(':')) {
        (0, _) => address.to_owned(),
        (port, false) => format!("{address}:{port}"),
        (port, true) => format!("[{address}]:{port}"),
    };
    format!(
        "{} > {} {}, {} B, ttl {}",
        end(&it.source, it.source_port),
        end(&it.destination, it.destination_port),
        protocol(it.protocol),
        it.length,
        it.ttl
    )
}

fn protocol(number: u32) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        number => format!("protocol {number}"),
    }
}

fn target(route: &v1::Route) -> String {
    match &route.target {
        Some(Target::Circuit(name)) => format!("to circuit {name}"),
        Some(Target::Group(name)) => format!("to group {name}"),
        Some(Target::Via(via)) if via.address.is_empty() => format!("by {}", via.port),
        Some(Target::Via(via)) => format!("by {} to {}", via.port, via.address),
        Some(Target::Blackhole(_)) => "to nowhere".to_owned(),
        None => "to something of a later version".to_owned(),
    }
}

/// `circuit c (epoch 1), label 100 on link ab (epoch 1)`
fn segment(it: &v1::Segment) -> String {
    let epoch = |epoch: u32| match epoch {
        0 => String::new(),
        epoch => format!(" (epoch {epoch})"),
    };
    let mut text = String::new();
    if !it.circuit.is_empty() {
        text += &format!("circuit {}{}, ", it.circuit, epoch(it.circuit_epoch));
    }
    if it.label != 0 {
        text += &format!("label {} on ", it.label);
    }
    match it.link.as_str() {
        "" => {
            text += &format!(
                "a link of receiver index {}, which none has",
                it.receiver_index
            )
        }
        link => text += &format!("link {link}{}", epoch(it.link_epoch)),
    }
    text
}

/// The same for programs.
pub(crate) fn traced_json(it: &v1::TracedPacket) -> Value {
    let fate = match it.fate() {
        v1::PacketFate::Sent => "sent",
        v1::PacketFate::Held => "held",
        v1::PacketFate::Dropped => "dropped",
        v1::PacketFate::Answered => "answered",
        v1::PacketFate::Punted => "punted",
        v1::PacketFate::Unspecified => "unknown",
    };
    json!({
        "unix_nanos": it.unix_nanos,
        "worker": it.worker,
        "port": it.port,
        "received_bytes": it.received_bytes,
        "stages": it.stages,
        "from": it.from.as_ref().map(segment_json),
        "packet": it.packet.as_ref().map(|it| json!({
            "source": it.source,
            "destination": it.destination,
            "protocol": it.protocol,
            "source_port": it.source_port,
            "destination_port": it.destination_port,
            "length": it.length,
            "ttl": it.ttl,
        })),
        "vrf": it.vrf,
        "route": it.route.as_ref().map(route_json),
        "into": it.into.as_ref().map(segment_json),
        "fate": fate,
        "reason": it.reason,
        "out_port": it.out_port,
        "sent_bytes": it.sent_bytes,
        "checksum": it.checksum,
    })
}

fn segment_json(it: &v1::Segment) -> Value {
    json!({
        "link": it.link,
        "receiver_index": it.receiver_index,
        "link_epoch": it.link_epoch,
        "link_lane": it.link_lane,
        "label": it.label,
        "circuit": it.circuit,
        "circuit_epoch": it.circuit_epoch,
        "circuit_lane": it.circuit_lane,
    })
}

fn route_json(it: &v1::Route) -> Value {
    let (word, value): (_, Value) = match &it.target {
        Some(Target::Circuit(name)) => ("circuit", name.as_str().into()),
        Some(Target::Group(name)) => ("group", name.as_str().into()),
        Some(Target::Via(via)) => ("via", json!({ "port": via.port, "address": via.address })),
        Some(Target::Blackhole(_)) => ("blackhole", json!({})),
        None => ("target", Value::Null),
    };
    let mut object = Map::new();
    object.insert("prefix".into(), it.prefix.as_str().into());
    object.insert(word.into(), value);
    object.into()
}

/// A captured frame in one line.
pub(crate) fn frame(it: &v1::CapturedFrame) -> String {
    let way = match it.direction() {
        v1::CaptureDirection::Out => "out",
        _ => "in",
    };
    let what = match FlowKey::of_frame(&it.octets) {
        Some(brief) => {
            let (source_port, destination_port) = brief.ports.unwrap_or_default();
            header(&v1::PacketHeader {
                source: brief.source.to_string(),
                destination: brief.destination.to_string(),
                protocol: brief.protocol.into(),
                source_port: source_port.into(),
                destination_port: destination_port.into(),
                length: brief.length,
                ttl: brief.ttl.into(),
            })
        }
        None => "no IP packet, or too little of it".to_owned(),
    };
    format!("{} {way} {} B: {what}", rfc3339(it.unix_nanos), it.length)
}

/// The same for programs, with its octets in hexadecimal digits.
pub(crate) fn frame_json(it: &v1::CapturedFrame) -> Value {
    let way = match it.direction() {
        v1::CaptureDirection::Out => "out",
        _ => "in",
    };
    let mut octets = String::with_capacity(2 * it.octets.len());
    for octet in &it.octets {
        // Writing into memory cannot fail.
        let _ = write!(octets, "{octet:02x}");
    }
    json!({
        "unix_nanos": it.unix_nanos,
        "direction": way,
        "length": it.length,
        "worker": it.worker,
        "octets": octets,
    })
}

/// Where a packet would go, a line for each step.
pub(crate) fn explained(it: &v1::ExplainResponse) -> String {
    let mut text = match &it.route {
        Some(route) => format!("route     {} {}\n", route.prefix, target(route)),
        None => "route     none\n".to_owned(),
    };
    for member in &it.skipped {
        text += &format!("down      {member}\n");
    }
    if !it.own_port.is_empty() {
        text += &format!(
            "local     the node's own at port {}: for hosts there the host itself, for others it answers echo requests only\n",
            it.own_port
        );
    }
    if let Some(into) = &it.into {
        text += &format!("into      {}\n", segment(into));
    }
    if !it.out_port.is_empty() {
        text += &format!("port      {}\n", it.out_port);
    }
    if !it.next_hop.is_empty() {
        let mac = match it.next_hop_mac.as_str() {
            "" => "not resolved",
            mac => mac,
        };
        text += &format!("next hop  {} ({mac})\n", it.next_hop);
    }
    if !it.problem.is_empty() {
        text += &format!("PROBLEM   {}\n", it.problem);
    }
    for warning in &it.warnings {
        text += &format!("WARNING   {warning}\n");
    }
    for loss in &it.losses {
        text += &format!("SO FAR    {loss}\n");
    }
    text
}

/// The same for programs.
pub(crate) fn explained_json(it: &v1::ExplainResponse) -> Value {
    json!({
        "route": it.route.as_ref().map(route_json),
        "into": it.into.as_ref().map(segment_json),
        "out_port": it.out_port,
        "next_hop": it.next_hop,
        "next_hop_mac": it.next_hop_mac,
        "problem": it.problem,
        "losses": it.losses,
        "warnings": it.warnings,
        "own_port": it.own_port,
        "skipped": it.skipped,
    })
}
