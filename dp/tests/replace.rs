//! Whole states: a stream is one only if its last message says so. And what is wrong with requests, all at once.

mod node;

use std::time::Duration;

use futures::stream;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;
use twinseal::control::NodeConfig;
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, RefusalCode, change::Change, item::Item};

use node::*;

fn green(commit: Option<u64>) -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        commit,
        ..whole(vec![v1::Item {
            item: Some(Item::Vrf(v1::Vrf {
                name: "green".into(),
            })),
        }])
    }
}

/// A node with the VRF `red`, at generation 1.
async fn red(config: &NodeConfig) -> ControlClient<Channel> {
    let mut client = connect(config).await;
    apply(&mut client, [Item::Vrf(v1::Vrf { name: "red".into() })])
        .await
        .expect("sound");
    client
}

#[test]
fn a_stream_is_whole_only_if_its_last_message_says_so() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = red(&config).await;
        let empty = v1::ReplaceRequest::default;
        let cases = [
            (vec![], "commit"),
            (vec![empty()], "commit"),
            (vec![green(None)], "commit"),
            (vec![green(Some(1)), green(None)], "commit"),
            (vec![green(Some(1)), green(Some(2))], "commit"),
            (vec![green(Some(2))], "commit"),
            (vec![green(None), green(Some(1))], "commit"),
            (vec![whole(Vec::new())], "allow_empty"),
        ];
        for (messages, field) in cases {
            let told = client.replace(stream::iter(messages.clone())).await;
            let status = told.expect_err("it is not whole");
            assert_eq!(status.code(), Code::InvalidArgument, "{messages:?}");
            assert_eq!(refusal(&status)[0].field, field, "{messages:?}");
            let in_response = messages.into_iter().map(|message| v1::ReplaceRequest {
                refusal_in_response: true,
                ..message
            });
            let in_response: Vec<_> = in_response.collect();
            if !in_response.is_empty() {
                let told = client.replace(stream::iter(in_response)).await;
                let told = told.expect("it is in the answer").into_inner();
                assert_eq!(told.refusal.expect("refused").items[0].field, field);
            }
        }
        // What is wrong with the items is told with it.
        let bad = v1::ReplaceRequest {
            items: vec![v1::Item::default()],
            ..empty()
        };
        let told = client.replace(stream::iter([bad])).await;
        let fields = refusal(&told.expect_err("it is not whole"));
        let fields: Vec<_> = fields.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(fields, ["commit", "item"]);
        assert_eq!(get(&mut client).await.generation, 1);

        let last = v1::ReplaceRequest {
            commit: Some(2),
            ..empty()
        };
        let messages = [green(None), green(None), last];
        let answer = client.replace(stream::iter(messages)).await.expect("whole");
        assert_eq!(answer.into_inner().generation, 2);
        let nothing = v1::ReplaceRequest {
            allow_empty: true,
            ..whole(Vec::new())
        };
        let emptied = client.replace(stream::iter([nothing])).await;
        emptied.expect("it is meant");
        assert!(get(&mut client).await.items.is_empty());
    });
}

