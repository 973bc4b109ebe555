//! Next-hop groups: flows spread over members by hash, in proportion to weights.

use super::trie::Leaf;
use super::{Target, hash};

/// How many slots a group's weights are rounded to.
const SLOTS: usize = 256;

/// A group, expanded so that a flow's hash picks a slot.
#[derive(Clone, Debug)]
pub struct Group {
    /// Targets as leaves, which are small.
    slots: Box<[Leaf]>,
}

impl Group {
    /// A group of `members` with their weights (each 1 or more). `None` if there is no member.
    ///
    /// Slots are in proportion to weights; a member has at least one.
    pub fn new(members: &[(Target, u32)]) -> Option<Self> {
        let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if total == 0 {
            return None;
        }
        let size = SLOTS.max(members.len());
        let mut slots = Vec::with_capacity(size + members.len());
        let mut passed = 0u64;
        for &(target, weight) in members {
            let from = passed * size as u64 / total;
            passed += u64::from(weight);
            let to = passed * size as u64 / total;
            let count = (to - from).max(1) as usize;
            slots.extend(std::iter::repeat_n(target.leaf(), count));
        }
        Some(Self {
            slots: slots.into_boxed_slice(),
        })
    }

    /// The member of a flow.
    #[inline]
    pub fn member(&self, flow_hash: u64) -> Option<Target> {
        Target::of(self.slots[hash::reduce(flow_hash, self.slots.len())])
    }
}

#[cfg(test)]
mod tests {
    use super::super::CircuitIndex;
    use super::*;

    #[test]
    fn flows_follow_weights_and_stay_put() {
        let member = |n| Target::Circuit(CircuitIndex(n));
        let group = Group::new(&[(member(0), 1), (member(1), 3)]).unwrap();
        let mut counts = [0; 2];
        for flow in 0..4000 {
            let hash = hash::words(1, &[flow]);
            let Some(Target::Circuit(CircuitIndex(n))) = group.member(hash) else {
                panic!("not a circuit");
            };
            assert_eq!(group.member(hash), Some(member(n)));
            counts[n as usize] += 1;
        }
        assert!((850..1150).contains(&counts[0]), "{counts:?}");
        assert!(Group::new(&[]).is_none());
    }

    #[test]
    fn a_light_member_still_has_a_slot() {
        let member = |n| Target::Circuit(CircuitIndex(n));
        let group = Group::new(&[(member(0), 1), (member(1), 1_000_000)]).unwrap();
        assert!(group.slots.contains(&member(0).leaf()));
    }
}
