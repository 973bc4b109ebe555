//! What an operator does to a running node, over real sockets and memory ports: draining, tracing, capturing.

mod node;

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use twinseal_access::{Access, AccessConfig, Role};
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, drain_target::Target, event::Event, item::Item};
use twinseal_node::jsonl::Output;
use twinseal_server::{NodeConfig, SocketConfig};

use node::{
    Flow, Node, apply, config, connect, edge, get, on_runtime, refusal, request, stats, tag, whole,
};

type Client = ControlClient<Channel>;

/// A node for a user of this role, with an audit log.
fn config_for(dir: &Path, name: &str, role: Role) -> NodeConfig {
    let plain = config(dir, name);
    let access = AccessConfig {
        users: vec![(rustix::process::geteuid().as_raw(), role)],
        ..Default::default()
    };
    NodeConfig {
        socket: SocketConfig {
            access: Access::new(access).expect("sound rules"),
            ..plain.socket
        },
        audit: Some(Output::File {
            path: dir.join(format!("{name}.audit")),
            max_bytes: 0,
            keep: 0,
        }),
        ..plain
    }
}

fn audit(dir: &Path, name: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(dir.join(format!("{name}.audit"))).expect("it is there");
    let lines = text.lines().map(serde_json::from_str);
    lines.map(|line| line.expect("JSON")).collect()
}

/// Two edges with traffic between their hosts.
struct Pair {
    dir: TempDir,
    nodes: Vec<Node>,
    configs: [NodeConfig; 2],
    flow: Flow,
}

impl Pair {
    fn start(tag: &str) -> Self {
        let dir = TempDir::new().expect("a folder");
        let configs = ["a", "b"].map(|name| config_for(dir.path(), name, Role::Admin));
        let start = |config: &NodeConfig| Node::start(config.clone()).expect("it starts");
        Self {
            nodes: configs.iter().map(start).collect(),
            flow: Flow::new(tag),
            configs,
            dir,
        }
    }

    async fn load(&self, tag: &str) -> [Client; 2] {
        let mut clients = [
            connect(&self.configs[0]).await,
            connect(&self.configs[1]).await,
        ];
        for (client, end) in clients.iter_mut().zip([v1::End::A, v1::End::B]) {
            apply(client, edge(tag, end)).await.expect("it applies");
        }
        clients
    }
}

fn link(name: &str) -> v1::DrainTarget {
    v1::DrainTarget {
        target: Some(Target::Link(name.into())),
    }
}

fn port(name: &str) -> v1::DrainTarget {
    v1::DrainTarget {
        target: Some(Target::Port(name.into())),
    }
}

fn whole_node() -> v1::DrainTarget {
    v1::DrainTarget {
        target: Some(Target::Node(v1::WholeNode {})),
    }
}

async fn drain(
    client: &mut Client,
    targets: Vec<v1::DrainTarget>,
    active: bool,
) -> Result<Vec<v1::DrainState>, Status> {
    let answer = client.drain(v1::DrainRequest { targets, active }).await?;
    Ok(answer.into_inner().drains)
}

fn circuit(name: &str, id: u64, link: &str) -> Item {
    Item::Circuit(v1::Circuit {
        name: name.into(),
        id,
        end: v1::End::A.into(),
        vrf: "red".into(),
        link: link.into(),
        label: id as u32,
        ..Default::default()
    })
}

/// Another link on the same port.
fn second_link() -> Item {
    Item::Link(v1::Link {
        name: "l2".into(),
        end: v1::End::A.into(),
        port: "under".into(),
        local: "192.0.2.1".into(),
        remote: "192.0.2.3".into(),
        ..Default::default()
    })
}

#[track_caller]
fn drains(refused: Result<u64, Status>, item: &str, field: &str) {
    let status = refused.expect_err("it drains");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let items = refusal(&status);
    assert_eq!(items[0].code(), v1::RefusalCode::Draining);
    assert_eq!(
        (items[0].item.as_str(), items[0].field.as_str()),
        (item, field)
    );
    assert!(items[0].fix.contains("undrain"), "{items:?}");
}

