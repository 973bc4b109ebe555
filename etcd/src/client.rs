//! Calls, each made at the members in turn until one answers.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::error::{EtcdError, is_stale_token, is_transient};
use crate::pb::{self, auth_client, kv_client, lease_client, watch_client};
use crate::range_end;
use crate::watch::Watch;

/// Keys that one call reads at most.
const PAGE: i64 = 1000;
/// Octets of one answer at most: a page of values as large as etcd takes them.
const MAX_ANSWER: usize = 512 << 20;
/// How long a member may be silent before it is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How to reach a cluster.
#[derive(Clone)]
pub struct Config {
    /// `http://host:port` of members; some of them will do.
    pub endpoints: Vec<String>,
    /// User and password, if the cluster wants them.
    pub user: Option<(String, String)>,
    /// How long a member may take to answer.
    pub timeout: Duration,
}

/// A client of a cluster. It talks to one member at a time and moves on to the next when that one does not answer.
pub struct Client {
    members: Vec<(String, Channel)>,
    current: usize,
    user: Option<(String, String)>,
    token: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

/// A key and its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// All keys under a prefix at one revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The revision of the store that was read.
    pub revision: i64,
    /// In the keys' order.
    pub entries: Vec<Entry>,
}

/// A lease: what is put under it is deleted when it runs out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    id: i64,
    /// How long it lives without [`Client::keep_alive`].
    pub ttl: Duration,
}

impl Client {
    /// A client; it connects with the first call. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`EtcdError::Endpoint`]; there must be one at least.
    pub fn new(config: &Config) -> Result<Self, EtcdError> {
        let members = config
            .endpoints
            .iter()
            .map(|endpoint| {
                let wrong = |error: &dyn std::fmt::Display| EtcdError::Endpoint {
                    endpoint: endpoint.clone(),
                    reason: error.to_string(),
                };
                let member =
                    Endpoint::from_shared(endpoint.clone()).map_err(|error| wrong(&error))?;
                if member.uri().scheme_str() != Some("http") || member.uri().port().is_none() {
                    return Err(wrong(&"scheme http and a port are needed"));
                }
                let channel = member
                    .connect_timeout(config.timeout)
                    .http2_keep_alive_interval(KEEP_ALIVE)
                    .keep_alive_timeout(KEEP_ALIVE)
                    .keep_alive_while_idle(true)
                    .connect_lazy();
                Ok((endpoint.clone(), channel))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if members.is_empty() {
            return Err(EtcdError::Endpoint {
                endpoint: String::new(),
                reason: "there is none".to_owned(),
            });
        }
        Ok(Self {
            members,
            current: 0,
            user: config.user.clone(),
            token: None,
            timeout: config.timeout,
        })
    }

    /// All keys that begin with `prefix`, at `revision` or, if that is none, now.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn read(
        &mut self,
        prefix: &[u8],
        revision: Option<i64>,
    ) -> Result<Snapshot, EtcdError> {
        let mut snapshot = Snapshot {
            revision: revision.unwrap_or(0),
            entries: Vec::new(),
        };
        let mut from = prefix.to_vec();
        loop {
            let request = pb::RangeRequest {
                key: from.clone(),
                range_end: range_end(prefix),
                limit: PAGE,
                revision: snapshot.revision,
            };
            let page = self
                .call(request, async |channel, request| {
                    kv(channel).range(request).await
                })
                .await?;
            if snapshot.revision == 0 {
                // Later pages are of the same revision, whatever is written meanwhile.
                snapshot.revision = page.header.map_or(0, |header| header.revision);
            }
            let entries = page.kvs.into_iter();
            snapshot.entries.extend(entries.map(|kv| Entry {
                key: kv.key,
                value: kv.value,
            }));
            match snapshot.entries.last() {
                Some(last) if page.more => {
                    from.clone_from(&last.key);
                    from.push(0);
                }
                _ => return Ok(snapshot),
            }
        }
    }

    /// Sets a key; with a lease it goes when that runs out. Returns the revision.
    ///
    /// # Errors
    /// See [`EtcdError`]; [`EtcdError::LeaseLost`] if there is no such lease any more.
    pub async fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        lease: Option<Lease>,
    ) -> Result<i64, EtcdError> {
        let request = pb::PutRequest {
            key: key.to_vec(),
            value: value.to_vec(),
            lease: lease.map_or(0, |lease| lease.id),
        };
        let put = self
            .call(request, async |channel, request| {
                kv(channel).put(request).await
            })
            .await?;
        Ok(put.header.map_or(0, |header| header.revision))
    }

