//! A daemon that lacks a capability says which, in one sentence, and what to do.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use twinseal_lab::{Lab, Namespace, Process, VethConfig};

/// Only a guard against hanging for ever.
const PATIENCE: Duration = Duration::from_secs(60);

const STATE: &str =
    "vrfs:\n- name: red\nports:\n- {name: hosts, role: edge, vrf: red, af_xdp: {netdev: eth0}}\n";

/// A daemon with all of root's capabilities but some, as setpriv(1) calls them.
struct Daemon {
    dir: TempDir,
    _process: Process,
}

impl Daemon {
    fn start(namespace: &Namespace, without: &[&str]) -> Self {
        let dir = TempDir::new().expect("a folder");
        twinseal_node::state_dir::init(&dir.path().join("state"), false).expect("a new one");
        let text = format!(
            "state_dir = {:?}\n[node]\nname = \"n\"\n[control]\nsocket = {:?}\n[workers]\ncount = 1\n[memory]\nhuge_pages = \"never\"\n",
            dir.path().join("state"),
            dir.path().join("n.sock"),
        );
        std::fs::write(dir.path().join("node.toml"), text).expect("a file");
        std::fs::write(dir.path().join("state.yaml"), STATE).expect("a file");
        let mut command = Command::new("setpriv");
        let caps: Vec<_> = without.iter().map(|name| format!("-{name}")).collect();
        if !caps.is_empty() {
            command.arg(format!("--bounding-set={}", caps.join(",")));
            command.arg(format!("--inh-caps={}", caps.join(",")));
        }
        command.arg(env!("CARGO_BIN_EXE_twinseal"));
        command.args(["run", "--config"]);
        command.arg(dir.path().join("node.toml"));
        let process = namespace.spawn(command).expect("the program starts");
        Self {
            dir,
            _process: process,
        }
    }

    /// Applies the state, once it answers.
    fn apply(&self) -> Output {
        let began = Instant::now();
        loop {
            let mut ctl = Command::new(env!("CARGO_BIN_EXE_twinseal"));
            ctl.arg("ctl").arg("--socket").arg(self.file("n.sock"));
            ctl.args(["apply", "-f"]).arg(self.file("state.yaml"));
            let output = ctl.output().expect("the program starts");
            let told = String::from_utf8_lossy(&output.stderr);
            let early = told.contains("there is no socket") || told.contains("nobody serves");
            if !early {
                return output;
            }
            assert!(began.elapsed() < PATIENCE, "it does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// What daemons have logged in a lab.
fn logs(folder: &Path) -> String {
    let files = std::fs::read_dir(folder).expect("the lab's folder");
    let files = files.map(|file| file.expect("a file").path());
    let logs = files.filter(|path| path.extension().is_some_and(|it| it == "log"));
    logs.map(|path| std::fs::read_to_string(path).expect("a log"))
        .collect()
}

#[test]
fn what_is_missing_is_named_in_one_sentence() {
    let setpriv = Command::new("setpriv").arg("--version").output();
    if Lab::available().is_err() || setpriv.is_err() {
        eprintln!("SKIPPED: needs root, namespaces and setpriv");
        return;
    }
    // To BPF, CAP_SYS_ADMIN stands for all but CAP_NET_RAW.
    for (without, missing) in [
        (&["sys_admin", "net_admin"][..], "CAP_NET_ADMIN"),
        (&["net_raw"], "CAP_NET_RAW"),
        (&["sys_admin", "perfmon"], "CAP_PERFMON"),
        (&["sys_admin", "bpf"], "CAP_BPF"),
        (&["sys_admin", "bpf", "perfmon"], "CAP_PERFMON and CAP_BPF"),
        (&[], ""),
    ] {
        let lab = Lab::new("caps").expect("a lab");
        let (node, host) = (lab.namespace("n"), lab.namespace("h"));
        let (node, host) = (node.expect("a namespace"), host.expect("a namespace"));
        lab.veth(&VethConfig::new((&node, "eth0"), (&host, "eth0")))
            .expect("a veth");
        let daemon = Daemon::start(&node, without);
        let output = daemon.apply();
        let told = String::from_utf8_lossy(&output.stderr);
        let log = logs(&lab.directory());
        if missing.is_empty() {
            assert!(output.status.success(), "{told}\n{log}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{told}");
        let reasons: Vec<_> = told.lines().collect();
        assert_eq!(reasons.len(), 2, "{without:?}: {told}");
        assert_eq!(reasons[1], "refused: nothing was changed");
        let wanted = format!("this process lacks {missing}; run it as root, or add that to");
        assert!(reasons[0].contains(&wanted), "{without:?}: {told}");
        assert!(reasons[0].contains("port \"hosts\""), "{told}");
        // No other capability is blamed, and no library speaks.
        let named = reasons[0].matches("CAP_").count();
        assert_eq!(named, missing.matches("CAP_").count(), "{told}");
        for text in [&*told, &log] {
            for words in [
                "report",
                "processed",
                "verifier",
                "R1",
                "errno",
                "(os error",
            ] {
                assert!(!text.contains(words), "{without:?}: {words}: {text}");
            }
        }
    }
}
