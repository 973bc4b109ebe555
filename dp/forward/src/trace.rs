//! What the pipeline did with each packet of a batch, for whoever asks: a [`Probe`] that looks at the packets between the
//! stages, when the headers that come next are in clear. It takes no octet of a payload, and no key.

use arrayvec::ArrayVec;
use zerocopy::FromBytes;

use super::reason::DropReason;
use super::{Account, BATCH, Batch, Disposition, Packet, Probe, Stage, flow};
use twinseal_fib::trie::{NO_ROUTE, Number};
use twinseal_fib::{CircuitIndex, Fib, GroupIndex, LinkIndex, PortIndex, Target, VrfIndex};
use twinseal_wire::checksum::{self, State};
use twinseal_wire::ethernet;
use twinseal_wire::flow_key::FlowKey;
use twinseal_wire::overlay::{CircuitHeader, LinkHeader};

/// The way of one packet. Indices are of the tables that it was processed with.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    /// The generation of these tables.
    pub generation: u64,
    /// Where it came in.
    pub port: PortIndex,
    /// Octets of the frame that came in.
    pub received: usize,
    /// Octets of the frame that goes out; 0 if none does.
    pub sent: usize,
    /// The stages that it went through: bit n is [`STAGES`](super::STAGES)`[n]`. The last is the one that decided.
    pub stages: u8,
    /// What it came out of.
    pub from: Segment,
    /// What it went into.
    pub into: Segment,
    /// Where it was routed.
    pub vrf: Option<VrfIndex>,
    /// The inner packet, if this node saw it.
    pub packet: Option<FlowKey>,
    /// Its transport checksum as it came to be routed.
    pub checksum: Checksum,
    /// What became of it.
    pub disposition: Disposition,
    /// Why it was dropped, if what is sent is the ICMP error about it.
    pub answered: Option<DropReason>,
    /// The stage that it waits for.
    next: Stage,
    /// The transport checksum of the frame that came in.
    came: State,
}

/// A transport checksum of an inner packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// It is like this.
    Is(State),
    /// It was unfinished when it came, and is right now.
    Finished,
}

/// A link, and a circuit in it, as far as the packet's headers told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The link.
    pub link: Option<LinkIndex>,
    /// The receiver index, lane and epoch of its seal.
    pub link_seal: Option<(u32, u8, Option<u32>)>,
    /// The label on it.
    pub label: Option<u32>,
    /// The circuit that begins or ends here.
    pub circuit: Option<CircuitIndex>,
    /// The lane and epoch of its seal.
    pub circuit_seal: Option<(u8, Option<u32>)>,
}

/// Traces batches.
#[derive(Default)]
pub struct Tracer {
    traces: ArrayVec<Trace, BATCH>,
}

impl Tracer {
    /// Begins with a batch that was just received.
    pub fn begin(&mut self, batch: &Batch) {
        self.traces.clear();
        self.traces.extend(batch.iter().map(|packet| Trace {
            generation: 0,
            port: packet.port,
            received: packet.frame.len(),
            sent: 0,
            stages: 0,
            from: Segment::default(),
            into: Segment::default(),
            vrf: None,
            packet: None,
            checksum: Checksum::Is(State::None),
            disposition: Disposition::Pending,
            answered: None,
            next: Stage::Parse,
            came: of_frame(packet.frame.data()),
        }));
    }

    /// The traces of the batch that was begun with and has been processed, in its order.
    pub fn end(&mut self, batch: &Batch) -> impl Iterator<Item = &Trace> {
        for (trace, packet) in self.traces.iter_mut().zip(batch) {
            trace.disposition = packet.disposition;
            trace.answered = packet.meta.answered;
            if !matches!(packet.disposition, Disposition::Drop(_)) {
                trace.sent = packet.frame.len();
            }
        }
        self.traces.iter()
    }
}

impl Probe for Tracer {
    fn passed(&mut self, stage: usize, tables: &Fib, batch: &Batch) {
        for (trace, packet) in self.traces.iter_mut().zip(batch) {
            if trace.next as usize == stage {
                trace.generation = tables.generation;
                trace.stages |= 1 << stage;
                trace.look(tables, packet);
                trace.next = packet.stage;
            }
        }
    }
}

