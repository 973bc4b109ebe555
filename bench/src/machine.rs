//! What results are of: the machine, its kernel, and this program.
//!
//! Every result carries one, so that figures can be judged, compared and made again.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use twinseal_base::time::rfc3339;

/// Features of a processor that sealing is faster with, as the kernel names them.
const FEATURES: [&str; 6] = ["aes", "pclmulqdq", "avx2", "vaes", "vpclmulqdq", "avx512f"];

/// The machine, its kernel, and the program that measures.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// When the measurement began, in UTC by RFC 3339.
    pub date: String,
    /// The command line that makes the results again.
    pub command: String,
    /// This program's version.
    pub version: String,
    /// The commit of the checkout that the program lies in, with `-dirty` if files differ from it; none outside of one.
    pub commit: Option<String>,
    /// Whether the compiler optimised; if not, times mean nothing.
    pub optimised: bool,
    /// The processor, as the kernel names it.
    pub cpu: String,
    /// Processors that this program may run on.
    pub cpus: usize,
    /// Those of the processor's features that sealing is faster with.
    pub features: Vec<String>,
    /// The instruction set: `x86_64`, `aarch64`.
    pub arch: String,
    /// Who decides on the clock rate; none where the kernel does not say, as in most virtual machines.
    pub governor: Option<String>,
    /// Whether a hypervisor is below: others may share the machine.
    pub virtual_machine: bool,
    /// The kernel's release.
    pub kernel: String,
    /// The distribution.
    pub os: String,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let cpuinfo = read("/proc/cpuinfo").unwrap_or_default();
        let flags = field(&cpuinfo, "flags").or(field(&cpuinfo, "Features"));
        let has = |feature: &str| flags.unwrap_or_default().split(' ').any(|f| f == feature);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            date: rfc3339(now.map_or(0, |since| since.as_nanos() as u64)),
            command: command(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit(),
            optimised: !cfg!(debug_assertions),
            cpu: field(&cpuinfo, "model name").unwrap_or("unknown").into(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            features: FEATURES
                .into_iter()
                .filter(|feature| has(feature))
                .map(Into::into)
                .collect(),
            arch: std::env::consts::ARCH.into(),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtual_machine: has("hypervisor"),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            os: read("/etc/os-release")
                .as_deref()
                .and_then(os_name)
                .unwrap_or_else(|| "unknown".into()),
        }
    }
}

impl fmt::Display for Machine {
    /// Lines without an end of line after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu, cpus, kernel, ..
        } = self;
        write!(f, "{cpu}, {cpus} CPUs")?;
        if self.virtual_machine {
            write!(f, " of a virtual machine")?;
        }
        if let Some(governor) = &self.governor {
            write!(f, ", governor {governor}")?;
        }
        write!(f, "; Linux {kernel}, {}", self.os)?;
        write!(f, "\ntwinseal {}", self.version)?;
        if let Some(commit) = &self.commit {
            write!(f, " ({commit})")?;
        }
        write!(f, ", {}: {}", self.date, self.command)?;
        if !self.optimised {
            write!(
                f,
                "\nNOT OPTIMISED: build with --release, or the times mean nothing"
            )?;
        }
        Ok(())
    }
}

/// A file's text, without white space around it.
fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The value of the first line `name : value` of /proc/cpuinfo.
fn field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(key, _)| key.trim() == name)?;
    Some(value.trim())
}

fn os_name(os_release: &str) -> Option<String> {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').into())
}

/// How this program was called; of its path only the name, which is the same everywhere.
fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut()
        && let Some(name) = Path::new(program.as_str()).file_name()
    {
        *program = name.to_string_lossy().into_owned();
    }
    words.join(" ")
}

fn commit() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let git = Command::new("git")
        .arg("-C")
        .arg(program.parent()?)
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()?;
    let text = String::from_utf8(git.stdout).ok()?;
    (git.status.success() && !text.trim().is_empty()).then(|| text.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_found() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: A: fast one\nflags\t\t: fpu vaes\n\nprocessor\t: 1\n";
        assert_eq!(field(cpuinfo, "model name"), Some("A: fast one"));
        assert_eq!(field(cpuinfo, "flags"), Some("fpu vaes"));
        assert_eq!(field(cpuinfo, "bugs"), None);
        let name = os_name("NAME=\"X\"\nPRETTY_NAME=\"X 12\"\n");
        assert_eq!(name.as_deref(), Some("X 12"));
    }

    #[test]
    fn this_machine_is_known_and_read_back() {
        let this = Machine::this();
        assert!(this.cpus > 0);
        assert!(!this.kernel.is_empty() && !this.kernel.contains('\n'));
        let json = serde_json::to_string(&this).unwrap();
        assert_eq!(serde_json::from_str::<Machine>(&json).unwrap(), this);
        let text = this.to_string();
        assert!(
            text.contains(&this.cpu) && text.contains(&this.date),
            "{text}"
        );
        assert_eq!(text.contains("NOT OPTIMISED"), cfg!(debug_assertions));
    }
}
