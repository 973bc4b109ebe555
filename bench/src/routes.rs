//! Routes as they are in life: lengths in the proportions of the Internet's tables with some host routes of an
//! overlay's own, addresses at random, the same every time.
//!
//! Every address within a route of IPv4 is one that routers forward.

use twinseal_fib::hash;

/// A route: VRF, left-aligned bits, length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Route {
    /// Which VRF.
    pub(crate) vrf: u32,
    /// The prefix in the high bits.
    pub(crate) bits: u128,
    /// Its length.
    pub(crate) len: u8,
}

/// A prefix of IPv4 and its length.
pub type Prefix = ([u8; 4], u8);

/// IPv4 or IPv6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

/// Routes in a thousand of each length.
const V4: [(u8, u32); 17] = [
    (24, 585),
    (23, 95),
    (22, 105),
    (21, 48),
    (20, 42),
    (19, 25),
    (18, 14),
    (17, 8),
    (16, 14),
    (15, 3),
    (14, 3),
    (13, 2),
    (12, 1),
    (8, 1),
    (28, 14),
    (30, 10),
    (32, 30),
];
const V6: [(u8, u32); 14] = [
    (48, 480),
    (44, 90),
    (40, 80),
    (32, 120),
    (36, 40),
    (29, 40),
    (46, 25),
    (47, 20),
    (45, 15),
    (42, 20),
    (56, 20),
    (64, 30),
    (127, 5),
    (128, 15),
];

/// `count` different routes, spread over `vrfs`.
pub(crate) fn routes(family: Family, count: usize, vrfs: u32) -> Vec<Route> {
    let mut routes = Vec::with_capacity(count + count / 16);
    let mut n = 0;
    while routes.len() < count {
        let missing = count - routes.len();
        let drawn = (n..).take(missing).map(|n| route(family, n, vrfs));
        routes.extend(drawn.filter(|route| family == Family::V6 || is_routed(route)));
        n += missing as u64;
        routes.sort_unstable();
        routes.dedup();
    }
    // In no order, as a controller has them.
    routes.sort_by_key(|route| {
        random(
            9,
            route.bits as u64
                ^ (route.bits >> 64) as u64
                ^ u64::from(route.vrf) << 8
                ^ u64::from(route.len),
        )
    });
    routes
}

/// So many prefixes of IPv4 with their lengths, of one VRF.
pub fn prefixes(count: u32) -> Vec<Prefix> {
    let routes = routes(Family::V4, count as usize, 1).into_iter();
    let prefix = |route: Route| ((route.bits >> 96) as u32).to_be_bytes();
    routes.map(|route| (prefix(route), route.len)).collect()
}

fn route(family: Family, n: u64, vrfs: u32) -> Route {
    let mut draw = random(0, n) % 1000;
    let lengths: &[(u8, u32)] = match family {
        Family::V4 => &V4,
        Family::V6 => &V6,
    };
    let mut len = lengths[0].0;
    for &(length, share) in lengths {
        len = length;
        if draw < share.into() {
            break;
        }
        draw -= u64::from(share);
    }
    let bits = match family {
        // 1.0.0.0 to 223.255.255.255.
        Family::V4 => u128::from(0x0100_0000 + random(1, n) % 0xdf00_0000) << 96,
        // 2000::/3.
        Family::V6 => 1 << 125 | wide(1, n) >> 3,
    };
    Route {
        vrf: (random(2, n) % u64::from(vrfs)) as u32,
        bits: bits & u128::MAX << (128 - u32::from(len)),
        len,
    }
}

/// Not of 127/8 or 169.254/16, which no router forwards.
fn is_routed(route: &Route) -> bool {
    ![127, 169].contains(&(route.bits >> 120))
}

/// An address within a prefix.
pub fn address_in((prefix, len): Prefix, draw: &mut Draw) -> [u8; 4] {
    let host = u32::MAX.checked_shr(len.into()).unwrap_or(0) & draw.number() as u32;
    (u32::from_be_bytes(prefix) | host).to_be_bytes()
}

/// Where lookups go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Aim {
    /// Somewhere within a route drawn at random: all the way down.
    Routes,
    /// Anywhere in the address space, in a VRF drawn at random: most find nothing.
    Anywhere,
}

/// `count` addresses, each with a VRF.
pub(crate) fn addresses(
    family: Family,
    routes: &[Route],
    vrfs: u32,
    aim: Aim,
    count: usize,
) -> Vec<(u32, u128)> {
    (0..count as u64)
        .map(|n| {
            let host = wide(4, n);
            let (vrf, address) = match aim {
                Aim::Routes => {
                    let route = routes[(random(3, n) % routes.len() as u64) as usize];
                    let host = host.checked_shr(route.len.into()).unwrap_or(0);
                    (route.vrf, route.bits | host)
                }
                Aim::Anywhere => ((random(3, n) % u64::from(vrfs)) as u32, host),
            };
            match family {
                Family::V4 => (vrf, address >> 96 << 96),
                Family::V6 => (vrf, address),
            }
        })
        .collect()
}

/// A stream of numbers, the same every time.
pub struct Draw {
    stream: u64,
    count: u64,
}

impl Draw {
    /// Streams differ.
    pub fn new(stream: u64) -> Self {
        Self { stream, count: 0 }
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.count += 1;
        random(self.stream, self.count)
    }
}

/// A stream's number, the same every time.
pub(crate) fn random(stream: u64, n: u64) -> u64 {
    hash::words(stream, &[n, 0x7477_696e])
}

fn wide(stream: u64, n: u64) -> u128 {
    u128::from(random(stream, n)) << 64 | u128::from(random(stream + 100, n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use twinseal_wire::ip::v4_is_routed;

    #[test]
    fn lengths_are_all_that_there_are() {
        for lengths in [&V4[..], &V6] {
            assert_eq!(lengths.iter().map(|(_, share)| share).sum::<u32>(), 1000);
        }
    }

    #[test]
    fn addresses_are_in_their_prefixes_and_routable() {
        let prefixes = prefixes(20_000);
        assert_eq!(prefixes.len(), 20_000);
        assert_eq!(prefixes, super::prefixes(20_000));
        let longest = prefixes.iter().filter(|(_, len)| *len == 24).count();
        assert!((11_000..13_000).contains(&longest), "{longest}");
        let mut draw = Draw::new(2);
        for (prefix, len) in prefixes {
            let address = address_in((prefix, len), &mut draw);
            assert!(v4_is_routed(address), "{address:?} in {prefix:?}/{len}");
            let bits = u32::from_be_bytes(address) ^ u32::from_be_bytes(prefix);
            assert_eq!(bits.checked_shr(32 - u32::from(len)).unwrap_or(0), 0);
        }
    }
}
