//! How many neighbours the hosts of one edge port may have in the kernel's tables.
//!
//! A table is one for all devices (see [`asked`](crate::asked)), and the kernel learns whoever sends it an ARP request or a
//! neighbour solicitation. Two bounds keep a port's hosts from filling it. The port's steering program lets only so many
//! new ones through ([`most`](Crowd::most)), so the kernel may forget others in time. It is told whom
//! the kernel knows ([`share_neighbours`](crate::ports::Ports::share_neighbours)), so that these do not count. And as the
//! kernel never forgets those that tell it something new again and again, [`excess`](Crowd::excess) names those to take out
//! where a table is half full; to the program they are new ones then.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::asked::Key;
use crate::compile::KernelNeighbours;

/// The kernel's `gc_thresh3` where it does not say.
const TABLE: usize = 1024;
/// What each port's hosts may make at least. With so many ports that this is more than the tables hold, these are too small.
const LEAST: usize = 16;

/// How many entries the kernel's tables have room for: `gc_thresh3`.
#[derive(Clone, Copy)]
pub(super) struct Crowd {
    v4: usize,
    v6: usize,
}

impl Crowd {
    /// As the kernel says.
    pub(super) fn by_kernel() -> Self {
        let of_family = |family: &str| {
            let path = format!("/proc/sys/net/{family}/neigh/default/gc_thresh3");
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse().ok()
        };
        Self {
            v4: of_family("ipv4").unwrap_or(TABLE),
            v6: of_family("ipv6").unwrap_or(TABLE),
        }
    }

    /// The room of the smaller table.
    pub(super) fn least(self) -> usize {
        self.v4.min(self.v6)
    }

    /// How many neighbours of each family the hosts of one of so many edge ports may make in any five seconds, if so many are
    /// in the tables, and so many of these by this port.
    pub(super) fn most(self, taken: [usize; 2], here: [usize; 2], ports: usize) -> [u32; 2] {
        let of_family = |nth: usize| {
            let room = [self.v4, self.v6][nth];
            let most = match self.is_filled(nth, taken) {
                // A network of two hundred hosts comes up at once. One port cannot fill a table with these and the quarter
                // that is there before it is held to less, which is within a second.
                false => room,
                // Whoever did not fill it finds room.
                true if !self.fills(nth, here, ports) => room / 8 * 3,
                // All of them together as much. With the half that may stay and the quarter that packets may ask for that
                // seems to be more than there is, but half of these come within one second, after which the excess goes.
                true => room / 8 * 3 / ports.max(1),
            };
            u32::try_from(most.max(LEAST)).unwrap_or(u32::MAX)
        };
        [of_family(0), of_family(1)]
    }

    /// Whether others than this port fill a table that is more than a quarter full; it is the nth family's.
    pub(super) fn filled_by_others(
        self,
        taken: [usize; 2],
        here: [usize; 2],
        ports: usize,
    ) -> Option<usize> {
        let mut filled = (0..2).filter(|nth| self.is_filled(*nth, taken));
        let first = filled.next()?;
        let none = ![first]
            .into_iter()
            .chain(filled)
            .any(|nth| self.fills(nth, here, ports));
        none.then_some(first)
    }

    /// Whether a table is a quarter full: until then nobody needs to be held to a share.
    fn is_filled(self, nth: usize, taken: [usize; 2]) -> bool {
        taken[nth] >= [self.v4, self.v6][nth] / 4
    }

    /// Whether a port has more than its part of that quarter.
    pub(super) fn fills(self, nth: usize, here: [usize; 2], ports: usize) -> bool {
        here[nth] > ([self.v4, self.v6][nth] / 4 / ports.max(1)).max(LEAST)
    }

    /// Whom to take out of the tables: where one is half full, of the devices that have more than their share of this half
    /// those that no packets go to.
    pub(super) fn excess(
        self,
        known: &KernelNeighbours,
        edges: &[u32],
        in_use: impl Fn(&Key) -> bool,
    ) -> Vec<Key> {
        let mut excess = Vec::new();
        for (of_family, room) in [
            (IpAddr::is_ipv4 as fn(&IpAddr) -> bool, self.v4 / 2),
            (IpAddr::is_ipv6, self.v6 / 2),
        ] {
            let mut at: BTreeMap<u32, Vec<Key>> = BTreeMap::new();
            let mut all = 0;
            for key in known.keys().filter(|key| of_family(&key.1)) {
                all += 1;
                if edges.contains(&key.0) {
                    at.entry(key.0).or_default().push(*key);
                }
            }
            let mut over = usize::saturating_sub(all, room);
            let share = (room / edges.len().max(1)).max(LEAST);
            let mut devices: Vec<_> = at.into_values().collect();
            devices.sort_by_key(|keys| std::cmp::Reverse(keys.len()));
            for keys in devices {
                let most = keys.len().saturating_sub(share).min(over);
                let before = excess.len();
                excess.extend(keys.into_iter().filter(|key| !in_use(key)).take(most));
                over -= excess.len() - before;
            }
        }
        excess
    }
}

