//! Whose items are, and who may change them.

use twinseal_api::v1::{self, item::Item, item_ref::Item as Ref, route::Target};

use super::*;
use crate::diff;
use crate::owners::{By, MOST};
use crate::parse::{ItemKey, Parsed};
use crate::refusal::Code;
use crate::state::{Name, Prefix};
use crate::sweep::sweep;
use crate::transaction::Outcome;

fn by(owner: &str, take_over: bool) -> By {
    let (by, unfit) = By::parse(owner, take_over);
    assert!(unfit.is_empty(), "{unfit}");
    by
}

fn ask(old: &State, by: By, changes: Vec<v1::Change>) -> Result<Outcome, Refused> {
    transaction::apply(old, parse::changes_by(by, changes))
}

fn done(old: &State, owner: &str, changes: Vec<v1::Change>) -> State {
    let outcome = ask(old, by(owner, false), changes);
    outcome
        .unwrap_or_else(|refused| panic!("refused: {refused}"))
        .state
}

/// The whole of an owner's.
fn whole(old: &State, by: By, items: Vec<Item>) -> Result<Outcome, Refused> {
    let mut parsed = Parsed {
        by,
        ..Parsed::default()
    };
    for (change, index) in sets(items).into_iter().zip(0..) {
        if let Some(v1::change::Change::Set(item)) = change.change {
            parsed.set(index, item);
        }
    }
    sweep(old, &mut parsed);
    transaction::apply(old, parsed)
}

fn blackhole(prefix: &str) -> Item {
    route("red", prefix, Target::Blackhole(v1::Blackhole {}))
}

fn gone(prefix: &str) -> v1::Change {
    delete(Ref::Route(v1::RouteRef {
        vrf: "red".into(),
        prefix: prefix.into(),
    }))
}

/// The controller's edge, with a blackhole of bgp's.
fn with_bgp() -> State {
    done(&edge(), "bgp", vec![set(blackhole("10.9.0.0/16"))])
}

const BGP: &str = "route 10.9.0.0/16 in vrf \"red\"";

/// Its generation, and how many items it has.
fn owned(state: &State, owner: &str) -> (u64, usize) {
    let mut owned = state.owned().filter(|(it, ..)| it.as_str() == owner);
    let found = owned.next();
    found.map_or((0, 0), |(_, generation, items)| (generation, items))
}

#[track_caller]
fn refuses(answer: Result<Outcome, Refused>, expected: &[(&str, Code)]) -> Refused {
    let Err(refused) = answer else {
        panic!("it was taken");
    };
    let told = refused.items().iter().map(|it| (&*it.item, it.code()));
    assert_eq!(told.collect::<Vec<_>>(), expected, "{refused}");
    refused
}

#[test]
fn what_another_owner_has_is_changed_by_nobody_else() {
    let state = with_bgp();
    let prefix = Prefix::new([10, 9, 0, 0].into(), 16).expect("a prefix");
    let key = ItemKey::Route(Name::new("red").expect("a name"), prefix);
    assert_eq!(state.owners.of(&key).as_str(), "bgp");
    assert_eq!(owned(&state, "bgp"), (2, 1));
    assert_eq!(owned(&state, "controller"), (1, state.count() - 1));
    // Neither set nor deleted, nor set as it is; all that is another's is told.
    let both = vec![set(blackhole("10.9.0.0/16")), gone("10.0.0.0/24")];
    let bgp = (BGP, Code::Owner);
    let own = ("route 10.0.0.0/24 in vrf \"red\"", Code::Owner);
    let refused = refuses(ask(&state, by("", false), both.clone()), &[bgp]);
    let told = &refused.items()[0];
    assert!(told.reason.contains("\"bgp\"") && told.field == "owner");
    refuses(ask(&state, by("bgp", false), both.clone()), &[own]);
    refuses(ask(&state, by("etcd", false), both), &[bgp, own]);
    // An owner is a name, and an item names its request's or none.
    let (_, unfit) = By::parse("a/b", false);
    assert_eq!(unfit.items()[0].field, "owner");
    let mut theirs = set(vrf("blue"));
    if let Some(v1::change::Change::Set(item)) = &mut theirs.change {
        item.owner = "bgp".into();
    }
    let other = ask(&state, by("", false), vec![theirs.clone()]);
    let refused = refuses(other, &[("vrf \"blue\"", Code::Invalid)]);
    assert_eq!(refused.items()[0].field, "owner");
    assert!(ask(&state, by("bgp", false), vec![theirs]).is_ok());
}

#[test]
fn what_is_taken_over_is_a_change_of_both_owners() {
    let state = done(&with_bgp(), "etcd", vec![set(vrf("blue"))]);
    let changes = vec![set(blackhole("10.9.0.0/16"))];
    let taken = ask(&state, by("", true), changes).expect("taken over");
    assert_eq!(taken.changes.counts.updated, 1);
    let differences = diff::differences(&state, &taken.state, &taken.touched);
    let report = diff::report(&differences, taken.changes.counts);
    let owner = |item: &Option<v1::Item>| item.clone().expect("it is there").owner;
    let sides = report.changes.iter();
    let sides: Vec<_> = sides.map(|it| (owner(&it.old), owner(&it.new))).collect();
    assert_eq!(sides, [("bgp".to_owned(), String::new())]);
    assert_eq!(owned(&taken.state, "bgp"), (4, 0));
    assert_eq!(owned(&taken.state, "controller").0, 4);
    assert_eq!(owned(&taken.state, "etcd"), (3, 1));
}

