//! Routes as they are in life: lengths in the proportions of the Internet's tables with some host routes of an
//! overlay's own, addresses at random, the same every time.

use twinseal::tables::hash;

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
        routes.extend((n..).take(missing).map(|n| route(family, n, vrfs)));
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

/// The same numbers every time.
pub(crate) fn random(stream: u64, n: u64) -> u64 {
    hash::words(stream, &[n, 0x7477_696e])
}

fn wide(stream: u64, n: u64) -> u128 {
    u128::from(random(stream, n)) << 64 | u128::from(random(stream + 100, n))
}
