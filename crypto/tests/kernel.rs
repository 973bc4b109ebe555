//! The kernel against a library: every length, mixed batches, spoilt tags, and bytes that are not its
//! own.

mod kernels;

use kernels::{Keys, NAME, pairs};
use proptest::prelude::*;
use twinseal_crypto::{AAD_LEN, Nonce, Packet, Suite, TAG_LEN, open, provider, providers, seal};

const CANARY: u8 = 0xc5;

/// A packet to be: by which suite and key, after how many bytes that are not its own, and how long.
#[derive(Clone, Debug)]
struct Case {
    suite: Suite,
    key: u8,
    gap: usize,
    len: usize,
}

/// Packets close together, at all alignments.
struct Arena {
    cases: Vec<Case>,
    bytes: Vec<u8>,
}

impl Arena {
    fn new(cases: Vec<Case>) -> Self {
        let mut bytes = Vec::new();
        for (at, case) in cases.iter().enumerate() {
            bytes.resize(bytes.len() + case.gap, CANARY);
            bytes.extend((0..case.len).map(|byte| text(at, byte)));
            bytes.resize(bytes.len() + TAG_LEN, CANARY);
        }
        bytes.resize(bytes.len() + 80, CANARY);
        Self { cases, bytes }
    }

    fn packets<'a>(&'a mut self, keys: &'a Keys) -> Vec<Packet<'a>> {
        let mut bytes = &mut self.bytes[..];
        let mut packets = Vec::new();
        for (at, case) in self.cases.iter().enumerate() {
            let (_, rest) = bytes.split_at_mut(case.gap);
            let (data, rest) = rest.split_at_mut(case.len + TAG_LEN);
            bytes = rest;
            let (nonce, aad) = numbers(at);
            packets.push(Packet::new(
                keys.get(case.suite, case.key),
                nonce,
                aad,
                data,
            ));
        }
        packets
    }

    /// As the library seals it, one by one.
    fn sealed(&self, keys: &Keys) -> Vec<u8> {
        let mut arena = Self {
            cases: self.cases.clone(),
            bytes: self.bytes.clone(),
        };
        for packet in &mut arena.packets(keys) {
            assert!(packet.key.seal_one(&packet.nonce, &packet.aad, packet.data));
        }
        arena.bytes
    }
}

fn text(packet: usize, byte: usize) -> u8 {
    (byte as u8).wrapping_mul(31) ^ (byte >> 8) as u8 ^ (packet as u8).wrapping_mul(7)
}

fn numbers(packet: usize) -> (Nonce, [u8; AAD_LEN]) {
    let n = packet as u8;
    let nonce = std::array::from_fn(|at| n.wrapping_mul(3) ^ (at as u8).wrapping_mul(29));
    let aad = std::array::from_fn(|at| n ^ (at as u8).wrapping_mul(0x5b));
    (nonce, aad)
}

/// Seals with the kernel and compares all bytes, also those between packets; opens and compares
/// again.
fn check(ours: &Keys, theirs: &Keys, cases: Vec<Case>) {
    let mut arena = Arena::new(cases);
    let plain = arena.bytes.clone();
    let sealed = arena.sealed(theirs);

    let mut batch = arena.packets(ours);
    seal(&mut batch);
    assert!(batch.iter().all(|packet| packet.ok));
    assert!(arena.bytes == sealed, "sealed: {:?}", arena.cases);

    let mut batch = arena.packets(ours);
    open(&mut batch);
    assert!(batch.iter().all(|packet| packet.ok), "{:?}", arena.cases);
    let mut wanted = plain;
    let mut at = 0;
    for case in &arena.cases {
        at += case.gap + case.len;
        wanted[at..at + TAG_LEN].copy_from_slice(&sealed[at..at + TAG_LEN]);
        at += TAG_LEN;
    }
    assert!(arena.bytes == wanted, "opened: {:?}", arena.cases);
}

#[test]
fn every_length_alone_and_beside_others() {
    for (ours, theirs) in pairs() {
        let (ours, theirs) = (Keys::new(ours), Keys::new(theirs));
        for suite in Suite::ALL {
            let case = |len: usize| Case {
                suite,
                key: (len % 8) as u8,
                gap: len % 5,
                len,
            };
            let lens: Vec<_> = (0..=9000).collect();
            for lens in lens.chunks(50) {
                check(&ours, &theirs, lens.iter().map(|&len| case(len)).collect());
            }
            for len in 0..=600 {
                check(&ours, &theirs, vec![case(len)]);
                check(&ours, &theirs, vec![case(len); 9]);
            }
            for len in [65_535, 65_536, (1 << 20) + 77] {
                check(&ours, &theirs, vec![case(len)]);
            }
        }
    }
}

#[test]
fn aad_of_every_length() {
    for (ours, theirs) in pairs() {
        for suite in Suite::ALL {
            let key = vec![0x3c; suite.key_len()];
            let (ours, theirs) = (
                ours.key(suite, &key).unwrap(),
                theirs.key(suite, &key).unwrap(),
            );
            let aad: Vec<u8> = (0..100).map(|at| at ^ 0x99).collect();
            for len in 0..=aad.len() {
                for text in [0, 1, 48, 240, 496, 1000] {
                    let aad = &aad[..len];
                    let mut one = vec![0x77; text + TAG_LEN];
                    let mut two = one.clone();
                    assert!(ours.seal_one(&[5; 12], aad, &mut one));
                    assert!(theirs.seal_one(&[5; 12], aad, &mut two));
                    assert_eq!(one, two, "{suite}: AAD of {len}, text of {text}");
                    assert!(ours.open_one(&[5; 12], aad, &mut one));
                    assert!(one[..text].iter().all(|&byte| byte == 0x77));
                }
            }
        }
    }
}

