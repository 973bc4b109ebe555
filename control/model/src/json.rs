//! Events as JSON objects. `docs/events.md` describes them, `docs/events.schema.json` is what they are checked against.
//!
//! Where OpenZiti has an event of the kind, its namespace, version and fields are taken (its `controller/event`), so that
//! what reads those can read these. What it does not have is in namespaces that begin with `twinseal.`, and fields of
//! our own are added to its events, never put in the place of its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use twinseal_api::v1::{self, event::Event as Body};

use twinseal_base::time::rfc3339;

/// An event as one object.
pub fn json(event: &v1::Event) -> Value {
    let node = event.node.as_str();
    let mut object = match &event.event {
        Some(Body::Table(it)) => table(it),
        Some(Body::Link(it)) => link(node, it),
        Some(Body::Port(it)) => port(it),
        Some(Body::Circuit(it)) => circuit(node, it),
        Some(Body::Key(it)) => key(it),
        Some(Body::Fault(it)) => fields("twinseal.fault", &it.kind, json!({ "detail": it.detail })),
        Some(Body::Gap(it)) => gap(it),
        Some(Body::Usage(it)) => usage(node, it.record.as_ref()),
        Some(Body::Performance(it)) => performance(it),
        Some(Body::Security(it)) => security(it),
        Some(Body::Drain(it)) => drain(it),
        None => fields("twinseal.unknown", "unknown", json!({})),
    };
    object.insert("event_src_id".into(), node.into());
    object.insert("timestamp".into(), rfc3339(event.unix_nanos).into());
    object.insert("kind".into(), kind(event.kind()).into());
    object.insert("sequence".into(), event.sequence.into());
    // As text: it is more than a double holds.
    object.insert("boot".into(), event.boot.to_string().into());
    object.into()
}

/// The word of a kind.
pub fn kind(kind: v1::EventKind) -> &'static str {
    match kind {
        v1::EventKind::Unspecified => "unknown",
        v1::EventKind::Fault => "fault",
        v1::EventKind::Configuration => "configuration",
        v1::EventKind::Accounting => "accounting",
        v1::EventKind::Performance => "performance",
        v1::EventKind::Security => "security",
    }
}

/// The kind of a word.
pub fn kind_of(word: &str) -> Option<v1::EventKind> {
    use v1::EventKind::{Accounting, Configuration, Fault, Performance, Security};
    [Fault, Configuration, Accounting, Performance, Security]
        .into_iter()
        .find(|it| kind(*it) == word)
}

