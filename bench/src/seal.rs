//! What sealing and opening cost without a pipeline: every provider in turn, once and twice over the same octets, and both
//! seals by two calls and by one.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use twinseal_crypto::{
    AAD_LEN, CryptoError, HEADER_LEN, Key, Layered, NONCE_LEN, Nonce, Packet, Provider, Seal,
    Suite, TAG_LEN, open, providers, seal, seal_layers,
};
use twinseal_fib::hash;

use crate::report::MIN_RUNS;
use crate::{Machine, Sample};

/// Octets of the inner packets that are measured.
pub const TEXTS: [usize; 6] = [64, 128, 256, 512, 1400, 8900];
/// Packets a run for each batch: enough that reading the clock is nothing beside them.
const REPEATS: usize = 8;
/// What is measured: whether packets are opened, by how many seals, in how many calls.
const WORKS: [Work; 5] = [
    Work {
        opens: false,
        seals: 1,
        calls: 1,
    },
    Work {
        opens: false,
        seals: 2,
        calls: 2,
    },
    Work {
        opens: false,
        seals: 2,
        calls: 1,
    },
    Work {
        opens: true,
        seals: 1,
        calls: 1,
    },
    Work {
        opens: true,
        seals: 2,
        calls: 2,
    },
];

/// All of the results.
#[derive(Debug, Serialize)]
pub struct SealReport {
    /// What they are of.
    pub machine: Machine,
    /// Packets a call.
    pub batch: usize,
    /// Keys of either layer that they are drawn from at random; as many as packets: each has its own.
    pub keys: usize,
    /// Ticks of the time stamp counter a nanosecond, by which times become cycles.
    pub cycles_per_ns: f64,
    /// A line a suite, size, operation, number of seals and number of calls.
    pub lines: Vec<SealLine>,
}

/// One operation with packets of one size, by all providers.
#[derive(Debug, Serialize)]
pub struct SealLine {
    /// The algorithm of all keys.
    pub suite: String,
    /// Octets of the inner packet.
    pub octets: usize,
    /// `seal` or `open`.
    pub operation: &'static str,
    /// 1: the circuit seal. 2: the link seal over it too.
    pub seals: usize,
    /// How many calls they take. With both in one, a library makes one after the other all the same.
    pub calls: usize,
    /// What AES alone needs of a core that does one round of four blocks a cycle; none for ChaCha20.
    pub limit_cycles: Option<f64>,
    /// How many runs there were.
    pub runs: usize,
    /// A result a provider, in the order of [`providers`].
    pub providers: Vec<ProviderLine>,
}

/// What a provider took.
#[derive(Debug, Serialize)]
pub struct ProviderLine {
    /// Its name.
    pub provider: &'static str,
    /// Nanoseconds a packet.
    pub ns_per_packet: Sample,
    /// Cycles of the time stamp counter a packet, by the median.
    pub cycles_per_packet: f64,
    /// The first provider's median divided by this one's, of the same runs.
    pub times_as_fast: f64,
}

#[derive(Clone, Copy)]
struct Work {
    opens: bool,
    seals: usize,
    calls: usize,
}

/// The packets of one provider.
struct Bench {
    provider: &'static dyn Provider,
    /// The circuits' and the links'.
    keys: [Vec<Key>; 2],
    /// Which of them each packet takes.
    picks: Vec<[usize; 2]>,
    /// How many were drawn.
    drawn: u64,
    buffers: Vec<Vec<u8>>,
    times: Vec<f64>,
}

