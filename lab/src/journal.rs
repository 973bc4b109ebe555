//! The record of what a lab makes, written before it is made, so that a killed owner leaves nothing behind for good.
//!
//! One text file a lab, `/run/twinseal-lab/<id>.journal`. The owner holds a file lock on it as long as it lives.
//! What is recorded carries an identity (a namespace its inode, a process its start time): something of the same name
//! or number that others made is never touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Doing, LabError};

/// Where journals and the labs' scratch directories are.
pub(crate) const RUN: &str = "/run/twinseal-lab";
/// Where named namespaces are, as iproute2 has it.
pub(crate) const NETNS: &str = "/run/netns";

/// One recorded thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The scratch directory of the lab.
    Directory,
    /// A named network namespace and its nsfs inode.
    Namespace { name: String, inode: u64 },
    /// A child process.
    Process(ProcessId),
    /// From here on the lab outlives its owner.
    Kept,
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks after boot, from `/proc/<pid>/stat`.
    pub(crate) started: u64,
}

impl ProcessId {
    /// The identity of a running process; none when there is no such process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the name in parentheses and may hold anything.
        let after_name = &stat[stat.rfind(')')? + 1..];
        let mut fields = after_name.split_ascii_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        // A zombie only waits for its parent; it owns nothing any more.
        (!matches!(state, "Z" | "X")).then_some(ProcessId { pid, started })
    }

    fn alive(self) -> bool {
        ProcessId::of(self.pid) == Some(self)
    }

    /// Kills exactly this process, if it still runs.
    fn kill(self) {
        let pidfd = i32::try_from(self.pid)
            .ok()
            .and_then(Pid::from_raw)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        // The identity is checked after the descriptor is held, so the number cannot be reused in between.
        if let Some(pidfd) = pidfd
            && self.alive()
        {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            let _ = crate::sys::wait_readable(&[std::os::fd::AsFd::as_fd(&pidfd)], 2_000_000_000);
        }
    }
}

/// An open and locked journal.
#[derive(Debug)]
pub(crate) struct Journal {
    id: String,
    file: File,
}

impl Journal {
    /// Makes a journal for `<prefix>-<pid>`, or with a number after it when this process has such a lab already.
    pub(crate) fn create(prefix: &str) -> Result<Self, LabError> {
        fs::create_dir_all(RUN).doing(|| format!("create {RUN}"))?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options.custom_flags(libc::O_TMPFILE);
        let mut file = options
            .open(RUN)
            .doing(|| format!("open a file in {RUN}"))?;
        // Locked and with its owner inside before it has a name: nobody sees it half made.
        lock(&file).doing(|| format!("lock a file in {RUN}"))?;
        let owner = ProcessId::of(std::process::id()).ok_or_else(|| LabError::Unavailable {
            need: "/proc does not show this process".into(),
            fix: "mount proc on /proc",
        })?;
        let head = format!(
            "twinseal-lab 1\nboot {}\nowner {} {}\n",
            boot(),
            owner.pid,
            owner.started
        );
        file.write_all(head.as_bytes())
            .doing(|| format!("write a journal in {RUN}"))?;
        let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        for n in 1.. {
            let id = match n {
                1 => format!("{prefix}-{}", owner.pid),
                n => format!("{prefix}-{}x{n}", owner.pid),
            };
            match rustix::fs::linkat(CWD, &source, CWD, path_of(&id), AtFlags::SYMLINK_FOLLOW) {
                Ok(()) => return Ok(Journal { id, file }),
                Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e).doing(|| format!("create {}", path_of(&id).display())),
            }
        }
        unreachable!("the range has no end")
    }

    /// Opens the journal of a lab that nobody owns any more.
    pub(crate) fn open(id: &str) -> Result<Self, LabError> {
        let path = path_of(id);
        let missing = || LabError::Missing {
            what: "lab",
            name: id.to_owned(),
            fix: "it may be torn down already",
        };
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(missing()),
            other => other.doing(|| format!("open {}", path.display()))?,
        };
        match lock(&file) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return Err(LabError::InUse { id: id.to_owned() });
            }
            other => other.doing(|| format!("lock {}", path.display()))?,
        }
        // Another process may have torn the lab down between opening and locking.
        match file.metadata() {
            Ok(meta) if meta.nlink() > 0 => Ok(Journal {
                id: id.to_owned(),
                file,
            }),
            _ => Err(missing()),
        }
    }

    /// The lab's name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The lab's scratch directory.
    pub(crate) fn directory(&self) -> PathBuf {
        Path::new(RUN).join(&self.id)
    }

    /// Records one thing; call it before the thing is made.
    pub(crate) fn record(&self, entry: &Entry) -> Result<(), LabError> {
        let line = match entry {
            Entry::Directory => "directory\n".to_owned(),
            Entry::Namespace { name, inode } => format!("netns {name} {inode}\n"),
            Entry::Process(p) => format!("process {} {}\n", p.pid, p.started),
            Entry::Kept => "kept\n".to_owned(),
        };
        let mut file = &self.file;
        file.seek(SeekFrom::End(0))
            .and_then(|_| file.write_all(line.as_bytes()))
            .doing(|| format!("write {}", path_of(&self.id).display()))
    }

    /// Gives up ownership: from now on another process may take the lab down.
    pub(crate) fn release(&self) {
        // Fails only for a descriptor that is not open.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }

    /// Takes down all that is recorded, last first, then the journal itself.
    ///
    /// # Errors
    /// The first failure; the rest is taken down all the same, and the journal stays for another try.
    pub(crate) fn tear_down(&self) -> Result<(), LabError> {
        let record = self.read()?;
        let same_boot = record.boot == boot();
        let mut result = Ok(());
        for entry in record.entries.iter().rev() {
            let undone = match entry {
                Entry::Kept => Ok(()),
                Entry::Process(process) => {
                    if same_boot {
                        process.kill();
                    }
                    Ok(())
                }
                Entry::Namespace { name, inode } => remove_namespace(name, *inode),
                Entry::Directory => match fs::remove_dir_all(self.directory()) {
                    Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
                    _ => Ok(()),
                }
                .doing(|| format!("remove {}", self.directory().display())),
            };
            result = result.and(undone);
        }
        result?;
        let path = path_of(&self.id);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(e).doing(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    fn read(&self) -> Result<Record, LabError> {
        let mut text = String::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.read_to_string(&mut text))
            .doing(|| format!("read {}", path_of(&self.id).display()))?;
        Ok(Record::parse(&text))
    }
}

/// Takes down the labs whose owner is dead and that were not kept. Returns their names.
///
/// # Errors
/// The first failure, after all have been tried.
pub(crate) fn sweep() -> Result<Vec<String>, LabError> {
    let entries = match fs::read_dir(RUN) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("list {RUN}"))?,
    };
    let (mut swept, mut result) = (Vec::new(), Ok(()));
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let Some(id) = file_name.to_str().and_then(|n| n.strip_suffix(".journal")) else {
            continue;
        };
        // Looked at without the lock first, so that a lab which stays is never locked under someone's teardown.
        match fs::read_to_string(path_of(id)) {
            Ok(text) if Record::parse(&text).is_abandoned() => {}
            _ => continue,
        }
        // Locked or gone means that another process sweeps it.
        let Ok(journal) = Journal::open(id) else {
            continue;
        };
        match journal.tear_down() {
            Ok(()) => swept.push(id.to_owned()),
            Err(e) => result = result.and(Err(e)),
        }
    }
    result.map(|()| swept)
}

