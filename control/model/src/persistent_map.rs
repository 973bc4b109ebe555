//! A persistent sorted map: a B+ tree whose nodes versions share.
//!
//! Cloning takes one reference. A change copies the nodes on its way down that another version still needs, and changes
//! the rest in place; so a transaction on a clone costs what it touches, however big the map is, and going back is
//! dropping the clone. [`PersistentMap::diff`] passes over what two versions share.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// Entries of a leaf, and children of an inner node, at most.
const FULL: usize = 32;
/// With fewer than so many a node is merged with a neighbour, if they fit in one.
const SPARSE: usize = FULL / 4;

/// The map.
pub struct PersistentMap<K, V> {
    root: Option<Arc<Node<K, V>>>,
    len: usize,
}

/// All leaves of a tree are equally deep. No node but a tree's only leaf is empty.
#[derive(Clone)]
enum Node<K, V> {
    /// In order of keys.
    Leaf(Vec<(K, V)>),
    Inner(Inner<K, V>),
}

#[derive(Clone)]
struct Inner<K, V> {
    /// Steps down to a leaf.
    height: u8,
    /// No key in the child is less than its own here; but keys less than the first's are looked for in the first.
    children: Vec<(K, Arc<Node<K, V>>)>,
}

/// What became of a node's upper half.
type Split<K, V> = Option<(K, Arc<Node<K, V>>)>;

