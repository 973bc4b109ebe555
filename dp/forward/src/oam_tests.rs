use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::fixture::{EAST, EDGE, EPOCH, Node, Path, Seal, WEST, host_frame_v4};
use crate::punt::{CameBy, Punts, Towards, inject};
use crate::trace::Tracer;
use crate::{Batch, process, process_probed};
use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};
use twinseal_fib::traffic::ANSWERS;
use twinseal_fib::{InboundSa, LabelAction, OutboundSa, PortIndex, Swap};
use twinseal_wire::oam::ECHO_LEN;

/// Of the links back, and the circuit's label on them.
const BACK_AT_A: u32 = 0x33;
const BACK_AT_TRANSIT: u32 = 0x44;
const LABEL_BACK: u32 = 77;

/// A path whose links and circuit go both ways.
fn path() -> Path {
    let (provider, suite) = (provider(DEFAULT_PROVIDER).unwrap(), Suite::Aes256Gcm);
    let mut path = Path::new(provider, suite).unwrap();
    // Secrets of the way there serve another layer or link on the way back.
    let seal = |of: Seal, node: &Node| Arc::new(of.seal_sa(provider, suite, node.lanes).unwrap());
    let open = |of: Seal| Arc::new(of.open_sa(provider, suite).unwrap());
    let back = |of: Seal, node: &Node, receiver| {
        Some(OutboundSa {
            sa: seal(of, node),
            receiver,
        })
    };
    let receiver = |link, of| InboundSa {
        link: LinkIndex(link),
        sa: open(of),
    };
    let Path { a, transit, b } = &mut path;
    let circuit = Seal::FirstLink;
    b.tables.links[0].transmit = back(Seal::Circuit, b, BACK_AT_TRANSIT);
    b.tables.circuits[0].transmit = Some(seal(circuit, b));
    b.tables.circuits[0].label = LABEL_BACK;
    transit.tables.links[0].transmit = back(Seal::SecondLink, transit, BACK_AT_A);
    transit.write(|draft| {
        draft.set_receiver(BACK_AT_TRANSIT, receiver(1, Seal::Circuit));
        let swap = Swap {
            link: LinkIndex(0),
            label: LABEL_BACK,
        };
        draft.set_label(LinkIndex(1), LABEL_BACK, LabelAction::Swap(swap));
    });
    a.write(|draft| {
        draft.set_receiver(BACK_AT_A, receiver(0, Seal::SecondLink));
        let egress = LabelAction::Egress(CircuitIndex(0));
        draft.set_label(LinkIndex(0), LABEL_BACK, egress);
    });
    a.tables.circuits[0].receive[EPOCH as usize] = Some(open(circuit));
    for node in [a, transit, b] {
        node.state.punts.add(Punts::MOST);
    }
    path
}

/// What a node has counted of echoes.
fn counted(state: &State) -> [u64; 3] {
    Counted::ALL.map(|what| state.echoes.get(what))
}

fn echo(sequence: u64) -> Vec<u8> {
    let mut echo = Echo::request(7, sequence).as_bytes().to_vec();
    echo.extend_from_slice(b"padding");
    echo
}

/// What a node makes of messages of its own.
fn injected(
    node: &mut Node,
    towards: Towards,
    messages: &[Vec<u8>],
) -> Vec<(Disposition, Vec<u8>)> {
    let frames: Vec<_> = messages
        .iter()
        .map(|message| {
            let mut frame = node.memory.alloc().unwrap();
            assert!(frame.copy_from(message));
            (frame, towards)
        })
        .collect();
    let mut batch = Batch::new();
    inject(&mut node.state, &node.tables, frames, &mut batch);
    let taken = batch.drain(..).map(|packet| {
        let result = (packet.disposition, packet.frame.data().to_vec());
        node.memory.free(packet.frame);
        result
    });
    taken.collect()
}

/// The frame that a node sends to the other end of a link or circuit, for a message.
fn asked(node: &mut Node, towards: Towards, message: &[u8]) -> Vec<u8> {
    let (disposition, frame) = injected(node, towards, &[message.to_vec()]).remove(0);
    assert_eq!(disposition, Disposition::Send(WEST));
    frame
}

