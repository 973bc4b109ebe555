//! What an operator does to a running node, over real sockets and memory ports: draining.

mod node;

use std::path::Path;

use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};
use twinseal::control::access::{Access, AccessConfig, Role};
use twinseal::control::lines::Output;
use twinseal::control::{NodeConfig, SocketConfig};
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, drain_target::Target, event::Event, item::Item};

use node::{
    Flow, Node, apply, config, connect, edge, get, on_runtime, refusal, request, stats, tag,
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
        let whole = v1::ReplaceRequest {
            items,
            ..Default::default()
        };
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
        }
    });
    node.stop();
}
