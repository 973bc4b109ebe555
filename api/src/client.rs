//! A client of the control protocol: connects, asks again when a connection breaks, and follows events without losing one
//! unseen.
//!
//! ```no_run
//! use twinseal_api::client::{Address, Client, delete, set};
//! use twinseal_api::v1::{self, item::Item, item_ref};
//!
//! # async fn example() -> Result<(), twinseal_api::client::Error> {
//! let mut node = Client::connect(Address::socket("/run/twinseal/a.sock")).await?;
//! let applied = node
//!     .apply(v1::ApplyRequest {
//!         changes: vec![
//!             set(Item::Vrf(v1::Vrf { name: "red".into() })),
//!             delete(item_ref::Item::Vrf("blue".into())),
//!         ],
//!         ..Default::default()
//!     })
//!     .await?;
//! println!("generation {}", applied.generation);
//!
//! let mut events = node.events([v1::EventKind::Fault]);
//! loop {
//!     println!("{:?}", events.next().await?);
//! }
//! # }
//! ```
//!
//! Calls that have nothing added here are those of [`ControlClient`], which [`Client`] derefs to.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use prost::Message;
use tokio::time::{Instant, sleep};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};
use zeroize::Zeroizing;

use crate::errors;
use crate::v1::{self, control_client::ControlClient};

/// Octets of items in a message of a Replace: well below what a node takes.
const CHUNK: usize = 1 << 20;
/// How long a call goes on trying to reach a node, unless [`Client::set_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const RETRY: Duration = Duration::from_millis(250);

/// Where a node is, and how to come to it.
#[derive(Clone, Debug)]
pub enum Address {
    /// Its Unix socket. It knows its clients by the credentials of their processes.
    Socket(PathBuf),
    /// Its TCP port. Both ends show certificates.
    Tls(Box<Tls>),
}

/// How to come to a node over TLS 1.3.
#[derive(Clone)]
pub struct Tls {
    /// `HOST:PORT`; an IPv6 address in brackets.
    pub address: String,
    /// Who issued the node's certificate, PEM.
    pub ca: Vec<u8>,
    /// Our certificate, with those between it and its issuer, PEM.
    pub certificate: Vec<u8>,
    /// Its private key, PEM.
    pub key: Zeroizing<Vec<u8>>,
    /// The DNS name or address in the node's certificate; `None`: HOST.
    pub name: Option<String>,
}

impl fmt::Debug for Tls {
    /// All but the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("address", &self.address)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tls(tls) => f.write_str(&tls.address),
        }
    }
}

impl Address {
    /// A node's Unix socket.
    pub fn socket(path: impl Into<PathBuf>) -> Self {
        Self::Socket(path.into())
    }

    fn endpoint(&self) -> Result<Endpoint, String> {
        match self {
            Self::Socket(path) => {
                let path = path.to_str().ok_or(
                    "the socket's path is not UTF-8: give the node another in control.socket",
                )?;
                Endpoint::from_shared(format!("unix:{path}")).map_err(|error| error.to_string())
            }
            Self::Tls(tls) => {
                let host = tls.address.rsplit_once(':').map(|(host, _)| host);
                let host = host.ok_or("it has no port: write HOST:PORT")?;
                let host = host.trim_matches(['[', ']']);
                let config = ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(&tls.ca))
                    .identity(Identity::from_pem(&tls.certificate, &*tls.key))
                    .domain_name(tls.name.as_deref().unwrap_or(host));
                Endpoint::from_shared(format!("https://{}", tls.address))
                    .and_then(|endpoint| endpoint.tls_config(config))
                    .map_err(|error| format!("these certificates cannot be used: {error}"))
            }
        }
    }
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address makes no sense.
    #[error("{address}: {reason}")]
    Address {
        /// Which.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The node refused our certificate, or we its.
    #[error("{0}")]
    Untrusted(String),
    /// Nobody answers there.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// The node refused it and changed nothing.
    #[error("{}", refusal_text(.0))]
    Refused(v1::Refusal),
    /// We may not.
    #[error("{1}")]
    Denied(v1::AccessDenied, String),
    /// The connection broke, or the node is stopping, and it did not come back in time.
    #[error("the node went away: {}", .0.message())]
    Gone(Status),
    /// Any other failure.
    #[error("{}", .0.message())]
    Call(Status),
}

