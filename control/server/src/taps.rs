//! Trace and Capture as streams. A task reads the tap and hands messages over as the client takes them; what it is too
//! slow for is lost at the worker. The task ends with the tap's time, whatever the client does.

use std::pin::Pin;
use std::time::Duration;

use futures::Stream;
use prost::Message;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use twinseal_api::v1;

use crate::service::Service;
use crate::status::{status, stopped};
use twinseal_access::Caller;
use twinseal_base::time::since_boot;
use twinseal_node::audit::{Audit, Entry, Outcome, Tapping};
use twinseal_node::handle::{NodeHandle, Stopped, Tapped};
use twinseal_node::taps::{Opened, Taken};
use twinseal_runtime::workers::taps::Tap;
use twinseal_runtime::workers::taps::capture::{Captured, Direction};
use twinseal_runtime::workers::taps::trace::Traced;

pub(crate) type Traces = Answers<v1::TraceResponse>;
pub(crate) type Frames = Answers<v1::CaptureResponse>;
type Answers<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// How often workers' rings are looked at.
const TICK: Duration = Duration::from_millis(20);
/// Messages that wait for the client.
const QUEUE: usize = 4;
/// Records of a message, and about how many octets.
const RECORDS: usize = 256;
const OCTETS: usize = 256 << 10;
/// How long after its time a client may take what was taken for it.
const GRACE: Duration = Duration::from_secs(5);

impl Service {
    /// Traces packets.
    pub(crate) async fn trace(
        &self,
        caller: Option<Caller>,
        request: v1::TraceRequest,
    ) -> Result<Traces, Status> {
        let tapping = Tapping {
            entry: Entry::new(caller.clone(), "Trace"),
            what: what_is_traced(&request),
        };
        let what = tapping.what.clone();
        let node = self.node.clone();
        let opening = async move { node.trace(request, tapping).await };
        let source = TraceSource(self.node.clone());
        self.stream(source, caller, what, opening).await
    }

    /// Copies frames.
    pub(crate) async fn capture(
        &self,
        caller: Option<Caller>,
        request: v1::CaptureRequest,
    ) -> Result<Frames, Status> {
        let tapping = Tapping {
            entry: Entry::new(caller.clone(), "Capture"),
            what: what_is_captured(&request),
        };
        let what = tapping.what.clone();
        let node = self.node.clone();
        let opening = async move { node.capture(request, tapping).await };
        self.stream(FrameSource, caller, what, opening).await
    }

    /// A task of its own opens the tap and has it read: whenever the call is dropped, the tap ends and gives its place back.
    async fn stream<S: Source>(
        &self,
        source: S,
        caller: Option<Caller>,
        what: String,
        opening: impl Future<Output = Result<Tapped<S::Record>, Stopped>> + Send + 'static,
    ) -> Result<Answers<S::Message>, Status> {
        let (audit, node) = (self.audit.clone(), self.node.clone());
        let begun = tokio::spawn(async move {
            let (opened, generation) = opening.await.map_err(stopped)?;
            let opened = opened.map_err(|refused| status(&refused, ""))?;
            let (to, answers) = mpsc::channel(QUEUE);
            let last = LastWords {
                audit,
                entry: Some(Entry::new(caller, S::METHOD)),
                what,
                generation,
            };
            tokio::spawn(pump(source, opened, node, to, last));
            Ok::<_, Status>(answers)
        });
        let answers = begun.await.map_err(|_| stopped(Stopped))??;
        Ok(Box::pin(ReceiverStream::new(answers)))
    }
}

/// What a tap's records become on their way to the client.
trait Source: Send + Sync + 'static {
    const METHOD: &'static str;
    type Record: Send + 'static;
    /// Taken out of a record.
    type Copy: Send;
    type Message: Default + Message + Send + 'static;

    fn copy(worker: usize, record: &mut Self::Record) -> Option<Self::Copy>;
    fn octets(copy: &Self::Copy) -> usize;
    fn tell(
        &self,
        copies: Vec<Self::Copy>,
        lost: u64,
    ) -> impl Future<Output = Result<Self::Message, Stopped>> + Send;
    fn first(limits: v1::TapLimits) -> Self::Message;
    fn last(end: v1::TapEnd, lost: u64) -> Self::Message;
}

