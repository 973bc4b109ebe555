//! Replace: a whole state, streamed. Items are parsed as they come; the node hears of them when the stream has ended with
//! the word that it is whole. The end of a stream is no such word: HTTP/2 tells a cancelled one as one that has ended.

use std::time::Duration;

use prost::Message;
use tonic::{Status, Streaming};
use twinseal_api::v1;

use super::Service;
use super::apply::holds_secret;
use crate::control::access::Caller;
use crate::control::apply::{Options, Transaction};
use crate::control::audit::Entry;
use crate::control::parse::Parsed;
use crate::control::refusal::{Code, Refused};
use crate::control::requests::Digester;

/// Octets of all messages of a stream, encoded: some six million routes.
const MAX_STREAM: usize = 512 << 20;
/// A stream that says nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);

impl Service {
    /// Takes the stream, then applies it as one transaction.
    pub(super) async fn replace(
        &self,
        caller: Option<Caller>,
        mut stream: Streaming<v1::ReplaceRequest>,
    ) -> Result<v1::ApplyResponse, Status> {
        // A state in the making may be large: one at a time.
        let _turn = self.replacing.try_lock().map_err(|_| {
            Status::resource_exhausted("another Replace is being streamed: wait until it has ended")
        })?;
        let scrubbed = caller.clone();
        let mut entry = Entry::new(caller, "Replace");
        let mut head = None;
        let (mut parsed, mut digest) = (Parsed::default(), Digester::default());
        let (mut items, mut size) = (0, 0);
        let mut commit = None;
        while let Some(message) = next(&mut stream).await? {
            size += message.encoded_len();
            if size > MAX_STREAM {
                return Err(Status::resource_exhausted(format!(
                    "the state is larger than {} MiB",
                    MAX_STREAM >> 20
                )));
            }
            let head = head.get_or_insert_with(|| Head::of(&message));
            if commit.is_some() {
                return self
                    .refuse(entry, not_last(), head.refusal_in_response)
                    .await;
            }
            commit = message.commit;
            if !head.options.request_id.is_empty() {
                message.items.iter().for_each(|item| digest.add(item));
            }
            entry.items(&message.items);
            if let Some(caller) = &scrubbed
                && message.items.iter().any(holds_secret)
            {
                caller.scrub();
            }
            for item in message.items {
                parsed.set(items, item);
                items += 1;
            }
        }
        let head = head.unwrap_or_default();
        entry.dry_run = head.options.dry_run;
        if let Some(mut refused) = unfit(commit, items, head.allow_empty) {
            refused.append(parsed.refused);
            return self.refuse(entry, refused, head.refusal_in_response).await;
        }
        head.options.add_to(&mut digest, true);
        let transaction = Transaction {
            parsed,
            options: head.options,
            digest: digest.finish(),
            replace: true,
        };
        self.transact(entry, transaction, head.refusal_in_response)
            .await
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
    fn of(message: &v1::ReplaceRequest) -> Self {
        Self {
            options: Options {
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

fn not_last() -> Refused {
    let why = "a message came after the one that has it".to_owned();
    let fix = "say it in the last message only";
    Refused::whole(Code::Invalid, "commit", why, fix)
}

async fn next(
    stream: &mut Streaming<v1::ReplaceRequest>,
) -> Result<Option<v1::ReplaceRequest>, Status> {
    match tokio::time::timeout(PATIENCE, stream.message()).await {
        Ok(message) => message,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "nothing came for {} seconds: the stream is given up, and nothing was changed",
            PATIENCE.as_secs()
        ))),
    }
}
