//! Groups, without the members that are down.

use std::collections::HashSet;

use super::*;
use crate::down::Down;

impl Compiler {
    /// Notes the groups of which a member went down or came up.
    pub(super) fn groups_by_members(&self, from: &Sources<'_>, changes: &mut HashSet<GroupName>) {
        if Arc::ptr_eq(&self.down, from.down) {
            return;
        }
        let (before, now): (&Down, &Down) = (&self.down, from.down);
        for (name, members) in from.state.groups.iter() {
            let differs = |hop| before.why(hop).is_some() != now.why(hop).is_some();
            if members.iter().any(|member| differs(&member.hop)) {
                changes.insert(name.clone());
            }
        }
    }

    /// Makes those that changed.
    pub(super) fn groups(
        &mut self,
        old: &State,
        from: &Sources<'_>,
        changes: &Changes,
    ) -> Result<(), Missing> {
        for name in &changes.groups {
            let members = from
                .state
                .groups
                .get(name)
                .or_missing(|| ItemKey::Group(name.clone()))?;
            let members: Vec<_> = members
                .iter()
                .map(|member| {
                    Ok(group::Member {
                        target: self.hop(from, &member.hop)?,
                        weight: member.weight,
                        up: from.down.why(&member.hop).is_none(),
                    })
                })
                .collect::<Result<_, Missing>>()?;
            let place = self
                .slots
                .groups
                .get(name)
                .or_missing(|| ItemKey::Group(name.clone()))?;
            self.draft.tables.groups.set(place, Group::new(&members));
        }
        for name in changes.groups.iter().chain(&changes.gone_groups) {
            for member in old.groups.get(name).into_iter().flatten() {
                self.leave(&member.hop);
            }
        }
        Ok(())
    }
}
