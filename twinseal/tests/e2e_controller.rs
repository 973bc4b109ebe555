//! The example controller in Python against three real daemons in a triangle: loading, new keys under load, a link that
//! is drained, one that goes down, and a router that is killed.
//!
//! ```text
//!               [t]
//!              /   \
//! host 1 -- [a] --- [b] -- host 2
//! ```

#[path = "triangle/mod.rs"]
mod triangle;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use triangle::{PATIENCE, Triangle};
use twinseal_lab::Process;
use twinseal_lab::traffic::Until;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/controller");

#[test]
fn loads_rotates_and_mends() {
    let Some(python) = python() else { return };
    let Some(mut net) = Triangle::start() else {
        return;
    };
    let mut controller = run(&net, &python);
    net.wait_for_pings("after loading");

    // Keys are replaced every second, and nothing is lost.
    let traffic = net.send(Until::Elapsed(Duration::from_secs(600)));
    let begin = Instant::now();
    while controller.log_text().matches("new keys for").count() < 4 {
        assert!(
            begin.elapsed() < PATIENCE,
            "no new keys:\n{}",
            controller.log_text()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let summary = traffic.stop();
    assert!(summary.is_perfect() && summary.sent > 0, "{summary:#?}");

    // The direct link is taken out of service, down, up and back into it, and nothing is lost.
    let traffic = net.send(Until::Elapsed(Duration::from_secs(600)));
    look_at_packets(&net);
    let before = net.transit_packets();
    let drained = net.ctl("a", &["drain", "--link", "ab", "--wait", "--quiet", "1"]);
    let said = String::from_utf8_lossy(&drained.stdout).into_owned();
    assert!(drained.status.success(), "{drained:?}");
    assert!(said.ends_with("link ab: no packet for 1 s\n"), "{said}");
    assert!(net.transit_packets() > before, "t carries it now");
    net.set_link("a", "to-b", false);
    wait_for(&mut controller, "a: link ab is down");
    net.set_link("a", "to-b", true);
    net.wait_for_link("ab", ["a", "b"]);
    assert!(net.ctl("a", &["undrain", "--link", "ab"]).status.success());
    wait_for(&mut controller, "a: link ab is active");
    std::thread::sleep(Duration::from_secs(1));
    let summary = traffic.stop();
    assert!(summary.is_perfect() && summary.sent > 0, "{summary:#?}");

    // The direct link goes: the backup through t takes over. It comes back, and so do the packets.
    net.set_link("a", "to-b", false);
    net.wait_for_pings("with the direct link down");
    assert!(net.transit_packets() > 0, "t carried the pings");
    net.set_link("a", "to-b", true);
    wait_for(&mut controller, "link ab is up");
    net.wait_for_pings("with the direct link up again");

    // A router is killed: its keys are lost, and its controller makes new ones.
    net.restart("b");
    net.wait_for_pings("after a restart");

    assert!(controller.is_running(), "{}", controller.log_text());
    let status = controller.terminate(PATIENCE).expect("it ends");
    let log = controller.log_text();
    assert!(!log.contains("Traceback"), "{status}\n{log}");
    net.finish();
}

#[test]
fn once_ends_when_all_is_done_and_says_what_a_node_refused() {
    let Some(python) = python() else { return };
    let Some(net) = Triangle::start() else {
        return;
    };
    let mut controller = command(&net, &python, &["--once"], &net.topology());
    let status = controller.wait(PATIENCE).expect("it can be waited for");
    let log = controller.log_text();
    assert!(status.is_some_and(|status| status.success()), "{log}");

    for (link, ends) in [("ab", ["a", "b"]), ("at", ["a", "t"]), ("tb", ["t", "b"])] {
        net.wait_for_link(link, ends);
    }
    // All is as it should be: nothing is sent again, neither tables nor keys.
    let mut controller = command(&net, &python, &["--once"], &net.topology());
    let status = controller.wait(PATIENCE).expect("it can be waited for");
    let log = controller.log_text();
    assert!(status.is_some_and(|status| status.success()), "{log}");
    assert!(
        log.contains("reachable") && !log.contains("changes, generation"),
        "{log}"
    );

    // A plan is a state file: what the node has already.
    let plan = planned(&net, &python, "a");
    let output = net.ctl("a", &["apply", "-f", &plan.display().to_string()]);
    assert!(output.status.success(), "{output:?}");

    let wrong = net.topology().replace("eth-lan", "nowhere0");
    let mut controller = command(&net, &python, &[], &wrong);
    wait_for(&mut controller, "a refused: port");
    drop(controller);
    net.finish();
}

#[test]
fn nodes_are_reached_over_tcp_by_tls() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
        path.display().to_string()
    };
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Names of their own: one that is its issuer's counts as self-signed.
    params.distinguished_name.push(DnType::CommonName, "issuer");
    let key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, key).expect("an issuer");
    let issue = |name: &str, names: Vec<SanType>| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names;
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        [
            file(&format!("{name}.pem"), &certificate.pem()),
            file(&format!("{name}.key"), &key.serialize_pem()),
        ]
    };
    let ca = file("ca.pem", &issuer.pem());
    let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
    let uri = "spiffe://example.org/controller";
    let [certificate, key] = issue("node", vec![dns("node.example.org")]);
    let [own, own_key] = issue(
        "controller",
        vec![SanType::URI(uri.try_into().expect("a URI"))],
    );
    let lines = format!(
        "workers.count = 1\n[control.tls]\nlisten = \"0.0.0.0:7443\"\ncertificate = {certificate:?}\nkey = {key:?}\n\
         client_ca = {ca:?}\nadmins = [{uri:?}]\n"
    );
    let Some(net) = Triangle::start_with(&lines) else {
        return;
    };
    // The controller is where t is, and knows all by the name in their certificate.
    let mut topology = net.topology();
    for (name, address) in [
        ("a", "198.51.100.1"),
        ("b", "203.0.113.2"),
        ("t", "198.51.100.2"),
    ] {
        let socket = format!("target: unix:{}", net.socket(name).display());
        let tcp = format!("target: {address}:7443\n    tls_name: node.example.org");
        topology = topology.replace(&socket, &tcp);
    }
    topology += &format!("tls: {{ ca: {ca}, certificate: {own}, key: {own_key} }}\n");
    assert!(!topology.contains("unix:"), "{topology}");
    let mut controller = command(&net, &python, &["--once"], &topology);
    let status = controller.wait(PATIENCE).expect("it can be waited for");
    let log = controller.log_text();
    assert!(status.is_some_and(|status| status.success()), "{log}");
    net.wait_for_pings("after loading over TCP");
    net.finish();
}