/// What becomes of a frame, and what it came out of.
fn step(node: &mut Node, port: PortIndex, frame: &[u8]) -> (Disposition, Vec<u8>, CameBy) {
    let mut batch = node.batch(port, &[frame.to_vec()]);
    process(&mut node.state, &node.tables, &mut batch);
    let packet = batch.pop().unwrap();
    let result = (
        packet.disposition,
        packet.frame.data().to_vec(),
        packet.came_by(),
    );
    node.memory.free(packet.frame);
    result
}

fn sent(node: &mut Node, port: PortIndex, frame: &[u8], out: PortIndex) -> Vec<u8> {
    let (disposition, frame, _) = step(node, port, frame);
    assert_eq!(disposition, Disposition::Send(out));
    frame
}

/// A reply as the node that asked gets it.
fn replied(node: &mut Node, frame: &[u8], want: &[u8], circuit: Option<CircuitIndex>) {
    let (disposition, message, came) = step(node, WEST, frame);
    assert_eq!(disposition, Disposition::Punt(PuntKind::EchoReply));
    assert_eq!(message[0], ECHO_REPLY);
    assert_eq!(message[1..], want[1..], "all else as it was asked");
    let by = CameBy {
        port: WEST,
        link: LinkIndex(0),
        circuit,
    };
    assert_eq!(came, by);
}

const LINK: Towards = Towards::Link(LinkIndex(0));
const CIRCUIT: Towards = Towards::Circuit(CircuitIndex(0));

#[test]
fn a_link_answers_at_its_other_end() {
    let mut path = path();
    for message in [echo(1), Echo::request(7, 2).as_bytes().to_vec()] {
        let request = asked(&mut path.a, LINK, &message);
        let reply = sent(&mut path.transit, WEST, &request, WEST);
        assert_eq!(reply.len(), request.len(), "never longer than what asked");
        replied(&mut path.a, &reply, &message, None);
        // It was sealed and is in the replay window as any packet of the link.
        let replayed = Disposition::Drop(DropReason::LinkReplayed);
        assert_eq!(step(&mut path.transit, WEST, &request).0, replayed);
        assert_eq!(step(&mut path.a, WEST, &reply).0, replayed);
    }
}

#[test]
fn a_circuit_answers_at_its_other_end_and_counts_nothing() {
    let mut path = path();
    let message = echo(1);
    let request = asked(&mut path.a, CIRCUIT, &message);
    let request = sent(&mut path.transit, WEST, &request, EAST);
    let reply = sent(&mut path.b, WEST, &request, WEST);
    assert_eq!(reply.len(), request.len());
    let reply = sent(&mut path.transit, EAST, &reply, WEST);
    replied(&mut path.a, &reply, &message, Some(CircuitIndex(0)));
    assert_eq!(counted(&path.a.state), [1, 0, 1], "asked, and heard");
    assert_eq!(counted(&path.transit.state), [0, 0, 0], "passed on");
    assert_eq!(counted(&path.b.state), [0, 1, 0], "answered");
    for node in [&path.a, &path.b] {
        let carried = node.tables.circuits[0].traffic.totals();
        assert_eq!(carried, Default::default(), "no packet of a host's");
        let link = node.tables.links[0].traffic.totals();
        assert_eq!((link.sent_packets, link.received_packets), (1, 1));
    }
}

