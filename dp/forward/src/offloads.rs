//! What hosts' kernels leave to a network device, on ports where there is none that would do it: checksums to finish, and
//! frames to cut into packets. Only batches of such ports come here.

use super::reason::DropReason;
use super::{Batch, Stage, at};
use twinseal_fib::Port;
use twinseal_wire::checksum::{self, Finish};

/// What was found so far, to be counted on the port's account.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Offloads {
    /// Packets whose checksum was finished.
    pub finished: u64,
    /// Packets whose checksum could not be, though it was, or may have been, left to a device. They go on as they are.
    pub unfinishable: u64,
    /// Frames that hold more than a packet of the device; dropped.
    pub super_frames: u64,
}

impl Offloads {
    /// As the control protocol and people call them.
    pub fn by_name(&self) -> [(&'static str, u64); 3] {
        [
            ("checksums_finished", self.finished),
            ("checksums_unfinishable", self.unfinishable),
            ("super_frames", self.super_frames),
        ]
    }
}

/// Does what a device would have done for packets of hosts, before anything is sealed.
#[inline(never)]
pub(super) fn finish(found: &mut Offloads, port: &Port, batch: &mut Batch) {
    for (_, packet) in at(batch, Stage::Route) {
        if packet.frame.len() > usize::from(port.device_mtu) {
            found.super_frames += 1;
            packet.drop(DropReason::SuperFrame);
            continue;
        }
        match checksum::finish(packet.frame.data_mut()) {
            Finish::Whole => {}
            Finish::Finished => found.finished += 1,
            Finish::Unfinishable => found.unfinishable += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{EAST, EDGE, Node, Path, WEST, host_frame_v4, host_frame_v6};
    use crate::{Budgets, Disposition};
    use twinseal_crypto::{DEFAULT_PROVIDER, Suite, provider};
    use twinseal_wire::checksum::{State, state};
    use twinseal_wire::{ethernet, ip};

    fn path() -> Path {
        Path::new(provider(DEFAULT_PROVIDER).unwrap(), Suite::Aes256Gcm).unwrap()
    }

    fn port(node: &mut Node) -> &mut Port {
        node.tables.ports[usize::from(EDGE.0)].as_mut().unwrap()
    }

    /// What a host sends whose device finishes checksums.
    fn unfinished(size: usize, v6: bool) -> Vec<u8> {
        let (mut frame, header, addresses) = match v6 {
            false => (host_frame_v4(size, 7), ip::V4_LEN, 12..20),
            true => (host_frame_v6(size, 7), ip::V6_LEN, 8..40),
        };
        let packet = &mut frame[ethernet::LEN..];
        let mut pseudo = packet[addresses].to_vec();
        pseudo.extend([0, 17]);
        pseudo.extend((packet.len() as u16 - header as u16).to_be_bytes());
        let sum = !ip::checksum(&pseudo);
        packet[header + 6..header + 8].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(state(packet), State::Unfinished);
        frame
    }

    /// What the far host gets for what a host sends.
    fn carried(path: &mut Path, frame: Vec<u8>) -> Vec<u8> {
        let mut frame = frame;
        for (node, from, to) in [
            (&mut path.a, EDGE, WEST),
            (&mut path.transit, WEST, EAST),
            (&mut path.b, WEST, EDGE),
        ] {
            let (disposition, sent) = node.run(from, &[frame]).remove(0);
            assert_eq!(disposition, Disposition::Send(to));
            frame = sent;
        }
        frame
    }

    #[test]
    fn a_port_finishes_if_it_is_to() {
        for (finishes, v6) in [(true, false), (true, true), (false, false), (false, true)] {
            let mut path = path();
            port(&mut path.a).finishes = finishes;
            let arrived = carried(&mut path, unfinished(300, v6));
            let (want, count) = match finishes {
                true => (State::Right, 1),
                false => (State::Unfinished, 0),
            };
            assert_eq!(state(&arrived[ethernet::LEN..]), want);
            assert_eq!(path.a.state.offloads.finished, count);
            assert_eq!(path.b.state.offloads, Offloads::default());
        }
    }

    #[test]
    fn what_cannot_be_finished_is_counted_and_goes_on() {
        let mut path = path();
        port(&mut path.a).finishes = true;
        let mut fragment = unfinished(300, false);
        fragment[ethernet::LEN + 6] = 0x20;
        fragment[ethernet::LEN + 10..ethernet::LEN + 12].fill(0);
        let sum = ip::checksum(&fragment[ethernet::LEN..][..ip::V4_LEN]);
        fragment[ethernet::LEN + 10..ethernet::LEN + 12].copy_from_slice(&sum.to_be_bytes());
        let payload = fragment[ethernet::LEN + ip::V4_LEN..].to_vec();
        let arrived = carried(&mut path, fragment);
        assert_eq!(arrived[ethernet::LEN + ip::V4_LEN..], payload);
        let found = path.a.state.offloads;
        assert_eq!((found.finished, found.unfinishable), (0, 1));
    }

    #[test]
    fn what_is_larger_than_a_packet_may_be_is_several() {
        let mut path = path();
        path.a.state.errors = Budgets::of(1);
        (port(&mut path.a).finishes, port(&mut path.a).device_mtu) = (true, 1000);
        carried(&mut path, host_frame_v4(1000, 7));
        let (disposition, _) = path.a.run(EDGE, &[host_frame_v4(1001, 7)]).remove(0);
        // Its sender is told nothing: a smaller MTU would not help.
        assert_eq!(disposition, Disposition::Drop(DropReason::SuperFrame));
        assert_eq!(path.a.state.offloads.super_frames, 1);
        assert_eq!(path.a.state.drops.get(DropReason::SuperFrame), 1);
        let left = path.a.state.errors.left(EDGE, DropReason::PacketTooBig);
        assert_eq!(left.copied(), Some(1));
    }
}