impl SealReport {
    /// Measures these suites with packets of these sizes, in about `budget` together. Of more `keys` than packets of a
    /// batch, each takes some at random, which have not been used for a while; but when it is opened, it was sealed
    /// just before.
    ///
    /// # Errors
    /// No key.
    pub fn measure(
        suites: &[Suite],
        texts: &[usize],
        batch: usize,
        keys: usize,
        budget: Duration,
    ) -> Result<Self, CryptoError> {
        let share = budget / (suites.len() * texts.len() * WORKS.len()).max(1) as u32;
        let machine = Machine::this();
        let cycles_per_ns = crate::cpu::cycles_per_ns();
        let mut lines = Vec::new();
        for &suite in suites {
            for &octets in texts {
                for work in WORKS {
                    let mut benches = providers()
                        .iter()
                        .map(|provider| Bench::new(*provider, suite, octets, batch, keys))
                        .collect::<Result<Vec<_>, _>>()?;
                    let begin = Instant::now();
                    let mut runs = 0;
                    // Turn by turn: what else the machine does disturbs all alike.
                    while runs < MIN_RUNS || begin.elapsed() < share {
                        for bench in &mut benches {
                            bench.run(work);
                        }
                        runs += 1;
                    }
                    lines.push(SealLine {
                        suite: suite.name().into(),
                        octets,
                        operation: if work.opens { "open" } else { "seal" },
                        seals: work.seals,
                        calls: work.calls,
                        limit_cycles: limit(suite, octets, work.seals),
                        runs,
                        providers: results(benches, cycles_per_ns),
                    });
                }
            }
        }
        Ok(Self {
            machine,
            batch,
            keys,
            cycles_per_ns,
            lines,
        })
    }
}

impl Bench {
    fn new(
        provider: &'static dyn Provider,
        suite: Suite,
        octets: usize,
        batch: usize,
        keys: usize,
    ) -> Result<Self, CryptoError> {
        let key = |layer: u8, nth: usize| {
            let mut octets = vec![layer; suite.key_len()];
            octets[..8].copy_from_slice(&(nth as u64).to_be_bytes());
            provider.key(suite, &octets)
        };
        let mut all = [Vec::new(), Vec::new()];
        // In turn, so that they lie in memory as those of a node's circuits and links.
        for nth in 0..keys {
            for (layer, keys) in (1..).zip(&mut all) {
                keys.push(key(layer, nth)?);
            }
        }
        Ok(Self {
            provider,
            picks: (0..batch).map(|nth| [nth % keys; 2]).collect(),
            keys: all,
            drawn: 0,
            buffers: vec![vec![0x5a; HEADER_LEN + octets + 2 * TAG_LEN]; batch],
            times: Vec::new(),
        })
    }

    /// Seals all packets a few times, or opens them, which each time takes sealing them first; only what is measured is
    /// timed.
    fn run(&mut self, work: Work) {
        let mut time = Duration::ZERO;
        for _ in 0..REPEATS {
            if self.keys[0].len() > self.picks.len() {
                self.draw();
            }
            if work.calls < work.seals {
                let mut packets = self.layered();
                time += timed(|| seal_layers(&mut packets));
                assert!(
                    packets.iter().all(|packet| packet.link.ok),
                    "a packet is not sealed"
                );
                continue;
            }
            for layer in 0..work.seals {
                let mut packets = self.packets(layer);
                let took = timed(|| seal(&mut packets));
                assert!(
                    packets.iter().all(|packet| packet.ok),
                    "a packet is not sealed"
                );
                if !work.opens {
                    time += took;
                }
            }
            if work.opens {
                for layer in (0..work.seals).rev() {
                    let mut packets = self.packets(layer);
                    time += timed(|| open(&mut packets));
                    assert!(
                        packets.iter().all(|packet| packet.ok),
                        "a packet does not open"
                    );
                }
            }
        }
        let packets = (REPEATS * self.buffers.len()) as f64;
        self.times.push(time.as_nanos() as f64 / packets);
    }

    /// Has each packet take other keys.
    fn draw(&mut self) {
        for pick in self.picks.as_flattened_mut() {
            self.drawn += 1;
            *pick = hash::reduce(hash::words(0, &[self.drawn]), self.keys[0].len());
        }
    }

