//! How long others wait while a viewer asks for as much as it may: not a test but a measurement, as no test asserts times.
//!
//! `TWINSEAL_PROGRAM=target/release/twinseal cargo test --workspace --test viewers -- --ignored --nocapture`

mod node;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use twinseal_api::v1::control_client::ControlClient;
use twinseal_api::v1::{self, item::Item};

use node::{edge, on_runtime, request, tag};

type Client = ControlClient<Channel>;

const CIRCUITS: u32 = 100_000;
const ROUTES: u32 = 100_000;
/// How long each kind of request is made.
const TIME: Duration = Duration::from_secs(8);
/// Of requests of the viewer.
const UNDER_WAY: usize = 4;

struct Daemon {
    dir: TempDir,
    child: Child,
}

impl Daemon {
    fn start() -> Self {
        let dir = TempDir::new().expect("a folder");
        let text = format!(
            "state_dir = {:?}\nkeep_tables = false\n[node]\nname = \"n\"\n[control]\nsocket = {:?}\n[control.limits]\n\
             requests_per_second = 100000\n[workers]\ncount = 1\n[memory]\nframes = 1024\nring = 256\nhuge_pages = \"never\"\n",
            dir.path().join("state"),
            dir.path().join("n.sock"),
        );
        twinseal_node::state_dir::init(&dir.path().join("state"), false).expect("a new one");
        std::fs::write(dir.path().join("node.toml"), text).expect("a file");
        let program = std::env::var("TWINSEAL_PROGRAM");
        let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_twinseal").to_owned());
        let child = Command::new(program)
            .args(["--log", "error", "run", "--config"])
            .arg(dir.path().join("node.toml"))
            .stdin(Stdio::null())
            .spawn();
        let child = child.expect("the program starts");
        Self { dir, child }
    }

    async fn client(&self) -> Client {
        let uri = format!("unix://{}", self.dir.path().join("n.sock").display());
        loop {
            let endpoint = Endpoint::try_from(uri.clone()).expect("a path");
            if let Ok(channel) = endpoint.connect().await {
                return ControlClient::new(channel).max_decoding_message_size(1 << 30);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn circuit(n: u32) -> Item {
    Item::Circuit(v1::Circuit {
        name: format!("circuit-{n:06}"),
        id: u64::from(1000 + n),
        end: v1::End::A.into(),
        vrf: "red".into(),
        link: "l1".into(),
        label: 1000 + n,
        ..Default::default()
    })
}

fn route(n: u32) -> Item {
    Item::Route(v1::Route {
        vrf: "red".into(),
        prefix: format!("100.{}.{}.{}/32", n >> 16, n >> 8 & 255, n & 255),
        target: Some(v1::route::Target::Circuit(format!("circuit-{n:06}"))),
    })
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Nothing,
    Stats,
    ListStats,
    Explain,
    Get,
    List,
}

/// One request, and its answer to the end.
async fn ask(client: &mut Client, kind: Kind, n: u32) -> Result<usize, tonic::Status> {
    Ok(match kind {
        Kind::Nothing => {
            tokio::time::sleep(Duration::from_millis(50)).await;
            0
        }
        Kind::Stats => {
            let answer = client.stats(v1::StatsRequest {}).await?;
            answer.into_inner().circuits.len()
        }
        Kind::ListStats => {
            let parts = client.list_stats(v1::StatsRequest {}).await?;
            let (mut parts, mut circuits) = (parts.into_inner(), 0);
            while let Some(part) = parts.message().await? {
                circuits += part.circuits.len();
            }
            circuits
        }
        Kind::Explain => {
            let Item::Route(route) = route(n % ROUTES) else {
                return Ok(0);
            };
            let request = v1::ExplainRequest {
                vrf: "red".into(),
                destination: route.prefix.trim_end_matches("/32").into(),
                ..Default::default()
            };
            client.explain(request).await?;
            1
        }
        Kind::Get => {
            let answer = client.get(v1::GetRequest {}).await?;
            answer.into_inner().items.len()
        }
        Kind::List => {
            let mut parts = client.list(v1::GetRequest {}).await?.into_inner();
            let mut items = 0;
            while let Some(part) = parts.message().await? {
                items += part.items.len();
            }
            items
        }
    })
}

#[test]
#[ignore = "measures"]
fn how_long_others_wait() {
    let daemon = Daemon::start();
    on_runtime(async {
        let mut admin = daemon.client().await;
        let load = request(edge(&tag("viewers"), v1::End::A));
        admin.apply(load).await.expect("sound");
        for (count, item) in [(CIRCUITS, circuit as fn(u32) -> Item), (ROUTES, route)] {
            for n in (0..count).step_by(10_000) {
                let load = request((n..n + 10_000).map(item));
                admin.apply(load).await.expect("sound");
            }
        }
    });
    for kind in [
        Kind::Nothing,
        Kind::Explain,
        Kind::Stats,
        Kind::ListStats,
        Kind::Get,
        Kind::List,
    ] {
        // On a thread of its own: what it decodes does not delay who measures.
        let viewer = {
            let socket = format!("unix://{}", daemon.dir.path().join("n.sock").display());
            std::thread::spawn(move || {
                on_runtime(async move {
                    let endpoint = Endpoint::try_from(socket).expect("a path");
                    let channel = endpoint.connect().await.expect("it listens");
                    let client = ControlClient::new(channel).max_decoding_message_size(1 << 30);
                    let began = Instant::now();
                    let asking = (0..UNDER_WAY as u32).map(|first| {
                        let mut client = client.clone();
                        async move {
                            let (mut count, mut said) = (0, String::new());
                            while began.elapsed() < TIME {
                                let n = first + UNDER_WAY as u32 * count;
                                match ask(&mut client, kind, n).await {
                                    Ok(things) => said = format!("{things} things"),
                                    Err(status) => said = status.message().to_owned(),
                                }
                                count += 1;
                            }
                            (count, said)
                        }
                    });
                    futures::future::join_all(asking).await
                })
            })
        };
        let mut times = on_runtime(async {
            let mut admin = daemon.client().await;
            let mut times = Vec::new();
            let began = Instant::now();
            while began.elapsed() < TIME {
                tokio::time::sleep(Duration::from_millis(7)).await;
                let asked = Instant::now();
                admin
                    .apply(request([route(times.len() as u32)]))
                    .await
                    .expect("sound");
                times.push(asked.elapsed());
            }
            times
        });
        times.sort();
        let answers = viewer.join().expect("no panic");
        let count: u32 = answers.iter().map(|(count, _)| count).sum();
        println!(
            "{kind:?}: {:.0}/s ({}); others' Apply: median {:.1?}, 99 % {:.1?}, most {:.1?} of {}",
            f64::from(count) / TIME.as_secs_f64(),
            answers[0].1,
            times[times.len() / 2],
            times[times.len() * 99 / 100],
            times[times.len() - 1],
            times.len(),
        );
    }
}