impl<K: Ord, V> PersistentMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both are one version, unchanged since one was cloned from the other.
    pub fn same(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        Some(self.entry(key)?.1)
    }

    /// The entry of a key, with the table's own key.
    pub fn entry<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Leaf(entries) => {
                    let found = entries.binary_search_by(|(known, _)| known.borrow().cmp(key));
                    let (key, value) = &entries[found.ok()?];
                    return Some((key, value));
                }
                Node::Inner(inner) => node = &inner.children[inner.place(key)].1,
            }
        }
    }

    /// Whether a key has a value.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The entries, in order of keys.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter {
            todo: self.root.iter().map(|root| Step::Node(root)).collect(),
            left: self.len,
        }
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in order of keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries for whose keys `place` says `Equal`; for all smaller keys it must say `Less`, for all greater ones
    /// `Greater`.
    pub fn range<'a>(
        &'a self,
        place: impl Fn(&K) -> Ordering + 'a,
    ) -> impl Iterator<Item = (&'a K, &'a V)> {
        let mut todo = Vec::new();
        let mut node = self.root.as_ref();
        while let Some(at) = node.take() {
            match &**at {
                Node::Leaf(entries) => {
                    let from = entries.partition_point(|(key, _)| place(key) == Ordering::Less);
                    todo.push(Step::Leaf(&entries[from..]));
                }
                Node::Inner(inner) => {
                    let from = inner
                        .children
                        .partition_point(|(key, _)| place(key) == Ordering::Less)
                        .saturating_sub(1);
                    todo.push(Step::Inner(&inner.children[from + 1..]));
                    node = Some(&inner.children[from].1);
                }
            }
        }
        let from = Iter { todo, left: 0 };
        from.take_while(move |(key, _)| place(key) == Ordering::Equal)
    }
}

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    /// Sets an entry and returns the value that it had. It counts as changed also if the value is equal.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(Node::Leaf(vec![(key, value)])));
            self.len = 1;
            return None;
        };
        let (before, split) = Arc::make_mut(root).insert(key, value);
        if let Some(upper) = split {
            let height = root.height() + 1;
            let lower = (root.first_key().clone(), Arc::clone(root));
            let children = vec![lower, upper];
            *root = Arc::new(Node::Inner(Inner { height, children }));
        }
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes an entry and tells whether there was one.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.take(key).is_some()
    }

    /// Removes an entry and returns its value.
    pub fn take<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if !self.contains_key(key) {
            return None;
        }
        let root = self.root.as_mut()?;
        let value = Arc::make_mut(root).remove(key);
        while let Node::Inner(inner) = &**root
            && let [(_, only)] = inner.children.as_slice()
        {
            *root = Arc::clone(only);
        }
        self.len -= 1;
        if self.len == 0 {
            self.root = None;
        }
        value
    }

    /// A value to change in place; it counts as changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        if !self.contains_key(key) {
            return None;
        }
        let mut node = self.root.as_mut()?;
        loop {
            match Arc::make_mut(node) {
                Node::Leaf(entries) => {
                    let found = entries.binary_search_by(|(known, _)| known.borrow().cmp(key));
                    return Some(&mut entries[found.ok()?].1);
                }
                Node::Inner(inner) => {
                    let place = inner.place(key);
                    node = &mut inner.children[place].1;
                }
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PersistentMap<K, V> {
    /// Sets an entry; one that is equal already leaves the table the version that it is.
    pub fn set(&mut self, key: K, value: V) {
        if self.get(&key) != Some(&value) {
            self.insert(key, value);
        }
    }
}

impl<K: Ord, V: PartialEq> PersistentMap<K, V> {
    /// Calls `changed` with every key, in order, that differs between `self` and `new`, and its value in each. It takes
    /// the time of what is not shared: little, if one came from the other by a few changes.
    pub fn diff<'a>(
        &'a self,
        new: &'a Self,
        changed: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        self.diff_by(new, V::eq, changed);
    }
}

impl<K: Ord, V> PersistentMap<K, V> {
    /// As [`PersistentMap::diff`], where values are equal if `equal` says so.
    pub fn diff_by<'a>(
        &'a self,
        new: &'a Self,
        equal: impl Fn(&V, &V) -> bool,
        mut changed: impl FnMut(&'a K, Option<&'a V>, Option<&'a V>),
    ) {
        let (mut old, mut new) = (self.iter(), new.iter());
        loop {
            match (old.todo.last(), new.todo.last()) {
                (Some(Step::Leaf([])), _) => drop(old.todo.pop()),
                (_, Some(Step::Leaf([]))) => drop(new.todo.pop()),
                (Some(Step::Inner(_)), _) => old.descend(),
                (_, Some(Step::Inner(_))) => new.descend(),
                (Some(Step::Node(a)), Some(Step::Node(b))) if Arc::ptr_eq(a, b) => {
                    old.todo.pop();
                    new.todo.pop();
                }
                // The higher one first, so that both come down to what they share.
                (Some(Step::Node(a)), Some(Step::Node(b))) => {
                    let (a, b) = (a.height(), b.height());
                    if a >= b {
                        old.descend();
                    }
                    if b >= a {
                        new.descend();
                    }
                }
                (Some(Step::Node(_)), _) => old.descend(),
                (_, Some(Step::Node(_))) => new.descend(),
                (Some(Step::Leaf([(key, value), ..])), None) => {
                    changed(key, Some(value), None);
                    old.next();
                }
                (None, Some(Step::Leaf([(key, value), ..]))) => {
                    changed(key, None, Some(value));
                    new.next();
                }
                (Some(Step::Leaf([a, ..])), Some(Step::Leaf([b, ..]))) => match a.0.cmp(&b.0) {
                    Ordering::Less => {
                        changed(&a.0, Some(&a.1), None);
                        old.next();
                    }
                    Ordering::Greater => {
                        changed(&b.0, None, Some(&b.1));
                        new.next();
                    }
                    Ordering::Equal => {
                        if !equal(&a.1, &b.1) {
                            changed(&b.0, Some(&a.1), Some(&b.1));
                        }
                        old.next();
                        new.next();
                    }
                },
                (None, None) => return,
            }
        }
    }
}

impl<K, V> Node<K, V> {
    fn height(&self) -> u8 {
        match self {
            Self::Leaf(_) => 0,
            Self::Inner(inner) => inner.height,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    fn first_key(&self) -> &K {
        match self {
            Self::Leaf(entries) => &entries[0].0,
            Self::Inner(inner) => &inner.children[0].0,
        }
    }
}

impl<K: Ord, V> Inner<K, V> {
    /// The child that has `key`, if any has.
    fn place<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        self.children
            .partition_point(|(first, _)| first.borrow() <= key)
            .saturating_sub(1)
    }
}

impl<K: Ord + Clone, V: Clone> Node<K, V> {
    /// Returns what the key had, and the upper half if there are two now.
    fn insert(&mut self, key: K, value: V) -> (Option<V>, Split<K, V>) {
        match self {
            Self::Leaf(entries) => match entries.binary_search_by(|(known, _)| known.cmp(&key)) {
                Ok(place) => (Some(std::mem::replace(&mut entries[place].1, value)), None),
                Err(place) => {
                    let upper = put(entries, place, (key, value));
                    let upper =
                        upper.map(|upper| (upper[0].0.clone(), Arc::new(Self::Leaf(upper))));
                    (None, upper)
                }
            },
            Self::Inner(inner) => {
                let place = inner.place(&key);
                let (before, split) =
                    Arc::make_mut(&mut inner.children[place].1).insert(key, value);
                let height = inner.height;
                let upper = split
                    .and_then(|upper| put(&mut inner.children, place + 1, upper))
                    .map(|children| {
                        let first = children[0].0.clone();
                        (first, Arc::new(Self::Inner(Inner { height, children })))
                    });
                (before, upper)
            }
        }
    }

    /// Removes an entry that is there.
    fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match self {
            Self::Leaf(entries) => {
                let found = entries.binary_search_by(|(known, _)| known.borrow().cmp(key));
                Some(entries.remove(found.ok()?).1)
            }
            Self::Inner(inner) => {
                let place = inner.place(key);
                let child = Arc::make_mut(&mut inner.children[place].1);
                let value = child.remove(key);
                match child.len() {
                    0 => drop(inner.children.remove(place)),
                    len if len < SPARSE => inner.merge(place),
                    _ => {}
                }
                value
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone> Inner<K, V> {
    /// Makes one of the child at `place` and a neighbour, if they fit.
    fn merge(&mut self, place: usize) {
        let lower = place.min(self.children.len().saturating_sub(2));
        let [(_, one), (_, other), ..] = &self.children[lower..] else {
            return;
        };
        if one.len() + other.len() > FULL {
            return;
        }
        let (_, other) = self.children.remove(lower + 1);
        let one = Arc::make_mut(&mut self.children[lower].1);
        match (one, Arc::unwrap_or_clone(other)) {
            (Node::Leaf(one), Node::Leaf(other)) => one.extend(other),
            (Node::Inner(one), Node::Inner(other)) => one.children.extend(other.children),
            _ => unreachable!("children of a node are equally high"),
        }
    }
}

/// Inserts, and returns the upper half if that is too many.
fn put<T>(list: &mut Vec<T>, place: usize, item: T) -> Option<Vec<T>> {
    if list.len() < FULL {
        // In small steps: most nodes stay as they are once a table is loaded.
        list.reserve_exact(if list.len() == list.capacity() { 4 } else { 1 });
        list.insert(place, item);
        return None;
    }
    // In a table that is loaded in order, nothing comes to the lower nodes any more.
    let mut upper = list.split_off(if place == FULL { FULL } else { FULL / 2 });
    if place > list.len() || upper.is_empty() {
        upper.insert(place - list.len(), item);
    } else {
        list.insert(place, item);
    }
    list.shrink_to_fit();
    Some(upper)
}

/// The entries of a [`PersistentMap`] in order of keys.
pub struct Iter<'a, K, V> {
    /// What is still to be seen, the next thing last.
    todo: Vec<Step<'a, K, V>>,
    left: usize,
}

enum Step<'a, K, V> {
    Node(&'a Arc<Node<K, V>>),
    Inner(&'a [(K, Arc<Node<K, V>>)]),
    Leaf(&'a [(K, V)]),
}

impl<'a, K, V> Iter<'a, K, V> {
    /// Takes the next node apart.
    fn descend(&mut self) {
        match self.todo.pop() {
            Some(Step::Node(node)) => self.todo.push(match &**node {
                Node::Leaf(entries) => Step::Leaf(entries),
                Node::Inner(inner) => Step::Inner(&inner.children),
            }),
            Some(Step::Inner([(_, first), rest @ ..])) => {
                self.todo.push(Step::Inner(rest));
                self.todo.push(Step::Node(first));
            }
            Some(Step::Inner([])) | None => {}
            Some(leaf @ Step::Leaf(_)) => self.todo.push(leaf),
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.todo.last_mut()? {
                Step::Leaf(entries) => {
                    if let Some(((key, value), rest)) = entries.split_first() {
                        *entries = rest;
                        self.left = self.left.saturating_sub(1);
                        return Some((key, value));
                    }
                    self.todo.pop();
                }
                Step::Node(_) | Step::Inner(_) => self.descend(),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, None)
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            root: self.root.clone(),
            len: self.len,
        }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for PersistentMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.same(other) || (self.len == other.len && self.iter().eq(other))
    }
}

impl<K: fmt::Debug + Ord, V: fmt::Debug> fmt::Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a PersistentMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<T: IntoIterator<Item = (K, V)>>(entries: T) -> Self {
        let mut table = Self::default();
        for (key, value) in entries {
            table.insert(key, value);
        }
        table
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for PersistentMap<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the table has the key")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    impl<K: Ord, V> PersistentMap<K, V> {
        fn check(&self) {
            let mut last = None;
            let mut seen = 0;
            for (key, _) in self {
                assert!(last < Some(key));
                last = Some(key);
                seen += 1;
            }
            assert_eq!(seen, self.len);
            if let Some(root) = &self.root {
                root.check();
            }
        }
    }

    impl<K: Ord, V> Node<K, V> {
        fn check(&self) {
            assert!((1..=FULL).contains(&self.len()));
            if let Self::Inner(inner) = self {
                for (_, child) in &inner.children {
                    assert_eq!(child.height() + 1, inner.height);
                    child.check();
                }
            }
        }
    }

    fn differences(
        old: &PersistentMap<u32, u8>,
        new: &PersistentMap<u32, u8>,
    ) -> Vec<(u32, Option<u8>, Option<u8>)> {
        let mut found = Vec::new();
        old.diff(new, |key, a, b| found.push((*key, a.copied(), b.copied())));
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// `None` deletes. Keys lie dense, so that there is much to replace, to delete and to merge.
        #[test]
        fn as_a_btree_map(
            steps in vec(vec((0u32..800, any::<Option<u8>>()), 0..300), 1..8),
            ordered: bool,
        ) {
            let mut table = PersistentMap::default();
            let mut model = BTreeMap::new();
            let mut versions = vec![(table.clone(), model.clone())];
            if ordered {
                for key in 0..2000 {
                    table.set(key, 0);
                    model.insert(key, 0);
                }
            }
            for step in steps {
                for (key, value) in step {
                    match value {
                        Some(value) => {
                            table.set(key, value);
                            model.insert(key, value);
                        }
                        None => prop_assert_eq!(table.take(&key), model.remove(&key)),
                    }
                }
                table.check();
                versions.push((table.clone(), model.clone()));
            }
            for (table, model) in &versions {
                prop_assert!(table.iter().eq(model.iter()));
                prop_assert!((0..800).all(|key| table.get(&key) == model.get(&key)));
                let some = table.range(|key| (key / 100).cmp(&3));
                prop_assert!(some.eq(model.range(300..400)));
            }
            let (newest, newest_model) = &versions[versions.len() - 1];
            for (old, old_model) in &versions {
                let keys = old_model.keys().chain(newest_model.keys());
                let mut keys: Vec<u32> = keys.copied().collect();
                keys.sort_unstable();
                keys.dedup();
                let expected: Vec<_> = keys
                    .into_iter()
                    .map(|key| (key, old_model.get(&key).copied(), newest_model.get(&key).copied()))
                    .filter(|(_, old, new)| old != new)
                    .collect();
                prop_assert_eq!(differences(old, newest), expected);
                prop_assert_eq!(old == newest, old_model == newest_model);
            }
        }
    }

    #[test]
    fn equal_values_and_missing_keys_leave_a_table_the_same() {
        let mut table: PersistentMap<_, _> = (0u32..1000).map(|key| (key, 1u8)).collect();
        let before = table.clone();
        table.set(5, 1);
        table.remove(&5000);
        assert!(table.same(&before));
        table.set(5, 2);
        assert!(!table.same(&before));
        assert_eq!((before[&5], table[&5]), (1, 2));
        *table.get_mut(&6).unwrap() = 3;
        assert_eq!(
            differences(&before, &table),
            [(5, Some(1), Some(2)), (6, Some(1), Some(3))]
        );
    }

    #[test]
    fn a_diff_looks_only_at_what_is_not_shared() {
        #[derive(Clone, Debug)]
        struct Counted<'a>(u32, &'a std::cell::Cell<u32>);
        impl PartialEq for Counted<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.1.set(self.1.get() + 1);
                self.0 == other.0
            }
        }
        let compared = std::cell::Cell::new(0);
        let old: PersistentMap<u32, _> = (0..100_000)
            .map(|key| (key, Counted(0, &compared)))
            .collect();
        let mut new = old.clone();
        for key in [0, 50_000, 99_999] {
            new.insert(key, Counted(1, &compared));
        }
        compared.set(0);
        let mut found = Vec::new();
        old.diff(&new, |key, _, _| found.push(*key));
        assert_eq!(found, [0, 50_000, 99_999]);
        assert!(compared.get() <= 3 * FULL as u32, "{compared:?}");
    }
}
