//! `twinseal demo`: two hosts talk through three routers, every packet sealed twice.
//!
//! The path is made of the kernel's devices, as tests have it, or without root of [`memory`] ports.

mod args;
mod capture;
mod hosts;
mod load;
mod memory;
mod verdict;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use twinseal_api::v1;
use twinseal_lab::Lab;

pub(crate) use args::DemoArgs;
use capture::{Captures, Needles};
use hosts::Testbed;
use twinseal_testbed::controller::Controller;
use twinseal_testbed::plan::{Host, Plan, Router, Underlay};
use twinseal_testbed::{drops, items, kernel};
use verdict::{Outcome, SocketMode, Verdict};

const LINKS_UP: Duration = Duration::from_secs(10);

/// Runs the demo. The exit status tells its verdict: 0 success, 1 failure, 3 inconclusive.
///
/// # Errors
/// If it could not be run to its end.
pub(crate) fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
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
    Ok(match verdict.verdict {
        Outcome::Success => ExitCode::SUCCESS,
        Outcome::Failure => ExitCode::FAILURE,
        Outcome::Inconclusive => ExitCode::from(3),
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
    let before = drops::all(&mut controller)?;
    let found = load::find_rate(args, path, marker)?;
    let search_drops = drops::since(drops::all(&mut controller)?, &before);
    let captures = start_captures(path, true)?;
    let load = load::drive(args, path, &mut controller, &mut plan, marker, &found)?;
    let second = captures.map(|c| c.finish(&needles)).transpose()?;

    let capture = first.zip(second).map(|(first, second)| first.and(second));
    Ok(Verdict {
        verdict: Outcome::Failure,
        success: false,
        failures: Vec::new(),
        doubts: Vec::new(),
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
        rate_finding: found.finding,
        rate_found_pps: found.pps,
        rate_pps: load.rate,
        offered_pps: load.offered,
        sender_kept_up: load.kept_up(),
        slowed: load.slowed,
        attempts: load.attempts,
        latency_us: load.latency,
        ping4: pings.v4,
        ping6: pings.v6,
        pings_sent: pings.sent,
        pings_answered: pings.answered,
        rotations: load.rotations,
        plaintext_found: capture.map(|capture| capture.with_plaintext > 0),
        capture,
        drops: load.drops,
        search_drops,
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
