//! Traces that are asked for.

use std::sync::Arc;

use super::{Filter, Tap};
use twinseal_fib::{CircuitIndex, LinkIndex, PortIndex, VrfIndex};
use twinseal_forward::Disposition;
use twinseal_forward::trace::Trace;

/// A trace, and when it was.
pub type Traced = Option<(u64, Trace)>;

/// Traces for each worker that may wait for their reader.
const DEPTH: usize = 1024;

/// Which packets are traced, and where that goes. All that is given must hold.
#[derive(Clone)]
pub struct Tracing {
    /// Came in there.
    pub port: Option<PortIndex>,
    /// Came by it, or would go by it.
    pub link: Option<LinkIndex>,
    /// Came out of it, or would go into it.
    pub circuit: Option<CircuitIndex>,
    /// Was routed there.
    pub vrf: Option<VrfIndex>,
    /// The inner packet, where this node saw it.
    pub filter: Filter,
    /// Only what was dropped, or answered by an ICMP error.
    pub dropped: bool,
    /// Where they go.
    pub tap: Arc<Tap<Traced>>,
}

impl Tracing {
    /// The memory of it.
    pub fn tap(workers: usize, count: u64) -> Arc<Tap<Traced>> {
        Tap::new(workers, DEPTH, count, || None)
    }

    /// Offers a trace to it.
    pub(in crate::workers) fn offer(&self, worker: usize, unix_nanos: u64, trace: &Trace) {
        if self.takes(trace) {
            self.tap
                .put(worker, |record| *record = Some((unix_nanos, *trace)));
        }
    }

    fn takes(&self, it: &Trace) -> bool {
        let either = |a, b| a || b;
        let dropped = matches!(it.disposition, Disposition::Drop(_)) || it.answered.is_some();
        self.port.is_none_or(|port| it.port == port)
            && self
                .link
                .is_none_or(|link| either(it.from.link == Some(link), it.into.link == Some(link)))
            && self.circuit.is_none_or(|circuit| {
                either(
                    it.from.circuit == Some(circuit),
                    it.into.circuit == Some(circuit),
                )
            })
            && self.vrf.is_none_or(|vrf| it.vrf == Some(vrf))
            && (!self.dropped || dropped)
            && self.filter.fits(|| it.packet)
    }
}
