//! Who may do what: peers, roles, and limits on what each may take.
//!
//! ```text
//! listen (Unix socket, TLS) -> Conn { Peer } -> Guard (role, rate, streams) -> server
//! ```
//!
//! The rules are looked at for every request, so what is reloaded holds for connections that are open already.

pub mod guard;
pub mod listen;
pub mod names;
pub mod tls;

mod budget;
mod clients;
mod displaced;
mod meter;
mod peer;
mod places;
mod scrub;
mod why;
pub mod words;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use twinseal_api::v1;

use budget::Budget;
pub use budget::Charge;
use clients::Clients;
pub use clients::Refusals;
use names::NameRule;
pub use peer::Peer;
use scrub::Scrub;
use tls::{Identity, TlsError};

/// What a client may do; each may also do what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Look.
    Viewer,
    /// Also act on the running node: drain, trace, capture, ping.
    Operator,
    /// Also change what it does.
    Admin,
}

impl Role {
    /// As the API has it.
    pub fn number(self) -> v1::Role {
        match self {
            Self::Viewer => v1::Role::Viewer,
            Self::Operator => v1::Role::Operator,
            Self::Admin => v1::Role::Admin,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// Who has which role, and how much of the node clients may take.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct AccessConfig {
    /// Users of the Unix socket.
    pub users: Vec<(u32, Role)>,
    /// Groups, also supplementary ones.
    pub groups: Vec<(u32, Role)>,
    /// TCP with mutual TLS.
    pub tls: Option<TlsConfig>,
    /// Limits.
    pub limits: Limits,
}

/// Mutual TLS 1.3.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsConfig {
    /// Where to listen. It does not change while the node runs.
    pub listen: SocketAddr,
    /// The node's certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Who issues clients' certificates, PEM.
    pub client_ca: PathBuf,
    /// Which names in clients' certificates have which role.
    pub names: Vec<(NameRule, Role)>,
}

/// How much of the node clients may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Octets of a message.
    pub message_bytes: usize,
    /// Requests a second of one client, who may save up two seconds' worth.
    pub requests_per_second: u32,
    /// Requests and streams of one client that are under way at a time; some of them are kept from streams without end, and
    /// some for what admins do.
    pub streams: u32,
    /// Connections at a time, on the socket and as many over TLS.
    pub connections: u32,
    /// Connections of one client, on each of the two.
    pub client_connections: u32,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a connection may be silent; the node asks for a sign of life three times as often.
    pub idle: Duration,
    /// How long a request may take to come in and be done; streams of answers may last.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 64 << 20,
            requests_per_second: 1000,
            streams: 64,
            connections: 64,
            client_connections: 16,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            request: Duration::from_secs(120),
        }
    }
}

/// The rules in force. Clones share them.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    rules: RwLock<Arc<Rules>>,
    clients: Clients,
    budget: Arc<Budget>,
}

/// What was made of a configuration.
struct Rules {
    /// Told apart from those before.
    number: u64,
    config: AccessConfig,
    tls: Option<Identity>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.config(), f)
    }
}

impl Access {
    /// Reads certificates and keys.
    pub fn new(config: AccessConfig) -> Result<Self, TlsError> {
        Ok(Self::of(Rules::new(config, 0)?))
    }

    /// Users that may do all, and nobody else.
    pub fn admins(uids: impl IntoIterator<Item = u32>) -> Self {
        let config = AccessConfig {
            users: uids.into_iter().map(|uid| (uid, Role::Admin)).collect(),
            ..Default::default()
        };
        let rules = Rules {
            number: 0,
            config,
            tls: None,
        };
        Self::of(rules)
    }

    fn of(rules: Rules) -> Self {
        Self(Arc::new(Shared {
            clients: Clients::default(),
            budget: Budget::new(rules.config.limits.message_bytes),
            rules: RwLock::new(Arc::new(rules)),
        }))
    }

