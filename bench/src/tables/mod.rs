//! Longest-prefix match: lookups, updates and memory of our tries beside those of crates.io, in one run.

mod contestants;

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;

use crate::machine::Machine;
use crate::routes::{self, Aim, Family, Route, addresses, random};
use contestants::{Address, Ours, Patricia, Pop, Table, TreeBitmap, leaf_of};

/// Lookups a round: their nodes do not fit a second-level cache.
const LOOKUPS: usize = 1 << 18;
/// Updates a round.
const UPDATES: usize = 2000;
/// Of a Poptrie, whose updates move the whole table.
const SLOW_UPDATES: usize = 20;
/// Updates of ours in one snapshot.
const TRANSACTION: usize = 100;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct TablesReport {
    /// Where.
    pub machine: Machine,
    /// One for every table, family and spread over VRFs.
    pub lines: Vec<TablesLine>,
}

/// One table. Times are medians of rounds, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct TablesLine {
    /// The table.
    pub table: &'static str,
    /// 4 or 6.
    pub family: u8,
    /// How many routes.
    pub routes: usize,
    /// Over how many VRFs they are spread evenly.
    pub vrfs: u32,
    /// A lookup of an address within a route drawn at random.
    pub hit_ns: f64,
    /// A lookup of any address.
    pub any_ns: f64,
    /// Half of the rounds lay this far or less from `hit_ns`.
    pub spread_ns: f64,
    /// An update, in transactions of a hundred.
    pub update_ns: f64,
    /// An update alone in its transaction; of tables without snapshots the same.
    pub single_update_ns: f64,
    /// Bytes a route.
    pub bytes: f64,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// IPv4 routes.
    pub v4: usize,
    /// IPv6 routes.
    pub v6: usize,
    /// Besides one VRF, over so many.
    pub vrfs: u32,
    /// How often each measurement is made.
    pub rounds: usize,
}

impl TablesReport {
    /// Measures. `live` tells the bytes that are allocated now.
    pub fn measure(sizes: Sizes, live: fn() -> u64) -> Self {
        let mut lines = Vec::new();
        for vrfs in [1, sizes.vrfs] {
            let rig = |family, count| Harness::new(family, count, vrfs, sizes.rounds, live);
            lines.extend(rig(Family::V4, sizes.v4).all::<u32>());
            lines.extend(rig(Family::V6, sizes.v6).all::<u128>());
        }
        Self {
            machine: Machine::this(),
            lines,
        }
    }
}

/// Routes and addresses of one family and spread.
struct Harness {
    family: Family,
    vrfs: u32,
    rounds: usize,
    live: fn() -> u64,
    routes: Vec<Route>,
    hits: Vec<(u32, u128)>,
    any: Vec<(u32, u128)>,
}

impl Harness {
    fn new(family: Family, count: usize, vrfs: u32, rounds: usize, live: fn() -> u64) -> Self {
        let routes = routes::routes(family, count, vrfs);
        Self {
            hits: addresses(family, &routes, vrfs, Aim::Routes, LOOKUPS),
            any: addresses(family, &routes, vrfs, Aim::Anywhere, LOOKUPS),
            family,
            vrfs,
            rounds,
            live,
            routes,
        }
    }

