//! What the node would refuse of an entry by itself. It is told beside mistakes of the text, which keep the file from the
//! node: else the one would come to light only when the other is mended.

use std::collections::HashMap;

use twinseal_api::v1;
use v1::change::Change as Of;

use super::Place;
use super::fields::Mistakes;
use super::read::DELETE;
use twinseal_model::parse;

/// Adds what is wrong with the changes, but for `told`: the fields of entries that are told already.
pub(super) fn judge(
    changes: &[v1::Change],
    places: &[Place],
    told: &HashMap<(&'static str, usize), Vec<String>>,
    mistakes: &mut Mistakes<'_>,
) {
    for (change, place) in changes.iter().zip(places) {
        let refused = parse::changes(vec![bare(change)]).refused;
        if refused.is_empty() {
            continue;
        }
        let told = told.get(&(place.section, place.index));
        let told = |field: &str| {
            let mut told = told.into_iter().flatten();
            told.any(|told| covers(within(place, told), field))
        };
        for item in refused.items().iter().filter(|item| !told(&item.field)) {
            mistakes.add(place.at, &item.field, item.reason.clone(), &item.fix);
        }
    }
}

/// The change without its secret, of which no second copy is needed to judge the rest, and without its owner: whose request it
/// comes in is not known here.
fn bare(change: &v1::Change) -> v1::Change {
    let Some(Of::Set(v1::Item {
        item: Some(v1::item::Item::Key(key)),
        ..
    })) = &change.change
    else {
        let mut bare = change.clone();
        if let Some(Of::Set(item)) = &mut bare.change {
            item.owner.clear();
        }
        return bare;
    };
    let key = v1::Key {
        owner: key.owner.clone(),
        direction: key.direction,
        epoch: key.epoch,
        suite: key.suite,
        secret: Vec::new(),
        receiver_index: key.receiver_index,
        limits: key.limits,
        fingerprint: key.fingerprint.clone(),
        needed: key.needed,
    };
    let item = Some(v1::item::Item::Key(key));
    v1::Change {
        change: Some(Of::Set(v1::Item {
            item,
            ..v1::Item::default()
        })),
    }
}

/// A field as the node has it, which knows of what a deletion names only the item itself.
fn within<'a>(place: &Place, field: &'a str) -> &'a str {
    match field.split_once('.') {
        Some((_, rest)) if place.section == DELETE => rest,
        _ => field,
    }
}

/// Whether a mistake in the field `told` is the reason of the node's in `field`.
fn covers(told: &str, field: &str) -> bool {
    // What the node calls the choice is not in the file.
    let (within, choices): (&str, &[&str]) = match field {
        "device" => ("", &["af_xdp", "tap", "memory"]),
        "action" => ("", &["swap", "egress"]),
        "target" => ("", &["circuit", "group", "via", "blackhole"]),
        "owner" => ("", &["link", "circuit"]),
        _ if field.starts_with("members[") && field.ends_with(']') => (field, &["circuit", "via"]),
        _ => ("", &[]),
    };
    let of_choice = told.strip_prefix(within).unwrap_or(told);
    let of_choice = of_choice.trim_start_matches('.');
    is_in(field, told) || choices.iter().any(|choice| is_in(of_choice, choice))
}

/// Whether a field is another, or a part of it.
fn is_in(field: &str, whole: &str) -> bool {
    let rest = field.strip_prefix(whole);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_field_covers_what_the_node_says_of_it() {
        for (told, field) in [
            ("role", "role"),
            ("local", "local[3]"),
            ("via", "via.port"),
            ("af_xdp", "device"),
            ("tap.netdev", "device"),
            ("swap.label", "action"),
            ("members[1].via", "members[1]"),
        ] {
            assert!(covers(told, field), "{told} {field}");
        }
        for (told, field) in [
            ("role", "roles"),
            ("mtu", "device"),
            ("members[1].weight", "members[1]"),
            ("members[2].via", "members[1]"),
        ] {
            assert!(!covers(told, field), "{told} {field}");
        }
    }
}