#[derive(Debug, Default)]
struct Record {
    boot: String,
    owner: Option<ProcessId>,
    entries: Vec<Entry>,
}

impl Record {
    /// Whether nobody will take this lab down: its owner is dead and did not keep it, or the machine was restarted.
    fn is_abandoned(&self) -> bool {
        let owned = self.owner.is_some_and(ProcessId::alive);
        self.boot != boot() || !(owned || self.entries.contains(&Entry::Kept))
    }

    /// Reads a journal; a line cut short by a crash is left out, since what it announces was then never made.
    fn parse(text: &str) -> Record {
        let mut record = Record::default();
        for line in text
            .split_inclusive('\n')
            .filter_map(|l| l.strip_suffix('\n'))
        {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["boot", id] => record.boot = id.to_owned(),
                ["owner", pid, started] => record.owner = process(pid, started),
                ["directory"] => record.entries.push(Entry::Directory),
                ["kept"] => record.entries.push(Entry::Kept),
                ["netns", name, inode] if !name.contains('/') => {
                    if let Ok(inode) = inode.parse() {
                        let name = name.to_owned();
                        record.entries.push(Entry::Namespace { name, inode });
                    }
                }
                ["process", pid, started] => {
                    record
                        .entries
                        .extend(process(pid, started).map(Entry::Process));
                }
                _ => {}
            }
        }
        record
    }
}

fn process(pid: &str, started: &str) -> Option<ProcessId> {
    Some(ProcessId {
        pid: pid.parse().ok()?,
        started: started.parse().ok()?,
    })
}

/// Removes a named namespace if it is the recorded one.
fn remove_namespace(name: &str, inode: u64) -> Result<(), LabError> {
    let path = Path::new(NETNS).join(name);
    let meta = match fs::metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.doing(|| format!("look at {}", path.display()))?,
    };
    let ours = meta.ino() == inode;
    // The owner died between making the file and mounting on it, or the machine was restarted since.
    let bare = meta.is_file() && meta.len() == 0 && meta.dev() == parent_device();
    if !ours && !bare {
        return Ok(());
    }
    if ours {
        rustix::mount::unmount(&path, UnmountFlags::DETACH)
            .doing(|| format!("unmount {}", path.display()))?;
    }
    fs::remove_file(&path).doing(|| format!("remove {}", path.display()))
}

fn parent_device() -> u64 {
    fs::metadata(NETNS).map_or(0, |m| m.dev())
}

fn path_of(id: &str) -> PathBuf {
    Path::new(RUN).join(format!("{id}.journal"))
}

fn lock(file: &File) -> io::Result<()> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(Into::into)
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_reads_back_and_a_torn_line_is_left_out() {
        let record = Record::parse(
            "twinseal-lab 1\nboot b-1\nowner 12 34\ndirectory\nnetns t-12-a 4026\nprocess 5 6\nnetns ../x 1\nkept\nnetns t-12-b 40",
        );
        assert_eq!(record.boot, "b-1");
        assert_eq!(
            record.owner,
            Some(ProcessId {
                pid: 12,
                started: 34
            })
        );
        let namespace = Entry::Namespace {
            name: "t-12-a".into(),
            inode: 4026,
        };
        let process = Entry::Process(ProcessId { pid: 5, started: 6 });
        assert_eq!(
            record.entries,
            [Entry::Directory, namespace, process, Entry::Kept]
        );
    }

    #[test]
    fn identity_tells_a_process_from_another_of_the_same_number() {
        let me = ProcessId::of(std::process::id()).expect("own process");
        assert!(me.alive());
        let other = ProcessId {
            started: me.started + 1,
            ..me
        };
        assert!(!other.alive());
        other.kill();
        assert!(me.alive());
    }
}
