//! The file as it is written, and its checks.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroU64};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use twinseal_crypto::{DEFAULT_PROVIDER, MAX_COUNTER, MAX_LANES, MAX_WINDOW_BITS, MIN_WINDOW_BITS};
use twinseal_xsk::HugePages;

use crate::config::collect::Read;
use crate::config::users::Kind;
use crate::config::{Config, access, collect, sinks, users};
use twinseal_base::SOCKET_DIR;
use twinseal_base::mistake::{Mistake, Source};
use twinseal_model::state::Limits;
use twinseal_runtime::workers::{self, PoolConfig};

/// Octets that a path of a Unix socket may have (`sockaddr_un`, less the final zero).
const MAX_SOCKET_PATH: usize = 107;
const STATE_DIR: &str = "/var/lib/twinseal";
const DEFAULT_WINDOW_BITS: u32 = 4096;
const DEFAULT_FRAMES: u32 = 16384;
/// As many as a ring of the default size can have under way.
const DEFAULT_JUMBO_FRAMES: u32 = 512;
const MAX_JUMBO_FRAMES: u32 = 1 << 16;
const DEFAULT_RING: u32 = 2048;
const MAX_RING: u32 = 1 << 16;
/// Enough for every ring of sixteen ports at their largest; 64 GiB of 4096 octets.
const MAX_FRAMES: u32 = 1 << 24;
const DEFAULT_LANES: u8 = 4;

/// What must be given is optional here too, so that the parser does not stop for want of it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Node,
    state_dir: Option<Spanned<PathBuf>>,
    #[serde(default = "yes")]
    keep_tables: bool,
    #[serde(default)]
    control: access::Control,
    #[serde(default)]
    crypto: Crypto,
    #[serde(default)]
    workers: Workers,
    #[serde(default)]
    memory: Memory,
    #[serde(default)]
    events: sinks::Events,
    #[serde(default)]
    usage: sinks::Usage,
    #[serde(default)]
    audit: sinks::Audit,
}