struct TraceSource(NodeHandle);
struct FrameSource;

impl Source for TraceSource {
    const METHOD: &'static str = "Trace";
    type Record = Traced;
    type Copy = Taken;
    type Message = v1::TraceResponse;

    fn copy(worker: usize, record: &mut Traced) -> Option<Taken> {
        record.take().map(|(when, trace)| (worker, when, trace))
    }

    fn octets(_: &Taken) -> usize {
        0
    }

    async fn tell(&self, taken: Vec<Taken>, lost: u64) -> Result<v1::TraceResponse, Stopped> {
        Ok(v1::TraceResponse {
            packets: self.0.told(taken).await?,
            lost,
            ..Default::default()
        })
    }

    fn first(limits: v1::TapLimits) -> v1::TraceResponse {
        v1::TraceResponse {
            limits: Some(limits),
            ..Default::default()
        }
    }

    fn last(end: v1::TapEnd, lost: u64) -> v1::TraceResponse {
        v1::TraceResponse {
            end: end.into(),
            lost,
            ..Default::default()
        }
    }
}

impl Source for FrameSource {
    const METHOD: &'static str = "Capture";
    type Record = Captured;
    type Copy = v1::CapturedFrame;
    type Message = v1::CaptureResponse;

    fn copy(worker: usize, record: &mut Captured) -> Option<v1::CapturedFrame> {
        let direction = match record.direction {
            Direction::In => v1::CaptureDirection::In,
            Direction::Out => v1::CaptureDirection::Out,
        };
        Some(v1::CapturedFrame {
            unix_nanos: record.unix_nanos,
            direction: direction.into(),
            length: record.length as u32,
            octets: record.octets.clone(),
            worker: worker as u32,
        })
    }

    fn octets(frame: &v1::CapturedFrame) -> usize {
        frame.octets.len()
    }

    async fn tell(
        &self,
        frames: Vec<v1::CapturedFrame>,
        lost: u64,
    ) -> Result<v1::CaptureResponse, Stopped> {
        Ok(v1::CaptureResponse {
            frames,
            lost,
            ..Default::default()
        })
    }

    fn first(limits: v1::TapLimits) -> v1::CaptureResponse {
        v1::CaptureResponse {
            limits: Some(limits),
            ..Default::default()
        }
    }

    fn last(end: v1::TapEnd, lost: u64) -> v1::CaptureResponse {
        v1::CaptureResponse {
            end: end.into(),
            lost,
            ..Default::default()
        }
    }
}

/// Reads a tap for a client until one of the two ends.
async fn pump<S: Source>(
    source: S,
    opened: Opened<S::Record>,
    node: NodeHandle,
    to: Sender<Result<S::Message, Status>>,
    mut last: LastWords,
) {
    let deadline = Instant::now() + opened.time();
    // The hours in which the machine sleeps count: what is opened for a minute is not open when it wakes.
    let until = since_boot() + opened.time();
    let tap = EndWithUs(&opened.tap);
    let mut told = 0;
    let mut open = to.try_send(Ok(S::first(opened.limits))).is_ok();
    while open {
        let over = node.stopped() || tap.0.ended() || since_boot() >= until;
        if over {
            tap.0.end();
        }
        let copies = gather::<S>(tap.0);
        if !copies.is_empty() {
            let count = copies.len() as u64;
            let Ok(message) = source.tell(copies, tap.0.lost()).await else {
                break;
            };
            open = deliver(&to, message, tap.0, deadline).await;
            told += count * u64::from(open);
        } else if over {
            let end = if tap.0.full() {
                v1::TapEnd::Count
            } else if since_boot() >= until {
                v1::TapEnd::Time
            } else {
                v1::TapEnd::Gone
            };
            deliver(&to, S::last(end, tap.0.lost()), tap.0, deadline).await;
            break;
        } else {
            tokio::select! {
                () = sleep(TICK) => {}
                () = to.closed() => break,
            }
        }
    }
    last.say(told, tap.0.lost());
}

