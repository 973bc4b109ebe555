//! What a controller relies on: requests that apply once, transactions that go unless confirmed, whole states.

mod node;
mod owners;

use std::time::Duration;

use futures::stream;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{
    self, Direction::AToB, RefusalCode, change::Change, event::Event as Kind, item::Item,
};

use twinseal_node::jsonl::Output;
use twinseal_server::NodeConfig;

use node::*;

type Client = ControlClient<Channel>;

fn delete(item: v1::item_ref::Item) -> v1::Change {
    v1::Change {
        change: Some(Change::Delete(v1::ItemRef { item: Some(item) })),
    }
}

fn delete_key(owner: v1::key_ref::Owner, epoch: u32) -> v1::Change {
    delete(v1::item_ref::Item::Key(v1::KeyRef {
        owner: Some(owner),
        direction: AToB.into(),
        epoch,
    }))
}

fn blackhole(prefix: &str) -> Item {
    Item::Route(v1::Route {
        vrf: "red".into(),
        prefix: prefix.into(),
        target: Some(v1::route::Target::Blackhole(v1::Blackhole {})),
    })
}

fn confirmed(items: impl IntoIterator<Item = Item>, seconds: u32) -> v1::ApplyRequest {
    v1::ApplyRequest {
        confirm_within_seconds: seconds,
        ..request(items)
    }
}

async fn generation(client: &mut Client) -> u64 {
    get(client).await.generation
}

/// Streams a whole state, a few items a message.
async fn replace(
    client: &mut Client,
    items: Vec<Item>,
    head: v1::ReplaceRequest,
) -> Result<v1::ApplyResponse, tonic::Status> {
    let commit = v1::ReplaceRequest {
        commit: Some(items.len() as u64),
        ..Default::default()
    };
    let mut messages = vec![head];
    for chunk in items.chunks(3) {
        let items = chunk.iter().cloned().map(|item| v1::Item {
            item: Some(item),
            ..Default::default()
        });
        messages.push(v1::ReplaceRequest {
            items: items.collect(),
            ..Default::default()
        });
    }
    messages.push(commit);
    let response = client.replace(stream::iter(messages)).await?;
    Ok(response.into_inner())
}

/// The items as a controller has them that has forgotten the secrets.
fn without_secrets(mut items: Vec<Item>) -> Vec<Item> {
    for item in &mut items {
        if let Item::Key(key) = item {
            key.secret.clear();
        }
    }
    items
}

fn code(status: &tonic::Status) -> RefusalCode {
    refusal(status)[0].code()
}

