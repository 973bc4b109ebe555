//! What `ctl` prints: for people here, for programs in [`json`].

mod event;
mod json;
mod table;
#[cfg(test)]
mod tests;
mod trace;

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use twinseal_api::v1;

pub(super) use event::event;
pub(super) use json::{
    drain_json, draining_json, key_json, link_json, neighbour_json, owner_json, port_json,
    refused_json, stats_json,
};
pub(super) use trace::{explained, explained_json, frame, frame_json, traced, traced_json};

use table::Table;
use twinseal_model::owners;
use twinseal_statefile::{direction_word, suite_word};

/// What became of the desired state: comments before the state file that `get` prints.
pub(super) fn outcome(out: &mut impl Write, got: &v1::GetResponse) -> io::Result<()> {
    writeln!(
        out,
        "# node {}, version {}, generation {}, workers {}, {}, {}",
        got.node, got.version, got.generation, got.workers, got.provider, got.memory
    )?;
    if let Some(pending) = &got.pending {
        writeln!(
            out,
            "# generation {} waits for its confirmation until {}",
            pending.generation,
            twinseal_base::time::rfc3339(pending.until_unix_nanos)
        )?;
    }
    // One that is alone owns all.
    let others = |it: &&v1::OwnerState| got.owners.len() > 1 || it.owner != owners::shown("");
    for it in got.owners.iter().filter(others) {
        let v1::OwnerState {
            owner,
            generation,
            items,
            pending,
        } = it;
        write!(
            out,
            "# owner {owner}: {items} items, changed in generation {generation}"
        )?;
        match pending {
            Some(pending) => writeln!(
                out,
                ", generation {} waits for its confirmation until {}",
                pending.generation,
                twinseal_base::time::rfc3339(pending.until_unix_nanos)
            )?,
            None => writeln!(out)?,
        }
    }
    if !got.restoring.is_empty() {
        writeln!(out, "# the tables are not restored yet: {}", got.restoring)?;
    }
    if !got.rollback_incomplete.is_empty() {
        writeln!(
            out,
            "# the rollback is not complete: {}",
            got.rollback_incomplete
        )?;
    }
    for warning in &got.warnings {
        writeln!(out, "# WARNING: {warning}")?;
    }
    if !got.secrets_refused.is_empty() {
        writeln!(out, "# no secrets are taken: {}", got.secrets_refused)?;
    }
    if !got.tables_not_stored.is_empty() {
        writeln!(
            out,
            "# what applies is not stored, and is lost with a restart: {}",
            got.tables_not_stored
        )?;
    }
    if !got.stored_tables_damaged.is_empty() {
        writeln!(
            out,
            "# stored tables were refused at the start: {}",
            got.stored_tables_damaged
        )?;
    }
    for drain in &got.drains {
        let since = twinseal_base::time::rfc3339(drain.since_unix_nanos);
        let name = drain_name(drain.target.as_ref());
        writeln!(out, "# {name} drains since {since}, by {}", drain.by)?;
    }
    for port in &got.ports {
        let mut facts = vec![
            up(port.up, &port.reason),
            port.mac.clone(),
            format!("mtu {}", port.mtu),
        ];
        if !port.xdp.is_empty() {
            facts.push(format!("{} XDP", port.xdp));
        }
        if !port.bind.is_empty() {
            facts.push(port.bind.join(" "));
        }
        if port.need_wakeup {
            facts.push("need-wakeup".to_owned());
        }
        match port.checksum.as_str() {
            "finish" => facts.push("finishes checksums".to_owned()),
            "trust" => facts.push("trusts checksums".to_owned()),
            _ => {}
        }
        if port.draining {
            facts.push("drains".to_owned());
        }
        writeln!(out, "# port {}: {}", port.port, facts.join(", "))?;
    }
    for link in &got.links {
        write!(out, "# link {}: {}", link.link, up(link.up, &link.reason))?;
        match link.next_hop_mac.as_str() {
            "" => {}
            mac => write!(out, ", next hop {mac}")?,
        }
        match link.draining {
            true => writeln!(out, ", drains")?,
            false => writeln!(out)?,
        }
    }
    for key in &got.keys {
        writeln!(
            out,
            "# key of {}: {}",
            key_name(key.key.as_ref()),
            key_facts(key)
        )?;
    }
    for neighbour in &got.neighbours {
        let v1::NeighbourState {
            port,
            address,
            mac,
            r#static,
        } = neighbour;
        let from = if *r#static {
            "static"
        } else {
            "from the kernel"
        };
        writeln!(out, "# neighbour {address} on {port}: {mac}, {from}")?;
    }
    Ok(())
}

