//! Keys: a thousand rotations under load, limits, and secrets that may serve once.

mod node;

use std::num::NonZero;
use std::time::Duration;

use tempfile::TempDir;
use twinseal_api::v1::{
    self, Direction::AToB, Direction::BToA, RefusalCode, change::Change, event::Event as Kind,
    item::Item,
};
use twinseal_model::state::Limits;
use twinseal_server::NodeConfig;

use node::*;

const ROTATIONS: u32 = 1000;

/// A secret that no other epoch has.
fn fresh(owner: v1::key::Owner, epoch: u32) -> Item {
    let Item::Key(mut key) = key(owner, AToB, epoch, 0) else {
        unreachable!("it makes keys")
    };
    let is_link = matches!(key.owner, Some(v1::key::Owner::Link(_)));
    key.secret = [epoch.to_be_bytes(); 8].concat();
    key.secret[31] = u8::from(is_link);
    key.receiver_index = if is_link { 1000 + epoch } else { 0 };
    Item::Key(key)
}

fn retire(epoch: u32) -> [v1::Change; 2] {
    use v1::key_ref::Owner;
    [Owner::Link("l1".into()), Owner::Circuit("c1".into())].map(|owner| v1::Change {
        change: Some(Change::Delete(v1::ItemRef {
            item: Some(v1::item_ref::Item::Key(v1::KeyRef {
                owner: Some(owner),
                direction: AToB.into(),
                epoch,
            })),
        })),
    })
}

#[test]
fn a_thousand_rotations_under_load_lose_nothing() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("rotations");
    let (a, b) = (config(dir.path(), "a"), config(dir.path(), "b"));
    let _a = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        apply(&mut a, edge(&tag, v1::End::A)).await.expect("sound");
        apply(&mut b, edge(&tag, v1::End::B)).await.expect("sound");
        let mut flow = Flow::new(&tag);
        for epoch in 2..2 + ROTATIONS {
            let keys = || [fresh(link_owner(), epoch), fresh(circuit_owner(), epoch)];
            // Make before break. B lets the epoch before the last go, of which all packets have arrived.
            let mut install = request(keys());
            if epoch > 2 {
                install.changes.extend(retire(epoch - 2));
            }
            flow.send(3);
            b.apply(install).await.expect("sound");
            flow.send(3);
            let mut switch = request(keys());
            switch.changes.extend(
                request([
                    transmit(v1::transmit::Owner::Link("l1".into()), epoch),
                    transmit(v1::transmit::Owner::Circuit("c1".into()), epoch),
                ])
                .changes,
            );
            switch.changes.extend(retire(epoch - 1));
            a.apply(switch).await.expect("sound");
            flow.send(3);
            flow.all_arrive().await;
        }
        assert_eq!(flow.received, 9 * ROTATIONS);
        let (a, b) = (get(&mut a).await, get(&mut b).await);
        assert_eq!((a.keys.len(), b.keys.len()), (4, 6));
    });
}