#[test]
fn a_request_applies_once_under_its_id() {
    let dir = TempDir::new().expect("a folder");
    let audit = dir.path().join("audit.json");
    let config = NodeConfig {
        audit: Some(Output::File {
            path: audit.clone(),
            max_bytes: 0,
            keep: 0,
        }),
        ..config(dir.path(), "n")
    };
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let first = v1::ApplyRequest {
            request_id: "first".into(),
            ..request(edge(&tag("once"), v1::End::A))
        };
        // A refused one is not remembered.
        let refused = v1::ApplyRequest {
            expected_generation: Some(9),
            ..first.clone()
        };
        let status = client.apply(refused).await.expect_err("generation 0");
        assert_eq!(code(&status), RefusalCode::Generation);
        // What else is wrong is told at once; that it is refused for the generation is what the code says.
        let mut refused = request([Item::Circuit(v1::Circuit {
            name: "c".into(),
            id: 1,
            end: v1::End::A.into(),
            vrf: "no".into(),
            link: "no".into(),
            label: 1,
            ..Default::default()
        })]);
        refused.expected_generation = Some(9);
        let status = client.apply(refused.clone()).await.expect_err("all of it");
        let told = refusal(&status).into_iter();
        let told: Vec<_> = told.map(|it| (it.change, it.field)).collect();
        let all = [(-1, "expected_generation"), (0, "link"), (0, "vrf")];
        assert_eq!(told, all.map(|(change, field)| (change, field.to_owned())));
        assert_eq!(status.code(), Code::FailedPrecondition);
        refused
            .changes
            .extend(request([Item::Vrf(v1::Vrf { name: "a b".into() })]).changes);
        let status = client.apply(refused).await.expect_err("and a name");
        assert_eq!(status.code(), Code::InvalidArgument);

        let answer = client
            .apply(first.clone())
            .await
            .expect("sound")
            .into_inner();
        assert_eq!((answer.generation, answer.repeated), (1, false));
        apply(&mut client, [blackhole("10.9.0.0/16")])
            .await
            .expect("sound");
        // Its secrets are burned, and its generation is gone: still the answer is the first one.
        let again = client
            .apply(first.clone())
            .await
            .expect("the same")
            .into_inner();
        assert_eq!((again.generation, again.repeated), (1, true));
        assert_eq!(generation(&mut client).await, 2);

        let mut other = first;
        other.changes.pop();
        let status = client.apply(other).await.expect_err("another request");
        assert_eq!(
            (status.code(), code(&status)),
            (Code::FailedPrecondition, RefusalCode::RequestId)
        );
        assert_eq!(generation(&mut client).await, 2);
        let head = v1::ReplaceRequest {
            request_id: "whole".into(),
            expected_generation: Some(9),
            ..Default::default()
        };
        let whole = replace(&mut client, edge(&tag("once"), v1::End::A), head).await;
        whole.expect_err("generation 2");
        let within = confirmed([blackhole("10.8.0.0/16")], 600);
        client.apply(within).await.expect("sound");
        for _ in 0..2 {
            let confirm = v1::ConfirmRequest {
                generation: 3,
                ..Default::default()
            };
            client.confirm(confirm).await.expect("it waited");
        }
    });
    // Whoever reads the log sees each that was done once as done once.
    let text = std::fs::read_to_string(&audit).expect("it is there");
    let lines = text.lines().map(|line| -> (String, Option<String>, bool) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let id = line["request_id"].as_str().map(str::to_owned);
        let method = line["method"].as_str().expect("a method");
        let outcome = line["outcome"].as_str().expect("an outcome");
        let repeated = line["repeated"].as_bool() == Some(true);
        assert!(!repeated || line.get("diff").is_none(), "{line}");
        (format!("{method} {outcome}"), id, repeated)
    });
    let lines: Vec<_> = lines.collect();
    let lines: Vec<_> = lines
        .iter()
        .map(|(what, id, repeated)| (what.as_str(), id.as_deref(), *repeated))
        .collect();
    assert_eq!(
        lines,
        [
            ("Apply refused", Some("first"), false),
            ("Apply refused", None, false),
            ("Apply refused", None, false),
            ("Apply done", Some("first"), false),
            ("Apply done", None, false),
            ("Apply done", Some("first"), true),
            ("Apply refused", Some("first"), false),
            ("Replace refused", Some("whole"), false),
            ("Apply done", None, false),
            ("Confirm done", None, false),
            ("Confirm done", None, true),
        ]
    );
}

#[test]
fn the_same_items_as_a_whole_state_are_another_request() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, [Item::Vrf(v1::Vrf { name: "red".into() })])
            .await
            .expect("sound");
        let nothing = v1::ApplyRequest {
            request_id: "same".into(),
            ..request([])
        };
        client.apply(nothing).await.expect("sound");
        let head = v1::ReplaceRequest {
            request_id: "same".into(),
            allow_empty: true,
            ..Default::default()
        };
        let status = replace(&mut client, Vec::new(), head)
            .await
            .expect_err("it deletes all");
        assert_eq!(code(&status), RefusalCode::RequestId);
        assert_eq!(get(&mut client).await.items.len(), 1);
    });
}

