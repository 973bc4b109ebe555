//! A small client of etcd's v3 API: read a prefix at one revision, watch prefixes from a revision on, put under a lease.
//!
//! It is here because the crate `etcd-client` needs protoc to build, which Twinseal does without. What it knows:
//!
//! - a cluster has several members: a call that a member does not answer is made at the next one ([`Client`]);
//! - a watch goes on where it ended, at another member ([`Client::watch`] from the revision after the last one seen),
//!   and says so if etcd has compacted what was missed ([`Change::Compacted`]);
//! - a member that lost its cluster is left (etcd's `hasleader`), and one that went silent too (keepalive);
//! - a token that expired, or that a restarted member forgot, is asked for again, with the password of then;
//! - members are spoken with by TLS, or by plain HTTP on this machine.

#![forbid(unsafe_code)]

mod client;
mod config;
mod error;
mod watch;

#[allow(missing_docs, clippy::all, unreachable_pub)]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

pub use client::{Client, Entry, Lease, Snapshot};
pub use config::{Config, Source, Tls, User};
pub use error::EtcdError;
pub use watch::{Change, Watch};

/// The end of the range of all keys that begin with `prefix` (etcd's `range_end`).
fn range_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // All octets are 0xff, or there is none: up to the last key.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::range_end;

    #[test]
    fn a_range_ends_after_its_prefix() {
        assert_eq!(range_end(b"/a/"), b"/a0");
        assert_eq!(range_end(&[1, 0xff]), [2]);
        assert_eq!(range_end(&[0xff]), [0]);
        assert_eq!(range_end(b""), [0]);
    }
}
