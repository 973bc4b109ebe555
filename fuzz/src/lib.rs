//! What fuzz targets share: the fixture's path with packets that are authentic on it, and mutations that aim at them.
//!
//! Runs must not depend on earlier ones, or a crash could not be reproduced: [`with_bed`] empties replay windows and budgets
//! first, and the authentic packets are made once, with the same counters every time.

mod mutate;

use std::cell::RefCell;
use std::sync::Arc;

use twinseal_crypto::{
    self as crypto, AAD_LEN, DEFAULT_PROVIDER, Lanes, Provider, Suite, TAG_LEN, provider,
};
use twinseal_fib::{InboundSa, PortIndex};
use twinseal_forward::fixture::{
    EAST, EDGE, EPOCH, Node, Path, RECEIVER_AT_B, RECEIVER_AT_TRANSIT, Seal, WEST, host_frame_v4,
    host_frame_v6,
};
use twinseal_forward::reason::DropReason;
use twinseal_forward::{Budgets, Disposition};

pub use mutate::{mutate, repair};

/// Octets before the link header in a frame between nodes, which the fixture sends over IPv4.
pub const OUTER: usize = 14 + 20 + 8;
/// The longest frame that is tried; with the headers and tags that `seal_link` adds it fits the fixture's chunks.
pub const MAX_FRAME: usize = 1800;
/// Octets of a link header, of a circuit header, and of additional data.
pub const HEADER: usize = AAD_LEN;
const SUITE: Suite = Suite::Aes256Gcm;

/// The path, and packets that crossed it.
pub struct Bed {
    /// The nodes. Their receive keys have seen nothing.
    pub path: Path,
    /// Packets of several sizes and both IP versions.
    pub samples: Vec<Sample>,
}

/// An authentic packet, hop by hop.
pub struct Sample {
    /// As the host sends it.
    pub host: Vec<u8>,
    /// From A to the transit node.
    pub first: Vec<u8>,
    /// From the transit node to B.
    pub second: Vec<u8>,
    /// What the first link's seal covers: circuit header, circuit ciphertext, circuit tag.
    pub first_inside: Vec<u8>,
    /// What the second link's seal covers.
    pub second_inside: Vec<u8>,
    /// As B delivers it.
    pub delivered: Vec<u8>,
}

/// Runs one fuzz case on a path that has seen nothing.
pub fn with_bed<T>(case: impl FnOnce(&mut Bed) -> T) -> T {
    thread_local! {
        static BED: RefCell<Bed> = RefCell::new(Bed::new());
    }
    BED.with_borrow_mut(|bed| {
        bed.renew();
        case(bed)
    })
}

impl Bed {
    fn new() -> Self {
        let mut path = Path::new(library(), SUITE).expect("memory for the fixture");
        let hosts = [
            // The first sample is the one of the pipeline's golden bytes.
            host_frame_v4(64, 7),
            host_frame_v4(28, 1),
            host_frame_v6(300, 2),
            host_frame_v4(1408, 3),
            host_frame_v6(48, 4),
        ];
        let samples = hosts.into_iter().map(|host| {
            let first = pass(&mut path.a, EDGE, &host, WEST);
            let second = pass(&mut path.transit, WEST, &first, EAST);
            let delivered = pass(&mut path.b, WEST, &second, EDGE);
            let first_inside = open_link(Seal::FirstLink, &first).expect("authentic");
            let second_inside = open_link(Seal::SecondLink, &second).expect("authentic");
            Sample {
                host,
                first,
                second,
                first_inside,
                second_inside,
                delivered,
            }
        });
        let samples = samples.collect();
        Self { path, samples }
    }

    fn renew(&mut self) {
        let open = |seal: Seal| Arc::new(seal.open_sa(library(), SUITE).expect("a key"));
        for (node, receiver, seal) in [
            (&mut self.path.transit, RECEIVER_AT_TRANSIT, Seal::FirstLink),
            (&mut self.path.b, RECEIVER_AT_B, Seal::SecondLink),
        ] {
            let link = node.tables.receivers().next().expect("of the fixture").link;
            let sa = open(seal);
            node.write(|draft| draft.set_receiver(receiver, InboundSa { link, sa }));
        }
        let circuit = self.path.b.tables.circuits.get_mut(0);
        circuit.expect("of the fixture").receive[EPOCH as usize] = Some(open(Seal::Circuit));
        for node in [&mut self.path.a, &mut self.path.transit, &mut self.path.b] {
            node.state.errors = Budgets::of(1);
        }
    }