/// `link ab`, or `the node`.
pub(super) fn drain_name(target: Option<&v1::DrainTarget>) -> String {
    use v1::drain_target::Target;
    match target.and_then(|it| it.target.as_ref()) {
        Some(Target::Node(_)) => "the node".to_owned(),
        Some(Target::Link(name)) => format!("link {name}"),
        Some(Target::Port(name)) => format!("port {name}"),
        None => "something unknown".to_owned(),
    }
}

/// `up`, or with what is wrong: `down (its device was deleted)`.
fn up(up: bool, reason: &str) -> String {
    let word = if up { "up" } else { "down" };
    match reason {
        "" => word.to_owned(),
        reason => format!("{word} ({reason})"),
    }
}

fn key_facts(key: &v1::KeyState) -> String {
    let mut facts = vec![suite_word(key.suite).unwrap_or("unknown suite").to_owned()];
    if key.receiver_index != 0 {
        facts.push(format!("receiver index {}", key.receiver_index));
    }
    if key.needed {
        facts.push("NEEDED: its secret was lost in a restart".to_owned());
    }
    facts.push(
        match (key.transmitter, key.transmitting) {
            (false, _) => "receives",
            (true, true) => "transmits",
            (true, false) => "may transmit",
        }
        .to_owned(),
    );
    if key.transmitter {
        facts.push(format!("{} packets sealed", key.packets));
    }
    if key.exhausted {
        facts.push("exhausted".to_owned());
    }
    facts.join(", ")
}

/// `link "a-b", a-to-b, epoch 1`
fn key_name(key: Option<&v1::KeyRef>) -> String {
    use v1::key_ref::Owner;
    let Some(key) = key else {
        return "unknown".to_owned();
    };
    let owner = match &key.owner {
        Some(Owner::Link(name)) => format!("link {name}"),
        Some(Owner::Circuit(name)) => format!("circuit {name}"),
        None => "unknown".to_owned(),
    };
    format!("{owner}, {}, epoch {}", direction(key.direction), key.epoch)
}

fn direction(number: i32) -> &'static str {
    direction_word(number).unwrap_or("unknown direction")
}

/// Counters as tables. Counters of drops, XDP verdicts and sockets are left out while they are zero.
pub(super) fn stats(out: &mut impl Write, stats: &v1::StatsResponse) -> io::Result<()> {
    const TRAFFIC: [&str; 4] = ["RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES"];
    let mut table = Table::new("PORT", &TRAFFIC);
    for it in &stats.ports {
        table.row(
            &it.port,
            &[
                it.received_packets,
                it.received_bytes,
                it.sent_packets,
                it.sent_bytes,
            ],
        );
    }
    table.print(out)?;
    for (title, all) in [("LINK", &stats.links), ("CIRCUIT", &stats.circuits)] {
        let mut table = Table::new(title, &TRAFFIC);
        for it in all {
            table.row(
                &it.name,
                &[
                    it.received_packets,
                    it.received_bytes,
                    it.sent_packets,
                    it.sent_bytes,
                ],
            );
        }
        table.print(out)?;
    }
    let mut table = Table::new(
        "WORKER",
        &["BATCHES", "PACKETS", "SLEEPS", "FREE FRAMES", "FRAMES"],
    );
    for it in &stats.workers {
        let numbers = [
            it.batches,
            it.packets,
            it.sleeps,
            it.frames_free.into(),
            it.frames.into(),
        ];
        table.row(&it.worker.to_string(), &numbers);
    }
    table.print(out)?;
    counters(out, "DROPS", &stats.drops)?;
    counters(out, "ICMP ERRORS", &stats.icmp_errors)?;
    counters(out, "ECHOES", &stats.echoes)?;
    counters(out, "REFUSED CLIENTS", &stats.refusals)?;
    for port in &stats.ports {
        counters(
            out,
            &format!("XDP VERDICTS OF {}", port.port),
            &port.steering,
        )?;
        counters(out, &format!("SOCKETS OF {}", port.port), &port.sockets)?;
        counters(out, &format!("OFFLOADS OF {}", port.port), &port.offloads)?;
    }
    writeln!(out, "SEALED BY  {}", stats.provider)?;
    writeln!(out, "BOOT  {}", stats.boot)
}

