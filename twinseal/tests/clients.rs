//! Clients that mean harm, or break off: what they can keep from others, and what is known of what they did.

mod node;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use prost::Message;
use rcgen::SanType;
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;
use twinseal_access::{AccessConfig, Limits, Role};
use twinseal_api::client::Address;
use twinseal_api::v1::{self, item::Item};

use node::guarded::*;
use node::{apply, edge, on_runtime, request, tag};

fn ours(role: Role) -> AccessConfig {
    AccessConfig {
        users: vec![(own_uid(), role)],
        ..Default::default()
    }
}

/// A folder with the files of a node's TLS, and who issued them.
fn with_certificates() -> (TempDir, Issuer) {
    let dir = TempDir::new().expect("a folder");
    let ca = Issuer::new(dir.path(), "ca");
    let identity = ca.issue(dns("node.example.org"), false);
    let write = |name: &str, text: &str| write_private(&dir.path().join(name), text);
    write("node.pem", &identity.certificate);
    write("node.key", &identity.key);
    (dir, ca)
}

/// A connection from an address of loopback that never says a word.
async fn silent(last: u8, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from(([127, 0, 0, last], 0)))
        .expect("loopback");
    socket.connect(to).await.expect("it listens")
}

#[test]
fn places_are_divided_and_admins_always_get_in() {
    let (dir, ca) = with_certificates();
    let plain = tls_config(dir.path(), &ca);
    let access = AccessConfig {
        limits: Limits {
            connections: 6,
            client_connections: 2,
            handshake: Duration::from_secs(300),
            ..plain.limits
        },
        ..plain
    };
    let address = access.tls.as_ref().expect("it is given").listen;
    let node = Guarded::start(dir, access);
    on_runtime(async {
        let comes = async |san: SanType| {
            let issued = ca.issue(san, false);
            tls_client(address, &ca, Some(&issued))
                .await
                .expect("TLS is well")
        };
        // More handshakes than there are places for, from many addresses and from one.
        let mut held = Vec::new();
        for last in 1..=100 {
            for _ in 0..if last == 1 { 20 } else { 6 } {
                held.push(silent(last, address).await);
            }
        }
        let mut admin = comes(uri(ADMIN)).await;
        look(&mut admin).await.expect("it gets through");
        // Certificates that no rule knows: each is told, and none has a place.
        let mut strangers = Vec::new();
        for n in 0..30 {
            let mut stranger = comes(uri(&format!("spiffe://example.org/other/{n}"))).await;
            let status = look(&mut stranger).await.expect_err("nobody");
            assert_eq!(status.code(), Code::PermissionDenied, "{status}");
            strangers.push(stranger);
        }
        // Each client has its share; who wants more is told.
        let mut viewers = Vec::new();
        for n in 0..4 {
            if n < 2 {
                viewers.push(comes(dns("a.ops.example.org")).await);
                look(viewers.last_mut().expect("it came"))
                    .await
                    .expect("its share");
                continue;
            }
            let mut more = comes(dns("a.ops.example.org")).await;
            let status = look(&mut more).await.expect_err("more than its share");
            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
            let words = [
                "a.ops.example.org has 2",
                "control.limits.client_connections",
            ];
            assert!(
                words.iter().all(|it| status.message().contains(it)),
                "{status}"
            );
        }
        for name in ["b", "c"] {
            let mut viewer = comes(dns(&format!("{name}.ops.example.org"))).await;
            look(&mut viewer).await.expect("a share of its own");
            viewers.push(viewer);
        }
        // The admin has one of the six and a kept one is for admins alone.
        let mut full = None;
        for name in ["d", "e", "f"] {
            let mut viewer = comes(dns(&format!("{name}.ops.example.org"))).await;
            full = look(&mut viewer).await.err();
            viewers.push(viewer);
        }
        let status = full.expect("six have come before");
        assert!(status.message().contains("all 6 places"), "{status}");
        let mut admins = Vec::new();
        for _ in 0..20 {
            let mut more = comes(uri(ADMIN)).await;
            look(&mut more).await.expect("it gets in");
            admins.push(more);
        }
        let stream = UnixStream::connect(node.socket()).await;
        let stream = stream.expect("it listens");
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        let ended = tokio::spawn(connection);
        let mut oldest = Raw {
            send,
            connection: tokio::spawn(async {}),
        };
        let (code, _) = oldest.refused("Get", &v1::GetRequest {}).await;
        assert_eq!(code, None);
        let mut ours = Vec::new();
        for _ in 0..20 {
            let mut client = node.client().await;
            look(&mut client).await.expect("it gets in");
            ours.push(client);
        }
        // Whose place was needed is told so.
        let error = ended.await.expect("no panic").expect_err("its place went");
        assert!(error.is_go_away() && error.is_remote(), "{error:?}");
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        assert!(
            format!("{error:?}").contains("its place was needed"),
            "{error:?}"
        );
        // All of it was counted.
        let mut client = node.client().await;
        let refusals = node::stats(&mut client).await.refusals;
        for reason in [
            "too_many_handshakes",
            "peer_refused",
            "too_many_connections",
            "connection_displaced",
        ] {
            let counted = refusals.iter().any(|it| it.name == reason && it.value > 0);
            assert!(counted, "{reason}: {refusals:?}");
        }
        // Whose places for handshakes are full is told, so that an admin at the same address knows why.
        let watch = v1::WatchRequest {
            from_sequence: Some(1),
            kinds: vec![v1::EventKind::Security.into()],
            ..Default::default()
        };
        let mut events = client.watch(watch).await.expect("a place").into_inner();
        let full = "a TLS client at 127.0.0.1: all 8 places of its address for handshakes";
        loop {
            let event = events.message().await.expect("no error").expect("no end");
            let Some(v1::event::Event::Security(event)) = event.event else {
                panic!("{event:?}");
            };
            if let Some(v1::security_event::Owner::Peer(peer)) = event.owner
                && event.reason == "too_many_handshakes"
                && peer.starts_with(full)
            {
                break;
            }
        }
        drop(held);
    });
}