#[test]
fn a_dry_run_tells_what_would_change() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("diff");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        let mut dry = request([
            blackhole("10.2.0.0/16"),
            blackhole("10.9.0.0/16"),
            Item::Vrf(v1::Vrf { name: "red".into() }),
            key(circuit_owner(), AToB, 2, 33),
        ]);
        dry.dry_run = true;
        dry.changes
            .push(delete(v1::item_ref::Item::Neighbour(v1::NeighbourRef {
                port: "hosts".into(),
                address: "10.1.0.9".into(),
            })));
        let answer = client.apply(dry).await.expect("sound").into_inner();
        assert_eq!(answer.generation, 1);
        let diff = answer.diff.expect("a dry run tells");
        assert_eq!((diff.created, diff.updated, diff.deleted), (2, 1, 1));
        assert_eq!(diff.changes.len(), 4);
        let item = |item: &Option<v1::Item>| item.as_ref().and_then(|it| it.item.clone());
        let updated = (item(&diff.changes[0].old), item(&diff.changes[0].new));
        let (Some(Item::Route(old)), Some(Item::Route(new))) = updated else {
            panic!("the route: {updated:?}")
        };
        assert_eq!(old.target, Some(v1::route::Target::Circuit("c1".into())));
        assert_eq!(
            new.target,
            Some(v1::route::Target::Blackhole(v1::Blackhole {}))
        );
        let Some(Item::Key(key)) = item(&diff.changes[2].new) else {
            panic!("the key: {:?}", diff.changes[2])
        };
        assert!(key.secret.is_empty() && key.fingerprint.len() == 32);
        assert!(diff.changes[3].new.is_none() && diff.changes[3].old.is_some());
        assert_eq!(generation(&mut client).await, 1);
    });
}

#[test]
fn a_refusal_fits_an_answer_that_asks_for_it() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let bad = (1..=900).map(|n| blackhole(&format!("10.0.0.{n}/8")));
        let request = v1::ApplyRequest {
            refusal_in_response: true,
            ..request(bad.chain([Item::Vrf(v1::Vrf { name: "red".into() })]))
        };
        let answer = client.apply(request).await.expect("it is in the answer");
        let refusal = answer.into_inner().refusal.expect("refused");
        assert_eq!(refusal.items.len(), 900);
        assert!(
            refusal
                .items
                .iter()
                .all(|it| it.code() == RefusalCode::Invalid)
        );
    });
}

/// A's circuit and link go to epoch 2, epoch 1 is deleted, and the route to B stays.
fn rotation() -> v1::ApplyRequest {
    let mut request = confirmed(
        [
            key(link_owner(), AToB, 2, 21),
            key(circuit_owner(), AToB, 2, 22),
            transmit(v1::transmit::Owner::Link("l1".into()), 2),
            transmit(v1::transmit::Owner::Circuit("c1".into()), 2),
            blackhole("10.9.0.0/16"),
        ],
        1,
    );
    request
        .changes
        .push(delete_key(v1::key_ref::Owner::Link("l1".into()), 1));
    request
        .changes
        .push(delete_key(v1::key_ref::Owner::Circuit("c1".into()), 1));
    request
}

