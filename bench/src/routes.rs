//! Routes as a backbone router has them, drawn by chance but the same every time.

use std::collections::HashSet;

use twinseal::tables::hash;

/// A prefix of IPv4 and its length.
pub type Prefix = ([u8; 4], u8);

/// How many of a thousand prefixes have which length, roughly as in the Internet's table.
const LENGTHS: [(u8, u64); 13] = [
    (24, 595),
    (23, 100),
    (22, 120),
    (21, 50),
    (20, 45),
    (19, 26),
    (18, 15),
    (17, 9),
    (16, 14),
    (15, 3),
    (14, 3),
    (13, 2),
    (12, 18),
];

/// The same numbers every time.
pub struct Draw {
    seed: u64,
    count: u64,
}

impl Draw {
    /// A stream of numbers of its own.
    pub fn new(seed: u64) -> Self {
        Self { seed, count: 0 }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.count += 1;
        hash::words(self.seed, &[self.count, 0x7477_696e])
    }
}

/// So many different prefixes of addresses that are routed.
pub fn routes(count: u32) -> Vec<Prefix> {
    let mut draw = Draw::new(1);
    let mut seen = HashSet::with_capacity(count as usize);
    let mut routes = Vec::with_capacity(count as usize);
    while routes.len() < count as usize {
        let len = length(draw.number() % 1000);
        let address = draw.number() as u32 >> (32 - len) << (32 - len);
        let prefix = (address.to_be_bytes(), len);
        if is_routed(prefix.0) && seen.insert(prefix) {
            routes.push(prefix);
        }
    }
    routes
}

/// An address within a prefix.
pub fn address_in((prefix, len): Prefix, draw: &mut Draw) -> [u8; 4] {
    let host = u32::MAX.checked_shr(len.into()).unwrap_or(0) & draw.number() as u32;
    (u32::from_be_bytes(prefix) | host).to_be_bytes()
}

fn length(mut chance: u64) -> u8 {
    for (len, share) in LENGTHS {
        if chance < share {
            return len;
        }
        chance -= share;
    }
    24
}

/// Not in a prefix that holds addresses which a router does not forward: 0/8, 127/8, 169.254/16 and from 224/4 on.
fn is_routed(prefix: [u8; 4]) -> bool {
    (1..224).contains(&prefix[0]) && ![127, 169].contains(&prefix[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinseal::wire::ip::v4_is_routable;

    #[test]
    fn addresses_are_in_their_prefixes_and_routable() {
        let shares: u64 = LENGTHS.iter().map(|(_, share)| share).sum();
        assert_eq!(shares, 1000);
        let routes = routes(20_000);
        assert_eq!(routes, super::routes(20_000));
        let longest = routes.iter().filter(|(_, len)| *len == 24).count();
        assert!((11_000..13_000).contains(&longest), "{longest}");
        let mut draw = Draw::new(2);
        for (prefix, len) in routes {
            let address = address_in((prefix, len), &mut draw);
            assert!(v4_is_routable(address), "{address:?} in {prefix:?}/{len}");
            let bits = u32::from_be_bytes(address) ^ u32::from_be_bytes(prefix);
            assert_eq!(bits >> (32 - len), 0);
        }
    }
}
