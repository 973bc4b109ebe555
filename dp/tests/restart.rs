//! A node that restarts without a controller: its tables are there, and it says which keys it needs.

mod node;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use twinseal::control::{ControlError, NodeConfig};
use twinseal::ports::memory::End;
use twinseal_api::v1::{self, Direction::AToB, Direction::BToA, RefusalCode, item::Item};

use node::*;

/// The keys of an epoch, for both directions; at each node the same.
fn keys(epoch: u32, n: u8) -> Vec<Item> {
    vec![
        key(link_owner(), AToB, epoch, n),
        key(link_owner(), BToA, epoch, n + 1),
        key(circuit_owner(), AToB, epoch, n + 2),
        key(circuit_owner(), BToA, epoch, n + 3),
    ]
}

fn switch(epoch: u32) -> Vec<Item> {
    vec![
        transmit(v1::transmit::Owner::Link("l1".into()), epoch),
        transmit(v1::transmit::Owner::Circuit("c1".into()), epoch),
    ]
}

/// The newest file of the stored tables of this kind.
fn stored(config: &NodeConfig, kind: &str) -> PathBuf {
    let files = fs::read_dir(config.state_dir.join("tables")).expect("a folder");
    let paths = files.map(|entry| entry.expect("an entry").path());
    let name = |path: &PathBuf| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    let of_kind = paths.filter(|path| name(path).is_some_and(|name| name.starts_with(kind)));
    of_kind.max().expect("there is one")
}

fn damage(path: &Path) {
    let mut octets = fs::read(path).expect("it is there");
    let place = octets.len() - 40;
    octets[place] ^= 1;
    fs::write(path, octets).expect("it can be written");
}

#[test]
fn tables_are_restored_and_packets_flow_once_the_keys_are_there() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("restart");
    let (a, b) = (config(dir.path(), "a"), config(dir.path(), "b"));
    let node = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    let mut flow = Flow::new(&tag);
    let before = on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        apply(&mut a, edge(&tag, v1::End::A)).await.expect("sound");
        apply(&mut b, edge(&tag, v1::End::B)).await.expect("sound");
        flow.send(20);
        flow.all_arrive().await;
        get(&mut a).await
    });
    node.stop();
    let node = Node::start(a.clone()).expect("it starts again");
    on_runtime(async {
        let (mut client, mut b) = (connect(&a).await, connect(&b).await);
        let got = get(&mut client).await;
        assert_eq!((got.generation, &got.items), (1, &before.items));
        assert_eq!((got.ports.len(), got.keys.len()), (2, 4));
        assert!(got.keys.iter().all(|key| key.needed) && got.restoring.is_empty());
        let transmitting = got
            .keys
            .iter()
            .filter(|key| key.transmitting && key.transmitter);
        assert_eq!(transmitting.count(), 2);

        // Its old secrets are of no use, in whichever direction.
        let status = apply(&mut client, keys(1, 1))
            .await
            .expect_err("they have served");
        let codes: Vec<_> = refusal(&status).iter().map(v1::RefusedItem::code).collect();
        assert_eq!(codes, [RefusalCode::SecretBurned; 4], "{status}");
        // Nor can they be kept.
        let mut kept = keys(1, 1);
        for item in &mut kept {
            if let Item::Key(key) = item {
                key.secret.clear();
            }
        }
        let status = apply(&mut client, kept).await.expect_err("they are gone");
        let codes: Vec<_> = refusal(&status).iter().map(v1::RefusedItem::code).collect();
        assert_eq!(codes, [RefusalCode::SecretNeeded; 4], "{status}");

        // Expectations of before hold on, and new epochs are all that it takes.
        apply(&mut b, keys(2, 101)).await.expect("sound");
        let load = v1::ApplyRequest {
            expected_generation: Some(1),
            ..request(keys(2, 101).into_iter().chain(switch(2)))
        };
        client.apply(load).await.expect("sound");
        flow.send(20);
        flow.all_arrive().await;
        let needed = get(&mut client).await.keys;
        assert_eq!(needed.iter().filter(|key| key.needed).count(), 4);
    });
    node.stop();

    // Once more, and now the controller brings the whole state, in the epochs that the node knows of: both ends take them.
    let _node = Node::start(a.clone()).expect("it starts again");
    on_runtime(async {
        let (mut client, mut b) = (connect(&a).await, connect(&b).await);
        assert_eq!(get(&mut client).await.generation, 2);
        apply(&mut b, keys(3, 201)).await.expect("sound");
        let mut items = edge(&tag, v1::End::A);
        items.retain(|item| !matches!(item, Item::Key(_) | Item::Transmit(_)));
        items.extend(keys(3, 201).into_iter().chain(switch(3)));
        let items = items.into_iter().map(|item| v1::Item { item: Some(item) });
        let whole = v1::ReplaceRequest {
            items: items.collect(),
            ..Default::default()
        };
        let answer = client
            .replace(futures::stream::iter([whole]))
            .await
            .expect("sound");
        assert_eq!(answer.into_inner().generation, 3);
        flow.send(20);
        flow.all_arrive().await;
        let got = get(&mut client).await;
        assert!(got.keys.len() == 4 && got.keys.iter().all(|key| !key.needed));
    });
}

