//! One who has the links' keys, as a transit node does, but not the circuit's.

use twinseal_forward::reason::DropReason;
use twinseal_lab::frame::UdpFrame;
use twinseal_testbed::plan::Underlay;
use twinseal_wire::overlay::{CircuitHeader, PayloadType};

use crate::attack::{Attack, Ears};
use crate::forger::{Forger, Hop, flips, frame, inner, lane_and_counter};
use crate::{COUNTER_LIMIT, assert_accepted, assert_undisturbed, genuine, split_by_age, start};

#[test]
fn one_who_has_link_keys_gets_nothing_past_the_circuit_seal() {
    let Some(mut path) = start(Underlay::V4) else {
        return;
    };
    let genuine = genuine(&mut path, Hop::East);
    let west = Forger::new(&mut path, Underlay::V4, Hop::West);
    let east = Forger::new(&mut path, Underlay::V4, Hop::East);
    let no_key = Forger::new(&mut path, Underlay::V4, Hop::East).with_wrong_circuit_key();
    let no_id = Forger::new(&mut path, Underlay::V4, Hop::East).with_wrong_circuit_id();

    let ears = Ears::new(&path.network);
    at_the_transit_node(&mut Attack::new(&mut path, Hop::West), &west);
    let mut attack = Attack::new(&mut path, Hop::East);
    // Sealed by the circuit long ago, and by the link just now.
    let opened: Vec<_> = genuine.iter().map(|frame| east.open(frame)).collect();
    let counters = opened.iter().map(|plain| {
        let (_, counter) = lane_and_counter(plain);
        (plain[6], counter)
    });
    let resealed = opened.iter().map(|plain| east.frame(plain));
    let (old, recent) = split_by_age(counters.zip(resealed));
    attack.dropped(DropReason::CircuitTooOld, &old);
    attack.dropped(DropReason::CircuitReplayed, &recent);
    for liar in [&no_key, &no_id] {
        // In the link's true seal.
        let sealed = (0..50).map(|_| liar.circuit(liar.circuit_header(), &inner()));
        let frames: Vec<_> = sealed.map(|plain| east.frame(&plain)).collect();
        attack.dropped(DropReason::CircuitAuthentication, &frames);
    }
    circuit_headers(&mut attack, &east);
    // One bit changed makes this counter none of those that were accepted above.
    let far_ahead = CircuitHeader {
        counter: 0x01_8000_0000.into(),
        ..east.circuit_header()
    };
    let good = east.circuit(far_ahead, &inner());
    changed_circuit_bits(&mut attack, &east, &good);
    ears.assert_silence();

    assert_accepted(&mut path, Hop::East, &east.frame(&good));
    assert_undisturbed(path);
}

/// Labels, hop limits and congestion marks are the link's affair.
fn at_the_transit_node(attack: &mut Attack<'_>, west: &Forger) {
    let known = west.circuit_header().label.get();
    let labels = [0, 1, known + 1, known << 16, u32::MAX].map(|label| CircuitHeader {
        label: label.into(),
        ..west.circuit_header()
    });
    let packet = |header| west.packet(header, &inner());
    attack.dropped(DropReason::UnknownLabel, &labels.map(packet));
    let spent = [0, 1].map(|hop_limit| CircuitHeader {
        hop_limit,
        ..west.circuit_header()
    });
    attack.dropped(DropReason::HopLimit, &spent.map(packet));
    // A router on the underlay says that it was congested, on packets whose senders could not understand it.
    let marked = [0x03, 0xbb].map(|traffic_class| {
        let header = CircuitHeader {
            traffic_class: traffic_class & 0xfc,
            ..west.circuit_header()
        };
        let plain = west.circuit(header, &inner());
        let outer = UdpFrame {
            traffic_class,
            ..west.outer()
        };
        frame(&outer, &west.link(west.link_header(), &plain))
    });
    attack.dropped(DropReason::EcnViolation, &marked);
}

/// What a circuit header must not say at the circuit's end.
fn circuit_headers(attack: &mut Attack<'_>, east: &Forger) {
    let packet = |header| east.packet(header, &inner());
    let with = |payload_epoch| CircuitHeader {
        payload_epoch,
        ..east.circuit_header()
    };
    let labels = [0, east.circuit_header().label.get() ^ 1].map(|label| CircuitHeader {
        label: label.into(),
        ..east.circuit_header()
    });
    attack.dropped(DropReason::UnknownLabel, &labels.map(packet));
    let right = east.circuit_header().payload_epoch;
    let kinds = (0..16).filter(|kind| !matches!(kind, 1 | 2 | 4));
    let kinds: Vec<_> = kinds
        .map(|kind| packet(with(kind << 4 | right & 15)))
        .collect();
    attack.dropped(DropReason::UnsupportedPayload, &kinds);
    let epochs = (0..16).filter(|epoch| *epoch != right & 15);
    let epochs: Vec<_> = epochs
        .map(|epoch| packet(with(right & 0xf0 | epoch)))
        .collect();
    attack.dropped(DropReason::UnknownEpoch, &epochs);
    let beyond = [COUNTER_LIMIT, u64::MAX].map(|counter| CircuitHeader {
        counter: counter.into(),
        ..east.circuit_header()
    });
    attack.dropped(DropReason::CircuitTooOld, &beyond.map(packet));

    // What only the circuit's other end could send: both seals are good, and still there is no packet in them.
    let oam = with(PayloadType::Oam.with_epoch(right.into()));
    attack.dropped(DropReason::OamUnknown, &[packet(oam)]);
    let six = with(PayloadType::Ipv6.with_epoch(right.into()));
    let nothing = east.packet(east.circuit_header(), &[]);
    attack.dropped(DropReason::BadIpHeader, &[packet(six), nothing]);
    let marked = CircuitHeader {
        traffic_class: 3,
        ..east.circuit_header()
    };
    attack.dropped(DropReason::EcnViolation, &[packet(marked)]);
}

/// Every bit inside the link seal, each alone, but for those that a hop may change.
fn changed_circuit_bits(attack: &mut Attack<'_>, east: &Forger, good: &[u8]) {
    let changed = flips(good).filter_map(|(at, plain)| {
        let reason = match at {
            0..4 => DropReason::UnknownLabel,
            4 => return None,
            5 if (plain[5] ^ good[5]) & 3 != 0 => return None,
            7 if (plain[7] ^ good[7]) & 0xf0 != 0 => DropReason::UnsupportedPayload,
            7 => DropReason::UnknownEpoch,
            _ => DropReason::CircuitAuthentication,
        };
        Some((reason, east.frame(&plain)))
    });
    attack.each_dropped(changed);
}
