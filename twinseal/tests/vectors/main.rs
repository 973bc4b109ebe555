//! The published test vectors, docs/decoder/vectors.json: another program in another language computed them from the
//! page, and this one must agree in every octet.
//!
//! Each is made twice: from its parts with the wire types and the cryptography alone, and by the pipeline of whole nodes,
//! as a packet that a host sends. Then nodes open it.

mod nodes;

use std::net::IpAddr;

use serde::Deserialize;
use twinseal_crypto::{
    self as crypto, Context, Direction, LaneOwner, Lanes, Layer, MAX_COUNTER, MAX_LANES, OpenSa,
    Provider, Replay, SealSa, Secret, TAG_LEN, providers,
};
use twinseal_fib::outer::OuterHeaders;
use twinseal_wire::ethernet::Mac;
use twinseal_wire::oam::{ECHO_REPLY, Echo, LINK_LABEL};
use twinseal_wire::overlay::{CircuitHeader, DEFAULT_PORT, LinkHeader, PayloadType, TYPE_DATA};
use zerocopy::IntoBytes;

/// The frames' hardware addresses.
const SENDER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const RECEIVER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const HEADER: usize = 16;

#[derive(Deserialize)]
struct Vector {
    name: String,
    suite: String,
    direction: String,
    link_secret: String,
    link_epoch: u32,
    circuit_secret: String,
    circuit_epoch: u32,
    receiver_index: u32,
    lane: u8,
    counter: u64,
    circuit_id: u64,
    label: u32,
    hop_limit: u8,
    traffic_class: u8,
    circuit_lane: u8,
    circuit_counter: u64,
    payload_type: u8,
    outer_src: IpAddr,
    outer_dst: IpAddr,
    source_port_salt: u16,
    inner: String,
    circuit_nonce: String,
    circuit_aad: String,
    circuit_header: String,
    circuit_sealed: String,
    link_nonce: String,
    link_header: String,
    udp_payload: String,
    frame: String,
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../../../docs/decoder/vectors.json"))
            .expect("vectors.json");
    assert!(vectors.len() >= 4, "only {} vectors", vectors.len());
    vectors
}

impl Vector {
    fn context(&self, layer: Layer) -> Context {
        Context {
            layer,
            direction: match self.direction.as_str() {
                "a-to-b" => Direction::AToB,
                "b-to-a" => Direction::BToA,
                other => panic!("{other:?} is no direction"),
            },
            suite: self.suite.parse().expect("a suite"),
            epoch: match layer {
                Layer::Link => self.link_epoch,
                Layer::Circuit => self.circuit_epoch,
            },
        }
    }

    fn secret(&self, layer: Layer) -> Secret {
        let hex = match layer {
            Layer::Link => &self.link_secret,
            Layer::Circuit => &self.circuit_secret,
        };
        let mut octets = unhex(hex).try_into().expect("32 octets");
        Secret::from_bytes(&mut octets).expect("a secret")
    }

    /// The key that seals, its lane at the vector's counter.
    fn seal_sa(
        &self,
        provider: &dyn Provider,
        layer: Layer,
        (lanes, owner): &(Lanes, LaneOwner),
    ) -> SealSa {
        let (secret, context) = (self.secret(layer), self.context(layer));
        let sa = SealSa::new(provider, &secret, context, *lanes, MAX_COUNTER).expect("a key");
        let (lane, mut left) = match layer {
            Layer::Link => (self.lane, self.counter),
            Layer::Circuit => (self.circuit_lane, self.circuit_counter),
        };
        while left > 0 {
            let n = left.min(u32::MAX.into());
            sa.reserve(owner, lane, n as u32)
                .expect("counters are left");
            left -= n;
        }
        sa
    }

    fn open_sa(&self, provider: &dyn Provider, layer: Layer) -> OpenSa {
        OpenSa::new(provider, &self.secret(layer), self.context(layer), 2048).expect("a key")
    }

    fn link_header(&self) -> LinkHeader {
        LinkHeader {
            kind: TYPE_DATA,
            lane: self.lane,
            flags: 0,
            reserved: 0,
            receiver: self.receiver_index.into(),
            counter: self.counter.into(),
        }
    }

    fn circuit_header(&self) -> CircuitHeader {
        let payload = PayloadType::from_nibble(self.payload_type).expect("a payload type");
        CircuitHeader {
            label: self.label.into(),
            hop_limit: self.hop_limit,
            traffic_class: self.traffic_class,
            lane: self.circuit_lane,
            payload_epoch: payload.with_epoch(self.circuit_epoch),
            counter: self.circuit_counter.into(),
        }
    }

    fn outer(&self) -> OuterHeaders {
        let (source, destination) = (self.outer_src, self.outer_dst);
        OuterHeaders::new(SENDER, Some(RECEIVER), source, destination, DEFAULT_PORT)
            .expect("one family")
    }
}