#[test]
fn what_drains_forwards_what_is_there_and_takes_nothing_new() {
    let tag = tag("drain");
    let mut pair = Pair::start(&tag);
    let state = on_runtime(async {
        let [mut a, _] = pair.load(&tag).await;
        apply(&mut a, [second_link()]).await.expect("a second link");
        let watch = v1::WatchRequest {
            kinds: vec![v1::EventKind::Configuration.into()],
            ..Default::default()
        };
        let mut events = a.watch(watch).await.expect("events").into_inner();
        let unknown = drain(&mut a, vec![link("l1"), link("none")], false).await;
        let status = unknown.expect_err("there is none");
        assert_eq!(
            refusal(&status)[0].code(),
            v1::RefusalCode::NotFound,
            "{status}"
        );
        assert_eq!(get(&mut a).await.drains, [], "all or none");
        let empty = drain(&mut a, Vec::new(), false).await;
        assert_eq!(empty.expect_err("nothing").code(), Code::InvalidArgument);

        let state = drain(&mut a, vec![link("l1")], false)
            .await
            .expect("it drains");
        assert!(state[0].by.starts_with("user "), "{state:?}");
        assert_eq!(
            drain(&mut a, vec![link("l1")], false)
                .await
                .expect("it does already"),
            state
        );
        let event = events.message().await.expect("no error").expect("no end");
        let Some(Event::Drain(event)) = event.event else {
            panic!("{event:?}");
        };
        assert_eq!(
            (event.target.clone(), event.status()),
            (Some(link("l1")), v1::DrainStatus::Draining)
        );
        let got = get(&mut a).await;
        assert_eq!(got.drains, state);
        let draining = |got: &v1::GetResponse| -> Vec<bool> {
            got.links.iter().map(|link| link.draining).collect()
        };
        assert_eq!(draining(&got), [true, false]);

        // What is there goes on and may change, go or move away.
        pair.flow.send(100);
        pair.flow.all_arrive().await;
        assert_eq!(stats(&mut a).await.drains[0].packets, 100);
        drains(
            apply(&mut a, [circuit("c2", 5, "l1")]).await,
            "circuit \"c2\"",
            "link",
        );
        let label = |link: &str, label, to: &str| {
            Item::Label(v1::Label {
                link: link.into(),
                label,
                action: Some(v1::label::Action::Swap(v1::Swap {
                    link: to.into(),
                    label,
                })),
            })
        };
        drains(
            apply(&mut a, [label("l2", 900, "l1")]).await,
            "label 900 on link \"l2\"",
            "swap.link",
        );
        apply(&mut a, [circuit("c2", 5, "l2")])
            .await
            .expect("elsewhere");
        drains(
            apply(&mut a, [circuit("c2", 5, "l1")]).await,
            "circuit \"c2\"",
            "link",
        );
        let with_tags = |link: &str| {
            Item::Circuit(v1::Circuit {
                name: "c1".into(),
                id: 77,
                end: v1::End::A.into(),
                vrf: "red".into(),
                link: link.into(),
                label: 102,
                tags: [("clientId".to_owned(), "7".to_owned())].into(),
                ..Default::default()
            })
        };
        apply(&mut a, [with_tags("l1")]).await.expect("in place");
        apply(&mut a, [with_tags("l2")]).await.expect("moved away");
        drains(
            apply(&mut a, [with_tags("l1")]).await,
            "circuit \"c1\"",
            "link",
        );

        state
    });

    // It outlives the node, and ends when an operator says so.
    let config = pair.configs[0].clone();
    pair.nodes.remove(0).stop();
    pair.nodes
        .insert(0, Node::start(config.clone()).expect("it starts"));
    on_runtime(async {
        let mut a = connect(&config).await;
        assert_eq!(get(&mut a).await.drains, state);
        let again = v1::WatchRequest {
            from_sequence: Some(1),
            kinds: vec![v1::EventKind::Configuration.into()],
            ..Default::default()
        };
        let mut events = a.watch(again).await.expect("events").into_inner();
        let first = events.message().await.expect("no error").expect("no end");
        assert!(matches!(first.event, Some(Event::Drain(_))), "{first:?}");
        drop(events);
        drains(
            apply(&mut a, [circuit("c3", 6, "l1")]).await,
            "circuit \"c3\"",
            "link",
        );
        assert_eq!(
            drain(&mut a, vec![link("l1")], true)
                .await
                .expect("it ends"),
            []
        );
        apply(&mut a, [circuit("c3", 6, "l1")])
            .await
            .expect("in service again");
    });
    for node in pair.nodes.drain(..) {
        node.stop();
    }
    let audit = audit(pair.dir.path(), "a");
    let of_drain: Vec<_> = audit.iter().filter(|it| it["method"] == "Drain").collect();
    assert_eq!(of_drain.len(), 5, "{of_drain:#?}");
    assert_eq!(of_drain[2]["items"][0], "drain link l1");
    assert_eq!(of_drain[4]["items"][0], "undrain link l1");
}

