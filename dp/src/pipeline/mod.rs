//! The packet path: a batch of frames, a table snapshot and a worker's state in; the same frames with dispositions out.
//!
//! It is pure: no I/O, no clock, no thread, no allocation, lock or log a packet. Every stage loops over the whole batch
//! before the next begins:
//!
//! | stage | from | does |
//! |---|---|---|
//! | [`parse`] | ports | Ethernet; on the underlay also IP and UDP; finishes checksums where hosts leave them to a device |
//! | [`link::open`] | underlay | link header, key lookup; opens the link seal, marks the replay window, looks for labels |
//! | [`label::follow`] | links | swaps the label, or takes the packet out at its circuit's end |
//! | [`circuit::open`] | labels | opens the circuit seal, marks the replay window |
//! | [`route::forward`] | hosts, circuits | IP checks, TTL, longest-prefix match, next hop |
//! | [`circuit::enter`] | routes | circuit header |
//! | [`link::seal`] | circuits, labels | link header, circuit seal of what enters one, link seal, outer headers |

mod budget;
mod circuit;
mod flow;
mod icmp;
mod jobs;
mod label;
mod link;
mod lookups;
pub mod offloads;
mod parse;
pub mod reason;
mod route;
pub mod told;
pub mod trace;

use std::sync::Arc;

use arrayvec::ArrayVec;
use twinseal_crypto::{LaneOwner, TAG_LEN};
use twinseal_xsk::Frame;

use crate::tables::{CircuitIndex, LinkIndex, NeighbourKey, PortIndex, Tables, VrfIndex, hash};
pub use budget::Budgets;
use offloads::Offloads;
use reason::{DropReason, Drops};

/// The most packets in a batch.
pub const BATCH: usize = 64;

/// Octets that a frame needs in front of a received packet, at most: outer IPv6 and both headers, less the Ethernet
/// header that it came with.
pub const HEADROOM: usize = 40 + 8 + 16 + 16;

/// [`HEADROOM`] as packet memory leaves it free: whole cache lines.
pub const FRAME_HEADROOM: usize = HEADROOM.next_multiple_of(64);

/// Octets that a frame needs behind a received packet, at most: the tags of both seals.
pub const TAILROOM: usize = 2 * TAG_LEN;

/// A batch of packets.
pub type Batch = ArrayVec<Packet, BATCH>;

/// A frame on its way.
#[derive(Debug)]
pub struct Packet {
    /// Its octets. As it arrives they begin with the Ethernet header; what it holds in between is the stages' affair.
    pub frame: Frame,
    /// Where it came from.
    pub port: PortIndex,
    /// Where it goes.
    pub disposition: Disposition,
    stage: Stage,
    meta: Meta,
}

/// What is to become of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Not decided. No packet is left so.
    Pending,
    /// The frame is whole again and leaves by this port.
    Send(PortIndex),
    /// As [`Disposition::Send`], once this neighbour's hardware address is known: it is to be the frame's destination,
    /// which is left blank. Whoever gives up waiting counts [`DropReason::NeighbourUnresolved`].
    Wait(Waiting),
    /// The frame is to be freed; the drop is counted already.
    Drop(DropReason),
}

/// Which neighbour of the batch's a packet waits for; see [`State::awaited`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiting(u8);

/// The next stage of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Stage {
    Parse,
    LinkOpen,
    Label,
    CircuitOpen,
    Route,
    CircuitEnter,
    LinkSeal,
    Done,
}

/// What stages tell later ones; only the fields that the packet's way sets mean anything.
#[derive(Clone, Copy, Debug)]
struct Meta {
    /// Where the inner packet is routed.
    vrf: VrfIndex,
    /// The link that it came from, later the one that it leaves by.
    link: LinkIndex,
    /// The circuit that it leaves, later the one that it enters.
    circuit: CircuitIndex,
    /// Orders the flow: packets of equal hash stay in order.
    flow: u64,
    /// Traffic class of the headers that come off, later of those that go on.
    traffic_class: u8,
    /// Whether the inner packet came out of a circuit, so the congestion marks of `traffic_class` are to be kept.
    tunnelled: bool,
    /// Whether it enters that circuit here, and is to be sealed for it.
    enters: bool,
    /// Whose drop it is, should it be dropped.
    account: Account,
    /// Why a packet was dropped, if this is the ICMP error about it.
    answered: Option<DropReason>,
}

/// On whose account a packet is; the drop counters of links and circuits follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Account {
    /// Nobody's: of a host, on no circuit yet, or on the underlay without a key of ours.
    Node,
    /// Of the link in `Meta::link`.
    Link,
    /// Of the circuit in `Meta::circuit`.
    Circuit,
}

/// What a worker keeps between batches.
pub struct State {
    /// Which worker, for its cells of the traffic counters.
    worker: usize,
    /// The worker's lanes.
    lanes: LaneOwner,
    /// Counters of drops.
    pub drops: Arc<Drops>,
    /// Counters of ICMP errors.
    pub told: Arc<told::Errors>,
    /// What packets of the last batch wait for; beside it, as it would make every packet larger.
    waiting: ArrayVec<Awaited, BATCH>,
    /// ICMP errors that may still be sent; the worker adds to it by the clock.
    pub errors: Budgets,
    /// What the batches so far left to a device; the worker takes it out.
    pub offloads: Offloads,
}

/// A neighbour whose hardware address a packet waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Awaited {
    /// It.
    pub neighbour: NeighbourKey,
    /// The life of its port: [`Port::since`](crate::tables::Port::since).
    pub since: u64,
}