#[test]
fn what_is_not_confirmed_goes_by_itself_and_keys_go_on_where_they_were() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("unconfirmed");
    let (a, b) = (config(dir.path(), "a"), config(dir.path(), "b"));
    let _a = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        apply(&mut a, edge(&tag, v1::End::A)).await.expect("sound");
        let mut items = edge(&tag, v1::End::B);
        items.push(key(link_owner(), AToB, 2, 21));
        items.push(key(circuit_owner(), AToB, 2, 22));
        apply(&mut b, items).await.expect("sound");
        let mut events = a
            .watch(v1::WatchRequest::default())
            .await
            .expect("it streams")
            .into_inner();
        let mut flow = Flow::new(&tag);
        flow.send(50);
        flow.all_arrive().await;
        let before = get(&mut a).await;

        let answer = a.apply(rotation()).await.expect("sound").into_inner();
        assert_eq!(answer.generation, 2);
        let pending = answer.pending.expect("it waits");
        assert!(pending.generation == 2 && pending.until_unix_nanos > 0);
        assert_eq!(get(&mut a).await.pending, Some(pending));
        flow.send(50);
        flow.all_arrive().await;

        // Until it goes: what is sent meanwhile arrives, whichever epoch it is sealed with.
        let rolled_back = async {
            while let Some(event) = events.message().await.expect("it streams") {
                if let Some(Kind::Table(event)) = event.event
                    && event.cause == "rolled_back"
                {
                    return event;
                }
            }
            panic!("the node ended");
        };
        let mut rolled_back = std::pin::pin!(rolled_back);
        let event = loop {
            flow.send(1);
            flow.receive();
            tokio::select! {
                event = &mut rolled_back => break event,
                () = tokio::time::sleep(Duration::from_millis(2)) => {}
            }
        };
        assert_eq!((event.generation, event.pending), (3, None));
        flow.send(50);
        flow.all_arrive().await;

        let after = get(&mut a).await;
        assert_eq!((after.generation, after.pending.as_ref()), (3, None));
        assert_eq!(after.items, before.items);
        let sealed = |got: &v1::GetResponse| -> Vec<u64> {
            let transmitting = got.keys.iter().filter(|key| key.transmitting);
            transmitting.map(|key| key.packets).collect()
        };
        // The counters of epoch 1 went on; had they begun anew, B would have taken nothing.
        assert_eq!(sealed(&before), [50, 50]);
        assert!(
            sealed(&after).iter().all(|&packets| packets >= 100),
            "{:?}",
            sealed(&after)
        );
        assert_eq!(
            stats(&mut a).await.circuits[0].sent_packets,
            u64::from(flow.sent)
        );

        // What began to transmit meanwhile is burned.
        let status = apply(
            &mut a,
            [
                key(circuit_owner(), AToB, 2, 22),
                transmit(v1::transmit::Owner::Circuit("c1".into()), 2),
            ],
        )
        .await
        .expect_err("it has sealed");
        assert_eq!(code(&status), RefusalCode::SecretBurned, "{status}");
    });
}

#[test]
fn what_waits_is_extended_confirmed_or_taken_back() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let tag = tag("waits");
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        let before = get(&mut client).await.items;
        let confirm = |generation| v1::ConfirmRequest {
            generation,
            ..Default::default()
        };
        let status = client.confirm(confirm(0)).await.expect_err("nothing waits");
        assert_eq!(code(&status), RefusalCode::NotPending);
        let status = client
            .apply(confirmed([], 86_401))
            .await
            .expect_err("longer than a day");
        assert_eq!(code(&status), RefusalCode::Invalid);

        client
            .apply(confirmed([blackhole("10.8.0.0/16")], 600))
            .await
            .expect("sound");
        let status = apply(&mut client, [blackhole("10.9.0.0/16")])
            .await
            .expect_err("generation 2 waits");
        assert_eq!(
            (status.code(), code(&status)),
            (Code::FailedPrecondition, RefusalCode::Pending)
        );
        // A dry run tells the same as the one in earnest.
        let dry = |seconds| v1::ApplyRequest {
            dry_run: true,
            ..confirmed([blackhole("10.9.0.0/16")], seconds)
        };
        let status = client.apply(dry(0)).await.expect_err("generation 2 waits");
        assert_eq!(code(&status), RefusalCode::Pending);
        client.apply(dry(600)).await.expect("it would be added");
        let mut more = confirmed([blackhole("10.9.0.0/16")], 600);
        more.changes
            .push(delete(v1::item_ref::Item::Route(v1::RouteRef {
                vrf: "red".into(),
                prefix: "10.2.0.0/16".into(),
            })));
        let answer = client.apply(more).await.expect("it is added").into_inner();
        assert_eq!(answer.pending.map(|pending| pending.generation), Some(3));
        let status = client.confirm(confirm(2)).await.expect_err("3 waits");
        assert_eq!(code(&status), RefusalCode::NotPending);

        // Both are taken back together.
        let rollback = v1::RollbackRequest {
            generation: 3,
            ..Default::default()
        };
        let answer = client
            .rollback(rollback.clone())
            .await
            .expect("it waits")
            .into_inner();
        assert_eq!(answer.generation, 4);
        assert_eq!(get(&mut client).await.items, before);
        assert!(client.rollback(rollback).await.is_err());

        client
            .apply(confirmed([blackhole("10.8.0.0/16")], 1))
            .await
            .expect("sound");
        let answer = client
            .confirm(confirm(5))
            .await
            .expect("it waits")
            .into_inner();
        assert_eq!(answer.generation, 5);
        client
            .confirm(confirm(5))
            .await
            .expect("the answer may have been lost");
        tokio::time::sleep(Duration::from_millis(1300)).await;
        let got = get(&mut client).await;
        assert_eq!((got.generation, got.pending), (5, None));
        assert_eq!(got.items.len(), before.len() + 1);
    });
}

