//! Whole nodes send and open the published frames.

use std::sync::Arc;

use twinseal_crypto::{
    Context, Direction, Lanes, Layer, MAX_COUNTER, Provider, SealSa, Secret, Suite, providers,
};
use twinseal_fib::{
    CircuitIndex, InboundSa, LabelAction, Link, LinkIndex, OutboundSa, PortIndex, Swap,
};
use twinseal_forward::fixture::{
    EAST, EDGE, EPOCH, LABEL_AT_TRANSIT, Node, Path, RECEIVER_AT_TRANSIT, Seal, WEST, host_mac, mac,
};
use twinseal_forward::punt::{Towards, inject};
use twinseal_forward::reason::DropReason;
use twinseal_forward::{Batch, Disposition, State};
use twinseal_wire::ip::checksum;

use crate::{RECEIVER, Vector, hex, only_lane, unhex, vectors};

/// The payload type of maintenance.
const OAM: u8 = 4;
/// Ethernet and IPv4 headers, and UDP's.
const OUTER_V4: usize = 14 + 20 + 8;

/// Every vector with every provider.
fn all() -> impl Iterator<Item = (&'static &'static dyn Provider, Vector)> {
    providers()
        .iter()
        .flat_map(|provider| vectors().into_iter().map(move |v| (provider, v)))
}

/// The lanes of both seals are the worker's, so a packet whose lanes differ was sealed by an edge and then by a transit
/// node: here too.
#[test]
fn nodes_send_the_published_frames() {
    for (&provider, v) in all() {
        let mut path = Path::new(provider, v.context(Layer::Link).suite).expect("a path");
        let by_transit = v.lane != v.circuit_lane;
        let edge = only_lane(v.circuit_lane);
        let transit = only_lane(v.lane);
        let sealer = if by_transit { &transit } else { &edge };
        let transmit = OutboundSa {
            sa: Arc::new(v.seal_sa(provider, Layer::Link, sealer)),
            receiver: v.receiver_index,
        };
        let far = Link {
            outer: v.outer(),
            transmit: Some(transmit),
            source_port_salt: v.source_port_salt,
            ..plain_link(&path.a)
        };
        path.a.tables.links[0] = Link {
            transmit: Some(first_link(provider, v.context(Layer::Link).suite, edge.0)),
            ..plain_link(&path.a)
        };
        let circuit = &mut path.a.tables.circuits[0];
        circuit.id = v.circuit_id;
        circuit.transmit = Some(Arc::new(v.seal_sa(provider, Layer::Circuit, &edge)));
        path.a.state = State::new(0, edge.1);
        let sent = if v.payload_type == OAM {
            circuit.hop_limit = v.hop_limit;
            circuit.label = v.label;
            path.a.tables.links[0] = far;
            injected(&mut path.a, &unhex(&v.inner))
        } else if by_transit {
            circuit.hop_limit = v.hop_limit + 1;
            let frame = sent(&mut path.a, EDGE, host_frame(&v));
            let link = LinkIndex(1);
            path.transit.state = State::new(0, transit.1);
            path.transit.tables.links[1] = Link { port: EAST, ..far };
            let swap = LabelAction::Swap(Swap {
                link,
                label: v.label,
            });
            path.transit
                .write(|draft| draft.set_label(LinkIndex(0), LABEL_AT_TRANSIT, swap));
            sent(&mut path.transit, WEST, congested(frame, v.traffic_class))
        } else {
            circuit.hop_limit = v.hop_limit;
            circuit.label = v.label;
            path.a.tables.links[0] = far;
            sent(&mut path.a, EDGE, host_frame(&v))
        };
        assert_eq!(hex(&sent), v.frame, "{}", v.name);
    }
}

