//! The AEAD calls of a role and nothing else: the same keys, octets, memory and batches as in the pipeline.

use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use twinseal_crypto::{
    self as crypto, AAD_LEN, CryptoError, Lanes, Layer, Layered, OpenSa, Provider, SealSa, Suite,
    TAG_LEN,
};
use twinseal_forward::fixture::{CIRCUIT_ID, Seal};
use twinseal_forward::{BATCH, Batch};
use twinseal_wire::overlay::{CircuitHeader, LinkHeader};
use twinseal_wire::{ethernet, ip, udp};
use twinseal_xsk::Frame;

use crate::{BenchError, Harness, Role};

/// Both seals that a role makes or opens for every packet, by as many calls as the pipeline: one for an ingress, which is
/// two calls a packet of a library, and else two.
pub struct AeadOnly {
    role: Role,
    calls: Calls,
    clock: Duration,
}

/// What a batch goes through.
enum Calls {
    /// Its packets are opened, and opened or sealed again.
    Two(Box<[Call; 2]>),
    /// Both seals at once.
    Both(Box<Both>),
}

struct Both {
    circuit: SealSa,
    link: SealSa,
}

/// One call a packet.
struct Call {
    key: Key,
    layer: Layer,
    /// Brings the frame to header, text and tag; false if it cannot.
    shape: fn(&mut Frame) -> bool,
}

enum Key {
    Seal(SealSa),
    Open(Box<OpenSa>),
}

impl AeadOnly {
    /// Copies of the fixture's keys for this role, which is no path: that has more calls, of each of its parts.
    ///
    /// # Errors
    /// No key.
    pub fn new(provider: &dyn Provider, suite: Suite, role: Role) -> Result<Self, BenchError> {
        let (lanes, _) = Lanes::split(1, 4)?;
        let seal = |seal: Seal| seal.seal_sa(provider, suite, lanes);
        let open = |seal: Seal| {
            let sa = seal.open_sa(provider, suite)?;
            Ok::<_, CryptoError>(Key::Open(Box::new(sa)))
        };
        let call = |key, layer, shape| Call { key, layer, shape };
        let two = |first, second| Calls::Two(Box::new([first, second]));
        let calls = match role {
            Role::Ingress => Calls::Both(Box::new(Both {
                circuit: seal(Seal::Circuit)?,
                link: seal(Seal::FirstLink)?,
            })),
            Role::Transit => two(
                call(open(Seal::FirstLink)?, Layer::Link, from_link),
                call(Key::Seal(seal(Seal::SecondLink)?), Layer::Link, |_| true),
            ),
            Role::Egress => two(
                call(open(Seal::SecondLink)?, Layer::Link, from_link),
                call(open(Seal::Circuit)?, Layer::Circuit, out_of_link),
            ),
            Role::Path => return Err(BenchError::AeadOnly { role }),
        };
        Ok(Self {
            role,
            calls,
            clock: clock(),
        })
    }

    /// The time that both calls take for one round of the rig's packets; the rig must have this role, and one circuit.
    ///
    /// # Errors
    /// [`BenchError::AeadOnly`].
    pub fn round(&self, rig: &mut Harness<'_>) -> Result<Duration, BenchError> {
        rig.round_instead(|batch| {
            // Batch by batch, as the pipeline does: the second call finds the octets where the first left them.
            match &self.calls {
                Calls::Two(calls) => calls.iter().map(|call| self.time(call, batch)).sum(),
                Calls::Both(seals) => self.time_both(seals, batch),
            }
        })
        .into_iter()
        .sum::<Option<Duration>>()
        .ok_or(BenchError::AeadOnly { role: self.role })
    }

    fn time(&self, call: &Call, batch: &mut Batch) -> Option<Duration> {
        let mut packets = batch
            .iter_mut()
            .map(|packet| call.packet(&mut packet.frame))
            .collect::<Option<ArrayVec<_, BATCH>>>()?;
        let start = Instant::now();
        match &call.key {
            Key::Seal(_) => crypto::seal(&mut packets),
            Key::Open(_) => crypto::open(&mut packets),
        }
        let time = start.elapsed().saturating_sub(self.clock);
        packets.iter().all(|packet| packet.ok).then_some(time)
    }

