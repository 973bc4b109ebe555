//! Why a state directory is not used, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use twinseal_crypto::{BurnError, Fingerprint};

use crate::store::StoreError;
use crate::usage;

/// Why a state directory is not used, or not for secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDirError {
    /// Another process uses it.
    #[error("the state directory {} is in use by {}", .path.display(), holder(.pid))]
    InUse {
        /// Where.
        path: PathBuf,
        /// Who, if that can be told.
        pid: Option<u32>,
    },
    /// It is not there.
    #[error("there is no state directory {}", .path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It is there, and nothing in it.
    #[error("the state directory {} was never initialised", .path.display())]
    NotInitialised {
        /// Where.
        path: PathBuf,
    },
    /// It came when the node had tables already, and has others.
    #[error("the state directory {} came while the node ran, and has stored tables", .path.display())]
    Late {
        /// Where.
        path: PathBuf,
    },
    /// How far it went cannot be told.
    #[error("{why}")]
    Newest {
        /// What is wrong with the file that says it.
        why: String,
    },
    /// Its path depends on where a program is started.
    #[error("the state directory {} is no absolute path", .path.display())]
    Relative {
        /// The path.
        path: PathBuf,
    },
    /// To be initialised, and it has been.
    #[error("the state directory {} was initialised already", .path.display())]
    Initialised {
        /// Where.
        path: PathBuf,
    },
    /// Others might have written it.
    #[error("{} {why}", .path.display())]
    Unsafe {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The memory of burned secrets cannot be relied on.
    #[error(transparent)]
    Burned(#[from] BurnError),
    /// It lacks a secret that the stored tables transmit with.
    #[error("{} has lost lines: it lacks the secret {fingerprint}, which the stored tables transmit with", .path.display())]
    Forgotten {
        /// The file.
        path: PathBuf,
        /// Which secret.
        fingerprint: Fingerprint,
    },
    /// The stored tables.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store of usage.
    #[error(transparent)]
    Usage(#[from] usage::StoreError),
    /// A call failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    match pid {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}

impl StateDirError {
    /// What to do about it.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "stop that, or give each node a state directory of its own",
            Self::Missing { .. } => {
                "mount what it is on; for a node that never ran make it with `twinseal init`"
            }
            Self::NotInitialised { .. } => {
                "mount what should be there; for a node that never ran use `twinseal init`"
            }
            Self::Late { .. } => "restart the node: it then goes on from these",
            Self::Initialised { .. } => {
                "there is nothing to do; if its memory of burned secrets is lost, replace all secrets of the node, then \
                 use --secrets-replaced"
            }
            Self::Unsafe { .. } => {
                "see to who wrote it; then have it belong to the node's user and be written by nobody else"
            }
            Self::Relative { .. } => {
                "give the path from /, as `state_dir` of the configuration has it"
            }
            Self::Burned(BurnError::Locked { .. }) => {
                "stop that process, or give each node a state directory of its own; it is looked at again every second"
            }
            Self::Burned(BurnError::Unsafe { .. }) => {
                "see to who wrote it; then have it belong to the node's user and be written by nobody else"
            }
            Self::Store(StoreError::KeyMode { .. }) => {
                "if nobody else has read it, chmod 600 and the node goes on; else stop the node, remove the file, and do as if \
                 `burned` were lost"
            }
            Self::Store(StoreError::Io { .. }) | Self::Burned(BurnError::Io { .. }) => {
                "see to the disk and its permissions"
            }
            Self::Burned(_)
            | Self::Forgotten { .. }
            | Self::Newest { .. }
            | Self::Store(StoreError::Key { .. } | StoreError::KeyMissing { .. }) => {
                "put the right file back and restart the node; else replace all secrets of this node by new ones, stop it, use \
                 `twinseal init --secrets-replaced`, and start it"
            }
            Self::Usage(_) | Self::Io { .. } => "see to the disk and its permissions",
        }
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