    fn all<A: Address>(&self) -> Vec<TablesLine>
    where
        Pop<A>: Table<A>,
        Patricia<A>: Table<A>,
        (A, u8): poptrie::Prefix + prefix_trie::Prefix,
    {
        let of = |queries: &[(u32, u128)]| -> Vec<(u32, A)> {
            let queries = queries.iter();
            queries.map(|(vrf, bits)| (*vrf, A::of(*bits))).collect()
        };
        let (hits, any) = (of(&self.hits), of(&self.any));
        let (mut ours, bytes) = self.load::<A, Ours<A>>();
        let (mut pop, pop_bytes) = self.load::<A, Pop<A>>();
        let (mut patricia, patricia_bytes) = self.load::<A, Patricia<A>>();
        let (mut bitmap, bitmap_bytes) = self.load::<A, TreeBitmap<A>>();

        // Found the same, or the times mean nothing.
        let sums = [
            Table::<A>::lookup(&ours, &hits),
            ours.lookup_all(&hits),
            pop.lookup(&hits),
            patricia.lookup(&hits),
            bitmap.lookup(&hits),
        ];
        assert!(
            sums.iter().all(|sum| *sum == sums[0]),
            "tables disagree: {sums:?}"
        );

        let mut times: [[Vec<f64>; 2]; 5] = Default::default();
        for _ in 0..self.rounds {
            for (aim, queries) in [&hits, &any].into_iter().enumerate() {
                let mut take = |nth: usize, lookup: &dyn Fn() -> u64| {
                    // Not what the table before has left of the caches, but what this one leaves.
                    black_box(lookup());
                    times[nth][aim].push(timed(queries.len(), || _ = black_box(lookup())));
                };
                take(0, &|| ours.lookup_all(queries));
                take(1, &|| Table::<A>::lookup(&ours, queries));
                take(2, &|| pop.lookup(queries));
                take(3, &|| patricia.lookup(queries));
                take(4, &|| bitmap.lookup(queries));
            }
        }
        let ours_updates = self.updates::<A, _>(&mut ours, UPDATES);
        let updates = [
            ours_updates,
            ours_updates,
            self.updates::<A, _>(&mut pop, SLOW_UPDATES),
            self.updates::<A, _>(&mut patricia, UPDATES),
            self.updates::<A, _>(&mut bitmap, UPDATES),
        ];
        let names = [
            "twinseal, batched",
            "twinseal",
            <Pop<A> as Table<A>>::NAME,
            <Patricia<A> as Table<A>>::NAME,
            <TreeBitmap<A> as Table<A>>::NAME,
        ];
        let bytes = [bytes, bytes, pop_bytes, patricia_bytes, bitmap_bytes];
        let lines = names.into_iter().zip(times).zip(updates).zip(bytes);
        lines
            .map(
                |(((table, [hit, any]), (update_ns, single_update_ns)), bytes)| {
                    let (hit_ns, spread_ns) = median(hit);
                    TablesLine {
                        table,
                        family: match self.family {
                            Family::V4 => 4,
                            Family::V6 => 6,
                        },
                        routes: self.routes.len(),
                        vrfs: self.vrfs,
                        hit_ns,
                        any_ns: median(any).0,
                        spread_ns,
                        update_ns,
                        single_update_ns,
                        bytes: bytes as f64 / self.routes.len() as f64,
                    }
                },
            )
            .collect()
    }

    fn load<A, T: Table<A>>(&self) -> (T, u64) {
        let before = (self.live)();
        let table = T::load(&self.routes, self.vrfs);
        let allocated = (self.live)().saturating_sub(before);
        let mapped = table.mapped();
        (table, allocated + mapped)
    }

    /// Changes routes drawn at random: of three, one goes and comes back, one is led elsewhere. Returns the time of one,
    /// many in a transaction and alone.
    fn updates<A, T: Table<A>>(&self, table: &mut T, count: usize) -> (f64, f64) {
        let mut times: [Vec<f64>; 2] = Default::default();
        for round in 0..self.rounds {
            for (times, transaction) in times.iter_mut().zip([TRANSACTION, 1]) {
                times.push(timed(count, || {
                    for n in 0..count {
                        let draw = random(round as u64, n as u64 / 3);
                        let place = draw as usize % self.routes.len();
                        let leaf = match n % 3 {
                            0 => None,
                            1 => Some(leaf_of(place)),
                            _ => Some(leaf_of(place + 1)),
                        };
                        table.update(&self.routes[place], leaf);
                        if (n + 1) % transaction == 0 {
                            table.publish();
                        }
                    }
                    table.publish();
                }));
            }
        }
        let [many, alone] = times;
        (median(many).0, median(alone).0)
    }
}

/// Nanoseconds of one of `count`.
fn timed(count: usize, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as f64 / count as f64
}

/// The median, and how far from it half of the values are at most.
fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let Some(&median) = values.get(values.len() / 2) else {
        return (f64::NAN, f64::NAN);
    };
    let mut far: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    far.sort_by(f64::total_cmp);
    (median, far[far.len() / 2])
}

impl fmt::Display for TablesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:18} {:>6} {:>8} {:>5} {:>8} {:>7} {:>8} {:>9} {:>9} {:>8}",
            "TABLE",
            "FAMILY",
            "ROUTES",
            "VRFS",
            "HIT ns",
            "SPREAD",
            "ANY ns",
            "UPDATE ns",
            "ALONE ns",
            "B/ROUTE"
        )?;
        for line in &self.lines {
            writeln!(
                f,
                "{:18} {:>6} {:>8} {:>5} {:>8.1} {:>7.1} {:>8.1} {:>9.0} {:>9.0} {:>8.1}",
                line.table,
                format!("IPv{}", line.family),
                line.routes,
                line.vrfs,
                line.hit_ns,
                line.spread_ns,
                line.any_ns,
                line.update_ns,
                line.single_update_ns,
                line.bytes,
            )?;
        }
        write!(
            f,
            "HIT: addresses within routes; ANY: any address; UPDATE: a hundred in a snapshot; ALONE: one"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tables_find_the_same() {
        // The rig asserts it.
        let sizes = Sizes {
            v4: 3000,
            v6: 1000,
            vrfs: 10,
            rounds: 1,
        };
        let report = TablesReport::measure(sizes, || 0);
        assert_eq!(report.lines.len(), 20);
        assert!(report.lines.iter().all(|line| line.hit_ns > 0.0));
    }
}
