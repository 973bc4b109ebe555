//! One who sees the underlay, but has no key of it.

use twinseal_api::v1;
use twinseal_forward::reason::DropReason;
use twinseal_lab::frame::UdpFrame;
use twinseal_testbed::plan::{EAST, Underlay};
use twinseal_wire::overlay::LinkHeader;

use crate::attack::{Attack, Ears};
use crate::common::Path;
use crate::forger::{Forger, Hop, flips, frame, inner, lane_and_counter};
use crate::{COUNTER_LIMIT, assert_accepted, assert_undisturbed, genuine, split_by_age, start};

#[test]
fn the_underlay_gets_nothing_past_the_link_seal_over_ipv4() {
    without_keys(Underlay::V4);
}

#[test]
fn the_underlay_gets_nothing_past_the_link_seal_over_ipv6() {
    without_keys(Underlay::V6);
}

fn without_keys(underlay: Underlay) {
    let Some(mut path) = start(underlay) else {
        return;
    };
    let genuine = genuine(&mut path, Hop::West);
    let forger = Forger::new(&mut path, underlay, Hop::West);
    let stranger = Forger::new(&mut path, underlay, Hop::West).with_wrong_link_key();
    let other_receiver = other_receiver(&path);
    let good = forger.packet(forger.circuit_header(), &inner());

    let ears = Ears::new(&path.network);
    let mut attack = Attack::new(&mut path, Hop::West);
    let payload = forger.outer().payload_offset();
    let counters = genuine
        .iter()
        .map(|frame| lane_and_counter(&frame[payload..]));
    let (old, recent) = split_by_age(counters.zip(genuine.iter().cloned()));
    attack.dropped(DropReason::LinkTooOld, &old);
    attack.dropped(DropReason::LinkReplayed, &recent);
    wrong_keys(&mut attack, &stranger, other_receiver);
    broken_headers(&mut attack, &forger, &good);
    truncations(&mut attack, &forger.outer(), &good);
    changed_bits(&mut attack, &forger.outer(), &good);
    ears.assert_silence();

    // What all this was made from was good all along, and so is what is sent by rights. Octets behind it do not matter.
    assert_accepted(&mut path, Hop::West, &[&good[..], &[0xff; 6]].concat());
    assert_undisturbed(path);
}

/// One who sees the underlay and has keys of its own, but none of ours.
fn wrong_keys(attack: &mut Attack<'_>, stranger: &Forger, other_receiver: u32) {
    let packet = |header: LinkHeader| {
        let plain = stranger.circuit(stranger.circuit_header(), &inner());
        frame(&stranger.outer(), &stranger.link(header, &plain))
    };
    let first: Vec<_> = (0..50).map(|_| packet(stranger.link_header())).collect();
    attack.dropped(DropReason::LinkAuthentication, &first);
    // Would these move the windows, no genuine packet of any lane would be fresh any more.
    let on_lanes = (0..=u8::MAX).map(|lane| LinkHeader {
        lane,
        counter: (COUNTER_LIMIT - 1).into(),
        ..stranger.link_header()
    });
    let on_lanes: Vec<_> = on_lanes.map(packet).collect();
    attack.dropped(DropReason::LinkAuthentication, &on_lanes);
    let beyond = [COUNTER_LIMIT, COUNTER_LIMIT << 1, u64::MAX].map(|counter| LinkHeader {
        counter: counter.into(),
        ..stranger.link_header()
    });
    attack.dropped(DropReason::LinkAuthentication, &beyond.map(packet));
    let with_receiver = |receiver: u32| LinkHeader {
        receiver: receiver.into(),
        ..stranger.link_header()
    };
    // The key of the router's other link has a receiver index here as well.
    let other_link = [other_receiver].map(with_receiver).map(packet);
    attack.dropped(DropReason::LinkAuthentication, &other_link);
    let live = stranger.receiver();
    let nobodys = [0, 1, live + 0x80, live << 8, u32::MAX].map(with_receiver);
    attack.dropped(DropReason::UnknownReceiver, &nobodys.map(packet));
}

fn broken_headers(attack: &mut Attack<'_>, forger: &Forger, good: &[u8]) {
    let payload = forger.outer().payload_offset();
    let with = |at: usize, octet: u8| {
        let mut frame = good.to_vec();
        frame[at] = octet;
        frame
    };
    let kinds = (0..=u8::MAX).filter(|kind| *kind != 0x11);
    let kinds = kinds.map(|kind| with(payload, kind));
    let flags = [1, 0x80, 0xff].map(|flags| with(payload + 2, flags));
    let reserved = [1, 0x80, 0xff].map(|reserved| with(payload + 3, reserved));
    let all: Vec<_> = kinds.chain(flags).chain(reserved).collect();
    attack.dropped(DropReason::BadLinkHeader, &all);

    let elsewhere = UdpFrame {
        dst_mac: [2, 0, 0, 0, 0, 0xee],
        ..forger.outer()
    };
    attack.dropped(DropReason::NotForUs, &[frame(&elsewhere, &good[payload..])]);
    if forger.outer().src.is_ipv4() {
        let (ttl, sum) = (22, 25);
        let bad = [with(ttl, good[ttl] - 1), with(sum, good[sum] ^ 1)];
        attack.dropped(DropReason::BadChecksum, &bad);
    }
}

fn truncations(attack: &mut Attack<'_>, outer: &UdpFrame, good: &[u8]) {
    let start = outer.payload_offset();
    // The frame ends before its IP packet does.
    let cut: Vec<_> = (start..good.len())
        .map(|len| good[..len].to_vec())
        .collect();
    attack.dropped(DropReason::Truncated, &cut);
    // All lengths agree, but there is no room for two headers and two tags.
    let short: Vec<_> = (0..64)
        .map(|len| frame(outer, &good[start..start + len]))
        .collect();
    attack.dropped(DropReason::Truncated, &short);
    // UDP says another length than IP.
    let udp_len = |len: usize| {
        let mut frame = good.to_vec();
        frame[start - 4..start - 2].copy_from_slice(&(len as u16).to_be_bytes());
        frame
    };
    let len = 8 + good.len() - start;
    let lengths = [0, 7, 8, 71, len + 1, 0xffff].map(udp_len);
    attack.dropped(DropReason::Truncated, &lengths);
}

/// Every bit of the UDP payload, each alone.
fn changed_bits(attack: &mut Attack<'_>, outer: &UdpFrame, good: &[u8]) {
    let changed = flips(&good[outer.payload_offset()..]).map(|(at, payload)| {
        let reason = match at {
            0 | 2 | 3 => DropReason::BadLinkHeader,
            4..8 => DropReason::UnknownReceiver,
            _ => DropReason::LinkAuthentication,
        };
        (reason, frame(outer, &payload))
    });
    attack.each_dropped(changed);
}

/// The receiver index of the transit node's other link.
fn other_receiver(path: &Path) -> u32 {
    let mut keys = path.plan.keys().iter();
    let found = keys.find(|key| {
        let east = v1::key::Owner::Link(EAST.into());
        key.owner == Some(east) && key.direction() == v1::Direction::BToA
    });
    found.expect("a key").receiver_index
}
