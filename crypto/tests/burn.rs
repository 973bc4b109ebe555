//! The burned-secret guard over crashes, damage and other processes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use twinseal_crypto::{BurnError, BurnGuard, Fingerprint, SECRET_LEN, Secret};

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
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_secret_burns_once_and_stays_burned() {
    let dir = Dir::new();
    let mut guard = BurnGuard::open(dir.file()).unwrap();
    assert!(!guard.is_burned(&fingerprint(1)));
    guard.burn(&fingerprint(1)).unwrap();
    assert!(guard.is_burned(&fingerprint(1)) && !guard.is_burned(&fingerprint(2)));
    drop(guard);

    let mut guard = BurnGuard::open(dir.file()).unwrap();
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
    let dir = Dir::new();
    let mut guard = BurnGuard::open(dir.file()).unwrap();
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
    let guard = BurnGuard::open(dir.file()).unwrap();
    assert!(all.iter().all(|it| guard.is_burned(it)));
}

#[test]
fn one_holder_at_a_time() {
    let dir = Dir::new();
    let guard = BurnGuard::open(dir.file()).unwrap();
    let error = BurnGuard::open(dir.file()).unwrap_err();
    assert!(
        matches!(&error, BurnError::Locked { path } if *path == dir.file()),
        "{error}"
    );
    drop(guard);
    BurnGuard::open(dir.file()).unwrap();
}

/// A crash can end the file at any byte. Whatever was whole stays burned, nothing else is, and the
/// file goes on.
#[test]
fn a_file_cut_anywhere_opens_and_goes_on() {
    let dir = Dir::new();
    let mut guard = BurnGuard::open(dir.file()).unwrap();
    guard.burn_all(&[fingerprint(1), fingerprint(2)]).unwrap();
    drop(guard);
    let whole = fs::read(dir.file()).unwrap();
    let line = Fingerprint::to_string(&fingerprint(1)).len() + 1;
    let header = whole.len() - 2 * line;

    for cut in 0..whole.len() {
        fs::write(dir.file(), &whole[..cut]).unwrap();
        let mut guard =
            BurnGuard::open(dir.file()).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        // A fingerprint without its line's end is whole.
        for (byte, end) in [(1, header + line - 1), (2, header + 2 * line - 1)] {
            assert_eq!(
                guard.is_burned(&fingerprint(byte)),
                cut >= end,
                "cut at {cut}"
            );
        }
        guard.burn(&fingerprint(3)).unwrap();
        drop(guard);
        let guard = BurnGuard::open(dir.file()).unwrap();
        assert!(guard.is_burned(&fingerprint(3)), "cut at {cut}");
        assert!(whole.starts_with(&read(&dir.file()).as_bytes()[..cut.min(header)]));
    }
}

#[test]
fn damage_is_refused_by_line() {
    let dir = Dir::new();
    let mut guard = BurnGuard::open(dir.file()).unwrap();
    guard.burn_all(&[fingerprint(1), fingerprint(2)]).unwrap();
    drop(guard);
    let whole = read(&dir.file());
    let (one, two) = (fingerprint(1).to_string(), fingerprint(2).to_string());

    let damaged = [
        (1, whole.replacen('#', "%", 1)),
        (1, "someone else's file".to_owned()),
        (2, whole.replacen(&one, &one[1..], 1)),
        (2, whole.replacen(&one, &one.to_uppercase(), 1)),
        (3, whole.replacen(&two, "", 1)),
        (3, whole.replacen(&two, &format!("{two}00"), 1)),
        (4, format!("{whole}\0\0\0\0")),
        (4, format!("{whole}{one}0")),
    ];
    for (line, text) in damaged {
        fs::write(dir.file(), &text).unwrap();
        let error = BurnGuard::open(dir.file()).unwrap_err();
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

#[test]
fn a_missing_folder_is_an_error_that_names_the_file() {
    let dir = Dir::new();
    let path = dir.0.path().join("nowhere").join("burned");
    let error = BurnGuard::open(&path).unwrap_err();
    assert!(matches!(error, BurnError::Io { action: "open", .. }));
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

/// A full disk: the secret is not burned, and nothing more is until the file has been opened again.
#[test]
fn after_a_failed_write_nothing_burns() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        eprintln!("SKIPPED: no /dev/full");
        return;
    }
    // The device reads as endless zeros, so the guard cannot be opened on it: swap it in under an
    // open guard's number.
    let dir = Dir::new();
    let mut guard = BurnGuard::open(dir.file()).unwrap();
    guard.burn(&fingerprint(1)).unwrap();
    replace_file(&dir.file(), full);
    let error = guard.burn(&fingerprint(2)).unwrap_err();
    assert!(
        matches!(
            error,
            BurnError::Io {
                action: "write",
                ..
            }
        ),
        "{error}"
    );
    assert!(!guard.is_burned(&fingerprint(2)));
    let error = guard.burn(&fingerprint(2)).unwrap_err();
    assert!(matches!(error, BurnError::Failed { .. }), "{error}");
    drop(guard);
    BurnGuard::open(dir.file())
        .unwrap()
        .burn(&fingerprint(2))
        .unwrap();
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
    let to = fs::OpenOptions::new().append(true).open(to).unwrap();
    // SAFETY: both are open files of this process, and the guard that owns `number` goes on owning
    // it.
    assert!(unsafe { libc::dup2(to.as_raw_fd(), number) } >= 0);
}