/// Whose certificate was refused and why, if that is what an error comes from.
pub fn untrusted(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // HTTP/2 keeps only the text of what broke its connection.
        let text = error.to_string();
        if let Some((_, alert)) = text.split_once("received fatal alert: ") {
            return refused_ours(alert).map(str::to_owned);
        }
        let within = error.downcast_ref::<std::io::Error>();
        let within = within.and_then(|error| error.get_ref());
        if let Some(tls) = within.and_then(|within| within.downcast_ref::<rustls::Error>()) {
            return refused_theirs(tls);
        }
        cause = error.source();
    }
    None
}

/// What an alert of the node's says of our certificate.
fn refused_ours(alert: &str) -> Option<&'static str> {
    let name = alert.split(|it: char| !it.is_ascii_alphanumeric()).next();
    Some(match name.unwrap_or_default() {
        "CertificateExpired" => {
            "the node refused our certificate: it has expired, or is not valid yet; renew it, or set the clocks"
        }
        "UnknownCA" => {
            "the node refused our certificate: its issuer is not in the node's control.tls.client_ca"
        }
        "UnsupportedCertificate" => {
            "the node refused our certificate: it is not for TLS clients; have one issued with extended key usage clientAuth"
        }
        "CertificateRequired" => "the node wants to see a certificate: give one",
        "CertificateRevoked" => "the node refused our certificate: it was revoked",
        "BadCertificate" | "CertificateUnknown" | "DecryptError" | "AccessDenied" => {
            "the node refused our certificate; its log says why"
        }
        _ => return None,
    })
}

/// Why we refused the node's certificate.
fn refused_theirs(error: &rustls::Error) -> Option<String> {
    use rustls::CertificateError as Is;
    let words = match error {
        rustls::Error::InvalidCertificate(error) => match error {
            Is::UnknownIssuer => {
                "the node's certificate is not of an issuer that we trust: name its issuer's certificate"
            }
            Is::Expired | Is::ExpiredContext { .. } => {
                "the node's certificate has expired: renew it"
            }
            Is::NotValidYet | Is::NotValidYetContext { .. } => {
                "the node's certificate is not valid yet: set the clocks"
            }
            Is::NotValidForName | Is::NotValidForNameContext { .. } => {
                "the node's certificate is for another name: say which, or have one issued for this"
            }
            Is::InvalidPurpose | Is::InvalidPurposeContext { .. } => {
                "the node's certificate is not for TLS servers: have one issued with extended key usage serverAuth"
            }
            error => return Some(format!("the node's certificate does not hold: {error}")),
        },
        _ => return None,
    };
    Some(words.to_owned())
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some(reason) = untrusted(&status) {
            return Self::Untrusted(reason);
        }
        match status.code() {
            Code::Unavailable | Code::Cancelled => return Self::Gone(status),
            // The transport reports a connection that broke in a call so.
            Code::Unknown if std::error::Error::source(&status).is_some() => {
                return Self::Gone(status);
            }
            Code::PermissionDenied => {
                if let Some(denied) = errors::detail::<v1::AccessDenied>(&status) {
                    let message = status.message().to_owned();
                    return Self::Denied(denied, message);
                }
            }
            Code::InvalidArgument | Code::FailedPrecondition | Code::ResourceExhausted => {
                if let Some(refusal) = errors::detail::<v1::Refusal>(&status) {
                    return Self::Refused(refusal);
                }
            }
            _ => {}
        }
        Self::Call(status)
    }
}

fn refusal_text(refusal: &v1::Refusal) -> String {
    let one = |it: &v1::RefusedItem| {
        let parts = [&it.item, &it.field, &it.reason];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let parts: Vec<_> = parts.map(String::as_str).collect();
        match it.fix.as_str() {
            "" => parts.join(": "),
            fix => format!("{}; {fix}", parts.join(": ")),
        }
    };
    let items: Vec<_> = refusal.items.iter().map(one).collect();
    items.join("\n")
}

/// A change that makes an item, or replaces the one of its name.
pub fn set(item: v1::item::Item) -> v1::Change {
    let item = v1::Item {
        item: Some(item),
        ..Default::default()
    };
    v1::Change {
        change: Some(v1::change::Change::Set(item)),
    }
}

/// A change that deletes an item.
pub fn delete(item: v1::item_ref::Item) -> v1::Change {
    let item = v1::ItemRef { item: Some(item) };
    v1::Change {
        change: Some(v1::change::Change::Delete(item)),
    }
}

