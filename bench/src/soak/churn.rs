//! Tenants that come and go.

use std::collections::VecDeque;

use super::result::Work;
use crate::testbed::Testbed;

/// Tenants at a time.
const LIVE: usize = 4;
/// Tenants' numbers, from 1 on; then they begin anew, as real ones do.
const NUMBERS: u32 = 1_000;

/// The tenants that are there now.
pub(super) struct Churn {
    routes: usize,
    next: u32,
    live: VecDeque<u32>,
}

impl Churn {
    pub(super) fn new(routes: usize) -> Self {
        Self {
            routes,
            next: 0,
            live: VecDeque::new(),
        }
    }

    /// One tenant comes; if there are enough, the oldest goes first.
    pub(super) fn step(&mut self, testbed: &mut Testbed, work: &mut Work) -> anyhow::Result<()> {
        if self.live.len() >= LIVE {
            self.remove_oldest(testbed, work)?;
        }
        let tenant = self.next % NUMBERS + 1;
        self.next += 1;
        let changes = testbed
            .chain()
            .add_tenant(tenant, &prefixes(tenant, self.routes))?;
        count(&changes, work);
        testbed.apply(changes)?;
        self.live.push_back(tenant);
        work.tenants += 1;
        Ok(())
    }

    /// All tenants go.
    pub(super) fn clear(&mut self, testbed: &mut Testbed, work: &mut Work) -> anyhow::Result<()> {
        while !self.live.is_empty() {
            self.remove_oldest(testbed, work)?;
        }
        Ok(())
    }

    fn remove_oldest(&mut self, testbed: &mut Testbed, work: &mut Work) -> anyhow::Result<()> {
        let Some(tenant) = self.live.pop_front() else {
            return Ok(());
        };
        let changes = testbed
            .chain()
            .remove_tenant(tenant, &prefixes(tenant, self.routes));
        count(&changes, work);
        testbed.apply(changes)
    }
}

fn count(changes: &crate::testbed::chain::Changes, work: &mut Work) {
    let changes = changes.iter().filter(|changes| !changes.is_empty());
    work.transactions += changes.clone().count() as u64;
    work.changes += changes.map(|changes| changes.len() as u64).sum::<u64>();
}

/// A tenant's prefixes, of both families and no other tenant's.
fn prefixes(tenant: u32, count: usize) -> Vec<String> {
    let [high, low] = (tenant as u16).to_be_bytes();
    let prefix = |n: usize| match n % 2 {
        // 100.64.0.0/10 for the first bits, so that none covers a host.
        0 => format!("100.{}.{low}.{}/32", 64 + high, n / 2 % 256),
        _ => format!("2001:db8:{tenant:x}:{:x}::/64", 0x8000 | n),
    };
    (0..count).map(prefix).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_tenants_share_a_prefix() {
        let all: Vec<_> = (1..=NUMBERS)
            .flat_map(|tenant| prefixes(tenant, 512))
            .collect();
        let distinct: BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(
            all.iter()
                .all(|prefix| prefix.parse::<twinseal_lab::IpNet>().is_ok())
        );
    }
}
