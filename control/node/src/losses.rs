//! What a port loses, or forwards unfit, though the tables are right: in words, with what to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::compile::OpenPort;
use crate::events::{Events, FaultKind};
use crate::ports::Ports;
use twinseal_model::port::Device;
use twinseal_model::state::{Port, PortName, Role, State};
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
pub(super) fn of(port: &Port, open: &OpenPort, totals: &PortTotals) -> Vec<Loss> {
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
    let (mtu, device_mtu) = (open.mtu, open.device_mtu);
    // What the device takes and the port does not is a packet of its own, as a rule.
    let single = edge && mtu < device_mtu;
    let all = [
        Loss {
            kind: Some(FaultKind::SuperFrames),
            count: match edge {
                true if single => totals.offloads.super_frames,
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
            count: if single { oversized } else { 0 },
            words: format!(
                "packets were lost that are larger than the port's mtu {mtu} (the device has {device_mtu}) (oversized): leave the port's \
                 `mtu` out, or run `ip link set {netdev} mtu {mtu}` and the same at its hosts"
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
            kind: Some(FaultKind::FramesNotTaken),
            count: socket("tx_dropped"),
            words: format!(
                "frames were lost that {netdev} did not take (tx_dropped): it had no carrier, or the far end takes no packets of \
                 {mtu} bytes; set the port's `mtu` to that of the far end"
            ),
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
            for loss in of(port, open, totals) {
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

#[cfg(test)]
mod tests {
    use twinseal_model::port::PortSpec;
    use twinseal_runtime::ports::Outcome;
    use twinseal_wire::ethernet::Mac;

    use super::*;
    use twinseal_model::state::VrfName;

    /// What is told of an edge port with so many frames in these counters.
    fn told(device_mtu: u16, counters: &[(&'static str, u64)]) -> Vec<(Option<FaultKind>, String)> {
        let vrf = VrfName::new("red").expect("a name");
        let port = Port {
            role: Role::Edge(vrf),
            spec: PortSpec {
                edge: true,
                mtu: 1600,
                device: Device::Tap {
                    netdev: "eth1".to_owned(),
                },
            },
            local: Default::default(),
            checksum: twinseal_model::state::Checksum::Auto,
        };
        let outcome = Outcome {
            mac: Mac::default(),
            mtu: 1600,
            device_mtu,
            offloads: false,
            xdp: None,
            bind: Vec::new(),
            need_wakeup: false,
            peer: None,
            ifindex: None,
        };
        let open = OpenPort::new(twinseal_fib::PortIndex(0), &outcome);
        let totals = PortTotals {
            port: open.index,
            received_packets: 0,
            received_bytes: 0,
            sent_packets: 0,
            sent_bytes: 0,
            offloads: Default::default(),
            sockets: counters.to_vec(),
        };
        let losses = of(&port, &open, &totals);
        losses.into_iter().map(|it| (it.kind, it.words)).collect()
    }

    #[test]
    fn what_is_larger_than_the_port_takes_is_told_from_what_the_device_would_cut() {
        let [(kind, words)] = &told(9000, &[("oversized", 1)])[..] else {
            panic!("one")
        };
        assert_eq!(*kind, Some(FaultKind::OversizedFrames));
        assert!(
            words.contains("the port's mtu 1600 (the device has 9000)") && !words.contains("gro"),
            "{words}"
        );
        let [(kind, words)] = &told(1600, &[("oversized", 1)])[..] else {
            panic!("one")
        };
        assert_eq!(*kind, Some(FaultKind::SuperFrames));
        assert!(words.contains("gro off"), "{words}");
    }

    #[test]
    fn what_the_device_does_not_take_is_told_with_its_causes() {
        let [(kind, words)] = &told(1600, &[("tx_dropped", 1)])[..] else {
            panic!("one")
        };
        assert_eq!(*kind, Some(FaultKind::FramesNotTaken));
        assert!(
            words.contains("no carrier") && words.contains("packets of 1600 bytes"),
            "{words}"
        );
    }
}