    /// The sample that an octet names.
    pub fn sample(&self, n: u8) -> &Sample {
        &self.samples[usize::from(n) % self.samples.len()]
    }
}

impl Sample {
    /// Whether a frame holds this packet's UDP payload of the first link, all of it and unchanged.
    pub fn is_first_in(&self, frame: &[u8]) -> bool {
        holds(frame, &self.first[OUTER..])
    }

    /// Whether a frame holds this packet's UDP payload of the second link.
    pub fn is_second_in(&self, frame: &[u8]) -> bool {
        holds(frame, &self.second[OUTER..])
    }

    /// Whether what a link seal covers is this packet, but for what a hop may change: label, hop limit and ECN.
    pub fn is_circuit_of(&self, inside: &[u8]) -> bool {
        let ours = &self.second_inside;
        inside.len() == ours.len() && inside[5] >> 2 == ours[5] >> 2 && inside[6..] == ours[6..]
    }
}

fn holds(frame: &[u8], payload: &[u8]) -> bool {
    frame.windows(payload.len()).any(|window| window == payload)
}

/// Runs frames through a node as one batch, and checks what holds for all frames: each is decided, its drop is counted
/// once and under its reason, and no memory is lost.
pub fn run(node: &mut Node, port: PortIndex, frames: &[Vec<u8>]) -> Vec<(Disposition, Vec<u8>)> {
    let drops = node.state.drops.clone();
    let count = |reason: &DropReason| drops.get(*reason);
    let before: Vec<u64> = DropReason::ALL.iter().map(count).collect();
    let free = node.memory.available();

    let results = node.run(port, frames);

    assert_eq!(node.memory.available(), free, "a frame was lost");
    assert_eq!(results.len(), frames.len());
    let mut counted = 0;
    for (reason, before) in DropReason::ALL.iter().zip(before) {
        let new = count(reason) - before;
        let dropped = results
            .iter()
            .filter(|(disposition, _)| *disposition == Disposition::Drop(*reason))
            .count() as u64;
        // What is answered with an ICMP error counts too, though its frame is sent.
        assert!(new >= dropped, "a drop was not counted: {}", reason.name());
        counted += new;
    }
    assert!(counted <= frames.len() as u64, "a drop was counted twice");
    for (disposition, _) in &results {
        assert_ne!(*disposition, Disposition::Pending, "undecided");
    }
    results
}

/// Runs one frame through a node that must send it on `out`, and returns it.
pub fn pass(node: &mut Node, port: PortIndex, frame: &[u8], out: PortIndex) -> Vec<u8> {
    let (disposition, frame) = run(node, port, &[frame.to_vec()]).remove(0);
    assert_eq!(disposition, Disposition::Send(out));
    frame
}

/// Opens a link's seal with the fixture's key: what is inside a frame, if it is authentic. Looks at no window.
pub fn open_link(seal: Seal, frame: &[u8]) -> Option<Vec<u8>> {
    let sa = seal.open_sa(library(), SUITE).expect("a key");
    let (header, sealed) = frame.get(OUTER..)?.split_first_chunk::<HEADER>()?;
    let mut inside = sealed.to_vec();
    let (lane, counter) = lane_and_counter(header);
    let mut batch = [sa.packet(lane, counter, *header, &mut inside)];
    crypto::open(&mut batch);
    let ok = batch[0].ok;
    inside.truncate(inside.len() - TAG_LEN);
    ok.then_some(inside)
}

/// Seals something for a link with the fixture's key, in the outer and link headers of `frame`, as its peer could.
pub fn seal_link(seal: Seal, frame: &[u8], inside: &[u8]) -> Vec<u8> {
    let (lanes, _) = Lanes::split(1, 256).expect("as many as there may be");
    let sa = seal.seal_sa(library(), SUITE, lanes).expect("a key");
    let mut frame = frame[..OUTER + HEADER].to_vec();
    frame.extend(inside);
    frame.extend([0; TAG_LEN]);
    let (header, sealed) = frame[OUTER..]
        .split_first_chunk_mut::<HEADER>()
        .expect("a header");
    let (lane, counter) = lane_and_counter(header);
    crypto::seal(&mut [sa.packet(lane, counter, *header, sealed)]);
    repair(&mut frame);
    frame
}

fn lane_and_counter(header: &[u8; HEADER]) -> (u8, u64) {
    let counter = header.last_chunk().expect("eight octets at the end");
    (header[1], u64::from_be_bytes(*counter))
}

fn library() -> &'static dyn Provider {
    provider(DEFAULT_PROVIDER).expect("the default is built in")
}
