//! Both seals at once against one after the other: every length, mixed batches, some packets with one seal only,
//! and bytes that are not its own.

mod kernels;

use kernels::{Keys, pairs};
use proptest::prelude::*;
use twinseal_crypto::{
    AAD_LEN, HEADER_LEN, Layered, Nonce, Packet, Seal, Suite, TAG_LEN, providers, seal_layers,
};

const CANARY: u8 = 0xc5;
/// What of a packet is not text.
const AROUND: usize = HEADER_LEN + 2 * TAG_LEN;

/// A packet to be: by which suites and keys, after how many bytes that are not its own, and how long.
#[derive(Clone, Debug)]
struct Case {
    /// None: the link's seal only.
    circuit: Option<(Suite, u8)>,
    link: (Suite, u8),
    gap: usize,
    len: usize,
}

/// How packet number `packet` is sealed with a key.
fn with(keys: &Keys, (suite, key): (Suite, u8), packet: usize) -> Seal<'_> {
    let (n, layer) = (packet as u8, key.wrapping_mul(0x35));
    let byte = |at: usize| n.wrapping_mul(3) ^ (at as u8).wrapping_mul(29) ^ layer;
    Seal {
        key: keys.get(suite, key),
        nonce: std::array::from_fn(byte) as Nonce,
        aad: std::array::from_fn(|at| byte(at + 5)) as [u8; AAD_LEN],
    }
}

fn outer<'a>(
    keys: &'a Keys,
    with_key: (Suite, u8),
    packet: usize,
    data: &'a mut [u8],
) -> Packet<'a> {
    let Seal { key, nonce, aad } = with(keys, with_key, packet);
    Packet::new(key, nonce, aad, data)
}

/// Packets close together, at all alignments.
fn arena(cases: &[Case]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        bytes.resize(bytes.len() + case.gap, CANARY);
        bytes.extend((0..HEADER_LEN + case.len).map(|byte| {
            (byte as u8).wrapping_mul(31) ^ (byte >> 8) as u8 ^ (at as u8).wrapping_mul(7)
        }));
        bytes.resize(bytes.len() + 2 * TAG_LEN, CANARY);
    }
    bytes.resize(bytes.len() + 80, CANARY);
    bytes
}

fn packets<'a>(cases: &[Case], mut bytes: &'a mut [u8], keys: &[&'a Keys]) -> Vec<Layered<'a>> {
    let mut packets = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let (_, rest) = bytes.split_at_mut(case.gap);
        let (data, rest) = rest.split_at_mut(case.len + AROUND);
        bytes = rest;
        let mut link = outer(
            keys[(at + at / keys.len()) % keys.len()],
            case.link,
            at,
            data,
        );
        link.ok = at % 2 == 0;
        packets.push(Layered {
            circuit: case.circuit.map(|key| with(keys[at % keys.len()], key, at)),
            link,
        });
    }
    packets
}

/// Seals with keys of these, packet by packet, and compares all bytes, also those between packets,
/// with what two single seals of a library make.
fn check(ours: &[&Keys], theirs: &Keys, cases: &[Case]) {
    let mut bytes = arena(cases);
    let mut wanted = bytes.clone();
    for packet in packets(cases, &mut wanted, &[theirs]) {
        let Layered { circuit, link } = packet;
        if let Some(circuit) = circuit {
            let end = link.data.len() - TAG_LEN;
            let text = &mut link.data[HEADER_LEN..end];
            assert!(circuit.key.seal_one(&circuit.nonce, &circuit.aad, text));
        }
        assert!(link.key.seal_one(&link.nonce, &link.aad, link.data));
    }
    let mut batch = packets(cases, &mut bytes, ours);
    seal_layers(&mut batch);
    assert!(batch.iter().all(|packet| packet.link.ok), "{cases:?}");
    assert!(bytes == wanted, "{cases:?}");
}

