//! Trace, Capture and Explain: what packets do, and would do.
//!
//! A request is held to the node's own bounds and opened at the workers ([`twinseal_runtime::workers::taps`]); what they take down is
//! told by [`told`], in names. A tap ends when what it is of goes: places in the tables are used again.

mod explain;
mod parse;
mod told;

use std::sync::{Arc, Weak};
use std::time::Duration;

use twinseal_api::v1;

use crate::node::Node;
use twinseal_fib::{CircuitIndex, LinkIndex, PortIndex, VrfIndex};
use twinseal_forward::trace::Trace;
use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::{CircuitName, LinkName, PortName, VrfName};
use twinseal_runtime::workers::taps::capture::{Capture, Captured};
use twinseal_runtime::workers::taps::trace::{Traced, Tracing};
use twinseal_runtime::workers::taps::{AnyTap, Tap};

/// Taps that may be open at a time: each has a few MiB a worker.
const MAX_TAPS: usize = 4;
/// The longest that one may be open, and how long it is if nobody says.
const SECONDS: Bound = Bound {
    least: 1,
    most: 3600,
    usual: 60,
};
const TRACES: Bound = Bound {
    least: 1,
    most: 100_000,
    usual: 100,
};
const FRAMES: Bound = Bound {
    least: 1,
    most: 1_000_000,
    usual: 10_000,
};
/// The largest frame, with room.
const SNAP: Bound = Bound {
    least: 1,
    most: 12_288,
    usual: 12_288,
};

/// A limit of the node, and what is taken for 0.
pub(crate) struct Bound {
    pub(crate) least: u32,
    pub(crate) most: u32,
    pub(crate) usual: u32,
}

impl Bound {
    pub(crate) fn hold(&self, asked: u32) -> u32 {
        match asked {
            0 => self.usual,
            asked => asked.clamp(self.least, self.most),
        }
    }
}

/// A tap that was opened, and what it is held to.
pub struct Opened<T> {
    /// It.
    pub tap: Arc<Tap<T>>,
    /// Its limits.
    pub limits: v1::TapLimits,
}

impl<T> Opened<T> {
    /// How long it may be open.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.limits.seconds.into())
    }
}

/// A trace that was taken: by which worker, when, and what.
pub type Taken = (usize, u64, Trace);

/// What an open tap is of; if any of it goes, the tap ends.
#[derive(Default)]
struct Of {
    port: Option<(PortName, PortIndex)>,
    link: Option<(LinkName, LinkIndex)>,
    circuit: Option<(CircuitName, CircuitIndex)>,
    vrf: Option<(VrfName, VrfIndex)>,
}

/// The open taps; whose they are, they go.
#[derive(Default)]
pub(super) struct OpenTaps(Vec<(Of, Weak<dyn AnyTap>)>);

impl OpenTaps {
    fn add<T: Send + 'static>(&mut self, of: Of, tap: &Arc<Tap<T>>) {
        let tap: Arc<dyn AnyTap> = Arc::<Tap<T>>::clone(tap);
        self.0.push((of, Arc::downgrade(&tap)));
    }
}

impl Node {
    /// Begins to copy frames.
    pub fn capture(&mut self, request: &v1::CaptureRequest) -> Result<Opened<Captured>, Refused> {
        let mut refused = Refused::default();
        let port = self.tapped_port(&request.port, &mut refused);
        let direction = parse::direction(request.direction, &mut refused);
        let filter = parse::filter(request.filter.as_ref(), "capture", &mut refused);
        refused.unless(())?;
        self.room_for_a_tap("capture")?;
        let limits = v1::TapLimits {
            count: FRAMES.hold(request.count),
            seconds: SECONDS.hold(request.seconds),
            snap_length: SNAP.hold(request.snap_length),
        };
        let snap_length = limits.snap_length as usize;
        let tap = Capture::tap(self.pool.workers(), snap_length, limits.count.into());
        if let Some((name, index)) = port {
            let of = Of {
                port: Some((name, index)),
                ..Of::default()
            };
            self.taps.add(of, &tap);
            self.pool.capture(Capture {
                port: index,
                incoming: direction != v1::CaptureDirection::Out,
                outgoing: direction != v1::CaptureDirection::In,
                filter,
                snap_length,
                tap: Arc::clone(&tap),
            });
        }
        Ok(Opened { tap, limits })
    }