/// A connection of HTTP/2 of which a test decides every step.
struct Raw {
    send: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

impl Raw {
    /// Takes so many bytes of each answer before it is asked again.
    async fn connect(socket: &Path, window: u32) -> Self {
        let stream = UnixStream::connect(socket).await.expect("it listens");
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        let (send, connection) = builder.handshake(stream).await.expect("HTTP/2");
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { send, connection }
    }

    async fn call(&mut self, method: &str) -> (ResponseFuture, SendStream<Bytes>) {
        self.call_at(&format!("twinseal.v1.Control/{method}"), None)
            .await
    }

    async fn call_at(
        &mut self,
        path: &str,
        timeout: Option<&str>,
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://localhost/{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(()).expect("a request");
        let mut send = self.send.clone().ready().await.expect("it is open");
        send.send_request(request, false).expect("a stream")
    }

    /// Calls with a message, and tells the code of an answer that is a refusal.
    async fn refused(
        &mut self,
        method: &str,
        message: &impl Message,
    ) -> (Option<Code>, h2::RecvStream) {
        let (answer, mut body) = self.call(method).await;
        body.send_data(framed(message), true).expect("it is open");
        let (head, body) = answer.await.expect("an answer").into_parts();
        let status = head.headers.get("grpc-status");
        (
            status.map(|status| Code::from_bytes(status.as_bytes())),
            body,
        )
    }