    /// Deletes a key, if it is there.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn delete(&mut self, key: &[u8]) -> Result<(), EtcdError> {
        let request = pb::DeleteRangeRequest {
            key: key.to_vec(),
            range_end: Vec::new(),
        };
        self.call(request, async |channel, request| {
            kv(channel).delete_range(request).await
        })
        .await?;
        Ok(())
    }

    /// A new lease.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn grant(&mut self, ttl: Duration) -> Result<Lease, EtcdError> {
        let request = pb::LeaseGrantRequest {
            ttl: ttl.as_secs().max(1) as i64,
        };
        let granted = self
            .call(request, async |channel, request| {
                lease_client::LeaseClient::new(channel)
                    .lease_grant(request)
                    .await
            })
            .await?;
        if !granted.error.is_empty() {
            return Err(EtcdError::Failed(granted.error));
        }
        Ok(Lease {
            id: granted.id,
            ttl: Duration::from_secs(granted.ttl.max(1) as u64),
        })
    }

    /// Has a lease live for its whole time again.
    ///
    /// # Errors
    /// [`EtcdError::LeaseLost`] if it has run out.
    pub async fn keep_alive(&mut self, lease: Lease) -> Result<(), EtcdError> {
        let request = pb::LeaseKeepAliveRequest { id: lease.id };
        let kept = self
            .call(request, async |channel, request: Request<_>| {
                let (metadata, extensions, message) = request.into_parts();
                let one = tokio_stream::once(message);
                let request = Request::from_parts(metadata, extensions, one);
                let mut answers = lease_client::LeaseClient::new(channel)
                    .lease_keep_alive(request)
                    .await?
                    .into_inner();
                let answer = answers.message().await?;
                answer
                    .map(Response::new)
                    .ok_or_else(|| Status::unavailable("no answer"))
            })
            .await?;
        if kept.ttl <= 0 {
            return Err(EtcdError::LeaseLost);
        }
        Ok(())
    }

    /// Ends a lease, and deletes what was put under it.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn revoke(&mut self, lease: Lease) -> Result<(), EtcdError> {
        let request = pb::LeaseRevokeRequest { id: lease.id };
        self.call(request, async |channel, request| {
            lease_client::LeaseClient::new(channel)
                .lease_revoke(request)
                .await
        })
        .await?;
        Ok(())
    }

    /// Follows all keys with these prefixes, from `revision` on.
    ///
    /// # Errors
    /// See [`EtcdError`].
    pub async fn watch(&mut self, prefixes: &[&[u8]], revision: i64) -> Result<Watch, EtcdError> {
        let creates: Vec<_> = (1..)
            .zip(prefixes)
            .map(|(watch_id, prefix)| pb::WatchRequest {
                request_union: Some(pb::watch_request::RequestUnion::CreateRequest(
                    pb::WatchCreateRequest {
                        key: prefix.to_vec(),
                        range_end: range_end(prefix),
                        start_revision: revision,
                        watch_id,
                    },
                )),
            })
            .collect();
        self.call(creates, async |channel, request: Request<Vec<_>>| {
            let (mut metadata, extensions, creates) = request.into_parts();
            // A member that lost its cluster would be silent for ever.
            metadata.insert("hasleader", MetadataValue::from_static("true"));
            let (requests, sent) = crate::watch::requests(creates);
            let request = Request::from_parts(metadata, extensions, sent);
            let answers = watch_client::WatchClient::new(channel)
                .max_decoding_message_size(MAX_ANSWER)
                .watch(request)
                .await?;
            let watch = Watch::open(requests, answers.into_inner(), prefixes.len()).await?;
            Ok(Response::new(watch))
        })
        .await
    }

    /// Makes a call at the current member, and if that does not answer at each other one.
    async fn call<Q: Clone, A>(
        &mut self,
        request: Q,
        call: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, EtcdError> {
        let mut tried = Vec::new();
        let mut renewed = false;
        while tried.len() < self.members.len() {
            let result = match self.authenticate().await {
                Ok(()) => {
                    let mut ready = Request::new(request.clone());
                    if let Some(token) = &self.token {
                        ready.metadata_mut().insert("token", token.clone());
                    }
                    let channel = self.members[self.current].1.clone();
                    match tokio::time::timeout(self.timeout, call(channel, ready)).await {
                        Ok(result) => result.map(Response::into_inner),
                        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
                    }
                }
                Err(status) => Err(status),
            };
            match result {
                Ok(answer) => return Ok(answer),
                Err(status) if is_stale_token(&status) && !renewed => {
                    renewed = true;
                    self.token = None;
                }
                Err(status) if is_transient(&status) => {
                    tried.push(format!(
                        "{}: {}",
                        self.members[self.current].0,
                        status.message()
                    ));
                    self.current = (self.current + 1) % self.members.len();
                }
                Err(status) => return Err(status.into()),
            }
        }
        Err(EtcdError::Unreachable {
            tried: tried.join("; "),
        })
    }

    async fn authenticate(&mut self) -> Result<(), Status> {
        let Some((name, password)) = &self.user else {
            return Ok(());
        };
        if self.token.is_some() {
            return Ok(());
        }
        let request = pb::AuthenticateRequest {
            name: name.clone(),
            password: password.clone(),
        };
        let mut auth = auth_client::AuthClient::new(self.members[self.current].1.clone());
        let answer = tokio::time::timeout(self.timeout, auth.authenticate(request))
            .await
            .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
        let token = MetadataValue::try_from(answer.into_inner().token)
            .map_err(|_| Status::unknown("the token is no header"))?;
        self.token = Some(token);
        Ok(())
    }
}

fn kv(channel: Channel) -> kv_client::KvClient<Channel> {
    kv_client::KvClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}
