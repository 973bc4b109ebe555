//! Files: what was stored is what is read, whatever happens to them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use twinseal_api::v1::{Blackhole, Neighbour, item::Item, route::Target};

use super::*;
use twinseal_model::diff::differences;
use twinseal_model::owners::By;
use twinseal_model::testing::{apply, edge, route, set, sets};

/// How far the burned secrets are said to go.
const BURNED: BurnMark = BurnMark {
    count: 5,
    head: [7; 32],
};

fn open(dir: &Path) -> (Store, Loaded) {
    if !dir.join(KEY_FILE).exists() {
        init(dir, BurnMark::default()).expect("it is made");
    }
    Store::open(dir).expect("it opens")
}

fn blackhole(n: u32) -> Item {
    let prefix = format!("10.{}.{}.0/24", 100 + n / 256, n % 256);
    route("red", &prefix, Target::Blackhole(Blackhole {}))
}

/// Keys as they are after a restart: known, and their secrets gone.
fn restarted(state: &State) -> State {
    let mut state = state.clone();
    let keys: Vec<_> = state.keys.keys().cloned().collect();
    for id in keys {
        if let Some(mut key) = state.keys.get(&id).cloned() {
            key.installed = false;
            state.keys.set(id, key);
        }
    }
    state
}

fn controller() -> OwnerName {
    OwnerName::default()
}

/// Stores one more route; tells the state after it.
fn commit(store: &mut Store, state: &State, n: u32) -> State {
    let outcome = apply(state, vec![set(blackhole(n))]);
    let differences = differences(state, &outcome.state, &outcome.touched);
    let (stored, _) = store.commit(&outcome.state, BURNED, &controller(), differences);
    assert_eq!(stored.blocking_recv(), Ok(Ok(())));
    outcome.state
}

/// Stores a state and three transactions, in a journal of its own.
fn four_generations(dir: &Path) -> State {
    let (mut store, loaded) = open(dir);
    assert!(loaded.state.is_none() && loaded.damage.is_empty());
    let mut state = edge();
    drop(store.begin(&state, BURNED));
    for n in 0..3 {
        state = commit(&mut store, &state, n);
    }
    state
}

fn the(dir: &Path, kind: &str) -> PathBuf {
    let files = fs::read_dir(dir.join(FOLDER)).expect("a folder");
    let mut paths: Vec<_> = files
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(kind))
        })
        .collect();
    paths.sort();
    paths.pop().expect("there is one")
}

fn flip(path: &Path, place: usize) {
    let mut octets = fs::read(path).expect("it is there");
    octets[place] ^= 1;
    fs::write(path, octets).expect("it can be written");
}

#[test]
fn what_was_stored_is_read_back_without_secrets() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    let (_store, loaded) = open(dir.path());
    assert_eq!(loaded.damage, [""; 0]);
    assert_eq!(loaded.state, Some(restarted(&state)));
    for path in [the(dir.path(), "snapshot"), the(dir.path(), "journal")] {
        let octets = fs::read(path).expect("it is there");
        let secret = twinseal_model::testing::secret(1);
        assert!(!octets.windows(32).any(|window| window == secret));
    }
}

#[test]
fn deletions_are_stored_and_so_is_everything_that_goes_with_an_owner() {
    let dir = TempDir::new().expect("a folder");
    let (mut store, _) = open(dir.path());
    let state = edge();
    drop(store.begin(&state, BURNED));
    let kept = sets([Item::Neighbour(Neighbour {
        port: "under".into(),
        address: "192.0.2.2".into(),
        mac: "02:00:00:00:00:08".into(),
    })]);
    let mut wanted = twinseal_model::parse::changes(kept);
    twinseal_model::sweep::sweep(&state, &mut wanted);
    // Everything goes but the link's port, which the neighbour needs.
    wanted.changes.retain(|change| {
        !matches!(&change.action, twinseal_model::parse::Action::Delete(ItemKey::Port(name)) if name.as_str() == "under")
    });
    let outcome = twinseal_model::transaction::apply(&state, wanted).expect("sound");
    let (stored, _) = store.commit(
        &outcome.state,
        BURNED,
        &controller(),
        differences(&state, &outcome.state, &outcome.touched),
    );
    assert_eq!(stored.blocking_recv(), Ok(Ok(())));
    drop(store);
    assert_eq!(open(dir.path()).1.state, Some(outcome.state));
}

