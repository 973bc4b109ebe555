//! Tables that are measured side by side: ours, and what is on crates.io.

use std::net::{Ipv4Addr, Ipv6Addr};

use ip_network_table_deps_treebitmap::IpLookupTable;
use poptrie::Poptrie;
use prefix_trie::PrefixMap;
use twinseal_fib::trie::{Editor, Key, Leaf, NO_ROUTE, Tries};

use crate::routes::Route;

/// Addresses that all tables can take: `u32` and `u128`.
pub(super) trait Address: Key + PartialEq + 'static {
    /// As the tree bitmap of the crate wants it.
    type Net: ip_network_table_deps_treebitmap::address::Address + Copy;

    /// Out of left-aligned bits.
    fn of(bits: u128) -> Self;

    /// The same as [`Address::Net`].
    fn net(self) -> Self::Net;
}

impl Address for u32 {
    type Net = Ipv4Addr;

    fn of(bits: u128) -> Self {
        (bits >> 96) as u32
    }

    fn net(self) -> Ipv4Addr {
        self.into()
    }
}

impl Address for u128 {
    type Net = Ipv6Addr;

    fn of(bits: u128) -> Self {
        bits
    }

    fn net(self) -> Ipv6Addr {
        self.into()
    }
}

/// A table of many VRFs.
pub(super) trait Table<A> {
    /// Its name in results.
    const NAME: &'static str;

    /// A table of these routes; a route's leaf follows from its place.
    fn load(routes: &[Route], vrfs: u32) -> Self;

    /// Looks up one after the other, and returns the sum of what was found.
    fn lookup(&self, queries: &[(u32, A)]) -> u64;

    /// Sets or removes a route.
    fn update(&mut self, route: &Route, leaf: Option<Leaf>);

    /// Bytes that it has from the kernel and not from the allocator.
    fn mapped(&self) -> u64 {
        0
    }

    /// Lets readers see the updates. Where there are no snapshots, they have seen each at once, or must not have looked.
    fn publish(&mut self) {}
}

/// The leaf of the route at a place.
pub(super) fn leaf_of(place: usize) -> Leaf {
    place as Leaf % 1000 + 1
}

/// Twinseal's tries.
pub(super) struct Ours<A: Address> {
    editor: Editor,
    roots: Vec<A::Root>,
    tries: Tries,
}

impl<A: Address> Ours<A> {
    /// As [`Table::lookup`], a batch at a time, as the pipeline does.
    pub(super) fn lookup_all(&self, queries: &[(u32, A)]) -> u64 {
        const BATCH: usize = 64;
        let mut leaves = [NO_ROUTE; BATCH];
        let mut sum = 0;
        for queries in queries.chunks(BATCH) {
            let mut batch = [(&self.roots[0], A::of(0)); BATCH];
            for (query, (vrf, address)) in batch.iter_mut().zip(queries) {
                *query = (&self.roots[*vrf as usize], *address);
            }
            let batch = &batch[..queries.len()];
            self.tries.lookup_all(batch, &mut leaves);
            sum += total(leaves[..queries.len()].iter().copied());
        }
        sum
    }
}

impl<A: Address> Table<A> for Ours<A> {
    const NAME: &'static str = "twinseal";

    fn load(routes: &[Route], vrfs: u32) -> Self {
        let mut editor = Editor::default();
        let mut roots = vec![A::Root::default(); vrfs as usize];
        for (place, route) in routes.iter().enumerate() {
            let root = &mut roots[route.vrf as usize];
            editor.set(root, A::of(route.bits), route.len.into(), leaf_of(place));
        }
        let tries = editor.publish();
        Self {
            editor,
            roots,
            tries,
        }
    }

    fn lookup(&self, queries: &[(u32, A)]) -> u64 {
        let found = queries
            .iter()
            .map(|(vrf, address)| self.tries.lookup(&self.roots[*vrf as usize], *address));
        total(found)
    }

    fn update(&mut self, route: &Route, leaf: Option<Leaf>) {
        let root = &mut self.roots[route.vrf as usize];
        let (address, len) = (A::of(route.bits), route.len.into());
        match leaf {
            Some(leaf) => self.editor.set(root, address, len, leaf),
            None => self.editor.remove(root, address, len),
        };
    }

