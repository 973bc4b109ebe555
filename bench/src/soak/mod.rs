//! A soak: steady traffic through real daemons for hours, while their keys rotate and their tables churn.
//!
//! At the end every packet is accounted for, and each daemon's memory and descriptors are held against those of its
//! beginning. The [`testbed`](crate::testbed) is the network; the [`generator`](crate::generator) sends from host A to
//! host B over IPv4, and plain sockets send a light load back over IPv6, so that all keys are in use.

mod churn;
mod process;
mod result;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use twinseal_lab::traffic::{
    Finding, Load, Receiver as Inlet, Running, Search, Sender as Outlet, SenderConfig, Summary,
    Until, find_rate,
};
use twinseal_testbed::items::random;
use twinseal_testbed::plan::Host;

use crate::generator::{Account, Generator, Offer, Options, Receiver};
use crate::rfc2544::Dut;
use crate::testbed::{Setup, Testbed};
use crate::{Machine, Size};
use churn::Churn;
use process::Watched;
pub use process::{Daemon, Look};
pub use result::{Soak, Work};

/// Where the load back goes to.
const BACK_PORT: u16 = 9_001;
/// The load back: packets a second, flows, payload.
const BACK: (f64, u32, usize) = (500.0, 4, 200);
/// How long nothing must have come before what is missing is lost.
const QUIET: Duration = Duration::from_secs(2);
/// Longer than any soak.
const ENDLESS: Until = Until::Elapsed(Duration::from_secs(10 * 365 * 86_400));
/// Events that a daemon keeps, if the configuration does not say: few, so that the ring is full long before memory is
/// looked at. A tenant that comes and one that goes are ten events; so at two a second it is full within a minute.
const RING: u32 = 1024;
/// How often the loop looks what is due.
const TICK: Duration = Duration::from_millis(10);
/// What is sent where wires are bad and no rate without loss can be found, packets a second.
const PPS_IF_IMPAIRED: f64 = 5_000.0;

/// What to do, for how long.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network.
    pub setup: Setup,
    /// How long traffic flows.
    pub duration: Duration,
    /// Of the IP packets from A to B.
    pub size: Size,
    /// Their flows.
    pub flows: u32,
    /// Packets a second; else a part of what is found to pass without loss.
    pub pps: Option<f64>,
    /// That part.
    pub load: f64,
    /// Time between rotations of all keys.
    pub rotate_every: Duration,
    /// Time between two tenants that come; each goes again a few later.
    pub churn_every: Duration,
    /// Routes of each such tenant.
    pub routes: usize,
    /// Growth of a daemon's memory that is a failure, in bytes.
    pub growth_limit: u64,
    /// How to send and receive.
    pub options: Options,
}

/// Runs it; `say` gets a line now and then.
///
/// # Errors
/// When the network cannot be built, or a transaction is refused that should not be.
pub fn run(config: &Config, say: impl Fn(&str)) -> anyhow::Result<Soak> {
    let machine = Machine::this();
    let mut setup = config.setup.clone();
    if !setup
        .config
        .iter()
        .any(|line| line.trim_start().starts_with("events.ring"))
    {
        setup.config.push(format!("events.ring = {RING}"));
    }
    let mut testbed = Testbed::start(&setup)?;
    let mut generator = Generator::open(&testbed.route(Host::A, false)?, &config.options)?;
    let pps = rate(config, &mut generator, &say)?;
    let before = Counts::of(&mut testbed)?;
    let mut watched = Watched::new(&mut testbed, config.duration);
    let load = Traffic::start(config, &testbed, generator, pps)?;
    let (work, seconds) = work(config, &mut testbed, &mut watched, &load, &say)?;
    let (forward, back) = load.finish()?;
    let after = Counts::of(&mut testbed)?;
    let daemons = watched.finish();
    let mut soak = Soak {
        machine,
        dut: Dut::of(&mut testbed)?,
        seconds,
        offered_pps: pps,
        forward,
        back,
        drops: after.drops_since(&before),
        duplicated: after.duplicated - before.duplicated,
        work,
        daemons,
        unexplained: 0,
        failures: Vec::new(),
    };
    soak.judge(config, &ends(&mut testbed)?);
    Ok(soak)
}

/// The rate to drive, packets a second.
fn rate(config: &Config, generator: &mut Generator, say: &impl Fn(&str)) -> anyhow::Result<f64> {
    if let Some(pps) = config.pps {
        return Ok(pps);
    }
    if config.setup.impairment.is_some() {
        return Ok(PPS_IF_IMPAIRED);
    }
    let offer = Offer {
        size: config.size,
        flows: config.flows,
        pps: 0.0,
        until: Until::Elapsed(Duration::from_millis(300)),
    };
    let search = Search {
        trials: 28,
        resolution: 0.1,
        margin: 0.1,
        ..Search::default()
    };
    let found = find_rate(&search, |pps| {
        Ok::<_, anyhow::Error>(generator.run(&Offer { pps, ..offer })?.trial())
    })?;
    match found.finding {
        Finding::Lossy => {
            anyhow::bail!("packets are lost at every rate that was tried: give --pps")
        }
        Finding::Inconclusive => anyhow::bail!(
            "no rate could be found: of {} trials the sender kept up in {}; give --pps, or try when the machine is less busy",
            found.trials.len(),
            found.trials.len() - found.voids()
        ),
        Finding::Found | Finding::AtLeastGenerator | Finding::AtLeastTried => {}
    }
    let pps = found.pps * config.load;
    say(&format!(
        "found {}{:.0} packets a second without loss; driving {pps:.0}",
        if found.finding.at_least() {
            "at least "
        } else {
            ""
        },
        found.pps
    ));
    Ok(pps)
}

