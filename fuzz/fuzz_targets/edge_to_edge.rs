//! Any octets from a host: what A sends into the circuit, the transit node passes on, and B has as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinseal_forward::Budgets;
use twinseal_forward::Disposition::{Drop, Send, Wait};
use twinseal_forward::fixture::{EAST, EDGE, WEST};
use twinseal_forward::reason::DropReason;
use twinseal_fuzz::{MAX_FRAME, pass, run, with_bed};

fuzz_target!(|frame: &[u8]| {
    if frame.len() > MAX_FRAME {
        return;
    }
    with_bed(|bed| {
        let path = &mut bed.path;
        // An ICMP error may go this way too, to a host that was made up as the source. Target outer_parse has those.
        path.a.state.errors = Budgets::of(0);
        path.b.state.errors = Budgets::of(0);
        let (disposition, first) = run(&mut path.a, EDGE, &[frame.to_vec()]).remove(0);
        if disposition != Send(WEST) {
            return;
        }
        let second = pass(&mut path.transit, WEST, &first, EAST);
        let (disposition, delivered) = run(&mut path.b, WEST, &[second]).remove(0);
        match disposition {
            Send(EDGE) => same(&frame[14..], &delivered[14..]),
            // A's hop may have been the last but one, and B may not know the host, or not yet.
            Drop(DropReason::TtlExpired | DropReason::NeighbourUnresolved) | Wait(_) => {}
            other => panic!("A sent it and B would not deliver it: {other:?}"),
        }
    });
});

/// Compares IP packets: two routers took two hops off, and nothing else changed.
fn same(sent: &[u8], delivered: &[u8]) {
    assert!(delivered.len() <= sent.len(), "it grew on the way");
    let mut want = sent[..delivered.len()].to_vec();
    let mut got = delivered.to_vec();
    if want[0] >> 4 == 4 {
        want[8] -= 2;
        // The checksum follows the TTL; that it is right, B's neighbour would check.
        let header = usize::from(got[0] & 0x0f) * 4;
        assert_eq!(twinseal_wire::ip::checksum(&got[..header]), 0);
        want[10..12].fill(0);
        got[10..12].fill(0);
    } else {
        want[7] -= 2;
    }
    assert_eq!(got, want);
}
