//! Why a call failed.

use tonic::{Code, Status};

/// Why a call failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EtcdError {
    /// An endpoint is no URL.
    #[error("{endpoint:?} is no endpoint ({reason}): write http://host:port")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// No member answered.
    #[error("no member of etcd answers ({tried}): see to the cluster, or name other endpoints")]
    Unreachable {
        /// Each endpoint and what came of it.
        tried: String,
    },
    /// Name, password, certificate or role.
    #[error("etcd refuses: {0}; see to the user, its password and its roles")]
    Denied(String),
    /// The lease ran out.
    #[error("the lease ran out")]
    LeaseLost,
    /// Anything else that etcd says.
    #[error("etcd: {0}")]
    Failed(String),
}

/// Whether another member may answer where this one did not.
pub(crate) fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::Internal
    ) || status.code() == Code::Unknown && std::error::Error::source(status).is_some()
}

/// Whether the token is to be asked for again.
pub(crate) fn is_stale_token(status: &Status) -> bool {
    status.code() == Code::Unauthenticated && status.message().contains("invalid auth token")
        || status.message().contains("revision of auth store is old")
}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        let said = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied(said),
            Code::InvalidArgument if said.contains("authentication failed") => Self::Denied(said),
            Code::NotFound if said.contains("lease") => Self::LeaseLost,
            _ if is_transient(&status) => Self::Unreachable { tried: said },
            _ => Self::Failed(said),
        }
    }
}
