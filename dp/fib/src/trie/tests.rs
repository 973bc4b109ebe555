use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a trie should hold: prefixes of left-aligned bits.
type Model = BTreeMap<(u32, u128), Leaf>;

fn mask(bits: u128, len: u32) -> u128 {
    match len {
        0 => 0,
        len => bits & u128::MAX << (128 - len),
    }
}

/// The oracle: the longest of all lengths tried.
fn scan(model: &Model, key: u128) -> Leaf {
    let found = (0..=128)
        .rev()
        .find_map(|len| model.get(&(len, mask(key, len))));
    found.copied().unwrap_or(NO_ROUTE)
}

/// A set of tries as some transaction left it.
struct Version<R> {
    tries: Tries,
    roots: Vec<R>,
    models: Vec<Model>,
}

impl<R> Version<R> {
    /// Everything that lookups can tell, one by one and side by side.
    fn check<K: Key<Root = R> + std::fmt::Debug>(&self, make: impl Fn(u128) -> K, more: &[u128]) {
        let mut queries = Vec::new();
        let mut expected = Vec::new();
        for (root, model) in self.roots.iter().zip(&self.models) {
            let ends = model.keys().flat_map(|&(len, bits)| {
                let last = bits | (u128::MAX.checked_shr(len).unwrap_or(0));
                [bits, last, bits.wrapping_sub(1), last.wrapping_add(1)]
            });
            for bits in ends.chain(more.iter().copied()) {
                let bits = mask(bits, K::BITS);
                queries.push((root, make(bits)));
                expected.push(scan(model, bits));
            }
        }
        let mut found = vec![77; queries.len()];
        self.tries.lookup_all(&queries, &mut found);
        assert_eq!(found, expected);
        for ((root, key), expected) in queries.iter().zip(&expected) {
            assert_eq!(self.tries.lookup(*root, *key), *expected, "{key:?}");
        }
    }
}

/// One change: a trie, bits, how far they are shifted, a length, and the leaf or none.
type Change = (usize, u64, u32, u32, Option<u32>);

const TRIES: usize = 3;

/// Bits from few values in few places, so that prefixes hold each other, share strides and lie far apart.
fn changes(bits: u32) -> impl Strategy<Value = Vec<Vec<Change>>> {
    let leaf = prop_oneof![3 => (1..=MAX_LEAF).prop_map(Some), 2 => Just(None)];
    let value = prop_oneof![0u64..16, 0u64..0x1_0000, any::<u64>()];
    let change = (0..TRIES, value, 0..=bits, 0..=bits, leaf);
    vec(vec(change, 0..60), 1..12)
}

