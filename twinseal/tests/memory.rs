//! What a node's memory holds of secrets: nothing, once their keys are made.

mod node;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tonic::transport::Endpoint;
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, Direction, item::Item};

use node::guarded::*;
use node::{circuit_owner, edge, on_runtime, request, tag};

/// Bytes of a page, on the machines that this is tested on.
const PAGE: u64 = 4096;

/// The program itself, as it is run.
struct Daemon {
    child: Child,
    socket: PathBuf,
    _dir: TempDir,
}

impl Daemon {
    fn start(dir: TempDir, more: &str) -> Self {
        let (socket, config) = (dir.path().join("n.sock"), dir.path().join("node.toml"));
        twinseal_node::state_dir::init(&dir.path().join("state"), false).expect("a new one");
        let text = format!(
            // Only so that we may look into its memory without being root.
            "state_dir = {:?}\n[node]\nname = \"n\"\nallow_core_dumps = true\n[workers]\ncount = 1\n\
             [memory]\nframes = 1024\nring = 256\nhuge_pages = \"never\"\n[control]\nsocket = {socket:?}\n{more}",
            dir.path().join("state"),
        );
        std::fs::write(&config, text).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_twinseal"))
            .arg("run")
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok);
        assert!(ready.into_iter().any(|line| line.contains("is ready on")));
        // It must not wait for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            socket,
            _dir: dir,
        }
    }

    /// How many of the secrets are in its memory, and where; `None` if we may not look.
    fn found(&self, secrets: &[Vec<u8>]) -> Option<Vec<String>> {
        let process = format!("/proc/{}", self.child.id());
        let maps = std::fs::read_to_string(format!("{process}/maps")).ok()?;
        let memory = File::open(format!("{process}/mem")).ok()?;
        let pages = File::open(format!("{process}/pagemap")).ok()?;
        let mut found = Vec::new();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, mode) = (fields.next()?, fields.next()?);
            if !mode.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-')?;
            let from = u64::from_str_radix(from, 16).ok()? / PAGE;
            let to = u64::from_str_radix(to, 16).ok()? / PAGE;
            let mut present = vec![0; 8 * (to - from) as usize];
            pages.read_exact_at(&mut present, 8 * from).ok()?;
            // Pages that are there or swapped out (proc(5)), in one piece as far as they lie side by side.
            let present = present.chunks(8).map(|entry| entry[7] & 0xc0 != 0);
            let present: Vec<_> = (from..to).zip(present).filter(|(_, it)| *it).collect();
            for piece in present.chunk_by(|one, next| one.0 + 1 == next.0) {
                let mut bytes = vec![0; piece.len() * PAGE as usize];
                // What was unmapped meanwhile has none.
                if memory.read_exact_at(&mut bytes, piece[0].0 * PAGE).is_err() {
                    continue;
                }
                let there = all_in(&bytes, secrets).into_iter();
                found.extend(there.map(|n| format!("secret {n} in {line}")));
            }
        }
        Some(found)
    }
}

