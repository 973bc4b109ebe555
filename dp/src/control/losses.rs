//! What a port loses, or forwards unfit, though the tables are right: in words, with what to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::events::{Events, FaultKind};
use super::model::{Port, PortName, Role, State};
use super::ports::Ports;
use twinseal_runtime::ports::Device;
use twinseal_runtime::workers::stats::{PortTotals, Snapshot};

/// Told at once, and again after this long.
const PERIOD: Duration = Duration::from_secs(10);

/// One kind of it at one port.
pub(super) struct Loss {
    /// As an event tells it; `None`: what comes with load is left to counters.
    pub(super) kind: Option<FaultKind>,
    /// Packets since the port was opened.
    pub(super) count: u64,
    /// What they are, and what to do.
    words: String,
}

impl Loss {
    /// In a sentence, of so many packets.
    pub(super) fn sentence(&self, port: &PortName, count: u64) -> String {
        format!("port {port}: {count} {}", self.words)
    }
}

/// What a port has lost since it was opened.
pub(super) fn of(port: &Port, totals: &PortTotals) -> Vec<Loss> {
    let socket = |name: &str| {
        let counter = totals.sockets.iter().find(|(known, _)| *known == name);
        counter.map_or(0, |(_, value)| *value)
    };
    let netdev = match &port.spec.device {
        Device::AfXdp { netdev, .. } | Device::Tap { netdev } => netdev.as_str(),
        Device::Memory { .. } => "DEVICE",
    };
    let edge = port.role != Role::Underlay;
    let oversized = socket("oversized");
    let no_chunk = socket("rx_dropped").min(socket("rx_fill_ring_empty_descs"));
    let slow = no_chunk + socket("rx_ring_full");
    let all = [
        Loss {
            kind: Some(FaultKind::SuperFrames),
            count: match edge {
                true => totals.offloads.super_frames + oversized,
                false => 0,
            },
            words: format!(
                "frames were lost that hold several packets each (super_frame, oversized): run `ethtool -K {netdev} gro off lro off`, \
                 and at the other end of a veth `ethtool -K DEVICE tso off gso off`"
            ),
        },
        Loss {
            kind: Some(FaultKind::OversizedFrames),
            count: if edge { 0 } else { oversized },
            words: format!(
                "frames were lost that are larger than the port takes (oversized): make the port's MTU that of the underlay, \
                 and run `ethtool -K {netdev} gro off lro off`"
            ),
        },
        Loss {
            kind: Some(FaultKind::ChecksumsUnfinishable),
            count: totals.offloads.unfinishable,
            words: "packets may go on with a checksum that was left to a device (checksums_unfinishable): fragments, or behind \
                    IPv6 extension headers; run `ethtool -K DEVICE tx off` at the hosts"
                .to_owned(),
        },
        Loss {
            kind: None,
            count: slow,
            words: "frames were lost because the worker took them too slowly (rx_dropped, rx_ring_full): more workers and queues, \
                    pinned, or a larger `ring`"
                .to_owned(),
        },
    ];
    all.into_iter().filter(|loss| loss.count > 0).collect()
}

/// What was told so far.
#[derive(Default)]
pub(super) struct Losses {
    at: Option<Instant>,
    told: HashMap<(PortName, FaultKind), u64>,
}

impl Losses {
    /// Whether it is time to [tell](Self::tell) again.
    pub(super) fn due(&self, now: Instant) -> bool {
        self.at.is_none_or(|at| now.duration_since(at) >= PERIOD)
    }

    /// Tells what is new in `stats`.
    pub(super) fn tell(
        &mut self,
        events: &Events,
        now: Instant,
        state: &State,
        ports: &Ports,
        stats: &Snapshot,
    ) {
        self.at = Some(now);
        let before = std::mem::take(&mut self.told);
        for (name, open) in ports.open() {
            let totals = stats.ports.iter().find(|it| it.port == open.index);
            let (Some(port), Some(totals)) = (state.ports.get(name), totals) else {
                continue;
            };
            for loss in of(port, totals) {
                let Some(kind) = loss.kind else {
                    continue;
                };
                let key = (name.clone(), kind);
                // A port that counts less than before was opened anew.
                let old = before.get(&key).filter(|old| **old <= loss.count);
                let new = loss.count - old.copied().unwrap_or(0);
                if new > 0 {
                    events.fault(kind, loss.sentence(name, new));
                }
                self.told.insert(key, loss.count);
            }
        }
    }
}
