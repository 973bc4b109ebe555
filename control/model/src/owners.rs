//! Whose items are. Every item has an owner: the controller, unless a request says for whom it is. Owners change and sweep
//! what is theirs; what is another's they may point at, and change only if they say that they take it over.
//!
//! Only what is not the controller's is written down, so that a node with one controller pays nothing for it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::parse::ItemKey;
use crate::refusal::{Code, Refused, reason};
use crate::state::{OwnerName, PersistentMap, State};
use crate::transaction::Touched;
use twinseal_base::text::quoted;

/// Owners that a node knows.
pub const MOST: usize = 64;

/// Whose is what is asked for without a name.
const CONTROLLER: OwnerName = OwnerName::fixed("controller");

impl Default for OwnerName {
    fn default() -> Self {
        CONTROLLER
    }
}

impl OwnerName {
    /// As a request names it: nothing for the controller.
    ///
    /// # Errors
    /// If it is no name.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        if text.is_empty() {
            return Ok(CONTROLLER);
        }
        Self::new(text).ok_or_else(|| {
            Refused::whole(
                Code::Invalid,
                "owner",
                format!("{} is no name", quoted(text)),
                "give 1 to 64 of A-Z a-z 0-9 _ . -, or nothing for the controller",
            )
        })
    }

    /// Whether it is the one whose is what is asked for without a name.
    pub fn is_controller(&self) -> bool {
        *self == CONTROLLER
    }

    /// As items tell it: nothing for the controller.
    pub fn told(&self) -> String {
        match self.is_controller() {
            true => String::new(),
            false => self.to_string(),
        }
    }
}

/// Who asks for a transaction.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct By {
    /// Whose becomes what it sets.
    pub owner: OwnerName,
    /// Whether that may be another owner's now.
    pub take_over: bool,
}

impl By {
    /// As a request says it, with what is wrong with that.
    pub fn parse(owner: &str, take_over: bool) -> (Self, Refused) {
        let mut refused = Refused::default();
        let owner = refused.sound(OwnerName::parse(owner)).unwrap_or_default();
        (Self { owner, take_over }, refused)
    }

    /// Whether this names the owner that asks, or none.
    pub(crate) fn owns(&self, told: &str) -> bool {
        told.is_empty() || told == self.owner.as_str()
    }
}

/// What is known of an owner.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Tally {
    /// Of the last transaction of its own, or that changed its items.
    pub generation: u64,
    /// How many it has; of the controller's nobody keeps count.
    items: usize,
}

/// Whose each item of a state is.
#[derive(Clone, Default, Debug)]
pub struct Owners {
    /// But for the controller's.
    items: PersistentMap<ItemKey, OwnerName>,
    known: PersistentMap<OwnerName, Tally>,
}

/// When something changed is no part of what a state says.
impl PartialEq for Owners {
    fn eq(&self, other: &Self) -> bool {
        self.items == other.items
    }
}

impl Owners {
    /// Whether all is the controller's.
    pub fn are_one(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether each item is whose it was since one was cloned from the other.
    pub fn same(&self, other: &Self) -> bool {
        self.items.same(&other.items)
    }

    /// Whose an item is that there is.
    pub fn of(&self, key: &ItemKey) -> OwnerName {
        match self.are_one() {
            true => CONTROLLER,
            false => self.items.get(key).cloned().unwrap_or_default(),
        }
    }

    /// Whether it is this owner's.
    pub fn is(&self, key: &ItemKey, owner: &OwnerName) -> bool {
        match self.are_one() {
            true => owner.is_controller(),
            false => self.items.get(key).unwrap_or(&CONTROLLER) == owner,
        }
    }

    /// Whose it is, if not this owner's.
    pub fn other(&self, key: &ItemKey, owner: &OwnerName) -> Option<OwnerName> {
        (!self.is(key, owner)).then(|| self.of(key))
    }

    /// Whose it is, as items tell it.
    pub fn told(&self, key: &ItemKey) -> String {
        self.items
            .get(key)
            .map_or_else(String::new, OwnerName::told)
    }

    /// Makes it this owner's.
    pub(crate) fn set(&mut self, key: &ItemKey, owner: &OwnerName) {
        if self.is(key, owner) {
            return;
        }
        self.remove(key);
        if !owner.is_controller() {
            self.items.insert(key.clone(), owner.clone());
            self.count(owner, |items| items + 1);
        }
    }

    /// It is gone.
    pub(crate) fn remove(&mut self, key: &ItemKey) {
        if self.are_one() {
            return;
        }
        if let Some(owner) = self.items.take(key) {
            self.count(&owner, |items| items.saturating_sub(1));
        }
    }

    fn count(&mut self, owner: &OwnerName, count: impl Fn(usize) -> usize) {
        match self.known.get_mut(owner) {
            Some(tally) => tally.items = count(tally.items),
            None => {
                let items = count(0);
                let generation = 0;
                let tally = Tally { generation, items };
                self.known.insert(owner.clone(), tally);
            }
        }
    }

    /// The last generation in which something of this owner's changed, or in which it changed something; 0: it is not known.
    pub fn generation(&self, owner: &OwnerName) -> u64 {
        self.known.get(owner).map_or(0, |tally| tally.generation)
    }

    /// The generations of all that are known.
    pub fn generations(&self) -> impl Iterator<Item = (&OwnerName, u64)> {
        let known = self.known.iter();
        known.map(|(owner, tally)| (owner, tally.generation))
    }

    /// Says in which generation something of this owner's changed last.
    pub fn changed(&mut self, owner: &OwnerName, generation: u64) {
        match self.known.get_mut(owner) {
            Some(tally) => tally.generation = generation,
            None => {
                let items = 0;
                let tally = Tally { generation, items };
                self.known.insert(owner.clone(), tally);
            }
        }
    }

    /// Takes over what is known of when owners changed something, not what they have.
    pub fn changed_as(&mut self, others: &Self) {
        for (owner, generation) in others.generations() {
            self.changed(owner, generation);
        }
    }
}

impl State {
    /// The owners that have items or had some, each with its generation and number of items.
    pub fn owned(&self) -> impl Iterator<Item = (&OwnerName, u64, usize)> {
        let others: usize = self.owners.known.values().map(|tally| tally.items).sum();
        let rest = self.count() - others.min(self.count());
        self.owners.known.iter().map(move |(owner, tally)| {
            let items = match owner.is_controller() {
                true => rest,
                false => tally.items,
            };
            (owner, tally.generation, items)
        })
    }

