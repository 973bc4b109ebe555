//! `twinseal demo`: two hosts talk through three routers, every packet sealed twice.
//!
//! [`plan`] is what the routers are told and [`controller`] tells them, as any external controller would. The path is
//! made of [`kernel`] devices, or without root of [`memory`] ports.

mod args;
mod capture;
pub mod controller;
pub mod daemon;
mod hosts;
pub mod items;
pub mod kernel;
mod load;
mod memory;
pub mod plan;
mod verdict;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use twinseal_api::v1;
use twinseal_lab::Lab;

pub use args::DemoArgs;
use capture::{Captures, Needles};
use controller::Controller;
use hosts::Testbed;
use plan::{Host, Plan, Router, Underlay};
use verdict::{SocketMode, Verdict};

const LINKS_UP: Duration = Duration::from_secs(10);

/// Runs the demo; the exit status tells whether its verdict is success.
///
/// # Errors
/// If it could not be run to its end.
pub fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.teardown {
        Lab::teardown(name)?;
        return Ok(ExitCode::SUCCESS);
    }
    args.check()?;
    let path = match Lab::available() {
        Ok(()) => {
            say(
                &args,
                "building host A - edge A - transit - edge B - host B",
            );
            let program = std::env::current_exe().context("where is this program?")?;
            let mut options = kernel::Options::new(program);
            // As containers are.
            options.offloads = true;
            let network = kernel::Network::start(options)?;
            Testbed::Kernel(Box::new(network))
        }
        Err(why) => {
            eprintln!(
                "no network namespaces here ({why}): the same three routers over in-memory ports instead"
            );
            anyhow::ensure!(!args.keep, "--keep needs namespaces: run it as root");
            Testbed::Memory(Box::new(memory::Network::start()?))
        }
    };
    let mut verdict = show(&args, &path)?;
    verdict.judge();
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
    } else {
        verdict.print();
    }
    if args.keep
        && let Testbed::Kernel(network) = path
    {
        leave_running(*network)?;
    }
    Ok(match verdict.success {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn show(args: &DemoArgs, path: &Testbed) -> anyhow::Result<Verdict> {
    let mut plan = Plan::new(Underlay::V4, v1::Suite::Aes256Gcm)?;
    let mut controller = Controller::connect(path.sockets())?;
    say(args, "loading tables and keys through the control sockets");
    controller.start(&plan, path.devices())?;
    controller.wait_for_links(LINKS_UP)?;
    let mut marker = [0; 8];
    items::random(&mut marker)?;
    let needles = Needles::new(&plan, marker);

    let captures = start_captures(path, false)?;
    let pings = ping_all(args, path)?;
    let first = captures.map(|c| c.finish(&needles)).transpose()?;

    say(args, "looking for the rate that the path sustains");
    let found = load::find_rate(args, path, marker)?;
    let captures = start_captures(path, true)?;
    let load = load::drive(args, path, &mut controller, &mut plan, marker, found)?;
    let second = captures.map(|c| c.finish(&needles)).transpose()?;

    let capture = first.zip(second).map(|(first, second)| first.and(second));
    Ok(Verdict {
        success: false,
        failures: Vec::new(),
        mode: path.mode(),
        sockets: socket_modes(&mut controller)?,
        sent: load.sent,
        received: load.received,
        lost: load.sent - load.received,
        duplicates: load.duplicates,
        reordered: load.reordered,
        damaged: load.damaged,
        size: args.size,
        gbps: load.gbps,
        mpps: load.mpps,
        rate_found_pps: found,
        rate_pps: load.rate,
        attempts: load.attempts,
        latency_us: load.latency,
        ping4: pings.v4,
        ping6: pings.v6,
        pings_sent: pings.sent,
        pings_answered: pings.answered,
        rotations: load.rotations,
        plaintext_found: capture.map(|capture| capture.with_plaintext > 0),
        capture,
        drops: drops(&mut controller)?,
    })
}

fn start_captures(path: &Testbed, sampled: bool) -> anyhow::Result<Option<Captures>> {
    match path {
        Testbed::Kernel(network) => Captures::start(network, sampled).map(Some),
        Testbed::Memory(_) => Ok(None),
    }
}

struct Pings {
    v4: bool,
    v6: bool,
    sent: u32,
    answered: u32,
}

fn ping_all(args: &DemoArgs, path: &Testbed) -> anyhow::Result<Pings> {
    let mut pings = Pings {
        v4: true,
        v6: true,
        sent: 0,
        answered: 0,
    };
    for v6 in [false, true] {
        for from in [Host::A, Host::B] {
            let (sent, answered) = path.ping(from, v6)?;
            let to = from.other().address(v6);
            say(args, &format!("ping {to}: {answered} of {sent} answered"));
            let all = if v6 { &mut pings.v6 } else { &mut pings.v4 };
            *all &= sent > 0 && sent == answered;
            pings.sent += sent;
            pings.answered += answered;
        }
    }
    Ok(pings)
}

fn socket_modes(controller: &mut Controller) -> anyhow::Result<Vec<SocketMode>> {
    let mut modes = Vec::new();
    for router in Router::ALL {
        let state = controller.get(router)?;
        let memory = state.memory;
        modes.extend(state.ports.into_iter().map(|port| SocketMode {
            router: router.name().into(),
            port: port.port,
            xdp: port.xdp,
            bind: port.bind,
            need_wakeup: port.need_wakeup,
            memory: memory.clone(),
        }));
    }
    modes.retain(|mode| !mode.bind.is_empty());
    Ok(modes)
}

/// Socket counters that count lost packets.
const SOCKET_DROPS: [&str; 5] = [
    "rx_dropped",
    "rx_ring_full",
    "multi_buffer_dropped",
    "rx_overflow",
    "tx_invalid_descs",
];

/// What all routers dropped, by reason; only reasons that occurred.
fn drops(controller: &mut Controller) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut sums = BTreeMap::new();
    for router in Router::ALL {
        let stats = controller.stats(router)?;
        let sockets = stats.ports.into_iter().flat_map(|port| port.sockets);
        let sockets = sockets.filter(|counter| SOCKET_DROPS.contains(&counter.name.as_str()));
        for counter in stats.drops.into_iter().chain(sockets) {
            if counter.value > 0 {
                *sums.entry(counter.name).or_default() += counter.value;
            }
        }
    }
    Ok(sums)
}

fn leave_running(network: kernel::Network) -> anyhow::Result<()> {
    let sockets: Vec<_> = network
        .sockets()
        .map(|(router, socket)| (router.name(), socket.to_owned()))
        .collect();
    let host = network.host(Host::A).name().to_owned();
    let id = network.keep()?;
    let program = std::env::current_exe()?;
    let program = program.display();
    eprintln!("\nleft running; to play with it:");
    eprintln!("  ip netns exec {host} ping {}", Host::B.address(false));
    for (router, socket) in sockets {
        eprintln!(
            "  {program} ctl --socket {} stats    # {router}",
            socket.display()
        );
    }
    eprintln!("to take it down:\n  {program} demo --teardown {id}");
    Ok(())
}

/// Progress, for people; it leaves standard output to the verdict.
fn say(args: &DemoArgs, text: &str) {
    if !args.json {
        eprintln!("{text}");
    }
}