#[test]
fn a_port_that_was_deleted_comes_back() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("port-back");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let only = |name: &str| {
            [
                Item::Vrf(v1::Vrf { name: "red".into() }),
                port(name, "red", &format!("{tag}-{name}"), "02:00:00:00:02:01"),
            ]
        };
        apply(&mut client, only("one")).await.expect("sound");
        let head = v1::ReplaceRequest {
            confirm_within_seconds: 600,
            ..Default::default()
        };
        replace(&mut client, only("two").into(), head)
            .await
            .expect("sound");
        // Somebody else has the device now: all else is restored, and the port once it can be had.
        let ends =
            [0, 1].map(|_| twinseal_runtime::ports::memory::End::open(&format!("{tag}-one"), 1));
        assert!(ends.iter().all(Result::is_ok));
        let rollback = v1::RollbackRequest {
            generation: 0,
            ..Default::default()
        };
        let answer = client
            .rollback(rollback.clone())
            .await
            .expect("as far as can be");
        assert_eq!(answer.into_inner().not_restored.len(), 1);
        let got = get(&mut client).await;
        assert!(got.pending.is_none() && got.ports.is_empty());
        assert_ne!(got.rollback_incomplete, "");
        drop(ends);
        while !get(&mut client).await.rollback_incomplete.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let got = get(&mut client).await;
        assert!(got.pending.is_none() && got.ports[0].port == "one");
        assert_eq!(got.rollback_incomplete, "");
        // What is left out is nobody's wish any more once the whole state is said.
        let head = v1::ReplaceRequest {
            confirm_within_seconds: 600,
            ..Default::default()
        };
        replace(&mut client, only("two").into(), head)
            .await
            .expect("sound");
        let _ends =
            [0, 1].map(|_| twinseal_runtime::ports::memory::End::open(&format!("{tag}-one"), 1));
        client
            .rollback(rollback.clone())
            .await
            .expect("as far as can be");
        assert_ne!(get(&mut client).await.rollback_incomplete, "");
        let vrf = vec![Item::Vrf(v1::Vrf { name: "red".into() })];
        replace(&mut client, vrf, v1::ReplaceRequest::default())
            .await
            .expect("sound");
        assert_eq!(get(&mut client).await.rollback_incomplete, "");
    });
}

#[test]
fn a_whole_state_replaces_what_differs_and_leaves_the_rest() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("replace");
    let (a, b) = (config(dir.path(), "a"), config(dir.path(), "b"));
    let _a = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        let state = || edge(&tag, v1::End::A);
        let head = v1::ReplaceRequest::default;
        replace(&mut a, state(), head())
            .await
            .expect("from nothing");
        apply(&mut b, edge(&tag, v1::End::B)).await.expect("sound");
        let mut flow = Flow::new(&tag);
        flow.send(100);
        flow.all_arrive().await;

        // What somebody else has added goes; with and without secrets, nothing else is touched.
        let extra = [
            blackhole("10.9.0.0/16"),
            Item::Vrf(v1::Vrf {
                name: "blue".into(),
            }),
            key(circuit_owner(), AToB, 9, 99),
        ];
        apply(&mut a, extra).await.expect("sound");
        let dry = v1::ReplaceRequest {
            dry_run: true,
            ..head()
        };
        let answer = replace(&mut a, without_secrets(state()), dry)
            .await
            .expect("sound");
        let diff = answer.diff.expect("a dry run tells");
        assert_eq!(
            (diff.created, diff.updated, diff.deleted),
            (0, 0, 3),
            "{diff:?}"
        );
        for (n, items) in [state(), without_secrets(state()), state()]
            .into_iter()
            .enumerate()
        {
            flow.send(100);
            replace(&mut a, items, head()).await.expect("sound");
            flow.send(100);
            flow.all_arrive().await;
            assert_eq!(generation(&mut a).await, 3 + n as u64);
        }
        let got = get(&mut a).await;
        assert_eq!(got.items.len(), state().len());
        let transmitting = got.keys.iter().filter(|key| key.transmitting);
        assert!(transmitting.map(|key| key.packets).eq([700, 700]));
        assert_eq!(stats(&mut a).await.circuits[0].sent_packets, 700);

        // A key that is not there cannot be kept.
        let mut items = without_secrets(state());
        items.push(key(circuit_owner(), AToB, 5, 55));
        let items = without_secrets(items);
        let status = replace(&mut a, items, head())
            .await
            .expect_err("no such key");
        assert_eq!(
            (status.code(), code(&status)),
            (Code::FailedPrecondition, RefusalCode::SecretNeeded)
        );
        assert_eq!(refusal(&status).len(), 1);
        assert_eq!(refusal(&status)[0].change, state().len() as i32);
        assert_eq!(generation(&mut a).await, 5);
    });
}

