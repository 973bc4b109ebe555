//! Where and how often a mistake is told.

use twinseal_api::v1::{self, RefusalCode as Code, item::Item, item_ref::Item as Ref};

use super::*;

/// However many refer to it: it is one mistake.
#[test]
fn what_is_in_use_is_told_once() {
    let old = edge();
    let routes = (0..20).map(|n| {
        route(
            "red",
            &format!("10.{n}.0.0/16"),
            v1::route::Target::Blackhole(v1::Blackhole::default()),
        )
    });
    let old = apply(&old, sets(routes)).state;
    let changes = vec![delete(Ref::Vrf("red".into()))];
    let (_, refused) = transaction::judge(&old, parse::changes(changes));
    let told: Vec<_> = refused.items().iter().collect();
    assert_eq!(told.len(), 1, "{refused}");
    assert_eq!((told[0].change, told[0].code()), (0, Code::InUse));
    let why = &told[0].reason;
    assert!(
        why.starts_with("still referred to: port \"hosts\" by vrf, "),
        "{why}"
    );
    assert!(
        why.contains("circuit \"c1\" by vrf") && why.ends_with(" more"),
        "{why}"
    );
    assert!(!why.contains("there is no"), "{why}");
}

/// A whole state that leaves out what its own items refer to: these are what its author can find.
#[test]
fn what_a_whole_state_leaves_out_is_told_where_it_is_missed() {
    let old = edge();
    let all = items::all(&old);
    let without = |gone: fn(&Item) -> bool| {
        let mut parsed = parse::Parsed::default();
        let mut places = Vec::new();
        let kept = all
            .iter()
            .filter(|item| !item.item.as_ref().is_some_and(gone));
        for (index, item) in kept.enumerate() {
            let mut item = item.clone();
            if let Some(Item::Key(key)) = &mut item.item {
                key.secret = secret_of(key);
            }
            places.push((index, item.clone()));
            parsed.set(index, item);
        }
        crate::sweep::sweep(&old, &mut parsed);
        let (_, refused) = transaction::judge(&old, parsed);
        let told = refused
            .items()
            .iter()
            .map(|it| (it.change, it.field.clone(), it.fix.clone()));
        let told: Vec<_> = told.collect();
        assert!(!told.is_empty());
        for (change, field, fix) in &told {
            assert!(
                places.iter().any(|(n, _)| *change == *n as i32),
                "{refused}"
            );
            assert!(!field.is_empty(), "{refused}");
            assert_eq!(
                fix, "set it in the same stream, or name another",
                "{refused}"
            );
        }
        told.into_iter()
            .map(|(_, field, _)| field)
            .collect::<Vec<_>>()
    };
    let fields = without(|it| matches!(it, Item::Vrf(_)));
    assert!(
        fields.iter().all(|field| field == "vrf") && fields.len() > 2,
        "{fields:?}"
    );
    let fields = without(|it| matches!(it, Item::Port(port) if port.name == "under"));
    assert_eq!(fields, ["port"]);
    let fields = without(|it| matches!(it, Item::Circuit(_)));
    assert!(
        fields.iter().all(|field| field.ends_with("circuit")),
        "{fields:?}"
    );
}

/// What an underlay port cannot have is told all at once.
#[test]
fn an_underlay_port_is_told_all_that_only_edge_ports_have() {
    let wrong = v1::Port {
        name: "u".into(),
        role: v1::PortRole::Underlay.into(),
        vrf: "red".into(),
        local: vec!["192.0.2.1".into()],
        checksum: v1::Checksum::Finish.into(),
        device: Some(v1::port::Device::AfXdp(v1::AfXdp {
            netdev: "eth0".into(),
            owned: true,
            ..Default::default()
        })),
        ..Default::default()
    };
    let refused = parse::changes(vec![set(Item::Port(wrong))]).refused;
    let mut fields: Vec<_> = refused.items().iter().map(|it| it.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["af_xdp.owned", "checksum", "local", "vrf"]);
}
