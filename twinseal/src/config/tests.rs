use std::num::NonZero;
use std::path::Path;

use super::*;
use twinseal_access::Role;
use twinseal_runtime::workers::Idle;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("node.toml"), text)
}

/// Asserts that the text has one mistake, at this place in this field, whose reason and fix hold these words.
#[track_caller]
fn wrong(text: &str, place: &str, field: &str, reason: &str, fix: &str) {
    let error = parse(text).expect_err("a mistake");
    let message = error.to_string();
    let ConfigError::Invalid(mistakes) = error else {
        panic!("{message}")
    };
    assert_eq!(mistakes.len(), 1, "{message}");
    assert!(
        message.starts_with(&format!("node.toml:{place}: ")),
        "{message}"
    );
    assert_eq!(mistakes[0].field, field, "{message}");
    assert!(mistakes[0].reason.contains(reason), "{message}");
    assert!(mistakes[0].fix.contains(fix), "{message}");
}

#[test]
fn only_the_name_is_needed() {
    let config = parse("[node]\nname = \"edge-1\"\n").unwrap();
    assert_eq!(config.name, "edge-1");
    assert_eq!(config.socket, Path::new("/run/twinseal/edge-1.sock"));
    assert_eq!(config.state_dir, Path::new("/var/lib/twinseal/edge-1"));
    assert!(config.keep_tables);
    assert_eq!(config.socket_mode, 0o660);
    assert!(config.access.users.contains(&(0, Role::Admin)) && config.access.groups.is_empty());
    assert!(config.access.tls.is_none() && config.audit.is_none());
    assert_eq!(config.provider, twinseal_crypto::DEFAULT_PROVIDER);
    assert!(!config.allow_core_dumps);
    assert_eq!(config.pool.idle, Idle::Adaptive);
    assert!(!config.pool.cpus.is_empty() && config.pool.cpus.iter().all(Option::is_none));
}

#[test]
fn every_field_is_taken() {
    let config = parse(
        r#"
state_dir = "/srv/state"
keep_tables = false
[node]
name = "n"
allow_core_dumps = true
[control]
socket = "/run/n.sock"
mode = "600"
allow_users = ["root", 1234]
allow_groups = [77]
operator_groups = [78]
viewer_users = [55]
[control.tls]
listen = "127.0.0.1:7443"
certificate = "/etc/n.pem"
key = "/etc/n.key"
client_ca = "/etc/ca.pem"
admins = ["spiffe://example.org/controller"]
operators = ["spiffe://example.org/ops/*"]
viewers = ["*.example.org"]
[control.limits]
message_bytes = 4096
requests_per_second = 5
streams = 6
connections = 7
client_connections = 3
idle_seconds = 30
[audit]
file = "-"
[crypto]
provider = "ring"
window_bits = 2048
lane_limit = 1000
key_packets = 5
key_bytes = 6
key_seconds = 7
[workers]
cpus = [0]
idle = "spin"
slice_us = 3000
lanes = 255
[memory]
frames = 4096
frame_size = 4096
jumbo_frames = 0
huge_pages = "require"
ring = 512
[events]
ring = 100
file = "/var/log/twinseal.json"
kinds = ["fault", "security"]
max_bytes = 0
keep = 2
[usage]
interval = 10
max_bytes = 8388608
keep_days = 7
"#,
    )
    .unwrap();
    assert_eq!(
        (config.socket_mode, config.window_bits, config.lane_limit),
        (0o600, 2048, 1000)
    );
    let access = config.access;
    assert!(access.users.contains(&(1234, Role::Admin)));
    assert!(access.users.contains(&(55, Role::Viewer)));
    assert_eq!(access.groups, [(77, Role::Admin), (78, Role::Operator)]);
    let tls = access.tls.expect("it is given");
    assert_eq!(tls.listen.port(), 7443);
    assert_eq!(tls.names.len(), 3);
    let limits = access.limits;
    assert_eq!(
        (limits.message_bytes, limits.requests_per_second),
        (4096, 5)
    );
    assert_eq!((limits.streams, limits.connections), (6, 7));
    assert_eq!(limits.client_connections, 3);
    assert_eq!(limits.idle.as_secs(), 30);
    assert!(!config.keep_tables);
    let limits = config.key_limits;
    let limits = (limits.packets, limits.bytes, limits.seconds);
    assert_eq!(limits, (NonZero::new(5), NonZero::new(6), NonZero::new(7)));
    assert_eq!(config.provider, "ring");
    assert!(config.allow_core_dumps);
    let events = config.events;
    assert_eq!((events.ring, events.kinds.len()), (100, 2));
    let output = twinseal_node::jsonl::Output::File {
        path: "/var/log/twinseal.json".into(),
        max_bytes: 0,
        keep: 2,
    };
    assert_eq!(events.output, Some(output));
    let usage = config.usage;
    assert_eq!(
        (usage.interval, usage.max_bytes, usage.keep_days),
        (10, 8 << 20, 7)
    );
    let pool = config.pool;
    assert_eq!(
        (pool.cpus, pool.lanes, pool.idle, pool.slice.as_micros()),
        (vec![Some(0)], 255, Idle::Spin, 3000)
    );
    assert_eq!((pool.frames, pool.frame_size, pool.ring), (4096, 4096, 512));
    assert_eq!(pool.jumbo_frames, 0);
    assert_eq!(pool.huge_pages, twinseal_xsk::HugePages::Require);
}