#[test]
fn echoes_and_data_share_batches_and_take_every_lane() {
    let mut path = path();
    let messages: Vec<_> = (0..8).map(echo).collect();
    let mut frames: Vec<_> = injected(&mut path.a, CIRCUIT, &messages)
        .into_iter()
        .map(|(_, frame)| frame)
        .collect();
    let lanes: std::collections::BTreeSet<_> = frames.iter().map(|frame| frame[43]).collect();
    assert!(lanes.len() > 1, "{lanes:?}");
    frames.insert(3, path.a.run(EDGE, &[host_frame_v4(64, 7)]).remove(0).1);
    let on: Vec<_> = path.transit.run(WEST, &frames);
    let frames: Vec<_> = on.into_iter().map(|(_, frame)| frame).collect();
    let out = path.b.run(WEST, &frames);
    let to = |nth| if nth == 3 { EDGE } else { WEST };
    for (nth, (disposition, _)) in out.iter().enumerate() {
        assert_eq!(*disposition, Disposition::Send(to(nth)), "packet {nth}");
    }
    let traffic = path.b.tables.circuits[0].traffic.totals();
    assert_eq!(traffic.received_packets, 1, "only the host's");
}

#[test]
fn answers_and_punts_have_budgets() {
    let mut path = path();
    let of = |node: &Node, reason| node.state.drops.get(reason);
    let (mut replies, mut refused) = (Vec::new(), 0);
    for now in [1, 2] {
        path.transit.state.now = now;
        for n in 0..u64::from(ANSWERS) + 5 {
            let request = asked(&mut path.a, LINK, &echo(n));
            match step(&mut path.transit, WEST, &request) {
                (Disposition::Send(WEST), reply, _) => replies.push(reply),
                (other, ..) => {
                    assert_eq!(other, Disposition::Drop(DropReason::OamBudget));
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((replies.len(), refused), (2 * usize::from(ANSWERS), 10));
    assert_eq!(of(&path.transit, DropReason::OamBudget), 10);
    let link = &path.transit.tables.links[0].traffic;
    assert_eq!(link.drops(DropReason::OamBudget as usize), 10);

    path.a.state.punts = Punts::default();
    path.a.state.punts.add(3);
    for (nth, reply) in replies.iter().enumerate() {
        let want = match nth {
            0..3 => Disposition::Punt(PuntKind::EchoReply),
            _ => Disposition::Drop(DropReason::PuntBudget),
        };
        assert_eq!(step(&mut path.a, WEST, reply).0, want);
    }
}

#[test]
fn what_is_no_message_that_we_speak_is_dropped_and_not_answered() {
    let mut path = path();
    let unknown = Disposition::Drop(DropReason::OamUnknown);
    let mut lies = vec![vec![0xff; ECHO_LEN], echo(1)[..ECHO_LEN - 1].to_vec()];
    for (at, value) in [(0, 0x21), (0, 0x13), (0, 0x45), (0, 0x60), (1, 1), (3, 9)] {
        let mut message = echo(1);
        message[at] = value;
        lies.push(message);
    }
    for message in lies {
        let request = asked(&mut path.a, LINK, &message);
        assert_eq!(step(&mut path.transit, WEST, &request).0, unknown);
        let request = asked(&mut path.a, CIRCUIT, &message);
        let request = sent(&mut path.transit, WEST, &request, EAST);
        assert_eq!(step(&mut path.b, WEST, &request).0, unknown, "{message:?}");
    }
    assert_eq!(counted(&path.transit.state), [0, 0, 0]);
    assert_eq!(counted(&path.b.state), [0, 0, 0]);
    // The shortest that the underlay lets in, and the empty one.
    let request = asked(&mut path.a, LINK, &[0x11; 16]);
    assert_eq!(step(&mut path.transit, WEST, &request).0, unknown);
    let request = asked(&mut path.a, CIRCUIT, &[]);
    let request = sent(&mut path.transit, WEST, &request, EAST);
    assert_eq!(step(&mut path.b, WEST, &request).0, unknown);
    // A circuit's packet under the link's own label is nobody's.
    path.a.tables.circuits[0].label = LINK_LABEL;
    let request = asked(&mut path.a, CIRCUIT, &echo(1));
    let nobodys = Disposition::Drop(DropReason::UnknownLabel);
    assert_eq!(step(&mut path.transit, WEST, &request).0, nobodys);
}

#[test]
fn what_can_not_be_sent_is_dropped_with_its_reason() {
    let mut path = path();
    let node = &mut path.a;
    let refused = |node: &mut Node, towards, reason| {
        let before = node.state.drops.get(reason);
        let result = injected(node, towards, &[echo(1)]).remove(0).0;
        assert_eq!(result, Disposition::Drop(reason));
        assert_eq!(node.state.drops.get(reason), before + 1);
    };
    let nowhere = [
        Towards::Link(LinkIndex(9999)),
        Towards::Circuit(CircuitIndex(9999)),
        Towards::Port(PortIndex(63)),
    ];
    for towards in nowhere {
        refused(node, towards, DropReason::PortGone);
    }
    node.tables.links[0].outer.resolved = false;
    for towards in [LINK, CIRCUIT] {
        refused(node, towards, DropReason::LinkUnresolved);
    }
    node.tables.links[0].outer.resolved = true;
    node.tables.links[0].mtu = 80;
    for towards in [LINK, CIRCUIT] {
        refused(node, towards, DropReason::PacketTooBig);
    }
    node.tables.links[0].mtu = 1500;
    node.tables.circuits[0].transmit = None;
    refused(node, CIRCUIT, DropReason::NoTransmitKey);
    node.tables.links[0].transmit = None;
    refused(node, LINK, DropReason::NoTransmitKey);
    let frame = host_frame_v4(64, 7);
    let by_port = injected(node, Towards::Port(EDGE), std::slice::from_ref(&frame));
    assert_eq!(by_port, [(Disposition::Send(EDGE), frame)], "as it is");
}

#[test]
fn a_trace_shows_requests_and_replies() {
    let mut path = path();
    let request = asked(&mut path.a, LINK, &echo(1));
    let mut batch = path.transit.batch(WEST, &[request]);
    let mut tracer = Tracer::default();
    tracer.begin(&batch);
    let Node { state, tables, .. } = &mut path.transit;
    process_probed(state, tables, &mut batch, &mut tracer);
    let trace = *tracer.end(&batch).next().unwrap();
    assert_eq!(trace.from.label, Some(LINK_LABEL));
    assert_eq!(trace.into.link, Some(LinkIndex(0)));
    assert_eq!(trace.disposition, Disposition::Send(WEST));
    path.transit.memory.free(batch.pop().unwrap().frame);
}

proptest! {
    /// Whatever an authentic message says, it is answered by as many bytes by the way that it came, or it is dropped.
    #[test]
    fn any_message_is_answered_as_long_as_it_was_or_dropped(
        mut message in proptest::collection::vec(any::<u8>(), 0..200),
        likely in proptest::collection::vec(any::<bool>(), 4),
        kind in 0x10u8..0x14,
    ) {
        let first = [kind, 0, 0, 0].into_iter().zip(&likely);
        for (at, (value, _)) in first.enumerate().filter(|(_, (_, likely))| **likely) {
            message.get_mut(at).into_iter().for_each(|byte| *byte = value);
        }
        let mut path = path();
        for towards in [LINK, CIRCUIT] {
            let frame = injected(&mut path.a, towards, &[message.clone()]).remove(0).1;
            let (node, from, frame) = match towards {
                LINK => (&mut path.transit, WEST, frame),
                _ => {
                    let frame = sent(&mut path.transit, WEST, &frame, EAST);
                    (&mut path.b, WEST, frame)
                }
            };
            let (disposition, out, _) = step(node, from, &frame);
            let spoken = Echo::of(&message);
            match disposition {
                Disposition::Send(port) => {
                    prop_assert_eq!((port, out.len()), (from, frame.len()));
                    prop_assert_eq!(spoken.map(|echo| echo.kind), Some(ECHO_REQUEST));
                }
                Disposition::Punt(_) => {
                    prop_assert_eq!(spoken.map(|echo| echo.kind), Some(ECHO_REPLY));
                    prop_assert_eq!(out, message.clone());
                }
                Disposition::Drop(reason) => {
                    // What is shorter than any message does not even get over the underlay.
                    let short = reason == DropReason::Truncated && message.len() < 16;
                    prop_assert!(spoken.is_none() && (short || reason == DropReason::OamUnknown));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