/// How many entries the kernel's tables have, of IPv4 and of IPv6.
pub(super) struct Taken {
    pub(super) all: [usize; 2],
    on: HashMap<u32, [usize; 2]>,
}

impl Taken {
    pub(super) fn count(known: &KernelNeighbours) -> Self {
        let mut taken = Self {
            all: [0; 2],
            on: HashMap::new(),
        };
        for (device, address) in known.keys() {
            let nth = usize::from(address.is_ipv6());
            taken.all[nth] += 1;
            taken.on.entry(*device).or_default()[nth] += 1;
        }
        taken
    }

    /// Those of some devices.
    pub(super) fn on(&self, devices: impl Iterator<Item = u32>) -> [usize; 2] {
        let counts = devices.filter_map(|it| self.on.get(&it));
        counts.fold([0; 2], |sum, it| [sum[0] + it[0], sum[1] + it[1]])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const CROWD: Crowd = Crowd { v4: 1024, v6: 2048 };

    fn hosts(device: u32, count: u32, v6: bool) -> impl Iterator<Item = Key> {
        (0..count).map(move |nth| match v6 {
            false => (device, Ipv4Addr::from(nth).into()),
            true => (device, Ipv6Addr::from(u128::from(nth)).into()),
        })
    }

    fn known(keys: impl Iterator<Item = Key>) -> KernelNeighbours {
        keys.map(|key| (key, Default::default())).collect()
    }

    #[test]
    fn what_a_device_has_above_its_share_goes_where_a_table_is_half_full() {
        let half = known(hosts(1, 500, false).chain(hosts(2, 12, false)));
        assert_eq!(CROWD.excess(&half, &[1, 2], |_| false), []);
        let more = known(hosts(1, 600, false).chain(hosts(2, 100, false)));
        let excess = CROWD.excess(&more, &[1, 2], |_| false);
        assert_eq!(excess.len(), 700 - 512);
        assert!(excess.iter().all(|key| key.0 == 1), "the other has a share");
        // The other family has a table of its own.
        let other = known(hosts(1, 600, true).chain(hosts(2, 100, true)));
        assert_eq!(CROWD.excess(&other, &[1, 2], |_| false), []);
    }

    #[test]
    fn those_that_packets_go_to_stay_and_so_does_the_underlay() {
        let many = known(hosts(1, 2000, true).chain(hosts(9, 1000, true)));
        let excess = CROWD.excess(&many, &[1], |_| true);
        assert_eq!(excess, []);
        let used: Vec<_> = hosts(1, 500, true).collect();
        let excess = CROWD.excess(&many, &[1], |key| used.contains(key));
        assert_eq!(excess.len(), 2000 - 1024);
        assert!(excess.iter().all(|key| key.0 == 1 && !used.contains(key)));
    }

    #[test]
    fn a_port_is_held_to_a_share_of_the_table_that_it_fills() {
        let calm = [1024, 2048];
        assert_eq!(CROWD.most([255, 511], [255, 511], 4), calm);
        // Each family by its own table.
        assert_eq!(CROWD.most([256, 0], [256, 0], 4), [96, 2048]);
        assert_eq!(CROWD.most([0, 512], [0, 512], 4), [1024, 192]);
        assert_eq!(CROWD.most([256, 0], [256, 0], 0), [384, 2048]);
        assert_eq!(CROWD.most([256, 0], [256, 0], 64), [16, 2048]);
        // And who did not fill it is not.
        assert_eq!(CROWD.most([512, 0], [64, 0], 4), [384, 2048]);
        assert_eq!(CROWD.most([512, 0], [65, 0], 4), [96, 2048]);
    }

    #[test]
    fn whoever_has_no_more_than_its_part_is_not_to_blame() {
        let others = |taken, here| CROWD.filled_by_others(taken, here, 4);
        assert_eq!(others([255, 511], [0, 0]), None, "nobody fills it");
        assert_eq!(others([512, 0], [64, 0]), Some(0));
        assert_eq!(others([0, 1024], [500, 128]), Some(1));
        assert_eq!(others([512, 0], [65, 0]), None);
        assert_eq!(others([512, 1024], [64, 129]), None);
    }

    #[test]
    fn entries_are_counted_by_family_and_device() {
        let known = known(
            hosts(1, 3, false)
                .chain(hosts(2, 4, false))
                .chain(hosts(2, 5, true)),
        );
        let taken = Taken::count(&known);
        assert_eq!(taken.all, [7, 5]);
        assert_eq!(taken.on([2].into_iter()), [4, 5]);
        assert_eq!(taken.on([1, 2, 3].into_iter()), [7, 5]);
    }
}
