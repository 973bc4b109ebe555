//! A real etcd cluster on loopback, to test on.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use twinseal_etcd::{Client, Config, EtcdError, Source, Tls, User};

/// Only a guard against hanging for ever; nothing is measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Members of a cluster, ended when dropped.
pub(crate) struct Cluster {
    members: Vec<Member>,
    pki: Option<Pki>,
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
        Self::start_with(members, None).await
    }

    /// The same, with certificates at both ends of clients' connections.
    pub(crate) async fn start_tls(members: usize) -> Option<Self> {
        Self::start_with(members, Some(Pki::new())).await
    }

    async fn start_with(members: usize, pki: Option<Pki>) -> Option<Self> {
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
        let client_url = |port: u16| match pki {
            Some(_) => format!("https://127.0.0.1:{port}"),
            None => url(port),
        };
        let tls = pki
            .as_ref()
            .map_or(Vec::new(), |pki| pki.server_args(&folder));
        let members = (0..members)
            .map(|nth| {
                let (client, peer) = ports[nth];
                let args = [
                    ("--name", name(nth)),
                    (
                        "--data-dir",
                        folder.path().join(name(nth)).display().to_string(),
                    ),
                    ("--listen-client-urls", client_url(client)),
                    ("--advertise-client-urls", client_url(client)),
                    ("--listen-peer-urls", url(peer)),
                    ("--initial-advertise-peer-urls", url(peer)),
                    ("--initial-cluster", peers.join(",")),
                    ("--logger", "zap".to_owned()),
                    ("--log-level", "error".to_owned()),
                ];
                Member {
                    client_port: client,
                    args: [
                        args.map(|(flag, value)| format!("{flag}={value}")).to_vec(),
                        tls.clone(),
                    ]
                    .concat(),
                    process: None,
                }
            })
            .collect();
        let mut cluster = Self {
            members,
            pki,
            folder,
        };
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
            .map(|port| match self.pki {
                Some(_) => format!("https://127.0.0.1:{port}"),
                None => format!("http://127.0.0.1:{port}"),
            })
            .collect()
    }

    /// A client of all members.
    pub(crate) fn client(&self) -> Client {
        self.client_as(None)
    }

    /// A client that has a name and a password.
    pub(crate) fn client_as(&self, user: Option<(&str, &str)>) -> Client {
        self.client_of(user.map(|(name, password)| {
            let password = password.to_owned();
            User {
                name: name.to_owned(),
                password: Source::new(move || Ok(password.clone())),
            }
        }))
    }

    /// A client of all members that is this user.
    pub(crate) fn client_of(&self, user: Option<User>) -> Client {
        let tls = self.pki.as_ref().map(|pki| {
            let tls = pki.tls();
            Source::new(move || Ok(tls.clone()))
        });
        let config = Config {
            endpoints: self.endpoints(),
            user,
            tls,
            plain_http: false,
            timeout: Duration::from_secs(3),
        };
        Client::new(&config).expect("endpoints")
    }

    /// Its certificates.
    pub(crate) fn pki(&self) -> &Pki {
        self.pki.as_ref().expect("a cluster with TLS")
    }

    /// Calls until it is answered: a member that was just started is not there at once.
    pub(crate) async fn patiently<T>(
        &self,
        mut call: impl AsyncFnMut() -> Result<T, EtcdError>,
    ) -> T {
        let begin = Instant::now();
        loop {
            match call().await {
                Ok(answer) => return answer,
                Err(error) => assert!(begin.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs `etcdctl` as a user, with something to read, until it works.
    pub(crate) fn ctl_as(&self, user: &str, args: &[&str], input: &str) {
        let begin = Instant::now();
        loop {
            let mut command = self
                .etcdctl()
                .args(["--user", user])
                .args(args)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("etcdctl runs");
            let mut stdin = command.stdin.take().expect("it is piped");
            // Whether it was read shows in the exit status.
            let _ = stdin.write_all(input.as_bytes());
            drop(stdin);
            if command.wait().expect("it ends").success() {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "etcdctl {args:?} fails");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn etcdctl(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.endpoints()[0]));
        if self.pki.is_some() {
            for (option, file) in [("cacert", "ca"), ("cert", "client"), ("key", "client-key")] {
                command.arg(format!("--{option}={}", self.file(file).display()));
            }
        }
        command
    }

    /// A PEM file of a cluster with TLS: `ca`, `client`, `client-key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    /// Runs `etcdctl`, and returns what it says.
    #[track_caller]
    pub(crate) fn ctl(&self, args: &[&str]) -> String {
        let output = self.etcdctl().args(args).output().expect("etcdctl runs");
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

/// An issuer, and what it issued: a member's certificate for 127.0.0.1, and a client's.
pub(crate) struct Pki {
    ca: String,
    server: (String, String),
    client: (String, String),
}

impl Pki {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an issuer");
        let issue = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            let certificate = params.signed_by(&key, &issuer).expect("signed");
            (certificate.pem(), key.serialize_pem())
        };
        Self {
            ca: issuer.pem(),
            server: issue("127.0.0.1"),
            client: issue("agent"),
        }
    }

    /// For a client of ours.
    pub(crate) fn tls(&self) -> Tls {
        let (certificate, key) = self.client.clone();
        Tls {
            ca: self.ca.clone().into_bytes(),
            identity: Some((certificate.into_bytes(), key.into_bytes())),
            name: None,
        }
    }

    fn server_args(&self, folder: &TempDir) -> Vec<String> {
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&path, private).expect("its mode");
            path.display().to_string()
        };
        file("client.pem", &self.client.0);
        file("client-key.pem", &self.client.1);
        vec![
            format!("--cert-file={}", file("server.pem", &self.server.0)),
            format!("--key-file={}", file("server-key.pem", &self.server.1)),
            format!("--trusted-ca-file={}", file("ca.pem", &self.ca)),
            "--client-cert-auth=true".to_owned(),
        ]
    }
}
