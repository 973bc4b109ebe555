//! What becomes of secrets when files of the state directory are lost, cut, or put back older: each set of them.

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use twinseal_crypto::Fingerprint;

use super::*;
use crate::store::{FOLDER, KEY_FILE, newest};
use twinseal_model::state::OwnerName;
use twinseal_model::testing::edge;

/// What may become of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Kept,
    Lost,
    Cut,
    Older,
}
use Fate::{Cut, Kept, Lost, Older};

const FATES: [Fate; 4] = [Kept, Lost, Cut, Older];

fn fingerprint(digit: &str) -> Fingerprint {
    digit.repeat(64).parse().expect("hex digits")
}

fn sealed() -> Fingerprint {
    fingerprint("2")
}

fn opened() -> Fingerprint {
    fingerprint("3")
}

fn wanted(path: &Path, keep_tables: bool) -> Wanted {
    Wanted {
        path: path.to_owned(),
        keep_tables,
        usage: UsageConfig::default(),
    }
}

/// Burns these, and stores tables of this generation if tables are stored.
fn go_on(path: &Path, keep_tables: bool, generation: u64, burn: &[(Fingerprint, BurnUse)]) {
    let mut dir = open_free(path, keep_tables).expect("it opens");
    assert_eq!(dir.burned.refuses(), None);
    dir.burned.burn_all(burn).expect("there is room");
    if let Some(store) = &mut dir.store {
        let mut state = edge();
        // Whatever a `Transmit` names must be burned: here what is burned says it all.
        state.transmits = Default::default();
        state.generation = generation;
        let mark = dir.burned.mark();
        drop(store.begin(&state, mark));
        state.generation += 1;
        let (stored, _) = store.commit(&state, mark, &OwnerName::default(), Vec::new());
        assert_eq!(stored.blocking_recv(), Ok(Ok(())));
    }
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    let _ = fs::remove_dir_all(to);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
}

/// Cuts a file, or every file of a folder.
fn cut(path: &Path, name: &str) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            let path = entry.expect("an entry").path();
            // Their headers are sound: what follows is missing.
            if path.to_string_lossy().contains("journal") {
                cut(&path, "journal");
            }
        }
        return;
    }
    let text = fs::read(path).expect("it is there");
    let length = match name {
        // The last two lines, and so no line is damaged.
        BURNED_FILE => text.len() - 82 - 89,
        "journal" => 36,
        _ => text.len() / 2,
    };
    fs::write(path, &text[..length]).expect("it can be written");
}

fn spoil(dir: &Path, older: &Path, name: &str, fate: Fate) {
    let path = dir.join(name);
    if !path.exists() {
        return;
    }
    match fate {
        Kept => {}
        Lost if path.is_dir() => fs::remove_dir_all(&path).expect("it goes"),
        Lost => fs::remove_file(&path).expect("it goes"),
        Cut => cut(&path, name),
        Older => copy(&older.join(name), &path),
    }
}