fn run<K: Key + std::fmt::Debug>(
    transactions: Vec<Vec<Change>>,
    kept: Vec<bool>,
    make: impl Fn(u128) -> K,
) {
    let mut editor = Editor::default();
    let mut roots = vec![K::Root::default(); TRIES];
    let mut models = vec![Model::new(); TRIES];
    let mut versions: Vec<Version<K::Root>> = Vec::new();
    let mut more = vec![0, u128::MAX, 1 << 127];
    for (transaction, keep) in transactions.into_iter().zip(kept.into_iter().cycle()) {
        for (trie, value, shift, len, leaf) in transaction {
            let bits = (u128::from(value) << 64)
                .checked_shl(64 - 64.min(shift))
                .unwrap_or(0)
                | u128::from(value) << (128 - K::BITS);
            let bits = mask(bits, K::BITS);
            more.push(bits);
            let (root, model) = (&mut roots[trie], &mut models[trie]);
            let place = (len, mask(bits, len));
            assert_eq!(
                editor.get(root, make(bits), len),
                model.get(&place).copied()
            );
            let before = match leaf {
                Some(leaf) => {
                    let before = editor.set(root, make(bits), len, leaf);
                    assert_eq!(before, model.insert(place, leaf));
                    before
                }
                None => {
                    let before = editor.remove(root, make(bits), len);
                    assert_eq!(before, model.remove(&place));
                    before
                }
            };
            assert_eq!(editor.get(root, make(bits), len), leaf, "was {before:?}");
        }
        if !keep {
            // Readers let go of all but some versions, so that memory is used again under those that stay.
            versions.truncate(2);
        }
        versions.push(Version {
            tries: editor.publish(),
            roots: roots.clone(),
            models: models.clone(),
        });
        for version in &versions {
            version.check(&make, &more);
        }
    }
    // What is empty has no memory, once nobody looks at it any more.
    for root in &mut roots {
        editor.clear::<K>(root);
        assert_eq!(*root, K::Root::default());
    }
    drop(versions);
    editor.publish();
    editor.publish();
    editor.reclaim();
    assert_eq!(editor.bytes().1, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn v4_as_a_scan(transactions in changes(32), kept in vec(any::<bool>(), 1..12)) {
        run(transactions, kept, |bits| ((bits >> 96) as u32).to_be_bytes());
    }

    #[test]
    fn v6_as_a_scan(transactions in changes(128), kept in vec(any::<bool>(), 1..12)) {
        run(transactions, kept, u128::to_be_bytes);
    }

    #[test]
    fn numbers_are_found_and_others_are_not(
        numbers in vec(prop_oneof![0u32..200, any::<u32>()], 0..100),
    ) {
        let mut editor = Editor::default();
        let mut root = burst::Root::default();
        for &number in &numbers {
            editor.set(&mut root, Number(number), Number::BITS, number % MAX_LEAF + 1);
        }
        let tries = editor.publish();
        let near = numbers.iter().flat_map(|n| [*n, n.wrapping_add(1), n ^ 1 << 31, n ^ 64]);
        for number in near {
            let expected = if numbers.contains(&number) { number % MAX_LEAF + 1 } else { NO_ROUTE };
            prop_assert_eq!(tries.lookup(&root, Number(number)), expected);
        }
        for number in numbers {
            editor.remove(&mut root, Number(number), Number::BITS);
        }
        prop_assert!(root.is_empty());
    }
}

#[test]
fn an_empty_trie_and_a_default_route() {
    fn check<K: Key>(low: K, high: K) {
        let mut editor = Editor::default();
        let mut root = K::Root::default();
        assert_eq!(Tries::default().lookup(&root, low), NO_ROUTE);
        editor.set(&mut root, low, 0, 7);
        editor.set(&mut root, high, 0, 8);
        assert_eq!(editor.publish().lookup(&root, high), 8);
        assert_eq!(editor.remove(&mut root, low, 0), Some(8));
        assert_eq!(root, K::Root::default());
    }
    check([0; 4], [255; 4]);
    check([0; 16], [255; 16]);
}

/// Tables grow with what is in them, to the largest there are, and shrink again; all forms of lookups find the same.
#[test]
fn a_large_trie_grows_and_shrinks() {
    use crate::hash;

    const COUNT: u64 = if cfg!(miri) { 300 } else { 60_000 };
    let draw = |nth: u64| hash::words(0, &[nth]);
    // Half of them close together, all lengths; what is drawn twice is set twice.
    let prefix = |nth: u64| {
        let bits = draw(nth);
        let key = match bits >> 63 {
            0 => (bits >> 8) as u32,
            _ => 0x0a00_0000 | (bits >> 8) as u32 & 0xf_ffff,
        };
        let len = 1 + (bits & 0xff) as u32 % 32;
        (key & (u32::MAX << (32 - len)), len)
    };
    let mut editor = Editor::default();
    let mut root = burst::Root::default();
    let mut model = BTreeMap::new();
    let check = |tries: &Tries, root: &burst::Root, model: &BTreeMap<(u32, u32), Leaf>| {
        let keys = (0..COUNT).map(|nth| prefix(nth).0 ^ (draw(nth + COUNT) >> 50) as u32);
        let queries: Vec<_> = keys.take(4096).map(|key| (root, key)).collect();
        let expected: Vec<_> = queries
            .iter()
            .map(|(_, key)| {
                let place = |len: u32| (len, key & (u32::MAX << (32 - len)));
                let found = (1..=32).rev().find_map(|len| model.get(&place(len)));
                found.copied().unwrap_or(NO_ROUTE)
            })
            .collect();
        let mut found = vec![77; queries.len()];
        tries.lookup_all(&queries, &mut found);
        assert!(found == expected, "side by side");
        for (queries, found) in queries.chunks(BATCH).zip(found.chunks_mut(BATCH)) {
            burst::batch(tries.burst.words(), queries, found);
        }
        assert!(found == expected, "side by side, by any processor");
        let mut alone = queries.iter().map(|(root, key)| tries.lookup(*root, *key));
        assert!(alone.by_ref().eq(expected), "one by one");
    };
    for nth in 0..COUNT {
        let (key, len) = prefix(nth);
        let leaf = nth as Leaf + 1;
        assert_eq!(
            editor.set(&mut root, key, len, leaf),
            model.insert((len, key), leaf)
        );
        if nth.is_power_of_two() {
            check(&editor.publish(), &root, &model);
        }
    }
    check(&editor.publish(), &root, &model);
    let full = editor.bytes().1;
    assert!(full < model.len() * 48, "{full} bytes");
    for nth in 0..COUNT {
        let (key, len) = prefix(nth);
        assert_eq!(
            editor.remove(&mut root, key, len),
            model.remove(&(len, key))
        );
        if (COUNT - nth).is_power_of_two() {
            check(&editor.publish(), &root, &model);
        }
    }
    assert!(root.is_empty());
}

#[test]
fn memory_is_used_again_and_not_before_its_last_reader_is_gone() {
    let mut editor = Editor::default();
    let mut root = burst::Root::default();
    let fill = |editor: &mut Editor, root: &mut burst::Root, leaf| {
        for n in 0u32..2000 {
            editor.set(root, n.wrapping_mul(0x9e37_79b9), 24, leaf);
        }
    };
    fill(&mut editor, &mut root, 1);
    let first = (editor.publish(), root);
    let once = editor.bytes().1;
    for leaf in 2..10 {
        fill(&mut editor, &mut root, leaf);
        editor.publish();
    }
    assert!((0u32..2000).all(|n| first.0.lookup(&first.1, n.wrapping_mul(0x9e37_79b9)) == 1));
    let held = editor.bytes().1;
    assert!(
        held >= 8 * once,
        "the first reader holds what came after it too: {held}"
    );
    drop(first);
    editor.reclaim();
    assert_eq!(editor.bytes().1, once);
    let allocated = editor.bytes().0;
    for leaf in 10..100 {
        fill(&mut editor, &mut root, leaf);
        editor.publish();
    }
    assert_eq!(
        editor.bytes().0,
        allocated,
        "an update uses what others left"
    );
}

/// Readers on other threads: each sees every snapshot that it takes exactly as it was when it was published.
#[test]
fn readers_see_their_generation_while_others_are_written() {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    const PREFIXES: u32 = 300;
    const GENERATIONS: u32 = if cfg!(miri) { 12 } else { 2000 };
    let key = |n: u32| n.wrapping_mul(0x9e37_79b9);
    let published = Mutex::new((Tries::default(), burst::Root::default(), 0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut found = [0; PREFIXES as usize];
                while !done.load(Relaxed) {
                    let (tries, root, generation) = published.lock().unwrap().clone();
                    let queries: Vec<_> = (0..PREFIXES).map(|n| (&root, key(n))).collect();
                    tries.lookup_all(&queries, &mut found);
                    // A third of the prefixes is there in any generation, each with its leaf.
                    for (n, leaf) in (0..).zip(found) {
                        let there = generation > 0 && n % 3 != generation % 3;
                        assert_eq!(leaf, if there { generation } else { NO_ROUTE });
                    }
                }
            });
        }
        let mut editor = Editor::default();
        let mut root = burst::Root::default();
        for generation in 1..=GENERATIONS {
            for n in 0..PREFIXES {
                if n % 3 == generation % 3 {
                    editor.remove(&mut root, key(n), 26);
                } else {
                    editor.set(&mut root, key(n), 26, generation);
                }
            }
            *published.lock().unwrap() = (editor.publish(), root, generation);
        }
        done.store(true, Relaxed);
    });
}
