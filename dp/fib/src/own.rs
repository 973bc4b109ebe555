//! The node's own addresses, as packets meet them: none comes from one, and the node's own errors do.

use std::net::IpAddr;
use std::sync::Arc;

use twinseal_wire::ip::{Mapped, mapped, mapped_v4, mapped_v6};

/// Addresses that no host's packet may come from: the node's own at edge ports of a VRF, and the ends of the subnets there.
///
/// Packets look at a word only. It says of nearly all other addresses that they are not among these, and of a few that
/// they might be.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Barred {
    v4: u64,
    v6: u64,
    all: Arc<[Mapped]>,
}

impl Barred {
    /// Of these addresses.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut barred = Self::default();
        let mut all = Vec::new();
        for address in addresses {
            all.push(mapped(address));
            match address {
                IpAddr::V4(v4) => barred.v4 |= bit_v4(v4.octets()),
                IpAddr::V6(v6) => barred.v6 |= bit_v6(v6.octets()),
            }
        }
        all.sort_unstable();
        barred.all = all.into();
        barred
    }

    /// Whether an IPv4 address is among them.
    #[inline(always)]
    pub fn has_v4(&self, address: [u8; 4]) -> bool {
        self.v4 & bit_v4(address) != 0 && self.really_has(mapped_v4(address))
    }

    /// Whether an IPv6 address is among them.
    #[inline(always)]
    pub fn has_v6(&self, address: [u8; 16]) -> bool {
        self.v6 & bit_v6(address) != 0 && self.really_has(mapped_v6(address))
    }

    #[cold]
    fn really_has(&self, address: Mapped) -> bool {
        self.all.binary_search(&address).is_ok()
    }
}

/// The golden ratio: multiplied by it, addresses that differ little differ in the highest bits.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn bit_v4(address: [u8; 4]) -> u64 {
    bit(u32::from_ne_bytes(address).into())
}

#[inline(always)]
fn bit_v6(address: [u8; 16]) -> u64 {
    let [a, b]: [u64; 2] = zerocopy::transmute!(address);
    bit(a ^ b.rotate_left(32))
}

#[inline(always)]
fn bit(word: u64) -> u64 {
    1 << (word.wrapping_mul(SPREAD) >> 58)
}

/// An address that the node's own packets may come from, and the subnet that it has there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    /// The address.
    pub address: IpAddr,
    /// Bits of the subnet's prefix.
    pub len: u8,
}

impl Source {
    /// Whether an address is of the same subnet.
    pub fn covers(&self, other: IpAddr) -> bool {
        let len = u32::from(self.len);
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= len,
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros() >= len,
            _ => false,
        }
    }
}

/// The best of `sources` for a packet of the node's own to `to`: of its subnet, else the first of its family.
pub fn best(sources: &[Source], to: IpAddr) -> Option<IpAddr> {
    let family = || {
        let all = sources.iter();
        all.filter(|source| source.address.is_ipv4() == to.is_ipv4())
    };
    let near = family().find(|source| source.covers(to));
    near.or_else(|| family().next())
        .map(|source| source.address)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn has(barred: &Barred, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => barred.has_v4(v4.octets()),
            IpAddr::V6(v6) => barred.has_v6(v6.octets()),
        }
    }

    proptest! {
        #[test]
        fn exactly_these_are_barred(own in proptest::collection::btree_set(any::<IpAddr>(), 0..200), others in proptest::collection::vec(any::<IpAddr>(), 200)) {
            // IPv4 addresses in IPv6 are none that a packet has.
            let own: BTreeSet<_> = own.iter().map(IpAddr::to_canonical).collect();
            let barred = Barred::new(own.iter().copied());
            for it in own.iter().copied().chain(others.iter().map(IpAddr::to_canonical)) {
                prop_assert_eq!(has(&barred, it), own.contains(&it), "{}", it);
            }
        }
    }

    #[test]
    fn few_neighbours_of_an_own_address_are_looked_at_twice() {
        let barred = Barred::new([address("10.1.0.1"), address("2001:db8:1::1")]);
        let hosts = (0..=255).filter(|n| barred.v4 & bit_v4([10, 1, 0, *n]) != 0);
        assert!(hosts.count() < 16);
        let mut host = [0; 16];
        host[..6].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1]);
        let hosts = (0..=255).filter(|n| {
            host[15] = *n;
            barred.v6 & bit_v6(host) != 0
        });
        assert!(hosts.count() < 16);
    }

    #[test]
    fn the_nearest_source_is_the_best() {
        let source = |text, len| Source {
            address: address(text),
            len,
        };
        let all = [
            source("10.1.0.1", 24),
            source("10.2.0.1", 16),
            source("2001:db8:1::1", 64),
            source("192.0.2.1", 32),
        ];
        for (to, from) in [
            ("10.1.0.9", "10.1.0.1"),
            ("10.2.9.9", "10.2.0.1"),
            ("10.3.0.1", "10.1.0.1"),
            ("2001:db8:9::1", "2001:db8:1::1"),
        ] {
            assert_eq!(best(&all, address(to)), Some(address(from)), "{to}");
        }
        assert_eq!(best(&all[..2], address("2001:db8::1")), None);
        assert!(source("0.0.0.1", 0).covers(address("255.1.1.1")));
    }
}