    fn close(self) {
        self.connection.abort();
    }
}

/// What an answer that is an error says.
async fn said(answer: ResponseFuture) -> tonic::Status {
    let head = answer.await.expect("an answer");
    tonic::Status::from_header_map(head.headers()).expect("an error")
}

fn framed(message: &impl Message) -> Bytes {
    raw(&message.encode_to_vec())
}

fn raw(message: &[u8]) -> Bytes {
    let mut body = vec![0];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    body.into()
}

/// Whatever is wrong with a call, it is told as the API tells it, not as the libraries do.
#[test]
fn answers_are_in_our_words() {
    let node = Guarded::start(TempDir::new().expect("a folder"), ours(Role::Admin));
    on_runtime(async {
        let mut client = Raw::connect(node.socket(), 65_535).await;
        for method in ["Apply", "Replace", "Get"] {
            // A field that goes on beyond the end, half a message, and none at all.
            for bytes in [raw(&[0x0a, 0x7f]), raw(&[0x0a]).slice(..4), Bytes::new()] {
                let (answer, mut body) = client.call(method).await;
                let empty = bytes.is_empty();
                body.send_data(bytes, true).expect("it is open");
                let status = said(answer).await;
                assert_eq!(status.code(), Code::InvalidArgument, "{method}: {status}");
                let stream_without = method == "Replace" && empty;
                assert!(
                    stream_without || status.message().contains("control.proto"),
                    "{status}"
                );
            }
        }
        let health = "grpc.health.v1.Health/Check";
        let (answer, mut body) = client.call_at(health, None).await;
        let other = tonic_health::pb::HealthCheckRequest {
            service: "other".into(),
        };
        body.send_data(framed(&other), true).expect("it is open");
        let status = said(answer).await;
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains("twinseal.v1.Control"), "{status}");
        let (answer, mut body) = client.call("Teleport").await;
        body.send_data(Bytes::new(), true).expect("it is open");
        let status = said(answer).await;
        assert_eq!(status.code(), Code::Unimplemented, "{status}");
        assert!(status.message().contains("another version"), "{status}");
        // A deadline that its client gave.
        for timeout in ["50m", "50000u"] {
            let path = "twinseal.v1.Control/Replace";
            let (answer, mut body) = client.call_at(path, Some(timeout)).await;
            let half = framed(&v1::ReplaceRequest::default());
            body.send_data(half, false).expect("it is open");
            let status = said(answer).await;
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            assert!(status.message().contains("its client gave"), "{status}");
        }
    });
    let lines = node.stop();
    let broken = lines
        .iter()
        .filter(|it| it["method"] == "Replace" && it["outcome"] == "refused");
    // Three that made no sense, and two whose time was over.
    assert_eq!(broken.count(), 5, "{lines:#?}");
}

/// Streams that nobody ends do not keep their own client from asking, nor its admins from mending.
#[test]
fn streams_leave_room_for_calls() {
    let node = Guarded::start(TempDir::new().expect("a folder"), ours(Role::Admin));
    on_runtime(async {
        let (mut client, mut watches) = (node.client().await, Vec::new());
        let status = loop {
            match client.watch(v1::WatchRequest::default()).await {
                Ok(watch) => watches.push(watch),
                Err(status) => break status,
            }
        };
        assert_eq!(
            (status.code(), watches.len()),
            (Code::ResourceExhausted, 48)
        );
        assert!(status.message().contains("kept from streams"), "{status}");
        look(&mut client).await.expect("a place of its own");
        let address = Address::socket(node.socket());
        let mut api = twinseal_api::client::Client::connect(address)
            .await
            .expect("it listens");
        api.state().await.expect("as `ctl get` asks");
        set_vrf(&mut client, "red").await.expect("and changes");
    });
}

fn routes(numbers: Range<u32>) -> impl Iterator<Item = Item> {
    numbers.map(|n| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + n);
        Item::Route(v1::Route {
            vrf: "red".into(),
            prefix: format!("{address}/32"),
            target: Some(v1::route::Target::Blackhole(v1::Blackhole {})),
        })
    })
}

fn vrf() -> Item {
    Item::Vrf(v1::Vrf { name: "red".into() })
}

#[test]
fn who_only_looks_sends_little() {
    let node = Guarded::start(TempDir::new().expect("a folder"), ours(Role::Viewer));
    on_runtime(async {
        let mut client = node.client().await;
        let usage = v1::UsageRequest {
            circuits: vec!["x".repeat(64); 300],
            ..Default::default()
        };
        let status = client.usage(usage).await.expect_err("too large");
        assert_eq!(status.code(), Code::OutOfRange, "{status}");
        assert!(
            status.message().contains("Usage takes 16384 bytes"),
            "{status}"
        );
        let usage = v1::UsageRequest {
            from_unix: 20,
            until_unix: 10,
            ..Default::default()
        };
        let status = client
            .usage(usage)
            .await
            .expect_err("there is no such time");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        // One that says it will send much is told at once, and what it sends is not kept.
        let mut raw = Raw::connect(node.socket(), 65_535).await;
        let (answer, mut body) = raw.call("Get").await;
        let mut begin = vec![0];
        begin.extend((60u32 << 20).to_be_bytes());
        begin.extend(vec![7; 1000]);
        body.send_data(begin.into(), false).expect("it is open");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["grpc-status"], "11", "{answer:?}");
        look(&mut client).await.expect("as before");
    });
}