#[test]
fn a_torn_end_costs_only_what_nobody_was_told_of() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    let journal = the(dir.path(), "journal");
    let whole = fs::read(&journal).expect("it is there");
    for more in 1..80 {
        // What was being written when the machine stopped.
        let torn = [&whole[..], &whole[36..36 + more]].concat();
        fs::write(&journal, &torn).expect("it can be written");
        let (_store, loaded) = open(dir.path());
        assert_eq!(loaded.damage, [""; 0], "{more} more");
        assert_eq!(loaded.state, Some(restarted(&state)));
    }
}

/// A prefix of a chain is a chain: that something was stored is known beside it.
#[test]
fn what_was_cut_or_taken_away_is_missed() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    let (mut store, _) = open(dir.path());
    drop(store.begin(&state, BURNED));
    let state = commit(&mut store, &state, 7);
    drop(store);
    let tables = dir.path().join(FOLDER);
    let saved: Vec<_> = files(&tables)
        .expect("a folder")
        .into_iter()
        .map(|(_, path)| (path.clone(), fs::read(path).expect("it is there")))
        .collect();
    let restore = || {
        fs::create_dir_all(&tables).expect("it is made");
        for (path, bytes) in &saved {
            fs::write(path, bytes).expect("it can be written");
        }
    };
    let found = |what: &str, generation: Option<u64>| {
        let (_store, loaded) = open(dir.path());
        let damage = loaded.damage.join("; ");
        assert_eq!(
            loaded.state.map(|state| state.generation),
            generation,
            "{what}"
        );
        assert!(
            damage.contains("generation 5 was stored and is not there any more"),
            "{what}: {damage}"
        );
        // The memory of burned secrets is not asked for less.
        assert_eq!(loaded.burned, BURNED, "{what}");
        restore();
    };
    let (journal, snapshot) = (the(dir.path(), "journal"), the(dir.path(), "snapshot"));
    let whole = fs::read(&journal).expect("it is there");
    for length in [36, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&journal, &whole[..length]).expect("it can be written");
        found(&format!("cut to {length}"), Some(4));
    }
    fs::remove_file(&journal).expect("it is there");
    found("no journal", Some(4));
    fs::remove_file(&journal).expect("it is there");
    fs::remove_file(&snapshot).expect("it is there");
    found("neither", Some(4));
    for path in saved.iter().map(|(path, _)| path) {
        if path.to_string_lossy().contains("snapshot") {
            fs::remove_file(path).expect("it is there");
        }
    }
    found("no snapshot at all", Some(0));
    fs::remove_dir_all(&tables).expect("it is there");
    found("no folder", None);
    for bytes in [&b"twinseal newest"[..], &[0; 96], &[0; 200]] {
        fs::write(dir.path().join(newest::FILE), bytes).expect("it can be written");
        let (_store, loaded) = open(dir.path());
        assert!(
            loaded.damage[0].contains("cannot be told"),
            "{:?}",
            loaded.damage
        );
        assert_eq!(loaded.state, Some(restarted(&state)));
        assert_eq!(loaded.burned, BURNED, "the records have it too");
        assert!(loaded.newest_lost.is_some());
    }
    fs::remove_file(dir.path().join(newest::FILE)).expect("it is there");
    assert_eq!(peek(dir.path()).expect("readable").damage.len(), 1);
}

/// It would keep whoever opens it waiting for somebody to write.
#[test]
fn a_pipe_among_the_files_is_told_and_waited_for_by_nobody() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    let pipe = dir.path().join(FOLDER).join(name(Name::Snapshot(9)));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("coreutils are there").success());
    let (_store, loaded) = open(dir.path());
    let damage = loaded.damage.join("; ");
    assert!(damage.contains("it is no file"), "{damage}");
    assert_eq!(loaded.state, Some(restarted(&state)));
}

#[test]
fn a_newest_snapshot_that_is_gone_costs_nothing_while_the_one_before_is_there() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    let (mut store, _) = open(dir.path());
    drop(store.begin(&state, BURNED));
    let state = commit(&mut store, &state, 7);
    drop(store);
    fs::remove_file(the(dir.path(), "snapshot")).expect("it is there");
    let (_store, loaded) = open(dir.path());
    assert_eq!(loaded.damage, [""; 0]);
    assert_eq!(loaded.state, Some(restarted(&state)));
}

