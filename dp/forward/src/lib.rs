//! The packet path: a batch of frames, a table snapshot and a worker's state in; the same frames with dispositions out.
//!
//! It is pure: no I/O, no clock, no thread, no allocation, lock or log a packet. Every stage loops over the whole batch
//! before the next begins:
//!
//! | stage | from | does |
//! |---|---|---|
//! | [`parse`] | ports | Ethernet; on the underlay also IP and UDP; finishes checksums where hosts leave them to a device |
//! | [`link::open`] | underlay | link header, key lookup; opens the link seal, marks the replay window |
//! | [`label::follow`] | links | label lookup; swaps the label, or takes the packet out at its circuit's end |
//! | [`circuit::open`] | labels | opens the circuit seal, marks the replay window |
//! | [`route::forward`] | hosts, circuits | IP checks, TTL, longest-prefix match, next hop |
//! | [`circuit::enter`] | routes | circuit header |
//! | [`link::seal`] | circuits, labels | link header, circuit seal of what enters one, link seal, outer headers |

#![forbid(unsafe_code)]

mod budget;
mod circuit;
pub mod echoes;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
mod flow;
mod icmp;
mod jobs;
mod label;
mod link;
mod lookups;
mod oam;
pub mod offloads;
mod parse;
pub mod punt;
pub mod reason;
mod route;
pub mod told;
pub mod trace;

use std::sync::Arc;

use arrayvec::ArrayVec;
use twinseal_crypto::{LaneOwner, TAG_LEN};
use twinseal_xsk::Frame;

pub use budget::Budgets;
use echoes::Echoes;
use offloads::Offloads;
use punt::{PuntKind, Punts};
use reason::{DropReason, Drops};
use twinseal_fib::{CircuitIndex, Fib, LinkIndex, NeighbourKey, PortIndex, VrfIndex, hash};

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
    /// The frame is for the node itself.
    Punt(PuntKind),
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

/// What stages tell later ones.
#[derive(Clone, Copy, Debug)]
struct Meta {
    from: Arrival,
    to: Departure,
    /// Whose drop it is, should it be dropped.
    account: Account,
    /// Why a packet was dropped, if this is the ICMP error about it.
    answered: Option<DropReason>,
    /// Whether a punted packet came out of a circuit, and not of a link alone.
    out_of: bool,
}

/// Where a packet came from. Each field is set by the stage that learns it, and means nothing before.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// Traffic class of the IP header that a link put around it.
    link_class: u8,
    /// The link that it came in by.
    link: LinkIndex,
    /// Its lane of that link.
    lane: u8,
    /// The circuit that it came out of.
    circuit: CircuitIndex,
    /// Traffic class of that circuit's header, if it came out of one: its congestion marks are to be kept.
    circuit_class: Option<u8>,
    /// Where the inner packet is routed.
    vrf: VrfIndex,
}

/// Where a packet goes. Each field is set by the stage that decides it, and means nothing before.
#[derive(Clone, Copy, Debug)]
struct Departure {
    /// Orders the flow: packets of equal hash stay in order.
    flow: u64,
    /// The circuit that it enters here, if it does.
    circuit: Option<CircuitIndex>,
    /// The link that it leaves by.
    link: LinkIndex,
    /// Traffic class of the headers that go on.
    class: u8,
}

/// On whose account a packet is; the drop counters of links and circuits follow it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Account {
    /// Nobody's: of a host, on no circuit yet, or on the underlay without a key of ours.
    Node,
    /// Of the link that it came in by.
    FromLink,
    /// Of the circuit that it came out of.
    FromCircuit,
    /// Of the circuit that it enters.
    ToCircuit,
    /// Of the link that it leaves by.
    ToLink,
}