/// A connection to a node; clones share it. It is made anew by itself when it breaks.
#[derive(Clone, Debug)]
pub struct Client {
    control: ControlClient<Channel>,
    patience: Duration,
    waiting: Option<fn(&str, Duration)>,
}

impl Deref for Client {
    type Target = ControlClient<Channel>;

    fn deref(&self) -> &Self::Target {
        &self.control
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.control
    }
}

impl Client {
    /// Connects to a node.
    ///
    /// # Errors
    /// [`Error::Address`] and [`Error::Connect`]; it does not wait for a node that is not there.
    pub async fn connect(address: Address) -> Result<Self, Error> {
        let endpoint = address.endpoint().map_err(|reason| Error::Address {
            address: address.to_string(),
            reason,
        })?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|source| match untrusted(&source) {
            Some(reason) => Error::Untrusted(format!("{address}: {reason}")),
            None => Error::Connect {
                address: address.to_string(),
                source,
            },
        })?;
        Ok(Self {
            // A node may have a million routes.
            control: ControlClient::new(channel).max_decoding_message_size(usize::MAX),
            patience: PATIENCE,
            waiting: None,
        })
    }

    /// How long [`apply`](Self::apply), [`replace`](Self::replace) and [`Events::next`] go on trying to reach a node that
    /// went away; 30 seconds unless said.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// What to call when [`apply`](Self::apply) or [`replace`](Self::replace) begins to wait for a node that went away, with
    /// what it said last and how long they wait at most.
    pub fn on_waiting(&mut self, call: fn(&str, Duration)) {
        self.waiting = Some(call);
    }

    /// Applies a transaction, once: if the connection breaks it asks again under the same `request_id`, which it makes if
    /// there is none, and a node that has applied it already answers as it did. (A node that was restarted in between has
    /// forgotten request ids: give `expected_generation` where applying twice would do harm.)
    ///
    /// # Errors
    /// [`Error::Refused`] with all that is wrong, [`Error::Denied`], [`Error::Gone`], [`Error::Call`].
    pub async fn apply(&mut self, request: v1::ApplyRequest) -> Result<v1::ApplyResponse, Error> {
        let mut request = v1::ApplyRequest {
            refusal_in_response: true,
            ..request
        };
        if request.request_id.is_empty() {
            request.request_id = request_id();
        }
        let mut tries = Tries::new(self.patience, self.waiting);
        loop {
            let answer = self.control.apply(request.clone()).await;
            match applied(answer.map(tonic::Response::into_inner)) {
                Err(Error::Gone(status)) => tries.again(status).await?,
                answer => return answer,
            }
        }
    }

    /// Makes these the node's whole state, in messages of a size that it takes; `head` says the rest, as in the first
    /// message of a Replace. No items at all are refused unless it has `allow_empty`. Asks again as
    /// [`apply`](Self::apply) does. A call that is dropped before all is sent changes nothing; after that it may have been done.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn replace(
        &mut self,
        head: v1::ReplaceRequest,
        items: Vec<v1::Item>,
    ) -> Result<v1::ApplyResponse, Error> {
        let mut head = v1::ReplaceRequest {
            refusal_in_response: true,
            ..head
        };
        if head.request_id.is_empty() {
            head.request_id = request_id();
        }
        let commit = v1::ReplaceRequest {
            commit: Some(items.len() as u64),
            ..Default::default()
        };
        let items = chunks(items).into_iter().map(|items| v1::ReplaceRequest {
            items,
            ..Default::default()
        });
        let messages = std::iter::once(head).chain(items).chain([commit]);
        let messages: Vec<_> = messages.collect();
        let mut tries = Tries::new(self.patience, self.waiting);
        loop {
            let stream = tokio_stream::iter(messages.clone());
            let answer = self.control.replace(stream).await;
            match applied(answer.map(tonic::Response::into_inner)) {
                Err(Error::Gone(status)) => tries.again(status).await?,
                answer => return answer,
            }
        }
    }

    /// The node's state and what became of it, of any size, as it was at one moment. Asks again if the connection breaks.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), but for refusals.
    pub async fn state(&mut self) -> Result<v1::GetResponse, Error> {
        let mut tries = Tries::new(self.patience, self.waiting);
        loop {
            match self.list_all().await.map_err(Error::from) {
                Err(Error::Gone(status)) => tries.again(status).await?,
                state => return state,
            }
        }
    }

    async fn list_all(&mut self) -> Result<v1::GetResponse, Status> {
        let mut parts = self.control.list(v1::GetRequest {}).await?.into_inner();
        let mut state = parts.message().await?.unwrap_or_default();
        while let Some(part) = parts.message().await? {
            state.items.extend(part.items);
            state.links.extend(part.links);
            state.keys.extend(part.keys);
            state.neighbours.extend(part.neighbours);
        }
        Ok(state)
    }

    /// The node's counters, however many there are, as they were at one moment. Asks again if the connection breaks.
    ///
    /// # Errors
    /// As [`state`](Self::state).
    pub async fn counters(&mut self) -> Result<v1::StatsResponse, Error> {
        let mut tries = Tries::new(self.patience, self.waiting);
        loop {
            match self.list_all_stats().await.map_err(Error::from) {
                Err(Error::Gone(status)) => tries.again(status).await?,
                counters => return counters,
            }
        }
    }

    async fn list_all_stats(&mut self) -> Result<v1::StatsResponse, Status> {
        let parts = self.control.list_stats(v1::StatsRequest {}).await;
        let mut parts = parts?.into_inner();
        let mut counters = parts.message().await?.unwrap_or_default();
        while let Some(part) = parts.message().await? {
            counters.links.extend(part.links);
            counters.circuits.extend(part.circuits);
        }
        Ok(counters)
    }

    /// Follows events of these kinds (none: of all) from now on.
    pub fn events(&self, kinds: impl IntoIterator<Item = v1::EventKind>) -> Events {
        Events {
            control: self.control.clone(),
            patience: self.patience,
            kinds: kinds.into_iter().map(i32::from).collect(),
            next: None,
            boot: 0,
            stream: None,
        }
    }
}

