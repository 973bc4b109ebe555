//! Makes packets: good ones with the path's own keys, and bad ones of every kind.

use twinseal_api::v1;
use twinseal_crypto::{
    self as crypto, AAD_LEN, Context, DEFAULT_PROVIDER, Direction, LaneOwner, Lanes, Layer,
    MAX_COUNTER, MAX_LANES, OpenSa, SECRET_LEN, SealSa, Secret, TAG_LEN, provider,
};
use twinseal_lab::frame::UdpFrame;
use twinseal_lab::traffic::Payload;
use twinseal_testbed::items::random;
use twinseal_testbed::kernel::netdev;
use twinseal_testbed::plan::{CIRCUIT, EAST, Host, Plan, Router, Underlay, WEST};
use twinseal_wire::overlay::{CircuitHeader, DEFAULT_PORT, LinkHeader, PayloadType, TYPE_DATA};
use zerocopy::IntoBytes;

use crate::common::Path;
use crate::{MARKER, TEST_PORT};

/// Octets of either header.
const HEADER: usize = 16;
/// A lane that no daemon of these tests sends on: they have one worker with four lanes. All lanes that differ from it in
/// one bit are above these too.
const LANE: u8 = 0b1010_0101;

/// The underlay hop that is attacked: towards B, on one of the two links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hop {
    /// From edge A to the transit node.
    West,
    /// From the transit node to edge B.
    East,
}

impl Hop {
    /// The link's name.
    pub(crate) fn link(self) -> &'static str {
        match self {
            Hop::West => WEST,
            Hop::East => EAST,
        }
    }

    /// Who sends here by rights.
    pub(crate) fn sender(self) -> Router {
        match self {
            Hop::West => Router::EdgeA,
            Hop::East => Router::Transit,
        }
    }

    /// Whom the forgeries go to.
    pub(crate) fn victim(self) -> Router {
        match self {
            Hop::West => Router::Transit,
            Hop::East => Router::EdgeB,
        }
    }

    /// The circuit's label on this hop, as genuine packets say it.
    fn label(self, path: &mut Path) -> u32 {
        let state = path.controller.get(self.victim()).expect("its state");
        let mut labels = state.items.into_iter().filter_map(|item| match item.item {
            Some(v1::item::Item::Label(label)) if label.link == self.link() => Some(label.label),
            _ => None,
        });
        labels.next_back().expect("a label on the link")
    }
}

/// Makes packets of one hop with the keys that it was given, true or false ones.
pub(crate) struct Forger {
    outer: UdpFrame,
    receiver: u32,
    label: u32,
    circuit_id: u64,
    epoch: u32,
    link: SealSa,
    circuit: SealSa,
    link_open: OpenSa,
    lanes: (Lanes, LaneOwner),
}

impl Forger {
    /// One who knows both keys of the hop.
    pub(crate) fn new(path: &mut Path, underlay: Underlay, hop: Hop) -> Self {
        let label = hop.label(path);
        let (lanes, mut owners) = Lanes::split(1, MAX_LANES).expect("as many as there may be");
        let lanes = (lanes, owners.remove(0));
        let (network, plan) = (&path.network, &path.plan);
        let link = key(plan, &v1::key::Owner::Link(hop.link().into()));
        let circuit = key(plan, &v1::key::Owner::Circuit(CIRCUIT.into()));
        let mac = |router| network.router(router).mac(netdev(hop.link()));
        let (address, _) = underlay.address(hop.victim(), hop.link());
        let (link_secret, link_context) = (secret_of(link), context_of(link));
        Forger {
            outer: UdpFrame {
                dst_mac: mac(hop.victim()).expect("the victim's address"),
                src_mac: mac(hop.sender()).expect("the sender's address"),
                src: underlay.address(hop.sender(), hop.link()).0,
                dst: address,
                src_port: 50_000,
                dst_port: DEFAULT_PORT,
                ttl: 64,
                traffic_class: 0,
            },
            receiver: link.receiver_index,
            label,
            circuit_id: plan.circuit_id(),
            epoch: circuit.epoch,
            link: seal_sa(&link_secret, link_context, lanes.0),
            circuit: seal_sa(&secret_of(circuit), context_of(circuit), lanes.0),
            lanes,
            link_open: OpenSa::new(
                provider(DEFAULT_PROVIDER).expect("a provider"),
                &link_secret,
                link_context,
                4096,
            )
            .expect("a key"),
        }
    }

