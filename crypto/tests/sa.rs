//! Security associations: nonces, counters, replay, and what two ends must agree on.

use std::collections::HashSet;

use proptest::prelude::*;
use twinseal_crypto::{
    AAD_LEN, Context, CryptoError, DEFAULT_PROVIDER, Direction, LaneOwner, Lanes, Layer,
    MAX_COUNTER, OpenSa, Replay, SECRET_LEN, SealSa, Secret, Suite, TAG_LEN, open, provider,
    providers, seal,
};

const LINK: Context = Context {
    layer: Layer::Link,
    direction: Direction::AToB,
    suite: Suite::Aes256Gcm,
    epoch: 7,
};

fn secret(byte: u8) -> Secret {
    Secret::from_bytes(&mut [byte; SECRET_LEN]).unwrap()
}

/// A transmit SA, and the owner of all its lanes.
fn seal_sa(context: Context, lanes: u16, limit: u64) -> Result<(SealSa, LaneOwner), CryptoError> {
    let (lanes, mut owners) = Lanes::split(1, lanes)?;
    let sa = SealSa::new(
        provider(DEFAULT_PROVIDER)?,
        &secret(1),
        context,
        lanes,
        limit,
    )?;
    Ok((sa, owners.remove(0)))
}

fn open_sa(context: Context, window_bits: u32) -> Result<OpenSa, CryptoError> {
    OpenSa::new(
        provider(DEFAULT_PROVIDER)?,
        &secret(1),
        context,
        window_bits,
    )
}

/// Whether `rx` opens what `tx` seals.
fn talks((tx, owner): &(SealSa, LaneOwner), rx: &OpenSa) -> bool {
    let counter = tx.reserve(owner, 1, 1).unwrap();
    let mut data = [9; 40];
    seal(&mut [tx.packet(1, counter, [3; AAD_LEN], &mut data)]);
    assert_ne!(data[..24], [9; 24]);
    let mut batch = [rx.packet(1, counter, [3; AAD_LEN], &mut data)];
    open(&mut batch);
    let ok = batch[0].ok;
    assert!(!ok || data[..24] == [9; 24]);
    ok
}

#[test]
fn both_ends_agree_over_any_providers_and_suites() {
    for suite in Suite::ALL {
        for (one, two) in providers()
            .iter()
            .flat_map(|one| providers().iter().map(move |two| (one, two)))
        {
            let context = Context { suite, ..LINK };
            let (lanes, mut owners) = Lanes::split(1, 2).unwrap();
            let tx = SealSa::new(*one, &secret(1), context, lanes, MAX_COUNTER).unwrap();
            let rx = OpenSa::new(*two, &secret(1), context, 2048).unwrap();
            let tx = (tx, owners.remove(0));
            assert!(talks(&tx, &rx), "{} to {}: {suite}", one.name(), two.name());
            let (tx, _) = tx;
            assert_eq!((tx.suite(), tx.epoch()), (rx.suite(), rx.epoch()));
            assert_eq!((tx.suite(), tx.epoch(), tx.lanes()), (suite, 7, 2));
            assert_eq!(tx.fingerprint(), secret(1).fingerprint());
        }
    }
}

#[test]
fn any_other_context_or_secret_opens_nothing() {
    let others = [
        Context {
            layer: Layer::Circuit,
            ..LINK
        },
        Context {
            direction: LINK.direction.reverse(),
            ..LINK
        },
        Context { epoch: 8, ..LINK },
        Context {
            suite: Suite::ChaCha20Poly1305,
            ..LINK
        },
    ];
    let tx = seal_sa(LINK, 2, MAX_COUNTER).unwrap();
    assert!(talks(&tx, &open_sa(LINK, 2048).unwrap()));
    for other in others {
        assert!(!talks(&tx, &open_sa(other, 2048).unwrap()), "{other:?}");
    }
    let stranger =
        OpenSa::new(provider(DEFAULT_PROVIDER).unwrap(), &secret(2), LINK, 2048).unwrap();
    assert!(!talks(&tx, &stranger));
}

