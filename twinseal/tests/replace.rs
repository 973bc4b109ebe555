//! Whole states: a stream is one only if its last message says so. And what is wrong with requests, all at once.

mod node;

use std::time::Duration;

use futures::{StreamExt, stream};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, RefusalCode, change::Change, item::Item};
use twinseal_server::NodeConfig;

use node::*;

fn green(commit: Option<u64>) -> v1::ReplaceRequest {
    v1::ReplaceRequest {
        commit,
        ..whole(vec![v1::Item {
            item: Some(Item::Vrf(v1::Vrf {
                name: "green".into(),
            })),
            ..Default::default()
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
            (vec![green(Some(2))], "commit"),
            (vec![green(None), green(Some(1))], "commit"),
            (vec![whole(Vec::new())], "allow_empty"),
        ];
        for (messages, field) in cases {
            let told = client.replace(stream::iter(messages.clone())).await;
            let status = told.expect_err("it is not whole");
            assert_eq!(status.code(), Code::InvalidArgument, "{messages:?}");
            assert_eq!(refusal(&status)[0].field, field, "{messages:?}");
            let mut in_response = messages;
            if let Some(first) = in_response.first_mut() {
                first.refusal_in_response = true;
                let told = client.replace(stream::iter(in_response)).await;
                let told = told.expect("it is in the answer").into_inner();
                assert_eq!(told.refusal.expect("refused").items[0].field, field);
            }
        }
        // With all else that is wrong with it as such.
        for commit in [None, Some(0), Some(7)] {
            let head = v1::ReplaceRequest {
                commit,
                expected_generation: Some(9),
                confirm_within_seconds: 100_000,
                request_id: "x".repeat(300),
                ..Default::default()
            };
            let status = client.replace(stream::iter([head])).await;
            let refused = refusal(&status.expect_err("it is not whole"));
            let fields: Vec<_> = refused.iter().map(|it| it.field.as_str()).collect();
            let unfit = if commit == Some(0) {
                "allow_empty"
            } else {
                "commit"
            };
            for field in [
                "request_id",
                "confirm_within_seconds",
                "expected_generation",
                unfit,
            ] {
                assert!(fields.contains(&field), "{fields:?}");
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

/// What the first message does not say, no later one may: it would be dropped, and the rest applied.
#[test]
fn what_later_messages_ask_for_is_refused() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = red(&config).await;
        let last = || green(Some(1));
        let cases = [
            (
                "request_id",
                v1::ReplaceRequest {
                    request_id: "a".into(),
                    ..last()
                },
            ),
            (
                "dry_run",
                v1::ReplaceRequest {
                    dry_run: true,
                    ..last()
                },
            ),
            (
                "expected_generation",
                v1::ReplaceRequest {
                    expected_generation: Some(0),
                    ..last()
                },
            ),
            (
                "confirm_within_seconds",
                v1::ReplaceRequest {
                    confirm_within_seconds: 60,
                    ..last()
                },
            ),
            (
                "refusal_in_response",
                v1::ReplaceRequest {
                    refusal_in_response: true,
                    ..last()
                },
            ),
            (
                "allow_empty",
                v1::ReplaceRequest {
                    allow_empty: true,
                    ..last()
                },
            ),
        ];
        for (field, late) in cases {
            let messages = [v1::ReplaceRequest::default(), late];
            let status = client.replace(stream::iter(messages)).await;
            let status = status.expect_err(field);
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            let told = refusal(&status);
            assert_eq!((told.len(), &*told[0].field), (1, field), "{told:?}");
            assert!(told[0].fix.contains("first message only"), "{told:?}");
        }
        assert_eq!(get(&mut client).await.generation, 1);
    });
}

/// The word that the state is whole is enough: nothing waits for the end of the stream, or hangs on how it ends.
#[test]
fn the_mark_commits_at_once_whatever_becomes_of_the_stream() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("audit.json");
    let config = NodeConfig {
        audit: Some(twinseal_node::jsonl::Output::File {
            path: file.clone(),
            max_bytes: 0,
            keep: 0,
        }),
        ..config(dir.path(), "n")
    };
    let _node = Node::start(config.clone()).expect("it starts");
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).expect("it is there");
        let lines = text.lines().map(serde_json::from_str);
        lines.map(|line| line.expect("JSON")).collect()
    };
    on_runtime(async {
        let mut client = red(&config).await;
        let open = |first: Vec<v1::ReplaceRequest>| stream::iter(first).chain(stream::pending());
        let answer = client.replace(open(vec![green(Some(1))])).await;
        assert_eq!(answer.expect("whole").into_inner().generation, 2);
        // What comes after it is not read.
        let more = vec![green(Some(1)), green(None), green(Some(9))];
        let answer = client.replace(open(more)).await;
        assert_eq!(answer.expect("whole").into_inner().generation, 3);
        let line = lines().pop().expect("the last");
        assert_eq!(line["changes"], 1, "{line}");
        // Cancelled as soon as it is sent: it applies, or was not read; and nothing in between.
        for _ in 0..20 {
            let mut mine = client.clone();
            let call = tokio::spawn(async move {
                let stream = stream::iter(vec![green(Some(1))]).chain(stream::pending());
                mine.replace(stream).await
            });
            tokio::time::sleep(Duration::from_micros(300)).await;
            call.abort();
        }
        // The log has all of what applied, and of what broke off that it did.
        let mut broken = client.clone();
        let call = tokio::spawn(async move {
            loop {
                let stream = stream::iter(vec![green(None)]).chain(stream::pending());
                // The one below may be faster.
                let _ = broken.replace(stream).await;
            }
        });
        let dry = v1::ReplaceRequest {
            dry_run: true,
            ..green(Some(1))
        };
        let refused = loop {
            match client.replace(stream::iter([dry.clone()])).await {
                Err(status) => break status,
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let line = lines().pop().expect("the last");
        let of = |line: &serde_json::Value| (line["method"].clone(), line["outcome"].clone());
        assert_eq!(of(&line), ("Replace".into(), "refused".into()));
        assert!(
            line["reasons"][0].to_string().contains("another Replace"),
            "{line}"
        );
        call.abort();
        let guard = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            let line = lines().pop().expect("the last");
            // HTTP/2 tells a cancelled stream as one that has ended, if it is read before the call goes.
            let why = line["reasons"][0].to_string();
            if why.contains("broke off") || why.contains("breaks off") {
                assert_eq!(
                    (&line["changes"], of(&line)),
                    (&1.into(), ("Replace".into(), "refused".into()))
                );
                break;
            }
            assert!(tokio::time::Instant::now() < guard, "{line}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let done = lines();
        let done = done
            .iter()
            .filter(|it| it["outcome"] == "done" && it["dry_run"] == false);
        let generations: Vec<_> = done.map(|it| it["generation"].as_u64()).collect();
        let generation = get(&mut client).await.generation;
        let all: Vec<_> = (1..=generation).map(Some).collect();
        assert_eq!(generations, all);
        // It says what became of the tables, also of what no request names.
        let vrf = |n: u32| {
            Item::Vrf(v1::Vrf {
                name: format!("v{n:03}"),
            })
        };
        apply(&mut client, (0..150).map(vrf)).await.expect("sound");
        let answer = client.replace(stream::iter([green(Some(1))])).await;
        answer.expect("whole");
        let line = lines().pop().expect("the last");
        let diff = &line["diff"];
        let counts = ["created", "updated", "deleted"].map(|it| diff[it].as_u64());
        assert_eq!(counts, [Some(0), Some(0), Some(150)], "{line}");
        let items = diff["items"].as_array().expect("names");
        assert_eq!(
            (items.len(), &items[0]),
            (100, &"deleted vrf \"v000\"".into())
        );
    });
}

/// A dry run that says yes means that the same in earnest is taken.
#[test]
fn a_dry_run_is_refused_as_the_real_one_while_another_waits() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = red(&config).await;
        let blue = || {
            request([Item::Vrf(v1::Vrf {
                name: "blue".into(),
            })])
        };
        let waits = v1::ApplyRequest {
            confirm_within_seconds: 600,
            ..request([Item::Vrf(v1::Vrf {
                name: "green".into(),
            })])
        };
        client.apply(waits).await.expect("sound");
        for dry_run in [true, false] {
            let refused = client.apply(v1::ApplyRequest { dry_run, ..blue() }).await;
            let told = refusal(&refused.expect_err("one waits"));
            assert_eq!(told[0].code(), RefusalCode::Pending, "{told:?}");
            let refused = v1::ReplaceRequest {
                dry_run,
                ..green(Some(1))
            };
            let refused = client.replace(stream::iter([refused])).await;
            let told = refusal(&refused.expect_err("one waits"));
            assert_eq!(told[0].code(), RefusalCode::Pending, "{told:?}");
            let joins = v1::ApplyRequest {
                dry_run,
                confirm_within_seconds: 600,
                ..blue()
            };
            client.apply(joins).await.expect("it waits, too");
        }
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
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let (leave, left) = tokio::sync::oneshot::channel::<()>();
        let theirs = config.clone();
        let abandoned = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut other = connect(&theirs).await;
                loop {
                    let (messages, stream) = tokio::sync::mpsc::channel(4);
                    messages.send(green(None)).await.expect("there is room");
                    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
                    let mut request = tonic::Request::new(stream);
                    if how == How::TimedOut {
                        request.set_timeout(Duration::from_secs(2));
                    }
                    let mut calls = other.clone();
                    let mut call = Box::pin(calls.replace(request));
                    let answer = tokio::select! {
                        answer = &mut call => answer,
                        _ = &mut stopped, if how != How::TimedOut => match how {
                            How::SourceEnded => {
                                drop(messages);
                                call.await
                            }
                            _ => break,
                        },
                    };
                    let status = answer.expect_err("it was not whole");
                    // One of those below was in its way.
                    if status.code() != Code::ResourceExhausted {
                        break;
                    }
                }
                if how == How::Cancelled {
                    // The connection goes on until the node was seen to know of it.
                    other.get(v1::GetRequest {}).await.expect("it answers");
                    let _ = left.await;
                }
            });
        });
        on_runtime(async {
            let mut client = connect(&config).await;
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
            let _ = stop.send(());
            let guard = tokio::time::Instant::now() + Duration::from_secs(10);
            while let Err(status) = client.replace(stream::iter([dry.clone()])).await {
                assert!(tokio::time::Instant::now() < guard, "{how:?}: {status}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = leave.send(());
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
            ..Default::default()
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