    /// Owners other than this one that have items.
    pub fn others(&self, owner: &OwnerName) -> Vec<OwnerName> {
        let others = self.owned().filter(|(_, _, items)| *items > 0);
        let others = others.map(|(other, ..)| other).filter(|it| *it != owner);
        others.cloned().collect()
    }
}

/// Refuses changes of what another owner has.
pub(crate) fn check(old: &State, touched: &Touched, by: &By, refused: &mut Refused) {
    let alone = old.owners.are_one() && by.owner.is_controller();
    if alone || by.take_over {
        return;
    }
    for (item, index) in touched {
        if let Some(other) = old.owners.other(item, &by.owner)
            && old.has(item)
        {
            refused.push(reason(
                Code::Owner,
                Some(*index),
                item,
                "owner",
                format!(
                    "it is owner {other:?}'s, and this transaction is {:?}'s",
                    by.owner
                ),
                "ask that owner to change it, or say take_over to make it this one's",
            ));
        }
    }
}

/// Takes down whose items a transaction changed, and forgets owners without any if there are too many.
pub(crate) fn tally(
    old: &State,
    new: &mut State,
    touched: &Touched,
    by: &OwnerName,
    refused: &mut Refused,
) {
    let generation = new.generation;
    new.owners.changed(by, generation);
    for other in taken_from(old, touched, by) {
        new.owners.changed(&other, generation);
    }
    let known = new.owners.known.iter();
    let idle =
        known.filter(|(owner, tally)| tally.items == 0 && *owner != by && !owner.is_controller());
    let mut idle: Vec<_> = idle
        .map(|(owner, it)| (it.generation, owner.clone()))
        .collect();
    idle.sort();
    let much = new.owners.known.len().saturating_sub(MOST);
    for (_, owner) in idle.iter().take(much) {
        new.owners.known.remove(owner);
    }
    if new.owners.known.len() > MOST {
        refused.append(Refused::whole(
            Code::NoRoom,
            "owner",
            format!("{by:?} would be one owner more than the {MOST} that a node knows"),
            "ask as one of those that there are, or have one of them delete all that it has",
        ));
    }
}

/// Takes down whose items it changes to go back for an owner.
pub(crate) fn back(old: &State, new: &mut State, touched: &Touched, by: &OwnerName) {
    new.owners.changed_as(&old.owners);
    let mut concerned = taken_from(old, touched, by);
    concerned.extend(taken_from(new, touched, by));
    concerned.insert(by.clone());
    for owner in concerned {
        new.owners.changed(&owner, new.generation);
    }
}

/// The owners but `by` that had some of this.
pub fn taken_from(old: &State, touched: &Touched, by: &OwnerName) -> BTreeSet<OwnerName> {
    let mut others = BTreeSet::new();
    if old.owners.are_one() && by.is_controller() {
        return others;
    }
    for item in touched.keys() {
        if let Some(other) = old.owners.other(item, by)
            && old.has(item)
            && !others.contains(&other)
        {
            others.insert(other);
        }
    }
    others
}

/// An owner as people read it.
pub fn shown(told: &str) -> Cow<'_, str> {
    match told {
        "" => CONTROLLER.as_str().to_owned().into(),
        name => name.into(),
    }
}