fn fields(namespace: &str, event_type: &str, more: Value) -> Map<String, Value> {
    let mut object = match more {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    object.insert("namespace".into(), namespace.into());
    object.insert("event_type".into(), event_type.into());
    object
}

fn table(it: &v1::TableEvent) -> Map<String, Value> {
    let more = json!({
        "generation": it.generation,
        "changes": it.changes,
        "cause": it.cause,
        "pending": it.pending.is_some(),
        "owner": it.owner,
        "taken_from": it.taken_from,
    });
    fields("twinseal.table", "committed", more)
}

fn link(node: &str, it: &v1::LinkEvent) -> Map<String, Value> {
    let (namespace, event_type) = match it.status() {
        v1::LinkStatus::Up => ("link", "routerLinkNew"),
        v1::LinkStatus::Down => ("link", "fault"),
        v1::LinkStatus::Degraded => ("twinseal.link", "degraded"),
        v1::LinkStatus::Unspecified => ("twinseal.link", "unknown"),
    };
    let more = json!({
        "link_id": it.link,
        "src_router_id": node,
        "dst_router_id": it.remote,
        "protocol": "twinseal",
        "dial_address": format!("udp:{}", it.remote),
        "cost": 1,
        "reason": it.reason,
    });
    fields(namespace, event_type, more)
}

fn port(it: &v1::PortEvent) -> Map<String, Value> {
    let event_type = match it.status() {
        v1::PortStatus::Up => "up",
        v1::PortStatus::Degraded => "degraded",
        v1::PortStatus::Down => "down",
        v1::PortStatus::Unspecified => "unknown",
    };
    let more = json!({
        "port_id": it.port,
        "reason": it.reason,
        "device": it.netdev,
        "mac": it.mac,
        "mtu": it.mtu,
    });
    fields("twinseal.port", event_type, more)
}

fn circuit(node: &str, it: &v1::CircuitEvent) -> Map<String, Value> {
    let (namespace, event_type) = match it.change() {
        v1::CircuitChange::Created => ("circuit", "created"),
        v1::CircuitChange::PathUpdated => ("circuit", "pathUpdated"),
        v1::CircuitChange::Deleted => ("circuit", "deleted"),
        v1::CircuitChange::Failed => ("circuit", "failed"),
        v1::CircuitChange::Up => ("twinseal.circuit", "up"),
        v1::CircuitChange::Unspecified => ("twinseal.circuit", "unknown"),
    };
    let none = v1::Circuit::default();
    let configuration = it.configuration.as_ref().unwrap_or(&none);
    let tag = |name: &str| configuration.tags.get(name).map_or("", String::as_str);
    let (ingress, egress) = match configuration.end() {
        v1::End::B => ("", configuration.vrf.as_str()),
        _ => (configuration.vrf.as_str(), ""),
    };
    let mut more = json!({
        "version": 2,
        "circuit_id": it.circuit,
        "client_id": tag("clientId"),
        "service_id": tag("serviceId"),
        "terminator_id": "",
        "instance_id": "",
        // This node knows its own link and no further.
        "path": {
            "nodes": [node, it.remote],
            "links": [configuration.link],
            "ingress_id": ingress,
            "egress_id": egress,
        },
        "link_count": 1,
        "end_to_end_id": configuration.id.to_string(),
        "label": configuration.label,
        "tags": tags(&configuration.tags),
    });
    match it.change() {
        v1::CircuitChange::Failed => more["failure_cause"] = it.cause.as_str().into(),
        v1::CircuitChange::Created => {}
        _ => more["duration"] = it.duration_nanos.into(),
    }
    fields(namespace, event_type, more)
}

fn key(it: &v1::KeyEvent) -> Map<String, Value> {
    use v1::key_ref::Owner;
    let event_type = match it.change() {
        v1::KeyChange::Installed => "installed",
        v1::KeyChange::Needed => "needed",
        v1::KeyChange::Transmitting => "transmitting",
        v1::KeyChange::Retired => "retired",
        v1::KeyChange::NearlyExhausted => "nearlyExhausted",
        v1::KeyChange::Exhausted => "exhausted",
        v1::KeyChange::Unspecified => "unknown",
    };
    let mut object = fields("twinseal.key", event_type, json!({ "limit": it.limit }));
    if let Some(key) = &it.key {
        match &key.owner {
            Some(Owner::Link(name)) => object.insert("link_id".into(), name.as_str().into()),
            Some(Owner::Circuit(name)) => object.insert("circuit_id".into(), name.as_str().into()),
            None => None,
        };
        let direction = match key.direction() {
            v1::Direction::AToB => "a-to-b",
            v1::Direction::BToA => "b-to-a",
            v1::Direction::Unspecified => "unknown",
        };
        object.insert("direction".into(), direction.into());
        object.insert("epoch".into(), key.epoch.into());
    }
    object
}

fn gap(it: &v1::GapEvent) -> Map<String, Value> {
    let event_type = match it.cause() {
        v1::GapCause::SlowReader => "slowReader",
        v1::GapCause::TooOld => "tooOld",
        v1::GapCause::Restarted => "restarted",
        v1::GapCause::Unspecified => "unknown",
    };
    let more = json!({ "first": it.first, "next": it.next });
    fields("twinseal.gap", event_type, more)
}

fn usage(node: &str, record: Option<&v1::UsageRecord>) -> Map<String, Value> {
    let none = v1::UsageRecord::default();
    let it = record.unwrap_or(&none);
    let mut more = usage_record(it);
    more.insert("source_id".into(), node.into());
    let mut object = fields("usage", "", Value::Object(more));
    // Version 3 has no types of usage events.
    object.remove("event_type");
    object
}

/// A record with the fields of OpenZiti's `usage` version 3 and some of our own.
pub fn usage_record(it: &v1::UsageRecord) -> Map<String, Value> {
    // The end named A counts as the initiating one. What hosts send is received from them, and goes into the circuit.
    let end = match it.end() {
        v1::End::B => "egress",
        _ => "ingress",
    };
    let (rx, tx) = (format!("{end}.rx"), format!("{end}.tx"));
    let fields = json!({
        "version": 3,
        "circuit_id": it.circuit,
        "end_to_end_id": it.id.to_string(),
        "usage": { &rx: it.sent_bytes, &tx: it.received_bytes },
        "packets": { &rx: it.sent_packets, &tx: it.received_packets },
        "drops": counters(&it.drops),
        "interval_start_utc": it.interval_start_unix,
        "interval_length": it.interval_seconds,
        "running": it.running,
        "tags": tags(&it.tags),
    });
    match fields {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn performance(it: &v1::PerformanceEvent) -> Map<String, Value> {
    let more = json!({
        "interval_start_utc": it.interval_start_unix,
        "interval_length": it.interval_seconds,
        "packets": it.packets,
        "batches": it.batches,
        "received_bytes": it.received_bytes,
        "sent_packets": it.sent_packets,
        "sent_bytes": it.sent_bytes,
        "drops": counters(&it.drops),
    });
    fields("twinseal.performance", "minute", more)
}

fn security(it: &v1::SecurityEvent) -> Map<String, Value> {
    use v1::security_event::Owner;
    let seconds = it.period_nanos as f64 / 1e9;
    let more = json!({
        "count": it.count,
        "total": it.total,
        "period_seconds": seconds,
    });
    let mut object = fields("twinseal.security", &it.reason, more);
    match &it.owner {
        Some(Owner::Link(name)) => object.insert("link_id".into(), name.as_str().into()),
        Some(Owner::Circuit(name)) => object.insert("circuit_id".into(), name.as_str().into()),
        Some(Owner::Peer(name)) => object.insert("peer".into(), name.as_str().into()),
        None => None,
    };
    object
}

fn drain(it: &v1::DrainEvent) -> Map<String, Value> {
    use v1::drain_target::Target;
    let event_type = match it.status() {
        v1::DrainStatus::Draining => "draining",
        v1::DrainStatus::Active => "active",
        v1::DrainStatus::Unspecified => "unknown",
    };
    let mut object = fields("twinseal.drain", event_type, json!({ "by": it.by }));
    let target = it.target.as_ref().and_then(|it| it.target.as_ref());
    let scope = match target {
        Some(Target::Node(_)) => "node",
        Some(Target::Link(name)) => {
            object.insert("link_id".into(), name.as_str().into());
            "link"
        }
        Some(Target::Port(name)) => {
            object.insert("port_id".into(), name.as_str().into());
            "port"
        }
        None => "unknown",
    };
    object.insert("scope".into(), scope.into());
    object
}

fn counters(all: &[v1::Counter]) -> Value {
    all.iter()
        .map(|it| (it.name.clone(), it.value.into()))
        .collect::<Map<_, Value>>()
        .into()
}

fn tags(tags: &BTreeMap<String, String>) -> Value {
    tags.iter()
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect::<Map<_, Value>>()
        .into()
}