    fn time_both(&self, seals: &Both, batch: &mut Batch) -> Option<Duration> {
        let mut packets = batch
            .iter_mut()
            .map(|packet| double(&seals.circuit, &seals.link, &mut packet.frame))
            .collect::<Option<ArrayVec<_, BATCH>>>()?;
        let start = Instant::now();
        crypto::seal_layers(&mut packets);
        let time = start.elapsed().saturating_sub(self.clock);
        packets.iter().all(|packet| packet.link.ok).then_some(time)
    }
}

/// A frame of a host that takes both seals. The headers are whatever the frame holds: here a nonce may repeat, as nothing
/// is sent.
fn double<'a>(circuit: &'a SealSa, link: &'a SealSa, frame: &'a mut Frame) -> Option<Layered<'a>> {
    if !frame.trim_front(ethernet::LEN) || !frame.prepend(2 * AAD_LEN) || !frame.append(2 * TAG_LEN)
    {
        return None;
    }
    let (outer, data) = frame.data_mut().split_first_chunk_mut::<AAD_LEN>()?;
    let inner = data.first_chunk::<AAD_LEN>()?;
    let outer: LinkHeader = zerocopy::transmute!(*outer);
    let inner: CircuitHeader = zerocopy::transmute!(*inner);
    let circuit = circuit.seal(inner.lane, inner.counter.get(), inner.aad(CIRCUIT_ID));
    let link = link.packet(outer.lane, outer.counter.get(), outer.aad(), data);
    Some(Layered {
        circuit: Some(circuit),
        link,
    })
}

impl Call {
    fn packet<'a>(&'a self, frame: &'a mut Frame) -> Option<crypto::Packet<'a>> {
        if !(self.shape)(frame) {
            return None;
        }
        let (header, data) = frame.data_mut().split_first_chunk_mut::<AAD_LEN>()?;
        let (lane, counter, aad) = match self.layer {
            Layer::Link => {
                let header: LinkHeader = zerocopy::transmute!(*header);
                (header.lane, header.counter.get(), header.aad())
            }
            Layer::Circuit => {
                let header: CircuitHeader = zerocopy::transmute!(*header);
                (header.lane, header.counter.get(), header.aad(CIRCUIT_ID))
            }
        };
        // When sealing, the header is whatever the frame holds: here a nonce may repeat, as nothing is sent.
        Some(match &self.key {
            Key::Seal(sa) => sa.packet(lane, counter, aad, data),
            Key::Open(sa) => sa.packet(lane, counter, aad, data),
        })
    }
}

fn from_link(frame: &mut Frame) -> bool {
    frame.trim_front(ethernet::LEN + ip::V4_LEN + udp::LEN)
}

fn out_of_link(frame: &mut Frame) -> bool {
    let opened = frame.len().saturating_sub(TAG_LEN);
    frame.truncate(opened);
    frame.trim_front(AAD_LEN)
}

/// What it costs to read the clock: it is part of every time that is measured here, and there are two a batch.
fn clock() -> Duration {
    (0..1000)
        .map(|_| Instant::now().elapsed())
        .min()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Size;
    use crate::net::{Extent, Net};
    use twinseal_crypto::{default_provider, providers};

    fn net(provider: &dyn Provider, suite: Suite) -> Net {
        Net::new(provider, suite, &Extent::default()).unwrap()
    }

    fn rig(net: &mut Net, role: Role) -> Harness<'_> {
        let worker = &mut net.workers[0];
        Harness::new(&net.tables, worker, &net.routes, role, Size::Imix, 1).unwrap()
    }

    #[test]
    fn the_calls_alone_verify() {
        for provider in providers() {
            for suite in Suite::ALL {
                let mut net = net(*provider, suite);
                for &role in Role::Path.parts() {
                    let mut rig = rig(&mut net, role);
                    let alone = AeadOnly::new(*provider, suite, role).unwrap();
                    alone.round(&mut rig).unwrap();
                    // The pipeline goes on where it was.
                    rig.round(|work| work()).unwrap();
                    alone.round(&mut rig).unwrap();
                }
            }
        }
    }

    #[test]
    fn calls_with_wrong_keys_are_an_error() {
        let provider = default_provider();
        let mut net = net(provider, Suite::Aes256Gcm);
        let mut rig = rig(&mut net, Role::Egress);
        let transit = AeadOnly::new(provider, Suite::Aes256Gcm, Role::Transit).unwrap();
        assert!(matches!(
            transit.round(&mut rig),
            Err(BenchError::AeadOnly { .. })
        ));
        assert!(AeadOnly::new(provider, Suite::Aes256Gcm, Role::Path).is_err());
    }
}
