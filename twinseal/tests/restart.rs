//! A node that restarts without a controller: its tables are there, and it says which keys it needs.

mod node;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use twinseal_api::v1::{self, Direction::AToB, Direction::BToA, RefusalCode, item::Item};
use twinseal_node::state_dir::BURNED_FILE;
use twinseal_runtime::ports::memory::End;
use twinseal_server::NodeConfig;

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

/// Items as they are after a restart, which loses secrets.
fn needed(items: &[v1::Item]) -> Vec<v1::Item> {
    let mut items = items.to_vec();
    for item in &mut items {
        if let Some(Item::Key(key)) = &mut item.item {
            key.needed = true;
        }
    }
    items
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
        assert_eq!((got.generation, got.items), (1, needed(&before.items)));
        assert_eq!((got.ports.len(), got.keys.len()), (2, 4));
        assert!(got.keys.iter().all(|key| key.needed) && got.restoring.is_empty());
        let transmitting = got
            .keys
            .iter()
            .filter(|key| key.transmitting && key.transmitter);
        assert_eq!(transmitting.count(), 0, "what is needed does not transmit");

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
        let whole = whole(items.collect());
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
fn what_get_tells_makes_the_same_state_also_after_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("round");
    let config = config(dir.path(), "n");
    let group = Item::Group(v1::Group {
        name: "g".into(),
        members: [Some(0), Some(7), None]
            .into_iter()
            .map(|weight| v1::Member {
                target: Some(v1::member::Target::Circuit("c1".into())),
                weight,
            })
            .collect(),
    });
    let swap = Item::Label(v1::Label {
        link: "l1".into(),
        label: 900,
        action: Some(v1::label::Action::Swap(v1::Swap {
            link: "l1".into(),
            label: 901,
        })),
    });
    let all = edge(&tag, v1::End::A).into_iter().chain([group, swap]);
    for start in 0..2 {
        let node = Node::start(config.clone()).expect("it starts");
        on_runtime(async {
            let mut client = connect(&config).await;
            if start == 0 {
                apply(&mut client, all.clone()).await.expect("sound");
            }
            let got = get(&mut client).await;
            assert_eq!(got.keys.iter().filter(|key| key.needed).count(), start * 4);
            let items = got.items.iter().filter_map(|item| item.item.clone());
            let applied = client.apply(request(items)).await;
            let replaced = client
                .replace(futures::stream::iter([whole(got.items.clone())]))
                .await;
            for answer in [applied, replaced] {
                let diff = answer.expect("it is what is there").into_inner().diff;
                assert_eq!(diff, Some(v1::Diff::default()), "nothing changed");
            }
            assert_eq!(get(&mut client).await.items, got.items);
        });
        node.stop();
    }
}

#[test]
fn a_restored_key_is_needed_and_transmits_only_once_its_secret_is_there() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("needed");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
    });
    node.stop();
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let mut client = connect(&config).await;
        let from_the_first = v1::WatchRequest {
            kinds: vec![v1::EventKind::Security.into()],
            from_sequence: Some(1),
            ..Default::default()
        };
        let watch = client.watch(from_the_first).await;
        let mut events = watch.expect("it streams").into_inner();
        let load = keys(2, 101).into_iter().chain(switch(2));
        apply(&mut client, load).await.expect("sound");
        let mut told = Vec::new();
        while told.iter().filter(|(_, epoch)| *epoch == 2).count() < 6 {
            let event = events.message().await.expect("no error").expect("no end");
            if let Some(v1::event::Event::Key(it)) = event.event {
                told.push((it.change(), it.key.expect("it names one").epoch));
            }
        }
        let of = |change, epoch| told.iter().filter(|it| **it == (change, epoch)).count();
        use v1::KeyChange::{Installed, Needed, Transmitting};
        assert_eq!((of(Needed, 1), of(Transmitting, 1)), (4, 0), "{told:?}");
        assert_eq!((of(Installed, 2), of(Transmitting, 2)), (4, 2), "{told:?}");
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