/// Which of the secrets are there; looked for in one go, by their first two bytes.
fn all_in(memory: &[u8], secrets: &[Vec<u8>]) -> BTreeSet<usize> {
    let first = |bytes: &[u8]| usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
    let mut begins = vec![false; 1 << 16];
    secrets
        .iter()
        .for_each(|secret| begins[first(secret)] = true);
    let mut found = BTreeSet::new();
    for at in 0..memory.len() - 1 {
        if begins[first(&memory[at..])] {
            let here = |secret: &Vec<u8>| memory[at..].starts_with(secret);
            found.extend((0..secrets.len()).filter(|n| here(&secrets[*n])));
        }
    }
    found
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn secrets() -> Vec<Vec<u8>> {
    let secret = |_| {
        let mut secret = vec![0; 32];
        getrandom::fill(&mut secret).expect("random numbers");
        secret
    };
    (0..20).map(secret).collect()
}

/// Keys of a circuit, two an epoch.
fn keys(secrets: &[Vec<u8>], first: u32) -> Vec<Item> {
    let key = |(n, secret): (usize, &Vec<u8>)| {
        Item::Key(v1::Key {
            owner: Some(circuit_owner()),
            direction: [Direction::AToB, Direction::BToA][n % 2].into(),
            epoch: first + n as u32 / 2,
            secret: secret.clone(),
            ..Default::default()
        })
    };
    secrets.iter().enumerate().map(key).collect()
}

fn deleted(first: u32) -> v1::ApplyRequest {
    let delete = |n: u32| {
        let key = v1::KeyRef {
            owner: Some(v1::key_ref::Owner::Circuit("c1".into())),
            direction: [Direction::AToB, Direction::BToA][n as usize % 2].into(),
            epoch: first + n / 2,
        };
        twinseal_api::client::delete(v1::item_ref::Item::Key(key))
    };
    v1::ApplyRequest {
        changes: (0..20).map(delete).collect(),
        ..Default::default()
    }
}

async fn socket_client(socket: &Path) -> Client {
    let uri = format!("unix://{}", socket.display());
    let channel = Endpoint::try_from(uri).expect("a path").connect().await;
    ControlClient::new(channel.expect("it listens"))
}

/// Waits until none of them is there; what was asked of the connection is done beside the answer.
async fn gone(daemon: &Daemon, secrets: &[Vec<u8>], when: &str) {
    let mut found = Vec::new();
    for _ in 0..20 {
        found = daemon.found(secrets).expect("it is ours");
        if found.is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{when}: {found:#?}");
}

#[test]
fn secrets_are_nowhere_once_they_are_loaded() {
    let daemon = Daemon::start(TempDir::new().expect("a folder"), "");
    if daemon.found(&[]).is_none() {
        eprintln!("SKIPPED: another process' memory cannot be read here");
        return;
    }
    on_runtime(async {
        let mut client = socket_client(&daemon.socket).await;
        let sound = request(edge(&tag("memory"), v1::End::A));
        client.apply(sound).await.expect("sound");
        // The way to look finds what is there: a name in the tables.
        let there = daemon.found(&[b"memory-".to_vec()]);
        assert!(there.is_some_and(|found| !found.is_empty()));

        let first = secrets();
        client.apply(request(keys(&first, 2))).await.expect("sound");
        gone(&daemon, &first, "installed").await;
        client.apply(deleted(2)).await.expect("sound");
        gone(&daemon, &first, "deleted").await;

        // Refused for one of them, and broken off before its end.
        let second = secrets();
        let mut wrong = keys(&second, 20);
        wrong.push(Item::Vrf(v1::Vrf {
            name: "no name".into(),
        }));
        client.apply(request(wrong)).await.expect_err("wrong");
        gone(&daemon, &second, "refused").await;
        let third = secrets();
        let message = v1::ReplaceRequest {
            items: keys(&third, 40)
                .into_iter()
                .map(|item| v1::Item {
                    item: Some(item),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        let endless =
            futures::StreamExt::chain(futures::stream::iter([message]), futures::stream::pending());
        let cut = std::time::Duration::from_millis(300);
        let broken = tokio::time::timeout(cut, client.replace(endless)).await;
        assert!(broken.is_err(), "it was not at its end");
        gone(&daemon, &third, "broken off").await;
        look(&mut client)
            .await
            .expect("the connection is as good as before");
    });
}

#[test]
fn secrets_that_came_over_tls_go_with_their_connection() {
    let dir = TempDir::new().expect("a folder");
    let ca = Issuer::new(dir.path(), "ca");
    let identity = ca.issue(dns("node.example.org"), false);
    let (certificate, key) = (dir.path().join("node.pem"), dir.path().join("node.key"));
    std::fs::write(&certificate, &identity.certificate).expect("a file");
    write_private(&key, &identity.key);
    let address: SocketAddr = free_port();
    let more = format!(
        "[control.tls]\nlisten = \"{address}\"\ncertificate = {certificate:?}\nkey = {key:?}\nclient_ca = {:?}\nadmins = [{ADMIN:?}]\n",
        ca.file()
    );
    let daemon = Daemon::start(dir, &more);
    if daemon.found(&[]).is_none() {
        eprintln!("SKIPPED: another process' memory cannot be read here");
        return;
    }
    on_runtime(async {
        let admin = ca.issue(uri(ADMIN), false);
        let mut client = tls_client(address, &ca, Some(&admin)).await.expect("known");
        let sound = request(edge(&tag("memory-tls"), v1::End::A));
        client.apply(sound).await.expect("sound");
        let secrets = secrets();
        client
            .apply(request(keys(&secrets, 2)))
            .await
            .expect("sound");
        drop(client);
        gone(&daemon, &secrets, "the connection has ended").await;
    });
}
