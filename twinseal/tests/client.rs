//! The client of the crate twinseal-api against real nodes, over connections that break.

mod node;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast;
use twinseal_api::client::{Address, Client, Error, set};
use twinseal_api::v1::{self, event::Event, item::Item};

use node::{Node, config, on_runtime};

/// Stands between a client and its node.
struct Wire {
    path: PathBuf,
    /// The next answer is lost, and the connection with it.
    lose_answer: Arc<AtomicBool>,
    cut: broadcast::Sender<()>,
}

impl Wire {
    /// On the runtime that it is called on.
    fn new(dir: &Path, node: PathBuf) -> Self {
        let path = dir.join("wire.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let lose_answer = Arc::new(AtomicBool::new(false));
        let (cut, _) = broadcast::channel(1);
        let wire = Self {
            path,
            lose_answer: Arc::clone(&lose_answer),
            cut: cut.clone(),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(node) = UnixStream::connect(&node).await else {
                    continue;
                };
                let (lose, cut) = (Arc::clone(&lose_answer), cut.subscribe());
                tokio::spawn(carry(client, node, lose, cut));
            }
        });
        wire
    }

    fn cut(&self) {
        let _ = self.cut.send(());
    }
}

async fn carry(
    mut client: UnixStream,
    mut node: UnixStream,
    lose_answer: Arc<AtomicBool>,
    mut cut: broadcast::Receiver<()>,
) {
    let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            _ = cut.recv() => return,
            read = client.read(&mut up) => match read {
                Ok(n) if n > 0 => node.write_all(&up[..n]).await.unwrap_or_default(),
                _ => return,
            },
            read = node.read(&mut down) => match read {
                // What is small is no answer: acknowledgements of HTTP/2 itself.
                Ok(n) if n > 17 && lose_answer.swap(false, SeqCst) => return,
                Ok(n) if n > 0 => client.write_all(&down[..n]).await.unwrap_or_default(),
                _ => return,
            },
        }
    }
}

fn vrf(name: &str) -> v1::Change {
    set(Item::Vrf(v1::Vrf { name: name.into() }))
}

fn request(name: &str) -> v1::ApplyRequest {
    v1::ApplyRequest {
        changes: vec![vrf(name)],
        ..Default::default()
    }
}

async fn generation(events: &mut twinseal_api::client::Events) -> u64 {
    let event = events.next().await.expect("an event");
    match event.event {
        Some(Event::Table(table)) => table.generation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_and_nothing_is_applied_twice() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let wire = Wire::new(dir.path(), config.socket.path.clone());
        let address = Address::socket(&wire.path);
        static WAITED: AtomicBool = AtomicBool::new(false);
        let mut client = Client::connect(address).await.expect("it connects");
        client.on_waiting(|_, _| WAITED.store(true, SeqCst));
        let first = client.apply(request("red")).await.expect("it applies");
        assert!(!WAITED.load(SeqCst));
        assert_eq!((first.generation, first.repeated), (1, false));
        wire.lose_answer.store(true, SeqCst);
        let second = client.apply(request("blue")).await.expect("it applies");
        assert!(!wire.lose_answer.load(SeqCst), "an answer was lost");
        assert!(WAITED.load(SeqCst), "a user is told what it waits for");
        assert_eq!((second.generation, second.repeated), (2, true));

        // A whole state too.
        let items = ["green", "grey"].map(|name| v1::Item {
            item: Some(Item::Vrf(v1::Vrf { name: name.into() })),
            ..Default::default()
        });
        wire.lose_answer.store(true, SeqCst);
        let third = client.replace(Default::default(), items.to_vec()).await;
        let third = third.expect("it applies");
        assert_eq!((third.generation, third.repeated), (3, true));

        let refused = client.apply(request("no name")).await;
        let Err(Error::Refused(refusal)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(refusal.items[0].field, "name");
        let got = client.get(v1::GetRequest {}).await.expect("it answers");
        assert_eq!(got.into_inner().items.len(), 2);
    });
    node.stop();
}

#[test]
fn events_go_on_where_they_were_and_tell_of_a_restart() {
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (mut client, mut events) = runtime.block_on(async {
        let wire = Wire::new(dir.path(), config.socket.path.clone());
        let through = Address::socket(&wire.path);
        let client = Client::connect(through).await.expect("it connects");
        let mut events = client.events([v1::EventKind::Configuration]);
        events.open().await.expect("it listens");
        let direct = Address::socket(&config.socket.path);
        let mut other = Client::connect(direct).await.expect("it connects");
        for (name, generation) in [("red", 1), ("blue", 2), ("green", 3)] {
            other.apply(request(name)).await.expect("it applies");
            if generation == 1 {
                // What happens while the connection is gone is not missed.
                wire.cut();
            }
        }
        for want in 1..=3 {
            assert_eq!(generation(&mut events).await, want);
        }
        (other, events)
    });
    let (sequence, boot) = events.position().expect("it has seen some");
    node.stop();
    runtime.block_on(async {
        client.set_patience(Duration::from_millis(300));
        let gone = client.apply(request("x")).await;
        assert!(matches!(gone, Err(Error::Gone(_))), "{gone:?}");
        let direct = Address::socket(&config.socket.path);
        let gone = Client::connect(direct).await;
        assert!(matches!(gone, Err(Error::Connect { .. })));
    });
    let node = Node::start(config.clone()).expect("it starts again");
    runtime.block_on(async {
        let next = events.next().await.expect("an event");
        let Some(Event::Gap(gap)) = next.event else {
            panic!("{next:?}");
        };
        assert_eq!(gap.cause(), v1::GapCause::Restarted);
        assert_eq!(generation(&mut events).await, 3, "restored");
        // And so for a program that kept its position.
        let mut later = client.events([]).from(sequence, boot);
        let next = later.next().await.expect("an event");
        assert!(matches!(next.event, Some(Event::Gap(_))), "{next:?}");
    });
    node.stop();
}

/// A Python with gRPC's own client, if there is one.
fn python() -> Option<PathBuf> {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python3");
    let program = std::env::var_os("TWINSEAL_PYTHON").map_or_else(ours, PathBuf::from);
    let tried = Command::new(&program)
        .args(["-c", "import grpc_status, grpc_tools"])
        .output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Some(program);
    }
    eprintln!(
        "SKIPPED: {} has no grpcio: run ci/setup, or name a Python with \
         examples/controller/requirements.txt in TWINSEAL_PYTHON",
        program.display()
    );
    None
}

/// What gRPC's core does when a stream breaks off, and how much of a refusal it takes, is its own.
#[test]
fn grpcs_own_client_applies_no_half_and_reads_refusals() {
    let Some(python) = python() else { return };
    let dir = TempDir::new().expect("a folder");
    let config = config(dir.path(), "n");
    let node = Node::start(config.clone()).expect("it starts");
    on_runtime(async {
        let address = Address::socket(&config.socket.path);
        let mut client = Client::connect(address).await.expect("it connects");
        client.apply(request("red")).await.expect("it applies");
    });
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python)
        .arg("-B")
        .arg(root.join("tests/grpcio.py"))
        .arg(root.join("../api/proto"))
        .arg(&config.socket.path)
        .output()
        .expect("python runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{log}");
    node.stop();
}