#[test]
fn limits_tell_before_they_stop_a_key() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("limits");
    let limits = Limits {
        seconds: NonZero::new(3600),
        ..Limits::default()
    };
    let a = NodeConfig {
        key_limits: limits,
        ..config(dir.path(), "a")
    };
    let b = config(dir.path(), "b");
    let _a = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        let with = |item: Item, limits: v1::KeyLimits| match item {
            Item::Key(key) => Item::Key(v1::Key {
                limits: Some(limits),
                ..key
            }),
            item => item,
        };
        let packets = v1::KeyLimits {
            packets: 80,
            ..Default::default()
        };
        let mut items = edge(&tag, v1::End::A);
        for item in &mut items {
            if matches!(item, Item::Key(key) if key.owner == Some(circuit_owner())) {
                *item = with(item.clone(), packets);
            }
        }
        apply(&mut a, items).await.expect("sound");
        apply(&mut b, edge(&tag, v1::End::B)).await.expect("sound");
        let mut events = a
            .watch(v1::WatchRequest::default())
            .await
            .expect("it streams")
            .into_inner();
        let mut next = async || loop {
            let event = tokio::time::timeout(Duration::from_secs(10), events.message()).await;
            let event = event
                .expect("it comes")
                .expect("it streams")
                .expect("it goes on");
            if let Some(Kind::Key(event)) = event.event
                && !event.limit.is_empty()
            {
                let owner = event.key.as_ref().and_then(|key| key.owner.clone());
                assert_eq!(owner, Some(v1::key_ref::Owner::Circuit("c1".into())));
                return (event.change(), event.limit);
            }
        };
        let mut flow = Flow::new(&tag);
        flow.send(70);
        flow.all_arrive().await;
        assert_eq!(
            next().await,
            (v1::KeyChange::NearlyExhausted, "packets".into())
        );
        flow.send(10);
        flow.all_arrive().await;
        assert_eq!(next().await, (v1::KeyChange::Exhausted, "packets".into()));
        flow.send(5);
        let dropped = async |client: &mut _| {
            let drops = stats(client).await.drops;
            let found = drops.iter().find(|drop| drop.name == "counter_exhausted");
            found.expect("it is listed").value
        };
        while dropped(&mut a).await < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // These are lost, and counted; the next epoch goes on. Its limit is of octets: 100 packets of 32.
        flow.received += 5;
        let octets = v1::KeyLimits {
            bytes: 3200,
            ..Default::default()
        };
        let key = || with(fresh(circuit_owner(), 2), octets);
        apply(&mut b, [key()]).await.expect("sound");
        let switch = transmit(v1::transmit::Owner::Circuit("c1".into()), 2);
        apply(&mut a, [key(), switch]).await.expect("sound");
        flow.send(99);
        flow.all_arrive().await;
        assert_eq!(
            next().await,
            (v1::KeyChange::NearlyExhausted, "bytes".into())
        );
        // A limit can be raised while the key is in use.
        let more = v1::KeyLimits {
            bytes: 1 << 40,
            ..Default::default()
        };
        apply(&mut a, [with(key(), more)]).await.expect("sound");
        flow.send(20);
        flow.all_arrive().await;
        let soon = v1::KeyLimits {
            seconds: 1,
            ..Default::default()
        };
        apply(&mut a, [with(key(), soon)]).await.expect("sound");
        assert_eq!(next().await, (v1::KeyChange::Exhausted, "seconds".into()));
        let keys = get(&mut a).await.keys;
        let exhausted = keys.iter().filter(|key| key.exhausted);
        assert_eq!(exhausted.count(), 2);
    });
}

#[test]
fn a_secret_serves_one_key_at_one_end_once() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("serves");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        let two = [
            key(circuit_owner(), AToB, 2, 50),
            key(circuit_owner(), BToA, 2, 51),
            key(link_owner(), BToA, 2, 52),
        ];
        apply(&mut client, two).await.expect("sound");
        let mut change = request([]);
        for (owner, direction) in [
            (v1::key_ref::Owner::Circuit("c1".into()), AToB),
            (v1::key_ref::Owner::Circuit("c1".into()), BToA),
            (v1::key_ref::Owner::Link("l1".into()), BToA),
        ] {
            change.changes.push(v1::Change {
                change: Some(Change::Delete(v1::ItemRef {
                    item: Some(v1::item_ref::Item::Key(v1::KeyRef {
                        owner: Some(owner),
                        direction: direction.into(),
                        epoch: 2,
                    })),
                })),
            });
        }
        client.apply(change).await.expect("they go");

        // While they live, in one transaction, and after they have gone.
        let (reused, burned) = (RefusalCode::SecretReused, RefusalCode::SecretBurned);
        let cases: Vec<(Vec<Item>, RefusalCode)> = vec![
            (vec![key(circuit_owner(), AToB, 3, 1)], reused),
            (vec![key(circuit_owner(), AToB, 3, 2)], reused),
            (vec![key(circuit_owner(), AToB, 3, 4)], reused),
            (vec![key(link_owner(), BToA, 3, 2)], reused),
            (
                vec![
                    key(circuit_owner(), AToB, 3, 60),
                    key(link_owner(), AToB, 3, 60),
                ],
                reused,
            ),
            (
                vec![
                    key(circuit_owner(), AToB, 3, 60),
                    key(circuit_owner(), BToA, 3, 60),
                ],
                reused,
            ),
            (vec![key(circuit_owner(), BToA, 2, 50)], reused),
            (vec![key(circuit_owner(), AToB, 3, 50)], reused),
            (vec![key(link_owner(), AToB, 2, 50)], reused),
            (vec![key(circuit_owner(), AToB, 2, 51)], reused),
            (vec![key(circuit_owner(), BToA, 2, 51)], burned),
            (vec![key(link_owner(), BToA, 2, 52)], burned),
        ];
        for (n, (items, wanted)) in cases.into_iter().enumerate() {
            let status = apply(&mut client, items).await.expect_err("it has served");
            let codes: Vec<_> = refusal(&status).iter().map(v1::RefusedItem::code).collect();
            assert!(codes.contains(&wanted), "case {n}: {status}");
            // What is in use has lost nothing.
            assert!(n > 0 || !codes.contains(&burned), "{status}");
            // What is another key's here may be meant for another node.
            let hint = refusal(&status)
                .iter()
                .any(|it| it.fix.contains("another node's file"));
            match n {
                0..=3 => assert!(hint, "case {n}: {status}"),
                10.. => assert!(!hint, "case {n}: {status}"),
                _ => {}
            }
        }
        // What was never used to seal may come again where it was.
        apply(&mut client, [key(circuit_owner(), AToB, 2, 50)])
            .await
            .expect("sound");
    });
}