/// The signal that a snapshot is wanted came a second time, and so did a snapshot, if the control thread looked between two
/// steps of the other.
#[test]
fn one_order_makes_one_snapshot() {
    for _ in 0..50 {
        let dir = TempDir::new().expect("a folder");
        four_generations(dir.path());
        let names: Vec<_> = files(&dir.path().join(FOLDER))
            .expect("a folder")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, [Name::Snapshot(1), Name::Journal(1)]);
    }
}

#[test]
fn a_disk_that_failed_for_a_moment_is_written_anew() {
    let dir = TempDir::new().expect("a folder");
    let (mut store, _) = open(dir.path());
    let state = edge();
    drop(store.begin(&state, BURNED));
    let state = commit(&mut store, &state, 0);
    let (tables, away) = (dir.path().join(FOLDER), dir.path().join("away"));
    fs::rename(&tables, &away).expect("it moves");
    fs::write(&tables, "").expect("it is in the way");
    drop(store.begin(&state, BURNED));
    let outcome = apply(&state, vec![set(blackhole(1))]);
    let differences = differences(&state, &outcome.state, &outcome.touched);
    let (stored, _) = store.commit(&outcome.state, BURNED, &controller(), differences);
    assert!(matches!(stored.blocking_recv(), Ok(Err(_))));
    assert!(store.is_failing());
    // How far the burned secrets went is known all the same.
    let more = BurnMark { count: 6, ..BURNED };
    let (stored, _) = store.wait(outcome.state.generation + 1, more, &controller());
    assert!(matches!(stored.blocking_recv(), Ok(Err(_))));
    let key = key(dir.path()).expect("it is there");
    let told = newest::read(dir.path(), &key).expect("it is there");
    assert_eq!((told.generation, told.burned), (2, more));
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    assert!(
        store.is_due(later(0)) && !store.is_due(later(0)),
        "not without a breath"
    );

    // Nobody asks for another transaction.
    fs::remove_file(&tables).expect("it is there");
    fs::rename(&away, &tables).expect("it moves");
    assert!(store.is_due(later(10)));
    drop(store.begin(&outcome.state, BURNED));
    drop(store);
    let (mut store, loaded) = open(dir.path());
    assert_eq!(loaded.damage, [""; 0]);
    assert_eq!(loaded.state, Some(restarted(&outcome.state)));
    assert!(
        !store.is_failing() || store.behind,
        "only as nothing was begun yet"
    );
    store.follow(&outcome.state, BURNED);
    commit(&mut store, &outcome.state, 2);
    assert!(!store.is_failing() && !store.is_due(later(20)));
}

