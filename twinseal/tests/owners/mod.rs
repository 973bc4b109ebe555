//! Several owners of one node's items.

use tempfile::TempDir;
use twinseal_api::v1::{self, RefusalCode, change::Change, event::Event as Kind, item::Item};

use twinseal_node::jsonl::Output;
use twinseal_server::NodeConfig;

use super::node::*;
use super::{Client, blackhole, code, confirmed, replace, without_secrets};

fn of(owner: &str, request: v1::ApplyRequest) -> v1::ApplyRequest {
    v1::ApplyRequest {
        owner: owner.into(),
        ..request
    }
}

async fn takes(client: &mut Client, request: v1::ApplyRequest) -> v1::ApplyResponse {
    let answer = client.apply(request).await;
    answer.expect("it is taken").into_inner()
}

async fn refuses(client: &mut Client, request: v1::ApplyRequest) -> (RefusalCode, String) {
    let status = client.apply(request).await.expect_err("it is refused");
    let item = refusal(&status).remove(0);
    (code(&status), item.reason)
}

/// The prefixes of blackholes, with whose they are.
async fn blackholes(client: &mut Client) -> Vec<(String, String)> {
    let got = get(client).await;
    let routes = got.items.into_iter().filter_map(|item| match item.item {
        Some(Item::Route(v1::Route {
            prefix,
            target: Some(v1::route::Target::Blackhole(_)),
            ..
        })) => Some((prefix, item.owner)),
        _ => None,
    });
    routes.collect()
}

fn route(prefix: &str, owner: &str) -> (String, String) {
    (prefix.into(), owner.into())
}

async fn owner(client: &mut Client, name: &str) -> v1::OwnerState {
    let mut owners = get(client).await.owners.into_iter();
    owners.find(|it| it.owner == name).unwrap_or_default()
}

