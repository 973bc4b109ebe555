//! `twinseal.toml`: what a node must know before a controller can talk to it.
//!
//! Every mistake is reported with file, line, column, field and fix, and all of them at once. Only `node.name` must be
//! given; `docs/examples` has files with all fields explained.

mod access;
mod collect;
mod file;
mod sinks;
mod users;

use std::path::{Path, PathBuf};

use twinseal_access::AccessConfig;
use twinseal_base::mistake::{Mistake, Source, lines};
use twinseal_model::state::Limits;
use twinseal_node::events::file::EventsConfig;
use twinseal_node::jsonl::Output;
use twinseal_node::usage::UsageConfig;
use twinseal_runtime::workers::PoolConfig;

/// A node's configuration, checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The node's name: 1 to 64 of `A-Z a-z 0-9 _ . -`, the first a letter or digit.
    pub name: String,
    /// Whether a core dump of the process may be written, with the secrets in it. Off unless asked for.
    pub allow_core_dumps: bool,
    /// The control socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub socket_mode: u32,
    /// Who may do what: root and the daemon's own user everything, and those configured.
    pub access: AccessConfig,
    /// The file of the audit log.
    pub audit: Option<Output>,
    /// Where the burned secrets are recorded. It must outlive restarts.
    pub state_dir: PathBuf,
    /// Whether the tables are stored there, and restored at the start.
    pub keep_tables: bool,
    /// The library that seals and opens.
    pub provider: String,
    /// Bits of a replay window: a power of two.
    pub window_bits: u32,
    /// The first counter of a lane that is not used: a key is exhausted there.
    pub lane_limit: u64,
    /// When a key stops to transmit, unless it says otherwise itself.
    pub key_limits: Limits,
    /// The workers and their packet memory.
    pub pool: PoolConfig,
    /// Where events go.
    pub events: EventsConfig,
    /// How usage is accounted.
    pub usage: UsageConfig,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if it cannot be read, [`ConfigError::Invalid`] with every mistake in it.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file; `path` is only for messages.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every mistake in it.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        file::parse(&Source { path, text }).map_err(ConfigError::Invalid)
    }
}

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}: {source}; name a readable file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{}", lines(.0))]
    Invalid(Vec<Mistake>),
}

#[cfg(test)]
mod tests;
