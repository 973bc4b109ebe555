//! The node's end: whole states and changes, and a word when anybody else changed it.

use tonic::{Code, Streaming};
use twinseal_api::client::Error;
use twinseal_api::v1;
use v1::event::Event as Of;

use super::status::Reason;
use twinseal_ctl::client;
use twinseal_ctl::client::{Client, Target};

/// Who we are at the node.
#[derive(Clone)]
pub(super) struct By {
    /// Whose items ours are.
    pub(super) owner: String,
    /// Whether what another owner has becomes ours.
    pub(super) take_over: bool,
}

/// A connection to the node.
pub(super) struct Node {
    client: Client,
    events: Streaming<v1::Event>,
    /// The generation that we left the tables at.
    generation: u64,
    /// Whose items these are.
    by: By,
}

/// Why the node did not do it.
#[derive(Debug)]
pub(super) enum NotDone {
    /// It said no, and changed nothing.
    Refused {
        /// Why.
        reasons: Vec<Reason>,
        /// Whether somebody else changed our items meanwhile, so that changes are of no use and the whole is needed.
        moved: bool,
    },
    /// It cannot be reached.
    Gone(String),
}

impl Node {
    /// Connects, and listens before anything else: no change of the tables is missed.
    pub(super) async fn connect(target: Target, by: By) -> Result<Self, NotDone> {
        let gone = |error: anyhow::Error| NotDone::Gone(format!("{error:#}"));
        let mut client = target.connect().await.map_err(gone)?;
        let events = client
            .watch(v1::WatchRequest {
                kinds: vec![v1::EventKind::Configuration.into()],
                ..v1::WatchRequest::default()
            })
            .await
            .map_err(|status| not_done(status.into()))?;
        Ok(Self {
            client,
            events: events.into_inner(),
            generation: 0,
            by,
        })
    }

    /// Makes this all that the node has of ours; tells the generation.
    pub(super) async fn replace(&mut self, items: Vec<v1::Item>) -> Result<u64, NotDone> {
        let head = v1::ReplaceRequest {
            // `Desired` takes no fragments at all for a mistake, so an empty state is one that somebody wrote.
            allow_empty: true,
            owner: self.by.owner.clone(),
            take_over: self.by.take_over,
            ..v1::ReplaceRequest::default()
        };
        let answer = self.client.replace(head, items).await;
        self.done(answer)
    }

    /// Changes the state that we left; tells the generation.
    pub(super) async fn apply(&mut self, changes: Vec<v1::Change>) -> Result<u64, NotDone> {
        let request = v1::ApplyRequest {
            changes,
            expected_generation: Some(self.generation),
            owner: self.by.owner.clone(),
            take_over: self.by.take_over,
            ..v1::ApplyRequest::default()
        };
        let answer = self.client.apply(request).await;
        self.done(answer)
    }

    fn done(&mut self, answer: Result<v1::ApplyResponse, Error>) -> Result<u64, NotDone> {
        match answer {
            Ok(response) => {
                self.generation = response.generation;
                Ok(response.generation)
            }
            Err(error) => Err(not_done(error)),
        }
    }

    /// Waits until somebody else has changed what is ours, `Ok`, or the node is gone.
    ///
    /// Cancelling the call loses nothing.
    pub(super) async fn disturbed(&mut self) -> Result<(), NotDone> {
        loop {
            match self.events.message().await {
                Ok(Some(event)) => {
                    if let Some(Of::Table(table)) = event.event
                        && table.generation > self.generation
                        && concerns(&table, &self.by.owner)
                    {
                        return Ok(());
                    }
                }
                Ok(None) => return Err(NotDone::Gone("the node is stopping".to_owned())),
                Err(status) => return Err(not_done(status.into())),
            }
        }
    }
}

/// Whether a change of the tables may be one of this owner's items.
fn concerns(table: &v1::TableEvent, owner: &str) -> bool {
    let of = |it: &String| it == owner;
    table.owner.is_empty() || of(&table.owner) || table.taken_from.iter().any(of)
}

/// A node that answers is there, whatever it answers.
fn not_done(error: Error) -> NotDone {
    let fix = match &error {
        Error::Refused(refusal) => return refused(refusal),
        Error::Denied(..) => {
            "give the agent the role admin: in the node's control.allow_users, or its certificate's name in control.tls.admins"
        }
        Error::Untrusted(_) => "see to the certificates of the node and of the agent",
        Error::Call(status) if answered(status.code()) => "see the node's log",
        _ => return NotDone::Gone(format!("{:#}", client::advise(error))),
    };
    let reason = format!("{:#}", client::advise(error));
    NotDone::Refused {
        reasons: vec![Reason::new("node", &reason, fix)],
        moved: false,
    }
}

/// Whether it is the node that says so, and not what carries the call.
fn answered(code: Code) -> bool {
    matches!(
        code,
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::ResourceExhausted
    )
}

fn refused(refusal: &v1::Refusal) -> NotDone {
    let moved = refusal
        .items
        .iter()
        .any(|item| item.field == "expected_generation");
    NotDone::Refused {
        reasons: refusal.items.iter().cloned().map(Reason::from).collect(),
        moved,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn a_node_that_answers_is_there() {
        for answer in [
            Status::permission_denied("no"),
            Status::unimplemented("what"),
        ] {
            let NotDone::Refused { reasons, moved } = not_done(answer.into()) else {
                panic!("it has answered");
            };
            assert!(!moved && !reasons[0].fix.is_empty(), "{reasons:?}");
        }
        let gone = not_done(Status::unavailable("it went").into());
        assert!(matches!(gone, NotDone::Gone(_)), "{gone:?}");
    }

    #[test]
    fn what_others_do_with_their_own_is_no_disturbance() {
        for (owner, taken_from, is) in [
            ("etcd", &[][..], true),
            ("", &[], true),
            ("controller", &["etcd"], true),
            ("controller", &["bgp"], false),
            ("controller", &[], false),
        ] {
            let table = v1::TableEvent {
                owner: owner.into(),
                taken_from: taken_from.iter().map(ToString::to_string).collect(),
                ..Default::default()
            };
            assert_eq!(concerns(&table, "etcd"), is, "{table:?}");
        }
    }
}