/// Its replay windows are lost: what was recorded would pass once more.
#[test]
fn what_has_opened_never_opens_again_after_a_restart() {
    let tag = tag("opened");
    for keep_tables in [true, false] {
        let dir = TempDir::new().expect("a folder");
        let config = NodeConfig {
            keep_tables,
            ..config(dir.path(), "n")
        };
        let receive = |epoch, n| {
            [
                key(link_owner(), BToA, epoch, n),
                key(circuit_owner(), BToA, epoch, n + 1),
            ]
        };
        let node = Node::start(config.clone()).expect("it starts");
        on_runtime(async {
            let mut client = connect(&config).await;
            apply(&mut client, edge(&tag, v1::End::A))
                .await
                .expect("sound");
            // Retired before the restart.
            apply(&mut client, receive(2, 51)).await.expect("sound");
            let mut retire = request([]);
            for owner in [
                v1::key_ref::Owner::Link("l1".into()),
                v1::key_ref::Owner::Circuit("c1".into()),
            ] {
                let key = v1::KeyRef {
                    owner: Some(owner),
                    direction: BToA.into(),
                    epoch: 2,
                };
                retire.changes.push(v1::Change {
                    change: Some(v1::change::Change::Delete(v1::ItemRef {
                        item: Some(v1::item_ref::Item::Key(key)),
                    })),
                });
            }
            client.apply(retire).await.expect("they go");
            // Never confirmed.
            let waits = v1::ApplyRequest {
                confirm_within_seconds: 600,
                ..request(keys(3, 101).into_iter().chain(switch(3)))
            };
            client.apply(waits).await.expect("sound");
        });
        node.stop();
        for lost in [false, true] {
            if lost {
                let _ = fs::remove_dir_all(config.state_dir.join("tables"));
            }
            let node = Node::start(config.clone()).expect("it starts again");
            on_runtime(async {
                let mut client = connect(&config).await;
                if lost || !keep_tables {
                    let mut items = edge(&tag, v1::End::A);
                    items.retain(|item| !matches!(item, Item::Key(_) | Item::Transmit(_)));
                    apply(&mut client, items).await.expect("sound");
                }
                for (epoch, n) in [(2, 51), (3, 102)] {
                    let again = [
                        key(link_owner(), BToA, epoch, n),
                        key(circuit_owner(), BToA, epoch, if n == 51 { 52 } else { 104 }),
                    ];
                    let status = apply(&mut client, again)
                        .await
                        .expect_err("they have opened");
                    let items = refusal(&status);
                    let codes: Vec<_> = items.iter().map(v1::RefusedItem::code).collect();
                    assert_eq!(
                        codes,
                        [RefusalCode::SecretBurned; 2],
                        "{epoch} {lost}: {status}"
                    );
                    assert!(items[0].reason.contains("has opened before"), "{status}");
                }
                // Nor does it seal: the other end has sealed with it.
                let turned = [key(link_owner(), AToB, 5, 51)];
                let codes = refuses(&config, turned.to_vec()).await;
                assert_eq!(codes, [RefusalCode::SecretBurned]);
            });
            node.stop();
        }
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
            (got.generation, got.items),
            (4, needed(&before)),
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
    let _node = Node::start(config.clone()).expect("it shows itself");
    on_runtime(async {
        let got = get(&mut connect(&config).await).await;
        assert!(
            got.secrets_refused.contains("mac.key must hold 32 bytes"),
            "{}",
            got.secrets_refused
        );
        assert_eq!(got.items, []);
    });
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
    let whole = |name: &str| {
        whole(vec![v1::Item {
            item: Some(Item::Vrf(v1::Vrf { name: name.into() })),
        }])
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

/// What a node says about its secrets.
async fn refused(config: &NodeConfig) -> String {
    get(&mut connect(config).await).await.secrets_refused
}

/// Loads keys that must not be taken, and tells why they were not.
async fn refuses(config: &NodeConfig, items: Vec<Item>) -> Vec<RefusalCode> {
    let mut client = connect(config).await;
    let status = apply(&mut client, items).await.expect_err("no secret");
    refusal(&status).iter().map(v1::RefusedItem::code).collect()
}

/// Whatever became of `burned`, no secret that has sealed seals again.
#[test]
fn a_memory_that_has_lost_something_takes_no_secrets() {
    let tag = tag("lost");
    type Spoil = fn(&Path, &[u8]);
    let spoils: [(&str, Spoil); 7] = [
        ("newest cannot be read", |path, _| {
            fs::remove_file(path.with_file_name("newest")).expect("it is there");
            let text = fs::read_to_string(path).expect("text");
            let last = text.trim_end().rfind('\n').expect("lines") + 1;
            fs::write(path, &text[..last]).expect("it can be written");
            // Nothing else tells how far it went.
            let _ = fs::remove_dir_all(path.with_file_name("tables"));
        }),
        ("newest is cut off", |path, _| {
            fs::write(path.with_file_name("newest"), "").expect("it can be written");
        }),
        ("is missing", |path, _| {
            fs::remove_file(path).expect("it is there")
        }),
        ("has lost lines", |path, _| {
            let text = fs::read_to_string(path).expect("text");
            let last = text.trim_end().rfind('\n').expect("lines") + 1;
            fs::write(path, &text[..last]).expect("it can be written");
        }),
        ("has lost lines", |path, before| {
            fs::write(path, before).expect("it can be written")
        }),
        ("line 2 is damaged", |path, _| {
            let text = fs::read_to_string(path).expect("text");
            let lines: Vec<_> = text.split_inclusive('\n').collect();
            fs::write(path, [&lines[..1], &lines[2..]].concat().concat())
                .expect("it can be written");
        }),
        ("earlier version", |path, _| {
            let text = "# twinseal burned secrets v1\n";
            fs::write(path, text).expect("it can be written");
        }),
    ];
    for keep_tables in [true, false] {
        for (nth, (why, spoil)) in spoils.into_iter().enumerate() {
            let dir = TempDir::new().expect("a folder");
            let config = NodeConfig {
                keep_tables,
                ..config(dir.path(), "n")
            };
            let burned = config.state_dir.join(BURNED_FILE);
            let before = fs::read(&burned).expect("it is made");
            let node = Node::start(config.clone()).expect("it starts");
            on_runtime(async {
                let mut client = connect(&config).await;
                apply(&mut client, edge(&tag, v1::End::A))
                    .await
                    .expect("sound");
            });
            node.stop();
            spoil(&burned, &before);

            let node = Node::start(config.clone()).expect("it shows itself");
            on_runtime(async {
                let told = refused(&config).await;
                assert!(told.contains(why), "{nth}: {told}");
                assert!(told.contains("twinseal init --secrets-replaced"), "{told}");
                let mut client = connect(&config).await;
                let items = get(&mut client).await.items.len();
                let tables = keep_tables && nth != 0;
                assert_eq!(items, if tables { 16 } else { 0 });
                let mut load = edge(&tag, v1::End::A);
                let codes = refuses(&config, load.clone()).await;
                assert!(
                    codes.contains(&RefusalCode::SecretsRefused),
                    "{nth}: {codes:?}"
                );
                // All else is taken.
                load.retain(|item| !matches!(item, Item::Key(_) | Item::Transmit(_)));
                apply(&mut client, load).await.expect("no secret is in it");
            });
            assert!(
                twinseal_node::state_dir::init(&config.state_dir, true).is_err(),
                "the node uses it"
            );
            node.stop();
            // It is no cure that it was stored once more.
            let node = Node::start(config.clone()).expect("it shows itself");
            on_runtime(async { assert!(refused(&config).await.contains(why)) });
            node.stop();

            let again =
                twinseal_node::state_dir::init(&config.state_dir, false).expect_err("it has one");
            assert!(again.to_string().contains("initialised already"), "{again}");
            twinseal_node::state_dir::init(&config.state_dir, true)
                .expect("all secrets are replaced");
            let node = Node::start(config.clone()).expect("it starts");
            on_runtime(async {
                assert_eq!(refused(&config).await, "", "{nth}");
                let mut client = connect(&config).await;
                if keep_tables && nth != 0 {
                    // What is known of the old secrets is still known.
                    let codes = refuses(&config, keys(1, 1)).await;
                    assert_eq!(codes, [RefusalCode::SecretBurned; 4]);
                } else {
                    let mut items = edge(&tag, v1::End::A);
                    items.retain(|item| !matches!(item, Item::Key(_) | Item::Transmit(_)));
                    apply(&mut client, items).await.expect("sound");
                }
                let load = keys(2, 101).into_iter().chain(switch(2));
                apply(&mut client, load).await.expect("they are new");
            });
            node.stop();
            let _node = Node::start(config.clone()).expect("it starts");
            on_runtime(async { assert_eq!(refused(&config).await, "") });
        }
    }
}

/// A disk that is not mounted must not look like a new node's.
#[test]
fn without_its_state_directory_a_node_shows_itself_and_takes_no_secrets() {
    use std::os::unix::fs::PermissionsExt;
    let tag = tag("no-directory");
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let away = dir.path().join("away");
    fs::rename(&config.state_dir, &away).expect("it moves");
    let node = Node::start(config.clone()).expect("it shows itself");
    on_runtime(async {
        assert!(
            refused(&config)
                .await
                .contains("there is no state directory")
        );
        let codes = refuses(&config, edge(&tag, v1::End::A)).await;
        assert_eq!(codes, [RefusalCode::SecretsRefused]);
        assert!(!config.state_dir.exists(), "it is not for a node to make");
        fs::create_dir(&config.state_dir).expect("free");
        let until = async |why: &str| {
            while !refused(&config).await.contains(why) {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        until("was never initialised").await;
        let mode = |mode| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(&config.state_dir, mode).expect("ours");
        };
        mode(0o777);
        until("can be written by others").await;
        assert!(twinseal_node::state_dir::init(&config.state_dir, false).is_err());
        mode(0o700);
        let us = std::os::unix::fs::MetadataExt::uid(&fs::metadata(dir.path()).expect("ours"));
        if std::os::unix::fs::chown(&config.state_dir, Some(us + 1), None).is_ok() {
            until("belongs to user").await;
            std::os::unix::fs::chown(&config.state_dir, Some(us), None).expect("as before");
        } else {
            eprintln!("SKIPPED: no right to give the directory away");
        }

        // It is taken up as soon as it is there, and so are the tables of now.
        let vrf = Item::Vrf(v1::Vrf { name: "red".into() });
        let mut client = connect(&config).await;
        apply(&mut client, [vrf]).await.expect("no secret is in it");
        twinseal_node::state_dir::init(&config.state_dir, false).expect("a new one");
        while !refused(&config).await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
    });
    node.stop();
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let got = get(&mut connect(&config).await).await;
        assert_eq!((got.generation, got.items.len()), (2, 16));
        assert_eq!(got.secrets_refused, "");
    });
    node.stop();

    // One that comes late and has tables: before anything else was applied they are restored, later not.
    let (with_tables, empty) = (dir.path().join("with-tables"), &config.state_dir);
    fs::rename(empty, &with_tables).expect("it moves");
    for late in [false, true] {
        let node = Node::start(config.clone()).expect("it shows itself");
        on_runtime(async {
            let mut client = connect(&config).await;
            if late {
                let blue = Item::Vrf(v1::Vrf {
                    name: "blue".into(),
                });
                apply(&mut client, [blue])
                    .await
                    .expect("no secret is in it");
            }
            let mut reader = client
                .watch(v1::WatchRequest::default())
                .await
                .expect("it tells")
                .into_inner();
            fs::rename(&with_tables, empty).expect("it moves");
            if late {
                while !refused(&config).await.contains("restart the node") {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                let told = fault(&mut reader, "secrets_refused").await;
                assert!(told.contains("has stored tables"), "{told}");
            } else {
                while get(&mut client).await.generation != 2 {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                assert_eq!(refused(&config).await, "");
            }
        });
        node.stop();
        fs::rename(empty, &with_tables).expect("it moves");
    }
}

/// What is gone back to has keys that were lost in the restart: they do not begin to transmit by it.
#[test]
fn what_waits_after_a_restart_is_taken_back() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("back-after");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
    });
    node.stop();
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let mut client = connect(&config).await;
        let before = get(&mut client).await;
        for n in [101, 201] {
            let epoch = u32::from(n / 100 + 1);
            let load = v1::ApplyRequest {
                confirm_within_seconds: if n == 101 { 600 } else { 1 },
                ..request(keys(epoch, n).into_iter().chain(switch(epoch)))
            };
            client.apply(load).await.expect("sound");
            if n == 101 {
                let answer = client.rollback(v1::RollbackRequest { generation: 0 }).await;
                assert_eq!(answer.expect("all of it").into_inner().not_restored, []);
            }
            while get(&mut client).await.pending.is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            let got = get(&mut client).await;
            assert_eq!((&got.items, &got.keys), (&before.items, &before.keys));
        }
        let load = keys(4, 31).into_iter().chain(switch(4));
        apply(&mut client, load).await.expect("the node is free");
    });
}