#[test]
fn a_circuit_with_both_ends_alike_is_told_by_what_it_is() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("alike");
    let (a, b) = (config(dir.path(), "a"), config(dir.path(), "b"));
    let _a = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        apply(&mut a, edge(&tag, v1::End::A)).await.expect("sound");
        // The links are as they should be.
        let mut items = edge(&tag, v1::End::B);
        for item in &mut items {
            if let Item::Circuit(circuit) = item {
                circuit.end = v1::End::A.into();
            }
        }
        apply(&mut b, items).await.expect("nobody here can know");
        let mut flow = Flow::new(&tag);
        let begin = std::time::Instant::now();
        let warning = loop {
            flow.send(1);
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(warning) = get(&mut b).await.warnings.pop() {
                break warning;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "nobody is warned"
            );
        };
        let words = "circuit \"c1\": its packets come and none can be opened (circuit_authentication): here it is end a with id 77";
        assert!(warning.starts_with(words), "{warning}");
        let request = v1::ExplainRequest {
            vrf: "red".into(),
            destination: "10.1.0.9".into(),
            ..Default::default()
        };
        let explained = b.explain(request).await.expect("it answers").into_inner();
        assert_eq!(explained.warnings, [warning]);
        assert_eq!(get(&mut a).await.warnings, [""; 0], "nothing came there");
    });
}

/// Two requests are no way round what one may not do.
#[test]
fn epochs_do_not_go_back_by_way_of_none() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("no-way-back");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        let to = |epoch| transmit(v1::transmit::Owner::Link("l1".into()), epoch);
        // A key that has not transmitted yet holds nothing.
        for epoch in [2, 3] {
            let new = [fresh(link_owner(), epoch)];
            apply(&mut client, new).await.expect("sound");
        }
        apply(&mut client, [to(2)]).await.expect("it is higher");
        let mut none = request([]);
        none.changes.push(v1::Change {
            change: Some(Change::Delete(v1::ItemRef {
                item: Some(v1::item_ref::Item::Transmit(v1::TransmitRef {
                    owner: Some(v1::transmit_ref::Owner::Link("l1".into())),
                })),
            })),
        });
        client.apply(none).await.expect("nothing is sent then");
        let status = apply(&mut client, [to(1)]).await.expect_err("it is lower");
        let told = refusal(&status);
        assert_eq!(told.len(), 1, "{status}");
        assert_eq!(told[0].code(), RefusalCode::Epoch, "{status}");
        assert_eq!((told[0].change, &*told[0].field), (0, "epoch"), "{status}");
        apply(&mut client, [to(2)]).await.expect("it goes on");
    });
}
