//! Why a call failed.

use tonic::{Code, Status};

/// Why a call failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EtcdError {
    /// An endpoint is no URL.
    #[error("{endpoint:?} is no endpoint ({reason}): write https://host:port")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
    /// An endpoint is elsewhere, and what is spoken with it is not encrypted.
    #[error(
        "{0}: the password and the nodes' secrets would pass the network in the clear: write https://host:port and say who \
         issued its certificate, or allow plain HTTP where the network is trusted"
    )]
    Plain(String),
    /// A password or a certificate could not be read.
    #[error("{0}")]
    Unreadable(String),
    /// A certificate or key is none.
    #[error("the certificates for etcd: {0}; give PEM files")]
    Tls(String),
    /// Nothing says whom to trust.
    #[error(
        "{0}: https needs to know who issued the member's certificate: give the issuer's certificate, PEM"
    )]
    NoIssuer(String),
    /// The member that was spoken with went away, or does not answer. Others may: whoever is asked next tells.
    #[error("a member of etcd went away: {0}")]
    MemberLost(String),
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

/// What etcd says of a token that it does not know (any more), as after a restart, or that is older than a change of users.
const STALE_TOKEN: [&str; 3] = [
    "invalid auth token",
    "revision of auth store is old",
    // The token was of a time when there was no authentication.
    "user name is empty",
];

/// Whether the token is to be asked for again.
pub(crate) fn is_stale_token(status: &Status) -> bool {
    STALE_TOKEN
        .iter()
        .any(|said| status.message().contains(said))
}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        let said = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Self::Denied(said),
            Code::InvalidArgument if said.contains("authentication failed") => Self::Denied(said),
            Code::NotFound if said.contains("lease") => Self::LeaseLost,
            _ if is_transient(&status) => Self::MemberLost(said),
            _ => Self::Failed(said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_died_is_told_from_a_refusal() {
        for stale in [
            Status::unauthenticated("etcdserver: invalid auth token"),
            Status::unavailable("etcdserver: invalid auth token"),
            Status::invalid_argument("etcdserver: revision of auth store is old"),
        ] {
            assert!(is_stale_token(&stale), "{stale:?}");
        }
        for other in [
            Status::permission_denied("etcdserver: permission denied"),
            Status::invalid_argument(
                "etcdserver: authentication failed, invalid user ID or password",
            ),
        ] {
            assert!(!is_stale_token(&other), "{other:?}");
            assert!(matches!(EtcdError::from(other), EtcdError::Denied(_)));
        }
        // That one is gone says nothing of the others.
        let gone = EtcdError::from(Status::internal("h2 protocol error"));
        assert_eq!(
            gone.to_string(),
            "a member of etcd went away: h2 protocol error"
        );
    }
}