#[test]
fn ports_and_nodes_drain_with_all_that_is_on_them() {
    let tag = tag("drain-all");
    let pair = Pair::start(&tag);
    on_runtime(async {
        let [mut a, _] = pair.load(&tag).await;
        let both = vec![port("under"), port("hosts")];
        drain(&mut a, both.clone(), false)
            .await
            .expect("they drain");
        let got = get(&mut a).await;
        assert!(got.links[0].draining && got.ports.iter().all(|port| port.draining));
        drains(apply(&mut a, [second_link()]).await, "link \"l2\"", "port");
        drains(
            apply(&mut a, [circuit("c2", 5, "l1")]).await,
            "circuit \"c2\"",
            "link",
        );
        let route = Item::Route(v1::Route {
            vrf: "red".into(),
            prefix: "10.9.0.0/16".into(),
            target: Some(v1::route::Target::Via(v1::Via {
                port: "hosts".into(),
                address: String::new(),
            })),
        });
        drains(
            apply(&mut a, [route.clone()]).await,
            "route 10.9.0.0/16 in vrf \"red\"",
            "via.port",
        );
        drain(&mut a, vec![whole_node()], false)
            .await
            .expect("it drains");
        assert_eq!(drain(&mut a, both, true).await.expect("they end").len(), 1);
        drains(apply(&mut a, [second_link()]).await, "link \"l2\"", "");
        drains(
            apply(&mut a, [circuit("c2", 5, "l1")]).await,
            "circuit \"c2\"",
            "",
        );
        apply(&mut a, [route]).await.expect("no circuit");
        // A whole state that adds nothing is no news.
        let items = get(&mut a).await.items;
        let whole = whole(items);
        let replaced = a.replace(tokio_stream::iter([whole])).await;
        replaced.expect("nothing new");
        let dry = v1::ApplyRequest {
            dry_run: true,
            ..request([circuit("c2", 5, "l1")])
        };
        let told = a.apply(dry).await.expect_err("a dry run tells it too");
        assert_eq!(refusal(&told)[0].code(), v1::RefusalCode::Draining);
    });
}

#[test]
fn operators_may_and_viewers_may_not() {
    let dir = TempDir::new().expect("a folder");
    let config = config_for(dir.path(), "n", Role::Viewer);
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let status = drain(&mut client, vec![whole_node()], false).await;
        assert_eq!(status.expect_err("a viewer").code(), Code::PermissionDenied);
        let trace = client.trace(v1::TraceRequest::default()).await;
        assert_eq!(trace.expect_err("a viewer").code(), Code::PermissionDenied);
        let capture = client.capture(v1::CaptureRequest::default()).await;
        assert_eq!(
            capture.expect_err("a viewer").code(),
            Code::PermissionDenied
        );
        let ping = client.ping(v1::PingRequest::default()).await;
        assert_eq!(ping.expect_err("a viewer").code(), Code::PermissionDenied);
        let explained = client.explain(v1::ExplainRequest::default()).await;
        assert_eq!(
            explained.expect_err("no vrf").code(),
            Code::InvalidArgument,
            "but it may look"
        );
        for role in [Role::Operator, Role::Admin] {
            let access = AccessConfig {
                users: vec![(rustix::process::geteuid().as_raw(), role)],
                ..Default::default()
            };
            config.socket.access.reload(access).expect("sound");
            for active in [false, true] {
                let done = drain(&mut client, vec![whole_node()], active).await;
                assert_eq!(done.expect("it may").is_empty(), active);
            }
            let trace = client.trace(v1::TraceRequest::default()).await;
            trace.expect("it may");
            let ping = client.ping(v1::PingRequest::default()).await;
            let nobody = ping.expect_err("it may, and names nobody");
            assert_eq!(nobody.code(), Code::InvalidArgument, "{nobody}");
        }
    });
    node.stop();
}

/// Sends packets, one after the other, until a stream has told all that it will.
macro_rules! read_to_end {
    ($stream:expr, $send:expr) => {{
        let mut messages = Vec::new();
        loop {
            let () = $send;
            let message = tokio::time::timeout(Duration::from_millis(20), $stream.message()).await;
            match message {
                Ok(Ok(Some(message))) => messages.push(message),
                Ok(Ok(None)) => break messages,
                Ok(Err(status)) => panic!("{status}"),
                Err(_) => {}
            }
        }
    }};
}