#[test]
fn every_length_alone_and_beside_others() {
    for (ours, theirs) in pairs() {
        let (ours, theirs) = (Keys::new(ours), Keys::new(theirs));
        for suite in Suite::ALL {
            let case = |len: usize| Case {
                circuit: Some((suite, (len % 8) as u8)),
                link: (suite, (len % 5) as u8),
                gap: len % 5,
                len,
            };
            let lens: Vec<_> = (0..=9000).collect();
            for lens in lens.chunks(50) {
                let cases: Vec<_> = lens.iter().map(|&len| case(len)).collect();
                check(&[&ours], &theirs, &cases);
            }
            for len in 0..=600 {
                check(&[&ours], &theirs, &[case(len)]);
                check(&[&ours], &theirs, &vec![case(len); 9]);
            }
            for len in [65_535, 65_536, (1 << 20) + 77] {
                check(&[&ours], &theirs, &[case(len)]);
            }
        }
    }
}

/// A packet at the start of a mapping and one at the end, and no memory around it: a byte read or
/// written outside of them ends the test.
#[test]
fn nothing_outside_of_the_data_is_touched() {
    const PAGE: usize = 4096;
    for (ours, _) in pairs() {
        let ours = Keys::new(ours);
        let (protection, flags) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice, freed by the process's end.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), 6 * PAGE, protection, flags, -1, 0) };
        assert_ne!(map, libc::MAP_FAILED);
        let inner = map.wrapping_byte_add(PAGE);
        // SAFETY: the range is within the mapping, which nobody else knows.
        let made = unsafe { libc::mprotect(inner, 4 * PAGE, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(made, 0);
        // SAFETY: the range was just made readable and writable, and there is no other reference.
        let bytes = unsafe { std::slice::from_raw_parts_mut(inner.cast::<u8>(), 4 * PAGE) };
        let suites = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        let lens = || (0..1100).chain(5000..5100);
        for (suite, len) in suites
            .into_iter()
            .flat_map(|suite| lens().map(move |len| (suite, len)))
        {
            let (first, rest) = bytes.split_at_mut(len + AROUND);
            let start = rest.len() - len - AROUND;
            let mut batch = [first, &mut rest[start..]].map(|data| Layered {
                circuit: Some(with(&ours, (suite, 1), 1)),
                link: outer(&ours, (suite, 2), 1, data),
            });
            seal_layers(&mut batch);
            assert!(batch.iter().all(|packet| packet.link.ok), "{len}");
        }
    }
}

#[test]
fn what_has_no_room_for_both_tags_is_refused() {
    for provider in providers() {
        let keys = Keys::new(*provider);
        for suite in Suite::ALL {
            for len in 0..AROUND {
                let mut data = vec![0; len];
                let mut link = outer(&keys, (suite, 1), 0, &mut data);
                link.ok = true;
                let mut batch = [Layered {
                    circuit: Some(with(&keys, (suite, 0), 0)),
                    link,
                }];
                seal_layers(&mut batch);
                assert!(!batch[0].link.ok, "{} {suite}: {len}", provider.name());
            }
        }
    }
}

fn cases() -> impl Strategy<Value = Vec<Case>> {
    let len = prop_oneof![
        4 => 0..130usize,
        2 => 130..600usize,
        1 => 600..9000usize,
    ];
    let key = || (prop::sample::select(&Suite::ALL), 0..8u8);
    let both = prop::bool::weighted(0.7);
    let case = (key(), key(), 0..70usize, len, any::<bool>(), both).prop_map(
        |(circuit, other, gap, len, mixed, both)| {
            // Mostly of one suite, as networks are.
            let link = if mixed { other } else { (circuit.0, other.1) };
            Case {
                circuit: both.then_some(circuit),
                link,
                gap,
                len,
            }
        },
    );
    prop::collection::vec(case, 0..=140)
}

proptest! {
    #[test]
    fn mixed_batches_agree_with_the_library(cases in cases()) {
        for (ours, theirs) in pairs() {
            check(&[&Keys::new(ours)], &Keys::new(theirs), &cases);
        }
    }

    /// Keys of the kernel in all forms and of a library in one batch, and in one packet.
    #[test]
    fn mixed_providers_do_not_mind_each_other(cases in cases()) {
        let keys: Vec<_> = pairs().into_iter().map(|(ours, _)| Keys::new(ours)).collect();
        if let Some((_, theirs)) = pairs().first() {
            let theirs = Keys::new(*theirs);
            let mut all: Vec<_> = keys.iter().chain([&theirs]).collect();
            // The first more often, as pairs and so on are its own.
            all.push(&keys[0]);
            check(&all, &theirs, &cases);
        }
    }
}
