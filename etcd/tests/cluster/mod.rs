//! A real etcd cluster on loopback, to test on.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use twinseal_etcd::{Client, Config};

/// Only a guard against hanging for ever; nothing is measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Members of a cluster, ended when dropped.
pub(crate) struct Cluster {
    members: Vec<Member>,
    folder: TempDir,
}

struct Member {
    client_port: u16,
    args: Vec<String>,
    process: Option<Child>,
}

impl Cluster {
    /// Starts so many members; `None`, loudly, where there is no etcd.
    pub(crate) async fn start(members: usize) -> Option<Self> {
        let found = Command::new("etcd").arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no etcd: install the package etcd-server (ci/setup does)");
            return None;
        }
        let ports: Vec<(u16, u16)> = (0..members).map(|_| (free_port(), free_port())).collect();
        let name = |nth: usize| format!("m{nth}");
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let peers: Vec<_> = (0..members)
            .map(|nth| format!("{}={}", name(nth), url(ports[nth].1)))
            .collect();
        let folder = tempfile::tempdir().expect("a folder");
        let members = (0..members)
            .map(|nth| {
                let (client, peer) = ports[nth];
                let args = [
                    ("--name", name(nth)),
                    (
                        "--data-dir",
                        folder.path().join(name(nth)).display().to_string(),
                    ),
                    ("--listen-client-urls", url(client)),
                    ("--advertise-client-urls", url(client)),
                    ("--listen-peer-urls", url(peer)),
                    ("--initial-advertise-peer-urls", url(peer)),
                    ("--initial-cluster", peers.join(",")),
                    ("--logger", "zap".to_owned()),
                    ("--log-level", "error".to_owned()),
                ];
                Member {
                    client_port: client,
                    args: args.map(|(flag, value)| format!("{flag}={value}")).to_vec(),
                    process: None,
                }
            })
            .collect();
        let mut cluster = Self { members, folder };
        for nth in 0..cluster.members.len() {
            cluster.start_member(nth);
        }
        let begin = Instant::now();
        let mut client = cluster.client();
        while client.read(b"/", None).await.is_err() {
            assert!(begin.elapsed() < PATIENCE, "etcd does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(cluster)
    }

    /// Starts a member (again).
    pub(crate) fn start_member(&mut self, nth: usize) {
        let member = &mut self.members[nth];
        let process = Command::new("etcd")
            .args(&member.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts");
        member.process = Some(process);
    }

    /// Ends a member with SIGKILL.
    pub(crate) fn kill_member(&mut self, nth: usize) {
        if let Some(mut process) = self.members[nth].process.take() {
            process.kill().expect("it is ours to kill");
            process.wait().expect("it is reaped");
        }
    }

    /// Resident memory of each member that runs, in bytes.
    pub(crate) fn resident(&self) -> Vec<u64> {
        let running = self.members.iter().filter_map(|it| it.process.as_ref());
        let resident = |process: &Child| -> Option<u64> {
            let file = format!("/proc/{}/status", process.id());
            let text = std::fs::read_to_string(file).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
            Some(kib << 10)
        };
        running.filter_map(resident).collect()
    }

    /// The members' endpoints.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let ports = self.members.iter().map(|member| member.client_port);
        ports
            .map(|port| format!("http://127.0.0.1:{port}"))
            .collect()
    }

    /// A client of all members.
    pub(crate) fn client(&self) -> Client {
        self.client_as(None)
    }

    /// A client that has a name and a password.
    pub(crate) fn client_as(&self, user: Option<(&str, &str)>) -> Client {
        let config = Config {
            endpoints: self.endpoints(),
            user: user.map(|(name, password)| (name.to_owned(), password.to_owned())),
            timeout: Duration::from_secs(3),
        };
        Client::new(&config).expect("endpoints")
    }

    /// Runs `etcdctl`, and returns what it says.
    #[track_caller]
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints()[0]))
            .args(args)
            .output()
            .expect("etcdctl runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}{wrong}");
        said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for nth in 0..self.members.len() {
            self.kill_member(nth);
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its number").port()
}
