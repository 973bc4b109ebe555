//! Any octets on any port of any node: nothing panics, and no node takes from the underlay what nobody sealed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinseal_fib::PortIndex;
use twinseal_forward::Disposition;
use twinseal_forward::fixture::EDGE;
use twinseal_fuzz::{MAX_FRAME, run, with_bed};

fuzz_target!(|input: &[u8]| {
    let Some((&place, frame)) = input.split_first() else {
        return;
    };
    if frame.len() > MAX_FRAME {
        return;
    }
    with_bed(|bed| {
        // Port 3 is no port.
        let port = PortIndex(place % 4);
        let path = &mut bed.path;
        let node = match place / 4 % 3 {
            0 => &mut path.a,
            1 => &mut path.transit,
            _ => &mut path.b,
        };
        let (disposition, _) = run(node, port, &[frame.to_vec()]).remove(0);
        if port != EDGE && !matches!(disposition, Disposition::Drop(_)) {
            let authentic = |sample: &twinseal_fuzz::Sample| {
                sample.is_first_in(frame) || sample.is_second_in(frame)
            };
            assert!(
                bed.samples.iter().any(authentic),
                "a packet was invented: {disposition:?}"
            );
        }
    });
});