/// Hands a message over when the client takes it. The tap ends in its time all the same; and false if the client is gone,
/// or takes nothing for long after that.
async fn deliver<M, T: Send>(
    to: &Sender<Result<M, Status>>,
    message: M,
    tap: &Tap<T>,
    deadline: Instant,
) -> bool {
    let place = tokio::select! {
        biased;
        place = to.reserve() => place.ok(),
        () = sleep_until(deadline) => {
            tap.end();
            match timeout(GRACE, to.reserve()).await {
                Ok(place) => place.ok(),
                Err(_) => None,
            }
        }
    };
    let open = place.is_some();
    if let Some(place) = place {
        place.send(Ok(message));
    }
    open
}

fn gather<S: Source>(tap: &Tap<S::Record>) -> Vec<S::Copy> {
    let mut copies = Vec::new();
    let mut octets = 0;
    while copies.len() < RECORDS && octets < OCTETS {
        // One of each worker at a time, so that none comes to nothing.
        let taken = tap.take(1, |worker, record| {
            if let Some(copy) = S::copy(worker, record) {
                octets += S::octets(&copy);
                copies.push(copy);
            }
        });
        if taken == 0 {
            break;
        }
    }
    copies
}

/// Nobody reads any more when the task is gone.
struct EndWithUs<'a, T: Send>(&'a Tap<T>);

impl<T: Send> Drop for EndWithUs<'_, T> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What the audit log is told at the end.
struct LastWords {
    audit: Audit,
    entry: Option<Entry>,
    what: String,
    generation: u64,
}

impl LastWords {
    fn say(&mut self, told: u64, lost: u64) {
        if let Some(mut entry) = self.entry.take() {
            entry.item(format!("end: {}; {told} told, {lost} lost", self.what));
            let generation = self.generation;
            self.audit.write(entry, Outcome::Done { generation });
        }
    }
}

fn what_is_captured(it: &v1::CaptureRequest) -> String {
    let way = match it.direction() {
        v1::CaptureDirection::Both => "both ways",
        v1::CaptureDirection::In => "in",
        v1::CaptureDirection::Out => "out",
    };
    format!("port {}, {way}{}", it.port, filter(it.filter.as_ref()))
}

fn what_is_traced(it: &v1::TraceRequest) -> String {
    let named = [
        ("port", &it.port),
        ("link", &it.link),
        ("circuit", &it.circuit),
        ("vrf", &it.vrf),
    ];
    let named = named.iter().filter(|(_, name)| !name.is_empty());
    let mut parts: Vec<_> = named.map(|(kind, name)| format!("{kind} {name}")).collect();
    if it.dropped {
        parts.push("drops".to_owned());
    }
    if parts.is_empty() {
        parts.push("all packets".to_owned());
    }
    format!("{}{}", parts.join(", "), filter(it.filter.as_ref()))
}

fn filter(filter: Option<&v1::PacketFilter>) -> String {
    let Some(it) = filter else {
        return String::new();
    };
    let number = |it: Option<u32>| it.map(|it| it.to_string()).unwrap_or_default();
    let parts = [
        ("from", it.source.clone()),
        ("to", it.destination.clone()),
        ("protocol", number(it.protocol)),
        ("source port", number(it.source_port)),
        ("destination port", number(it.destination_port)),
    ];
    let given = parts.iter().filter(|(_, value)| !value.is_empty());
    given
        .map(|(name, value)| format!(", {name} {value}"))
        .collect()
}
