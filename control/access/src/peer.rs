//! Who is at the other end of a connection.

use std::mem::size_of;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::{fmt, io};

use serde_json::{Value, json};
use tokio::net::UnixStream;

use super::names::San;
use super::tls::Trust;
use twinseal_base::text::word;

/// Names of a certificate that are taken down.
const NAMES: usize = 16;

/// The other end.
#[derive(Debug)]
pub enum Peer {
    /// A process of this machine, as the kernel knew it when it connected.
    Unix {
        /// Its effective user.
        uid: u32,
        /// Its effective group.
        gid: u32,
        /// Its supplementary groups.
        groups: Vec<u32>,
        /// Its number, where the kernel tells.
        pid: Option<i32>,
    },
    /// Whoever has the key of a certificate that we trust.
    Tls {
        /// From where.
        address: SocketAddr,
        /// What the certificate is for.
        names: Vec<San>,
        /// Whether the certificate still holds.
        trust: Trust,
    },
}

impl Peer {
    /// Of a connected socket.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self::Unix {
            uid: peer.uid(),
            gid: peer.gid(),
            groups: groups(stream)?,
            pid: peer.pid(),
        })
    }

    /// What makes it one client, whatever its connection: it has its rate and its streams by this.
    pub fn identity(&self) -> String {
        match self {
            Self::Unix { uid, .. } => format!("uid {uid}"),
            Self::Tls { names, .. } => match names.first() {
                Some(name) => word(&name.to_string()).into_owned(),
                None => "a certificate without names".to_owned(),
            },
        }
    }

    /// For the audit log.
    pub fn json(&self) -> Value {
        match self {
            Self::Unix { uid, gid, pid, .. } => json!({ "uid": uid, "gid": gid, "pid": pid }),
            Self::Tls { address, names, .. } => {
                let names = names.iter().take(NAMES);
                let names = names.map(|name| word(&name.to_string()).into_owned());
                let names: Vec<_> = names.collect();
                json!({ "names": names, "address": address.to_string() })
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { uid, gid, .. } => write!(f, "user {uid} (group {gid})"),
            Self::Tls { address, .. } => write!(f, "{} at {address}", self.identity()),
        }
    }
}

/// The supplementary groups that the peer had when it connected: `SO_PEERGROUPS` of socket(7), which unlike
/// `/proc/PID/status` cannot be of another process that has the number by now.
fn groups(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut length = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: the descriptor is open as `stream` is borrowed; `groups` has `length` octets of initialised memory,
        // which any value may be written to, and `length` is the kernel's to change.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let wanted = length as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(wanted);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // It says how much there is.
        if error.raw_os_error() != Some(libc::ERANGE) || wanted <= groups.len() {
            return Err(error);
        }
        groups.resize(wanted, 0);
    }
}