/// However a client goes, and whatever HTTP/2 tells of it: nothing is applied, and the next may come.
#[test]
fn a_stream_that_breaks_off_leaves_nothing_and_only_one_runs() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum How {
        Cancelled,
        TimedOut,
        SourceEnded,
        ConnectionLost,
    }
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    drop(on_runtime(red(&config)));
    for how in [
        How::Cancelled,
        How::TimedOut,
        How::SourceEnded,
        How::ConnectionLost,
    ] {
        let (messages, stream) = tokio::sync::mpsc::channel(4);
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let theirs = config.clone();
        let abandoned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut other = connect(&theirs).await;
                let mut request = tonic::Request::new(stream);
                if how == How::TimedOut {
                    request.set_timeout(Duration::from_millis(500));
                }
                let call = other.replace(request);
                tokio::select! {
                    answer = call => assert!(answer.is_err(), "it was not whole"),
                    _ = stopped, if matches!(how, How::Cancelled | How::ConnectionLost) => {}
                }
                if how == How::Cancelled {
                    // The connection goes on, and has time to say so.
                    other.get(v1::GetRequest {}).await.expect("it answers");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        });
        on_runtime(async {
            let mut client = connect(&config).await;
            messages.send(green(None)).await.expect("it reads");
            let dry = v1::ReplaceRequest {
                dry_run: true,
                ..green(Some(1))
            };
            // It is under way as soon as no other may come.
            loop {
                match client.replace(stream::iter([dry.clone()])).await {
                    Err(refused) => break assert_eq!(refused.code(), Code::ResourceExhausted),
                    Ok(_) if how == How::TimedOut && abandoned.is_finished() => break,
                    Ok(_) => assert!(!abandoned.is_finished(), "{how:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if how == How::SourceEnded {
                drop(messages);
            } else {
                let _ = stop.send(());
            }
            let guard = tokio::time::Instant::now() + Duration::from_secs(10);
            while let Err(status) = client.replace(stream::iter([dry.clone()])).await {
                assert!(tokio::time::Instant::now() < guard, "{how:?}: {status}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let got = get(&mut client).await;
            assert_eq!((got.generation, got.items.len()), (1, 1), "{how:?}");
        });
        abandoned.join().expect("it went in the middle");
    }
}

/// What is wrong with the request itself hides nothing of what is wrong with its items.
#[test]
fn a_wrong_request_id_and_time_are_told_with_all_mistakes_of_items() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = red(&config).await;
        let vrf = |name: &str| Item::Vrf(v1::Vrf { name: name.into() });
        let route = |prefix: &str, target| {
            Item::Route(v1::Route {
                vrf: "red".into(),
                prefix: prefix.into(),
                target: Some(target),
            })
        };
        let wrong = v1::ApplyRequest {
            request_id: "x".repeat(129),
            confirm_within_seconds: 86_401,
            // Two that make no sense, one that fits no table, and one that is sound.
            ..request([
                vrf("no name"),
                route(
                    "10.0.0.0/99",
                    v1::route::Target::Blackhole(v1::Blackhole {}),
                ),
                route("10.0.0.0/8", v1::route::Target::Circuit("missing".into())),
                vrf("blue"),
            ])
        };
        let all = [
            (-1, "request_id"),
            (-1, "confirm_within_seconds"),
            (0, "name"),
            (1, "prefix"),
            (2, "circuit"),
        ];
        let told = |items: &[v1::RefusedItem]| {
            let told = items.iter().map(|it| (it.change, it.field.clone()));
            let mut told: Vec<_> = told.collect();
            told.sort();
            let mut all: Vec<_> = all.iter().map(|(n, it)| (*n, (*it).to_owned())).collect();
            all.sort();
            assert_eq!(told, all, "{items:#?}");
        };
        let status = client.apply(wrong.clone()).await.expect_err("wrong");
        assert_eq!(status.code(), Code::InvalidArgument);
        told(&refusal(&status));
        let in_response = v1::ApplyRequest {
            refusal_in_response: true,
            ..wrong.clone()
        };
        let answer = client.apply(in_response).await.expect("it tells");
        told(&answer.into_inner().refusal.expect("why").items);
        // A dry run tells the same, and so does a Replace.
        let dry = v1::ApplyRequest {
            dry_run: true,
            ..wrong.clone()
        };
        told(&refusal(&client.apply(dry).await.expect_err("wrong")));
        let items = wrong.changes.into_iter().map(|change| match change.change {
            Some(Change::Set(item)) => item,
            other => panic!("{other:?}"),
        });
        let mut items: Vec<_> = items.collect();
        items.push(v1::Item {
            item: Some(vrf("red")),
        });
        let head = v1::ReplaceRequest {
            request_id: wrong.request_id,
            confirm_within_seconds: wrong.confirm_within_seconds,
            ..whole(items)
        };
        let status = client.replace(stream::iter([head])).await;
        told(&refusal(&status.expect_err("wrong")));
        // A request id of another request is told with the rest, too.
        let named = |items: Vec<Item>| v1::ApplyRequest {
            request_id: "taken".into(),
            ..request(items)
        };
        client
            .apply(named(vec![vrf("green")]))
            .await
            .expect("sound");
        let status = client.apply(named(vec![vrf("no name")])).await;
        let told = refusal(&status.expect_err("wrong"));
        let told: Vec<_> = told.iter().map(|it| (it.code(), &*it.field)).collect();
        assert_eq!(
            told,
            [
                (RefusalCode::RequestId, "request_id"),
                (RefusalCode::Invalid, "name")
            ]
        );
        assert_eq!(get(&mut client).await.generation, 2);
    });
}