async fn trace(
    client: &mut Client,
    request: v1::TraceRequest,
) -> Result<Streaming<v1::TraceResponse>, Status> {
    Ok(client.trace(request).await?.into_inner())
}

async fn capture(
    client: &mut Client,
    request: v1::CaptureRequest,
) -> Result<Streaming<v1::CaptureResponse>, Status> {
    Ok(client.capture(request).await?.into_inner())
}

fn traced(messages: &[v1::TraceResponse]) -> Vec<v1::TracedPacket> {
    let packets = messages.iter().flat_map(|message| message.packets.clone());
    packets.collect()
}

fn captured(messages: &[v1::CaptureResponse]) -> Vec<v1::CapturedFrame> {
    let frames = messages.iter().flat_map(|message| message.frames.clone());
    frames.collect()
}

#[test]
fn traces_tell_the_way_of_packets() {
    let tag = tag("trace");
    let mut pair = Pair::start(&tag);
    on_runtime(async {
        let [mut a, mut b] = pair.load(&tag).await;
        let request = v1::TraceRequest {
            vrf: "red".into(),
            filter: Some(v1::PacketFilter {
                destination: "10.2.0.0/24".into(),
                protocol: Some(17),
                ..Default::default()
            }),
            count: 5,
            ..Default::default()
        };
        let mut stream = trace(&mut a, request).await.expect("it begins");
        let messages = read_to_end!(stream, {
            pair.flow.send(1);
            pair.flow.all_arrive().await
        });
        let limits = messages[0].limits.expect("limits first");
        assert_eq!((limits.count, limits.seconds), (5, 60));
        assert_eq!(messages.last().expect("an end").end(), v1::TapEnd::Count);
        let packets = traced(&messages);
        assert_eq!(packets.len(), 5);
        let it = &packets[0];
        assert_eq!((it.port.as_str(), it.vrf.as_str()), ("hosts", "red"));
        assert_eq!(it.stages, ["parse", "route", "circuit_enter", "link_seal"]);
        let packet = it.packet.as_ref().expect("an edge sees it");
        assert_eq!(
            (packet.source.as_str(), packet.destination.as_str()),
            ("10.1.0.9", "10.2.0.9")
        );
        assert_eq!((packet.source_port, packet.destination_port), (1000, 2000));
        let route = it.route.as_ref().expect("a route");
        assert_eq!(route.prefix, "10.2.0.0/16");
        let into = it.into.as_ref().expect("a circuit");
        assert_eq!(
            (into.circuit.as_str(), into.link.as_str(), into.label),
            ("c1", "l1", 102)
        );
        assert_eq!((into.circuit_epoch, into.link_epoch), (1, 1));
        assert_eq!(
            (it.fate(), it.out_port.as_str()),
            (v1::PacketFate::Sent, "under")
        );
        assert_eq!(it.sent_bytes, it.received_bytes + 92);

        let at_b = v1::TraceRequest {
            circuit: "c1".into(),
            count: 1,
            ..Default::default()
        };
        let mut stream = trace(&mut b, at_b).await.expect("it begins");
        let messages = read_to_end!(stream, {
            pair.flow.send(1);
            pair.flow.all_arrive().await
        });
        let it = &traced(&messages)[0];
        let from = it.from.as_ref().expect("a circuit");
        assert_eq!((from.circuit.as_str(), from.label), ("c1", 102));
        assert_eq!(from.receiver_index, into.receiver_index);
        assert_eq!((it.out_port.as_str(), &it.into), ("hosts", &None));

        // Only drops; and the sender's other packets pass.
        let drops = v1::TraceRequest {
            port: "hosts".into(),
            dropped: true,
            count: 1,
            ..Default::default()
        };
        let mut stream = trace(&mut a, drops).await.expect("it begins");
        let messages = read_to_end!(stream, {
            pair.flow.send(1);
            pair.flow.all_arrive().await;
            pair.flow.send_elsewhere([10, 77, 0, 1])
        });
        let it = &traced(&messages)[0];
        assert_eq!(
            (it.fate(), it.reason.as_str()),
            (v1::PacketFate::Dropped, "no_route")
        );

        let ask = |destination: &str| v1::ExplainRequest {
            vrf: "red".into(),
            destination: destination.into(),
            protocol: 17,
            ..Default::default()
        };
        let there = a.explain(ask("10.2.0.9")).await.expect("it answers");
        let there = there.into_inner();
        assert_eq!(there.route.expect("a route").prefix, "10.2.0.0/16");
        assert_eq!(there.into.expect("a circuit").circuit, "c1");
        assert_eq!(
            (there.out_port.as_str(), there.next_hop_mac.as_str()),
            ("under", "02:00:00:00:01:02")
        );
        assert_eq!(there.problem, "");
        let here = a.explain(ask("10.1.0.9")).await.expect("it answers");
        let here = here.into_inner();
        assert_eq!((here.out_port.as_str(), here.into), ("hosts", None));
        assert_eq!(here.next_hop_mac, "02:00:00:00:09:01");
        let nowhere = a.explain(ask("10.77.0.1")).await.expect("it answers");
        assert_eq!(nowhere.into_inner().problem, "no_route");
    });
}