    /// Begins to trace packets.
    pub fn trace(&mut self, request: &v1::TraceRequest) -> Result<Opened<Traced>, Refused> {
        let mut refused = Refused::default();
        let of = self.traced(request, &mut refused);
        let filter = parse::filter(request.filter.as_ref(), "trace", &mut refused);
        refused.unless(())?;
        self.room_for_a_tap("trace")?;
        let limits = v1::TapLimits {
            count: TRACES.hold(request.count),
            seconds: SECONDS.hold(request.seconds),
            snap_length: 0,
        };
        let tap = Tracing::tap(self.pool.workers(), limits.count.into());
        self.pool.trace(Tracing {
            port: of.port.as_ref().map(|it| it.1),
            link: of.link.as_ref().map(|it| it.1),
            circuit: of.circuit.as_ref().map(|it| it.1),
            vrf: of.vrf.as_ref().map(|it| it.1),
            filter,
            dropped: request.dropped,
            tap: Arc::clone(&tap),
        });
        self.taps.add(of, &tap);
        Ok(Opened { tap, limits })
    }

    fn traced(&self, request: &v1::TraceRequest, refused: &mut Refused) -> Of {
        let mut of = Of::default();
        if !request.port.is_empty() {
            of.port = self.tapped_port(&request.port, refused);
        }
        let mut look = |field: &str, name: &str, known: bool| {
            if !name.is_empty() && !known {
                refused.append(missing("trace", field, field, name));
            }
        };
        of.link = LinkName::new(&request.link)
            .and_then(|name| self.compiler.link_index(&name).map(|index| (name, index)));
        look("link", &request.link, of.link.is_some());
        of.circuit = CircuitName::new(&request.circuit).and_then(|name| {
            self.compiler
                .circuit_index(&name)
                .map(|index| (name, index))
        });
        look("circuit", &request.circuit, of.circuit.is_some());
        of.vrf = VrfName::new(&request.vrf)
            .and_then(|name| self.compiler.vrf_index(&name).map(|index| (name, index)));
        look("vrf", &request.vrf, of.vrf.is_some());
        of
    }

    fn tapped_port(&self, text: &str, refused: &mut Refused) -> Option<(PortName, PortIndex)> {
        let name = PortName::new(text);
        let open = name.and_then(|name| {
            let index = self.ports.open().get(&name)?.index;
            Some((name, index))
        });
        if open.is_none() {
            refused.append(missing("request", "port", "port", text));
        }
        open
    }

    fn room_for_a_tap(&mut self, what: &str) -> Result<(), Refused> {
        self.pool.reclaim();
        self.taps.0.retain(|(_, tap)| tap.strong_count() > 0);
        if self.pool.taps() < MAX_TAPS {
            return Ok(());
        }
        let why = format!("{MAX_TAPS} traces and captures are open");
        let fix = "end one of them, or wait until its time is over";
        Err(Refused::about(what, Code::NoRoom, "", why, fix))
    }

    /// Ends the taps of what is not there any more.
    pub(super) fn end_taps(&mut self) {
        let Self {
            taps,
            ports,
            compiler,
            ..
        } = self;
        taps.0.retain(|(of, tap)| {
            let Some(tap) = tap.upgrade() else {
                return false;
            };
            let port = |(name, index): &(PortName, PortIndex)| {
                ports
                    .open()
                    .get(name)
                    .is_some_and(|open| open.index == *index)
            };
            let there = of.port.as_ref().is_none_or(port)
                && of
                    .link
                    .as_ref()
                    .is_none_or(|(name, index)| compiler.link_index(name) == Some(*index))
                && of
                    .circuit
                    .as_ref()
                    .is_none_or(|(name, index)| compiler.circuit_index(name) == Some(*index))
                && of
                    .vrf
                    .as_ref()
                    .is_none_or(|(name, index)| compiler.vrf_index(name) == Some(*index));
            if !there {
                tap.end();
            }
            !tap.ended()
        });
    }
}

pub(super) fn missing(item: &str, field: &str, kind: &str, name: &str) -> Refused {
    let why = match name {
        "" => format!("it names no {kind}"),
        name => format!("there is no {kind} {name:?}"),
    };
    let fix = "name one that `twinseal ctl get` shows";
    Refused::about(item, Code::NotFound, field, why, fix)
}
