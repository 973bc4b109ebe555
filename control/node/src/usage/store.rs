//! Closed intervals on disk, written by a thread of their own.
//!
//! A segment is a file of blocks; a block is some records of one interval with a checksum. A segment is only appended to,
//! and a new one is begun when it is full and at each start, so that what a crash left torn is never written behind. The
//! oldest go when all of them together take more room than they may.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message;
use tokio::sync::oneshot;
use twinseal_api::v1;

use twinseal_base::time::{since_boot, unix};

/// What a block begins with.
pub(super) const MAGIC: [u8; 4] = *b"TSU1";
/// Magic, length of the payload and checksum over both length and payload; both u32, little-endian.
pub(super) const HEADER: usize = 12;
/// Records of a block, at most.
const BLOCK: usize = 512;
/// Octets after which a segment is full.
const SEGMENT: u64 = 4 << 20;
/// Intervals that may wait for the disk.
const QUEUE: usize = 120;
/// How long the clock must have gone evenly before it is believed that records are too old.
const EVEN: Duration = Duration::from_secs(3600);
/// What it may be set by meanwhile, as a clock that is kept right is all the time.
const SLACK: Duration = Duration::from_secs(60);
/// The end of a segment's name.
const SUFFIX: &str = "usage";

/// How usage is accounted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageConfig {
    /// Seconds of an interval.
    pub interval: u32,
    /// Octets that may be kept on disk.
    pub max_bytes: u64,
    /// Days after which records go.
    pub keep_days: u32,
}

impl Default for UsageConfig {
    /// Minutes, for a month, in a gigabyte at most.
    fn default() -> Self {
        Self {
            interval: 60,
            max_bytes: 1 << 30,
            keep_days: 31,
        }
    }
}

/// Usage could not be stored.
#[derive(Debug, thiserror::Error)]
#[error("usage in {}: cannot {call}: {source}", .path.display())]
pub struct StoreError {
    path: PathBuf,
    call: &'static str,
    source: io::Error,
}

/// What there is to read at one moment: segments, and how much of each.
pub type Flushed = Vec<(PathBuf, u64)>;

enum Job {
    Append(Vec<v1::UsageRecord>),
    Flush(oneshot::Sender<Flushed>),
}

