//! Mutations told by octets, so that the fuzzer's input says what to change and need not hold a packet itself.

use twinseal_wire::ip::checksum;

use crate::{MAX_FRAME, OUTER};

/// Changes `base` as `script` says, four octets a step: what, where (two octets), and a value. `donor` is another packet to
/// take octets from.
pub fn mutate(base: &[u8], script: &[u8], donor: &[u8]) -> Vec<u8> {
    let mut octets = base.to_vec();
    for step in script.chunks_exact(4) {
        let value = step[3];
        let at = usize::from(u16::from_be_bytes([step[1], step[2]])) % (octets.len() + 1);
        let end = (at + usize::from(value)).min(octets.len());
        match step[0] % 8 {
            0 => change(&mut octets, at, |octet| octet ^ (1 << (value % 8))),
            1 => change(&mut octets, at, |_| value),
            2 => change(&mut octets, at, |octet| octet.wrapping_add(value)),
            3 => octets.truncate(at),
            4 => drop(octets.drain(at..end)),
            5 => drop(octets.splice(at..at, std::iter::repeat_n(value, usize::from(value)))),
            6 => {
                // Octets of the other packet at the same place.
                let end = end.min(donor.len());
                if at < end {
                    octets[at..end].copy_from_slice(&donor[at..end]);
                }
            }
            _ => octets.extend(std::iter::repeat_n(value, usize::from(value))),
        }
        octets.truncate(MAX_FRAME);
    }
    octets
}

fn change(octets: &mut [u8], at: usize, to: impl FnOnce(u8) -> u8) {
    if let Some(octet) = octets.get_mut(at) {
        *octet = to(*octet);
    }
}

/// Makes IPv4 length, UDP length and IPv4 checksum of a frame right, so that it gets past them to what is sealed.
pub fn repair(frame: &mut [u8]) {
    if frame.len() < OUTER {
        return;
    }
    let ip = (frame.len() - 14) as u16;
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&ip.to_be_bytes());
    frame[38..40].copy_from_slice(&(ip - 20).to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}