#[test]
fn a_spoilt_tag_spoils_its_packet_only() {
    for (ours, theirs) in pairs() {
        let (ours, theirs) = (Keys::new(ours), Keys::new(theirs));
        let lens = [0, 1, 48, 64, 112, 240, 241, 500, 1400];
        let suites = [Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
        for (suite, len) in suites
            .into_iter()
            .flat_map(|suite| lens.map(|len| (suite, len)))
        {
            let cases: Vec<_> = (0..11)
                .map(|at| Case {
                    suite,
                    key: at % 8,
                    gap: 3,
                    len,
                })
                .collect();
            let mut arena = Arena::new(cases);
            let sealed = arena.sealed(&theirs);
            for spoilt in 0..11 {
                for byte in 0..TAG_LEN {
                    arena.bytes.copy_from_slice(&sealed);
                    let mut batch = arena.packets(&ours);
                    batch[spoilt].data[len + byte] ^= 1 << (byte % 8);
                    batch[spoilt].ok = true;
                    open(&mut batch);
                    for (at, packet) in batch.iter().enumerate() {
                        assert_eq!(packet.ok, at != spoilt, "{len}: {at} of {spoilt}");
                        let right = if at == spoilt {
                            packet.data[..len].iter().all(|&byte| byte == 0)
                        } else {
                            (0..len).all(|byte| packet.data[byte] == text(at, byte))
                        };
                        assert!(right, "{len}: {at} of {spoilt}");
                    }
                }
            }
        }
    }
}

/// Two packets, one at the start of a mapping and one at the end, and no memory around it: a byte
/// read or written outside of them ends the test.
#[test]
fn nothing_outside_of_the_data_is_touched() {
    const PAGE: usize = 4096;
    for (ours, theirs) in pairs() {
        let (ours, theirs) = (Keys::new(ours), Keys::new(theirs));
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
            let gap = 4 * PAGE - 2 * (len + TAG_LEN);
            let case = |gap| Case {
                suite,
                key: 1,
                gap,
                len,
            };
            let arena = Arena::new(vec![case(0), case(gap)]);
            let sealed = arena.sealed(&theirs);
            bytes.copy_from_slice(&arena.bytes[..4 * PAGE]);
            for (step, sealing) in [(seal as fn(&mut [Packet<'_>]), true), (open, false)] {
                let (first, rest) = bytes.split_at_mut(len + TAG_LEN);
                let last = &mut rest[gap..];
                let mut batch = [(0, first), (1, last)].map(|(at, data)| {
                    let (nonce, aad) = numbers(at);
                    Packet::new(ours.get(case(0).suite, case(0).key), nonce, aad, data)
                });
                step(&mut batch);
                assert!(batch.iter().all(|packet| packet.ok));
                assert!(!sealing || *bytes == sealed[..4 * PAGE], "{len}");
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
    let case = (prop::sample::select(&Suite::ALL), 0..8u8, 0..70usize, len).prop_map(
        |(suite, key, gap, len)| Case {
            suite,
            key,
            gap,
            len,
        },
    );
    prop::collection::vec(case, 0..=140)
}

proptest! {
    #[test]
    fn mixed_batches_agree_with_the_library(cases in cases()) {
        for (ours, theirs) in pairs() {
            check(&Keys::new(ours), &Keys::new(theirs), cases.clone());
        }
    }

    /// Keys of the kernel and of a library in one batch.
    #[test]
    fn mixed_providers_do_not_mind_each_other(cases in cases(), every in 1..9usize) {
        for (ours, theirs) in pairs() {
            let (ours, theirs) = (Keys::new(ours), Keys::new(theirs));
            let mut arena = Arena::new(cases.clone());
            let plain = arena.bytes.clone();
            let sealed = arena.sealed(&theirs);
            let all = arena.cases.clone();

            let mut batch = arena.packets(&ours);
            for (packet, case) in batch.iter_mut().zip(&all).step_by(every) {
                packet.key = theirs.get(case.suite, case.key);
            }
            seal(&mut batch);
            prop_assert!(batch.iter().all(|packet| packet.ok));
            prop_assert!(arena.bytes == sealed);

            let mut batch = arena.packets(&ours);
            for (packet, case) in batch.iter_mut().zip(&all).step_by(every) {
                packet.key = theirs.get(case.suite, case.key);
            }
            open(&mut batch);
            prop_assert!(batch.iter().all(|packet| packet.ok));
            let mut at = 0;
            for case in &all {
                at += case.gap;
                prop_assert!(arena.bytes[at..at + case.len] == plain[at..at + case.len]);
                at += case.len + TAG_LEN;
            }
        }
    }
}

#[test]
fn where_the_kernel_cannot_run_the_error_says_what_is_missing() {
    match provider(NAME) {
        Ok(kernel) => assert!(providers().iter().any(|p| p.name() == kernel.name())),
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains(providers()[0].name()), "{error}");
            assert!(error.contains("needs"), "{error}");
        }
    }
}