#[test]
fn captures_have_what_is_on_the_wire_and_are_audited() {
    let tag = tag("capture");
    let mut pair = Pair::start(&tag);
    on_runtime(async {
        let [mut a, _] = pair.load(&tag).await;
        let plain = v1::CaptureRequest {
            port: "hosts".into(),
            direction: v1::CaptureDirection::In.into(),
            count: 3,
            ..Default::default()
        };
        let mut stream = capture(&mut a, plain).await.expect("it begins");
        let messages = read_to_end!(stream, {
            pair.flow.send(1);
            pair.flow.all_arrive().await
        });
        let frames = captured(&messages);
        assert_eq!(frames.len(), 3);
        let inside = &frames[0].octets[26..34];
        assert_eq!(inside, [10, 1, 0, 9, 10, 2, 0, 9], "plaintext");
        assert_eq!(frames[0].length as usize, frames[0].octets.len());
        assert_eq!(frames[0].direction(), v1::CaptureDirection::In);

        let sealed = v1::CaptureRequest {
            port: "under".into(),
            filter: Some(v1::PacketFilter {
                source: "192.0.2.1".into(),
                destination_port: Some(21591),
                ..Default::default()
            }),
            snap_length: 60,
            count: 3,
            ..Default::default()
        };
        let mut stream = capture(&mut a, sealed).await.expect("it begins");
        let messages = read_to_end!(stream, {
            pair.flow.send(1);
            pair.flow.all_arrive().await
        });
        for frame in captured(&messages) {
            assert_eq!(frame.direction(), v1::CaptureDirection::Out);
            assert_eq!(frame.length, frames[0].length + 92);
            assert_eq!(frame.octets.len(), 60);
            assert!(!frame.octets.windows(8).any(|it| it == inside));
        }
        assert_eq!(messages.last().expect("an end").end(), v1::TapEnd::Count);
    });
    for node in pair.nodes.drain(..) {
        node.stop();
    }
    let audit = audit(pair.dir.path(), "a");
    let items: Vec<_> = audit
        .iter()
        .filter(|it| it["method"] == "Capture")
        .map(|it| it["items"][0].as_str().expect("words").to_owned())
        .collect();
    assert_eq!(
        items,
        [
            "begin: port hosts, in; at most 3 in 60 s, 12288 octets of each",
            "end: port hosts, in; 3 told, 0 lost",
            "begin: port under, both ways, from 192.0.2.1, destination port 21591; at most 3 in 60 s, 60 octets of each",
            "end: port under, both ways, from 192.0.2.1, destination port 21591; 3 told, 0 lost",
        ]
    );
    assert!(audit.iter().all(|it| it["who"]["uid"].is_number()));
}