/// The end of an Apply or Replace.
fn applied(answer: Result<v1::ApplyResponse, Status>) -> Result<v1::ApplyResponse, Error> {
    match answer? {
        v1::ApplyResponse {
            refusal: Some(refusal),
            ..
        } => Err(Error::Refused(refusal)),
        response => Ok(response),
    }
}

/// A name that no other request has.
fn request_id() -> String {
    let mut octets = [0u8; 16];
    // Without random numbers a request has no name, and a lost answer stays lost.
    match getrandom::fill(&mut octets) {
        Ok(()) => format!("{:032x}", u128::from_be_bytes(octets)),
        Err(_) => String::new(),
    }
}

/// Items in their order, cut to messages.
fn chunks(items: Vec<v1::Item>) -> Vec<Vec<v1::Item>> {
    let mut chunks = Vec::new();
    let (mut chunk, mut size) = (Vec::new(), 0);
    for item in items {
        size += item.encoded_len() + 8;
        chunk.push(item);
        if size >= CHUNK {
            chunks.push(std::mem::take(&mut chunk));
            size = 0;
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Tries to reach a node that went away.
struct Tries {
    until: Instant,
    /// To be called once.
    waiting: Option<fn(&str, Duration)>,
}

impl Tries {
    fn new(patience: Duration, waiting: Option<fn(&str, Duration)>) -> Self {
        Self {
            until: Instant::now() + patience,
            waiting,
        }
    }

    /// Waits a little, unless it has been long enough.
    async fn again(&mut self, status: Status) -> Result<(), Error> {
        if Instant::now() + RETRY > self.until {
            return Err(Error::Gone(status));
        }
        if let Some(waiting) = self.waiting.take() {
            waiting(status.message(), self.until - Instant::now());
        }
        sleep(RETRY).await;
        Ok(())
    }
}

/// Follows a node's events over broken connections and restarts of the node: it goes on with the event after the last one
/// that it gave. What the node could not keep is told by an event with a `GapEvent`, as it comes.
pub struct Events {
    control: ControlClient<Channel>,
    patience: Duration,
    kinds: Vec<i32>,
    /// The first that was not seen.
    next: Option<u64>,
    boot: u64,
    stream: Option<Streaming<v1::Event>>,
}

impl Events {
    /// Begins with this event instead, if the node still has it. `boot` is that of the event that was seen last; 0: not
    /// known. Sequence 1 is the oldest that the node has.
    #[must_use]
    pub fn from(mut self, sequence: u64, boot: u64) -> Self {
        (self.next, self.boot, self.stream) = (Some(sequence), boot, None);
        self
    }

    /// Where to go on, with [`from`](Self::from), as a later run of the program would.
    pub fn position(&self) -> Option<(u64, u64)> {
        self.next.map(|next| (next, self.boot))
    }

    /// Begins to listen: nothing that happens after it is missed. [`next`](Self::next) does it too.
    ///
    /// # Errors
    /// As [`Client::apply`], but for refusals.
    pub async fn open(&mut self) -> Result<(), Error> {
        self.stream().await.map(drop)
    }

    async fn stream(&mut self) -> Result<&mut Streaming<v1::Event>, Error> {
        if self.stream.is_none() {
            let request = v1::WatchRequest {
                kinds: self.kinds.clone(),
                from_sequence: self.next,
                boot: self.boot,
            };
            let mut tries = Tries::new(self.patience, None);
            let stream = loop {
                let answer = self.control.watch(request.clone()).await;
                match answer.map_err(Error::from) {
                    Ok(answer) => {
                        if self.next.is_none() {
                            // So that a break before the first event loses none.
                            self.next = number(&answer, "twinseal-next-sequence");
                            self.boot = number(&answer, "twinseal-boot").unwrap_or_default();
                        }
                        break answer.into_inner();
                    }
                    Err(Error::Gone(status)) => tries.again(status).await?,
                    Err(error) => return Err(error),
                }
            };
            self.stream = Some(stream);
        }
        self.stream
            .as_mut()
            .ok_or_else(|| Error::Call(Status::internal("there is no stream")))
    }

    /// The next event. It may be cancelled; nothing is lost by that.
    ///
    /// # Errors
    /// [`Error::Gone`] when the node could not be reached for the client's patience; the next call tries again.
    pub async fn next(&mut self) -> Result<v1::Event, Error> {
        loop {
            let stream = self.stream().await?;
            match stream.message().await.map_err(Error::from) {
                Ok(Some(event)) => {
                    (self.next, self.boot) = (Some(event.sequence + 1), event.boot);
                    return Ok(event);
                }
                // It is stopping, or the connection broke.
                Ok(None) | Err(Error::Gone(_)) => {
                    self.stream = None;
                    sleep(RETRY).await;
                }
                Err(error) => {
                    self.stream = None;
                    return Err(error);
                }
            }
        }
    }
}

fn number<T>(answer: &tonic::Response<T>, name: &str) -> Option<u64> {
    answer.metadata().get(name)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_cut_to_messages_in_its_order() {
        let vrf = |n: usize| v1::Item {
            item: Some(v1::item::Item::Vrf(v1::Vrf {
                name: format!("{n:064}"),
            })),
            ..Default::default()
        };
        let items: Vec<_> = (0..40_000).map(vrf).collect();
        let chunks = super::chunks(items.clone());
        assert!(chunks.len() > 2, "{}", chunks.len());
        assert_eq!(chunks.concat(), items);
        assert_eq!(super::chunks(Vec::new()), Vec::<Vec<v1::Item>>::new());
    }

    #[test]
    fn statuses_are_told_apart() {
        let refusal = v1::Refusal {
            items: vec![v1::RefusedItem {
                item: "vrf \"x\"".into(),
                field: "name".into(),
                reason: "is wrong".into(),
                fix: "write another".into(),
                ..Default::default()
            }],
        };
        let details = vec![errors::info("INVALID", []), errors::any(&refusal)];
        let status = errors::status(Code::InvalidArgument, String::new(), details);
        let error = Error::from(status);
        assert_eq!(
            error.to_string(),
            "vrf \"x\": name: is wrong; write another"
        );
        let denied = v1::AccessDenied {
            needed: v1::Role::Admin.into(),
            ..Default::default()
        };
        let details = vec![errors::any(&denied)];
        let status = errors::status(Code::PermissionDenied, "no".into(), details);
        assert!(matches!(Error::from(status), Error::Denied(it, _) if it == denied));
        let status = Status::invalid_argument("kinds");
        assert!(matches!(Error::from(status), Error::Call(_)));
        assert!(matches!(
            Error::from(Status::unavailable("")),
            Error::Gone(_)
        ));
    }

    #[test]
    fn requests_have_names_of_their_own_and_keys_are_not_shown() {
        assert_ne!(request_id(), request_id());
        let tls = Tls {
            address: "[::1]:1".into(),
            ca: Vec::new(),
            certificate: Vec::new(),
            key: b"secret".to_vec().into(),
            name: None,
        };
        let address = Address::Tls(Box::new(tls));
        assert!(!format!("{address:?}").contains("115"), "{address:?}");
        assert_eq!(address.to_string(), "[::1]:1");
    }
}