#[test]
fn answers_that_nobody_reads_are_few_and_states_come_in_parts() {
    let node = Guarded::start(TempDir::new().expect("a folder"), ours(Role::Admin));
    let access = &node.config.socket.access;
    let reload = |role| access.reload(ours(role)).expect("sound");
    on_runtime(async {
        let mut client = node.client().await;
        let small = std::iter::once(vrf()).chain(routes(0..60_000));
        client.apply(request(small)).await.expect("sound");
        let whole = look(&mut client).await.expect("less than 4 MiB");
        reload(Role::Viewer);
        let mut raw = Raw::connect(node.socket(), 0).await;
        let (mut held, mut refused) = (Vec::new(), 0);
        for _ in 0..20 {
            match raw.refused("Get", &v1::GetRequest {}).await {
                (None, body) => held.push(body),
                (Some(code), _) => {
                    assert_eq!(code, Code::ResourceExhausted);
                    refused += 1;
                }
            }
        }
        assert!(
            (1..10).contains(&held.len()),
            "{} held, {refused} refused",
            held.len()
        );
        let status = look(&mut client)
            .await
            .expect_err("the client's budget is used");
        assert!(
            status.message().contains("this client's requests"),
            "{status}"
        );
        reload(Role::Admin);
        look(&mut client).await.expect("what admins have is apart");
        reload(Role::Viewer);
        raw.close();
        drop(held);
        wait_for(async || look(&mut client).await.is_ok()).await;

        // In parts it may be larger, and merged they are the same.
        let address = Address::socket(node.socket());
        let mut api = twinseal_api::client::Client::connect(address)
            .await
            .expect("it listens");
        assert_eq!(api.state().await.expect("all of it"), whole);
        reload(Role::Admin);
        client
            .apply(request(routes(60_000..180_000)))
            .await
            .expect("sound");
        let status = look(&mut client).await.expect_err("more than 4 MiB");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("List"), "{status}");
        let state = api.state().await.expect("all of it");
        assert_eq!((state.items.len(), state.generation), (180_001, 2));
        // Who takes them too slowly is told that they are not all.
        let hasty = AccessConfig {
            limits: Limits {
                request: Duration::from_secs(1),
                ..Limits::default()
            },
            ..ours(Role::Viewer)
        };
        access.reload(hasty).expect("sound");
        let mut raw = Raw::connect(node.socket(), 1000).await;
        let (code, mut body) = raw.refused("List", &v1::GetRequest {}).await;
        assert_eq!(code, None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        while let Some(data) = body.data().await {
            let data = data.expect("no error");
            body.flow_control()
                .release_capacity(data.len())
                .expect("it was taken");
        }
        let trailers = body.trailers().await.expect("no error").expect("trailers");
        assert_eq!(trailers["grpc-status"], "4", "{trailers:?}");
    });
}

#[test]
fn counters_come_in_parts_and_not_in_one_answer_that_clients_do_not_take() {
    let node = Guarded::start(TempDir::new().expect("a folder"), ours(Role::Admin));
    on_runtime(async {
        let mut client = node.client().await;
        let tag = tag("counters");
        apply(&mut client, edge(&tag, v1::End::A))
            .await
            .expect("sound");
        // As long as names are.
        let circuit = |n: u32| {
            Item::Circuit(v1::Circuit {
                name: format!("{n:x>64}"),
                id: u64::from(1000 + n),
                end: v1::End::A.into(),
                vrf: "red".into(),
                link: "l1".into(),
                label: 1000 + n,
                ..Default::default()
            })
        };
        let address = Address::socket(node.socket());
        let api = twinseal_api::client::Client::connect(address);
        let mut api = api.await.expect("it listens");
        // None of a part, some, as many as one has, and more than two.
        for circuits in [1..2, 2..500, 500..501, 501..1301] {
            let all = circuits.end as usize;
            let load = request(circuits.map(circuit));
            client.apply(load).await.expect("sound");
            let whole = client.stats(v1::StatsRequest {}).await;
            let whole = whole.expect("it is small").into_inner();
            assert_eq!((whole.circuits.len(), whole.links.len()), (all, 1));
            let parts = api.counters().await.expect("all of it");
            // Workers go on.
            let still = |stats: v1::StatsResponse| v1::StatsResponse {
                workers: Vec::new(),
                ..stats
            };
            assert!(still(parts) == still(whole), "{all} circuits");
        }
        for n in (1301..63_301).step_by(31_000) {
            let load = request((n..n + 31_000).map(circuit));
            client.apply(load).await.expect("sound");
        }
        let status = client.stats(v1::StatsRequest {}).await;
        let status = status.map(drop).expect_err("more than 4 MiB");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("ListStats"), "{status}");
        let counters = api.counters().await.expect("all of it");
        assert_eq!(counters.circuits.len(), 63_301);
    });
}

