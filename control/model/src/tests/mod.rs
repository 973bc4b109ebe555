//! What is refused and what becomes of a state.

mod owners;
mod refusals;
mod told;
mod transactions;

use twinseal_api::v1::{self, item::Item};

use crate::refusal::Refused;
use crate::state::State;
use crate::testing::*;
use crate::{items, parse, transaction};

/// What the keys of [`edge`] are made with.
fn secret_of(key: &v1::Key) -> Vec<u8> {
    secret(match (&key.owner, key.direction()) {
        (Some(v1::key::Owner::Link(_)), v1::Direction::AToB) => 1,
        (Some(v1::key::Owner::Link(_)), _) => 2,
        (_, v1::Direction::AToB) => 3,
        (_, _) => 4,
    })
}

#[test]
fn what_is_read_back_makes_the_same_state() {
    let state = edge();
    let mut items = items::all(&state);
    for item in &mut items {
        if let Some(Item::Key(key)) = &mut item.item {
            assert!(key.secret.is_empty(), "a secret was read back");
            key.secret = secret_of(key);
        }
    }
    let items = items.into_iter().filter_map(|item| item.item);
    let again = apply(&State::default(), sets(items)).state;
    assert_eq!(again, state);
}