impl Trace {
    /// Looks at a packet that has passed the stage `next`.
    fn look(&mut self, tables: &Fib, packet: &Packet) {
        let (data, meta) = (packet.frame.data(), &packet.meta);
        match (self.next, packet.stage) {
            (Stage::Parse, Stage::LinkOpen) => {
                if let Ok((header, _)) = LinkHeader::ref_from_prefix(data) {
                    let number = header.receiver.get();
                    let leaf = tables.tries.lookup(&tables.receiver_root, Number(number));
                    let receiver = tables.receiver(leaf);
                    self.from.link = receiver.map(|receiver| receiver.link);
                    let epoch = receiver.map(|receiver| receiver.sa.epoch());
                    self.from.link_seal = Some((number, header.lane, epoch));
                }
            }
            (Stage::LinkOpen, Stage::Label) => {
                self.from.label = label(data);
            }
            (Stage::Label | Stage::CircuitOpen, Stage::LinkSeal) => {
                self.into.link = Some(meta.to.link);
                self.into.label = label(data);
            }
            (Stage::Label, Stage::CircuitOpen) => {
                self.from.circuit = Some(meta.from.circuit);
                if let Ok((header, _)) = CircuitHeader::ref_from_prefix(data) {
                    let receive = &tables.circuit(meta.from.circuit).receive;
                    let sa = receive[usize::from(header.epoch_low())].as_ref();
                    self.from.circuit_seal = Some((header.lane, sa.map(|sa| sa.epoch())));
                }
            }
            (Stage::Parse | Stage::CircuitOpen, Stage::Route) => {
                self.vrf = Some(meta.from.vrf);
                self.packet = FlowKey::of_packet(data);
                self.checksum = match (self.next, self.came, checksum::state(data)) {
                    (Stage::Parse, State::Unfinished, State::Right) => Checksum::Finished,
                    (_, _, state) => Checksum::Is(state),
                };
            }
            (Stage::Route, Stage::CircuitEnter) => self.into.circuit = meta.to.circuit,
            // What its way out could not take.
            (Stage::Route | Stage::Label, Stage::Done)
                if matches!(packet.disposition, Disposition::Drop(_)) =>
            {
                self.into.circuit = meta.to.circuit;
                let refused = matches!(meta.account, Account::ToCircuit | Account::ToLink);
                self.into.link = refused.then_some(meta.to.link);
            }
            (Stage::CircuitEnter, Stage::LinkSeal) => {
                self.into.link = Some(meta.to.link);
                if let Ok((header, _)) = CircuitHeader::ref_from_prefix(data) {
                    let circuit = meta.to.circuit.map(|circuit| tables.circuit(circuit));
                    let sa = circuit.and_then(|circuit| circuit.transmit.as_ref());
                    self.into.circuit_seal = Some((header.lane, sa.map(|sa| sa.epoch())));
                    self.into.label = Some(header.label.get());
                }
            }
            (Stage::LinkSeal, Stage::Done) => {
                let link = tables.link(meta.to.link);
                let sealed = data.get(link.outer.len()..).unwrap_or_default();
                if let (Disposition::Send(_), Some(transmit), Ok((header, _))) = (
                    packet.disposition,
                    &link.transmit,
                    LinkHeader::ref_from_prefix(sealed),
                ) {
                    let epoch = Some(transmit.sa.epoch());
                    self.into.link_seal = Some((header.receiver.get(), header.lane, epoch));
                }
            }
            _ => {}
        }
    }
}

/// What the transport checksum in an Ethernet frame is like.
fn of_frame(frame: &[u8]) -> State {
    let packet = frame.get(ethernet::LEN..);
    packet.map_or(State::None, checksum::state)
}

fn label(data: &[u8]) -> Option<u32> {
    let (header, _) = CircuitHeader::ref_from_prefix(data).ok()?;
    Some(header.label.get())
}

