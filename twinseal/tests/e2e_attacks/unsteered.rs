//! What the steering program leaves to the kernel: it is not answered on our port either.

use std::collections::BTreeMap;

use twinseal_lab::frame::{UdpFrame, checksum};
use twinseal_testbed::plan::{Router, Underlay, WEST};

use crate::attack::{Attack, Ears, drops};
use crate::common::Path;
use crate::forger::{Forger, Hop, frame, inner};
use crate::{assert_undisturbed, start};

#[test]
fn what_passes_the_steering_by_is_not_answered_on_our_port_over_ipv4() {
    left_to_the_kernel(Underlay::V4);
}

#[test]
fn what_passes_the_steering_by_is_not_answered_on_our_port_over_ipv6() {
    left_to_the_kernel(Underlay::V6);
}

fn left_to_the_kernel(underlay: Underlay) {
    let Some(mut path) = start(underlay) else {
        return;
    };
    let forger = Forger::new(&mut path, underlay, Hop::West);
    let outer = forger.outer();
    let good = forger.packet(forger.circuit_header(), &inner());
    // The kernel, unlike the router, looks at the UDP checksum.
    let summed = |outer: &UdpFrame| {
        let mut frame = frame(outer, &good[outer.payload_offset()..]);
        outer.seal(&mut frame);
        frame
    };
    let whole = summed(&outer);
    let before = (drops(&mut path), steering(&mut path));
    let ears = Ears::new(&path.network);
    let attack = Attack::new(&mut path, Hop::West);
    let mut fragments = Vec::new();
    for id in 1..=5 {
        let [first, last] = fragmented(&whole, id);
        fragments.extend([first, last]);
        let [first, last] = fragmented(&whole, id + 100);
        fragments.extend([last, first]);
    }
    let tagged = [&whole[..12], &[0x81, 0, 0, 7], &whole[12..]].concat();
    attack.inject(&fragments);
    attack.inject(&[tagged]);
    ears.assert_silence();
    let after = steering(&mut path);
    let risen = |name: &str| after[name] - before.1[name];
    assert_eq!(risen("pass_fragment"), fragments.len() as u64);
    assert_eq!(risen("pass_vlan"), 1);
    assert_eq!(drops(&mut path), before.0);

    // On another port the router's host answers as every host does: so we can hear, and the fragments were whole.
    let closed = UdpFrame {
        dst_port: 9,
        ..outer
    };
    let ears = Ears::new(&path.network);
    let attack = Attack::new(&mut path, Hop::West);
    attack.inject(&[summed(&closed)]);
    ears.wait_for(1);
    attack.inject(&fragmented(&summed(&closed), 1000));
    ears.wait_for(2);
    for (name, heard) in ears.stop() {
        let want = if name == "transit on west0" { 2 } else { 0 };
        assert_eq!(heard.packets.len(), want, "{name}: {:02x?}", heard.packets);
        assert!(heard.packets.iter().all(|frame| is_port_unreachable(frame)));
    }
    assert_undisturbed(path);
}

/// The steering program's verdicts on the transit node's first port.
fn steering(path: &mut Path) -> BTreeMap<String, u64> {
    let stats = path.controller.stats(Router::Transit).expect("counters");
    let port = stats.ports.into_iter().find(|port| port.port == WEST);
    let counters = port.expect("the port").steering;
    counters
        .into_iter()
        .map(|counter| (counter.name, counter.value))
        .collect()
}

fn is_port_unreachable(frame: &[u8]) -> bool {
    match frame[12..14] {
        // RFC 792: type 3, code 3.
        [0x08, 0x00] => (frame[23], frame[34], frame[35]) == (1, 3, 3),
        // RFC 4443: type 1, code 4.
        _ => (frame[20], frame[54], frame[55]) == (58, 1, 4),
    }
}

/// A frame in two fragments.
fn fragmented(whole: &[u8], id: u16) -> [Vec<u8>; 2] {
    const AT: usize = 64;
    let is_v4 = whole[12..14] == [0x08, 0x00];
    let start = if is_v4 { 34 } else { 54 };
    let (head, body) = whole.split_at(start);
    let parts = [(&body[..AT], 0, true), (&body[AT..], AT, false)];
    parts.map(|(part, offset, more)| {
        let mut frame = head.to_vec();
        if is_v4 {
            let flags = (offset / 8) as u16 | u16::from(more) << 13;
            frame[16..18].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
            frame[18..20].copy_from_slice(&id.to_be_bytes());
            frame[20..22].copy_from_slice(&flags.to_be_bytes());
            frame[24..26].fill(0);
            let sum = checksum(0, &frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        } else {
            let flags = offset as u16 | u16::from(more);
            frame[18..20].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
            let next = std::mem::replace(&mut frame[20], 44);
            frame.extend([next, 0]);
            frame.extend(flags.to_be_bytes());
            frame.extend(u32::from(id).to_be_bytes());
        }
        frame.extend(part);
        frame
    })
}
