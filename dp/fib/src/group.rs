//! Next-hop groups: flows spread over members by hash, in proportion to weights.

use super::trie::Leaf;
use super::{Target, hash};

/// How many slots a group's weights are rounded to.
const SLOTS: usize = 256;

/// A group, expanded so that a flow's hash picks a slot.
#[derive(Clone, Debug)]
pub struct Group {
    /// Targets as leaves, which are small. None if no member is up.
    slots: Box<[Leaf]>,
}

/// One of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Where it leads.
    pub target: Target,
    /// Its share. With 0 it has none.
    pub weight: u32,
    /// Whether packets that are led there arrive, as far as is known.
    pub up: bool,
}

impl Group {
    /// A group of `members`.
    ///
    /// Slots are in proportion to weights; a member with a weight has at least one. Those of members that are down fall to
    /// the others, in proportion too, and back when they are up again: no other flow moves.
    pub fn new(members: &[Member]) -> Self {
        let total: u64 = members.iter().map(|it| u64::from(it.weight)).sum();
        let size = SLOTS.max(members.len());
        let mut slots = Vec::with_capacity(size + members.len());
        let mut passed = 0u64;
        for member in members.iter().filter(|member| member.weight > 0) {
            let from = passed * size as u64 / total;
            passed += u64::from(member.weight);
            let to = passed * size as u64 / total;
            let count = (to - from).max(1) as usize;
            let leaf = member.up.then(|| member.target.leaf());
            slots.extend(std::iter::repeat_n(leaf, count));
        }
        let up: Vec<Leaf> = slots.iter().flatten().copied().collect();
        let down = slots.len() - up.len();
        if up.is_empty() {
            return Self {
                slots: Box::default(),
            };
        }
        let mut heirs = (0..down).map(|nth| up[nth * up.len() / down]);
        let slots = slots.into_iter();
        Self {
            slots: slots.filter_map(|it| it.or_else(|| heirs.next())).collect(),
        }
    }

    /// The member of a flow; `None` if none is up.
    #[inline]
    pub fn member(&self, flow_hash: u64) -> Option<Target> {
        let slot = hash::reduce(flow_hash, self.slots.len());
        Target::of(*self.slots.get(slot)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::CircuitIndex;
    use super::*;

    fn member(n: u32, weight: u32, up: bool) -> Member {
        Member {
            target: Target::Circuit(CircuitIndex(n)),
            weight,
            up,
        }
    }

    /// Which member each of some flows takes.
    fn flows(members: &[Member]) -> Vec<u32> {
        let group = Group::new(members);
        let flows = (0..4000).map(|flow| hash::words(1, &[flow]));
        let members = flows.map(|hash| match group.member(hash) {
            Some(Target::Circuit(CircuitIndex(n))) => {
                assert_eq!(group.member(hash), group.member(hash));
                n
            }
            other => panic!("not a circuit: {other:?}"),
        });
        members.collect()
    }

    fn share(flows: &[u32], of: u32) -> usize {
        flows.iter().filter(|it| **it == of).count()
    }

    #[test]
    fn flows_follow_weights_and_stay_put() {
        let flows = flows(&[member(0, 1, true), member(1, 3, true)]);
        let first = share(&flows, 0);
        assert!((850..1150).contains(&first), "{first}");
    }

    #[test]
    fn a_light_member_still_has_a_slot() {
        let group = Group::new(&[member(0, 1, true), member(1, 1_000_000, true)]);
        assert!(group.slots.contains(&member(0, 1, true).target.leaf()));
    }

    #[test]
    fn the_flows_of_a_member_that_is_down_fall_to_the_others_and_come_back() {
        let of = |up| flows(&[member(0, 1, true), member(1, 2, up), member(2, 1, true)]);
        let (before, without) = (of(true), of(false));
        for (before, now) in before.iter().zip(&without) {
            assert!(before == now || (*before == 1 && *now != 1));
        }
        let [first, last] = [0, 2].map(|n| share(&without, n));
        assert!(
            first + last == 4000 && first.abs_diff(last) < 300,
            "{first} {last}"
        );
        assert_eq!(of(true), before);
    }

    #[test]
    fn without_members_that_are_up_there_is_no_way() {
        for members in [
            &[][..],
            &[member(0, 1, false)],
            &[member(0, 1, false), member(1, 0, true)],
        ] {
            let group = Group::new(members);
            assert_eq!(group.member(0).or(group.member(u64::MAX)), None);
        }
    }
}