/// When a client breaks off.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
enum Step {
    Headers,
    HalfOfTheBody,
    Body,
    Committed,
    Answered,
}

#[test]
fn what_was_done_is_written_down_whatever_becomes_of_the_client() {
    let node = Guarded::start(TempDir::new().expect("a folder"), ours(Role::Admin));
    on_runtime(async {
        let mut client = node.client().await;
        client.apply(request([vrf()])).await.expect("sound");
        let mut n = 0;
        for step in [
            Step::Headers,
            Step::HalfOfTheBody,
            Step::Body,
            Step::Committed,
            Step::Answered,
        ] {
            for reset in [true, false] {
                for size in [1, 1000] {
                    n += 1;
                    let before = look(&mut client).await.expect("it answers").generation;
                    let mut raw = Raw::connect(node.socket(), 0).await;
                    let (answer, mut body) = raw.call("Apply").await;
                    let message = framed(&request(routes(1000 * n..1000 * n + size)));
                    let half = message.len() / 2;
                    match step {
                        Step::Headers => {}
                        Step::HalfOfTheBody => {
                            body.send_data(message.slice(..half), false).expect("open");
                        }
                        Step::Body | Step::Committed | Step::Answered => {
                            body.send_data(message, true).expect("open");
                        }
                    }
                    // What is to be sent is.
                    tokio::task::yield_now().await;
                    if step >= Step::Committed {
                        wait_for(async || {
                            look(&mut client).await.expect("it answers").generation > before
                        })
                        .await;
                    }
                    let unread = match step {
                        Step::Answered => Some(answer.await.expect("an answer")),
                        _ => None,
                    };
                    if reset {
                        body.send_reset(Reason::CANCEL);
                        tokio::task::yield_now().await;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    raw.close();
                    drop(unread);
                }
            }
        }
        let generation = look(&mut client).await.expect("it answers").generation;
        assert!(generation >= 9, "{generation}");
    });
    let audit = node.stop();
    let done = audit.iter().filter(|line| line["outcome"] == "done");
    let generations: Vec<_> = done.map(|line| line["generation"].as_u64()).collect();
    let all: Vec<_> = (1..=generations.len() as u64).map(Some).collect();
    assert_eq!(generations, all);
}

#[test]
fn a_line_is_there_before_the_answer_and_rollbacks_have_lines() {
    let node = Guarded::start(TempDir::new().expect("a folder"), ours(Role::Admin));
    let file = node.dir.path().join("audit.json");
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).expect("it is there");
        let lines = text.lines().map(serde_json::from_str);
        lines.map(|line| line.expect("JSON")).collect()
    };
    on_runtime(async {
        let mut client = node.client().await;
        for n in 1..=100 {
            let generation = set_vrf(&mut client, &format!("v{n}")).await.expect("sound");
            assert_eq!((lines().len() as u64, generation), (n, n));
        }
        let confirmed = v1::ApplyRequest {
            confirm_within_seconds: 1,
            ..request([vrf()])
        };
        client.apply(confirmed).await.expect("sound");
        wait_for(async || look(&mut client).await.expect("it answers").generation == 102).await;
        wait_for(async || lines().len() == 102).await;
        let line = lines().pop().expect("the last");
        assert_eq!(
            (&line["method"], &line["role"]),
            (&"Rollback".into(), &"node".into())
        );
        assert_eq!(
            (&line["outcome"], &line["generation"]),
            (&"done".into(), &102.into())
        );
        let item = line["items"][0].as_str().expect("what");
        assert!(item.contains("generation 101"), "{line}");
        // Names are no longer than can be read.
        let long = set_vrf(&mut client, &"x".repeat(1 << 20)).await;
        long.expect_err("no name");
        let line = lines().pop().expect("the last");
        assert_eq!(line["outcome"], "refused");
        assert!(line.to_string().len() < 4096);
    });
    // A node that restores its tables changes what it does, too.
    let (config, dir) = (node.config.clone(), node.dir);
    node.node.stop();
    let node = node::Node::start(config).expect("it starts again");
    node.stop();
    let text = std::fs::read_to_string(dir.path().join("audit.json")).expect("it is there");
    let last: serde_json::Value =
        serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(
        (&last["method"], &last["generation"]),
        (&"Restore".into(), &102.into())
    );
}