/// What an independent decoder must make of the secret 01 01 .. 01. The values are from Python's
/// `hmac` and `cryptography`, not from this crate.
#[test]
fn known_answer_from_secret_to_ciphertext() {
    for provider in providers() {
        let (lanes, _) = Lanes::split(1, 256).unwrap();
        let tx = SealSa::new(*provider, &secret(1), LINK, lanes, MAX_COUNTER).unwrap();
        assert_eq!(
            hex(&tx.nonce(0xab, 0x01_0203_0405)),
            "707848d965e5946afbced211"
        );
        let mut data = [b"twinseal".as_slice(), &[0; TAG_LEN]].concat();
        let aad = std::array::from_fn(|at| at as u8);
        seal(&mut [tx.packet(0xab, 0x01_0203_0405, aad, &mut data)]);
        assert_eq!(
            hex(&data),
            "484a2eff93023df58c1e197e2551ac99b08098ada61db1fe"
        );
        assert_eq!(
            tx.fingerprint().to_string(),
            "5653b6aff63d7cd1f100059811f13da203692619f00189108ba1fe2b3aefdc7e"
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

proptest! {
    /// The two ends make the same nonce, and different ones for different lanes and counters.
    #[test]
    fn nonces_differ_wherever_lane_or_counter_does(
        places in prop::collection::hash_set((any::<u8>(), prop_oneof![0..600u64, any::<u64>()]), 2..200),
    ) {
        let ((tx, _), rx) = (seal_sa(LINK, 256, MAX_COUNTER).unwrap(), open_sa(LINK, 2048).unwrap());
        let nonces: HashSet<_> = places.iter().map(|&(lane, counter)| tx.nonce(lane, counter)).collect();
        prop_assert_eq!(nonces.len(), places.len());
        for &(lane, counter) in &places {
            prop_assert_eq!(tx.nonce(lane, counter), rx.nonce(lane, counter));
        }
    }

    /// No two SAs of one secret ever use the same key stream: the same text, header, lane and counter seal differently in
    /// every direction, layer, epoch and suite.
    #[test]
    fn no_two_contexts_share_a_key_stream(epochs in prop::collection::hash_set(any::<u32>(), 1..4), counter in 0..MAX_COUNTER) {
        let mut seen = HashSet::new();
        for layer in [Layer::Link, Layer::Circuit] {
            for direction in [Direction::AToB, Direction::BToA] {
                for suite in Suite::ALL {
                    for &epoch in &epochs {
                        let (sa, _) = seal_sa(Context { layer, direction, suite, epoch }, 1, MAX_COUNTER).unwrap();
                        let mut data = [0; 32 + TAG_LEN];
                        seal(&mut [sa.packet(0, counter, [0; AAD_LEN], &mut data)]);
                        prop_assert!(seen.insert(data[..32].to_vec()), "{layer:?} {direction:?} {suite} {epoch}");
                    }
                }
            }
        }
    }

    /// Whatever is asked of whatever lanes, every nonce of an SA is new, and counters stay below the limit.
    #[test]
    fn reserved_nonces_never_repeat(asked in prop::collection::vec((0..6u8, 0..70u32), 1..80), limit in 1..400u64) {
        let (sa, owner) = seal_sa(LINK, 4, limit).unwrap();
        let mut seen = HashSet::new();
        for (lane, n) in asked {
            let Some(first) = sa.reserve(&owner, lane, n) else { continue };
            prop_assert!(lane < 4);
            for counter in first..first + u64::from(n) {
                prop_assert!(counter < limit && seen.insert(sa.nonce(lane, counter)));
            }
        }
        prop_assert!(sa.sealed() >= seen.len() as u64);
    }
}

#[test]
fn a_limit_is_announced_and_then_kept() {
    let (sa, owner) = seal_sa(LINK, 2, 80).unwrap();
    assert_eq!(sa.reserve(&owner, 0, 69), Some(0));
    assert!(!sa.nearly_exhausted() && !sa.exhausted());
    assert_eq!(sa.reserve(&owner, 0, 1), Some(69));
    assert!(sa.nearly_exhausted() && !sa.exhausted());
    assert_eq!(sa.reserve(&owner, 0, 11), None);
    assert!(sa.exhausted());
    assert_eq!(sa.reserve(&owner, 0, 1), None);
    assert_eq!(
        sa.reserve(&owner, 1, 80),
        Some(0),
        "the other lane has its own"
    );
    assert_eq!(sa.sealed(), 160);

    let (tiny, owner) = seal_sa(LINK, 1, 1).unwrap();
    assert!(!tiny.nearly_exhausted());
    assert_eq!(tiny.reserve(&owner, 0, 1), Some(0));
    assert!(tiny.nearly_exhausted() && tiny.exhausted());
}

#[test]
fn windows_of_lanes_are_apart_and_only_commits_move_them() {
    let sa = open_sa(LINK, 2048).unwrap();
    assert_eq!(sa.commit(5, MAX_COUNTER), Replay::TooOld);
    assert_eq!(sa.commit(5, 1_000_000), Replay::Fresh);
    assert_eq!(sa.commit(5, 1_000_000), Replay::Replayed);
    assert_eq!(sa.commit(5, 100), Replay::TooOld);
    assert_eq!(sa.commit(5, MAX_COUNTER), Replay::TooOld);
    for lane in [0, 4, 6, 255] {
        assert_eq!(sa.commit(lane, 100), Replay::Fresh);
        assert_eq!(sa.commit(lane, 100), Replay::Replayed);
    }
}

#[test]
fn fetching_ahead_takes_no_counter_and_marks_nothing() {
    let (tx, owner) = seal_sa(LINK, 2, 10).unwrap();
    let rx = open_sa(LINK, 2048).unwrap();
    for _ in 0..2 {
        // Lanes that there are and are not, and counters that anyone may have made up.
        for lane in 0..=255 {
            tx.prefetch_self();
            tx.prefetch(lane, 64);
            for counter in [0, 1 << 20, MAX_COUNTER, u64::MAX] {
                rx.prefetch_self(lane);
                rx.prefetch(lane, counter, 64);
            }
        }
        rx.prepare(0);
    }
    for lane in [0, 255] {
        assert_eq!(rx.commit(lane, 0), Replay::Fresh);
    }
    assert_eq!((tx.sealed(), tx.reserve(&owner, 0, 1)), (0, Some(0)));
}

#[test]
fn threads_that_race_for_a_new_lane_accept_each_counter_once() {
    let sa = open_sa(LINK, 4096).unwrap();
    let commit_all = || {
        (0..2000)
            .filter(|&counter| sa.commit(9, counter) == Replay::Fresh)
            .count()
    };
    let fresh: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(commit_all)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(fresh, 2000);
}

#[test]
fn bad_parameters_are_refused() {
    for lanes in [0, 257, u16::MAX] {
        assert!(
            matches!(seal_sa(LINK, lanes, 1), Err(CryptoError::Lanes(got)) if got == lanes.into())
        );
    }
    for limit in [0, MAX_COUNTER + 1, u64::MAX] {
        assert!(
            matches!(seal_sa(LINK, 1, limit), Err(CryptoError::CounterLimit(got)) if got == limit)
        );
    }
    for bits in [0, 1024, 2049, 3072, 1 << 21, u32::MAX] {
        assert!(matches!(open_sa(LINK, bits), Err(CryptoError::WindowBits(got)) if got == bits));
    }
    for bits in [2048, 4096, 1 << 20] {
        assert!(open_sa(LINK, bits).is_ok());
    }
}
