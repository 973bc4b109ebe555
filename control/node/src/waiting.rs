//! What waits for the confirmation of its owner, of which there may be several.
//!
//! For each owner that waits the state is kept that a rollback goes back to: the node's, without what waits of this owner's. And
//! one without what waits of any: that is what is on the disk. So what others do meanwhile is done to these as well, and
//! must be sound there: a rollback then never meets what depends on what it takes back, nor a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use twinseal_api::v1;

use crate::confirm::Pending;
use crate::keys::Live;
use twinseal_model::diff::follow;
use twinseal_model::parse::Broken;
use twinseal_model::refusal::{Code, Refused, RefusedItem, reason};
use twinseal_model::state::{OwnerName, State};
use twinseal_model::transaction::{Outcome, Touched};
use twinseal_model::{check, prune};

/// What waits, by whose it is.
#[derive(Default)]
pub(super) struct Waiting {
    by: BTreeMap<OwnerName, Pending>,
    /// Without any of it; `None` if nothing waits.
    settled: Option<State>,
}

impl Waiting {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.by.is_empty()
    }

    /// What waits of an owner's.
    pub(super) fn of(&self, owner: &OwnerName) -> Option<&Pending> {
        self.by.get(owner)
    }

    /// All that waits.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&OwnerName, &Pending)> {
        self.by.iter()
    }

    /// What waits of an owner's, as the API tells it.
    pub(super) fn report(&self, owner: &OwnerName) -> Option<v1::Pending> {
        self.of(owner).map(Pending::report)
    }

    /// Whose time is over.
    pub(super) fn over(&self, since_boot: Duration) -> Vec<OwnerName> {
        let over = self.by.iter().filter(|(_, it)| it.is_over(since_boot));
        over.map(|(owner, _)| owner.clone()).collect()
    }

    /// What does not wait, of what the node has.
    pub(super) fn settled<'a>(&'a self, state: &'a State) -> &'a State {
        self.settled.as_ref().unwrap_or(state)
    }

    /// From now on what this owner does waits; `before` is what there is to go back to, if nothing of it waited yet, and `old`
    /// the state until now.
    pub(super) fn begin(
        &mut self,
        owner: &OwnerName,
        old: &State,
        before: Option<Pending>,
    ) -> Option<&mut Pending> {
        if let Some(pending) = before {
            self.settled.get_or_insert_with(|| old.clone());
            self.by.insert(owner.clone(), pending);
        }
        self.by.get_mut(owner)
    }

    /// It waits no more. What became of it comes next: [`settle`](Self::settle) or [`follow`](Self::follow).
    pub(super) fn take(&mut self, owner: &OwnerName) -> Option<Pending> {
        let pending = self.by.remove(owner);
        if self.by.is_empty() {
            self.settled = None;
        }
        pending
    }

    /// These items do not wait any more, and are as in `state`.
    pub(super) fn settle(&mut self, state: &State, touched: &Touched) {
        if let Some(settled) = &mut self.settled {
            follow(settled, state, touched);
            settled.generation = state.generation;
            settled.owners.changed_as(&state.owners);
        }
    }

    /// An owner changed these items, whether they stay or wait: what others go back to has them, too.
    pub(super) fn follow(
        &mut self,
        owner: &OwnerName,
        stays: bool,
        state: &State,
        live: &Live,
        touched: &Touched,
    ) {
        for pending in self.by.iter_mut().filter(|(it, _)| *it != owner) {
            let Pending {
                state: back,
                live: back_live,
                ..
            } = pending.1;
            follow(back, state, touched);
            back_live.follow(live, back, touched);
        }
        if stays {
            self.settle(state, touched);
        }
    }

    /// Takes out what cannot be had, with all that needs it, as [`prune`](prune::prune) does.
    pub(super) fn prune(&mut self, refused: &Refused) {
        let states = self.by.values_mut().map(|pending| &mut pending.state);
        for state in states.chain(&mut self.settled) {
            prune::prune(state, refused);
        }
    }

    /// Refuses what touches what waits of others, or would not stand without it.
    pub(super) fn check(
        &self,
        owner: &OwnerName,
        stays: bool,
        outcome: &Outcome,
        refused: &mut Refused,
    ) {
        let others = self.by.iter().filter(|(it, _)| *it != owner);
        let mut any = false;
        for (other, pending) in others {
            any = true;
            let waits = format!(
                "generation {} of owner {other:?}, which waits for its confirmation",
                pending.generation
            );
            let mut touches = false;
            for (item, change) in &outcome.touched {
                if pending.touched.contains_key(item) {
                    touches = true;
                    refused.push(reason(
                        Code::Pending,
                        Some(*change),
                        item,
                        "",
                        format!("it is of {waits}"),
                        FIX,
                    ));
                }
            }
            if !touches {
                stands(&pending.state, outcome, &waits, refused);
            }
        }
        if let Some(settled) = self.settled.as_ref().filter(|_| any && stays) {
            stands(settled, outcome, "what waits for its confirmation", refused);
        }
    }
}

/// What to do about what waits.
const FIX: &str = "wait until that owner has confirmed it or rolled it back";

/// Refuses what is sound in the node's state, and not in one without what waits.
fn stands(without: &State, outcome: &Outcome, waits: &str, refused: &mut Refused) {
    let mut new = without.clone();
    follow(&mut new, &outcome.state, &outcome.touched);
    let mut unsound = Refused::default();
    let (touched, broken) = (&outcome.touched, Broken::default());
    check::check(
        without,
        &new,
        (touched, &Touched::new()),
        &broken,
        &mut unsound,
    );
    for item in unsound.items() {
        let known = |it: &RefusedItem| {
            (it.change, &it.item, &it.field) == (item.change, &item.item, &item.field)
        };
        if refused.items().iter().any(known) {
            continue;
        }
        refused.push(RefusedItem {
            reason: format!("without {waits}: {}", item.reason),
            fix: FIX.to_owned(),
            code: Code::Pending.into(),
            ..item.clone()
        });
    }
}
