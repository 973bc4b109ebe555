//! Replace: a whole state, streamed. Items are parsed as they come; the node hears of them when the stream has ended.

use std::time::Duration;

use prost::Message;
use tonic::{Status, Streaming};
use twinseal_api::v1;

use super::Service;
use crate::control::access::Caller;
use crate::control::apply::{Options, Transaction};
use crate::control::audit::Entry;
use crate::control::parse::Parsed;
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
        let mut entry = Entry::new(caller, "Replace");
        let mut options = None;
        let (mut parsed, mut digest) = (Parsed::default(), Digester::default());
        let (mut items, mut size) = (0, 0);
        while let Some(message) = next(&mut stream).await? {
            size += message.encoded_len();
            if size > MAX_STREAM {
                return Err(Status::resource_exhausted(format!(
                    "the state is larger than {} MiB",
                    MAX_STREAM >> 20
                )));
            }
            let head = options.get_or_insert_with(|| head(&message));
            if !head.options.request_id.is_empty() {
                message.items.iter().for_each(|item| digest.add(item));
            }
            entry.items(&message.items);
            for item in message.items {
                parsed.set(items, item);
                items += 1;
            }
        }
        let Head {
            options,
            refusal_in_response,
        } = options.ok_or_else(|| {
            Status::invalid_argument(
                "the stream was empty: to delete everything, send one message without items",
            )
        })?;
        options.add_to(&mut digest, true);
        let transaction = Transaction {
            parsed,
            options,
            digest: digest.finish(),
            replace: true,
        };
        entry.dry_run = transaction.options.dry_run;
        self.transact(entry, transaction, refusal_in_response).await
    }
}

struct Head {
    options: Options,
    refusal_in_response: bool,
}

fn head(message: &v1::ReplaceRequest) -> Head {
    Head {
        options: Options {
            request_id: message.request_id.clone(),
            dry_run: message.dry_run,
            expected_generation: message.expected_generation,
            confirm_within_seconds: message.confirm_within_seconds,
        },
        refusal_in_response: message.refusal_in_response,
    }
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