    /// The part of each buffer that a layer covers: 0 is the circuit's, 1 the link's around it.
    fn packets(&mut self, layer: usize) -> Vec<Packet<'_>> {
        let all = self.picks.iter().zip(&mut self.buffers);
        all.map(|(pick, buffer)| {
            let key = &self.keys[layer][pick[layer]];
            let end = buffer.len();
            let data = match layer {
                0 => &mut buffer[HEADER_LEN..end - TAG_LEN],
                _ => &mut buffer[..],
            };
            // A nonce may repeat here, as nothing is sent.
            Packet::new(key, NONCE, AAD, data)
        })
        .collect()
    }

    fn layered(&mut self) -> Vec<Layered<'_>> {
        let [circuits, links] = &self.keys;
        let all = self.picks.iter().zip(&mut self.buffers);
        all.map(|(&[circuit, link], buffer)| Layered {
            circuit: Some(Seal {
                key: &circuits[circuit],
                nonce: NONCE,
                aad: AAD,
            }),
            link: Packet::new(&links[link], NONCE, AAD, buffer),
        })
        .collect()
    }
}

const NONCE: Nonce = [7; NONCE_LEN];
const AAD: [u8; AAD_LEN] = [9; AAD_LEN];

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A round of AES on four blocks a cycle, for the text and the block that masks the tag.
fn limit(suite: Suite, octets: usize, seals: usize) -> Option<f64> {
    let rounds = match suite {
        Suite::Aes256Gcm => 14.0,
        Suite::Aes128Gcm => 10.0,
        Suite::ChaCha20Poly1305 => return None,
    };
    let blocks = |octets: usize| (octets.div_ceil(16) + 1) as f64;
    let circuit = blocks(octets);
    let link = if seals == 2 {
        blocks(HEADER_LEN + octets + TAG_LEN)
    } else {
        0.0
    };
    Some((circuit + link) * rounds / 4.0)
}

fn results(benches: Vec<Bench>, cycles_per_ns: f64) -> Vec<ProviderLine> {
    let mut first = None;
    benches
        .into_iter()
        .map(|bench| {
            let ns_per_packet = Sample::new(bench.times);
            ProviderLine {
                provider: bench.provider.name(),
                ns_per_packet,
                cycles_per_packet: ns_per_packet.median * cycles_per_ns,
                times_as_fast: *first.get_or_insert(ns_per_packet.median) / ns_per_packet.median,
            }
        })
        .collect()
}

impl fmt::Display for SealReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "ns a packet: median of the runs (min..max); {} packets a call, of {} keys",
            self.batch, self.keys
        )?;
        for line in &self.lines {
            write!(
                f,
                "\n{} {} octets, {} x {}",
                line.suite, line.octets, line.seals, line.operation
            )?;
            if line.calls < line.seals {
                write!(f, " at once")?;
            }
            if let Some(limit) = line.limit_cycles {
                write!(f, ", limit {limit:.0} cycles")?;
            }
            for of in &line.providers {
                write!(
                    f,
                    "\n  {:10} {:>24} {:>8.0} cycles {:>6.2} x",
                    of.provider, of.ns_per_packet, of.cycles_per_packet, of.times_as_fast
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_has_a_line_for_everything() {
        let report = SealReport::measure(&Suite::ALL, &[64, 1400], 3, 7, Duration::ZERO).unwrap();
        assert_eq!(report.lines.len(), Suite::ALL.len() * 2 * WORKS.len());
        for line in &report.lines {
            let names: Vec<_> = line.providers.iter().map(|of| of.provider).collect();
            let all: Vec<_> = providers().iter().map(|provider| provider.name()).collect();
            assert_eq!((names, line.runs), (all, MIN_RUNS));
            assert!(line.providers.iter().all(|of| of.ns_per_packet.min > 0.0));
            assert_eq!(line.providers[0].times_as_fast, 1.0);
        }
        let text = report.to_string();
        assert_eq!(
            text.matches("2 x seal at once").count(),
            Suite::ALL.len() * 2,
            "{text}"
        );
    }

    #[test]
    fn limits_are_rounds_of_four_blocks() {
        // Four blocks of text and one for the tag; then six and one.
        assert_eq!(limit(Suite::Aes256Gcm, 64, 1), Some(5.0 * 14.0 / 4.0));
        assert_eq!(
            limit(Suite::Aes128Gcm, 64, 2),
            Some((5.0 + 7.0) * 10.0 / 4.0)
        );
        assert_eq!(limit(Suite::ChaCha20Poly1305, 64, 1), None);
    }
}
