//! Rings, frames and the account of what the kernel holds, against their models.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinseal_xsk::oracle;

fuzz_target!(|input: &[u8]| {
    let [which, ops @ ..] = input else {
        return;
    };
    let checked = match (which % 3, ops) {
        (0, [capacity, a, b, c, d, ops @ ..]) => oracle::ring(
            ops,
            u32::from(*capacity) % 65,
            u32::from_be_bytes([*a, *b, *c, *d]),
        ),
        (1, ops) => oracle::frame(ops),
        (2, ops) => oracle::kernel(ops),
        _ => Ok(()),
    };
    if let Err(differs) = checked {
        panic!("{differs}");
    }
});
