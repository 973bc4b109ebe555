//! What happens to keys.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::error::EtcdError;
use crate::pb;

/// Requests of a watch under way.
pub(crate) type Requests = mpsc::Sender<pb::WatchRequest>;

/// Something that a watch tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A key was set.
    Put {
        /// The revision of the change.
        revision: i64,
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// A key was deleted.
    Delete {
        /// The revision of the change.
        revision: i64,
        /// The key.
        key: Vec<u8>,
    },
    /// What was to be told is gone from etcd's history: read everything anew. The watch has ended.
    Compacted,
}

/// A watch: ends with an error when its member goes away.
pub struct Watch {
    /// The stream of requests must stay open, or etcd ends the watch.
    _requests: Requests,
    answers: Streaming<pb::WatchResponse>,
    waiting: std::vec::IntoIter<Change>,
}

/// A stream of these requests that stays open, and what keeps it open.
pub(crate) fn requests(
    creates: Vec<pb::WatchRequest>,
) -> (
    Requests,
    impl tokio_stream::Stream<Item = pb::WatchRequest> + Send + 'static,
) {
    let (sender, receiver) = mpsc::channel(creates.len().max(1));
    for create in creates {
        // There is room for all of them.
        let _ = sender.try_send(create);
    }
    (sender, ReceiverStream::new(receiver))
}

impl Watch {
    /// Waits until etcd has begun all watches.
    pub(crate) async fn open(
        requests: Requests,
        answers: Streaming<pb::WatchResponse>,
        watches: usize,
    ) -> Result<Self, Status> {
        let mut watch = Self {
            _requests: requests,
            answers,
            waiting: Vec::new().into_iter(),
        };
        let (mut created, mut early) = (0, Vec::new());
        while created < watches {
            let answer = watch.answer().await?;
            created += usize::from(answer.created);
            early.extend(changes(answer)?);
        }
        watch.waiting = early.into_iter();
        Ok(watch)
    }

    /// The next change. Cancelling the call loses nothing.
    ///
    /// # Errors
    /// [`EtcdError::MemberLost`] if the member went away: watch again, from the revision after the last.
    pub async fn next(&mut self) -> Result<Change, EtcdError> {
        loop {
            if let Some(change) = self.waiting.next() {
                return Ok(change);
            }
            let answer = self.answer().await?;
            self.waiting = changes(answer)?.into_iter();
        }
    }

    async fn answer(&mut self) -> Result<pb::WatchResponse, Status> {
        let answer = self.answers.message().await?;
        answer.ok_or_else(|| Status::unavailable("the watch has ended"))
    }
}

fn changes(answer: pb::WatchResponse) -> Result<Vec<Change>, Status> {
    if answer.compact_revision > 0 {
        return Ok(vec![Change::Compacted]);
    }
    if answer.canceled {
        let why = answer.cancel_reason;
        // The text is all there is: a member that was restarted says so that it does not know the token.
        return Err(if why.contains("permission denied") {
            Status::permission_denied(why)
        } else if why.contains("auth") {
            Status::unauthenticated(why)
        } else {
            Status::unavailable(why)
        });
    }
    let events = answer.events.into_iter();
    Ok(events
        .filter_map(|event| {
            let deleted = event.r#type() == pb::event::EventType::Delete;
            let kv = event.kv?;
            let (revision, key) = (kv.mod_revision, kv.key);
            Some(if deleted {
                Change::Delete { revision, key }
            } else {
                Change::Put {
                    revision,
                    key,
                    value: kv.value,
                }
            })
        })
        .collect())
}