/// What is written to a file without a name is lost with a restart.
#[test]
fn what_is_taken_away_while_the_node_runs_is_missed_and_written_anew() {
    let dir = TempDir::new().expect("a folder");
    let (mut store, _) = open(dir.path());
    let mut state = edge();
    drop(store.begin(&state, BURNED));
    let tables = dir.path().join(FOLDER);
    let file = dir.path().join(newest::FILE);
    type Spoil = fn(&Path, &Path);
    let spoils: [(&str, Spoil); 6] = [
        ("journal-", |tables, _| {
            fs::remove_dir_all(tables).expect("it goes")
        }),
        ("journal-", |tables, _| {
            let journal = the(tables.parent().expect("its folder"), "journal");
            fs::remove_file(journal).expect("it goes");
        }),
        ("journal-", |tables, _| {
            let journal = the(tables.parent().expect("its folder"), "journal");
            fs::write(journal, "cut").expect("it can be written");
        }),
        ("every snapshot", |tables, _| {
            for (name, path) in files(tables).expect("a folder") {
                if matches!(name, Name::Snapshot(_)) {
                    fs::remove_file(path).expect("it goes");
                }
            }
        }),
        ("newest", |_, newest| {
            fs::remove_file(newest).expect("it goes")
        }),
        ("newest", |_, newest| {
            fs::write(newest, "").expect("it can be written")
        }),
    ];
    for (n, (what, spoil)) in (0..).zip(spoils) {
        state = commit(&mut store, &state, n);
        assert_eq!(store.take_lost(), [""; 0]);
        assert_eq!(store.failing(), "");
        spoil(&tables, &file);
        // Nobody need ask for a transaction.
        let lost = loop {
            if let Some(lost) = store.take_lost().pop() {
                break lost;
            }
            if n == 0 {
                // Who does is told.
                let (stored, _) = store.wait(1000, BURNED, &controller());
                assert!(matches!(stored.blocking_recv(), Ok(Err(_))));
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(lost.contains(what), "{lost}");
        if what != "newest" {
            assert_eq!(store.failing(), lost);
            assert!(store.is_due(Instant::now() + Duration::from_secs(10)));
            let (stored, _) = store.begin(&state, BURNED);
            assert_eq!(stored.blocking_recv(), Ok(Ok(())));
        }
        let found = peek(dir.path()).expect("readable");
        assert_eq!((found.damage.len(), found.newest_lost), (0, None), "{lost}");
        assert_eq!(found.state, Some(restarted(&state)), "{lost}");
    }
}

/// What a restart begins anew at the same generation sets the journal of before aside; not for ever.
#[test]
fn journals_that_were_set_aside_go() {
    let dir = TempDir::new().expect("a folder");
    let mut state = four_generations(dir.path());
    for _ in 0..3 {
        let (mut store, loaded) = open(dir.path());
        assert_eq!(loaded.damage, [""; 0]);
        state = loaded.state.expect("stored");
        store.follow(&state, BURNED);
    }
    let entries = fs::read_dir(dir.path().join(FOLDER)).expect("a folder");
    let left: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(open(dir.path()).1.state, Some(state));
}

#[test]
fn a_damaged_snapshot_costs_nothing_while_the_one_before_is_there() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    // The second run begins with a snapshot of its own, and a journal.
    let (mut store, loaded) = open(dir.path());
    let state = State {
        keys: loaded.state.expect("stored").keys,
        ..state
    };
    drop(store.begin(&state, BURNED));
    let state = commit(&mut store, &state, 7);
    drop(store);
    let newest = the(dir.path(), "snapshot");
    let whole = fs::read(&newest).expect("it is there");
    for place in [0, 17, 21, 30, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&newest, &whole).expect("it can be written");
        flip(&newest, place);
        let (_store, loaded) = open(dir.path());
        assert_eq!(loaded.damage.len(), 1, "octet {place}");
        assert!(
            loaded.damage[0].contains("snapshot-"),
            "{:?}",
            loaded.damage
        );
        assert_eq!(loaded.state, Some(restarted(&state)), "octet {place}");
    }
    for length in [0, 10, 36, whole.len() / 2, whole.len() - 1] {
        fs::write(&newest, &whole[..length]).expect("it can be written");
        let (_store, loaded) = open(dir.path());
        assert_eq!(loaded.damage.len(), 1, "cut to {length}");
        assert_eq!(loaded.state, Some(restarted(&state)), "cut to {length}");
    }
}

#[test]
fn what_others_wrote_is_refused_and_says_why() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    let journal = the(dir.path(), "journal");
    let snapshot = the(dir.path(), "snapshot");
    let (journal_octets, snapshot_octets) = (
        fs::read(&journal).expect("it is there"),
        fs::read(&snapshot).expect("it is there"),
    );
    let damage = || {
        let (_store, loaded) = open(dir.path());
        let state = loaded.state.map(|state| state.generation);
        (loaded.damage.join("; "), state)
    };

    // A version of tomorrow.
    let mut tomorrow = snapshot_octets.clone();
    tomorrow[19] = 3;
    fs::write(&snapshot, &tomorrow).expect("it can be written");
    let (why, generation) = damage();
    assert!(
        why.contains("has version 3, and this program reads 2"),
        "{why}"
    );
    assert!(why.contains("begins at generation 1, after 0"), "{why}");
    assert_eq!(
        generation,
        Some(0),
        "without a snapshot the journal has nothing to stand on"
    );
    // Both were set aside, so that they never follow what is written from now on.
    assert!(!snapshot.exists() && !journal.exists());
    let restore = || {
        fs::write(&snapshot, &snapshot_octets).expect("it can be written");
        fs::write(&journal, &journal_octets).expect("it can be written");
    };
    restore();

    // Another node's key.
    let key = dir.path().join(KEY_FILE);
    let own = fs::read(&key).expect("it is there");
    fs::write(&key, [7; 32]).expect("it can be written");
    let (why, _) = damage();
    assert!(why.contains("was written under another key"), "{why}");
    fs::write(&key, own).expect("it can be written");
    restore();

    // A transaction that is left out, and one that comes twice: each record is sound in itself.
    let record = |from: usize| {
        let length: [u8; 4] = journal_octets[from..from + 4]
            .try_into()
            .expect("four octets");
        from + 36 + u32::from_be_bytes(length) as usize
    };
    let (first, second) = (record(36), record(record(36)));
    let without = [&journal_octets[..36], &journal_octets[first..]].concat();
    let twice = [&journal_octets[..second], &journal_octets[first..]].concat();
    for (octets, last) in [(without, 1), (twice, 3)] {
        fs::write(&journal, octets).expect("it can be written");
        let (why, generation) = damage();
        assert!(why.contains("is damaged, or was tampered with"), "{why}");
        assert_eq!(generation, Some(last));
    }
    restore();
    assert_eq!(damage(), (String::new(), Some(state.generation)));
}

