//! What `ctl --json` prints. Fields are called as in the protocol; counters by name are objects.

use serde_json::{Map, Value, json};
use twinseal_api::v1;

use twinseal_statefile::{direction_word, suite_word};

pub(crate) fn port_json(it: &v1::PortState) -> Value {
    json!({
        "port": it.port,
        "mac": it.mac,
        "mtu": it.mtu,
        "xdp": it.xdp,
        "bind": it.bind,
        "need_wakeup": it.need_wakeup,
        "up": it.up,
        "reason": it.reason,
        "draining": it.draining,
        "checksum": it.checksum,
        "warnings": it.warnings,
    })
}

pub(crate) fn owner_json(it: &v1::OwnerState) -> Value {
    json!({
        "owner": it.owner,
        "generation": it.generation,
        "items": it.items,
        "pending": it.pending.as_ref().map(|it| json!({
            "generation": it.generation,
            "until_unix_nanos": it.until_unix_nanos,
        })),
    })
}

pub(crate) fn link_json(it: &v1::LinkState) -> Value {
    json!({
        "link": it.link,
        "up": it.up,
        "reason": it.reason,
        "next_hop_mac": it.next_hop_mac,
        "draining": it.draining,
        "warnings": it.warnings,
    })
}

pub(crate) fn drain_json(it: &v1::DrainState) -> Value {
    let mut object = drain_target(it.target.as_ref());
    object.insert("since_unix_nanos".into(), it.since_unix_nanos.into());
    object.insert("by".into(), it.by.as_str().into());
    object.into()
}

/// One reason of a refusal.
pub(crate) fn refused_json(it: &v1::RefusedItem) -> Value {
    json!({
        "item": it.item,
        "field": it.field,
        "reason": it.reason,
        "fix": it.fix,
        "code": it.code().as_str_name(),
    })
}

/// What is drained, with a word for how that stands.
pub(crate) fn draining_json(target: Option<&v1::DrainTarget>, state: &str) -> Value {
    let mut object = drain_target(target);
    object.insert("state".into(), state.into());
    object.into()
}

fn drain_target(target: Option<&v1::DrainTarget>) -> Map<String, Value> {
    use v1::drain_target::Target;
    let (word, name) = match target.and_then(|it| it.target.as_ref()) {
        Some(Target::Node(_)) => ("node", true.into()),
        Some(Target::Link(name)) => ("link", name.as_str().into()),
        Some(Target::Port(name)) => ("port", name.as_str().into()),
        None => return Map::new(),
    };
    Map::from_iter([(word.to_owned(), name)])
}

pub(crate) fn neighbour_json(it: &v1::NeighbourState) -> Value {
    json!({ "port": it.port, "address": it.address, "mac": it.mac, "static": it.r#static })
}

pub(crate) fn key_json(it: &v1::KeyState) -> Value {
    let mut object = key_ref(it.key.as_ref());
    object.insert("suite".into(), suite_word(it.suite).into());
    object.insert("receiver_index".into(), it.receiver_index.into());
    object.insert("transmitter".into(), it.transmitter.into());
    object.insert("transmitting".into(), it.transmitting.into());
    object.insert("packets".into(), it.packets.into());
    object.insert("exhausted".into(), it.exhausted.into());
    object.insert("needed".into(), it.needed.into());
    object.into()
}

/// The owner's kind and name, direction and epoch; words of a later protocol are null.
fn key_ref(key: Option<&v1::KeyRef>) -> Map<String, Value> {
    use v1::key_ref::Owner;
    let mut object = Map::new();
    let Some(key) = key else { return object };
    match &key.owner {
        Some(Owner::Link(name)) => object.insert("link".into(), name.as_str().into()),
        Some(Owner::Circuit(name)) => object.insert("circuit".into(), name.as_str().into()),
        None => None,
    };
    object.insert("direction".into(), direction_word(key.direction).into());
    object.insert("epoch".into(), key.epoch.into());
    object
}

pub(crate) fn stats_json(stats: &v1::StatsResponse) -> Value {
    let traffic = |it: &v1::Traffic| {
        json!({
            "name": it.name,
            "received_packets": it.received_packets,
            "received_bytes": it.received_bytes,
            "sent_packets": it.sent_packets,
            "sent_bytes": it.sent_bytes,
        })
    };
    let port = |it: &v1::PortStats| {
        json!({
            "port": it.port,
            "received_packets": it.received_packets,
            "received_bytes": it.received_bytes,
            "sent_packets": it.sent_packets,
            "sent_bytes": it.sent_bytes,
            "steering": counters(&it.steering),
            "sockets": counters(&it.sockets),
            "offloads": counters(&it.offloads),
        })
    };
    let worker = |it: &v1::WorkerStats| {
        json!({
            "worker": it.worker,
            "batches": it.batches,
            "packets": it.packets,
            "sleeps": it.sleeps,
            "frames_free": it.frames_free,
            "frames": it.frames,
        })
    };
    let drain = |it: &v1::DrainStats| {
        let mut object = drain_target(it.target.as_ref());
        object.insert("packets".into(), it.packets.into());
        object
    };
    json!({
        "generation": stats.generation,
        "boot": stats.boot.to_string(),
        "provider": stats.provider,
        "ports": stats.ports.iter().map(port).collect::<Vec<_>>(),
        "links": stats.links.iter().map(traffic).collect::<Vec<_>>(),
        "circuits": stats.circuits.iter().map(traffic).collect::<Vec<_>>(),
        "drops": counters(&stats.drops),
        "icmp_errors": counters(&stats.icmp_errors),
        "echoes": counters(&stats.echoes),
        "refusals": counters(&stats.refusals),
        "drains": stats.drains.iter().map(drain).collect::<Vec<_>>(),
        "workers": stats.workers.iter().map(worker).collect::<Vec<_>>(),
    })
}

fn counters(all: &[v1::Counter]) -> Value {
    all.iter()
        .map(|it| (it.name.clone(), it.value.into()))
        .collect::<Map<_, Value>>()
        .into()
}
