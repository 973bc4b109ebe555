//! What is left of a state when some of its ports or links cannot be had: without them, and without all that needs them.

use std::collections::BTreeSet;

use crate::parse::{Action, Item, ItemKey};
use crate::refusal::Refused;
use crate::state::{
    CircuitName, GroupName, Hop, LabelAction, LinkName, Owner, PortName, State, Target,
};
use crate::transaction;
use crate::transaction::Touched;

/// What goes.
#[derive(Default)]
struct Gone {
    ports: BTreeSet<PortName>,
    links: BTreeSet<LinkName>,
    circuits: BTreeSet<CircuitName>,
    groups: BTreeSet<GroupName>,
}

/// Takes the ports and links that a refusal names out of a state, with all that needs them. Tells the items that went or
/// changed: none, if it names nothing of that kind.
pub fn prune(state: &mut State, refused: &Refused) -> Touched {
    let names: BTreeSet<&str> = refused.items().iter().map(|it| it.item.as_str()).collect();
    let named = |item: ItemKey| names.contains(item.to_string().as_str());
    let mut gone = Gone::default();
    let ports = state.ports.keys().cloned();
    gone.ports = ports
        .filter(|it| named(ItemKey::Port(it.clone())))
        .collect();
    let links = state.links.iter();
    gone.links = links
        .filter(|(name, link)| {
            gone.ports.contains(&link.port) || named(ItemKey::Link((*name).clone()))
        })
        .map(|(name, _)| name.clone())
        .collect();
    let circuits = state.circuits.iter();
    gone.circuits = circuits
        .filter(|(_, circuit)| gone.links.contains(&circuit.link))
        .map(|(name, _)| name.clone())
        .collect();
    let actions = gone.actions(state);
    let touched = actions
        .iter()
        .filter_map(|action| match action {
            Action::Delete(item) => Some((item.clone(), 0)),
            Action::Set(item) => Some((item.key(), 0)),
            Action::Install(..) | Action::Keep(..) => None,
        })
        .collect();
    transaction::replay(state, actions.into_iter().map(|action| (action, None)));
    touched
}

impl Gone {
    fn hop(&self, hop: &Hop) -> bool {
        match hop {
            Hop::Circuit(name) => self.circuits.contains(name),
            Hop::Via(via) => self.ports.contains(&via.port),
        }
    }

    fn owner(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Link(name) => self.links.contains(name),
            Owner::Circuit(name) => self.circuits.contains(name),
        }
    }

    fn actions(&mut self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        for (name, members) in state.groups.iter() {
            let left: Vec<_> = members
                .iter()
                .filter(|member| !self.hop(&member.hop))
                .cloned()
                .collect();
            if left.is_empty() {
                self.groups.insert(name.clone());
            } else if left.len() < members.len() {
                actions.push(Action::Set(Item::Group(name.clone(), left)));
            }
        }
        let mut gone: Vec<ItemKey> = Vec::new();
        for (vrf, routes) in state.routes.iter() {
            let routes = routes.iter().filter(|(_, target)| match target {
                Target::Hop(hop) => self.hop(hop),
                Target::Group(name) => self.groups.contains(name),
                Target::Blackhole => false,
            });
            gone.extend(routes.map(|(prefix, _)| ItemKey::Route(vrf.clone(), *prefix)));
        }
        let labels = state.labels.iter().filter(|((on, _), action)| {
            self.links.contains(on)
                || match action {
                    LabelAction::Swap { link, .. } => self.links.contains(link),
                    LabelAction::Egress(circuit) => self.circuits.contains(circuit),
                }
        });
        gone.extend(labels.map(|((on, label), _)| ItemKey::Label(on.clone(), *label)));
        let neighbours = state.neighbours.keys();
        let neighbours = neighbours.filter(|(port, _)| self.ports.contains(port));
        gone.extend(neighbours.map(|(port, it)| ItemKey::Neighbour(port.clone(), *it)));
        let keys = state.keys.keys().filter(|id| self.owner(&id.owner));
        gone.extend(keys.map(|id| ItemKey::Key(id.clone())));
        let transmits = state.transmits.keys().filter(|owner| self.owner(owner));
        gone.extend(transmits.map(|owner| ItemKey::Transmit(owner.clone())));
        gone.extend(self.groups.iter().cloned().map(ItemKey::Group));
        gone.extend(self.circuits.iter().cloned().map(ItemKey::Circuit));
        gone.extend(self.links.iter().cloned().map(ItemKey::Link));
        gone.extend(self.ports.iter().cloned().map(ItemKey::Port));
        actions.extend(gone.into_iter().map(Action::Delete));
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check_whole;
    use crate::refusal::Code;
    use crate::testing::edge;

    #[test]
    fn what_needs_it_goes_and_the_rest_stays_sound() {
        for (named, left) in [
            ("port \"under\"", 7),
            ("link \"l1\"", 8),
            ("port \"hosts\"", 16),
        ] {
            let before = edge();
            let mut state = before.clone();
            let why = "as a test wants it".to_owned();
            let refused = Refused::about(named, Code::Device, "", why, "");
            let touched = prune(&mut state, &refused);
            let mut refused = Refused::default();
            check_whole(&state, &mut refused);
            assert!(refused.is_empty(), "{named}: {refused}");
            let items = crate::items::all(&state);
            assert_eq!(items.len(), left, "{named}: {items:#?}");
            // What it tells is what differs.
            let differs = crate::diff::differences(&before, &state, &touched);
            assert_eq!(differs.len(), touched.len());
            assert_eq!(prune(&mut state, &refused), Touched::new());
        }
    }
}