#[test]
fn packets_made_of_their_parts_are_the_published_octets() {
    for v in vectors() {
        for provider in providers() {
            let (circuit, link) = (v.circuit_header(), v.link_header());
            assert_eq!(hex(circuit.as_bytes()), v.circuit_header, "{}", v.name);
            assert_eq!(hex(&circuit.aad(v.circuit_id)), v.circuit_aad, "{}", v.name);
            assert_eq!(hex(link.as_bytes()), v.link_header, "{}", v.name);
            assert_eq!(hex(&link.aad()), v.link_header, "{}", v.name);

            let lane = only_lane(v.circuit_lane);
            let sa = v.seal_sa(*provider, Layer::Circuit, &lane);
            assert_eq!(
                sa.reserve(&lane.1, v.circuit_lane, 1),
                Some(v.circuit_counter)
            );
            let nonce = sa.nonce(v.circuit_lane, v.circuit_counter);
            assert_eq!(hex(&nonce), v.circuit_nonce, "{}", v.name);
            let sealed = seal(
                &sa,
                (v.circuit_lane, v.circuit_counter),
                circuit.aad(v.circuit_id),
                &unhex(&v.inner),
            );
            assert_eq!(hex(&sealed), v.circuit_sealed, "{}", v.name);

            let lane = only_lane(v.lane);
            let sa = v.seal_sa(*provider, Layer::Link, &lane);
            assert_eq!(sa.reserve(&lane.1, v.lane, 1), Some(v.counter));
            let nonce = sa.nonce(v.lane, v.counter);
            assert_eq!(hex(&nonce), v.link_nonce, "{}", v.name);
            let sealed = seal(
                &sa,
                (v.lane, v.counter),
                link.aad(),
                &[circuit.as_bytes(), &sealed].concat(),
            );
            assert_eq!(
                hex(&[link.as_bytes(), &sealed].concat()),
                v.udp_payload,
                "{}",
                v.name
            );
        }
    }
}

#[test]
fn a_links_echo_made_of_its_parts_is_on_the_page() {
    let page = include_str!("../../../docs/protocol.md");
    let page: String = page.split_whitespace().collect();
    let mut v = vectors().remove(0);
    v.counter += 2;
    let header = CircuitHeader {
        label: LINK_LABEL.into(),
        hop_limit: 1,
        traffic_class: 0,
        lane: 0,
        payload_epoch: PayloadType::Oam.with_epoch(0),
        counter: 0.into(),
    };
    let reply = Echo {
        kind: ECHO_REPLY,
        stamp: 0x1122_3344_5566_7788.into(),
        ..Echo::request(0x0102_0304, 5)
    };
    for provider in providers() {
        let lane = only_lane(v.lane);
        let sa = v.seal_sa(*provider, Layer::Link, &lane);
        let link = v.link_header();
        let plain = [header.as_bytes(), reply.as_bytes()].concat();
        let sealed = seal(&sa, (v.lane, v.counter), link.aad(), &plain);
        let payload = hex(&[link.as_bytes(), &sealed].concat());
        assert!(page.contains(&payload), "{payload}");
    }
}

#[test]
fn the_published_octets_open_once() {
    for v in vectors() {
        for provider in providers() {
            let mut payload = unhex(&v.udp_payload);
            let (link, circuit) = (v.link_header(), v.circuit_header());
            let opened = open(
                &v.open_sa(*provider, Layer::Link),
                (v.lane, v.counter),
                link.aad(),
                &mut payload[HEADER..],
            );
            let (header, sealed) = opened.split_at_mut(HEADER);
            assert_eq!(hex(header), v.circuit_header, "{}", v.name);
            let inner = open(
                &v.open_sa(*provider, Layer::Circuit),
                (v.circuit_lane, v.circuit_counter),
                circuit.aad(v.circuit_id),
                sealed,
            );
            assert_eq!(hex(inner), v.inner, "{}", v.name);
        }
    }
}

/// One lane of 256, and the right to its counters.
fn only_lane(lane: u8) -> (Lanes, LaneOwner) {
    let (lanes, mut owners) = Lanes::split(MAX_LANES.into(), 1).expect("as many as there may be");
    (lanes, owners.remove(lane.into()))
}

fn seal(sa: &SealSa, place: (u8, u64), aad: [u8; 16], plain: &[u8]) -> Vec<u8> {
    let mut data = [plain, &[0; TAG_LEN]].concat();
    let mut batch = [sa.packet(place.0, place.1, aad, &mut data)];
    crypto::seal(&mut batch);
    assert!(batch[0].ok);
    data
}

/// Opens and commits as a receiver does; the second commit must fail.
fn open<'a>(
    sa: &OpenSa,
    (lane, counter): (u8, u64),
    aad: [u8; 16],
    sealed: &'a mut [u8],
) -> &'a mut [u8] {
    let mut batch = [sa.packet(lane, counter, aad, sealed)];
    crypto::open(&mut batch);
    assert!(batch[0].ok, "the tag verifies");
    assert_eq!(sa.commit(lane, counter), Replay::Fresh);
    assert_eq!(sa.commit(lane, counter), Replay::Replayed);
    let plain = sealed.len() - TAG_LEN;
    &mut sealed[..plain]
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digits).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