/// Where an inner packet would be routed: the group that its route leads to, if it does, and the next hop. Nothing is
/// counted or changed.
pub fn route(tables: &Fib, vrf: VrfIndex, packet: &[u8]) -> (Option<GroupIndex>, Option<Target>) {
    let (Some(vrf), Some(brief)) = (tables.vrfs.get(vrf.0), FlowKey::of_packet(packet)) else {
        return (None, None);
    };
    let leaf = match brief.destination {
        std::net::IpAddr::V4(to) => tables.tries.lookup(&vrf.routes_v4, to.octets()),
        std::net::IpAddr::V6(to) => tables.tries.lookup(&vrf.routes_v6, to.octets()),
    };
    match Target::of(leaf).filter(|_| leaf != NO_ROUTE) {
        Some(Target::Group(group)) => {
            let member = tables.groups[group.0].member(flow::of(packet));
            (Some(group), member)
        }
        target => (None, target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{EAST, EDGE, Node, Path, WEST, host_frame_v4, host_frame_v6};
    use crate::{Budgets, STAGES, process_probed};
    use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};
    use twinseal_fib::{NextHop, NextHopIndex};

    fn path() -> Path {
        Path::new(provider(DEFAULT_PROVIDER).unwrap(), Suite::Aes256Gcm).unwrap()
    }

    /// The trace of a frame, and the frame that comes out.
    fn trace(node: &mut Node, port: PortIndex, frame: &[u8]) -> (Trace, Vec<u8>) {
        let mut batch = node.batch(port, &[frame.to_vec()]);
        let mut tracer = Tracer::default();
        tracer.begin(&batch);
        process_probed(&mut node.state, &node.tables, &mut batch, &mut tracer);
        let trace = *tracer.end(&batch).next().unwrap();
        (trace, batch[0].frame.data().to_vec())
    }

    fn stages(trace: &Trace) -> Vec<&'static str> {
        let passed = (0..STAGES.len()).filter(|n| trace.stages & 1 << n != 0);
        passed.map(|n| STAGES[n]).collect()
    }

    #[test]
    fn every_hop_of_a_path_is_told() {
        let mut path = path();
        for frame in [host_frame_v4(100, 7), host_frame_v6(100, 7)] {
            let brief = FlowKey::of_frame(&frame);
            let (in_a, outer) = trace(&mut path.a, EDGE, &frame);
            assert_eq!(
                stages(&in_a),
                ["parse", "route", "circuit_enter", "link_seal"]
            );
            assert_eq!(in_a.from, Segment::default());
            assert_eq!((in_a.packet, in_a.vrf), (brief, Some(VrfIndex(0))));
            assert_eq!(in_a.disposition, Disposition::Send(WEST));
            assert_eq!((in_a.received, in_a.sent), (frame.len(), outer.len()));
            assert!(in_a.into.circuit.is_some() && in_a.into.circuit_seal.is_some());

            let (in_t, swapped) = trace(&mut path.transit, WEST, &outer);
            assert_eq!(stages(&in_t), ["parse", "link_open", "label", "link_seal"]);
            // What one node put on is what the next takes off.
            assert_eq!(in_t.from.link_seal, in_a.into.link_seal);
            assert_eq!(in_t.from.label, in_a.into.label);
            assert_ne!(in_t.into.label, in_t.from.label);
            assert_eq!((in_t.packet, in_t.from.circuit), (None, None));
            assert_eq!(in_t.disposition, Disposition::Send(EAST));

            let (in_b, last) = trace(&mut path.b, WEST, &swapped);
            assert_eq!(
                stages(&in_b),
                ["parse", "link_open", "label", "circuit_open", "route"]
            );
            assert_eq!(in_b.from.link_seal, in_t.into.link_seal);
            assert_eq!(in_b.from.label, in_t.into.label);
            assert_eq!(in_b.from.circuit_seal, in_a.into.circuit_seal);
            assert_eq!(in_b.disposition, Disposition::Send(EDGE));
            assert_eq!(last.len(), frame.len());
            let seen = in_b.packet.unwrap();
            assert_eq!(
                (seen.source, seen.ports, seen.ttl),
                (
                    brief.unwrap().source,
                    brief.unwrap().ports,
                    brief.unwrap().ttl - 1
                )
            );
        }
    }

    #[test]
    fn a_checksum_is_told_as_it_was_found() {
        let mut path = path();
        let mut unfinished = host_frame_v4(100, 7);
        let at = ethernet::LEN + 26;
        let mut pseudo = unfinished[ethernet::LEN + 12..ethernet::LEN + 20].to_vec();
        pseudo.extend([0, 17, 0, 80]);
        let sum = !twinseal_wire::ip::checksum(&pseudo);
        unfinished[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut wrong = unfinished.clone();
        wrong[at] ^= 1;
        let without = host_frame_v4(100, 7);
        let edge = usize::from(EDGE.0);
        for (frame, finishes, here, there) in [
            (&unfinished, true, Checksum::Finished, State::Right),
            (
                &unfinished,
                false,
                Checksum::Is(State::Unfinished),
                State::Unfinished,
            ),
            (&wrong, true, Checksum::Is(State::Wrong), State::Wrong),
            (&without, true, Checksum::Is(State::None), State::None),
        ] {
            path.a.tables.ports[edge].as_mut().unwrap().finishes = finishes;
            let (in_a, outer) = trace(&mut path.a, EDGE, frame);
            let (in_t, outer) = trace(&mut path.transit, WEST, &outer);
            let (in_b, _) = trace(&mut path.b, WEST, &outer);
            assert_eq!(in_a.checksum, here);
            assert_eq!(in_t.checksum, Checksum::Is(State::None));
            assert_eq!(in_b.checksum, Checksum::Is(there));
        }
    }

    #[test]
    fn a_drop_is_told_with_the_stage_that_decided() {
        let mut path = path();
        let (_, mut outer) = trace(&mut path.a, EDGE, &host_frame_v4(100, 7));
        *outer.last_mut().unwrap() ^= 1;
        let (forged, _) = trace(&mut path.transit, WEST, &outer);
        assert_eq!(stages(&forged), ["parse", "link_open"]);
        let reason = DropReason::LinkAuthentication;
        assert_eq!(forged.disposition, Disposition::Drop(reason));
        assert!(forged.from.link.is_some() && forged.sent == 0);
        let (short, _) = trace(&mut path.a, EDGE, &[0; 3]);
        assert_eq!(stages(&short), ["parse"]);
        let mut last_hop = host_frame_v4(100, 7);
        last_hop[ethernet::LEN + 8] = 1;
        last_hop[ethernet::LEN + 10..ethernet::LEN + 12].fill(0);
        let sum = twinseal_wire::ip::checksum(&last_hop[ethernet::LEN..][..20]);
        last_hop[ethernet::LEN + 10..ethernet::LEN + 12].copy_from_slice(&sum.to_be_bytes());
        path.a.state.errors = Budgets::of(1);
        // The way back to the host.
        let via = NextHop {
            port: EDGE,
            address: None,
            neighbour: None,
        };
        path.a.tables.vias.set(0, via);
        path.a.write(|draft| {
            draft.set_route(
                VrfIndex(0),
                [10, 1, 0, 0],
                16,
                Target::NextHop(NextHopIndex(0)),
            );
        });
        let (answered, _) = trace(&mut path.a, EDGE, &last_hop);
        assert_eq!(answered.answered, Some(DropReason::TtlExpired));
        assert_eq!(answered.packet, FlowKey::of_frame(&last_hop));
        let (unanswered, _) = trace(&mut path.a, EDGE, &last_hop);
        let reason = DropReason::TtlExpired;
        assert_eq!(
            (unanswered.disposition, unanswered.answered),
            (Disposition::Drop(reason), None)
        );
    }

    #[test]
    fn a_route_is_told_as_packets_take_it() {
        let mut path = path();
        let frame = host_frame_v4(100, 7);
        let (traced, _) = trace(&mut path.a, EDGE, &frame);
        let (group, target) = route(&path.a.tables, VrfIndex(0), &frame[ethernet::LEN..]);
        assert_eq!(group, None);
        assert_eq!(target, traced.into.circuit.map(Target::Circuit));
        let mut elsewhere = frame[ethernet::LEN..].to_vec();
        elsewhere[16..20].copy_from_slice(&[198, 51, 100, 1]);
        assert_eq!(route(&path.a.tables, VrfIndex(0), &elsewhere), (None, None));
        assert_eq!(route(&path.a.tables, VrfIndex(0), &[]), (None, None));
    }
}
