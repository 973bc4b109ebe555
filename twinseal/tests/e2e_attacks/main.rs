//! Attacks from the underlay on a running path: each packet is dropped under its own reason, none is answered, and no
//! forgery moves a window.

mod attack;
mod circuit_seal;
#[path = "../common/mod.rs"]
mod common;
mod forger;
mod link_seal;
mod unsteered;

use std::net::SocketAddr;

use attack::{Attack, Ears, drops};
use common::{PATIENCE, Path, options};
use forger::Hop;
use twinseal_forward::reason::DropReason;
use twinseal_lab::PingConfig;
use twinseal_lab::capture::{Capture, CaptureLimits};
use twinseal_lab::traffic::{Marker, Receiver, Until};
use twinseal_testbed::kernel::netdev;
use twinseal_testbed::plan::{Host, Underlay};

/// Counters that a replay window holds here: as few as may be, so that packets grow old soon.
const WINDOW: u64 = 2048;
/// Genuine packets: more than a window.
const GENUINE: u64 = 2_600;
const GENUINE_PPS: f64 = 3_000.0;
/// In the forged inner packets.
const MARKER: Marker = *b"forged!!";
/// Counters end below this.
const COUNTER_LIMIT: u64 = 1 << 40;
/// Where the forged inner packets would arrive on host B.
const TEST_PORT: u16 = 9000;

/// The path, with the smallest windows.
fn start(underlay: Underlay) -> Option<Path> {
    let mut options = options();
    options.underlay = underlay;
    options.extra = format!("[crypto]\nwindow_bits = {WINDOW}");
    Path::start(options)
}

/// Sends genuine packets of one flow and returns their frames as they are on the hop.
fn genuine(path: &mut Path, hop: Hop) -> Vec<Vec<u8>> {
    let sender = path.network.router(hop.sender());
    let mac = sender.mac(netdev(hop.link())).expect("its address");
    let filter = move |frame: &[u8]| frame[6..12] == mac && is_udp(frame);
    let switch = path.network.switch(hop.link());
    let limits = CaptureLimits::default();
    let capture = Capture::start(switch, "p1", limits, Some(Box::new(filter)));
    let capture = capture.expect("a capture");
    let traffic = path.send(Host::A, false, 1, GENUINE_PPS, Until::Count(GENUINE));
    let summary = traffic.finish();
    path.assert_perfect(&summary);
    let captured = capture.stop().expect("a capture");
    assert_eq!(captured.packets.len() as u64, GENUINE);
    captured.packets
}

/// Splits packets of one flow by what a window says of them, by lane and counter: too old, or replayed.
fn split_by_age(
    packets: impl Iterator<Item = ((u8, u64), Vec<u8>)>,
) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let packets: Vec<_> = packets.collect();
    let ((lane, top), _) = *packets.last().expect("packets");
    assert!(
        packets.iter().all(|((other, _), _)| *other == lane),
        "one flow, one lane"
    );
    let is_old = |counter: u64| counter / 32 + WINDOW / 32 <= top / 32;
    let (old, recent): (Vec<_>, Vec<_>) = packets
        .into_iter()
        .partition(|((_, counter), _)| is_old(*counter));
    let frames = |list: Vec<(_, Vec<u8>)>| list.into_iter().map(|(_, frame)| frame).collect();
    (frames(old), frames(recent))
}

/// A packet with true seals reaches host B, once.
#[track_caller]
fn assert_accepted(path: &mut Path, hop: Hop, good: &[u8]) {
    let bind = SocketAddr::new(Host::B.address(false), TEST_PORT);
    let host = path.network.host(Host::B);
    let receiver = Receiver::start(host, bind, MARKER).expect("a receiver");
    let mut attack = Attack::new(path, hop);
    attack.inject(&[good.to_vec()]);
    assert_eq!(receiver.wait_for(1, PATIENCE), 1);
    attack.dropped(DropReason::LinkReplayed, &[good.to_vec()]);
    let tally = receiver.stop().expect("a tally");
    assert_eq!(tally.received(), 1);
    let flow = tally.flow(0).expect("the flow");
    assert_eq!((flow.received, flow.duplicates), (1, 0));
}

/// All is as if nothing had happened: the end of every test.
#[track_caller]
fn assert_undisturbed(mut path: Path) {
    let before = drops(&mut path);
    let ears = Ears::new(&path.network);
    path.assert_pings(&PingConfig::default());
    for from in [Host::A, Host::B] {
        let traffic = path.send(from, false, 8, 2_000.0, Until::Count(400));
        let summary = traffic.finish();
        path.assert_perfect(&summary);
    }
    assert_eq!(drops(&mut path), before);
    // And had any router said something before, this is how it would have been heard.
    for (name, heard) in ears.stop() {
        assert!(heard.packets.len() >= 400, "{name} is not heard");
    }
    path.finish();
}

fn is_udp(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => frame[23] == 17,
        [0x86, 0xdd] => frame[20] == 17,
        _ => false,
    }
}