    /// The same with a link key that nobody has.
    pub(crate) fn with_wrong_link_key(mut self) -> Self {
        let context = Context {
            layer: Layer::Link,
            direction: Direction::AToB,
            suite: self.link.suite(),
            epoch: self.link.epoch(),
        };
        self.link = seal_sa(&random_secret(), context, self.lanes.0);
        self
    }

    /// The same with a circuit key that nobody has.
    pub(crate) fn with_wrong_circuit_key(mut self) -> Self {
        let context = Context {
            layer: Layer::Circuit,
            direction: Direction::AToB,
            suite: self.circuit.suite(),
            epoch: self.epoch,
        };
        self.circuit = seal_sa(&random_secret(), context, self.lanes.0);
        self
    }

    /// The same, believing in another circuit.
    pub(crate) fn with_wrong_circuit_id(mut self) -> Self {
        self.circuit_id ^= 1;
        self
    }

    /// The outer headers of genuine packets.
    pub(crate) fn outer(&self) -> UdpFrame {
        self.outer
    }

    /// The live receiver index.
    pub(crate) fn receiver(&self) -> u32 {
        self.receiver
    }

    /// A link header on [`LANE`] whose counter was never used.
    pub(crate) fn link_header(&self) -> LinkHeader {
        let counter = self
            .link
            .reserve(&self.lanes.1, LANE, 1)
            .expect("counters are left");
        LinkHeader {
            kind: TYPE_DATA,
            lane: LANE,
            flags: 0,
            reserved: 0,
            receiver: self.receiver.into(),
            counter: counter.into(),
        }
    }

    /// A circuit header on [`LANE`], as it should be, whose counter was never used.
    pub(crate) fn circuit_header(&self) -> CircuitHeader {
        let counter = self
            .circuit
            .reserve(&self.lanes.1, LANE, 1)
            .expect("counters are left");
        CircuitHeader {
            label: self.label.into(),
            hop_limit: 64,
            traffic_class: 0,
            lane: LANE,
            payload_epoch: PayloadType::Ipv4.with_epoch(self.epoch),
            counter: counter.into(),
        }
    }

    /// Circuit header and circuit seal.
    pub(crate) fn circuit(&self, header: CircuitHeader, inner: &[u8]) -> Vec<u8> {
        let place = (header.lane, header.counter.get());
        let sealed = seal(&self.circuit, place, header.aad(self.circuit_id), inner);
        [header.as_bytes(), &sealed].concat()
    }

    /// The UDP payload with this header and these octets in the link seal.
    pub(crate) fn link(&self, header: LinkHeader, plain: &[u8]) -> Vec<u8> {
        let place = (header.lane, header.counter.get());
        let sealed = seal(&self.link, place, header.aad(), plain);
        [header.as_bytes(), &sealed].concat()
    }

    /// A frame with these octets in a fresh link seal.
    pub(crate) fn frame(&self, plain: &[u8]) -> Vec<u8> {
        frame(&self.outer, &self.link(self.link_header(), plain))
    }

    /// A frame with this circuit header and inner packet in true seals.
    pub(crate) fn packet(&self, header: CircuitHeader, inner: &[u8]) -> Vec<u8> {
        self.frame(&self.circuit(header, inner))
    }

