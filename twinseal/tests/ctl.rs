//! The program as its user meets it: `twinseal run` on memory ports, and `twinseal ctl` against it.

mod schema;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Only a guard against hanging for ever; nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);

fn twinseal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twinseal"));
    command
        .env_remove("TWINSEAL_LOG")
        .env_remove("TWINSEAL_SOCKET")
        .env_remove("NOTIFY_SOCKET");
    command
}

/// A process whose lines of one stream are read as they come. It ends with this value.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command, stream: Stream) -> Self {
        let mut child = match stream {
            Stream::Stdout => command.stdout(Stdio::piped()).stderr(Stdio::inherit()),
            Stream::Stderr => command.stderr(Stdio::piped()).stdout(Stdio::inherit()),
            Stream::Both => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
        }
        .spawn()
        .expect("the program starts");
        let (send, lines) = channel();
        let stdout = child
            .stdout
            .take()
            .map(|it| Box::new(it) as Box<dyn std::io::Read + Send>);
        let stderr = child
            .stderr
            .take()
            .map(|it| Box::new(it) as Box<dyn std::io::Read + Send>);
        for stream in [stdout, stderr].into_iter().flatten() {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, lines }
    }

    /// Reads on until a line has these words.
    #[track_caller]
    fn line_with(&self, words: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no line with {words:?}, only {seen:#?}"),
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("it lives");
    }

    /// Waits for its end; its status, `None` if a signal ended it.
    fn status(&mut self) -> Option<i32> {
        self.child.wait().expect("it is our child").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
enum Stream {
    Stdout,
    Stderr,
    Both,
}

/// A running node in a folder of its own.
struct Node {
    process: Process,
    dir: TempDir,
}

impl Node {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let process = Self::run(dir.path(), &[]);
        Self { process, dir }
    }

    fn run(dir: &Path, env: &[(&str, &Path)]) -> Process {
        Self::run_with(dir, env, "")
    }

    /// With more lines of configuration.
    fn run_with(dir: &Path, env: &[(&str, &Path)], more: &str) -> Process {
        let config = dir.join("node.toml");
        let text = format!(
            "state_dir = {state:?}\n[node]\nname = \"n\"\n[control]\nsocket = {socket:?}\n[workers]\ncount = 1\nlanes = 2\n\
             [memory]\nframes = 1024\nring = 256\nhuge_pages = \"never\"\n{more}",
            state = dir.join("state"),
            socket = dir.join("n.sock"),
        );
        std::fs::write(&config, text).expect("a file");
        if !dir.join("state").exists() {
            twinseal_node::state_dir::init(&dir.join("state"), false).expect("a new one");
        }
        let mut command = twinseal();
        command
            .arg("run")
            .arg("--config")
            .arg(config)
            .envs(env.iter().copied());
        let process = Process::start(&mut command, Stream::Stderr);
        process.line_with("node n is ready on");
        process
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        // It may have secrets.
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, own).expect("ours");
        path
    }

    fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = twinseal();
        command
            .arg("ctl")
            .arg("--socket")
            .arg(self.dir.path().join("n.sock"))
            .args(arguments);
        command
    }

    fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_command(arguments)
            .output()
            .expect("the program starts")
    }

    /// Runs `ctl`, which must succeed, and returns what it printed.
    #[track_caller]
    fn ctl_ok(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn apply(&self, name: &str, text: &str, more: &[&str]) -> Output {
        let path = self.file(name, text);
        let mut arguments = vec!["apply", "-f", path.to_str().expect("UTF-8")];
        arguments.extend(more);
        self.ctl(&arguments)
    }

    fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.ctl_ok(&[command, "--json"])).expect("JSON")
    }
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).expect("UTF-8")
}

const SECRETS: [&str; 2] = [
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=",
];