/// The way to the writing thread.
pub struct Store {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Keeps records in this folder, which is made if it is missing.
    pub fn open(path: PathBuf, config: &UsageConfig) -> Result<Self, StoreError> {
        let error = |call| {
            let path = path.clone();
            move |source| StoreError { path, call, source }
        };
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o700);
        folder.create(&path).map_err(error("make the folder"))?;
        let mut files = Files::new(path.clone(), config).map_err(error("read the folder"))?;
        let (jobs, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("usage".to_owned())
            .spawn(move || files.serve(&queue))
            .map_err(error("start its thread"))?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Has the records of an interval written; `false` if they are lost, as the disk is too slow or gone.
    #[must_use]
    pub fn append(&self, records: Vec<v1::UsageRecord>) -> bool {
        records.is_empty() || self.send(Job::Append(records))
    }

    /// What there is to read once all that was appended is written.
    pub fn flush(&self) -> oneshot::Receiver<Flushed> {
        let (reply, flushed) = oneshot::channel();
        // If it cannot be asked the reply is dropped, and whoever waits hears of it.
        let _ = self.send(Job::Flush(reply));
        flushed
    }

    fn send(&self, job: Job) -> bool {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Ok(())) => true,
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store {
    /// Waits until all is written. What is appended later is lost.
    pub fn close(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The writing thread's.
struct Files {
    path: PathBuf,
    max_bytes: u64,
    keep: Duration,
    /// From the oldest to the one that is written.
    segments: VecDeque<Segment>,
    current: Option<File>,
    failing: bool,
    clock: Clock,
}

/// Whether the system's clock can be believed: one that jumps ahead for seconds must not make all records too old.
struct Clock {
    /// When the machine started, by the system's clock.
    booted: Duration,
    /// Since when it says so, since the machine's start.
    since: Duration,
}

impl Clock {
    fn new(unix: Duration, since_boot: Duration) -> Self {
        Self {
            booted: unix.saturating_sub(since_boot),
            since: since_boot,
        }
    }

    /// The time, if the clock has gone evenly for long enough.
    fn believed(&mut self, unix: Duration, since_boot: Duration) -> Option<Duration> {
        let booted = unix.saturating_sub(since_boot);
        if booted.abs_diff(self.booted) > SLACK {
            *self = Self::new(unix, since_boot);
        }
        (since_boot.saturating_sub(self.since) >= EVEN).then_some(unix)
    }
}

struct Segment {
    path: PathBuf,
    size: u64,
    /// Milliseconds since 1970 at which it began: its name.
    began: u64,
}

impl Files {
    fn new(path: PathBuf, config: &UsageConfig) -> io::Result<Self> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let file = entry.path();
            let began = file
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            if let (Some(began), true) = (began, file.extension().is_some_and(|it| it == SUFFIX)) {
                segments.push(Segment {
                    size: entry.metadata()?.len(),
                    path: file,
                    began,
                });
            }
        }
        segments.sort_by_key(|segment| segment.began);
        Ok(Self {
            path,
            max_bytes: config.max_bytes,
            keep: Duration::from_secs(86400) * config.keep_days,
            segments: segments.into(),
            current: None,
            failing: false,
            clock: Clock::new(unix(), since_boot()),
        })
    }

    fn serve(&mut self, queue: &Receiver<Job>) {
        while let Ok(job) = queue.recv() {
            match job {
                Job::Append(records) => {
                    let written = self.append(&records);
                    if let Err(error) = &written {
                        // The next interval begins a new segment.
                        self.current = None;
                        if !self.failing {
                            tracing::error!(%error, path = %self.path.display(), "usage cannot be written: it is lost until it can");
                        }
                    }
                    self.failing = written.is_err();
                }
                Job::Flush(reply) => {
                    let segments = self.segments.iter();
                    // Whoever asked may have gone.
                    let _ = reply.send(segments.map(|it| (it.path.clone(), it.size)).collect());
                }
            }
        }
    }

    fn append(&mut self, records: &[v1::UsageRecord]) -> io::Result<()> {
        for records in records.chunks(BLOCK) {
            let block = encode(records);
            let full = self.segments.back().is_none_or(|it| it.size >= SEGMENT);
            if self.current.is_none() || full {
                self.begin()?;
            }
            if let (Some(file), Some(segment)) = (&mut self.current, self.segments.back_mut()) {
                file.write_all(&block)?;
                segment.size += block.len() as u64;
            }
        }
        if let Some(file) = &self.current {
            file.sync_data()?;
        }
        self.forget();
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        let newest = self.segments.back().map_or(0, |segment| segment.began);
        // Names sort also if the clock was set back.
        let began = (unix().as_millis() as u64).max(newest + 1);
        let path = self.path.join(format!("{began:015}.{SUFFIX}"));
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        File::open(&self.path)?.sync_all()?;
        self.current = Some(file);
        self.segments.push_back(Segment {
            path,
            size: 0,
            began,
        });
        Ok(())
    }

    /// Removes the oldest segments that are too old or too much; never the one that is written.
    fn forget(&mut self) {
        let now = self.clock.believed(unix(), since_boot());
        let oldest = now.map_or(0, |now| now.saturating_sub(self.keep).as_millis() as u64);
        while self.segments.len() > 1 {
            let total: u64 = self.segments.iter().map(|segment| segment.size).sum();
            // What was written last into a segment is as old as the next one.
            let too_old = self.segments[1].began < oldest;
            if total <= self.max_bytes && !too_old {
                break;
            }
            if let Some(segment) = self.segments.pop_front()
                && let Err(error) = fs::remove_file(&segment.path)
            {
                tracing::warn!(%error, path = %segment.path.display(), "old usage stays behind");
            }
        }
    }
}

fn encode(records: &[v1::UsageRecord]) -> Vec<u8> {
    let mut block = vec![0; HEADER];
    for record in records {
        // Into memory that grows; it cannot fail.
        let _ = record.encode_length_delimited(&mut block);
    }
    let length = ((block.len() - HEADER) as u32).to_le_bytes();
    block[..4].copy_from_slice(&MAGIC);
    block[4..8].copy_from_slice(&length);
    let sum = checksum(&length, &block[HEADER..]);
    block[8..HEADER].copy_from_slice(&sum);
    block
}

pub(super) fn checksum(length: &[u8], payload: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(payload);
    hasher.finalize().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_not_believed_until_it_has_gone_evenly() {
        let seconds = Duration::from_secs;
        let unix = 1_800_000_000;
        let mut clock = Clock::new(seconds(unix), seconds(10));
        let mut believed =
            |unix: u64, boot: u64| clock.believed(seconds(unix), seconds(boot)).is_some();
        assert!(!believed(unix + 3599, 3609), "it has only begun");
        assert!(believed(unix + 3600, 3610));
        // Kept right by some seconds.
        assert!(believed(unix + 3730, 3710));
        // Ten years ahead for a while, and back.
        let years = 10 * 365 * 86_400;
        assert!(!believed(unix + years, 3720));
        assert!(!believed(unix + years + 5, 3725));
        assert!(!believed(unix + 3730, 3730));
        assert!(!believed(unix + 3730 + 3599, 3730 + 3599));
        assert!(believed(unix + 3730 + 3600, 3730 + 3600));
        // A clock that was wrong for long and is right now.
        assert!(!believed(unix + years, 8000));
        assert!(believed(unix + years + 4000, 12_000));
    }
}
