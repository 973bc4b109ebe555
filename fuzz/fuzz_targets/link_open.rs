//! A packet of the first link, changed: the transit node takes it only if all that is sealed is as it was, and a forgery
//! never costs the authentic packet its place in the replay window.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinseal_forward::Disposition::{Drop, Send};
use twinseal_forward::fixture::{EAST, WEST};
use twinseal_forward::reason::DropReason;
use twinseal_fuzz::{Sample, mutate, repair, run, with_bed};

fuzz_target!(|input: &[u8]| {
    let [which, donor, fix, script @ ..] = input else {
        return;
    };
    with_bed(|bed| {
        let authentic = bed.sample(*which).first.clone();
        let mut forged = mutate(&authentic, script, &bed.sample(*donor).first);
        if fix % 2 == 0 {
            repair(&mut forged);
        }
        let frames = [forged, authentic];
        let results = run(&mut bed.path.transit, WEST, &frames);
        let (forged, authentic) = (results[0].0, results[1].0);

        let held: Vec<&Sample> = bed
            .samples
            .iter()
            .filter(|sample| sample.is_first_in(&frames[0]))
            .collect();
        match held[..] {
            [] => {
                assert!(matches!(forged, Drop(_)), "a forgery was taken: {forged:?}");
                assert_eq!(authentic, Send(EAST), "a forgery cost the packet its place");
            }
            // Taken, it is the packet, and what follows is the replay.
            [only] if forged == Send(EAST) && only.first == frames[1] => {
                assert_eq!(authentic, Drop(DropReason::LinkReplayed));
            }
            _ => assert!(matches!(
                authentic,
                Send(EAST) | Drop(DropReason::LinkReplayed)
            )),
        }
    });
});
