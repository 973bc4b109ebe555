//! How many neighbours the hosts of one edge port may have in the kernel's tables.
//!
//! A table is one for all devices (see [`asked`](crate::asked)), and the kernel learns whoever sends it an ARP request or a
//! neighbour solicitation. Two bounds keep a port's hosts from filling it. The port's steering program lets only so many
//! new ones through ([`in_five_seconds`](Crowd::in_five_seconds)), so the kernel may forget others in time. It is told whom
//! the kernel knows ([`share_neighbours`](crate::ports::Ports::share_neighbours)), so that these do not count. And as the
//! kernel never forgets those that tell it something new again and again, [`excess`](Crowd::excess) names those to take out
//! where a table is half full; to the program they are new ones then.

use std::collections::BTreeMap;
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

    /// How many neighbours the hosts of each of so many edge ports may make in any five seconds: all together three eighths
    /// of a table. With the half that may stay and the quarter that packets may ask for that seems to be more than there is,
    /// but half of these come within one second, after which the excess goes.
    pub(super) fn in_five_seconds(self, ports: usize) -> u32 {
        let share = self.least() / 8 * 3 / ports.max(1);
        u32::try_from(share.max(LEAST)).unwrap_or(u32::MAX)
    }

    /// Whether no table is as much as a quarter full: nobody needs to be held to a share then.
    pub(super) fn is_calm(self, known: &KernelNeighbours) -> bool {
        let v4 = known.keys().filter(|key| key.1.is_ipv4()).count();
        v4 < self.v4 / 4 && known.len() - v4 < self.v6 / 4
    }

    /// How many neighbours the hosts of each edge port may make in any five seconds while it [`is_calm`](Self::is_calm): so
    /// a network of two hundred hosts comes up at once. One port cannot fill a table with these and the quarter that may be
    /// there before it is not calm any more, which is within a second.
    pub(super) fn in_calm(self) -> u32 {
        u32::try_from(self.least()).unwrap_or(u32::MAX)
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
    fn a_table_is_calm_until_a_quarter_of_it_is_taken() {
        let calm = |v4, v6| CROWD.is_calm(&known(hosts(1, v4, false).chain(hosts(2, v6, true))));
        assert!(calm(255, 511));
        assert!(!calm(256, 0) && !calm(0, 512));
        assert_eq!(CROWD.in_calm(), 1024);
    }

    #[test]
    fn ports_share_what_hosts_may_make() {
        assert_eq!(CROWD.in_five_seconds(1), 384);
        assert_eq!(CROWD.in_five_seconds(4), 96);
        assert_eq!(CROWD.in_five_seconds(0), 384);
        assert_eq!(CROWD.in_five_seconds(64), LEAST as u32);
    }
}