#[test]
fn nodes_open_the_published_frames() {
    for (&provider, v) in all() {
        let mut b = Path::new(provider, Suite::Aes256Gcm).expect("a path").b;
        if let Some(port) = &mut b.tables.ports[usize::from(WEST.0)] {
            port.mac = RECEIVER;
        }
        let receiver = InboundSa {
            link: LinkIndex(0),
            sa: Arc::new(v.open_sa(provider, Layer::Link)),
        };
        let egress = LabelAction::Egress(CircuitIndex(0));
        b.write(|draft| {
            draft.set_receiver(v.receiver_index, receiver);
            draft.set_label(LinkIndex(0), v.label, egress);
        });
        let circuit = &mut b.tables.circuits[0];
        circuit.id = v.circuit_id;
        let epoch = v.circuit_epoch as usize & 15;
        circuit.receive[epoch] = Some(Arc::new(v.open_sa(provider, Layer::Circuit)));

        if v.payload_type == OAM {
            // It is a request, and would be answered if there were a key for that.
            let (disposition, _) = b.run(WEST, &[unhex(&v.frame)]).remove(0);
            assert_eq!(disposition, Disposition::Drop(DropReason::NoTransmitKey));
            continue;
        }
        let frame = sent(&mut b, WEST, unhex(&v.frame));
        assert_eq!(frame[..6], host_mac(3).0);
        let marks = v.traffic_class & 3;
        assert_eq!(
            hex(&frame[14..]),
            hex(&hop(unhex(&v.inner), -1, marks)),
            "{}",
            v.name
        );
    }
}

/// The link of the fixture's node, for the parts that a vector does not say.
fn plain_link(node: &Node) -> Link {
    let link = &node.tables.links[0];
    Link {
        port: link.port,
        outer: link.outer,
        mtu: link.mtu,
        transmit: None,
        source_port_salt: 0,
        labels: link.labels,
        traffic: link.traffic.clone(),
    }
}

/// The fixture's first link has four lanes; here it needs all.
fn first_link(provider: &dyn Provider, suite: Suite, lanes: Lanes) -> OutboundSa {
    let context = Context {
        layer: Layer::Link,
        direction: Direction::AToB,
        suite,
        epoch: EPOCH,
    };
    let secret = Secret::from_bytes(&mut Seal::FirstLink.secret()).expect("a secret");
    let sa = SealSa::new(provider, &secret, context, lanes, MAX_COUNTER).expect("a key");
    OutboundSa {
        sa: Arc::new(sa),
        receiver: RECEIVER_AT_TRANSIT,
    }
}

/// What the host behind edge A sends so that the vector's inner packet is what the edge seals.
fn host_frame(v: &Vector) -> Vec<u8> {
    let inner = unhex(&v.inner);
    let ethertype: [u8; 2] = if v.payload_type == 1 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    };
    let marks = match inner[0] >> 4 {
        4 => inner[1] & 3,
        _ => inner[1] >> 4 & 3,
    };
    [
        &mac(1, EDGE).0[..],
        &host_mac(1).0,
        &ethertype,
        &hop(inner, 1, marks),
    ]
    .concat()
}

/// An inner packet with its TTL or hop limit changed, and ECN bits.
fn hop(mut packet: Vec<u8>, by: i8, marks: u8) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[1] = packet[1] & 0xfc | marks;
        packet[8] = packet[8].wrapping_add_signed(by);
        packet[10..12].fill(0);
        let sum = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    } else {
        packet[1] = packet[1] & 0xcf | marks << 4;
        packet[7] = packet[7].wrapping_add_signed(by);
    }
    packet
}

/// A frame between nodes over IPv4, with another outer traffic class.
fn congested(mut frame: Vec<u8>, traffic_class: u8) -> Vec<u8> {
    frame[15] = traffic_class;
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..OUTER_V4 - 8]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// What a node sends for a message of its own into its circuit.
fn injected(node: &mut Node, message: &[u8]) -> Vec<u8> {
    let mut frame = node.memory.alloc().expect("a frame");
    assert!(frame.copy_from(message));
    let mut batch = Batch::new();
    let towards = Towards::Circuit(CircuitIndex(0));
    inject(
        &mut node.state,
        &node.tables,
        [(frame, towards)],
        &mut batch,
    );
    let packet = batch.pop().expect("it was put in");
    let sent = packet.frame.data().to_vec();
    node.memory.free(packet.frame);
    sent
}

fn sent(node: &mut Node, port: PortIndex, frame: Vec<u8>) -> Vec<u8> {
    let (disposition, frame) = node.run(port, &[frame]).remove(0);
    assert!(
        matches!(disposition, Disposition::Send(_)),
        "{disposition:?}"
    );
    frame
}
