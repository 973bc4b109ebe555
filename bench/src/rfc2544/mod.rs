//! The tests of RFC 2544 (26.1 to 26.4), in the words of RFC 1242: throughput, latency, frame loss rate, back-to-back
//! frames.
//!
//! The device under test is a [`testbed`](crate::testbed) of our own nodes, or whatever is between two devices of this
//! machine. The [`generator`](crate::generator) says what sizes and times mean. Where this differs from the RFC: sizes are
//! bytes of IP packets, as everywhere in Twinseal, not of frames with their checksum; trials are as long as asked for
//! (the RFC has 60 seconds); the maximum rate of the medium is what the generator can send, as a veth has no other.
//!
//! A trial of which the sender did not send what it should is made again; what that cannot mend is said: "at least" where
//! the generator was the limit, [`Verdict::Inconclusive`] where a search could not be made.

mod burst;
mod devices;
mod latency;
mod loss;
mod result;
mod text;
mod throughput;

use std::time::Duration;

use twinseal_lab::traffic::Until;
use twinseal_testbed::plan::Host;

use crate::generator::{Account, Generator, Offer, Options, min_octets};
use crate::testbed::{Setup, Testbed};
use crate::{Machine, Size};
pub use devices::Devices;
pub(crate) use latency::enough;
pub use result::{
    BackToBack, Dut, LatencyAt, LossAt, Results, SizeResult, SocketMode, Throughput, Total, Verdict,
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
    /// Of the IP packets.
    pub sizes: Vec<Size>,
    /// Both ways at once; rates are of both together. In a lab only.
    pub both_ways: bool,
    /// Parts of packets whose loss is tolerated, for further throughputs beside that without loss.
    pub tolerated: Vec<f64>,
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
            // Shorter, and a time slice of another program would make most of them void.
            trial: Duration::from_millis(100),
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
    for &size in &config.sizes {
        sizes.push(bench.size(size, &say)?);
    }
    bench.finish(machine, sizes)
}

/// The generator, the device under test if it is ours, and what went through so far.
struct Bench<'a> {
    config: &'a Config,
    // Closed before the network goes.
    there: Generator,
    back: Option<Generator>,
    testbed: Option<Testbed>,
    total: Total,
}

impl<'a> Bench<'a> {
    fn open(config: &'a Config) -> anyhow::Result<Self> {
        let (testbed, route) = match &config.subject {
            Subject::Lab(setup) => {
                let testbed = Testbed::start(&Setup {
                    both_ways: config.both_ways,
                    ..setup.clone()
                })?;
                let route = testbed.route(Host::A, config.v6)?;
                (Some(testbed), route)
            }
            Subject::Devices(_) if config.both_ways => anyhow::bail!(
                "both ways at once needs a lab: leave out --tx and --rx, or measure one way after the other"
            ),
            Subject::Devices(devices) => (None, devices.route()?),
        };
        let mut options = config.options.clone();
        if config.both_ways {
            options.send_queue = options.queues;
        }
        let there = Generator::open(&route, &options)?;
        let back = match &testbed {
            Some(testbed) if config.both_ways => {
                // Sender and receiver of one host share a processor if they are given any.
                std::mem::swap(&mut options.tx_cpu, &mut options.rx_cpu);
                Some(Generator::open(
                    &testbed.route(Host::B, config.v6)?,
                    &options,
                )?)
            }
            _ => None,
        };
        Ok(Self {
            config,
            there,
            back,
            testbed,
            total: Total::default(),
        })
    }

    /// Caches, neighbours and replay windows before anything counts.
    fn warm_up(&mut self) -> anyhow::Result<()> {
        let Some(&size) = self.config.sizes.first() else {
            anyhow::bail!("no sizes to measure: give at least one");
        };
        let count = Until::Count(u64::from(self.config.flows) * 10);
        let account = self.offer(Offer {
            until: count,
            ..self.offer_of(size, 5_000.0)
        })?;
        anyhow::ensure!(
            account.summary.received > 0,
            "nothing comes through: {} packets were sent and none received",
            account.summary.sent
        );
        Ok(())
    }

