//! The desired state of a node: what items there are, how they are read from the API, checked against each other, compared and
//! deleted. Nothing here knows how a packet is forwarded; no I/O.

#![forbid(unsafe_code)]

pub mod check;
mod check_keys;
pub mod diff;
pub mod items;
pub mod json;
pub mod owners;
pub mod parse;
pub mod persistent_map;
pub mod port;
pub mod prune;
pub mod refusal;
pub mod state;
pub mod sweep;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod transaction;

use prost::Message;
use twinseal_api::v1;

/// Decodes, parses and checks a transaction against an empty state, and as a whole state against what it came to. No side
/// effects; for fuzzing.
pub fn fuzz_decode(bytes: &[u8]) {
    if let Ok(request) = v1::ApplyRequest::decode(bytes) {
        let parsed = parse::changes(request.changes);
        let (outcome, _) = transaction::judge(&state::State::default(), parsed);
        let _ = items::all(&outcome.state);
    }
    if let Ok(request) = v1::ReplaceRequest::decode(bytes) {
        let parse = |items: Vec<v1::Item>| {
            let mut parsed = parse::Parsed::default();
            for (index, item) in items.into_iter().enumerate() {
                parsed.set(index, item);
            }
            parsed
        };
        let (first, _) = transaction::judge(&state::State::default(), parse(request.items.clone()));
        let mut again = parse(request.items);
        sweep::sweep(&first.state, &mut again);
        let _ = transaction::judge(&first.state, again);
    }
}