#[test]
fn a_client_that_never_reads_loses_copies_and_no_packet_is_lost() {
    let tag = tag("slow");
    let mut pair = Pair::start(&tag);
    on_runtime(async {
        let [mut a, _] = pair.load(&tag).await;
        let all = v1::CaptureRequest {
            port: "hosts".into(),
            count: u32::MAX,
            seconds: 10,
            snap_length: u32::MAX,
            ..Default::default()
        };
        let mut unread = capture(&mut a, all).await.expect("it begins");
        let every = v1::TraceRequest {
            count: u32::MAX,
            seconds: 10,
            ..Default::default()
        };
        let mut untraced = trace(&mut a, every).await.expect("it begins");
        // More than all buffers on the way to the clients hold.
        for _ in 0..240 {
            pair.flow.send(200);
            pair.flow.all_arrive().await;
        }
        assert_eq!(pair.flow.received, 48_000);
        let stats = stats(&mut a).await;
        assert!(stats.drops.iter().all(|drop| drop.value == 0), "{stats:?}");

        let messages = read_to_end!(unread, ());
        let limits = messages[0].limits.expect("limits first");
        assert_eq!(
            (limits.count, limits.seconds, limits.snap_length),
            (1_000_000, 10, 12_288)
        );
        let last = messages.last().expect("an end");
        assert_eq!(last.end(), v1::TapEnd::Time);
        let told = captured(&messages).len() as u64;
        assert!(
            last.lost > 0 && told > 0 && told + last.lost <= 48_000,
            "{told}"
        );
        let messages = read_to_end!(untraced, ());
        let last = messages.last().expect("an end");
        let told = traced(&messages).len() as u64;
        assert!(
            last.lost > 0 && told > 0 && told + last.lost <= 48_000,
            "{told}"
        );
    });
}

/// Between the node's opening of a tap and the client's stream there was a moment in which nobody ended it.
#[test]
fn calls_that_are_dropped_at_once_keep_no_place() {
    let tag = tag("dropped");
    let pair = Pair::start(&tag);
    on_runtime(async {
        let [mut a, _] = pair.load(&tag).await;
        let all = || v1::CaptureRequest {
            port: "hosts".into(),
            seconds: 60,
            ..Default::default()
        };
        for n in 0..150 {
            let call = capture(&mut a, all());
            let _ = tokio::time::timeout(Duration::from_micros(n * 20), call).await;
        }
        let ends = |word: &str| {
            let lines = audit(pair.dir.path(), "a");
            let of = |line: &&serde_json::Value| line["items"].to_string().contains(word);
            lines.iter().filter(of).count()
        };
        while ends("begin: ") == 0 || ends("begin: ") > ends("end: ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut open = Vec::new();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while open.len() < 4 {
            // A worker that sleeps lets go of a tap when it wakes.
            match capture(&mut a, all()).await {
                Ok(stream) => open.push(stream),
                Err(error) => {
                    assert!(tokio::time::Instant::now() < deadline, "no room: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    });
}

#[test]
fn taps_are_few_and_end_with_what_they_are_of() {
    let tag = tag("taps");
    let pair = Pair::start(&tag);
    on_runtime(async {
        let [mut a, _] = pair.load(&tag).await;
        apply(&mut a, [circuit("c2", 5, "l1")])
            .await
            .expect("it applies");
        let of_circuit = || v1::TraceRequest {
            circuit: "c2".into(),
            ..Default::default()
        };
        let mut streams = Vec::new();
        for _ in 0..4 {
            let stream = trace(&mut a, of_circuit()).await;
            streams.push(stream.expect("there is room"));
        }
        let fifth = trace(&mut a, of_circuit()).await.expect_err("no room");
        assert_eq!(fifth.code(), Code::ResourceExhausted);
        assert_eq!(refusal(&fifth)[0].code(), v1::RefusalCode::NoRoom);
        // Who goes makes room.
        drop(streams.split_off(1));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let mut again = loop {
            match trace(&mut a, of_circuit()).await {
                Ok(stream) => break stream,
                Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
            }
            assert!(tokio::time::Instant::now() < deadline, "no room came");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let gone = v1::Change {
            change: Some(v1::change::Change::Delete(v1::ItemRef {
                item: Some(v1::item_ref::Item::Circuit("c2".into())),
            })),
        };
        let delete = v1::ApplyRequest {
            changes: vec![gone],
            ..Default::default()
        };
        a.apply(delete).await.expect("it applies");
        let messages = read_to_end!(again, ());
        assert_eq!(messages.last().expect("an end").end(), v1::TapEnd::Gone);

        let wrong = v1::CaptureRequest {
            port: "none".into(),
            filter: Some(v1::PacketFilter {
                source: "10.0.0.0/33".into(),
                destination_port: Some(65_536),
                ..Default::default()
            }),
            ..Default::default()
        };
        let status = capture(&mut a, wrong).await.expect_err("all wrong");
        let fields: Vec<_> = refusal(&status).into_iter().map(|it| it.field).collect();
        assert_eq!(fields, ["filter.source", "filter.destination_port", "port"]);
        let status = trace(&mut a, of_circuit()).await.expect_err("it is gone");
        assert_eq!(refusal(&status)[0].code(), v1::RefusalCode::NotFound);
    });
}