impl State {
    /// The state of worker `worker`, which owns these lanes.
    pub fn new(worker: usize, lanes: LaneOwner) -> Self {
        Self {
            worker,
            lanes,
            drops: Arc::default(),
            told: Arc::default(),
            waiting: ArrayVec::new(),
            errors: Budgets::of(0),
            offloads: Offloads::default(),
        }
    }

    /// What a packet of the last batch waits for.
    pub fn awaited(&self, waiting: Waiting) -> Option<Awaited> {
        self.waiting.get(usize::from(waiting.0)).copied()
    }

    /// The lane of a flow.
    #[inline]
    fn lane(&self, flow: u64) -> u8 {
        self.lanes.first() + hash::reduce(flow, self.lanes.count().into()) as u8
    }
}

impl Packet {
    /// A frame that arrived on a port.
    #[inline]
    pub fn new(frame: Frame, port: PortIndex) -> Self {
        Self {
            frame,
            port,
            disposition: Disposition::Pending,
            stage: Stage::Parse,
            meta: Meta {
                vrf: VrfIndex(0),
                link: LinkIndex(0),
                circuit: CircuitIndex(0),
                flow: 0,
                traffic_class: 0,
                tunnelled: false,
                enters: false,
                account: Account::Node,
                answered: None,
            },
        }
    }

    #[inline]
    fn drop(&mut self, reason: DropReason) {
        refuse(&mut self.disposition, &mut self.stage, reason);
    }

    #[inline]
    fn send(&mut self, port: PortIndex) {
        self.disposition = Disposition::Send(port);
        self.stage = Stage::Done;
    }

    #[inline]
    fn wait(&mut self, waiting: Waiting) {
        self.disposition = Disposition::Wait(waiting);
        self.stage = Stage::Done;
    }
}

/// As [`Packet::drop`], while the packet's frame is borrowed.
#[inline]
fn refuse(disposition: &mut Disposition, stage: &mut Stage, reason: DropReason) {
    *disposition = Disposition::Drop(reason);
    *stage = Stage::Done;
}

/// Is told when a batch has passed a stage: so a bench can take its time, and a [`trace`] look at its packets. `()` is
/// not interested.
pub trait Probe {
    /// The batch has passed [`STAGES`]`[stage]`.
    fn passed(&mut self, stage: usize, tables: &Tables, batch: &Batch);
}

impl Probe for () {
    #[inline]
    fn passed(&mut self, _stage: usize, _tables: &Tables, _batch: &Batch) {}
}

/// The names of the stages, in a packet's order. Each opens or seals all of its packets with one call.
pub const STAGES: [&str; Stage::Done as usize] = [
    "parse",
    "link_open",
    "label",
    "circuit_open",
    "route",
    "circuit_enter",
    "link_seal",
];

/// Runs a batch through all stages. Afterwards each packet is to be sent, held or dropped, and drops are counted. All
/// packets of a batch came in by one port.
pub fn process(state: &mut State, tables: &Tables, batch: &mut Batch) {
    process_probed(state, tables, batch, &mut ());
}

/// As [`process`]; `probe` is told of the stages that any packet of the batch went through.
#[inline]
pub fn process_probed(
    state: &mut State,
    tables: &Tables,
    batch: &mut Batch,
    probe: &mut impl Probe,
) {
    debug_assert!(batch.windows(2).all(|pair| pair[0].port == pair[1].port));
    state.waiting.clear();
    parse::parse(state, tables, batch);
    probe.passed(Stage::Parse as usize, tables, batch);
    if waiting(batch, Stage::LinkOpen) {
        let labels = link::open(state, tables, batch);
        probe.passed(Stage::LinkOpen as usize, tables, batch);
        label::follow(tables, batch, &labels);
        probe.passed(Stage::Label as usize, tables, batch);
        if labels.distinct().len() > 1 {
            circuit::prefetch_receive(state, tables, batch);
        }
    }
    if waiting(batch, Stage::CircuitOpen) {
        circuit::open(state, tables, batch);
        probe.passed(Stage::CircuitOpen as usize, tables, batch);
    }
    if waiting(batch, Stage::Route) {
        route::forward(state, tables, batch);
        probe.passed(Stage::Route as usize, tables, batch);
    }
    if waiting(batch, Stage::CircuitEnter) {
        circuit::enter(state, tables, batch);
        probe.passed(Stage::CircuitEnter as usize, tables, batch);
    }
    if waiting(batch, Stage::LinkSeal) {
        link::seal(state, tables, batch);
        probe.passed(Stage::LinkSeal as usize, tables, batch);
    }
    for packet in batch.iter() {
        debug_assert_eq!(packet.stage, Stage::Done);
        if let Disposition::Drop(reason) = packet.disposition {
            count_drop(state, tables, &packet.meta, reason);
        }
    }
}

/// Counts a drop: for the worker, and for the link or circuit on whose account it is.
#[cold]
fn count_drop(state: &State, tables: &Tables, meta: &Meta, reason: DropReason) {
    state.drops.count(reason, 1);
    match meta.account {
        Account::Node => {}
        Account::Link => tables.link(meta.link).traffic.dropped(reason as usize),
        Account::Circuit => {
            let circuit = tables.circuit(meta.circuit);
            circuit.traffic.dropped(reason as usize);
        }
    }
}

#[inline]
fn waiting(batch: &Batch, stage: Stage) -> bool {
    batch.iter().any(|packet| packet.stage == stage)
}

/// The packets that wait for a stage.
#[inline]
fn at(batch: &mut Batch, stage: Stage) -> impl Iterator<Item = &mut Packet> {
    batch.iter_mut().filter(move |packet| packet.stage == stage)
}