/// Opens it. A process that another test starts holds the lock, too, until it is a program of its own.
fn open_free(path: &Path, keep_tables: bool) -> Result<StateDir, StateDirError> {
    loop {
        match StateDir::open(&wanted(path, keep_tables)) {
            Err(StateDirError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// No secret is taken that may have been used, whatever became of which files; but for what docs/operations.md says is not
/// found out. This is its table.
#[test]
fn whatever_is_lost_cut_or_old_no_secret_is_taken_twice() {
    let dir = TempDir::new().expect("a folder");
    for keep_tables in [true, false] {
        let [older, newer, now] = ["older", "newer", "now"].map(|name| dir.path().join(name));
        let _ = fs::remove_dir_all(&newer);
        init(&newer, false).expect("a new one");
        go_on(
            &newer,
            keep_tables,
            1,
            &[(fingerprint("1"), BurnUse::Sealed)],
        );
        copy(&newer, &older);
        let both = [(sealed(), BurnUse::Sealed), (opened(), BurnUse::Opened)];
        go_on(&newer, keep_tables, 3, &both);
        let all = |it: &dyn Fn([Fate; 4])| {
            for burned in FATES {
                for newest in FATES {
                    for tables in FATES {
                        for key in FATES {
                            it([burned, newest, tables, key]);
                        }
                    }
                }
            }
        };
        all(&|fates @ [burned, newest, tables, key]| {
            let what =
                format!("burned, newest, tables, mac.key: {fates:?}, keep_tables {keep_tables}");
            copy(&newer, &now);
            let names = [BURNED_FILE, newest::FILE, FOLDER, KEY_FILE];
            for (name, fate) in names.into_iter().zip(fates) {
                spoil(&now, &older, name, fate);
            }
            let no_tables = !keep_tables || tables != Kept;
            let open = || {
                let mut dir = open_free(&now, keep_tables).map_err(|it| it.to_string())?;
                if let Some(why) = dir.burned.refuses() {
                    // It is no cure that it was stored once more.
                    let mark = dir.burned.mark();
                    if let Some(store) = &mut dir.store {
                        let state = dir.tables.take().unwrap_or_default();
                        drop(store.begin(&state, mark));
                    }
                    return Err(why);
                }
                let knows = dir.burned.is_burned(&sealed()) && dir.burned.has_opened(&opened());
                Ok((knows, dir.damage.join("; ")))
            };
            let is_key = matches!(key, Kept | Older);
            let is_newest = matches!(newest, Kept | Older);
            match open() {
                Ok((true, damage)) => {
                    assert!(is_key && is_newest && burned == Kept, "{what}");
                    if keep_tables && newest == Kept {
                        assert_eq!(damage.is_empty(), tables == Kept, "{what}: {damage}");
                    }
                }
                // What is not found out: an older `newest`, with as old a `burned` and no tables that know more.
                Ok((false, _)) => assert!(
                    is_key && matches!(burned, Cut | Older) && newest == Older && no_tables,
                    "{what}"
                ),
                Err(why) => {
                    let reason = !is_key || !is_newest || burned != Kept;
                    assert!(reason, "{what}: {why}");
                    assert_eq!(open().map(|_| ()), Err(why), "{what}");
                    init(&now, true).unwrap_or_else(|error| panic!("{what}: {error}"));
                    let cured = open().unwrap_or_else(|error| panic!("{what}: {error}"));
                    // All that could be read is still known.
                    assert!(cured.0 || burned != Kept, "{what}");
                }
            }
        });
        // These have no say in it.
        for name in ["lock", "drained", "usage"] {
            for fate in FATES {
                copy(&newer, &now);
                spoil(&now, &older, name, fate);
                let opened = open_free(&now, keep_tables).expect("it opens");
                assert_eq!(opened.burned.refuses(), None, "{name} {fate:?}");
            }
        }
    }
}

/// Another advice than for a lost key: what hangs on it is sound if nobody has read it.
#[test]
fn a_key_that_others_can_read_is_mended_by_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("n");
    init(&path, false).expect("a new one");
    let mode = |mode| {
        fs::set_permissions(path.join(KEY_FILE), fs::Permissions::from_mode(mode)).expect("ours");
    };
    mode(0o644);
    let opened = StateDir::open(&wanted(&path, true)).map(drop);
    let error = opened.expect_err("others may have read it");
    assert!(error.to_string().contains("its mode is 644"), "{error}");
    assert!(error.fix().contains("chmod 600"), "{}", error.fix());
    mode(0o600);
    open_free(&path, true).expect("it is mended");
}

/// Who removed `lock` must not start a second node on the files of the first.
#[test]
fn a_directory_whose_lock_is_gone_is_still_in_use() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("n");
    init(&path, false).expect("a new one");
    let first = StateDir::open(&wanted(&path, true)).expect("it opens");
    fs::remove_file(path.join(LOCK_FILE)).expect("it is there");
    for error in [
        StateDir::open(&wanted(&path, true))
            .map(drop)
            .expect_err("it is in use"),
        init(&path, true).expect_err("it is in use"),
    ] {
        assert!(
            error.to_string().contains("is in use by another process"),
            "{error}"
        );
        assert!(
            error.fix().starts_with("stop that process"),
            "{}",
            error.fix()
        );
        assert!(
            !error.fix().contains("replace all secrets"),
            "{}",
            error.fix()
        );
    }
    drop(first);
    StateDir::open(&wanted(&path, true)).expect("it is free");
    let error = init(Path::new("state"), false).expect_err("where is that?");
    assert!(error.to_string().contains("no absolute path"), "{error}");
}