#[test]
fn names_the_place_of_what_cannot_be_parsed() {
    wrong(
        "[node]\nname = \"a\"\n[node",
        "3:6",
        "node",
        "",
        "correct the text",
    );
    wrong("", "1:1", "node.name", "missing field", "add it");
    wrong(
        "[node]\n",
        "1:1",
        "node.name",
        "missing field `name`",
        "add it",
    );
    wrong(
        "[node]\nname = 5\n",
        "2:8",
        "node.name",
        "expected a string",
        "of that kind",
    );
    wrong(
        "[node]\nname = \"a\"\nnmae = 1\n",
        "3:1",
        "node.nmae",
        "unknown field",
        "correct its name",
    );
    wrong(
        "[node]\nname = \"a\"\n[x]\n",
        "3:2",
        "x",
        "unknown field",
        "remove it",
    );
    wrong(
        &node("[workers]\nidle = \"busy\""),
        "4:8",
        "workers.idle",
        "`sleep`",
        "one of these",
    );
    wrong(
        &node("[memory]\nframes = -1"),
        "4:10",
        "memory.frames",
        "-1",
        "of that kind",
    );
    wrong(
        &node("[memory]\nhuge_pages = true"),
        "4:14",
        "memory.huge_pages",
        "",
        "",
    );
    wrong(
        &node("[control]\nallow_users = [\"root\", 1.5]"),
        "4:15",
        "control.allow_users",
        "a name or a number",
        "of that kind",
    );
}