    /// Opens the link seal of a captured frame.
    pub(crate) fn open(&self, frame: &[u8]) -> Vec<u8> {
        let mut payload = frame[self.outer.payload_offset()..].to_vec();
        let (header, sealed) = payload.split_at_mut(HEADER);
        let (lane, counter) = lane_and_counter(header);
        let aad: [u8; AAD_LEN] = (&*header).try_into().expect("a header");
        let mut batch = [self.link_open.packet(lane, counter, aad, sealed)];
        crypto::open(&mut batch);
        assert!(batch[0].ok, "a genuine packet opens");
        payload[HEADER..payload.len() - TAG_LEN].to_vec()
    }
}

/// Lane and counter of a link header.
pub(crate) fn lane_and_counter(header: &[u8]) -> (u8, u64) {
    let counter = header[8..16].try_into().expect("a counter");
    (header[1], u64::from_be_bytes(counter))
}

/// A frame with this UDP payload, without a UDP checksum.
pub(crate) fn frame(outer: &UdpFrame, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    outer.write(payload.len(), &mut frame);
    frame[outer.payload_offset()..].copy_from_slice(payload);
    frame
}

/// An inner packet from host A to host B's [`TEST_PORT`], with a payload of our [`MARKER`].
pub(crate) fn inner() -> Vec<u8> {
    let udp = UdpFrame {
        dst_mac: [0; 6],
        src_mac: [0; 6],
        src: Host::A.address(false),
        dst: Host::B.address(false),
        src_port: 40_000,
        dst_port: TEST_PORT,
        ttl: 63,
        traffic_class: 0,
    };
    let payload = Payload {
        marker: MARKER,
        flow: 0,
        seq: 0,
        sent_ns: twinseal_lab::traffic::now_ns(),
    };
    let mut frame = Vec::new();
    udp.write(twinseal_lab::traffic::HEADER, &mut frame);
    let room = &mut frame[udp.payload_offset()..];
    payload.write(room).expect("the payload fits");
    udp.seal(&mut frame);
    frame.split_off(twinseal_lab::frame::ETHERNET)
}

/// All octets with one bit changed, each bit in its turn, and which octet it is in.
pub(crate) fn flips(octets: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..octets.len() * 8).map(|bit| {
        let mut changed = octets.to_vec();
        changed[bit / 8] ^= 0x80 >> (bit % 8);
        (bit / 8, changed)
    })
}

fn key<'a>(plan: &'a Plan, owner: &v1::key::Owner) -> &'a v1::Key {
    let mut keys = plan.keys().iter();
    let found = keys
        .find(|key| key.owner.as_ref() == Some(owner) && key.direction() == v1::Direction::AToB);
    found.expect("the plan has a key for each")
}

fn context_of(key: &v1::Key) -> Context {
    Context {
        layer: match key.owner {
            Some(v1::key::Owner::Circuit(_)) => Layer::Circuit,
            _ => Layer::Link,
        },
        direction: Direction::AToB,
        suite: u8::try_from(key.suite)
            .ok()
            .and_then(|number| number.try_into().ok())
            .expect("a suite"),
        epoch: key.epoch,
    }
}

fn secret_of(key: &v1::Key) -> Secret {
    Secret::from_vec(&mut key.secret.clone()).expect("32 octets")
}

fn random_secret() -> Secret {
    let mut octets = [0; SECRET_LEN];
    random(&mut octets).expect("random octets");
    Secret::from_bytes(&mut octets).expect("a secret")
}

fn seal_sa(secret: &Secret, context: Context, lanes: Lanes) -> SealSa {
    let provider = provider(DEFAULT_PROVIDER).expect("a provider");
    SealSa::new(provider, secret, context, lanes, MAX_COUNTER).expect("a key")
}

fn seal(sa: &SealSa, (lane, counter): (u8, u64), aad: [u8; AAD_LEN], plain: &[u8]) -> Vec<u8> {
    let mut data = [plain, &[0; TAG_LEN]].concat();
    let mut batch = [sa.packet(lane, counter, aad, &mut data)];
    crypto::seal(&mut batch);
    assert!(batch[0].ok, "it seals");
    data
}
