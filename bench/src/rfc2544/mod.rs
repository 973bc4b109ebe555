//! The tests of RFC 2544 (26.1 to 26.4), in the words of RFC 1242: throughput, latency, frame loss rate, back-to-back
//! frames.
//!
//! The device under test is a [`testbed`](crate::testbed) of our own nodes, or whatever is between two devices of this
//! machine. The [`generator`](crate::generator) says what sizes and times mean. Where this differs from the RFC: sizes are
//! octets of IP packets, as everywhere in Twinseal, not of frames with their checksum; trials are as long as asked for
//! (the RFC has 60 seconds); the maximum rate of the medium is what the generator can send, as a veth has no other.

mod burst;
mod devices;
mod latency;
mod loss;
mod result;
mod text;
mod throughput;

use std::time::Duration;

use twinseal::cli::demo::plan::Host;
use twinseal_lab::traffic::Until;

use crate::Machine;
use crate::generator::{Account, Generator, Offer, Options};
use crate::testbed::{Setup, Testbed};
pub use devices::Devices;
pub use result::{
    BackToBack, Dut, LatencyAt, LossAt, Results, SizeResult, SocketMode, Throughput, Total,
};

/// Which of the tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Test {
    /// The highest rate at which nothing is lost (26.1). All others but loss need it.
    Throughput,
    /// One-way times at 10, 50 and 90 % of the throughput (26.2).
    Latency,
    /// Loss at the highest rate, and 10 % less each time until nothing is lost twice (26.3).
    Loss,
    /// The longest burst that comes through whole (26.4).
    Burst,
}

/// What is between sender and receiver.
#[derive(Debug, Clone)]
pub enum Subject {
    /// Our own nodes in a lab.
    Lab(Setup),
    /// Whatever two devices of this machine lead to.
    Devices(Devices),
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Config {
    /// The device under test.
    pub subject: Subject,
    /// Test packets over IPv6.
    pub v6: bool,
    /// Octets of the IP packets.
    pub sizes: Vec<usize>,
    /// Flows, told apart by source port.
    pub flows: u32,
    /// How long a trial sends.
    pub trial: Duration,
    /// How often each figure is measured; results are medians.
    pub repeats: usize,
    /// The highest rate to try, packets a second.
    pub rate_max: f64,
    /// How close a search comes, as a part of the rate.
    pub resolution: f64,
    /// The longest burst to try.
    pub burst_max: u64,
    /// Which tests.
    pub tests: Vec<Test>,
    /// How to send and receive.
    pub options: Options,
}

impl Config {
    /// The same, made to end within seconds: to see whether it works. The figures mean little.
    #[must_use]
    pub fn quick(self) -> Self {
        Self {
            trial: Duration::from_millis(50),
            repeats: 1,
            resolution: 0.2,
            burst_max: self.burst_max.min(4096),
            options: Options {
                quiet: Duration::from_millis(100),
                ..self.options
            },
            ..self
        }
    }
}

/// Runs the tests; `say` gets a line of progress now and then.
///
/// # Errors
/// When the network cannot be built, or the generator cannot send.
pub fn run(config: &Config, say: impl Fn(&str)) -> anyhow::Result<Results> {
    let machine = Machine::this();
    let mut bench = Bench::open(config)?;
    say("warming up");
    bench.warm_up()?;
    let mut sizes = Vec::new();
    for &octets in &config.sizes {
        sizes.push(bench.size(octets, &say)?);
    }
    bench.finish(machine, sizes)
}

/// The generator, the device under test if it is ours, and what went through so far.
struct Bench<'a> {
    config: &'a Config,
    // Closed before the network goes.
    generator: Generator,
    testbed: Option<Testbed>,
    total: Total,
}

impl<'a> Bench<'a> {
    fn open(config: &'a Config) -> anyhow::Result<Self> {
        let (testbed, route) = match &config.subject {
            Subject::Lab(setup) => {
                let testbed = Testbed::start(setup)?;
                let route = testbed.route(Host::A, config.v6)?;
                (Some(testbed), route)
            }
            Subject::Devices(devices) => (None, devices.route()?),
        };
        Ok(Self {
            config,
            generator: Generator::open(&route, &config.options)?,
            testbed,
            total: Total::default(),
        })
    }

    /// Caches, neighbours and replay windows before anything counts.
    fn warm_up(&mut self) -> anyhow::Result<()> {
        let Some(&octets) = self.config.sizes.first() else {
            anyhow::bail!("no sizes to measure: give at least one");
        };
        let count = Until::Count(u64::from(self.config.flows) * 10);
        let account = self.offer(Offer {
            until: count,
            ..self.offer_of(octets, 5_000.0)
        })?;
        anyhow::ensure!(
            account.summary.received > 0,
            "nothing comes through: {} packets were sent and none received",
            account.summary.sent
        );
        Ok(())
    }

    fn size(&mut self, octets: usize, say: &impl Fn(&str)) -> anyhow::Result<SizeResult> {
        let tests = &self.config.tests;
        let has = |test| tests.contains(&test);
        let mut result = SizeResult::new(octets);
        if has(Test::Throughput) || has(Test::Latency) {
            say(&format!("{octets} octets: throughput"));
            let throughput = throughput::measure(self, octets)?;
            if has(Test::Latency) {
                say(&format!("{octets} octets: latency"));
                result.latency = latency::measure(self, octets, throughput.pps.median)?;
            }
            result.throughput = Some(throughput);
        }
        if has(Test::Loss) {
            say(&format!("{octets} octets: frame loss rate"));
            result.loss = loss::measure(self, octets)?;
        }
        if has(Test::Burst) {
            say(&format!("{octets} octets: back-to-back bursts"));
            result.back_to_back = Some(burst::measure(self, octets)?);
        }
        Ok(result)
    }

    /// One trial.
    fn trial(&mut self, octets: usize, pps: f64) -> anyhow::Result<Account> {
        self.offer(self.offer_of(octets, pps))
    }

    fn offer(&mut self, offer: Offer) -> anyhow::Result<Account> {
        let account = self.generator.run(&offer)?;
        self.total.add(&account.summary);
        Ok(account)
    }

    fn offer_of(&self, octets: usize, pps: f64) -> Offer {
        Offer {
            octets,
            flows: self.config.flows,
            pps,
            until: Until::Elapsed(self.config.trial),
        }
    }

    fn finish(mut self, machine: Machine, sizes: Vec<SizeResult>) -> anyhow::Result<Results> {
        let mut dut = Dut::default();
        let mut sockets = vec![SocketMode::new(
            "sender",
            None,
            self.generator.sender().mode(),
        )];
        let receiver = self.generator.receiver();
        sockets.push(SocketMode::new(
            "receiver",
            Some(receiver.xdp()),
            receiver.mode(),
        ));
        if let Some(testbed) = &mut self.testbed {
            dut = Dut::of(testbed)?;
            self.total.drops = Some(testbed.drops()?);
        }
        self.generator.close()?;
        Ok(Results {
            machine,
            dut,
            sockets,
            flows: self.config.flows,
            v6: self.config.v6,
            trial_seconds: self.config.trial.as_secs_f64(),
            repeats: self.config.repeats,
            sizes,
            total: self.total,
        })
    }
}
