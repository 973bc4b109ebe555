//! `twinseal agent etcd` between real daemons and a real cluster of three etcd members: loading, a member lost, wrong
//! state, a foreign hand, a node killed, and the agent's end.

#[path = "../../etcd/tests/cluster/mod.rs"]
mod cluster;
mod triangle;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cluster::Cluster;
use serde_json::{Value, json};
use triangle::{PATIENCE, Triangle};
use twinseal_etcd::{Change, Client};
use twinseal_testbed::items::random;

const NODES: [&str; 3] = ["a", "b", "t"];
/// Links and circuits: what has keys, its kind, and its two nodes.
const OWNERS: [(&str, &str, [&str; 2]); 3] = [
    ("at", "link", ["a", "t"]),
    ("tb", "link", ["t", "b"]),
    ("red", "circuit", ["a", "b"]),
];

#[tokio::test]
async fn nodes_follow_etcd_whatever_happens() {
    let Some(mut cluster) = Cluster::start(3).await else {
        return;
    };
    let Some(mut net) = Triangle::start() else {
        return;
    };
    let mut store = Store(cluster.client());
    let mut agents = NODES.map(|name| Agent::start(&cluster, &net, name));

    // Nothing is there: nothing is done.
    store.wait("a", "invalid").await;
    store.load().await;
    net.wait_for_pings("after loading");

    // One member of three is lost, and a change comes through.
    cluster.kill_member(0);
    let hole = r#"{"routes": [{"vrf": "red", "prefix": "10.9.0.0/16", "blackhole": {}}]}"#;
    store.put("state/a/hole", hole).await;
    store.wait_until(&net, "a", "10.9.0.0/16", true).await;
    cluster.start_member(0);
    store.delete("state/a/hole").await;
    store.wait_until(&net, "a", "10.9.0.0/16", false).await;

    // A wrong fragment is told with its place, and the node is left as it is.
    store.put("state/b/more", "vrfs:\n- nam: x\n").await;
    let status = store.wait("b", "invalid").await;
    let item = status["reasons"][0]["item"].as_str().expect("an item");
    assert!(item.contains("state/b/more:2"), "{status}");
    store
        .put(
            "state/b/more",
            "routes:\n- {vrf: none, prefix: 10.0.0.0/8, blackhole: {}}\n",
        )
        .await;
    let status = store.wait("b", "refused").await;
    assert!(status["reasons"][0]["fix"].is_string(), "{status}");
    net.wait_for_pings("while the state is wrong");
    store.delete("state/b/more").await;
    store.wait("b", "applied").await;

    // Somebody else's hand does not stay in what is the agent's own; what another owner sets does.
    for (owner, name) in [("controller", "theirs"), ("etcd", "foreign")] {
        let file = net.folder().join(name);
        std::fs::write(&file, format!("vrfs:\n- name: {name}\n")).expect("a file");
        let file = file.display().to_string();
        ctl(&net, "t", &["apply", "-f", &file, "--owner", owner]);
    }
    store.wait_until(&net, "t", "foreign", false).await;
    store.wait_until(&net, "t", "theirs", true).await;

    // A killed node has lost its keys: the old ones are refused, new ones are taken.
    net.restart("b");
    let status = store.wait("b", "refused").await;
    let reasons = status["reasons"].to_string();
    assert!(reasons.contains("sealed before"), "{status}");
    store.give_keys(2).await;
    let revisions = store.transmit(2).await;
    store.wait_for_revisions(revisions).await;
    net.wait_for_pings("after a restart and new keys");

    // An agent that is asked to end takes its status with it; the node goes on.
    agents[0].terminate();
    let begin = Instant::now();
    while store.status("a").await.is_some() {
        assert!(begin.elapsed() < PATIENCE, "the status is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    net.wait_for_pings("without an agent");
    for agent in &mut agents[1..] {
        assert!(agent.0.try_wait().expect("a child").is_none(), "it ended");
    }
    net.finish();
}

#[tokio::test]
async fn an_agent_speaks_tls_and_outlives_its_token_and_its_password() {
    let Some(mut cluster) = Cluster::start_tls(1).await else {
        return;
    };
    let Some(net) = Triangle::start() else {
        return;
    };
    for args in [
        &["role", "add", "root"][..],
        &["user", "add", "root:r"],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "all"],
        &[
            "role",
            "grant-permission",
            "all",
            "--prefix=true",
            "readwrite",
            "/twinseal/",
        ],
        &["user", "add", "agent:first"],
        &["user", "grant-role", "agent", "all"],
        &["auth", "enable"],
    ] {
        cluster.ctl(args);
    }
    let mut store = Store(cluster.client_as(Some(("root", "r"))));
    let password = net.folder().join("password");
    let write = |text: &str| {
        std::fs::write(&password, text).expect("a file");
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&password, private).expect("its mode");
    };
    write("first\n");
    let file = |name: &str| cluster.file(name).display().to_string();
    let secure = [
        "--user".into(),
        "agent".into(),
        "--password-file".into(),
        password.display().to_string(),
    ];
    let tls = [
        "--etcd-ca".into(),
        file("ca"),
        "--etcd-cert".into(),
        file("client"),
        "--etcd-key".into(),
        file("client-key"),
    ];
    let mut agent = Agent::start_with(&cluster, &net, "a", &[&secure[..], &tls[..]].concat());
    store.put("state/a/base", "vrfs: [{name: one}]\n").await;
    store.wait_until(&net, "a", "one", true).await;

    // Tokens are in the member's memory: it forgets them. Then the password changes, and the token dies again.
    cluster.kill_member(0);
    cluster.start_member(0);
    store.put("state/a/base", "vrfs: [{name: two}]\n").await;
    store.wait_until(&net, "a", "two", true).await;
    cluster.ctl_as(
        "root:r",
        &["user", "passwd", "agent", "--interactive=false"],
        "second\n",
    );
    write("second\n");
    cluster.kill_member(0);
    cluster.start_member(0);
    store.put("state/a/base", "vrfs: [{name: three}]\n").await;
    store.wait_until(&net, "a", "three", true).await;
    store.wait("a", "applied").await;
    agent.terminate();

    // Without encryption nothing goes to another machine.
    let plain = Command::new(env!("CARGO_BIN_EXE_twinseal"))
        .args([
            "agent",
            "etcd",
            "--node",
            "a",
            "--endpoints",
            "http://192.0.2.1:2379",
        ])
        .arg("--socket")
        .arg(net.socket("a"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&plain.stderr);
    assert_eq!(plain.status.code(), Some(1), "{said}");
    assert!(
        said.contains("in the clear") && said.contains("https://"),
        "{said}"
    );
    net.finish();
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release --test e2e_etcd -- --ignored --nocapture"]
async fn how_long_a_change_takes() {
    let Some(cluster) = Cluster::start(3).await else {
        return;
    };
    let Some(net) = Triangle::start() else {
        return;
    };
    let mut store = Store(cluster.client());
    let _agents = NODES.map(|name| Agent::start(&cluster, &net, name));
    store.load().await;
    net.wait_for_pings("after loading");

    let (mut one, mut three) = (Vec::new(), Vec::new());
    for round in 0..50 {
        let hole = format!(
            r#"{{"routes": [{{"vrf": "red", "prefix": "10.9.{round}.0/24", "blackhole": {{}}}}]}}"#
        );
        one.push(store.time(&[("a", &hole)]).await);
        let rename = format!(r#"{{"vrfs": [{{"name": "round-{round}"}}]}}"#);
        three.push(store.time(&NODES.map(|node| (node, &*rename))).await);
    }
    for (what, mut times) in [("one node", one), ("three nodes", three)] {
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{what}: from the put to the last status: median {median:?}, most {most:?}");
    }
    net.finish();
}

/// The test's end of etcd: the controller.
struct Store(Client);

impl Store {
    async fn put(&mut self, key: &str, value: &str) -> i64 {
        let key = format!("/twinseal/{key}");
        let begin = Instant::now();
        loop {
            // Right after a member was lost there may be no leader yet.
            match self.0.put(key.as_bytes(), value.as_bytes(), None).await {
                Ok(revision) => return revision,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The tables and first keys of all nodes.
    async fn load(&mut self) {
        for name in NODES {
            let key = format!("state/{name}/tables");
            self.put(&key, &tables(name)).await;
        }
        self.give_keys(1).await;
        let revisions = self.transmit(1).await;
        self.wait_for_revisions(revisions).await;
    }

    /// Puts a fragment to each node, and tells how long it takes until the last of them says that it is applied.
    async fn time(&mut self, fragments: &[(&str, &str)]) -> Duration {
        let now = self.0.read(b"/twinseal/status/", None).await.expect("read");
        let statuses = self.0.watch(&[b"/twinseal/status/"], now.revision + 1);
        let mut statuses = statuses.await.expect("a watch");
        let begin = Instant::now();
        let mut missing = Vec::new();
        for (node, fragment) in fragments {
            let revision = self.put(&format!("state/{node}/timed"), fragment).await;
            missing.push((json!(node), revision));
        }
        while !missing.is_empty() {
            let change = statuses.next().await.expect("a status");
            let Change::Put { value, .. } = change else {
                continue;
            };
            let status: Value = serde_json::from_slice(&value).expect("JSON");
            assert_eq!(status["state"], "applied", "{status}");
            missing.retain(|(node, revision)| {
                status["node"] != *node || status["revision"].as_i64() < Some(*revision)
            });
        }
        begin.elapsed()
    }

    async fn delete(&mut self, key: &str) {
        let key = format!("/twinseal/{key}");
        self.0.delete(key.as_bytes()).await.expect("deleted");
    }

    /// New keys for everything, beside those that are there.
    async fn give_keys(&mut self, epoch: u32) {
        for (number, (name, kind, nodes)) in (1..).zip(OWNERS) {
            let keys: Vec<_> = (0..)
                .zip(["a-to-b", "b-to-a"])
                .map(|(way, direction)| {
                    let mut secret = [0; 32];
                    random(&mut secret).expect("random octets");
                    let mut key = json!({kind: name, "direction": direction, "epoch": epoch, "secret": STANDARD.encode(secret)});
                    if kind == "link" {
                        key["receiver_index"] = json!(epoch * 100 + number * 10 + way);
                    }
                    key
                })
                .collect();
            for node in nodes {
                let fragment = json!({ "keys": keys }).to_string();
                self.put(&format!("keys/{node}/{name}"), &fragment).await;
            }
        }
    }

    /// Has all ends transmit with an epoch; tells the revision of each node's last fragment.
    async fn transmit(&mut self, epoch: u32) -> Vec<(&'static str, i64)> {
        let mut revisions = Vec::new();
        for node in NODES {
            let with: Vec<_> = OWNERS
                .iter()
                .filter(|(_, _, nodes)| nodes.contains(&node))
                .map(|(name, kind, _)| json!({*kind: name, "epoch": epoch}))
                .collect();
            let fragment = json!({ "transmit": with }).to_string();
            let revision = self.put(&format!("keys/{node}/transmit"), &fragment).await;
            revisions.push((node, revision));
        }
        revisions
    }

    async fn status(&mut self, node: &str) -> Option<Value> {
        let key = format!("/twinseal/status/{node}");
        let read = self.0.read(key.as_bytes(), None).await.ok()?;
        let value = &read.entries.first()?.value;
        Some(serde_json::from_slice(value).expect("JSON"))
    }

    #[track_caller]
    fn patience(begin: Instant, what: &str, status: &Option<Value>) {
        assert!(begin.elapsed() < PATIENCE, "{what}: {status:?}");
    }

    async fn wait(&mut self, node: &str, state: &str) -> Value {
        let begin = Instant::now();
        loop {
            let status = self.status(node).await;
            if let Some(status) = status.as_ref().filter(|status| status["state"] == state) {
                return status.clone();
            }
            Self::patience(begin, &format!("{node} is not {state}"), &status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until every node is at the last state that was written for it.
    async fn wait_for_revisions(&mut self, revisions: Vec<(&'static str, i64)>) {
        for (node, revision) in revisions {
            let begin = Instant::now();
            loop {
                let status = self.wait(node, "applied").await;
                if status["revision"].as_i64().expect("a revision") >= revision {
                    break;
                }
                Self::patience(begin, &format!("{node} is too old"), &Some(status));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Until a node's state has a text in it, or has it no more.
    async fn wait_until(&mut self, net: &Triangle, node: &str, text: &str, there: bool) {
        let begin = Instant::now();
        while ctl(net, node, &["get"]).contains(text) != there {
            let status = self.status(node).await;
            Self::patience(begin, &format!("{text} at {node}"), &status);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// An agent's process, ended when dropped.
struct Agent(Child);

impl Agent {
    fn start(cluster: &Cluster, net: &Triangle, name: &str) -> Self {
        Self::start_with(cluster, net, name, &[])
    }

    fn start_with(cluster: &Cluster, net: &Triangle, name: &str, more: &[String]) -> Self {
        let log = std::fs::File::create(net.folder().join(format!("agent-{name}.txt")));
        let child = Command::new(env!("CARGO_BIN_EXE_twinseal"))
            .args(["agent", "etcd", "--timeout", "2", "--lease", "60"])
            .args([
                "--endpoints",
                &cluster.endpoints().join(","),
                "--node",
                name,
            ])
            .args(more)
            .arg("--socket")
            .arg(net.socket(name))
            .stdin(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the agent starts");
        Self(child)
    }

    fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.0.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ctl(net: &Triangle, node: &str, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_twinseal"))
        .args(["ctl", "--socket"])
        .arg(net.socket(node))
        .args(args)
        .output()
        .expect("ctl runs");
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{wrong}");
    String::from_utf8(output.stdout).expect("text")
}

/// A circuit from a by t to b.
fn tables(node: &str) -> String {
    match node {
        "a" => {
            "
ports:
- { name: lan, role: edge, vrf: red, af_xdp: { netdev: eth-lan } }
- { name: wan, role: underlay, af_xdp: { netdev: to-t } }
vrfs: [{ name: red }]
links: [{ name: at, end: a, port: wan, local: 198.51.100.1, remote: 198.51.100.2 }]
circuits: [{ name: red, id: 7, end: a, vrf: red, link: at, label: 100 }]
labels: [{ link: at, label: 101, egress: { circuit: red } }]
routes:
- { vrf: red, prefix: 10.1.0.0/24, via: { port: lan } }
- { vrf: red, prefix: 10.2.0.0/24, circuit: red }
"
        }
        "b" => {
            "
ports:
- { name: lan, role: edge, vrf: red, af_xdp: { netdev: eth-lan } }
- { name: wan, role: underlay, af_xdp: { netdev: to-t } }
vrfs: [{ name: red }]
links: [{ name: tb, end: b, port: wan, local: 203.0.113.2, remote: 203.0.113.1 }]
circuits: [{ name: red, id: 7, end: b, vrf: red, link: tb, label: 201 }]
labels: [{ link: tb, label: 200, egress: { circuit: red } }]
routes:
- { vrf: red, prefix: 10.2.0.0/24, via: { port: lan } }
- { vrf: red, prefix: 10.1.0.0/24, circuit: red }
"
        }
        _ => {
            "
ports:
- { name: west, role: underlay, af_xdp: { netdev: to-a } }
- { name: east, role: underlay, af_xdp: { netdev: to-b } }
links:
- { name: at, end: b, port: west, local: 198.51.100.2, remote: 198.51.100.1 }
- { name: tb, end: a, port: east, local: 203.0.113.1, remote: 203.0.113.2 }
labels:
- { link: at, label: 100, swap: { link: tb, label: 200 } }
- { link: tb, label: 201, swap: { link: at, label: 101 } }
"
        }
    }
    .to_owned()
}