    /// Takes other rules, certificates and keys, or keeps the present ones if these are not sound.
    pub fn reload(&self, config: AccessConfig) -> Result<(), TlsError> {
        let number = self.rules().number + 1;
        let rules = Arc::new(Rules::new(config, number)?);
        *self
            .0
            .rules
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = rules;
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> AccessConfig {
        self.rules().config.clone()
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.rules().config.limits
    }

    /// Room for an answer of so many bytes: to be put into the extensions of its response, so that it is held until all of it
    /// was taken.
    ///
    /// # Errors
    /// In words, if its client or all have too much under way.
    pub fn room(&self, caller: &Caller, bytes: usize) -> Result<Arc<Charge>, String> {
        let mut charge = self.charge(caller);
        charge
            .set(bytes)
            .map_err(|overdrawn| overdrawn.to_string())?;
        Ok(Arc::new(charge))
    }

    fn charge(&self, caller: &Caller) -> Charge {
        let client = caller.peer.identity();
        Charge::new(&self.0.budget, &client, caller.role == Role::Admin)
    }

    /// Requests and connections that were refused, by reason, since the node began.
    pub fn refusals(&self) -> Vec<(&'static str, u64)> {
        self.0.clients.refusals()
    }

    /// The same with their peers, since the last call.
    pub fn take_refusals(&self) -> Refusals {
        self.0.clients.take_refusals()
    }

    fn rules(&self) -> Arc<Rules> {
        let rules = self.0.rules.read();
        Arc::clone(&rules.unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The peer's role under the rules in force.
    pub fn role(&self, peer: &Peer) -> Option<Role> {
        self.rules().role(peer)
    }
}

impl Access {
    /// Why the peer's certificate does not hold any more, if it does not.
    fn distrust(&self, peer: &Peer) -> Option<String> {
        let Peer::Tls { trust, .. } = peer else {
            return None;
        };
        let rules = self.rules();
        trust.verdict(rules.tls.as_ref()?, rules.number).err()
    }
}

impl Rules {
    fn new(config: AccessConfig, number: u64) -> Result<Self, TlsError> {
        let tls = config.tls.as_ref().map(Identity::read).transpose()?;
        Ok(Self {
            number,
            config,
            tls,
        })
    }

    fn role(&self, peer: &Peer) -> Option<Role> {
        match peer {
            Peer::Unix {
                uid, gid, groups, ..
            } => {
                let users = self.config.users.iter().filter(|(id, _)| id == uid);
                let groups = self
                    .config
                    .groups
                    .iter()
                    .filter(|(id, _)| id == gid || groups.contains(id));
                users.chain(groups).map(|(_, role)| *role).max()
            }
            Peer::Tls { names, trust, .. } => {
                let config = self.config.tls.as_ref()?;
                trust.verdict(self.tls.as_ref()?, self.number).ok()?;
                let rules = config.names.iter();
                rules
                    .filter(|(rule, _)| names.iter().any(|name| rule.matches(name)))
                    .map(|(_, role)| *role)
                    .max()
            }
        }
    }
}

/// Who sent a request, and what they may do; every request has it.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub peer: Arc<Peer>,
    /// As what.
    pub role: Role,
    /// Held while an answer is made that takes long: one at a time for each client.
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Of its connection.
    scrub: Arc<Scrub>,
}

impl Caller {
    /// Its request had secrets, which are not to stay in its connection's buffers.
    pub fn scrub(&self) {
        self.scrub.ask();
    }
}

/// The least role that may call a method; an unknown one is for those who may do all.
pub fn needed(method: &str) -> Role {
    match method {
        "Get" | "List" | "Stats" | "ListStats" | "Watch" | "Usage" | "Explain" => Role::Viewer,
        // Of reflection and of the health service, which has a List and a Watch too.
        "ServerReflectionInfo" | "Check" => Role::Viewer,
        "Drain" | "Trace" | "Capture" | "Ping" => Role::Operator,
        _ => Role::Admin,
    }
}

/// Whether a method's answer goes on for as long as its client likes, so that it holds its place.
pub fn endless(method: &str) -> bool {
    matches!(
        method,
        "Watch" | "Trace" | "Capture" | "Ping" | "ServerReflectionInfo"
    )
}
