//! Replace: a whole state, streamed. Items are parsed as they come; the node hears of them once a message says that the
//! state is whole. The end of a stream is no such word: HTTP/2 tells a cancelled one as one that has ended. So nothing waits
//! for the end, and what becomes of the stream after that word makes no difference.

use std::time::Duration;

use prost::Message;
use tonic::{Status, Streaming};
use twinseal_api::v1;

use crate::apply::holds_secret;
use crate::service::Service;
use twinseal_access::Caller;
use twinseal_access::words::{UNREADABLE, unreadable};
use twinseal_model::owners::By;
use twinseal_model::parse::Parsed;
use twinseal_model::refusal::{Code, Refused};
use twinseal_node::apply::{Options, Transaction};
use twinseal_node::audit::{Audit, Entry, Outcome};
use twinseal_node::requests::Digester;

/// Bytes of all messages of a stream, encoded: some six million routes.
const MAX_STREAM: usize = 512 << 20;
/// A stream that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

impl Service {
    /// Takes the stream until it says that it is whole, then applies it as one transaction.
    pub(crate) async fn replace(
        &self,
        caller: Option<Caller>,
        stream: Streaming<v1::ReplaceRequest>,
    ) -> Result<v1::ApplyResponse, Status> {
        let mut entry = Open::new(&self.audit, Entry::new(caller.clone(), "Replace"));
        // A state in the making may be large: one at a time.
        let Ok(_turn) = self.replacing.try_lock() else {
            let refused = exhausted(
                "another Replace is being streamed",
                "wait until it has ended",
            );
            return self.refuse(entry.take(), refused, false).await;
        };
        let mut state = Streamed::default();
        if let Err(broken) = state.read(stream, caller.as_ref(), &mut entry).await {
            let in_response = state.head.unwrap_or_default().refusal_in_response;
            return match broken {
                Broken::Refused(refused) => self.refuse(entry.take(), refused, in_response).await,
                Broken::Off(status) => {
                    let refused =
                        Refused::whole(Code::Invalid, "commit", status.message().to_owned(), "");
                    let written = self.audit.write(entry.take(), Outcome::Refused(&refused));
                    written.done().await;
                    Err(status)
                }
            };
        }
        let head = state.head.unwrap_or_default();
        let mut refused = state.refused;
        if let Some(unfit) = unfit(state.commit, state.items, head.allow_empty) {
            refused.append(unfit);
        }
        head.options.add_to(&mut state.digest, true);
        let transaction = Transaction {
            parsed: state.parsed,
            options: head.options,
            digest: state.digest.finish(),
            replace: true,
            unfit: refused,
        };
        self.transact(entry.take(), transaction, head.refusal_in_response)
            .await
    }
}

/// The entry of a Replace that is under way. If nobody says what came of it, as its client has gone or its time is over,
/// it is taken down that it broke off.
struct Open<'a> {
    audit: &'a Audit,
    entry: Option<Entry>,
}

impl<'a> Open<'a> {
    fn new(audit: &'a Audit, entry: Entry) -> Self {
        Self {
            audit,
            entry: Some(entry),
        }
    }

    /// For whoever says what came of it.
    fn take(&mut self) -> Entry {
        let taken = self.entry.take();
        taken.unwrap_or_else(|| Entry::new(None, "Replace"))
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            let why = "the stream broke off: its client has gone, or its time was over";
            let refused = Refused::whole(Code::Invalid, "commit", why.to_owned(), "");
            // Nobody waits for the answer.
            let _ = self.audit.write(entry, Outcome::Refused(&refused));
        }
    }
}

/// What has come so far.
#[derive(Default)]
struct Streamed {
    head: Option<Head>,
    parsed: Parsed,
    digest: Digester,
    items: usize,
    size: usize,
    commit: Option<u64>,
    /// Fields that only the first message may have, and another has.
    late: Vec<&'static str>,
    /// What is wrong with the messages themselves.
    refused: Refused,
}

/// Why a stream is not read on.
enum Broken {
    Refused(Refused),
    Off(Status),
}

