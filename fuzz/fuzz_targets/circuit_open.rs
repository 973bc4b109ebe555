//! A peer that holds a link's key sends anything inside it: it cannot make a circuit's packet, change one, or take one's
//! place in the replay window; and the transit node passes on what bears the label, unchanged, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinseal_forward::Disposition::{Drop, Send};
use twinseal_forward::fixture::{EAST, EDGE, LABEL_AT_B, LABEL_AT_TRANSIT, Seal, WEST};
use twinseal_forward::reason::DropReason;
use twinseal_fuzz::{Bed, HEADER, OUTER, mutate, open_link, repair, run, seal_link, with_bed};

fuzz_target!(|input: &[u8]| {
    let [place, which, donor, class, script @ ..] = input else {
        return;
    };
    with_bed(|bed| {
        if place % 2 == 0 {
            at_egress(bed, *which, *donor, *class, script);
        } else {
            at_transit(bed, *which, *donor, *class, script);
        }
    });
});

fn at_egress(bed: &mut Bed, which: u8, donor: u8, class: u8, script: &[u8]) {
    let authentic = bed.sample(which).second.clone();
    let inside = mutate(
        &bed.sample(which).second_inside,
        script,
        &bed.sample(donor).second_inside,
    );
    let forged = seal(Seal::SecondLink, &authentic, &inside, class);
    let results = run(&mut bed.path.b, WEST, &[forged, authentic]);
    let ((forged, delivered), (authentic, _)) = (&results[0], &results[1]);

    // Two samples differ in counter or size, so it is one at most.
    let sample = bed
        .samples
        .iter()
        .find(|sample| sample.is_circuit_of(&inside));
    if *forged == Send(EDGE) {
        let sample = sample.expect("a packet was taken that the edge did not send");
        assert_eq!(inside[..4], LABEL_AT_B.to_be_bytes());
        // Hosts may see other ECN marks, and nothing else.
        let header = if delivered[14] >> 4 == 4 { 20 } else { 40 };
        assert_eq!(delivered.len(), sample.delivered.len());
        assert_eq!(delivered[14 + header..], sample.delivered[14 + header..]);
    } else {
        assert!(matches!(forged, Drop(_)), "{forged:?}");
    }
    if sample.is_none() {
        assert_eq!(
            *authentic,
            Send(EDGE),
            "a forgery cost the packet its place"
        );
    } else {
        assert!(matches!(
            authentic,
            Send(EDGE) | Drop(DropReason::CircuitReplayed)
        ));
    }
}

fn at_transit(bed: &mut Bed, which: u8, donor: u8, class: u8, script: &[u8]) {
    let inside = mutate(
        &bed.sample(which).first_inside,
        script,
        &bed.sample(donor).first_inside,
    );
    let forged = seal(Seal::FirstLink, &bed.sample(which).first, &inside, class);
    let fits = forged.len() <= 14 + 1500;
    let (disposition, sent) = run(&mut bed.path.transit, WEST, &[forged]).remove(0);

    let known = inside.len() >= 2 * HEADER
        && inside[..4] == LABEL_AT_TRANSIT.to_be_bytes()
        && inside[4] > 1;
    if disposition == Send(EAST) {
        assert!(known && fits, "passed on without a label or a hop left");
        let mut want = inside;
        want[..4].copy_from_slice(&LABEL_AT_B.to_be_bytes());
        want[4] -= 1;
        let mut got = open_link(Seal::SecondLink, &sent).expect("sealed for the next link");
        // RFC 6040 may have changed the mark.
        want[5] |= 3;
        got[5] |= 3;
        assert_eq!(got, want);
    } else {
        let marked = class & 3 == 3;
        assert!(!known || !fits || marked, "not passed on: {disposition:?}");
    }
}

/// Seals for a link, under a counter that no sample has and with another outer traffic class.
fn seal(seal: Seal, frame: &[u8], inside: &[u8], class: u8) -> Vec<u8> {
    let mut headers = frame[..OUTER + HEADER].to_vec();
    headers[15] = class;
    headers[OUTER + HEADER - 2] ^= 1;
    let mut sealed = seal_link(seal, &headers, inside);
    repair(&mut sealed);
    sealed
}
