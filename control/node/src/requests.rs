//! Answers to requests that have a name, so that a controller which lost an answer can ask again.

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::digest::{self, SHA256};
use prost::Message;
use twinseal_api::v1;
use zeroize::Zeroizing;

use twinseal_model::refusal::{Code, Refused};

/// Answers that are remembered. The oldest goes first.
const REMEMBERED: usize = 4096;
/// Octets of a name.
const MAX_ID: usize = 128;

/// What a request says, in short; no secret can be told from it.
pub type Digest = [u8; 32];

/// Requests that have applied.
#[derive(Default)]
pub(super) struct Requests {
    answers: HashMap<String, (Digest, v1::ApplyResponse)>,
    order: VecDeque<String>,
}

impl Requests {
    /// The answer of the same request, if it has applied before. An empty name is none.
    pub(super) fn answer(
        &self,
        id: &str,
        digest: &Digest,
    ) -> Result<Option<v1::ApplyResponse>, Refused> {
        if id.len() > MAX_ID {
            return Err(Refused::whole(
                Code::Invalid,
                "request_id",
                format!("it has {} bytes", id.len()),
                "give at most 128",
            ));
        }
        match self.answers.get(id) {
            None => Ok(None),
            Some((same, answer)) if same == digest => Ok(Some(v1::ApplyResponse {
                repeated: true,
                ..answer.clone()
            })),
            Some((_, answer)) => Err(Refused::whole(
                Code::RequestId,
                "request_id",
                format!(
                    "another request of this id has applied, as generation {}",
                    answer.generation
                ),
                "give every request an id of its own",
            )),
        }
    }

    /// Remembers the answer.
    pub(super) fn remember(&mut self, id: String, digest: Digest, answer: v1::ApplyResponse) {
        if id.is_empty() {
            return;
        }
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.answers.insert(id, (digest, answer));
    }
}

/// Adds up what requests say, message by message.
pub struct Digester {
    context: digest::Context,
    /// Holds secrets for a moment.
    buffer: Zeroizing<Vec<u8>>,
}

impl Default for Digester {
    fn default() -> Self {
        Self {
            context: digest::Context::new(&SHA256),
            buffer: Zeroizing::default(),
        }
    }
}

impl Digester {
    /// Adds a message.
    pub fn add(&mut self, message: &impl Message) {
        self.buffer.clear();
        // Room for all of it at once: a buffer that grows would leave secrets behind.
        let len = message.encoded_len();
        if self.buffer.capacity() < len {
            self.buffer = Zeroizing::new(Vec::with_capacity(len));
        }
        // Only a buffer without room could make this fail.
        let _ = message.encode(&mut *self.buffer);
        self.context.update(&(len as u64).to_be_bytes());
        self.context.update(&self.buffer);
    }

    /// The digest of all of them.
    pub fn finish(self) -> Digest {
        let mut digest = Digest::default();
        digest.copy_from_slice(self.context.finish().as_ref());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(generation: u64) -> v1::ApplyResponse {
        v1::ApplyResponse {
            generation,
            ..Default::default()
        }
    }

    #[test]
    fn the_same_request_is_answered_again_and_another_refused() {
        let mut requests = Requests::default();
        assert_eq!(requests.answer("a", &[1; 32]), Ok(None));
        requests.remember("a".to_owned(), [1; 32], answer(7));
        let again = requests.answer("a", &[1; 32]).unwrap().unwrap();
        assert!(again.repeated && again.generation == 7);
        let refused = requests.answer("a", &[2; 32]).unwrap_err();
        assert_eq!(refused.items()[0].code(), Code::RequestId);
        assert!(requests.answer(&"x".repeat(129), &[1; 32]).is_err());
    }

    #[test]
    fn the_oldest_are_forgotten_and_those_without_a_name_never_known() {
        let mut requests = Requests::default();
        requests.remember(String::new(), [1; 32], answer(1));
        assert_eq!(requests.answer("", &[2; 32]), Ok(None));
        for n in 0..=REMEMBERED as u64 {
            requests.remember(n.to_string(), [0; 32], answer(n));
        }
        assert_eq!(requests.answer("0", &[0; 32]), Ok(None));
        assert!(requests.answer("1", &[0; 32]).unwrap().is_some());
        assert_eq!(requests.answers.len(), REMEMBERED);
    }

    #[test]
    fn digests_tell_requests_apart() {
        let digest = |names: &[&str]| {
            let mut digester = Digester::default();
            for name in names {
                digester.add(&v1::Vrf {
                    name: (*name).to_owned(),
                });
            }
            digester.finish()
        };
        assert_eq!(digest(&["a", "b"]), digest(&["a", "b"]));
        assert_ne!(digest(&["a", "b"]), digest(&["b", "a"]));
        assert_ne!(digest(&["ab"]), digest(&["a", "b"]));
    }
}