/// What is pointed at is there before what points, and goes after it: no packet meets a route whose circuit is not there,
/// or a circuit without its key.
#[test]
fn routes_move_between_circuits_that_come_and_go_without_a_packet_lost() {
    let dir = TempDir::new().expect("a folder");
    let tag = tag("move");
    let (a, b) = (config(dir.path(), "a"), config(dir.path(), "b"));
    let _a = Node::start(a.clone()).expect("it starts");
    let _b = Node::start(b.clone()).expect("it starts");
    let circuit = |end: v1::End, label| {
        Item::Circuit(v1::Circuit {
            name: "c2".into(),
            id: 78,
            end: end.into(),
            vrf: "red".into(),
            link: "l1".into(),
            label,
            ..Default::default()
        })
    };
    let owner = || v1::key::Owner::Circuit("c2".into());
    let secret = |epoch: u32| {
        let Item::Key(mut key) = key(owner(), AToB, epoch, 0) else {
            unreachable!("it makes keys")
        };
        key.secret = [epoch.to_be_bytes(); 8].concat();
        Item::Key(key)
    };
    let to = |circuit: &str| {
        Item::Route(v1::Route {
            vrf: "red".into(),
            prefix: "10.2.0.0/16".into(),
            target: Some(v1::route::Target::Circuit(circuit.into())),
        })
    };
    on_runtime(async {
        let (mut a, mut b) = (connect(&a).await, connect(&b).await);
        apply(&mut a, edge(&tag, v1::End::A)).await.expect("sound");
        let mut far = edge(&tag, v1::End::B);
        far.push(circuit(v1::End::B, 301));
        far.push(Item::Label(v1::Label {
            link: "l1".into(),
            label: 302,
            action: Some(v1::label::Action::Egress(v1::Egress {
                circuit: "c2".into(),
            })),
        }));
        apply(&mut b, far).await.expect("sound");
        let mut flow = Flow::new(&tag);
        for epoch in 1..=100 {
            let mut keys = request([secret(epoch)]);
            if epoch > 1 {
                let owner = v1::key_ref::Owner::Circuit("c2".into());
                keys.changes.push(delete_key(owner, epoch - 1));
            }
            b.apply(keys).await.expect("sound");
            // The route first: within a transaction the order is of no importance.
            let there = [
                to("c2"),
                transmit(v1::transmit::Owner::Circuit("c2".into()), epoch),
                secret(epoch),
                circuit(v1::End::A, 302),
            ];
            flow.send(40);
            apply(&mut a, there).await.expect("sound");
            flow.send(40);
            let mut back = request([to("c1")]);
            back.changes
                .insert(0, delete(v1::item_ref::Item::Circuit("c2".into())));
            a.apply(back).await.expect("sound");
            flow.send(40);
            flow.all_arrive().await;
        }
        let by_c2 = stats(&mut b).await.circuits;
        let by_c2 = by_c2
            .iter()
            .find(|circuit| circuit.name == "c2")
            .expect("it is there");
        assert!(by_c2.received_packets >= 100, "{by_c2:?}");
        assert_eq!(flow.received, 12_000);
    });
}