/// Turns keys and tables over while traffic flows; returns what was done, and for how many seconds.
fn work(
    config: &Config,
    testbed: &mut Testbed,
    watched: &mut Watched,
    load: &Traffic,
    say: &impl Fn(&str),
) -> anyhow::Result<(Work, f64)> {
    let mut churn = Churn::new(config.routes);
    let mut work = Work::default();
    let begin = Instant::now();
    let mut rotate = Timer::new(config.rotate_every);
    let mut turn_over = Timer::new(config.churn_every);
    let mut line =
        Timer::new((config.duration / 20).clamp(Duration::from_secs(5), Duration::from_secs(60)));
    while begin.elapsed() < config.duration {
        std::thread::sleep(TICK);
        if turn_over.is_due() {
            churn.step(testbed, &mut work).context("churning tables")?;
        }
        if rotate.is_due() {
            testbed.rotate().context("rotating keys")?;
            work.rotations += 1;
            work.transactions += 3 * testbed.chain().nodes() as u64;
        }
        watched.look_if_due();
        if line.is_due() {
            let (sent, received) = load.progress();
            say(&format!(
                "{:>7.0} s: {sent} sent, {received} received, {} rotations, {} transactions, {}",
                begin.elapsed().as_secs_f64(),
                work.rotations,
                work.transactions,
                watched.line()
            ));
        }
        for node in testbed.nodes() {
            anyhow::ensure!(
                node.is_running(),
                "{} has ended:\n{}",
                node.name(),
                node.log()
            );
        }
    }
    churn.clear(testbed, &mut work).context("clearing tables")?;
    Ok((work, begin.elapsed().as_secs_f64()))
}

/// How each daemon ended: its name, whether well, and its log.
fn ends(testbed: &mut Testbed) -> anyhow::Result<Vec<(String, bool, String)>> {
    let nodes = testbed.nodes().iter_mut();
    nodes
        .map(|node| Ok((node.name().to_owned(), node.stop()?, node.log())))
        .collect()
}

/// Both loads.
struct Traffic {
    offer: Offer,
    forward: Running,
    receiver: Receiver,
    back: Running,
    inlet: Inlet,
}

impl Traffic {
    fn start(
        config: &Config,
        testbed: &Testbed,
        mut generator: Generator,
        pps: f64,
    ) -> anyhow::Result<Self> {
        let offer = Offer {
            size: config.size,
            flows: config.flows,
            pps,
            until: ENDLESS,
        };
        let load = generator.load(&offer)?;
        let (sender, receiver) = generator.into_ends();
        receiver.take();
        let mut marker = [0; 8];
        random(&mut marker)?;
        let to = SocketAddr::new(Host::A.address(true), BACK_PORT);
        let inlet = Inlet::start(testbed.host(Host::A), to, marker)?;
        let (pps, flows, payload_size) = BACK;
        let back =
            Outlet::open(testbed.host(Host::B), &SenderConfig::new(to, flows))?.start(Load {
                marker,
                first_flow: 0,
                flows,
                payload_size,
                pps,
                until: ENDLESS,
            });
        Ok(Self {
            offer,
            forward: sender.start(load)?,
            receiver,
            back,
            inlet,
        })
    }

    /// Packets sent and received so far, both ways.
    fn progress(&self) -> (u64, u64) {
        (
            self.forward.sent() + self.back.sent(),
            self.receiver.received() + self.inlet.received(),
        )
    }

    fn finish(self) -> anyhow::Result<(Account, Summary)> {
        let sent = self.forward.stop()?;
        self.receiver.wait_for(sent.packets, QUIET);
        let forward = Account::new(&self.offer, &sent, &self.receiver.stop()?);
        let sent = self.back.stop()?;
        self.inlet.wait_for(sent.packets, QUIET);
        Ok((forward, self.inlet.stop()?.summary(&sent)))
    }
}

/// What the network counted so far.
struct Counts {
    drops: BTreeMap<String, u64>,
    duplicated: u64,
}

impl Counts {
    fn of(testbed: &mut Testbed) -> anyhow::Result<Self> {
        Ok(Self {
            drops: testbed.drops()?,
            duplicated: testbed.duplicated(),
        })
    }

    fn drops_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let since = self.drops.iter().map(|(place, count)| {
            let before = before.drops.get(place).copied().unwrap_or(0);
            (place.clone(), count - before)
        });
        since.filter(|(_, count)| *count > 0).collect()
    }
}

/// Says when something is due, again and again.
struct Timer {
    every: Duration,
    next: Instant,
}

impl Timer {
    fn new(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now() + every,
        }
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            // What was missed is not made up for.
            self.next = now + self.every;
        }
        due
    }
}