/// A port that cannot be opened again stands in the way of what needs it, and of nothing else.
#[test]
fn a_rollback_restores_what_can_be_had_and_tells_the_rest() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("in-part");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    let vrf = |name: &str| v1::Item {
        item: Some(Item::Vrf(v1::Vrf { name: name.into() })),
    };
    let got = on_runtime(async {
        let mut client = connect(&config).await;
        let mut reader = client
            .watch(v1::WatchRequest::default())
            .await
            .expect("it tells")
            .into_inner();
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        let before = get(&mut client).await.items;
        let replace = |within: u32| v1::ReplaceRequest {
            confirm_within_seconds: within,
            ..whole(vec![vrf("blue")])
        };
        let take = || [0, 1].map(|_| End::open(&format!("{tag}-under"), 1).expect("free"));
        for within in [600, 1] {
            let answer = client
                .replace(futures::stream::iter([replace(within)]))
                .await;
            answer.expect("sound");
            let taken = take();
            if within == 600 {
                let answer = client.rollback(v1::RollbackRequest { generation: 0 }).await;
                let answer = answer.expect("as far as can be").into_inner();
                assert_eq!(answer.not_restored.len(), 1);
                assert_eq!(answer.not_restored[0].item, "port \"under\"");
                assert_eq!(answer.not_restored[0].code(), RefusalCode::Device);
            }
            let told = fault(&mut reader, "rollback_incomplete").await;
            assert!(told.contains("port \"under\""), "{told}");
            let got = get(&mut client).await;
            assert!(got.pending.is_none());
            let left = &got.rollback_incomplete;
            for part in [
                "not restored: port \"under\", link \"l1\"",
                "tried again every second",
            ] {
                assert!(left.contains(part), "{left}");
            }
            // The VRF, the edge port with its neighbour and its route.
            assert_eq!(got.items.len(), 4, "{:#?}", got.items);
            assert_eq!(got.ports.len(), 1);
            // The device is back, and so is the rest: its keys go on with their counters.
            drop(taken);
            while get(&mut client).await.items != before {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            let got = get(&mut client).await;
            assert!(got.keys.iter().all(|key| !key.needed));
            assert_eq!(got.rollback_incomplete, "");
        }

        // What somebody else changes meanwhile ends it; and it is stored as it is.
        let answer = client.replace(futures::stream::iter([replace(600)])).await;
        answer.expect("sound");
        let taken = take();
        let answer = client.rollback(v1::RollbackRequest { generation: 0 }).await;
        answer.expect("as far as can be");
        let green = Item::Vrf(v1::Vrf {
            name: "green".into(),
        });
        apply(&mut client, [green]).await.expect("the node is free");
        drop(taken);
        // It is missing all the same, until somebody says what is to be.
        loop {
            let left = get(&mut client).await.rollback_incomplete;
            assert!(left.contains("port \"under\""), "{left}");
            if left.contains("not tried any more") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        get(&mut client).await
    });
    node.stop();
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let restored = get(&mut connect(&config).await).await;
        assert_eq!(
            (restored.generation, &restored.items),
            (got.generation, &got.items)
        );
        assert_eq!(restored.items.len(), 5);
    });
}
