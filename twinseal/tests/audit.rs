//! The audit log, and what a controller may rely on. The real program is killed the moment that an answer is there: the log
//! has the line of it, and what was answered as stored is there after the restart. Nothing waits for a disk or a flush: the
//! answer is all that a controller has. And what a node does by itself has lines that say all of it.

mod node;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, Direction::AToB, RefusalCode, drain_target, item::Item};

use twinseal_node::jsonl::Output;
use twinseal_runtime::ports::memory::End;
use twinseal_server::NodeConfig;

use node::guarded::wait_for;
use node::{
    Node, config, connect, edge, get, key, link_owner, on_runtime, refusal, request, tag, transmit,
    whole,
};

type Client = ControlClient<Channel>;

/// Only a guard against hanging for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often each call is answered and the program killed.
const ROUNDS: u32 = 8;

/// A folder with a state directory, an audit log, and a process that is killed with this value.
struct Daemon {
    dir: TempDir,
    child: Child,
}

impl Daemon {
    fn start() -> Self {
        let dir = TempDir::new().expect("a folder");
        twinseal_node::state_dir::init(&dir.path().join("state"), false).expect("a new one");
        let text = format!(
            "state_dir = {state:?}\n[node]\nname = \"n\"\n[control]\nsocket = {socket:?}\n[workers]\ncount = 1\nlanes = 2\n\
             [memory]\nframes = 1024\nring = 256\nhuge_pages = \"never\"\n[audit]\nfile = {audit:?}\n",
            state = dir.path().join("state"),
            socket = dir.path().join("n.sock"),
            audit = dir.path().join("audit.json"),
        );
        std::fs::write(dir.path().join("node.toml"), text).expect("a file");
        let child = run(dir.path());
        Self { dir, child }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it ran until now");
    }

    /// After a [`kill`](Self::kill).
    fn again(&mut self) {
        self.child.wait().expect("it is our child");
        self.child = run(self.dir.path());
    }