fn counters(out: &mut impl Write, title: &str, all: &[v1::Counter]) -> io::Result<()> {
    let mut table = Table::new(title, &["COUNT"]);
    for it in all.iter().filter(|it| it.value > 0) {
        table.row(&it.name, &[it.value]);
    }
    table.print(out)
}

/// What was counted a second between two readings. What is no counter stays as it is.
pub(super) fn rates(
    now: &v1::StatsResponse,
    before: &v1::StatsResponse,
    elapsed: Duration,
) -> v1::StatsResponse {
    let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    // A counter that went back is another one of that name: the port or link was made anew.
    let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
    let by_name = |all: &[v1::Counter], old: &[v1::Counter]| -> Vec<v1::Counter> {
        let old: HashMap<_, _> = old.iter().map(|it| (it.name.as_str(), it.value)).collect();
        let one = |it: &v1::Counter| {
            let value = rate(it.value, old.get(it.name.as_str()).copied().unwrap_or(0));
            v1::Counter {
                name: it.name.clone(),
                value,
            }
        };
        all.iter().map(one).collect()
    };
    let traffic = |all: &[v1::Traffic], old: &[v1::Traffic]| -> Vec<v1::Traffic> {
        let old: HashMap<_, _> = old.iter().map(|it| (it.name.as_str(), it)).collect();
        let none = v1::Traffic::default();
        let one = |it: &v1::Traffic| {
            let old = old.get(it.name.as_str()).copied().unwrap_or(&none);
            v1::Traffic {
                name: it.name.clone(),
                received_packets: rate(it.received_packets, old.received_packets),
                received_bytes: rate(it.received_bytes, old.received_bytes),
                sent_packets: rate(it.sent_packets, old.sent_packets),
                sent_bytes: rate(it.sent_bytes, old.sent_bytes),
            }
        };
        all.iter().map(one).collect()
    };
    let ports = {
        let old: HashMap<_, _> = before
            .ports
            .iter()
            .map(|it| (it.port.as_str(), it))
            .collect();
        let none = v1::PortStats::default();
        let one = |it: &v1::PortStats| {
            let old = old.get(it.port.as_str()).copied().unwrap_or(&none);
            v1::PortStats {
                port: it.port.clone(),
                received_packets: rate(it.received_packets, old.received_packets),
                received_bytes: rate(it.received_bytes, old.received_bytes),
                sent_packets: rate(it.sent_packets, old.sent_packets),
                sent_bytes: rate(it.sent_bytes, old.sent_bytes),
                steering: by_name(&it.steering, &old.steering),
                sockets: by_name(&it.sockets, &old.sockets),
                offloads: by_name(&it.offloads, &old.offloads),
            }
        };
        now.ports.iter().map(one).collect()
    };
    let workers = {
        let old: HashMap<_, _> = before.workers.iter().map(|it| (it.worker, it)).collect();
        let none = v1::WorkerStats::default();
        let one = |it: &v1::WorkerStats| {
            let old = old.get(&it.worker).copied().unwrap_or(&none);
            v1::WorkerStats {
                batches: rate(it.batches, old.batches),
                packets: rate(it.packets, old.packets),
                sleeps: rate(it.sleeps, old.sleeps),
                ..*it
            }
        };
        now.workers.iter().map(one).collect()
    };
    v1::StatsResponse {
        generation: now.generation,
        boot: now.boot,
        ports,
        links: traffic(&now.links, &before.links),
        circuits: traffic(&now.circuits, &before.circuits),
        drops: by_name(&now.drops, &before.drops),
        icmp_errors: by_name(&now.icmp_errors, &before.icmp_errors),
        workers,
        provider: now.provider.clone(),
        drains: now.drains.clone(),
        refusals: by_name(&now.refusals, &before.refusals),
        echoes: by_name(&now.echoes, &before.echoes),
    }
}
