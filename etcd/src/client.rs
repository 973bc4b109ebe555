//! Calls, each made at the members in turn until one answers.

use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::config::{Config, causes};
use crate::error::{EtcdError, is_stale_token, is_transient};
use crate::pb::{self, auth_client, kv_client, lease_client, watch_client};
use crate::range_end;
use crate::watch::Watch;

/// Keys that one call reads at most.
const PAGE: i64 = 1000;
/// Octets of one answer at most: a page of values as large as etcd takes them.
const MAX_ANSWER: usize = 512 << 20;
/// A client of a cluster. It talks to one member at a time and moves on to the next when that one does not answer.
pub struct Client {
    config: Config,
    members: Vec<Channel>,
    current: usize,
    token: Option<MetadataValue<Ascii>>,
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
    /// [`EtcdError::Endpoint`]; there must be one at least. [`EtcdError::NoIssuer`] for `https` without [`Config::tls`]. [`EtcdError::Plain`] for one that is elsewhere and speaks plain
    /// HTTP, unless the configuration allows that. [`EtcdError::Unreadable`] and [`EtcdError::Tls`] for certificates.
    pub fn new(config: &Config) -> Result<Self, EtcdError> {
        if config.endpoints.is_empty() {
            return Err(EtcdError::Endpoint {
                endpoint: String::new(),
                reason: "there is none".to_owned(),
            });
        }
        let channels = config.endpoints.iter().map(|it| config.channel(it));
        Ok(Self {
            members: channels.collect::<Result<_, _>>()?,
            config: config.clone(),
            current: 0,
            token: None,
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
            let status = match self.try_call(&request, &call).await? {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            if is_stale_token(&status) && !renewed {
                renewed = true;
                self.token = None;
            } else if is_transient(&status) || is_stale_token(&status) {
                tried.push(format!("{}: {}", self.endpoint(), said(&status)));
                self.leave()?;
            } else {
                return Err(status.into());
            }
        }
        Err(EtcdError::Unreachable {
            tried: tried.join("; "),
        })
    }

    /// The call at the current member, with a token if there is a user.
    async fn try_call<Q: Clone, A>(
        &mut self,
        request: &Q,
        call: &impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<Result<A, Status>, EtcdError> {
        if let Err(status) = self.authenticate().await? {
            return Ok(Err(status));
        }
        let mut ready = Request::new(request.clone());
        if let Some(token) = &self.token {
            ready.metadata_mut().insert("token", token.clone());
        }
        let call = call(self.members[self.current].clone(), ready);
        Ok(
            match tokio::time::timeout(self.config.timeout, call).await {
                Ok(result) => result.map(Response::into_inner),
                Err(_) => Err(Status::deadline_exceeded("no answer in time")),
            },
        )
    }

    fn endpoint(&self) -> &str {
        &self.config.endpoints[self.current]
    }

    /// Goes on to the next member. The one that is left is reached anew next time, with the certificates of then.
    fn leave(&mut self) -> Result<(), EtcdError> {
        if self.config.tls.is_some() {
            self.members[self.current] = self.config.channel(self.endpoint())?;
        }
        self.current = (self.current + 1) % self.members.len();
        Ok(())
    }

    /// Gets a token, if there is a user and no token.
    async fn authenticate(&mut self) -> Result<Result<(), Status>, EtcdError> {
        let Some(user) = self.config.user.as_ref().filter(|_| self.token.is_none()) else {
            return Ok(Ok(()));
        };
        let request = pb::AuthenticateRequest {
            name: user.name.clone(),
            password: user.password.read()?,
        };
        let mut auth = auth_client::AuthClient::new(self.members[self.current].clone());
        let answer = tokio::time::timeout(self.config.timeout, auth.authenticate(request)).await;
        let token = match answer {
            Ok(Ok(answer)) => MetadataValue::try_from(answer.into_inner().token)
                .map_err(|_| Status::unknown("the token is no header")),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        };
        Ok(token.map(|token| self.token = Some(token)))
    }
}

/// What came of a call, with its causes: "transport error" alone tells nobody of a wrong certificate.
fn said(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(cause) => causes(cause),
        None => status.message().to_owned(),
    }
}

fn kv(channel: Channel) -> kv_client::KvClient<Channel> {
    kv_client::KvClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}