    fn size(&mut self, size: Size, say: &impl Fn(&str)) -> anyhow::Result<SizeResult> {
        let tests = &self.config.tests;
        let has = |test| tests.contains(&test);
        let mut result = SizeResult::new(size, self.mean(size));
        if has(Test::Throughput) || has(Test::Latency) {
            say(&format!("{size}: throughput"));
            let start = throughput::START_PPS;
            result.throughput = Some(throughput::measure(self, size, 0.0, start)?);
        }
        if has(Test::Loss) {
            say(&format!("{size}: frame loss rate"));
            self.loss(size, &mut result, say)?;
        }
        let found = result.throughput.as_ref().map_or(0.0, |it| it.pps.median);
        if has(Test::Throughput) {
            for &tolerated in &self.config.tolerated {
                say(&format!(
                    "{size}: throughput with {} % of loss",
                    tolerated * 100.0
                ));
                let start = found.max(throughput::START_PPS);
                let mut tolerant = throughput::measure(self, size, tolerated, start)?;
                if let Some(without) = &result.throughput {
                    tolerant.is_no_less_than(without);
                }
                result.tolerant.push(tolerant);
            }
        }
        if has(Test::Latency) {
            say(&format!("{size}: latency"));
            result.latency = latency::measure(self, size, found)?;
        }
        if has(Test::Burst) {
            say(&format!("{size}: back-to-back bursts"));
            result.back_to_back = Some(burst::measure(self, size)?);
        }
        Ok(result)
    }

    /// The steps, and the throughput again if they passed above it: then something disturbed the searches.
    fn loss(
        &mut self,
        size: Size,
        result: &mut SizeResult,
        say: &impl Fn(&str),
    ) -> anyhow::Result<()> {
        result.loss = loss::measure(self, size, result.throughput.as_ref())?;
        let above = |bench: &Self, result: &SizeResult| {
            loss::contradiction(
                &result.loss,
                result.throughput.as_ref()?,
                bench.config.resolution,
            )
        };
        if let Some(passed) = above(self, result) {
            say(&format!(
                "{size}: {passed:.0} a second passed there: throughput again"
            ));
            let again = throughput::measure(self, size, 0.0, passed)?;
            result.throughput = Some(again);
            let still = above(self, result);
            if let Some(throughput) = &mut result.throughput {
                throughput.contradicted_by_pps = still;
            }
        }
        Ok(())
    }

    /// One trial.
    fn trial(&mut self, size: Size, pps: f64) -> anyhow::Result<Account> {
        self.offer(self.offer_of(size, pps))
    }

    /// Of both ways together, half of it each, if there are two.
    fn offer(&mut self, offer: Offer) -> anyhow::Result<Account> {
        let account = match &mut self.back {
            None => self.there.run(&offer)?,
            Some(back) => {
                let half = offer.half();
                let there = &mut self.there;
                let (there, back) = std::thread::scope(|scope| {
                    let back = scope.spawn(|| back.run(&half));
                    let there = there.run(&half);
                    let back = back.join();
                    (
                        there,
                        back.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    )
                });
                Account::both(&there?, &back?)
            }
        };
        self.total.add(&account);
        Ok(account)
    }

    fn offer_of(&self, size: Size, pps: f64) -> Offer {
        Offer {
            size,
            flows: self.config.flows,
            pps,
            until: Until::Elapsed(self.config.trial),
        }
    }

    /// Bytes of an IP packet on average.
    fn mean(&self, size: Size) -> f64 {
        size.mean(min_octets(self.config.v6))
    }

    /// One or two.
    fn ways(&self) -> u64 {
        1 + u64::from(self.back.is_some())
    }

    fn finish(mut self, machine: Machine, sizes: Vec<SizeResult>) -> anyhow::Result<Results> {
        let mut dut = Dut::default();
        let mut sockets = vec![SocketMode::new("sender", None, self.there.sender().mode())];
        let receiver = self.there.receiver();
        sockets.push(SocketMode::new(
            "receiver",
            Some(receiver.xdp()),
            receiver.mode(),
        ));
        self.total.add_late(&self.there.close()?);
        if let Some(back) = self.back {
            self.total.add_late(&back.close()?);
        }
        if let Some(testbed) = &mut self.testbed {
            dut = Dut::of(testbed)?;
            self.total.drops = Some(testbed.drops()?);
        }
        let (verdict, reasons) = result::judge(&sizes, &self.total);
        Ok(Results {
            machine,
            verdict,
            reasons,
            dut,
            sockets,
            flows: self.config.flows,
            v6: self.config.v6,
            both_ways: self.config.both_ways,
            trial_seconds: self.config.trial.as_secs_f64(),
            repeats: self.config.repeats,
            sizes,
            total: self.total,
        })
    }
}
