//! The burned-secret guard over crashes, damage and other processes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use twinseal_crypto::{
    BurnError, BurnGuard, BurnMark,
    BurnUse::{Opened, Sealed},
    Fingerprint, SECRET_LEN, Secret,
};

fn fingerprint(byte: u8) -> Fingerprint {
    Secret::from_bytes(&mut [byte; SECRET_LEN])
        .unwrap()
        .fingerprint()
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("burned")
    }

    /// Makes the file.
    fn made(self) -> Self {
        BurnGuard::create(&self.file(), START, []).unwrap();
        self
    }
}

/// As a directory that is new has it.
const START: BurnMark = BurnMark {
    count: 0,
    head: [7; 32],
};

fn open(path: impl Into<PathBuf>) -> Result<BurnGuard, BurnError> {
    BurnGuard::open(path, &BurnMark::default())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_secret_burns_once_and_stays_burned() {
    let dir = Dir::new().made();
    let mut guard = open(dir.file()).unwrap();
    assert!(!guard.is_burned(&fingerprint(1)));
    guard.burn(&fingerprint(1)).unwrap();
    assert!(guard.is_burned(&fingerprint(1)) && !guard.is_burned(&fingerprint(2)));
    drop(guard);

    let mut guard = open(dir.file()).unwrap();
    assert!(guard.is_burned(&fingerprint(1)));
    let error = guard.burn(&fingerprint(1)).unwrap_err();
    assert!(
        matches!(error, BurnError::AlreadyBurned { fingerprint: it } if it == fingerprint(1)),
        "{error}"
    );
    guard.burn(&fingerprint(2)).unwrap();
    drop(guard);

    assert_eq!(read(&dir.file()).lines().skip(1).count(), 2);
    assert_eq!(
        fs::metadata(dir.file()).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn several_burn_together_or_not_at_all() {
    let dir = Dir::new().made();
    let mut guard = open(dir.file()).unwrap();
    let all: Vec<_> = (0..50).map(fingerprint).collect();
    guard.burn_all(&all).unwrap();
    let before = read(&dir.file());
    for list in [
        [fingerprint(60), fingerprint(3)],
        [fingerprint(61), fingerprint(61)],
    ] {
        assert!(
            matches!(guard.burn_all(&list), Err(BurnError::AlreadyBurned { fingerprint }) if fingerprint == list[1])
        );
        assert!(!guard.is_burned(&list[0]));
    }
    assert_eq!(read(&dir.file()), before);
    drop(guard);
    let guard = open(dir.file()).unwrap();
    assert!(all.iter().all(|it| guard.is_burned(it)));
}

#[test]
fn one_holder_at_a_time() {
    let dir = Dir::new().made();
    let guard = open(dir.file()).unwrap();
    let error = open(dir.file()).unwrap_err();
    assert!(
        matches!(&error, BurnError::Locked { path } if *path == dir.file()),
        "{error}"
    );
    drop(guard);
    open(dir.file()).unwrap();
}

/// What has opened is remembered beside what has sealed, and says which it was.
#[test]
fn what_has_opened_is_remembered_too() {
    let dir = Dir::new().made();
    let mut guard = open(dir.file()).unwrap();
    let both = [(fingerprint(1), Opened), (fingerprint(2), Sealed)];
    guard.remember(&both).unwrap();
    let again = guard.remember(&[(fingerprint(1), Opened)]).unwrap_err();
    assert!(matches!(again, BurnError::AlreadyBurned { .. }), "{again}");
    let mark = guard.mark();
    drop(guard);
    let whole = read(&dir.file());
    let told = |guard: &BurnGuard| {
        [1, 2].map(|byte| {
            let it = fingerprint(byte);
            (guard.is_burned(&it), guard.has_opened(&it))
        })
    };
    let guard = BurnGuard::open(dir.file(), &mark).unwrap();
    assert_eq!(told(&guard), [(false, true), (true, false)]);
    drop(guard);
    // Neither kind becomes the other.
    let changed = [
        whole.replacen(" opened", "", 1),
        whole.trim_end().to_owned() + " opened\n",
    ];
    for changed in changed {
        fs::write(dir.file(), changed).unwrap();
        let error = open(dir.file()).unwrap_err();
        assert!(matches!(error, BurnError::Corrupt { .. }), "{error}");
    }
    // A line that a crash has cut in its last word is completed.
    let cut = whole.find(" opened").unwrap() + 3;
    fs::write(dir.file(), &whole[..cut]).unwrap();
    let mut guard = open(dir.file()).unwrap();
    assert!(guard.has_opened(&fingerprint(1)) && !guard.is_burned(&fingerprint(1)));
    // That it sealed says more.
    guard.burn(&fingerprint(1)).unwrap();
    drop(guard);
    assert!(open(dir.file()).unwrap().is_burned(&fingerprint(1)));
}

/// Whoever holds the file notices what becomes of it.
#[test]
fn a_file_that_changes_while_it_is_held_is_noticed() {
    let dir = Dir::new().made();
    let mut guard = open(dir.file()).unwrap();
    guard.burn(&fingerprint(1)).unwrap();
    guard.check().unwrap();
    let whole = read(&dir.file());
    let cut = fs::OpenOptions::new().write(true).open(dir.file()).unwrap();
    cut.set_len(whole.len() as u64 - 1).unwrap();
    let told = |guard: &BurnGuard| guard.check().unwrap_err().to_string();
    assert!(told(&guard).contains("was cut while it was in use"));
    fs::write(dir.file(), format!("{whole}x")).unwrap();
    assert!(told(&guard).contains("was written to by somebody else"));
    fs::write(dir.file(), &whole).unwrap();
    guard.check().unwrap();
    fs::remove_file(dir.file()).unwrap();
    assert!(told(&guard).contains("is missing"));
    fs::write(dir.file(), &whole).unwrap();
    assert!(told(&guard).contains("was replaced"));
}

/// A crash can end the file at any byte after its first line, which was made whole. Whatever was
/// whole stays burned, nothing else is, and the file goes on.
#[test]
fn a_file_cut_anywhere_opens_and_goes_on() {
    let dir = Dir::new().made();
    let header = fs::read(dir.file()).unwrap().len();
    let mut guard = open(dir.file()).unwrap();
    guard.burn_all(&[fingerprint(1), fingerprint(2)]).unwrap();
    drop(guard);
    let whole = fs::read(dir.file()).unwrap();
    let line = (whole.len() - header) / 2;
    let name = Fingerprint::to_string(&fingerprint(1)).len();

    for cut in 0..whole.len() {
        fs::write(dir.file(), &whole[..cut]).unwrap();
        if cut < header {
            let error = open(dir.file()).unwrap_err();
            assert!(matches!(error, BurnError::Corrupt { line: 1, .. }));
            continue;
        }
        let mut guard = open(dir.file()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        // A fingerprint without its line's end is whole.
        for (byte, end) in [(1, header + name), (2, header + line + name)] {
            assert_eq!(
                guard.is_burned(&fingerprint(byte)),
                cut >= end,
                "cut at {cut}"
            );
        }
        guard.burn(&fingerprint(3)).unwrap();
        let mark = guard.mark();
        drop(guard);
        let guard = BurnGuard::open(dir.file(), &mark).unwrap();
        assert!(guard.is_burned(&fingerprint(3)), "cut at {cut}");
        assert_eq!(guard.mark(), mark);
        let kept = header + (cut - header) / line * line;
        assert_eq!(&fs::read(dir.file()).unwrap()[..kept], &whole[..kept]);
    }
}

/// What is whole in itself may still be less than there was: the marks of before tell.
#[test]
fn lines_that_are_missing_are_missed() {
    let dir = Dir::new().made();
    let mut marks = vec![BurnMark::default(), START];
    let mut guard = open(dir.file()).unwrap();
    assert_eq!(guard.mark(), START);
    for byte in 1..=4 {
        guard.burn(&fingerprint(byte)).unwrap();
        marks.push(guard.mark());
    }
    drop(guard);
    let whole = read(&dir.file());
    let lines: Vec<_> = whole.split_inclusive('\n').collect();
    for kept in 1..=lines.len() {
        fs::write(dir.file(), lines[..kept].concat()).unwrap();
        for (nth, mark) in marks.iter().enumerate() {
            let opened = BurnGuard::open(dir.file(), mark);
            match opened {
                Ok(_) => assert!(nth <= kept, "{kept} lines lack mark {nth}"),
                Err(error) => {
                    let told = matches!(error, BurnError::Lost { count, needed, .. }
                        if count == kept as u64 - 1 && needed == mark.count);
                    assert!(told && nth > kept, "{kept} lines, mark {nth}: {error}");
                    let (has, had) = (kept - 1, mark.count);
                    let why = format!("it has {has} secrets, and had {had}");
                    assert!(error.to_string().ends_with(&why), "{error}");
                }
            }
        }
    }
    // Another directory's file, and one that was begun anew.
    for head in [[7; 32], [8; 32]] {
        let start = BurnMark { count: 0, head };
        let others = (10..20).map(|byte| (fingerprint(byte), Sealed));
        BurnGuard::create(&dir.file(), start, others).unwrap();
        let error = BurnGuard::open(dir.file(), &marks[3]).unwrap_err();
        assert!(matches!(error, BurnError::Lost { .. }), "{error}");
        // No number of secrets tells what is wrong here.
        assert!(
            error.to_string().contains("comes from another node"),
            "{error}"
        );
    }
    // A memory that takes the place of a lost one goes on from the last mark that is known.
    BurnGuard::create(&dir.file(), marks[4], [(fingerprint(9), Sealed)]).unwrap();
    for mark in &marks[..=4] {
        let guard = BurnGuard::open(dir.file(), mark).unwrap();
        assert!(guard.is_burned(&fingerprint(9)) && guard.mark().count == 4);
    }
    assert!(BurnGuard::open(dir.file(), &marks[5]).is_err());
}

#[test]
fn what_a_damaged_file_names_can_be_saved() {
    let dir = Dir::new().made();
    let mut guard = open(dir.file()).unwrap();
    guard.burn_all(&[1, 2].map(fingerprint)).unwrap();
    guard.remember(&[(fingerprint(3), Opened)]).unwrap();
    drop(guard);
    let damaged = read(&dir.file()).replacen(&fingerprint(2).to_string()[..9], "?", 1);
    fs::write(dir.file(), damaged).unwrap();
    assert_eq!(
        BurnGuard::salvage(&dir.file()),
        [(fingerprint(1), Sealed), (fingerprint(3), Opened)]
    );
    // A file of the version before had names alone.
    let old = format!("# twinseal burned secrets v1\n{}\n", fingerprint(4));
    fs::write(dir.file(), old).unwrap();
    let error = open(dir.file()).unwrap_err();
    assert!(matches!(error, BurnError::Unchained { .. }), "{error}");
    assert_eq!(BurnGuard::salvage(&dir.file()), [(fingerprint(4), Sealed)]);
}

#[test]
fn damage_is_refused_by_line() {
    let dir = Dir::new().made();
    let mut guard = open(dir.file()).unwrap();
    guard.burn_all(&[fingerprint(1), fingerprint(2)]).unwrap();
    drop(guard);
    let whole = read(&dir.file());
    let (one, two) = (fingerprint(1).to_string(), fingerprint(2).to_string());

    let check = whole.trim_end().rsplit_once(' ').unwrap().1;
    let damaged = [
        (1, whole.replacen('#', "%", 1)),
        (1, "someone else's file".to_owned()),
        (1, String::new()),
        (2, whole.replacen(&one, &one[1..], 1)),
        (2, whole.replacen(&one, &one.to_uppercase(), 1)),
        (2, whole.replacen(&one, &two, 1)),
        (
            2,
            whole
                .split_inclusive('\n')
                .enumerate()
                .filter(|(n, _)| *n != 1)
                .map(|it| it.1)
                .collect(),
        ),
        (3, whole.replacen(&two, "", 1)),
        (3, whole.replacen(&two, &format!("{two}00"), 1)),
        (3, whole.replacen(check, &check[1..], 1)),
        (4, format!("{whole}\0\0\0\0")),
        (4, format!("{whole}{one}0")),
        (4, format!("{whole}{one} {check}\n")),
    ];
    for (line, text) in damaged {
        fs::write(dir.file(), &text).unwrap();
        let error = open(dir.file()).unwrap_err();
        assert!(
            matches!(error, BurnError::Corrupt { line: it, .. } if it == line),
            "line {line}: {error}"
        );
        assert_eq!(
            read(&dir.file()),
            text,
            "a damaged file is left as evidence"
        );
    }
}

/// A file that is not there was lost: making one is somebody's decision.
#[test]
fn what_is_missing_or_not_ours_alone_is_refused() {
    let dir = Dir::new();
    let error = open(dir.file()).unwrap_err();
    assert!(matches!(error, BurnError::Missing { .. }), "{error}");
    assert!(!dir.file().exists());
    assert!(error.to_string().contains(dir.file().to_str().unwrap()));

    let dir = dir.made();
    fs::set_permissions(dir.file(), fs::Permissions::from_mode(0o620)).unwrap();
    let error = open(dir.file()).unwrap_err();
    assert!(matches!(error, BurnError::Unsafe { .. }), "{error}");
    fs::set_permissions(dir.file(), fs::Permissions::from_mode(0o600)).unwrap();
    let link = dir.0.path().join("link");
    std::os::unix::fs::symlink(dir.file(), &link).unwrap();
    let error = open(&link).unwrap_err();
    assert!(matches!(error, BurnError::Unsafe { .. }), "{error}");

    // Nor does a guard write where nobody will read.
    let mut guard = open(dir.file()).unwrap();
    fs::rename(dir.file(), &link).unwrap();
    guard.burn(&fingerprint(1)).unwrap();
    fs::remove_file(&link).unwrap();
    let error = guard.burn(&fingerprint(2)).unwrap_err();
    assert!(matches!(error, BurnError::Missing { .. }), "{error}");
    assert!(!guard.is_burned(&fingerprint(2)));
}

/// A full disk: the secret is not burned, and the next one is as soon as there is room.
#[test]
fn after_a_failed_write_the_next_one_goes_on() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        eprintln!("SKIPPED: no /dev/full");
        return;
    }
    // The device reads as endless zeros, so the guard cannot be opened on it: swap it in under an
    // open guard's number.
    let dir = Dir::new().made();
    let mut guard = open(dir.file()).unwrap();
    guard.burn(&fingerprint(1)).unwrap();
    replace_file(&dir.file(), full);
    for _ in 0..2 {
        let error = guard.burn(&fingerprint(2)).unwrap_err();
        assert!(matches!(error, BurnError::Io { .. }), "{error}");
        assert!(!guard.is_burned(&fingerprint(2)));
    }
    // What a write that failed left behind is not the end of what was written before.
    let mut torn = read(&dir.file());
    torn.push_str(&fingerprint(2).to_string()[..40]);
    fs::write(dir.file(), torn).unwrap();
    replace_file(full, &dir.file());
    guard.burn(&fingerprint(2)).unwrap();
    guard.burn(&fingerprint(3)).unwrap();
    let mark = guard.mark();
    drop(guard);
    let guard = BurnGuard::open(dir.file(), &mark).unwrap();
    assert!(
        [1, 2, 3]
            .iter()
            .all(|&byte| guard.is_burned(&fingerprint(byte)))
    );
}

/// Makes this process's open file with the path `from` refer to `to`.
fn replace_file(from: &Path, to: &Path) {
    use std::os::fd::{AsRawFd, RawFd};
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut ours = open.filter(|fd| fs::read_link(fd).is_ok_and(|target| target == from));
    let number: RawFd = ours
        .next()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let to = fs::OpenOptions::new()
        .read(true)
        .append(true)
        .open(to)
        .unwrap();
    // SAFETY: both are open files of this process, and the guard that owns `number` goes on owning
    // it.
    assert!(unsafe { libc::dup2(to.as_raw_fd(), number) } >= 0);
}
