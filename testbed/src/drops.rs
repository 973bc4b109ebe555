//! What the routers dropped, by reason.

use std::collections::BTreeMap;

use crate::controller::Controller;
use crate::plan::Router;

/// Drops by reason; only reasons that occurred.
pub type Drops = BTreeMap<String, u64>;

/// Socket counters that count lost packets.
const SOCKET_DROPS: [&str; 5] = [
    "rx_dropped",
    "rx_ring_full",
    "multi_buffer_dropped",
    "rx_overflow",
    "tx_invalid_descs",
];

/// What all routers dropped since they were started.
pub fn all(controller: &mut Controller) -> anyhow::Result<Drops> {
    let mut sums = Drops::new();
    for router in Router::ALL {
        let stats = controller.stats(router)?;
        let sockets = stats.ports.into_iter().flat_map(|port| port.sockets);
        let sockets = sockets.filter(|counter| SOCKET_DROPS.contains(&counter.name.as_str()));
        for counter in stats.drops.into_iter().chain(sockets) {
            if counter.value > 0 {
                *sums.entry(counter.name).or_default() += counter.value;
            }
        }
    }
    Ok(sums)
}

/// What of it was dropped after `before`.
pub fn since(mut now: Drops, before: &Drops) -> Drops {
    for (reason, count) in &mut now {
        *count = count.saturating_sub(before.get(reason).copied().unwrap_or(0));
    }
    now.retain(|_, count| *count > 0);
    now
}

/// For people.
pub fn text(drops: &Drops) -> String {
    let drops: Vec<_> = drops
        .iter()
        .map(|(reason, n)| format!("{reason} {n}"))
        .collect();
    match drops.is_empty() {
        true => "none".into(),
        false => drops.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_before_does_not_count() {
        let drops = |of: &[(&str, u64)]| -> Drops {
            of.iter()
                .map(|(reason, n)| ((*reason).into(), *n))
                .collect()
        };
        let search = drops(&[("rx_ring_full", 3067), ("ttl", 1)]);
        let end = drops(&[("rx_ring_full", 3067), ("ttl", 3), ("martian", 1)]);
        assert_eq!(
            since(end.clone(), &search),
            drops(&[("martian", 1), ("ttl", 2)])
        );
        assert_eq!(text(&since(search.clone(), &search)), "none");
        assert_eq!(text(&since(end, &search)), "martian 1, ttl 2");
    }
}