/// Labels and epochs that are 0 were taken once.
#[test]
fn what_an_earlier_version_took_is_named_and_what_was_before_it_used() {
    let dir = TempDir::new().expect("a folder");
    let state = four_generations(dir.path());
    let link = state.links.keys().next().cloned().expect("there is one");
    let circuit = state.circuits.keys().next().cloned().expect("one");
    let mut later = state.clone();
    later.generation += 1;
    let (key, value) = (
        (link.clone(), 0),
        twinseal_model::state::LabelAction::Egress(circuit),
    );
    later.labels.set(key.clone(), value);
    let touched = [(ItemKey::Label(key.0, key.1), 0)].into_iter().collect();
    let differences = differences(&state, &later, &touched);
    let (mut store, _) = open(dir.path());
    drop(store.begin(&state, BURNED));
    let (stored, _) = store.commit(&later, BURNED, &controller(), differences);
    assert_eq!(stored.blocking_recv(), Ok(Ok(())));
    drop(store);
    let damage = || {
        let (mut store, loaded) = open(dir.path());
        let told = loaded.damage.join("; ");
        for part in [
            &format!("label 0 on link {link:?}: label: it is 0, or not given"),
            "give a number of 1 or more",
            "apply the whole state anew",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert!(!told.contains("cut short"), "{told}");
        let left = loaded.state.expect("some").generation;
        // As a later start finds it.
        drop(store.begin(&later, BURNED));
        drop(store);
        left
    };
    assert_eq!(damage(), state.generation, "the journal up to there");
    assert_eq!(damage(), state.generation, "the snapshot before, and that");
}

#[test]
fn the_key_must_be_whole_and_private() {
    let dir = TempDir::new().expect("a folder");
    drop(open(dir.path()));
    let key = dir.path().join(KEY_FILE);
    let mode = |mode| fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("ours");
    assert_eq!(
        fs::metadata(&key).expect("it is made").permissions().mode() & 0o777,
        0o600
    );
    mode(0o640);
    assert!(matches!(
        Store::open(dir.path()),
        Err(StoreError::KeyMode { mode: 0o640, .. })
    ));
    mode(0o600);
    fs::write(&key, [7; 31]).expect("it can be written");
    assert!(matches!(
        Store::open(dir.path()),
        Err(StoreError::Key { .. })
    ));
}

#[test]
fn what_waited_is_not_there_but_its_generation_is_used() {
    let dir = TempDir::new().expect("a folder");
    let (mut store, _) = open(dir.path());
    let state = edge();
    drop(store.begin(&state, BURNED));
    for generation in [2, 3] {
        let (stored, _) = store.wait(generation, BURNED, &controller());
        assert_eq!(stored.blocking_recv(), Ok(Ok(())));
    }
    drop(store);
    let found = open(dir.path()).1.state.expect("stored");
    assert_eq!(found.generation, 4, "going back is a change too");
    assert_eq!(open(dir.path()).1.waiting, [3]);
    assert_eq!(found.routes, state.routes);

    // Once it stays it is there, under its own generation.
    let (mut store, _) = open(dir.path());
    drop(store.begin(&found, BURNED));
    drop(store.wait(5, BURNED, &controller()));
    let state = commit(&mut store, &found, 1);
    assert_eq!(state.generation, 5);
    drop(store);
    assert_eq!(open(dir.path()).1.state, Some(restarted(&state)));
}

#[test]
fn whose_items_are_is_stored_and_who_waits_is_told_apart() {
    let dir = TempDir::new().expect("a folder");
    let (mut store, _) = open(dir.path());
    let bgp = OwnerName::new("bgp").expect("a name");
    let by = |owner: &OwnerName| By {
        owner: owner.clone(),
        take_over: false,
    };
    let add = |state: &State, owner: &OwnerName, n: u32| {
        let changes = twinseal_model::parse::changes_by(by(owner), vec![set(blackhole(n))]);
        twinseal_model::transaction::apply(state, changes).expect("sound")
    };
    let state = edge();
    drop(store.begin(&state, BURNED));
    // What waits of one is announced; the other goes on, and what it did is there.
    drop(store.wait(2, BURNED, &controller()));
    let mut outcome = add(&state, &bgp, 1);
    outcome.state.generation = 3;
    let differs = differences(&state, &outcome.state, &outcome.touched);
    drop(store.commit(&outcome.state, BURNED, &bgp, differs));
    drop(store);
    let loaded = open(dir.path()).1;
    let found = loaded.state.expect("stored");
    assert_eq!((loaded.waiting, found.generation), (vec![2], 4));
    assert_eq!(found.owners, outcome.state.owners);
    assert_eq!(found.owners.generation(&controller()), 4);
    assert_eq!(
        found.owners.generation(&bgp),
        outcome.state.owners.generation(&bgp)
    );

    // A snapshot behind what waits: it is announced anew.
    let (mut store, _) = open(dir.path());
    drop(store.begin(&found, BURNED));
    drop(store.wait(2, BURNED, &controller()));
    drop(store);
    let loaded = open(dir.path()).1;
    assert!(loaded.damage.is_empty(), "{:?}", loaded.damage);
    let again = loaded.state.expect("stored");
    assert_eq!((loaded.waiting, again.generation), (vec![2], 5));
    assert_eq!(again.owners, found.owners);
}

#[test]
fn snapshots_are_gone_only_where_somebody_could_look() {
    let of = |files| writer::may_hold_snapshots(&files);
    let named = |name| Ok(vec![(name, std::path::PathBuf::new())]);
    assert!(of(named(Name::Snapshot(1))));
    assert!(!of(named(Name::Journal(1))));
    assert!(!of(Ok(Vec::new())));
    assert!(of(Err(std::io::Error::from_raw_os_error(libc::EMFILE))));
    assert!(!of(Err(std::io::ErrorKind::NotADirectory.into())));
}

#[test]
fn old_files_go_and_the_last_two_snapshots_stay() {
    let dir = TempDir::new().expect("a folder");
    let (mut store, _) = open(dir.path());
    let mut state = edge();
    for n in 0..5 {
        drop(store.begin(&state, BURNED));
        state = commit(&mut store, &state, n);
    }
    drop(store);
    let mut names: Vec<_> = files(&dir.path().join(FOLDER))
        .expect("a folder")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            Name::Snapshot(4),
            Name::Snapshot(5),
            Name::Journal(4),
            Name::Journal(5)
        ]
    );
    assert_eq!(open(dir.path()).1.state, Some(restarted(&state)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However files are damaged, what is read is a state that once was, and damage is told.
    #[test]
    fn no_damage_makes_a_state_that_never_was(
        kind in prop::sample::select(vec!["journal", "snapshot"]),
        place in any::<prop::sample::Index>(),
        octet in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let dir = TempDir::new().expect("a folder");
        let state = four_generations(dir.path());
        let path = the(dir.path(), kind);
        let mut octets = fs::read(&path).expect("it is there");
        let place = place.index(octets.len());
        let before = octets[place];
        if cut { octets.truncate(place) } else { octets[place] = octet }
        fs::write(&path, &octets).expect("it can be written");
        let (_store, loaded) = open(dir.path());
        let found = loaded.state.expect("there is a journal");
        if !cut && octet == before {
            prop_assert!(loaded.damage.is_empty() && found == restarted(&state));
        } else if kind == "snapshot" {
            prop_assert!(!loaded.damage.is_empty() && found == State::default());
        } else {
            prop_assert!((1..=4).contains(&found.generation));
            prop_assert_eq!(loaded.damage.is_empty(), found.generation == 4, "{:?}", loaded.damage);
            prop_assert_eq!(found.routes.values().map(|routes| routes.len() as u64).sum::<u64>(), 3 + found.generation);
        }
    }
}
