//! How long nothing passes while a transit node is restarted under load, and how long `ctl` takes meanwhile: not a test but a
//! measurement, as no test asserts times.
//!
//! `TWINSEAL_PROGRAM=target/release/twinseal cargo test --workspace --test e2e_outage -- --ignored --nocapture`

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::{Path, options};
use twinseal_lab::traffic::Until;
use twinseal_testbed::plan::{Host, Router};

const RUNS: usize = 7;
const PPS: f64 = 20_000.0;

/// Seconds, for people.
fn list(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let median = times[times.len() / 2];
    println!(
        "{name}: median {median:.3?}, {:.3?} to {:.3?}, {} runs",
        times[0],
        times[times.len() - 1],
        times.len()
    );
}

#[test]
#[ignore = "measures"]
fn how_long_a_planned_restart_takes() {
    let mut options = options();
    let program = std::env::var("TWINSEAL_PROGRAM");
    if let Ok(program) = &program {
        options.program = program.into();
    }
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_twinseal").to_owned());
    let Some(mut path) = Path::start(options) else {
        return;
    };
    let (mut outages, mut stops, mut starts, mut ctls) = (vec![], vec![], vec![], vec![]);
    for _ in 0..RUNS {
        let until = Until::Elapsed(Duration::from_secs(600));
        let traffic = path.send_from(Host::A, false, 8, PPS, until);
        std::thread::sleep(Duration::from_secs(1));
        assert!(traffic.received() > 0, "nothing passes");
        let mut sockets = path.network.sockets();
        let socket = sockets.find(|(router, _)| *router == Router::Transit);
        let socket = socket.expect("it runs").1.to_owned();
        drop(sockets);
        // As a controller would: the new keys are at the neighbours before.
        let old = path.plan.next_epoch().expect("new secrets");
        for router in [Router::EdgeA, Router::EdgeB] {
            let keys = path.plan.install(router);
            path.controller.apply(router, keys).expect("new keys");
        }
        let done = AtomicBool::new(false);
        let outage = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let (mut last, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
                while !done.load(Relaxed) {
                    let received = traffic.received();
                    longest = longest.max(since.elapsed());
                    if received != last {
                        (last, since) = (received, Instant::now());
                    }
                    std::thread::sleep(Duration::from_micros(500));
                }
                longest
            });
            let ctl = scope.spawn(|| {
                let mut longest = (Duration::ZERO, String::new());
                while !done.load(Relaxed) {
                    let began = Instant::now();
                    let output = Command::new(&program)
                        .args(["ctl", "--socket"])
                        .arg(&socket)
                        .args(["get", "--json"])
                        .output()
                        .expect("the program starts");
                    let took = began.elapsed();
                    if took > longest.0 {
                        let said = String::from_utf8_lossy(&output.stderr).into_owned();
                        longest = (took, said);
                    }
                }
                longest
            });
            let began = Instant::now();
            assert!(path.network.stop_daemon(Router::Transit).expect("it stops"));
            stops.push(began.elapsed());
            let began = Instant::now();
            path.network
                .start_daemon(Router::Transit)
                .expect("it starts");
            starts.push(began.elapsed());
            path.reconnect();
            let keys = path.plan.install(Router::Transit);
            path.controller
                .apply(Router::Transit, keys)
                .expect("new keys");
            for router in [Router::Transit, Router::EdgeA, Router::EdgeB] {
                let transmit = path.plan.transmit(router);
                path.controller
                    .apply(router, transmit)
                    .expect("new keys in use");
            }
            for router in Router::ALL {
                let retire = path.plan.retire(router, old);
                path.controller
                    .apply(router, retire)
                    .expect("old keys gone");
            }
            std::thread::sleep(Duration::from_secs(2));
            done.store(true, Relaxed);
            let (took, said) = ctl.join().expect("no panic");
            println!("longest ctl {took:.3?}: {said:?}");
            ctls.push(took);
            watcher.join().expect("no panic")
        });
        outages.push(outage);
        traffic.stop();
    }
    list("nothing passed for", outages);
    list("the daemon stopped in", stops);
    list("the daemon started in", starts);
    list("the longest ctl get", ctls);
    path.finish();
}

/// A node that is stopped and does not come back: `ctl` says so.
#[test]
#[ignore = "measures"]
fn how_long_ctl_takes_to_see_that_a_node_is_gone() {
    let mut options = options();
    let program = std::env::var("TWINSEAL_PROGRAM");
    if let Ok(program) = &program {
        options.program = program.into();
    }
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_twinseal").to_owned());
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let Some(mut path) = Path::start(options.clone()) else {
            return;
        };
        let mut sockets = path.network.sockets();
        let socket = sockets.find(|(router, _)| *router == Router::Transit);
        let socket = socket.expect("it runs").1.to_owned();
        drop(sockets);
        let until = Until::Elapsed(Duration::from_secs(600));
        let traffic = path.send_from(Host::A, false, 8, PPS, until);
        let done = AtomicBool::new(false);
        let longest = std::thread::scope(|scope| {
            let asking = [0; 4].map(|_| {
                scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    while !done.load(Relaxed) {
                        let began = Instant::now();
                        let mut ctl = Command::new(&program);
                        ctl.args(["ctl", "--socket"]).arg(&socket);
                        let output = ctl.args(["get", "--json"]).output();
                        output.expect("the program starts");
                        longest = longest.max(began.elapsed());
                    }
                    longest
                })
            });
            std::thread::sleep(Duration::from_millis(500));
            assert!(path.network.stop_daemon(Router::Transit).expect("it stops"));
            std::thread::sleep(Duration::from_millis(200));
            done.store(true, Relaxed);
            let all = asking.map(|it| it.join().expect("no panic"));
            all.into_iter().max().expect("four")
        });
        times.push(longest);
        traffic.stop();
    }
    list("the longest ctl get", times);
}