#[test]
fn owners_change_and_replace_what_is_theirs() {
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
    let tag = tag("owners");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let items = edge(&tag, v1::End::A);
        apply(&mut client, items.clone()).await.expect("sound");
        let bgp = |request| of("bgp", request);
        takes(&mut client, bgp(request([blackhole("10.50.0.0/16")]))).await;
        let theirs = request([blackhole("10.50.0.0/16")]);
        let (code, why) = refuses(&mut client, theirs.clone()).await;
        assert_eq!(code, RefusalCode::Owner, "{why}");

        // Each has a generation of its own to compare with; that of the node will do as well.
        let expects = |owner: &str, expected| v1::ApplyRequest {
            expected_generation: Some(expected),
            dry_run: true,
            ..of(owner, request([]))
        };
        for (owner, expected, fits) in [
            ("", 0, false),
            ("", 1, true),
            ("", 2, true),
            ("", 3, false),
            ("bgp", 1, false),
            ("bgp", 2, true),
            ("new", 0, true),
        ] {
            let answer = client.apply(expects(owner, expected)).await;
            assert_eq!(answer.is_ok(), fits, "{owner} {expected}: {answer:?}");
        }

        // A whole state is the owner's.
        let head = v1::ReplaceRequest {
            owner: "bgp".into(),
            ..Default::default()
        };
        let own = vec![blackhole("10.51.0.0/16")];
        replace(&mut client, own, head).await.expect("sound");
        let whole = without_secrets(items);
        replace(&mut client, whole, v1::ReplaceRequest::default())
            .await
            .expect("sound");
        assert_eq!(
            blackholes(&mut client).await,
            [route("10.51.0.0/16", "bgp")]
        );
        assert_eq!(owner(&mut client, "bgp").await.items, 1);

        // Who takes over says so, and all hear of it.
        let watch = v1::WatchRequest {
            kinds: vec![v1::EventKind::Configuration.into()],
            ..Default::default()
        };
        let mut events = client.watch(watch).await.expect("it streams").into_inner();
        let taken = v1::ApplyRequest {
            take_over: true,
            ..request([blackhole("10.51.0.0/16")])
        };
        takes(&mut client, taken).await;
        let event = events.message().await.expect("it goes on").expect("one");
        let Some(Kind::Table(table)) = event.event else {
            panic!("no table event: {event:?}");
        };
        assert_eq!(
            (&*table.owner, &table.taken_from[..]),
            ("controller", &["bgp".to_owned()][..])
        );
        assert_eq!(blackholes(&mut client).await, [route("10.51.0.0/16", "")]);
        // What an item of another says is no way around.
        let mut odd = request([blackhole("10.52.0.0/16")]);
        if let Some(Change::Set(item)) = &mut odd.changes[0].change {
            item.owner = "bgp".into();
        }
        assert_eq!(refuses(&mut client, odd).await.0, RefusalCode::Invalid);
        let unfit = of("a b", request([]));
        assert_eq!(refuses(&mut client, unfit).await.0, RefusalCode::Invalid);
    });
    node.stop();
    let lines = std::fs::read_to_string(&audit).expect("the log");
    assert!(
        lines.lines().any(|it| it.contains(r#""owner":"bgp""#)),
        "{lines}"
    );
}

#[test]
fn what_waits_of_one_owner_keeps_no_other_from_going_on() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let tag = tag("owners-wait");
    let node = Node::start(config.clone()).expect("it starts");
    let stays = on_runtime(async {
        let mut client = connect(&config).await;
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        let blue = Item::Vrf(v1::Vrf {
            name: "blue".into(),
        });
        let waits = confirmed([blackhole("10.60.0.0/16"), blue], 600);
        let first = takes(&mut client, waits).await.generation;
        let bgp = |items: Vec<Item>| of("bgp", request(items));
        takes(&mut client, bgp(vec![blackhole("10.61.0.0/16")])).await;

        // What waits is touched by nobody, and what would not stand without it is refused.
        let touches = v1::ApplyRequest {
            take_over: true,
            ..bgp(vec![blackhole("10.60.0.0/16")])
        };
        let (code, why) = refuses(&mut client, touches).await;
        assert_eq!(code, RefusalCode::Pending);
        assert!(why.contains("owner \"controller\""), "{why}");
        let needs = Item::Route(v1::Route {
            vrf: "blue".into(),
            prefix: "10.62.0.0/16".into(),
            target: Some(v1::route::Target::Blackhole(v1::Blackhole {})),
        });
        let (code, why) = refuses(&mut client, bgp(vec![needs.clone()])).await;
        assert_eq!(code, RefusalCode::Pending);
        assert!(why.contains("without generation"), "{why}");

        // Both wait; the one is rolled back, the other stays.
        let waits = of("bgp", confirmed([blackhole("10.63.0.0/16")], 600));
        let second = takes(&mut client, waits).await.generation;
        let pending = owner(&mut client, "bgp").await.pending;
        assert_eq!(pending.expect("it waits").generation, second);
        let got = get(&mut client).await.pending.expect("it waits");
        assert_eq!(got.generation, first);
        let stranger = v1::ConfirmRequest {
            generation: second,
            ..Default::default()
        };
        client.confirm(stranger).await.expect_err("it is bgp's");
        let rollback = v1::RollbackRequest {
            generation: first,
            ..Default::default()
        };
        let back = client.rollback(rollback).await.expect("it waits");
        assert!(back.into_inner().not_restored.is_empty());
        let left = [route("10.61.0.0/16", "bgp"), route("10.63.0.0/16", "bgp")];
        assert_eq!(blackholes(&mut client).await, left);
        let (code, _) = refuses(&mut client, bgp(vec![needs])).await;
        assert_ne!(code, RefusalCode::Owner, "blue is not there");
        let confirm = v1::ConfirmRequest {
            generation: second,
            owner: "bgp".into(),
        };
        let confirmed_at = client.confirm(confirm.clone()).await.expect("it waits");
        // Another generation than it waits for: others have stored theirs since.
        assert!(confirmed_at.into_inner().generation > second);
        client.confirm(confirm).await.expect("again is no harm");

        // One waits when the node stops, another has gone on.
        let waits = confirmed([blackhole("10.64.0.0/16")], 600);
        takes(&mut client, waits).await;
        let more = bgp(vec![blackhole("10.65.0.0/16")]);
        assert!(!takes(&mut client, more).await.not_stored);
        get(&mut client).await.generation
    });
    node.stop();
    let _node = Node::start(config.clone()).expect("it starts again");
    on_runtime(async {
        let mut client = connect(&config).await;
        let bgp = ["10.61.0.0/16", "10.63.0.0/16", "10.65.0.0/16"];
        let left = bgp.map(|prefix| route(prefix, "bgp"));
        assert_eq!(blackholes(&mut client).await, left);
        let got = get(&mut client).await;
        assert_eq!(got.generation, stays + 1, "going back is a change too");
        assert!(got.stored_tables_damaged.is_empty() && got.pending.is_none());
        // Whose did not wait goes on where it was.
        assert_eq!(owner(&mut client, "bgp").await.generation, stays);
        assert_eq!(owner(&mut client, "controller").await.generation, stays + 1);
    });
}
