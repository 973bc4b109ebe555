//! Tables while they are written.

use super::trie::{Editor, Key, Leaf, Number};
use super::{Fib, InboundSa, LabelAction, LinkIndex, Swap, Target, VrfIndex};

/// The next snapshot, as the control thread makes it out of the last one.
///
/// Ports, VRFs, links, circuits, groups and next hops are entered in `tables` by who knows their places; what is found by
/// a number or an address, here.
#[derive(Default)]
pub struct Draft {
    /// What is written so far. Its tries are those of the last snapshot.
    pub tables: Fib,
    editor: Editor,
    free_receivers: Vec<u32>,
    receivers: u32,
    free_swaps: Vec<u32>,
    swaps: u32,
}

/// An address family's routes of a VRF.
pub trait Address: Key {
    /// Where they are.
    fn root(vrf: &mut super::Vrf) -> &mut Self::Root;
}

impl Address for [u8; 4] {
    fn root(vrf: &mut super::Vrf) -> &mut Self::Root {
        &mut vrf.routes_v4
    }
}

impl Address for [u8; 16] {
    fn root(vrf: &mut super::Vrf) -> &mut Self::Root {
        &mut vrf.routes_v6
    }
}

impl Draft {
    /// A snapshot with this number of all that was written.
    pub fn publish(&mut self, generation: u64) -> Fib {
        self.tables.generation = generation;
        self.tables.tries = self.editor.publish();
        self.tables.clone()
    }

    /// Sets the route of a prefix, and returns where it led before. Without the VRF nothing happens.
    pub fn set_route<A: Address>(
        &mut self,
        vrf: VrfIndex,
        address: A,
        len: u8,
        target: Target,
    ) -> Option<Target> {
        let root = A::root(self.tables.vrfs.get_mut(vrf.0)?);
        let before = self.editor.set(root, address, len.into(), target.leaf());
        before.and_then(Target::of)
    }

    /// Removes a route and returns where it led.
    pub fn remove_route<A: Address>(
        &mut self,
        vrf: VrfIndex,
        address: A,
        len: u8,
    ) -> Option<Target> {
        let root = A::root(self.tables.vrfs.get_mut(vrf.0)?);
        let before = self.editor.remove(root, address, len.into());
        before.and_then(Target::of)
    }

    /// Removes a VRF with its routes.
    pub fn remove_vrf(&mut self, vrf: VrfIndex) {
        if let Some(mut vrf) = self.tables.vrfs.remove(vrf.0) {
            self.editor.clear::<[u8; 4]>(&mut vrf.routes_v4);
            self.editor.clear::<[u8; 16]>(&mut vrf.routes_v6);
        }
    }

    /// Sets the receive key that an index names.
    pub fn set_receiver(&mut self, index: u32, receiver: InboundSa) {
        let root = &mut self.tables.receiver_root;
        let known = self.editor.get(root, Number(index), Number::BITS);
        let leaf = known.unwrap_or_else(|| {
            let leaf = take(&mut self.free_receivers, &mut self.receivers);
            self.editor.set(root, Number(index), Number::BITS, leaf);
            leaf
        });
        self.tables.receivers.set(leaf, receiver);
    }

    /// Removes it.
    pub fn remove_receiver(&mut self, index: u32) {
        let root = &mut self.tables.receiver_root;
        if let Some(leaf) = self.editor.remove(root, Number(index), Number::BITS) {
            self.tables.receivers.remove(leaf);
            self.free_receivers.push(leaf);
        }
    }

    /// Sets what to do with a label that arrives on a link. Without the link nothing happens.
    pub fn set_label(&mut self, link: LinkIndex, label: u32, action: LabelAction) {
        if self.tables.links.get(link.0).is_none() {
            return;
        }
        let leaf = match action {
            LabelAction::Egress(circuit) => Target::Circuit(circuit).leaf(),
            LabelAction::Swap(swap) => {
                let place = take(&mut self.free_swaps, &mut self.swaps);
                self.tables.swaps.set(place, swap);
                swap_leaf(place)
            }
        };
        let before = self.tables.links.get_mut(link.0).and_then(|link| {
            self.editor
                .set(&mut link.labels, Number(label), Number::BITS, leaf)
        });
        self.drop_swap(before);
    }

    /// Removes it.
    pub fn remove_label(&mut self, link: LinkIndex, label: u32) {
        let before = self.tables.links.get_mut(link.0).and_then(|link| {
            self.editor
                .remove(&mut link.labels, Number(label), Number::BITS)
        });
        self.drop_swap(before);
    }

    fn drop_swap(&mut self, leaf: Option<Leaf>) {
        if let Some(place) = leaf.and_then(swap_place) {
            self.tables.swaps.remove(place);
            self.free_swaps.push(place);
        }
    }
}

impl Fib {
    /// The receive key that a leaf of [`Fib::receiver_root`] stands for.
    #[inline(always)]
    pub fn receiver(&self, leaf: Leaf) -> Option<&InboundSa> {
        self.receivers.get(leaf)
    }

    /// Asks the processor for what leaves of a link's labels are swapped to.
    #[inline(always)]
    pub fn prefetch_swaps(&self, leaves: &[Leaf]) {
        for swap in leaves.iter().filter_map(|&leaf| swap_place(leaf)) {
            self.swaps.prefetch(swap, 0);
        }
    }

    /// Asks the processor for where leaves of routes lead.
    #[inline(always)]
    pub fn prefetch_targets(&self, leaves: &[Leaf]) {
        for &leaf in leaves {
            match Target::of(leaf) {
                Some(Target::Circuit(circuit)) => self.circuits.prefetch(circuit.0, 0),
                Some(Target::NextHop(via)) => self.vias.prefetch(via.0, 0),
                Some(Target::Group(group)) => self.groups.prefetch(group.0, 0),
                _ => {}
            }
        }
    }

    /// All receive keys of links.
    pub fn receivers(&self) -> impl Iterator<Item = &InboundSa> {
        self.receivers.iter().map(|(_, receiver)| receiver)
    }

    /// The action that a leaf of a link's labels stands for.
    #[inline(always)]
    pub fn label_action(&self, leaf: Leaf) -> Option<LabelAction> {
        if let Some(place) = swap_place(leaf) {
            let swap: &Swap = self.swaps.get(place)?;
            return Some(LabelAction::Swap(*swap));
        }
        match Target::of(leaf)? {
            Target::Circuit(circuit) => Some(LabelAction::Egress(circuit)),
            _ => None,
        }
    }
}

/// Leaves of swaps look like those of next hops, which no label has.
fn swap_leaf(place: u32) -> Leaf {
    Target::NextHop(super::NextHopIndex(place)).leaf()
}

#[inline(always)]
fn swap_place(leaf: Leaf) -> Option<u32> {
    match Target::of(leaf)? {
        Target::NextHop(via) => Some(via.0),
        _ => None,
    }
}

/// A place that is free; from 1 on, as a leaf is.
fn take(free: &mut Vec<u32>, used: &mut u32) -> u32 {
    free.pop().unwrap_or_else(|| {
        *used += 1;
        *used
    })
}