fn yes() -> bool {
    true
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    name: Option<Spanned<String>>,
    #[serde(default)]
    allow_core_dumps: bool,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a name or a number")]
pub(super) enum NameOrNumber {
    Number(u32),
    Name(String),
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Crypto {
    provider: Option<Spanned<String>>,
    window_bits: Option<Spanned<u32>>,
    lane_limit: Option<Spanned<u64>>,
    key_packets: Option<NonZeroU64>,
    key_bytes: Option<NonZeroU64>,
    key_seconds: Option<NonZeroU32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Workers {
    count: Option<Spanned<u32>>,
    cpus: Option<Spanned<Vec<Spanned<usize>>>>,
    #[serde(default)]
    idle: Idle,
    lanes: Option<Spanned<u8>>,
    slice_us: Option<Spanned<u64>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Idle {
    #[default]
    Adaptive,
    Sleep,
    Spin,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    frames: Option<Spanned<u32>>,
    frame_size: Option<Spanned<u32>>,
    jumbo_frames: Option<Spanned<u32>>,
    #[serde(default)]
    huge_pages: Huge,
    ring: Option<Spanned<u32>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Huge {
    #[default]
    Auto,
    Never,
    Require,
}

pub(super) fn parse(source: &Source<'_>) -> Result<Config, Vec<Mistake>> {
    let Read {
        file,
        mistakes,
        whole,
    } = collect::read::<File>(source);
    let mut check = Check {
        source,
        mistakes,
        whole,
    };
    let config = check.file(file);
    if check.mistakes.is_empty() {
        return Ok(config);
    }
    check.mistakes.sort_by_key(|it| (it.line, it.column));
    Err(check.mistakes)
}

pub(super) struct Check<'a> {
    source: &'a Source<'a>,
    mistakes: Vec<Mistake>,
    /// Whether what was not read is not there.
    whole: bool,
}

impl Check<'_> {
    pub(super) fn wrong(
        &mut self,
        at: Range<usize>,
        field: &str,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let at = self.source.place(at.start);
        let (reason, fix) = (reason.into(), fix.into());
        let mistake = Mistake::new(self.source.path, at, field, &reason, &fix);
        self.mistakes.push(mistake);
    }

    /// A field that must be given is not; unless that is a mistake already.
    pub(super) fn missing(&mut self, at: Range<usize>, field: &str) {
        let told = |mistake: &Mistake| field.starts_with(mistake.field.as_str());
        if self.whole && !self.mistakes.iter().any(told) {
            let name = field.rsplit('.').next().unwrap_or(field);
            self.wrong(at, field, format!("missing field `{name}`"), "add it");
        }
    }

    fn file(&mut self, mut file: File) -> Config {
        let name = self.name(file.node.name);
        let socket = self.socket(file.control.socket.take(), &name);
        let state_dir = self.directory(file.state_dir, "state_dir", &name);
        let (cpus, lanes) = self.workers(file.workers.count, file.workers.cpus, file.workers.lanes);
        let idle = match file.workers.idle {
            Idle::Adaptive => workers::Idle::Adaptive,
            Idle::Sleep => workers::Idle::Sleep,
            Idle::Spin => workers::Idle::Spin,
        };
        let slice = self.number(
            file.workers.slice_us,
            "workers.slice_us",
            workers::DEFAULT_SLICE.as_micros() as u64,
            100..=100_000,
        );
        let slice = Duration::from_micros(slice);
        Config {
            allow_core_dumps: file.node.allow_core_dumps,
            socket,
            socket_mode: self.mode(file.control.mode.take()),
            access: self.access(file.control),
            audit: self.audit(file.audit),
            state_dir,
            keep_tables: file.keep_tables,
            provider: self.provider(file.crypto.provider),
            window_bits: self.power_of_two(
                file.crypto.window_bits,
                "crypto.window_bits",
                DEFAULT_WINDOW_BITS,
                MIN_WINDOW_BITS..=MAX_WINDOW_BITS,
            ),
            lane_limit: self.lane_limit(file.crypto.lane_limit),
            key_limits: Limits {
                packets: file.crypto.key_packets,
                bytes: file.crypto.key_bytes,
                seconds: file.crypto.key_seconds,
            },
            pool: self.pool(cpus, lanes, (idle, slice), file.memory),
            events: self.events(file.events),
            usage: self.usage(file.usage),
            name,
        }
    }

    fn name(&mut self, name: Option<Spanned<String>>) -> String {
        let Some(name) = name else {
            self.missing(0..0, "node.name");
            return String::new();
        };
        let good = |s: &str| {
            (1..=64).contains(&s.len())
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
                && s.as_bytes()[0].is_ascii_alphanumeric()
        };
        if !good(name.get_ref()) {
            self.wrong(
                name.span(),
                "node.name",
                format!("{:?} is no name", name.get_ref()),
                "write 1 to 64 letters, digits, `_`, `.` or `-`, the first a letter or digit",
            );
        }
        name.into_inner()
    }

    fn socket(&mut self, socket: Option<Spanned<PathBuf>>, name: &str) -> PathBuf {
        let Some(socket) = socket else {
            return Path::new(SOCKET_DIR).join(format!("{name}.sock"));
        };
        let length = socket.get_ref().as_os_str().len();
        if !socket.get_ref().is_absolute() {
            let reason = format!("{} is not absolute", socket.get_ref().display());
            self.wrong(
                socket.span(),
                "control.socket",
                reason,
                "write a path from `/`",
            );
        } else if length > MAX_SOCKET_PATH {
            let reason =
                format!("the path has {length} octets, a socket's may have {MAX_SOCKET_PATH}");
            self.wrong(
                socket.span(),
                "control.socket",
                reason,
                "write a shorter path",
            );
        }
        socket.into_inner()
    }

    fn directory(&mut self, given: Option<Spanned<PathBuf>>, field: &str, name: &str) -> PathBuf {
        let Some(directory) = given else {
            return Path::new(STATE_DIR).join(name);
        };
        if !directory.get_ref().is_absolute() {
            let reason = format!("{} is not absolute", directory.get_ref().display());
            self.wrong(directory.span(), field, reason, "write a path from `/`");
        }
        directory.into_inner()
    }

    fn mode(&mut self, mode: Option<Spanned<String>>) -> u32 {
        let Some(mode) = mode else { return 0o660 };
        match u32::from_str_radix(mode.get_ref(), 8) {
            Ok(bits) if bits <= 0o777 && bits & 0o600 == 0o600 => bits,
            _ => {
                let reason = format!(
                    "{:?} is no mode that lets the owner read and write",
                    mode.get_ref()
                );
                self.wrong(
                    mode.span(),
                    "control.mode",
                    reason,
                    "write octal digits such as \"0660\"",
                );
                0
            }
        }
    }

    pub(super) fn ids(
        &mut self,
        given: Vec<Spanned<NameOrNumber>>,
        field: &str,
        kind: Kind,
    ) -> Vec<u32> {
        let mut ids = Vec::new();
        for entry in given {
            match entry.get_ref() {
                NameOrNumber::Number(id) => ids.push(*id),
                NameOrNumber::Name(name) => match users::id_of(kind, name) {
                    Some(id) => ids.push(id),
                    None => self.wrong(
                        entry.span(),
                        field,
                        format!("{} has no {name:?}", kind.database()),
                        "correct the name or write its number",
                    ),
                },
            }
        }
        ids
    }

    fn provider(&mut self, provider: Option<Spanned<String>>) -> String {
        let Some(provider) = provider else {
            return DEFAULT_PROVIDER.to_owned();
        };
        if let Err(error) = twinseal_crypto::provider(provider.get_ref()) {
            let known = twinseal_crypto::provider_names();
            self.wrong(
                provider.span(),
                "crypto.provider",
                error.to_string(),
                format!("write one of {known:?}"),
            );
        }
        provider.into_inner()
    }

    fn lane_limit(&mut self, limit: Option<Spanned<u64>>) -> u64 {
        let Some(limit) = limit else {
            return MAX_COUNTER;
        };
        if !(1..=MAX_COUNTER).contains(limit.get_ref()) {
            let reason = format!("{} is out of range", limit.get_ref());
            self.wrong(
                limit.span(),
                "crypto.lane_limit",
                reason,
                format!("write 1 to {MAX_COUNTER}"),
            );
        }
        limit.into_inner()
    }

    fn power_of_two(
        &mut self,
        value: Option<Spanned<u32>>,
        field: &str,
        default: u32,
        range: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        let Some(value) = value else { return default };
        if !value.get_ref().is_power_of_two() || !range.contains(value.get_ref()) {
            let reason = format!("{} is no power of two in range", value.get_ref());
            let fix = format!(
                "write a power of two from {} to {}",
                range.start(),
                range.end()
            );
            self.wrong(value.span(), field, reason, fix);
        }
        value.into_inner()
    }

    /// The CPU of each worker, and lanes of a worker.
    fn workers(
        &mut self,
        count: Option<Spanned<u32>>,
        cpus: Option<Spanned<Vec<Spanned<usize>>>>,
        lanes: Option<Spanned<u8>>,
    ) -> (Vec<Option<usize>>, u8) {
        let most = u32::from(MAX_LANES);
        let cpus = match (count, cpus) {
            (Some(count), Some(_)) => {
                let reason = "workers.cpus says already how many there are";
                self.wrong(
                    count.span(),
                    "workers.count",
                    reason,
                    "remove one of the two",
                );
                Vec::new()
            }
            (None, Some(cpus)) => self.cpus(cpus),
            (Some(count), None) if !(1..=most).contains(count.get_ref()) => {
                let reason = format!("{} is out of range", count.get_ref());
                self.wrong(
                    count.span(),
                    "workers.count",
                    reason,
                    format!("write 1 to {most}"),
                );
                Vec::new()
            }
            (Some(count), None) => vec![None; count.into_inner() as usize],
            (None, None) => {
                let cpus = std::thread::available_parallelism().map_or(1, usize::from);
                vec![None; cpus.min(most as usize)]
            }
        };
        // A lane number is one octet, and every worker has its own lanes.
        let room = (usize::from(MAX_LANES) / cpus.len().max(1)).min(255) as u8;
        let Some(lanes) = lanes else {
            return (cpus, DEFAULT_LANES.min(room));
        };
        if !(1..=room).contains(lanes.get_ref()) {
            let reason = format!(
                "{} lanes of {} workers are not within 1 to {MAX_LANES} in all",
                lanes.get_ref(),
                cpus.len()
            );
            self.wrong(
                lanes.span(),
                "workers.lanes",
                reason,
                format!("write 1 to {room}"),
            );
        }
        (cpus, lanes.into_inner())
    }

    fn cpus(&mut self, cpus: Spanned<Vec<Spanned<usize>>>) -> Vec<Option<usize>> {
        const FIELD: &str = "workers.cpus";
        if !(1..=usize::from(MAX_LANES)).contains(&cpus.get_ref().len()) {
            let fix = format!("list 1 to {MAX_LANES} CPUs, or write workers.count");
            self.wrong(
                cpus.span(),
                FIELD,
                format!("lists {} CPUs", cpus.get_ref().len()),
                fix,
            );
        }
        let mut seen = BTreeSet::new();
        for cpu in cpus.get_ref() {
            let n = *cpu.get_ref();
            if !seen.insert(n) {
                let fix = "list each once: two pinned workers on one CPU starve each other";
                self.wrong(cpu.span(), FIELD, format!("CPU {n} is listed twice"), fix);
            } else if !Path::new("/sys/devices/system/cpu")
                .join(format!("cpu{n}"))
                .exists()
            {
                let fix = "list CPUs that `lscpu` shows";
                self.wrong(
                    cpu.span(),
                    FIELD,
                    format!("this machine has no CPU {n}"),
                    fix,
                );
            }
        }
        cpus.into_inner()
            .into_iter()
            .map(|cpu| Some(cpu.into_inner()))
            .collect()
    }

    fn pool(
        &mut self,
        cpus: Vec<Option<usize>>,
        lanes: u8,
        (idle, slice): (workers::Idle, Duration),
        memory: Memory,
    ) -> PoolConfig {
        let ring = self.power_of_two(memory.ring, "memory.ring", DEFAULT_RING, 64..=MAX_RING);
        let frame_size = memory.frame_size.map_or(2048, |size| {
            if !matches!(size.get_ref(), 2048 | 4096) {
                let reason = format!("{} is no size of a frame", size.get_ref());
                self.wrong(
                    size.span(),
                    "memory.frame_size",
                    reason,
                    "write 2048 or 4096",
                );
            }
            size.into_inner()
        });
        let frames = memory
            .frames
            .map_or(DEFAULT_FRAMES.max(ring.saturating_mul(8)), |frames| {
                // A port that receives and sends fills two rings; less than that cannot work at all.
                let least = ring.saturating_mul(2);
                if !(least..=MAX_FRAMES).contains(frames.get_ref()) {
                    let reason =
                        format!("{} is out of range for rings of {ring}", frames.get_ref());
                    self.wrong(
                        frames.span(),
                        "memory.frames",
                        reason,
                        format!("write {least} to {MAX_FRAMES}"),
                    );
                }
                frames.into_inner()
            });
        let jumbo_frames = memory.jumbo_frames.map_or(DEFAULT_JUMBO_FRAMES, |frames| {
            if *frames.get_ref() > MAX_JUMBO_FRAMES {
                self.wrong(
                    frames.span(),
                    "memory.jumbo_frames",
                    format!("{} is out of range", frames.get_ref()),
                    format!("write 0 to {MAX_JUMBO_FRAMES}"),
                );
            }
            frames.into_inner()
        });
        let huge_pages = match memory.huge_pages {
            Huge::Auto => HugePages::Auto,
            Huge::Never => HugePages::Never,
            Huge::Require => HugePages::Require,
        };
        PoolConfig {
            cpus,
            frames,
            frame_size,
            jumbo_frames,
            huge_pages,
            ring,
            idle,
            slice,
            lanes,
        }
    }
}