#[test]
fn a_lost_key_may_be_made_anew_in_its_epoch_and_is_burned_then() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("anew");
    let config = config(dir.path(), "n");
    for n in [1, 101, 201] {
        let node = Node::start(config.clone()).expect("it starts");
        on_runtime(async {
            let mut client = connect(&config).await;
            match n {
                1 => apply(&mut client, edge(&tag, v1::End::A)).await,
                n => apply(&mut client, keys(1, n)).await,
            }
            .expect("no end has them yet");
            let got = get(&mut client).await;
            assert!(got.keys.iter().all(|key| !key.needed));
        });
        node.stop();
        let _node = Node::start(config.clone()).expect("it starts");
        on_runtime(async {
            let mut client = connect(&config).await;
            let status = apply(&mut client, keys(1, n))
                .await
                .expect_err("they have served");
            assert_eq!(refusal(&status).len(), 4, "{status}");
        });
    }
}

#[test]
fn what_was_not_confirmed_is_not_restored() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("not-confirmed");
    let config = config(dir.path(), "n");
    let vrf = |name: &str| Item::Vrf(v1::Vrf { name: name.into() });
    let waits = |name: &str| v1::ApplyRequest {
        confirm_within_seconds: 600,
        ..request([vrf(name)])
    };
    let node = Node::start(config.clone()).expect("it starts");
    let before = on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        let before = get(&mut client).await.items;
        assert!(
            !client
                .apply(waits("two"))
                .await
                .expect("sound")
                .into_inner()
                .not_stored
        );
        client.apply(waits("three")).await.expect("sound");
        before
    });
    node.stop();
    let node = Node::start(config.clone()).expect("it starts again");
    let with_two = on_runtime(async {
        let mut client = connect(&config).await;
        let got = get(&mut client).await;
        assert_eq!(
            (got.generation, &got.items),
            (4, &before),
            "going back is a change too"
        );
        assert!(got.pending.is_none());
        client.apply(waits("two")).await.expect("sound");
        client
            .confirm(v1::ConfirmRequest { generation: 5 })
            .await
            .expect("it waits");
        client.apply(waits("three")).await.expect("sound");
        client
            .rollback(v1::RollbackRequest { generation: 6 })
            .await
            .expect("it waits");
        get(&mut client).await.items
    });
    node.stop();
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let got = get(&mut connect(&config).await).await;
        assert_eq!((got.generation, got.items), (7, with_two));
    });
}

#[test]
fn damaged_files_are_refused_and_what_came_before_is_used() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("damaged");
    let config = config(dir.path(), "n");
    let vrf = |name: &str| Item::Vrf(v1::Vrf { name: name.into() });
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        apply(&mut client, [vrf("two")]).await.expect("sound");
        apply(&mut client, [vrf("three")]).await.expect("sound");
    });
    node.stop();
    damage(&stored(&config, "journal"));
    let node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let mut client = connect(&config).await;
        assert_eq!(get(&mut client).await.generation, 2);
        apply(&mut client, [vrf("four")]).await.expect("sound");
    });
    node.stop();
    // The snapshot of the second start; its journal, and the files of the first start, are there.
    damage(&stored(&config, "snapshot"));
    let node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let got = get(&mut connect(&config).await).await;
        let vrfs = got.items.iter();
        let vrfs = vrfs.filter(|item| matches!(item.item, Some(Item::Vrf(_))));
        // The journal of the first start up to its damage, then that of the second.
        assert_eq!((got.generation, vrfs.count()), (3, 3));
    });
    node.stop();
    fs::write(config.state_dir.join("mac.key"), "short").expect("it can be written");
    assert!(matches!(
        Node::start(config).err().expect("no key"),
        ControlError::Store(_)
    ));
}

#[test]
fn tables_wait_for_their_devices_and_a_whole_state_does_not() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("waits");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
    });
    node.stop();
    let take = || [0, 1].map(|_| End::open(&format!("{tag}-under"), 1).expect("free"));
    let taken = take();
    let node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let mut client = connect(&config).await;
        let got = get(&mut client).await;
        assert!(
            got.restoring.contains("port \"under\""),
            "{}",
            got.restoring
        );
        assert_eq!((got.generation, got.items.len()), (1, 0));
        let status = apply(&mut client, [Item::Vrf(v1::Vrf { name: "new".into() })])
            .await
            .expect_err("to what?");
        assert_eq!(refusal(&status)[0].code(), RefusalCode::Restoring);
        drop(taken);
        while !get(&mut client).await.restoring.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let got = get(&mut client).await;
        assert_eq!((got.generation, got.ports.len()), (1, 2));
    });
    node.stop();
    let _taken = take();
    let whole = |name: &str| v1::ReplaceRequest {
        items: vec![v1::Item {
            item: Some(Item::Vrf(v1::Vrf { name: name.into() })),
        }],
        ..Default::default()
    };
    let node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let mut client = connect(&config).await;
        client
            .replace(futures::stream::iter([whole("new")]))
            .await
            .expect("it needs nothing");
        let got = get(&mut client).await;
        assert_eq!(
            (got.generation, got.items.len(), got.restoring.len()),
            (2, 1, 0)
        );
    });
    node.stop();
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let got = get(&mut connect(&config).await).await;
        assert_eq!((got.generation, got.items.len()), (2, 1));
    });
}

#[test]
fn a_node_that_keeps_nothing_starts_empty() {
    let dir = TempDir::new().expect("a folder");
    let config = NodeConfig {
        keep_tables: false,
        ..config(dir.path(), "n")
    };
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let one = request([Item::Vrf(v1::Vrf { name: "one".into() })]);
        assert!(
            !client
                .apply(one)
                .await
                .expect("sound")
                .into_inner()
                .not_stored
        );
    });
    node.stop();
    assert!(!config.state_dir.join("tables").exists());
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        assert_eq!(get(&mut connect(&config).await).await.generation, 0);
    });
}
