//! Events for people, a line each.

use twinseal_api::v1;
use twinseal_model::owners;

use super::{drain_name, key_name};
use twinseal_base::time;

/// An event, without an end of line.
pub(crate) fn event(event: &v1::Event) -> String {
    use v1::event::Event;
    let text = match &event.event {
        Some(Event::Table(it)) => {
            let cause = match it.cause.as_str() {
                "" | "apply" => String::new(),
                cause => format!(", {}", cause.replace('_', " ")),
            };
            let waits = match it.pending {
                Some(_) => ", waits for its confirmation",
                None => "",
            };
            let of = match it.owner == owners::shown("") {
                true => String::new(),
                false if it.owner.is_empty() => String::new(),
                false => format!(", of owner {}", it.owner),
            };
            format!(
                "tables: generation {}, {} changes{of}{cause}{waits}",
                it.generation, it.changes
            )
        }
        Some(Event::Link(it)) => format!("link {} {}{}", it.link, status(it), why(&it.reason)),
        Some(Event::Port(it)) => format!(
            "port {} {}{}; {}, mtu {}",
            it.port,
            port_status(it),
            why(&it.reason),
            it.mac,
            it.mtu
        ),
        Some(Event::Circuit(it)) => {
            format!("circuit {} {}{}", it.circuit, circuit(it), why(&it.cause))
        }
        Some(Event::Key(it)) => {
            let limit = match it.limit.as_str() {
                "" => String::new(),
                limit => format!(", by its limit of {limit}"),
            };
            let (key, change) = (key_name(it.key.as_ref()), key_change(it.change));
            format!("key of {key}: {change}{limit}")
        }
        Some(Event::Fault(it)) => format!("fault {}{}", it.kind, why(&it.detail)),
        Some(Event::Gap(it)) => format!(
            "events {} to {} are missing: {}",
            it.first,
            it.next.saturating_sub(1),
            gap_cause(it)
        ),
        Some(Event::Usage(it)) => it.record.as_ref().map_or_else(String::new, usage),
        Some(Event::Performance(it)) => performance(it),
        Some(Event::Security(it)) => security(it),
        Some(Event::Drain(it)) => drain(it),
        None => "an event of a later version".to_owned(),
    };
    format!("{} {text}", time::rfc3339(event.unix_nanos))
}

fn why(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(": {reason}"),
    }
}

fn port_status(it: &v1::PortEvent) -> &'static str {
    match it.status() {
        v1::PortStatus::Up => "up",
        v1::PortStatus::Degraded => "degraded",
        v1::PortStatus::Down => "down",
        v1::PortStatus::Unspecified => "of unknown status",
    }
}

fn status(it: &v1::LinkEvent) -> &'static str {
    match it.status() {
        v1::LinkStatus::Up => "up",
        v1::LinkStatus::Degraded => "degraded",
        v1::LinkStatus::Down => "down",
        v1::LinkStatus::Unspecified => "of unknown status",
    }
}

fn circuit(it: &v1::CircuitEvent) -> &'static str {
    match it.change() {
        v1::CircuitChange::Created => "created",
        v1::CircuitChange::PathUpdated => "has another path",
        v1::CircuitChange::Deleted => "deleted",
        v1::CircuitChange::Failed => "failed",
        v1::CircuitChange::Up => "up",
        v1::CircuitChange::Unspecified => "changed",
    }
}

fn key_change(number: i32) -> &'static str {
    match v1::KeyChange::try_from(number) {
        Ok(v1::KeyChange::Installed) => "installed",
        Ok(v1::KeyChange::Needed) => "needed",
        Ok(v1::KeyChange::Transmitting) => "transmitting",
        Ok(v1::KeyChange::Retired) => "retired",
        Ok(v1::KeyChange::NearlyExhausted) => "nearly exhausted",
        Ok(v1::KeyChange::Exhausted) => "exhausted",
        Ok(v1::KeyChange::Unspecified) | Err(_) => "unknown change",
    }
}

fn gap_cause(it: &v1::GapEvent) -> &'static str {
    match it.cause() {
        v1::GapCause::SlowReader => "this reader was too slow",
        v1::GapCause::TooOld => "the node keeps them no more",
        v1::GapCause::Restarted => "the node has restarted since",
        v1::GapCause::Unspecified => "the cause is unknown",
    }
}

fn usage(it: &v1::UsageRecord) -> String {
    format!(
        "usage of circuit {} from {}: sent {} packets, {} bytes; received {} packets, {} bytes{}",
        it.circuit,
        time::rfc3339(it.interval_start_unix.saturating_mul(1_000_000_000)),
        it.sent_packets,
        it.sent_bytes,
        it.received_packets,
        it.received_bytes,
        drops(&it.drops)
    )
}

fn performance(it: &v1::PerformanceEvent) -> String {
    format!(
        "{} s: {} packets taken, {} sent{}",
        it.interval_seconds,
        it.packets,
        it.sent_packets,
        drops(&it.drops)
    )
}

fn drops(drops: &[v1::Counter]) -> String {
    let drops: Vec<_> = drops
        .iter()
        .map(|it| format!("{} {}", it.name, it.value))
        .collect();
    match drops.is_empty() {
        true => String::new(),
        false => format!("; dropped: {}", drops.join(", ")),
    }
}

fn drain(it: &v1::DrainEvent) -> String {
    let status = match it.status() {
        v1::DrainStatus::Draining => "drains",
        v1::DrainStatus::Active => "is in service again",
        v1::DrainStatus::Unspecified => "is in another state",
    };
    let by = match it.by.as_str() {
        "" => String::new(),
        by => format!(", by {by}"),
    };
    format!("{} {status}{by}", drain_name(it.target.as_ref()))
}

fn security(it: &v1::SecurityEvent) -> String {
    use v1::security_event::Owner;
    let owner = match &it.owner {
        Some(Owner::Link(name)) => format!(" on link {name}"),
        Some(Owner::Circuit(name)) => format!(" on circuit {name}"),
        Some(Owner::Peer(name)) => format!(" of {name}"),
        None => String::new(),
    };
    let seconds = it.period_nanos as f64 / 1e9;
    format!(
        "security: {}{owner}: {} within {seconds:.1} s, {} in all",
        it.reason, it.count, it.total
    )
}