#[test]
fn its_pure_parts_keep_their_word() {
    let Some(python) = python() else { return };
    let output = Command::new(python)
        .args(["-B", "-m", "unittest", "discover", "-s", "tests"])
        .current_dir(EXAMPLE)
        .env("PYTHONPATH", EXAMPLE)
        .output()
        .expect("python runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("OK"), "{said}");
}

/// What an operator sees of the load: its way through a router, and it itself, plain at the edge and sealed behind it.
fn look_at_packets(net: &Triangle) {
    let ctl = |arguments: &[&str]| {
        let output = net.ctl("a", arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    };
    let text = [
        "--count",
        "5",
        "--destination",
        "10.2.0.2",
        "--protocol",
        "udp",
    ];
    let traced = ctl(&[&["trace", "--from-port", "lan"][..], &text].concat());
    let traced = String::from_utf8_lossy(&traced).into_owned();
    let way = "; vrf red, route 10.2.0.0/24 to circuit red.a.b; into circuit red.a.b (epoch ";
    let lines = traced.lines();
    let told = lines.filter(|line| line.contains(way) && line.contains("; sent by to-b, "));
    assert_eq!(told.count(), 5, "{traced}");

    let flow = [10, 1, 0, 2, 10, 2, 0, 2];
    let has_flow = |frame: &&[u8]| frame.windows(8).any(|it| it == flow);
    let plain = ctl(&[&["capture", "--port", "lan", "-w", "-"][..], &text].concat());
    let frames = pcapng_frames(&plain);
    assert_eq!(
        (
            frames.len(),
            frames.iter().filter(|it| has_flow(it)).count()
        ),
        (5, 5)
    );
    let sealed = [
        "capture",
        "--port",
        "to-b",
        "--direction",
        "out",
        "--count",
        "5",
        "-w",
        "-",
    ];
    let sealed = ctl(&sealed);
    let frames = pcapng_frames(&sealed);
    assert_eq!(
        (
            frames.len(),
            frames.iter().filter(|it| has_flow(it)).count()
        ),
        (5, 0)
    );
    let explained = ctl(&["explain", "--vrf", "red", "--destination", "10.2.0.2"]);
    let explained = String::from_utf8_lossy(&explained).into_owned();
    assert!(explained.contains("next hop  192.0.2.2 ("), "{explained}");
}

/// The octets of the enhanced packet blocks of a pcapng file.
fn pcapng_frames(file: &[u8]) -> Vec<&[u8]> {
    let word = |at: usize| {
        let word = file[at..at + 4].try_into().expect("four octets");
        u32::from_le_bytes(word) as usize
    };
    assert_eq!(word(0), 0x0a0d_0d0a, "a section");
    let (mut at, mut frames) = (0, Vec::new());
    while at < file.len() {
        if word(at) == 6 {
            frames.push(&file[at + 28..at + 28 + word(at + 20)]);
        }
        at += word(at + 4);
    }
    frames
}

fn run(net: &Triangle, python: &Path) -> Process {
    command(net, python, &["--rotate-every", "1"], &net.topology())
}

fn command(net: &Triangle, python: &Path, args: &[&str], topology: &str) -> Process {
    let file = net.folder().join("topology.yaml");
    std::fs::write(&file, topology).expect("a topology file");
    let mut command = Command::new(python);
    command
        .args(["-B", "-m", "twinseal_controller", "run"])
        .args(args)
        .arg(file)
        .env("PYTHONPATH", EXAMPLE);
    net.node("t").spawn(command).expect("the controller starts")
}

/// What the controller would tell a node, as a file.
fn planned(net: &Triangle, python: &Path, node: &str) -> PathBuf {
    let topology = net.folder().join("topology.yaml");
    let output = Command::new(python)
        .args(["-B", "-m", "twinseal_controller", "plan", "--node", node])
        .arg(topology)
        .env("PYTHONPATH", EXAMPLE)
        .output()
        .expect("python runs");
    assert!(output.status.success(), "{output:?}");
    let file = net.folder().join(format!("plan-{node}.yaml"));
    std::fs::write(&file, output.stdout).expect("a file");
    file
}

fn wait_for(controller: &mut Process, text: &str) {
    let found = controller.wait_for_log(text, PATIENCE);
    assert!(found.is_ok(), "{found:?}\n{}", controller.log_text());
}

/// A Python with the example's requirements, or a loud word that there is none.
fn python() -> Option<PathBuf> {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python3");
    let program = std::env::var_os("TWINSEAL_PYTHON").map_or_else(ours, PathBuf::from);
    let tried = Command::new(&program)
        .args(["-c", "import grpc_status, grpc_tools, yaml"])
        .output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    eprintln!(
        "SKIPPED: {} cannot run the example controller: run ci/setup, or name a Python with \
         examples/controller/requirements.txt in TWINSEAL_PYTHON",
        program.display()
    );
    None
}