/// A node's whole state on memory ports.
fn state() -> String {
    let pid = std::process::id();
    let [first, second] = SECRETS;
    format!(
        "ports:
  - {{name: wan, role: underlay, memory: {{wire: wan-{pid}, mac: 02:00:00:00:00:01}}}}
  - {{name: lan, role: edge, vrf: red, memory: {{wire: lan-{pid}, mac: 02:00:00:00:00:02}}}}
vrfs:
  - name: red
links:
  - {{name: to-b, end: a, port: wan, local: 192.0.2.1, remote: 192.0.2.2}}
circuits:
  - {{name: c, id: 7, end: a, vrf: red, link: to-b, label: 100}}
labels:
  - {{link: to-b, label: 200, egress: {{circuit: c}}}}
routes:
  - {{vrf: red, prefix: 10.2.0.0/24, circuit: c}}
  - {{vrf: red, prefix: '2001:db8:2::/64', circuit: c}}
neighbours:
  - {{port: wan, address: 192.0.2.2, mac: 02:00:00:00:00:03}}
keys:
  - {{link: to-b, direction: a-to-b, epoch: 1, receiver_index: 1, secret: {first}}}
  - {{circuit: c, direction: a-to-b, epoch: 1, secret: {second}}}
transmit:
  - {{link: to-b, epoch: 1}}
  - {{circuit: c, epoch: 1}}
"
    )
}

const CHANGES: usize = 13;