impl Arrival {
    /// In a VRF, out of no circuit: of a host, or of this node itself.
    #[inline]
    const fn within(vrf: VrfIndex) -> Self {
        Self {
            link_class: 0,
            link: LinkIndex(0),
            lane: 0,
            circuit: CircuitIndex(0),
            circuit_class: None,
            vrf,
        }
    }
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
    /// Counters of echo requests and replies.
    pub echoes: Arc<Echoes>,
    /// What packets of the last batch wait for; beside it, as it would make every packet larger.
    waiting: ArrayVec<Awaited, BATCH>,
    /// ICMP errors that may still be sent; the worker adds to it by the clock.
    pub errors: Budgets,
    /// What the batches so far left to a device; the worker takes it out.
    pub offloads: Offloads,
    /// Packets that may still be punted; the worker adds to it by the clock.
    pub punts: Punts,
    /// The time in units of the budgets of maintenance answers, the same for all workers of a node; the worker sets it.
    pub now: u64,
}

/// A neighbour whose hardware address a packet waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Awaited {
    /// It.
    pub neighbour: NeighbourKey,
    /// The life of its port: [`Port::since`](twinseal_fib::Port::since).
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
            echoes: Arc::default(),
            waiting: ArrayVec::new(),
            errors: Budgets::of(0),
            offloads: Offloads::default(),
            punts: Punts::default(),
            now: 0,
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
                from: Arrival::within(VrfIndex(0)),
                to: Departure {
                    flow: 0,
                    circuit: None,
                    link: LinkIndex(0),
                    class: 0,
                },
                account: Account::Node,
                answered: None,
                out_of: false,
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
    fn passed(&mut self, stage: usize, tables: &Fib, batch: &Batch);
}

impl Probe for () {
    #[inline]
    fn passed(&mut self, _stage: usize, _tables: &Fib, _batch: &Batch) {}
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
pub fn process(state: &mut State, tables: &Fib, batch: &mut Batch) {
    process_probed(state, tables, batch, &mut ());
}

/// As [`process`]; `probe` is told of the stages that any packet of the batch went through.
#[inline]
pub fn process_probed(state: &mut State, tables: &Fib, batch: &mut Batch, probe: &mut impl Probe) {
    debug_assert!(batch.windows(2).all(|pair| pair[0].port == pair[1].port));
    state.waiting.clear();
    parse::parse(state, tables, batch);
    probe.passed(Stage::Parse as usize, tables, batch);
    if waiting(batch, Stage::LinkOpen) {
        link::open(state, tables, batch);
        probe.passed(Stage::LinkOpen as usize, tables, batch);
        label::follow(state, tables, batch);
        probe.passed(Stage::Label as usize, tables, batch);
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
fn count_drop(state: &State, tables: &Fib, meta: &Meta, reason: DropReason) {
    state.drops.count(reason, 1);
    let link = |link| Some(&tables.link(link).traffic);
    let circuit = |circuit| Some(&tables.circuit(circuit).traffic);
    let traffic = match meta.account {
        Account::Node => None,
        Account::FromLink => link(meta.from.link),
        Account::FromCircuit => circuit(meta.from.circuit),
        Account::ToCircuit => meta.to.circuit.and_then(circuit),
        Account::ToLink => link(meta.to.link),
    };
    if let Some(traffic) = traffic {
        traffic.dropped(reason as usize);
    }
}

#[inline]
fn waiting(batch: &Batch, stage: Stage) -> bool {
    batch.iter().any(|packet| packet.stage == stage)
}

/// A packet's place in its batch, which it keeps through all stages. What a stage gathers of a packet, and what comes back
/// for it, is found by its slot; only [`at`] makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot(u8);

impl Slot {
    /// Below [`BATCH`].
    #[inline]
    fn index(self) -> usize {
        usize::from(self.0) % BATCH
    }

    /// Whether its bit is set.
    #[inline]
    fn is_in(self, bits: u64) -> bool {
        bits >> self.index() & 1 == 1
    }
}

/// The packets that wait for a stage.
#[inline]
fn at(batch: &mut Batch, stage: Stage) -> impl Iterator<Item = (Slot, &mut Packet)> {
    let slots = (0..).map(Slot);
    let packets = slots.zip(batch.iter_mut());
    packets.filter(move |(_, packet)| packet.stage == stage)
}
