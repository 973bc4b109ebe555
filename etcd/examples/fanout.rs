//! How many agents an etcd cluster bears, and how fast they hear: three members on loopback, and watchers that do what
//! `twinseal agent etcd` does, each with a connection of its own and a watch of its node's two prefixes.
//!
//! ```text
//! cargo run --release -p twinseal-etcd --example fanout -- 10 100 1000
//! ```
//!
//! Everything shares this machine's processors, so it shows how things grow rather than what a cluster can do. A row a
//! number of watchers: median and greatest of
//!
//! - `one`: from a put to a node's key until its watcher was told;
//! - `all`: from a put to a key that every watcher also follows until the last of them was told;
//! - `each`: a put to every node, 64 under way at a time: puts a second, and the time until the last watcher was told;
//! - resident memory of the members.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use std::time::{Duration, Instant};

use cluster::Cluster;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use twinseal_etcd::{Change, Client, Config};

/// How often what is quick is measured.
const ROUNDS: usize = 50;
/// Puts under way.
const UNDER_WAY: usize = 64;
/// Octets of a value: a node's routes, or a few circuits.
const VALUE: usize = 3000;
const COMMON: &[u8] = b"/twinseal/common";

/// What a watcher heard: the key's last octets do not matter, only when.
type Heard = mpsc::UnboundedReceiver<Instant>;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let counts: Vec<usize> = std::env::args()
        .skip(1)
        .map(|count| count.parse().expect("numbers of watchers"))
        .collect();
    println!("watchers  open s  one ms (most)  all ms (most)  each: puts/s  last told s  etcd MiB");
    for count in if counts.is_empty() {
        vec![10, 100, 1000]
    } else {
        counts
    } {
        let Some(cluster) = Cluster::start(3).await else {
            return;
        };
        measure(&cluster, count).await;
    }
}

async fn measure(cluster: &Cluster, count: usize) {
    let begin = Instant::now();
    let mut watchers = JoinSet::new();
    let mut heard = open(cluster, count, &mut watchers).await;
    let opened = begin.elapsed();

    let mut client = cluster.client();
    let value = vec![b'x'; VALUE];
    let (mut one, mut all) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let begin = Instant::now();
        let key = state(round * 7919 % count);
        client.put(&key, &value, None).await.expect("a put");
        one.push(last(&mut heard, 1).await - begin);
        let begin = Instant::now();
        client.put(COMMON, &value, None).await.expect("a put");
        all.push(last(&mut heard, count).await - begin);
    }

    let begin = Instant::now();
    let mut puts = JoinSet::new();
    for lane in 0..UNDER_WAY {
        let (mut client, value) = (client_of(cluster, lane), value.clone());
        puts.spawn(async move {
            for node in (lane..count).step_by(UNDER_WAY) {
                client.put(&state(node), &value, None).await.expect("a put");
            }
        });
    }
    puts.join_all().await;
    let put = begin.elapsed();
    let told = last(&mut heard, count).await.max(begin) - begin;
    println!(
        "{count:>8} {:>7.1} {:>14} {:>14} {:>13.0} {:>12.2}  {}",
        opened.as_secs_f64(),
        spread(one),
        spread(all),
        count as f64 / put.as_secs_f64(),
        told.as_secs_f64(),
        cluster
            .resident()
            .iter()
            .map(|bytes| (bytes >> 20).to_string())
            .collect::<Vec<_>>()
            .join(" "),
    );
}

/// Watchers, spread over the members.
async fn open(cluster: &Cluster, count: usize, watchers: &mut JoinSet<()>) -> Heard {
    let (tell, heard) = mpsc::unbounded_channel();
    for node in 0..count {
        let mut client = client_of(cluster, node);
        let (state, keys) = (state(node), format!("/twinseal/keys/{node}/").into_bytes());
        let mut watch = client
            .watch(&[&state, &keys, COMMON], 1)
            .await
            .expect("a watch");
        let tell = tell.clone();
        watchers.spawn(async move {
            let _client = client;
            while let Ok(Change::Put { .. }) = watch.next().await {
                if tell.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
    }
    heard
}

/// When the last of so many was told.
async fn last(heard: &mut Heard, count: usize) -> Instant {
    let mut last = Instant::now();
    for _ in 0..count {
        let next = tokio::time::timeout(cluster::PATIENCE, heard.recv()).await;
        last = next.expect("told in time").expect("watchers live");
    }
    last
}

fn state(node: usize) -> Vec<u8> {
    format!("/twinseal/state/{node}/").into_bytes()
}

/// A client that begins with a member of its own.
fn client_of(cluster: &Cluster, number: usize) -> Client {
    let mut endpoints = cluster.endpoints();
    let members = endpoints.len();
    endpoints.rotate_left(number % members);
    let config = Config {
        endpoints,
        user: None,
        tls: None,
        plain_http: false,
        timeout: Duration::from_secs(10),
    };
    Client::new(&config).expect("endpoints")
}

/// The median, and the greatest, in milliseconds.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    format!(
        "{:.1} ({:.1})",
        ms(times[times.len() / 2]),
        ms(times[times.len() - 1])
    )
}
