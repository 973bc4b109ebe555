//! A child process in a namespace.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Doing, LabError};
use crate::journal::{Entry, Journal, ProcessId};

/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(10);
/// Lines of its log that a process shows when its test panics.
const TAIL: usize = 60;

/// A child process, killed by its id and reaped when dropped. Made by [`Namespace::spawn`](crate::Namespace::spawn).
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    detached: bool,
}

impl Process {
    /// Starts it in the namespaces of the calling thread.
    pub(crate) fn start(
        command: &mut Command,
        journal: &Journal,
        role: &str,
    ) -> Result<Self, LabError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let program = Path::new(command.get_program());
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let log = journal
            .directory()
            .join(format!("{role}-{name}-{number}.log"));
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&log)
            .doing(|| format!("create {}", log.display()))?;
        let copy = file
            .try_clone()
            .doing(|| format!("share {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .doing(|| format!("start {}", command.get_program().display()))?;
        let process = Process {
            child,
            name,
            log,
            detached: false,
        };
        // Its number is known only now; from here a sweep finds it should this process be killed.
        if let Some(id) = ProcessId::of(process.id()) {
            journal.record(&Entry::Process(id))?;
        }
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file with its standard output and error.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has written so far.
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; none when it still runs after `timeout`.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>, LabError> {
        let end = Instant::now() + timeout;
        loop {
            let status = self
                .child
                .try_wait()
                .doing(|| format!("wait for {}", self.name))?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until its log contains `text`.
    ///
    /// # Errors
    /// [`LabError::Missing`] when it ended or `timeout` passed before; with the end of its log.
    pub fn wait_for_log(&mut self, text: &str, timeout: Duration) -> Result<(), LabError> {
        let end = Instant::now() + timeout;
        loop {
            let ended = !self.is_running();
            if self.log_text().contains(text) {
                return Ok(());
            }
            if ended || Instant::now() >= end {
                return Err(LabError::Missing {
                    what: "log line",
                    name: text.to_owned(),
                    fix: self.complain(ended),
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Sends a signal (a `libc::SIG*` number).
    ///
    /// # Errors
    /// When the process has been reaped or the kernel refuses.
    pub fn signal(&mut self, signal: i32) -> Result<(), LabError> {
        let refused = || LabError::Invalid {
            what: "signal",
            value: signal.to_string(),
            fix: "send a signal known to libc to a process that still runs",
        };
        // Asked first, so that the number cannot have been given to another process.
        if !self.is_running() {
            return Err(refused());
        }
        let signal = rustix::process::Signal::from_named_raw(signal).ok_or_else(refused)?;
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).doing(|| format!("signal {}", self.name))
    }

    /// Asks it to end (SIGTERM) and kills it when it has not after `timeout`. Returns how it ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus, LabError> {
        if self.is_running() {
            self.signal(libc::SIGTERM)?;
        }
        match self.wait(timeout)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Kills it (SIGKILL) and returns how it ended.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, LabError> {
        match self.child.kill() {
            Err(e) if e.kind() != ErrorKind::InvalidInput => Err(e),
            _ => self.child.wait(),
        }
        .doing(|| format!("kill {}", self.name))
    }

    /// Leaves it running when the handle goes; [`Lab::teardown`](crate::Lab::teardown) ends it. For labs that are kept.
    pub fn detach(mut self) -> u32 {
        self.detached = true;
        self.id()
    }

    fn complain(&self, ended: bool) -> &'static str {
        eprintln!(
            "--- log of {} ({}) ---\n{}",
            self.name,
            self.id(),
            self.tail()
        );
        match ended {
            true => "the process ended before; its log is on stderr",
            false => "it did not come in time; the log is on stderr",
        }
    }

    fn tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        if std::thread::panicking() {
            eprintln!(
                "--- end of the log of {} ({}) ---\n{}",
                self.name,
                self.id(),
                self.tail()
            );
        }
        let _ = self.kill();
    }
}