#[test]
fn tells_all_mistakes_at_once_and_in_plain_words() {
    let text = "[node]
name = 5
nmae = \"a\"
[control]
socket = \"s.sock\"
allow_users = [\"root\", 1.5]
[control.tls]
listen = \"here\"
[workers]
count = -1
idle = \"busy\"
[crypto]
key_packets = 0
window_bits = 5
[x]
y = 1
";
    let error = parse(text).expect_err("mistakes").to_string();
    let told: Vec<_> = error
        .lines()
        .map(|line| {
            let mut parts = line.strip_prefix("node.toml:").expect("a file").split(':');
            let line = parts.next().expect("a line");
            format!("{line}{}", parts.nth(1).expect("a field"))
        })
        .collect();
    assert_eq!(
        told,
        [
            "2 node.name",
            "3 node.nmae",
            "5 control.socket",
            "6 control.allow_users",
            "7 control.tls.certificate",
            "7 control.tls.key",
            "7 control.tls.client_ca",
            "8 control.tls.listen",
            "10 workers.count",
            "11 workers.idle",
            "13 crypto.key_packets",
            "14 crypto.window_bits",
            "15 x",
        ],
        "{error}"
    );
    for word in [
        "u32",
        "u64",
        "usize",
        "i64",
        "nonzero",
        "path string",
        "TOML",
    ] {
        assert!(!error.contains(word), "{word} in {error}");
    }

    // Also where the text itself is broken in places.
    let error = parse("[node\nname = \"a\"\n[control]\nsocket = \nmode = \"9\"\nwhat = 1\n");
    let error = error.expect_err("mistakes").to_string();
    for place in [
        "node.toml:1:",
        "node.toml:4:",
        "node.toml:5:",
        "node.toml:6:",
    ] {
        assert!(error.contains(place), "{place} in {error}");
    }
    assert!(!error.contains("missing field"), "{error}");
}

/// A good file of two lines, and `more`.
fn node(more: &str) -> String {
    format!("[node]\nname = \"a\"\n{more}\n")
}

#[test]
fn names_the_place_of_what_makes_no_sense() {
    for name in ["", "a b", ".hidden", "..", "a/b", "é", &"x".repeat(65)] {
        wrong(
            &format!("[node]\nname = {name:?}\n"),
            "2:8",
            "node.name",
            "is no name",
            "1 to 64 letters",
        );
    }
    let cases = [
        (
            "[events]\nring = 1",
            "4:8",
            "events.ring",
            "out of range",
            "16 to",
        ),
        (
            "[events]\nkinds = [\"fault\", \"loud\"]",
            "4:19",
            "events.kinds",
            "loud",
            "security",
        ),
        (
            "[events]\nfile = \"events.json\"",
            "4:8",
            "events.file",
            "not absolute",
            "standard output",
        ),
        (
            "[control.limits]\nidle_seconds = 1",
            "4:16",
            "control.limits.idle_seconds",
            "out of range",
            "3 to",
        ),
        (
            "[control.tls]\nlisten = \"here\"\ncertificate = \"/a\"\nkey = \"/a\"\nclient_ca = \"/a\"",
            "4:10",
            "control.tls.listen",
            "here",
            "0.0.0.0:7443",
        ),
        (
            "[control.tls]\nlisten = \"127.0.0.1:1\"\ncertificate = \"/a\"\nkey = \"/a\"\nclient_ca = \"/a\"\nadmins = [\"*\"]",
            "8:11",
            "control.tls.admins",
            "no name",
            "spiffe://",
        ),
        (
            "[usage]\nmax_bytes = 1",
            "4:13",
            "usage.max_bytes",
            "out of range",
            "8388608",
        ),
        (
            "[control]\nsocket = \"run/a.sock\"",
            "4:10",
            "control.socket",
            "not absolute",
            "from `/`",
        ),
        (
            "[control]\nmode = \"0999\"",
            "4:8",
            "control.mode",
            "0999",
            "0660",
        ),
        (
            "[control]\nmode = \"0060\"",
            "4:8",
            "control.mode",
            "owner",
            "0660",
        ),
        (
            "[control]\nallow_users = [0, \"no such\"]",
            "4:19",
            "control.allow_users",
            "/etc/passwd",
            "number",
        ),
        (
            "[control]\nallow_groups = [\"no such\"]",
            "4:17",
            "control.allow_groups",
            "/etc/group",
            "number",
        ),
        (
            "[crypto]\nprovider = \"openssl\"",
            "4:12",
            "crypto.provider",
            "openssl",
            "ring",
        ),
        (
            "[crypto]\nwindow_bits = 3000",
            "4:15",
            "crypto.window_bits",
            "3000",
            "2048 to",
        ),
        (
            "[crypto]\nwindow_bits = 1024",
            "4:15",
            "crypto.window_bits",
            "1024",
            "2048 to",
        ),
        (
            "[crypto]\nlane_limit = 0",
            "4:14",
            "crypto.lane_limit",
            "out of range",
            "1 to",
        ),
        (
            "[workers]\ncount = 0",
            "4:9",
            "workers.count",
            "out of range",
            "1 to 256",
        ),
        (
            "[workers]\ncount = 257",
            "4:9",
            "workers.count",
            "out of range",
            "1 to 256",
        ),
        (
            "[workers]\ncount = 1\ncpus = [0]",
            "4:9",
            "workers.count",
            "workers.cpus",
            "remove one",
        ),
        (
            "[workers]\ncpus = []",
            "4:8",
            "workers.cpus",
            "0 CPUs",
            "workers.count",
        ),
        (
            "[workers]\ncpus = [0, 0]",
            "4:12",
            "workers.cpus",
            "twice",
            "once",
        ),
        (
            "[workers]\ncpus = [0, 99999]",
            "4:12",
            "workers.cpus",
            "no CPU 99999",
            "lscpu",
        ),
        (
            "[workers]\ncount = 64\nlanes = 5",
            "5:9",
            "workers.lanes",
            "64 workers",
            "1 to 4",
        ),
        (
            "[workers]\ncount = 1\nlanes = 0",
            "5:9",
            "workers.lanes",
            "0 lanes",
            "1 to 255",
        ),
        (
            "[workers]\nslice_us = 50",
            "4:12",
            "workers.slice_us",
            "50",
            "100 to 100000",
        ),
        (
            "[memory]\nring = 1000",
            "4:8",
            "memory.ring",
            "1000",
            "power of two",
        ),
        (
            "[memory]\nframe_size = 1500",
            "4:14",
            "memory.frame_size",
            "1500",
            "2048 or 4096",
        ),
        (
            "[memory]\nframes = 4095",
            "4:10",
            "memory.frames",
            "4095",
            "4096 to",
        ),
    ];
    for (text, place, field, reason, fix) in cases {
        wrong(&node(text), place, field, reason, fix);
    }
    let long = node(&format!("[control]\nsocket = \"/{}\"", "x".repeat(107)));
    wrong(&long, "4:10", "control.socket", "108 octets", "shorter");
    wrong(
        "state_dir = \"x\"\n[node]\nname = \"a\"",
        "1:13",
        "state_dir",
        "not absolute",
        "from `/`",
    );
}

#[test]
fn reports_all_mistakes_at_once() {
    let error =
        parse("[node]\nname = \"\"\n[memory]\nring = 3\n[crypto]\nprovider = \"x\"\n").unwrap_err();
    let ConfigError::Invalid(mistakes) = &error else {
        panic!("{error}")
    };
    assert_eq!(mistakes.len(), 3, "{error}");
    assert_eq!(error.to_string().lines().count(), 3);
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/node.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("/nonexistent/node.toml") && error.contains("--config"),
        "{error}"
    );
}