#[test]
fn an_owner_replaces_what_it_has_and_nothing_else() {
    let state = with_bgp();
    let more = ["10.8.0.0/16", "10.9.0.0/16"].map(blackhole).to_vec();
    let state = whole(&state, by("bgp", false), more).expect("sound").state;
    let less = vec![blackhole("10.8.0.0/16")];
    let less = whole(&state, by("bgp", false), less).expect("sound");
    let counts = less.changes.counts;
    assert_eq!((counts.deleted, counts.all()), (1, 1));
    let same = whole(&less.state, by("", false), edge_items()).expect("sound");
    assert_eq!(same.changes.counts.all(), 0);
    let nothing = whole(&same.state, by("new", false), Vec::new()).expect("sound");
    assert_eq!(nothing.changes.counts.all(), 0);
    assert_eq!(owned(&nothing.state, "bgp").1, 1);
    // What is equal and another's is not its own.
    let mut items = edge_items();
    items.push(blackhole("10.8.0.0/16"));
    let equal = whole(&nothing.state, by("", false), items);
    let bgp = "route 10.8.0.0/16 in vrf \"red\"";
    refuses(equal, &[(bgp, Code::Owner)]);
}

#[test]
fn items_may_point_at_what_another_owner_has_and_hold_it() {
    let to = route("red", "10.9.0.0/16", Target::Circuit("c1".into()));
    let state = done(&edge(), "bgp", vec![set(to)]);
    let circuit = delete(Ref::Circuit("c1".into()));
    let Err(refused) = ask(&state, by("", false), vec![circuit]) else {
        panic!("bgp's route needs it");
    };
    let by_bgp = |it: &&crate::refusal::RefusedItem| it.reason.contains("10.9.0.0/16");
    let (held, own): (Vec<_>, Vec<_>) = refused.items().iter().partition(by_bgp);
    assert_eq!(held[0].code(), Code::InUse);
    assert!(held[0].reason.contains("owner \"bgp\""), "{refused}");
    assert!(held[0].fix.contains("that owner"), "{refused}");
    // Of one's own it is said as it ever was.
    assert!(!own.is_empty(), "{refused}");
    assert!(
        own.iter().all(|it| !it.reason.contains("owner")),
        "{refused}"
    );
}

#[test]
fn keys_of_another_owner_do_not_go_with_a_circuit_unseen() {
    let bare = edge_items().into_iter();
    let bare = bare.filter(|it| match it {
        Item::Key(_) | Item::Transmit(_) | Item::Route(_) | Item::Group(_) => false,
        Item::Label(label) => label.label != 200,
        _ => true,
    });
    let state = done(&State::default(), "", sets(bare));
    let key = key(circuit_owner("c1"), v1::Direction::AToB, 1, 3);
    let state = done(&state, "keys", vec![set(Item::Key(key))]);
    let circuit = || vec![delete(Ref::Circuit("c1".into()))];
    let its = "key of circuit \"c1\", a-to-b, epoch 1";
    let refused = ask(&state, by("", false), circuit());
    refuses(refused, &[(its, Code::Owner)]);
    let taken = ask(&state, by("", true), circuit()).expect("taken over");
    assert!(taken.state.keys.is_empty() && taken.state.owners.are_one());
}

#[test]
fn there_are_so_many_owners_and_those_without_items_make_room() {
    let mut state = edge();
    for n in 1..MOST {
        let changes = vec![set(vrf(&format!("v{n}")))];
        state = done(&state, &format!("o{n}"), changes);
    }
    let one_more = || vec![set(vrf("more"))];
    let Err(refused) = ask(&state, by("more", false), one_more()) else {
        panic!("there is no room");
    };
    let told = &refused.items()[0];
    assert_eq!((told.code(), &*told.field), (Code::NoRoom, "owner"));
    let state = done(&state, "o7", vec![delete(Ref::Vrf("v7".into()))]);
    let state = done(&state, "more", one_more());
    assert_eq!(state.owned().count(), MOST);
    assert_eq!((owned(&state, "o7"), owned(&state, "more").1), ((0, 0), 1));
}

#[test]
fn what_is_read_back_says_whose_it_is() {
    let state = with_bgp();
    let all = items::all(&state);
    let of = |owner: &str| all.iter().filter(|it| it.owner == owner).count();
    assert_eq!((of("bgp"), of("")), (1, all.len() - 1));
    // One at a time, from any other on.
    let (mut again, mut last) = (Vec::new(), None);
    while again.len() < all.len() {
        last = items::each_after(&state, last.as_ref(), |item| {
            again.push(item);
            false
        });
    }
    assert_eq!(again, all);
}