impl Streamed {
    /// Until the message that says `commit`, or the end.
    async fn read(
        &mut self,
        mut stream: Streaming<v1::ReplaceRequest>,
        caller: Option<&Caller>,
        entry: &mut Open<'_>,
    ) -> Result<(), Broken> {
        while self.commit.is_none()
            && let Some(message) = next(&mut stream).await.map_err(Broken::Off)?
        {
            self.size += message.encoded_len();
            if self.size > MAX_STREAM {
                let why = format!("the state is larger than {} MiB", MAX_STREAM >> 20);
                let fix = "set it by several Apply";
                return Err(Broken::Refused(exhausted(&why, fix)));
            }
            if let Some(entry) = &mut entry.entry {
                entry.items(&message.items);
                if self.head.is_none() {
                    entry.request(&message.request_id);
                    entry.owner(&message.owner);
                    entry.dry_run = message.dry_run;
                }
            }
            if let Some(caller) = caller
                && message.items.iter().any(holds_secret)
            {
                caller.scrub();
            }
            self.take(message);
        }
        Ok(())
    }

    fn take(&mut self, message: v1::ReplaceRequest) {
        let named = match &self.head {
            Some(head) => {
                // Each once, however many messages say it.
                for field in late(&message) {
                    if !self.late.contains(&field) {
                        self.late.push(field);
                        self.refused.append(not_first(field));
                    }
                }
                !head.options.request_id.is_empty()
            }
            None => {
                let named = !message.request_id.is_empty();
                let (by, unfit) = By::parse(&message.owner, message.take_over);
                self.refused.append(unfit);
                self.parsed.by = by.clone();
                self.head = Some(Head::of(&message, by));
                named
            }
        };
        self.commit = message.commit;
        for item in message.items {
            if named {
                self.digest.add(&item);
            }
            self.parsed.set(self.items, item);
            self.items += 1;
        }
    }
}

/// What the first message says of the whole.
#[derive(Default)]
struct Head {
    options: Options,
    refusal_in_response: bool,
    allow_empty: bool,
}

impl Head {
    fn of(message: &v1::ReplaceRequest, by: By) -> Self {
        Self {
            options: Options {
                by,
                request_id: message.request_id.clone(),
                dry_run: message.dry_run,
                expected_generation: message.expected_generation,
                confirm_within_seconds: message.confirm_within_seconds,
            },
            refusal_in_response: message.refusal_in_response,
            allow_empty: message.allow_empty,
        }
    }
}

/// Why so many items are not the whole state.
fn unfit(commit: Option<u64>, items: usize, allow_empty: bool) -> Option<Refused> {
    let whole = |field, why: String, fix| Some(Refused::whole(Code::Invalid, field, why, fix));
    match commit {
        None => whole(
            "commit",
            format!("the stream ended after {items} items without it, as one does that breaks off"),
            "say in the last message how many items there are in all",
        ),
        Some(said) if said != items as u64 => whole(
            "commit",
            format!("it says {said} items, and {items} came"),
            "send all items, and their number in the last message",
        ),
        Some(0) if !allow_empty => whole(
            "allow_empty",
            "a state without items deletes everything".to_owned(),
            "set it in the first message if that is meant",
        ),
        Some(_) => None,
    }
}

/// What a message says that only the first one may say. Every field but `items` and `commit` is among them.
fn late(message: &v1::ReplaceRequest) -> impl Iterator<Item = &'static str> {
    let v1::ReplaceRequest {
        items: _,
        request_id,
        dry_run,
        expected_generation,
        confirm_within_seconds,
        refusal_in_response,
        allow_empty,
        commit: _,
        owner,
        take_over,
    } = message;
    let fields = [
        ("request_id", !request_id.is_empty()),
        ("dry_run", *dry_run),
        ("expected_generation", expected_generation.is_some()),
        ("confirm_within_seconds", *confirm_within_seconds != 0),
        ("refusal_in_response", *refusal_in_response),
        ("allow_empty", *allow_empty),
        ("owner", !owner.is_empty()),
        ("take_over", *take_over),
    ];
    let given = fields.into_iter().filter(|(_, given)| *given);
    given.map(|(field, _)| field)
}

fn not_first(field: &str) -> Refused {
    let why = "a message after the first one has it".to_owned();
    Refused::whole(
        Code::Invalid,
        field,
        why,
        "set it in the first message only",
    )
}

fn exhausted(why: &str, fix: &str) -> Refused {
    Refused::whole(Code::NoRoom, "", why.to_owned(), fix)
}

async fn next(
    stream: &mut Streaming<v1::ReplaceRequest>,
) -> Result<Option<v1::ReplaceRequest>, Status> {
    match tokio::time::timeout(PATIENCE, stream.message()).await {
        Ok(Err(status)) if unreadable(status.message()) => {
            Err(Status::invalid_argument(UNREADABLE))
        }
        Ok(message) => message,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "nothing came for {} seconds: the stream is given up, and nothing was changed",
            PATIENCE.as_secs()
        ))),
    }
}