    fn mapped(&self) -> u64 {
        self.editor.bytes().0 as u64
    }

    fn publish(&mut self) {
        self.tries = self.editor.publish();
        self.editor.reclaim();
    }
}

/// A Poptrie (crate `poptrie`) for each VRF.
pub(super) struct Pop<A>(Vec<Poptrie<(A, u8), Leaf>>)
where
    (A, u8): poptrie::Prefix;

/// A Patricia trie (crate `prefix-trie`) for each VRF.
pub(super) struct Patricia<A>(Vec<PrefixMap<(A, u8), Leaf>>)
where
    (A, u8): prefix_trie::Prefix;

/// A tree bitmap (the crate below `ip_network_table`) for each VRF.
pub(super) struct TreeBitmap<A: Address>(Vec<IpLookupTable<A::Net, Leaf>>);

macro_rules! others {
    ($($address:ty),*) => {$(
        impl Table<$address> for Pop<$address> {
            const NAME: &'static str = "poptrie";

            fn load(routes: &[Route], vrfs: u32) -> Self {
                let mut by_vrf = vec![Vec::new(); vrfs as usize];
                for (place, route) in routes.iter().enumerate() {
                    let prefix = (<$address>::of(route.bits), route.len);
                    by_vrf[route.vrf as usize].push((prefix, leaf_of(place)));
                }
                Self(by_vrf.into_iter().map(|routes| routes.into_iter().collect()).collect())
            }

            fn lookup(&self, queries: &[(u32, $address)]) -> u64 {
                total(queries.iter().map(|(vrf, address)| {
                    self.0[*vrf as usize].lookup(*address).copied().unwrap_or(NO_ROUTE)
                }))
            }

            fn update(&mut self, route: &Route, leaf: Option<Leaf>) {
                let table = &mut self.0[route.vrf as usize];
                let prefix = (<$address>::of(route.bits), route.len);
                match leaf {
                    Some(leaf) => table.insert(prefix, leaf),
                    None => table.remove(prefix),
                };
            }
        }

        impl Table<$address> for Patricia<$address> {
            const NAME: &'static str = "prefix-trie";

            fn load(routes: &[Route], vrfs: u32) -> Self {
                let mut tables = Self((0..vrfs).map(|_| PrefixMap::new()).collect());
                for (place, route) in routes.iter().enumerate() {
                    tables.update(route, Some(leaf_of(place)));
                }
                tables
            }

            fn lookup(&self, queries: &[(u32, $address)]) -> u64 {
                total(queries.iter().map(|(vrf, address)| {
                    let found = self.0[*vrf as usize].get_lpm(&(*address, <$address>::BITS as u8));
                    found.map_or(NO_ROUTE, |(_, leaf)| *leaf)
                }))
            }

            fn update(&mut self, route: &Route, leaf: Option<Leaf>) {
                let table = &mut self.0[route.vrf as usize];
                let prefix = (<$address>::of(route.bits), route.len);
                match leaf {
                    Some(leaf) => table.insert(prefix, leaf),
                    None => table.remove(&prefix),
                };
            }
        }
    )*};
}

others!(u32, u128);

impl<A: Address> Table<A> for TreeBitmap<A> {
    const NAME: &'static str = "treebitmap";

    fn load(routes: &[Route], vrfs: u32) -> Self {
        let mut tables = Self((0..vrfs).map(|_| IpLookupTable::new()).collect());
        for (place, route) in routes.iter().enumerate() {
            tables.update(route, Some(leaf_of(place)));
        }
        tables
    }

    fn lookup(&self, queries: &[(u32, A)]) -> u64 {
        total(queries.iter().map(|(vrf, address)| {
            let found = self.0[*vrf as usize].longest_match(address.net());
            found.map_or(NO_ROUTE, |(_, _, leaf)| *leaf)
        }))
    }

    fn update(&mut self, route: &Route, leaf: Option<Leaf>) {
        let table = &mut self.0[route.vrf as usize];
        let (net, len) = (A::of(route.bits).net(), route.len.into());
        match leaf {
            Some(leaf) => table.insert(net, len, leaf),
            None => table.remove(net, len),
        };
    }
}

fn total(leaves: impl Iterator<Item = Leaf>) -> u64 {
    leaves.map(u64::from).sum()
}