    async fn client(&self) -> Client {
        let socket = self.dir.path().join("n.sock");
        let uri = format!("unix://{}", socket.display());
        let began = Instant::now();
        loop {
            let endpoint = Endpoint::try_from(uri.clone()).expect("a path");
            if let Ok(channel) = endpoint.connect().await {
                return ControlClient::new(channel);
            }
            assert!(began.elapsed() < PATIENCE, "it does not start");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn audit(&self) -> PathBuf {
        self.dir.path().join("audit.json")
    }

    /// The last line of the audit log, of those that clients caused.
    fn last_line(&self) -> Value {
        let text = std::fs::read_to_string(self.audit()).expect("it is there");
        let lines = text.lines().map(|line| -> Value {
            serde_json::from_str(line).expect("a killed program leaves no half a line")
        });
        let mut lines: Vec<_> = lines.filter(|line| line["role"] != "node").collect();
        lines.pop().expect("a line")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(dir: &Path) -> Child {
    program(dir).spawn().expect("the program starts")
}

fn program(dir: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_twinseal"));
    program
        .args(["--log", "error", "run", "--config"])
        .arg(dir.join("node.toml"))
        .stdin(Stdio::null());
    program
}

/// Where lines cannot be read back, nobody takes silence for agreement.
#[test]
fn a_log_that_cannot_be_read_back_is_said_to_be_none_to_compare_with() {
    let mut daemon = Daemon::start();
    let file = daemon.dir.path().join("node.toml");
    let text = std::fs::read_to_string(&file).expect("it is there");
    let audit = format!("{:?}", daemon.audit());
    std::fs::write(&file, text.replace(&audit, "\"-\"")).expect("a file");
    on_runtime(async {
        let mut client = daemon.client().await;
        client.apply(set_vrf("red")).await.expect("sound");
    });
    daemon.kill();
    daemon.child.wait().expect("it is our child");
    let child = program(daemon.dir.path()).stdout(Stdio::piped()).spawn();
    daemon.child = child.expect("the program starts");
    let out = daemon.child.stdout.take().expect("it is piped");
    let lines = std::io::BufReader::new(out).lines();
    let mut lines = lines.map(|line| -> Value {
        serde_json::from_str(&line.expect("text")).expect("a line of the audit log")
    });
    let line = lines.next().expect("a line");
    assert_eq!(line["method"], "Restore", "{line}");
    let told = line["items"][1].as_str().expect("text");
    assert!(told.contains("is not known"), "{line}");
}

fn vrf(name: &str) -> v1::Item {
    v1::Item {
        item: Some(Item::Vrf(v1::Vrf { name: name.into() })),
        ..Default::default()
    }
}

fn set_vrf(name: &str) -> v1::ApplyRequest {
    request(vrf(name).item)
}

fn to_confirm(name: &str) -> v1::ApplyRequest {
    v1::ApplyRequest {
        confirm_within_seconds: 600,
        ..set_vrf(name)
    }
}

/// What the `Restore` of the last start says besides that it was done.
async fn restored(daemon: &Daemon) -> (u64, Vec<String>) {
    let began = Instant::now();
    let line = loop {
        let text = std::fs::read_to_string(daemon.audit()).expect("it is there");
        let last: Option<Value> = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        if let Some(line) = last.filter(|line| line["method"] == "Restore") {
            break line;
        }
        assert!(began.elapsed() < PATIENCE, "it does not say so");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let items = line["items"].as_array().expect("a list");
    let items = items
        .iter()
        .skip(1)
        .map(|it| it.as_str().expect("text").to_owned());
    (
        line["generation"].as_u64().expect("a number"),
        items.collect(),
    )
}

/// Killed with requests under way: what is restored has a line, or the line of the restart names it; and what a line calls
/// done is restored.
#[test]
fn what_is_restored_and_what_is_in_the_audit_log_agree() {
    let _alone = ALONE.lock();
    let mut daemon = Daemon::start();
    on_runtime(async {
        for round in 0..ROUNDS {
            let mut client = daemon.client().await;
            let mut another = client.clone();
            let first = client.apply(set_vrf(&format!("first-{round}"))).await;
            let first = first.expect("sound").into_inner().generation;
            let under_way = tokio::spawn(async move {
                for n in 0.. {
                    if client
                        .apply(set_vrf(&format!("{round}-{n}")))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            });
            while get(&mut another).await.generation < first + 1 + u64::from(round) {
                tokio::task::yield_now().await;
            }
            daemon.kill();
            under_way.await.expect("it ends");
            let text = std::fs::read_to_string(daemon.audit()).expect("it is there");
            let last = text.lines().rev().find_map(|line| -> Option<u64> {
                let line: Value = serde_json::from_str(line).ok()?;
                line["generation"]
                    .as_u64()
                    .filter(|_| line.get("not_stored").is_none())
            });
            let last = last.expect("there are some");
            let mut client = daemon.anew().await;
            let generation = get(&mut client).await.generation;
            let (restored, differs) = restored(&daemon).await;
            assert_eq!(restored, generation);
            assert!(generation >= last, "{last} is done and not restored");
            match generation == last {
                true => assert_eq!(differs, [""; 0]),
                false => assert_eq!(
                    differs,
                    [format!(
                        "generations {} to {generation} were stored, and no line before this one is of them",
                        last + 1
                    )]
                ),
            }
        }
        // As when it was killed between the disk and the line, and the other way round.
        for (lines, want) in [
            (-1, "and no line before this one is of them"),
            (1, "were not stored or are lost"),
        ] {
            let mut client = daemon.client().await;
            let answer = client.apply(set_vrf(&format!("edited{lines}"))).await;
            let generation = answer.expect("sound").into_inner().generation;
            daemon.kill();
            let text = std::fs::read_to_string(daemon.audit()).expect("it is there");
            let last = text.trim_end().rfind('\n').expect("lines") + 1;
            let (whole, named) = match lines {
                -1 => (text[..last].to_owned(), generation),
                _ => {
                    let (now, next) = (
                        format!("\"generation\":{generation}"),
                        format!("\"generation\":{}", generation + 1),
                    );
                    let more = text[last..].replacen(&now, &next, 1);
                    (text.clone() + &more, generation + 1)
                }
            };
            std::fs::write(daemon.audit(), whole).expect("it can be written");
            let mut client = daemon.anew().await;
            get(&mut client).await;
            let (_, differs) = restored(&daemon).await;
            assert!(
                differs[0].starts_with(&format!("generations {named} to {named}")),
                "{differs:?}"
            );
            assert!(differs[0].ends_with(want), "{differs:?}");
        }
        // What waits is told to be gone.
        let answer = daemon.client().await.apply(to_confirm("waits")).await;
        let waits = answer.expect("sound").into_inner().generation;
        daemon.kill();
        daemon.anew().await;
        let lost =
            format!("generation {waits}, which waited for its confirmation, is not restored");
        assert_eq!(restored(&daemon).await, (waits + 1, vec![lost]));
    });
}

/// One test at a time: a program that is started has the other test's open files for a moment, and so its locks.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn what_was_answered_is_in_the_audit_log_and_on_the_disk() {
    let _alone = ALONE.lock();
    let mut daemon = Daemon::start();
    let tag = tag("killed");
    on_runtime(async {
        let answer = daemon
            .client()
            .await
            .apply(request(edge(&tag, v1::End::A)))
            .await;
        let mut generation = answer.expect("sound").into_inner().generation;
        for round in 1..=ROUNDS {
            let name = |what: &str| format!("{what}-{round}");

            let mut client = daemon.client().await;
            let answer = client.apply(set_vrf(&name("set"))).await;
            daemon.kill();
            let answer = answer.expect("sound").into_inner();
            daemon.done("Apply", answer.generation, &name("vrf set"));
            assert!(!answer.not_stored && answer.generation > generation);
            generation = answer.generation;

            let mut client = daemon.anew().await;
            let got = get(&mut client).await;
            assert_eq!(
                (got.generation, has(&got, &name("set"))),
                (generation, true)
            );
            let refused = client.apply(set_vrf("no name")).await;
            daemon.kill();
            refused.expect_err("no name");
            let line = daemon.last_line();
            assert_eq!(
                (&line["method"], &line["outcome"]),
                (&"Apply".into(), &"refused".into())
            );
            assert!(line.to_string().contains("no name"), "{line}");

            // A secret that began to transmit is known to have, whatever follows.
            let mut client = daemon.anew().await;
            let (epoch, secret) = (1 + round, 100 + round as u8);
            let load = [
                key(link_owner(), AToB, epoch, secret),
                transmit(v1::transmit::Owner::Link("l1".into()), epoch),
            ];
            let answer = client.apply(request(load.clone())).await;
            daemon.kill();
            let answer = answer.expect("sound").into_inner();
            daemon.done("Apply", answer.generation, "key of link l1");
            let mut client = daemon.anew().await;
            let got = get(&mut client).await;
            assert_eq!(got.generation, answer.generation);
            let refused = client.apply(request(load)).await;
            daemon.kill();
            let refused = refusal(&refused.expect_err("it has sealed"));
            let burned = refused.iter().map(v1::RefusedItem::code);
            let burned: Vec<_> = burned.collect();
            assert!(burned.contains(&RefusalCode::SecretBurned), "{burned:?}");
            let line = daemon.last_line();
            assert_eq!(line["outcome"], "refused", "{line}");

            let mut client = daemon.anew().await;
            let answer = client.apply(to_confirm(&name("confirmed"))).await;
            answer.expect("sound");
            let answer = client
                .confirm(v1::ConfirmRequest {
                    generation: 0,
                    ..Default::default()
                })
                .await;
            daemon.kill();
            let confirmed = answer.expect("it waits").into_inner().generation;
            daemon.done("Confirm", confirmed, "");
            let mut client = daemon.anew().await;
            let got = get(&mut client).await;
            assert_eq!(
                (got.generation, has(&got, &name("confirmed"))),
                (confirmed, true)
            );

            // What waits when the program ends is not there afterwards, and no generation comes twice.
            let before = got.items;
            let answer = client.apply(to_confirm(&name("waits"))).await;
            daemon.kill();
            let waits = answer.expect("sound").into_inner().generation;
            daemon.done("Apply", waits, &name("vrf waits"));
            let mut client = daemon.anew().await;
            let got = get(&mut client).await;
            assert_eq!(got.items, before);
            assert!(got.generation >= waits, "{} after {waits}", got.generation);

            let answer = client.apply(to_confirm(&name("taken-back"))).await;
            answer.expect("sound");
            let answer = client
                .rollback(v1::RollbackRequest {
                    generation: 0,
                    ..Default::default()
                })
                .await;
            daemon.kill();
            let back = answer.expect("it waits").into_inner().generation;
            daemon.done("Rollback", back, "");
            let mut client = daemon.anew().await;
            let got = get(&mut client).await;
            assert_eq!((got.generation, &got.items), (back, &before));

            let mut items = before;
            items.push(vrf(&name("replaced")));
            let answer = client
                .replace(futures::stream::iter([whole(items.clone())]))
                .await;
            daemon.kill();
            let answer = answer.expect("sound").into_inner();
            daemon.done("Replace", answer.generation, "vrf replaced");
            let mut client = daemon.anew().await;
            let got = get(&mut client).await;
            assert_eq!(got.generation, answer.generation);
            assert!(has(&got, &name("replaced")));
            assert_eq!(got.items.len(), items.len());

            for active in [false, true] {
                let target = drain_target::Target::Link("l1".into());
                let drain = v1::DrainRequest {
                    targets: vec![v1::DrainTarget {
                        target: Some(target),
                    }],
                    active,
                };
                let answer = client.drain(drain).await;
                daemon.kill();
                let drains = answer.expect("it is there").into_inner().drains;
                assert_eq!(drains.is_empty(), active);
                let verb = if active { "undrain" } else { "drain" };
                daemon.done("Drain", got.generation, &format!("{verb} link l1"));
                client = daemon.anew().await;
                assert_eq!(get(&mut client).await.drains, drains);
            }

            let traced = client.trace(v1::TraceRequest::default()).await;
            let mut traced = traced.expect("it begins").into_inner();
            let first = traced.message().await;
            daemon.kill();
            let first = first.expect("it goes on").expect("what it is limited to");
            assert!(first.limits.is_some());
            daemon.done("Trace", got.generation, "begin: all packets");

            let mut client = daemon.anew().await;
            let captured = client
                .capture(v1::CaptureRequest {
                    port: "hosts".into(),
                    ..Default::default()
                })
                .await;
            daemon.kill();
            captured.expect("it begins");
            daemon.done("Capture", got.generation, "begin: port hosts");
            generation = got.generation;
            daemon.again();
        }
    });
}

impl Daemon {
    /// Starts what was killed, and connects.
    async fn anew(&mut self) -> Client {
        self.again();
        self.client().await
    }

    /// The last line says that this was done.
    #[track_caller]
    fn done(&self, method: &str, generation: u64, item: &str) {
        let line = self.last_line();
        assert_eq!(
            (&line["method"], &line["outcome"], &line["generation"]),
            (&method.into(), &"done".into(), &generation.into()),
            "{line}"
        );
        let items = line["items"].to_string();
        assert!(items.contains(item), "{item}: {line}");
    }
}

fn has(got: &v1::GetResponse, name: &str) -> bool {
    got.items.contains(&vrf(name))
}

/// A rollback that nobody asked for, and that cannot restore everything: the log says what is not there, whatever needs what.
#[test]
fn an_automatic_rollback_in_part_names_what_was_left_out() {
    let _alone = ALONE.lock();
    let dir = TempDir::new().expect("a folder");
    let tag = tag("left-out");
    let file = dir.path().join("audit.json");
    let config = NodeConfig {
        audit: Some(Output::File {
            path: file.clone(),
            max_bytes: 0,
            keep: 0,
        }),
        ..config(dir.path(), "n")
    };
    let rollbacks = || -> Vec<Value> {
        let text = std::fs::read_to_string(&file).expect("it is there");
        let lines = text
            .lines()
            .map(|line| -> Value { serde_json::from_str(line).expect("JSON") });
        lines.filter(|line| line["method"] == "Rollback").collect()
    };
    let _node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let mut client = connect(&config).await;
        let edge = request(edge(&tag, v1::End::A));
        client.apply(edge).await.expect("sound");
        let before = get(&mut client).await.items;
        let alone = v1::ReplaceRequest {
            confirm_within_seconds: 1,
            ..whole(vec![vrf("blue")])
        };
        let answer = client.replace(futures::stream::iter([alone])).await;
        answer.expect("sound");
        let taken = [0, 1].map(|_| End::open(&format!("{tag}-under"), 1).expect("free"));
        wait_for(async || !rollbacks().is_empty()).await;
        let line = &rollbacks()[0];
        assert_eq!(
            (&line["role"], &line["outcome"], &line["who"]["node"]),
            (&"node".into(), &"done".into(), &"n".into())
        );
        let got = get(&mut client).await;
        assert_eq!(line["generation"], got.generation);
        let items: Vec<_> = line["items"].as_array().expect("a list").iter().collect();
        let items: Vec<_> = items.into_iter().filter_map(Value::as_str).collect();
        assert!(items[0].contains("not confirmed in time"), "{line}");
        assert!(
            items[1].starts_with("not restored: port \"under\": "),
            "{line}"
        );
        for name in ["link \"l1\"", "circuit \"c1\"", "route 10.2.0.0/16"] {
            let named = |item: &&str| item.starts_with(&format!("not restored: {name}"));
            assert!(items.iter().any(named), "{name}: {line}");
        }
        // All that is not there is named, and nothing twice.
        let missing = before.iter().filter(|item| !got.items.contains(item));
        assert_eq!(items.len(), 1 + missing.count(), "{line}");

        drop(taken);
        wait_for(async || rollbacks().len() == 2).await;
        let line = &rollbacks()[1];
        let got = get(&mut client).await;
        assert_eq!(line["generation"], got.generation);
        assert_eq!(got.items, before);
    });
}