#[test]
fn what_is_hostile_is_told_in_short_lines() {
    let long = "\u{1b}[2Jx".repeat(12_000);
    let text = format!("{long:?}").replace("\\u{1b}", "\\u001b");
    for toml in [
        format!("[node]\nname = {text}\n"),
        format!("[node]\nname = \"n\"\n{text} = 1\n"),
        format!("[node]\nname = \"n\"\n[crypto]\nprovider = {text}\n"),
        format!("[node]\nname = \"n\"\n[crypto]\nwindow_bits = {text}\n"),
        format!("[node]\nname = \"n\"\n[workers]\nidle = {text}\n"),
        format!("[node]\nname = \"n\"\n[control]\nsocket = {text}\nallow_users = [{text}]\n"),
        format!("[node]\nname = \"n\"\n[control.tls]\nlisten = {text}\nadmins = [{text}]\n"),
        format!("state_dir = {text}\n[node]\nname = \"n\"\n[events]\nkinds = [{text}]\n"),
        "[".repeat(60_000),
        format!("[{}]\n", "x".repeat(60_000)),
        format!("[node]\nname = \"n\"\n{} = = 1\n", "x".repeat(60_000)),
    ] {
        let wrong = Config::parse(Path::new("n.toml"), &toml).expect_err("it is wrong");
        let wrong = wrong.to_string();
        for line in wrong.lines() {
            assert!(line.len() < 2500, "{}: {line}", line.len());
            assert!(line.starts_with("n.toml:") && !line.chars().any(char::is_control));
        }
    }
    // What is wrong stands at the end of a library's message, and is told.
    let wrong = format!(
        "[node]\nname = \"n\"\n[memory]\nframes = {:?}\n",
        "x".repeat(60_000)
    );
    let wrong = Config::parse(Path::new("n.toml"), &wrong).expect_err("it is wrong");
    let wrong = wrong.to_string();
    assert!(
        wrong.contains("…") && wrong.contains("expected a whole number"),
        "{wrong}"
    );
}

#[test]
fn every_example_can_be_read() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "toml") {
                Config::load(&path).unwrap_or_else(|error| panic!("{error}"));
                seen += 1;
            }
        }
    }
    assert!(seen >= 2, "{seen} examples");
}