#[test]
fn applies_and_reads_back() {
    let node = Node::start();
    let applied = node.apply("state.yaml", &state(), &["--expect-generation", "0"]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    assert_eq!(
        text(&applied.stdout),
        format!("generation 1: {CHANGES} changes applied\n")
    );

    let got = node.ctl_ok(&["get"]);
    assert!(got.starts_with("# node n, version "), "{got}");
    for line in [
        "name: to-b",
        "prefix: 10.2.0.0/24",
        "secret: installed",
        "label: 200",
        "# link to-b: up (no key receives), next hop 02:00:00:00:00:03",
    ] {
        assert!(got.contains(line), "{line:?} in {got}");
    }
    for secret in SECRETS {
        assert!(!got.contains(&secret[..10]), "{got}");
    }
    let json = node.json("get");
    assert_eq!(json["node"], "n");
    assert_eq!(json["generation"], 1);
    assert_eq!(json["state"]["circuits"][0]["id"], 7);
    assert_eq!(json["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["keys"][0]["transmitting"], true);

    // What was read can be edited and applied again.
    let edited = got.replace("10.2.0.0/24", "10.3.0.0/24");
    let again = node.apply("edited.yaml", &edited, &[]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    assert!(
        text(&again.stdout).contains("; 2 keys without a secret in the file left as they are"),
        "{}",
        text(&again.stdout)
    );
    let got = node.ctl_ok(&["get"]);
    assert!(
        got.contains("10.3.0.0/24") && got.contains("10.2.0.0/24"),
        "{got}"
    );

    let deleted = node.apply(
        "delete.yaml",
        "delete: [{route: {vrf: red, prefix: 10.3.0.0/24}}]\n",
        &[],
    );
    assert_eq!(
        text(&deleted.stdout),
        "generation 3: 1 change applied\n",
        "{}",
        text(&deleted.stderr)
    );
    assert!(!node.ctl_ok(&["get"]).contains("10.3.0.0/24"));
}

#[test]
fn prints_in_every_form_and_completes_shells() {
    let node = Node::start();
    let applied = node.apply("state.yaml", &state(), &[]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    for command in ["get", "stats"] {
        let json: Value =
            serde_json::from_str(&node.ctl_ok(&[command, "-o", "json"])).expect("JSON");
        let yaml: Value =
            serde_saphyr::from_str(&node.ctl_ok(&[command, "-o", "yaml"])).expect("YAML");
        assert_eq!(json["generation"], 1);
        assert_eq!(json["generation"], yaml["generation"]);
        assert_eq!(json["links"], yaml["links"]);
    }
    let both = node.ctl(&["get", "-o", "yaml", "--json"]);
    assert_eq!(both.status.code(), Some(2));
    let explained = node.ctl(&["explain", "--vrf", "red", "--destination", "10.2.0.9"]);
    assert_eq!(explained.status.code(), Some(1), "all is not well");
    assert_eq!(
        text(&explained.stdout),
        "route     10.2.0.0/24 to circuit c\n\
         into      circuit c (epoch 1), label 100 on link to-b (epoch 1)\n\
         port      wan\nnext hop  192.0.2.2 (02:00:00:00:00:03)\n\
         PROBLEM   link to-b: no key receives\n"
    );
    let nowhere = node.ctl(&["explain", "--vrf", "red", "--destination", "10.9.0.9"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stdout).contains("PROBLEM   no_route"));
    let file = node.dir.path().join("lan.pcapng");
    let written = ["-w", file.to_str().expect("UTF-8"), "--timeout", "1"];
    let capture = node.ctl(&[&["capture", "--port", "lan"][..], &written].concat());
    assert_eq!(capture.status.code(), Some(1), "there was no frame");
    assert!(text(&capture.stderr).contains("0 frames; the time is over"));
    assert_eq!(std::fs::read(&file).expect("it")[..4], [10, 13, 13, 10]);
    let wrong = node.ctl(&["trace", "--link", "to-c"]);
    assert!(text(&wrong.stderr).contains("there is no link \"to-c\""));

    for (shell, words) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef twinseal"),
        ("fish", "complete -c twinseal"),
    ] {
        let output = twinseal().args(["completions", shell]).output();
        let script = text(&output.expect("it starts").stdout);
        assert!(
            script.contains(words) && script.contains("undrain"),
            "{shell}"
        );
    }
}

#[test]
fn drains_and_says_when_nothing_passes() {
    let node = Node::start();
    let applied = node.apply("state.yaml", &state(), &[]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    assert_eq!(
        node.ctl_ok(&["drain", "--link", "to-b", "--wait", "--quiet", "1"]),
        "link to-b drains\nlink to-b: no packet for 1 s\n"
    );
    node.ctl_ok(&["drain", "--port", "lan"]);
    let got = node.ctl_ok(&["get"]);
    assert!(got.contains("# link to-b drains since "), "{got}");
    assert_eq!(node.json("get")["drains"][0]["link"], "to-b");
    assert_eq!(node.json("stats")["drains"][1]["packets"], 0);
    let more = "circuits: [{name: d, id: 8, end: a, vrf: red, link: to-b, label: 101}]\n";
    let refused = node.apply("more.yaml", more, &[]);
    let message = text(&refused.stderr);
    assert!(message.contains("undrain --link to-b"), "{message}");
    let unknown = node.ctl(&["drain", "--link", "to-c"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("there is no link \"to-c\""));
    assert_eq!(
        node.ctl_ok(&["undrain", "--link", "to-b"]),
        "link to-b is in service\nport lan still drains\n"
    );
}

#[test]
fn a_refusal_names_the_line_and_changes_nothing() {
    let node = Node::start();
    let wrong = state().replace("link: to-b, label: 100", "link: to-c, label: 100");
    let refused = node.apply("wrong.yaml", &wrong, &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(text(&refused.stdout), "");
    let message = text(&refused.stderr);
    let line = message
        .lines()
        .find(|line| line.contains("wrong.yaml:9: circuits[0]: "))
        .unwrap_or_else(|| panic!("{message}"));
    assert!(
        line.contains("to-c") && line.contains("link: ") && line.contains("; "),
        "{message}"
    );
    assert!(
        message.ends_with("refused: nothing was changed\n"),
        "{message}"
    );
    assert_eq!(node.json("get")["generation"], 0);
    assert_eq!(node.json("get")["state"], serde_json::json!({}));

    let unread = node.apply("typo.yaml", "prots: []\n", &[]);
    assert_eq!(unread.status.code(), Some(1));
    assert!(
        text(&unread.stderr).contains("typo.yaml:1:1: prots: unknown field"),
        "{}",
        text(&unread.stderr)
    );
}

#[test]
fn a_dry_run_and_a_wrong_generation_change_nothing() {
    let node = Node::start();
    let dry = node.apply("state.yaml", &state(), &["--dry-run"]);
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(
        text(&dry.stdout).contains(&format!("\n{CHANGES} changes would be applied")),
        "{}",
        text(&dry.stdout)
    );
    let other = node.apply("state.yaml", &state(), &["--expect-generation", "5"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        text(&other.stderr).contains("generation"),
        "{}",
        text(&other.stderr)
    );
    assert_eq!(node.json("get")["generation"], 0);
}

#[test]
fn what_changes_the_node_tells_programs_too() {
    let node = Node::start();
    let json = |output: &Output| -> Value {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let dry = node.apply("state.yaml", &state(), &["--dry-run", "-o", "json"]);
    let told = json(&dry);
    assert_eq!(told["created"], CHANGES);
    assert_eq!(told["changes"].as_array().map(Vec::len), Some(CHANGES));
    assert!(
        told["changes"][0]["old"].is_null() && told["changes"][0]["new"].is_object(),
        "{told}"
    );

    // What the node refuses, and what the file itself has, in one form.
    for (text_of, place, field) in [
        (
            "routes: [{vrf: none, prefix: 10.0.0.0/8, blackhole: {}}]\n",
            ":1: routes[0]",
            "vrf",
        ),
        ("prots: []\n", ":1:1", "prots"),
    ] {
        let refused = node.apply("wrong.yaml", text_of, &["--json"]);
        assert_eq!(refused.status.code(), Some(1));
        let reason = json(&refused)["refused"][0].take();
        assert!(
            reason["place"]
                .as_str()
                .is_some_and(|it| it.ends_with(place)),
            "{reason}"
        );
        assert_eq!(reason["field"], field);
        assert!(reason["fix"].as_str().is_some_and(|it| !it.is_empty()));
        assert!(refused.stderr.is_empty(), "{}", text(&refused.stderr));
    }

    let done = node.apply(
        "state.yaml",
        &state(),
        &["--confirm-within", "600", "--json"],
    );
    let done = json(&done);
    assert_eq!(
        (&done["generation"], &done["pending"]["generation"]),
        (&1.into(), &1.into())
    );
    assert_eq!(json(&node.ctl(&["confirm", "--json"]))["generation"], 1);
    let drained = json(&node.ctl(&["drain", "--link", "to-b", "--json"]));
    assert_eq!(
        drained,
        serde_json::json!({ "link": "to-b", "state": "draining" })
    );
    let back = json(&node.ctl(&["undrain", "--link", "to-b", "--json"]));
    assert_eq!(back["state"], "in-service");
    let more = "vrfs: [{name: more}]\n";
    let more = node.apply("more.yaml", more, &["--confirm-within", "600"]);
    assert!(more.status.success(), "{}", text(&more.stderr));
    let back = json(&node.ctl(&["rollback", "-o", "json"]));
    assert_eq!(back["not_restored"], serde_json::json!([]));

    let missing = node.ctl(&["apply", "-f", "/nope"]);
    let told = text(&missing.stderr);
    assert_eq!(told.matches("No such file").count(), 1, "{told}");
}

#[test]
fn replaces_confirms_and_rolls_back() {
    let node = Node::start();
    assert!(node.apply("state.yaml", &state(), &[]).status.success());
    let more = format!("{}\n# more\n", state()).replacen("vrfs:", "vrfs:\n  - name: more", 1);
    let file = |name: &str, text: &str| node.file(name, text).display().to_string();
    let (more, read_back) = (
        file("more.yaml", &more),
        file("got.yaml", &node.ctl_ok(&["get"])),
    );
    let told = node.ctl_ok(&["replace", "-f", &more, "--dry-run"]);
    assert!(told.contains(r#"+ vrfs: {"name":"more"}"#), "{told}");
    assert!(told.contains("1 created, 0 updated, 0 deleted"), "{told}");
    let told = node.ctl_ok(&["replace", "-f", &more, "--confirm-within", "600"]);
    assert!(
        told.contains("unless `twinseal ctl confirm 2` comes first"),
        "{told}"
    );
    let got = node.ctl_ok(&["get"]);
    assert!(
        got.contains("# generation 2 waits for its confirmation"),
        "{got}"
    );
    assert!(
        node.ctl_ok(&["rollback"])
            .contains("rolled back: generation 3")
    );
    assert_eq!(node.ctl(&["confirm"]).status.code(), Some(1));

    // What `get` prints is a whole state.
    let told = node.ctl_ok(&["replace", "-f", &more]);
    assert!(told.contains("generation 4"), "{told}");
    let told = node.ctl_ok(&["replace", "-f", &read_back, "--dry-run"]);
    assert!(told.contains(r#"- vrfs: {"name":"more"}"#), "{told}");
    assert!(told.contains("0 created, 0 updated, 1 deleted"), "{told}");
    let told = node.ctl_ok(&["replace", "-f", &read_back, "--confirm-within", "600"]);
    assert!(told.contains("confirm 5"), "{told}");
    assert!(
        node.ctl_ok(&["confirm", "5"])
            .contains("generation 5 stays")
    );
    let deletes = file("deletes.yaml", "delete:\n  - vrf: more\n");
    let refused = node.ctl(&["replace", "-f", &deletes]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("no section `delete`"));
    let empty = file("empty.yaml", "");
    for (file, reason, place) in [
        (&empty, "a state without items deletes everything", None),
        (
            &deletes,
            "a whole state has no section `delete`",
            Some(":2: delete[0]"),
        ),
    ] {
        let refused = node.ctl(&["replace", "-f", file, "-o", "json"]);
        assert_eq!(refused.status.code(), Some(1));
        let mut told: Value = serde_json::from_slice(&refused.stdout).expect("JSON");
        let told = told["refused"][0].take();
        assert_eq!(told["reason"], reason);
        assert_eq!(told["code"], "REFUSAL_CODE_INVALID");
        let at = told["place"].as_str();
        assert_eq!(at.is_some(), place.is_some(), "{told}");
        assert!(
            at.zip(place).is_none_or(|(at, place)| at.ends_with(place)),
            "{told}"
        );
    }
}

#[test]
fn prints_counters() {
    let node = Node::start();
    assert!(node.apply("state.yaml", &state(), &[]).status.success());
    let tables = node.ctl_ok(&["stats"]);
    for words in ["PORT ", "LINK ", "CIRCUIT ", "WORKER ", "RX PACKETS"] {
        assert!(tables.contains(words), "{words:?} in {tables}");
    }
    // One that is there has usage, if only none yet.
    node.ctl_ok(&["usage", "--circuit", "c"]);
    node.ctl_ok(&["usage", "--closed", "--circuit", "c"]);
    let none = node.ctl(&["usage", "--circuit", "c", "--circuit", "nope"]);
    assert_eq!(none.status.code(), Some(1));
    let told = String::from_utf8_lossy(&none.stderr);
    assert!(told.contains("there is no circuit \"nope\""), "{told}");
    let json = node.json("stats");
    assert_eq!(json["generation"], 1);
    assert_eq!(json["links"][0]["name"], "to-b");
    assert_eq!(json["drops"]["no_route"], 0, "{json}");
    let rates = Process::start(
        &mut node.ctl_command(&["stats", "--watch", "1"]),
        Stream::Stdout,
    );
    rates.line_with("per second, over ");
    rates.line_with("LINK ");
    let lines = Process::start(
        &mut node.ctl_command(&["stats", "--watch", "1", "--json"]),
        Stream::Stdout,
    );
    for _ in 0..2 {
        let object: Value = serde_json::from_str(&lines.line_with("{")).expect("an object a line");
        assert_eq!(object["generation"], 1);
    }
}

#[test]
fn watches_until_the_node_stops() {
    let mut node = Node::start();
    let mut plain = Process::start(
        &mut node.ctl_command(&["watch", "--log", "info"]),
        Stream::Both,
    );
    let json = Process::start(
        &mut node.ctl_command(&["watch", "--json", "--log", "info"]),
        Stream::Both,
    );
    plain.line_with("watching");
    json.line_with("watching");
    assert!(node.apply("state.yaml", &state(), &[]).status.success());
    plain.line_with(&format!("Z tables: generation 1, {CHANGES} changes"));
    let event: Value = serde_json::from_str(&json.line_with("twinseal.table")).expect("an object");
    assert_eq!(
        (&event["event_type"], &event["generation"]),
        (&"committed".into(), &1.into())
    );

    node.process.signal(rustix::process::Signal::TERM);
    assert_eq!(node.process.status(), Some(0));
    let last = plain.line_with("twinseal: ");
    assert!(last.contains("the node"), "{last}");
    assert_eq!(plain.status(), Some(1));
    assert!(!node.dir.path().join("n.sock").exists());
}

#[test]
fn the_file_of_events_is_as_its_schema_says_and_turns_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("events.json");
    let more = format!("[events]\nfile = {file:?}\n[usage]\ninterval = 1\n");
    let process = Node::run_with(dir.path(), &[], &more);
    let mut node = Node { process, dir };
    let tagged = state().replace("id: 7,", "id: 7, tags: {clientId: k, serviceId: web},");
    assert!(node.apply("state.yaml", &tagged, &[]).status.success());
    // Another path, then a failure, another epoch, and the end.
    let moved = "circuits: [{name: c, id: 7, end: a, vrf: red, link: to-b, label: 101}]\n";
    assert!(node.apply("moved.yaml", moved, &[]).status.success());
    let blind = "delete: [{neighbour: {port: wan, address: 192.0.2.2}}]\n";
    assert!(node.apply("blind.yaml", blind, &[]).status.success());
    let lines = |path: &Path| -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("it is there");
        let lines = text.lines().map(serde_json::from_str);
        lines.map(|line| line.expect("an object")).collect()
    };
    let await_event = |path: &Path, namespace: &str, event_type: &str| {
        let begin = std::time::Instant::now();
        loop {
            let all = lines(path);
            let found = all
                .iter()
                .find(|it| it["namespace"] == namespace && it["event_type"] == event_type);
            if let Some(found) = found {
                return found.clone();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "no {namespace} {event_type}: {all:#?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    await_event(&file, "link", "fault");
    let failed = await_event(&file, "circuit", "failed");
    assert_eq!(failed["failure_cause"], "its link is down");
    await_event(&file, "twinseal.performance", "minute");
    let created = await_event(&file, "circuit", "created");
    assert_eq!(created["client_id"], "k");
    assert_eq!(created["path"]["nodes"][0], "n");
    await_event(&file, "circuit", "pathUpdated");

    node.ctl_ok(&["drain", "--link", "to-b"]);
    node.ctl_ok(&["undrain", "--link", "to-b"]);
    assert_eq!(
        await_event(&file, "twinseal.drain", "draining")["link_id"],
        "to-b"
    );

    // logrotate moves the file and says so.
    let moved = node.dir.path().join("events.json.moved");
    std::fs::rename(&file, &moved).expect("it moves");
    node.process.signal(rustix::process::Signal::HUP);
    let deleted = "delete: [{label: {link: to-b, label: 200}}, {route: {vrf: red, prefix: 10.2.0.0/24}}, \
                   {route: {vrf: red, prefix: '2001:db8:2::/64'}}, {circuit: c}]\n";
    let output = node.apply("deleted.yaml", deleted, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let begin = std::time::Instant::now();
    while !file.exists() {
        assert!(begin.elapsed() < PATIENCE, "it was not opened anew");
        std::thread::sleep(Duration::from_millis(20));
    }
    let deleted = await_event(&file, "circuit", "deleted");
    assert!(deleted["duration"].as_u64() > Some(0));
    node.process.signal(rustix::process::Signal::TERM);
    assert_eq!(node.process.status(), Some(0));

    let root: Value =
        serde_json::from_str(include_str!("../../docs/events.schema.json")).expect("JSON");
    let mut all = lines(&moved);
    all.extend(lines(&file));
    for (nth, event) in all.iter().enumerate() {
        if let Some(mistake) = schema::mistake(&root, &root, event) {
            panic!("{mistake}");
        }
        assert_eq!(event["sequence"], 1 + nth, "none is missing");
    }
    // And it does find mistakes.
    for (field, wrong) in [
        ("sequence", "x".into()),
        ("kind", "y".into()),
        ("z", 1.into()),
    ] {
        let mut event: Value = all[0].clone();
        event[field] = wrong;
        assert!(schema::mistake(&root, &root, &event).is_some(), "{field}");
    }
}

#[test]
fn tells_the_service_manager() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let state = || {
        let mut octets = [0; 64];
        let length = manager.recv(&mut octets).expect("a state");
        text(&octets[..length])
    };
    let mut process = Node::run(dir.path(), &[("NOTIFY_SOCKET", &path)]);
    assert_eq!(state(), "READY=1");
    process.signal(rustix::process::Signal::INT);
    assert_eq!(state(), "STOPPING=1");
    assert_eq!(process.status(), Some(0));
}

/// Whether the kernel writes a core dump, with the node's secrets, when it crashes.
fn crash_dumps(allowed: bool) -> bool {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("node.toml");
    let text = format!(
        "state_dir = {:?}\n[node]\nname = \"n\"\nallow_core_dumps = {allowed}\n[control]\nsocket = {:?}\n\
         [workers]\ncount = 1\n[memory]\nframes = 1024\nring = 256\n",
        dir.path().join("state"),
        dir.path().join("n.sock"),
    );
    std::fs::write(&config, text).expect("a file");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c unlimited; exec \"$0\" run --config \"$1\""])
        .arg(env!("CARGO_BIN_EXE_twinseal"))
        .arg(&config)
        .current_dir(dir.path());
    let mut process = Process::start(&mut command, Stream::Stderr);
    process.line_with("node n is ready on");
    process.signal(rustix::process::Signal::ABORT);
    process.child.wait().expect("its end").core_dumped()
}

#[test]
fn a_crash_leaves_no_secrets_on_disk() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the pattern");
    if pattern.starts_with('|') || pattern.starts_with('/') {
        eprintln!(
            "SKIPPED: core dumps of this machine go to {}",
            pattern.trim()
        );
        return;
    }
    if !crash_dumps(true) {
        eprintln!("SKIPPED: this machine writes no core dumps at all");
        return;
    }
    assert!(!crash_dumps(false));
}

#[test]
fn wrong_configurations_and_command_lines_have_their_statuses() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("node.toml");
    let run = |text: &str| {
        std::fs::write(&config, text).expect("a file");
        twinseal()
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--check")
            .output()
            .expect("it starts")
    };
    let good = run("[node]\nname = \"n\"\n");
    assert!(good.status.success() && text(&good.stdout).contains("is right"));
    let bad = run("[node]\nname = \"n\"\n[memory]\nring = 100\n[crypto]\nprovider = \"x\"\n");
    assert_eq!(bad.status.code(), Some(1));
    let message = text(&bad.stderr);
    assert!(
        message.contains("node.toml:4:8: memory.ring: 100"),
        "{message}"
    );
    assert!(
        message.contains("node.toml:6:12: crypto.provider: "),
        "{message}"
    );

    let missing = twinseal()
        .args(["run", "--config", "/nonexistent/n.toml"])
        .output()
        .expect("it starts");
    assert_eq!(missing.status.code(), Some(1));
    for usage in [
        &["run"][..],
        &["fly"],
        &["ctl", "apply"],
        &["ctl", "stats", "--watch", "0"],
        &[],
    ] {
        let output = twinseal().args(usage).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{usage:?}");
    }
    let filter = twinseal()
        .args(["genkey", "--log", "twinseal=loud"])
        .output()
        .expect("it starts");
    assert_eq!(filter.status.code(), Some(1));
    assert!(
        text(&filter.stderr).contains("--log"),
        "{}",
        text(&filter.stderr)
    );

    let nobody = twinseal()
        .args(["ctl", "--socket"])
        .arg(dir.path().join("n.sock"))
        .arg("get")
        .output()
        .expect("it starts");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text(&nobody.stderr).contains("there is no socket"),
        "{}",
        text(&nobody.stderr)
    );
}

#[test]
fn a_second_node_on_the_same_files_is_refused() {
    let node = Node::start();
    let config = node.dir.path().join("node.toml");
    let second = |config: &Path| {
        let output = twinseal()
            .arg("run")
            .arg("--config")
            .arg(config)
            .output()
            .expect("it starts");
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let same_state = second(&config);
    let holder = format!("in use by process {}", node.process.child.id());
    assert!(same_state.contains(&holder), "{same_state}");
    let other = std::fs::read_to_string(&config)
        .expect("it")
        .replace("/state", "/other");
    let same_socket = second(&node.file("other.toml", &other));
    assert!(
        same_socket.contains("another daemon serves"),
        "{same_socket}"
    );
    assert_eq!(node.json("get")["node"], "n");
}

#[test]
fn new_secrets_are_keys() {
    let genkey = || {
        let output = twinseal().arg("genkey").output().expect("it starts");
        assert!(output.status.success());
        text(&output.stdout)
    };
    let (one, two) = (genkey(), genkey());
    assert_ne!(one, two);
    assert_eq!(one.len(), 45);
    let node = Node::start();
    node.file("k", &one);
    let with_key = state().replace(&format!("secret: {}", SECRETS[0]), "secret_file: k");
    let applied = node.apply("state.yaml", &with_key, &[]);
    assert!(applied.status.success(), "{}", text(&applied.stderr));
    // Another may have read it.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(node.dir.path().join("k"), open).expect("ours");
    let refused = node.apply("state.yaml", &with_key, &[]);
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    let words = ["secret_file: ", "has mode 0640", "chmod 600 "];
    assert!(words.iter().all(|it| said.contains(it)), "{said}");
    // So may one that is written in the state file itself.
    let path = node.file("open.yaml", &state());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("ours");
    let told = node.ctl(&["apply", "-f", path.to_str().expect("UTF-8"), "--dry-run"]);
    assert!(text(&told.stderr).contains("chmod 600 "), "{told:?}");
}

/// The examples of docs/, on memory ports for want of their devices.
#[test]
fn the_examples_apply() {
    for name in ["a", "b"] {
        let node = Node::start();
        let example = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../docs/examples/two-nodes/{name}.yaml"));
        let example = std::fs::read_to_string(example).expect("the example");
        for (number, key) in [
            "link-a-to-b",
            "link-b-to-a",
            "circuit-a-to-b",
            "circuit-b-to-a",
        ]
        .into_iter()
        .enumerate()
        {
            // Four base64 texts of 32 octets, all different.
            node.file(
                &format!("{key}.secret"),
                &SECRETS[0].replacen('A', &number.to_string(), 1),
            );
        }
        let id = node.process.child.id();
        let example = example
            .replace(
                "af_xdp: { netdev: eth1 }",
                &format!("memory: {{ wire: wan-{id}, mac: 02:00:00:00:00:01 }}"),
            )
            .replace(
                "af_xdp: { netdev: eth2 }",
                &format!("memory: {{ wire: lan-{id}, mac: 02:00:00:00:00:02 }}"),
            );
        let applied = node.apply("state.yaml", &example, &[]);
        assert!(
            applied.status.success(),
            "{name}: {}",
            text(&applied.stderr)
        );
    }
}
