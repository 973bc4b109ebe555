//! Refusals as gRPC statuses.

use prost::Message;
use tonic::{Code, Status};
use twinseal_api::v1;

use crate::control::node::Stopped;
use crate::control::refusal::{Kind, Refused, text};

/// Refusals travel in HTTP headers, of which clients take 16 KiB: octets of the encoded details, and of the text.
const MAX_DETAILS: usize = 6 << 10;
const MAX_TEXT: usize = 1 << 10;

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}
/// A refusal as a status: its message says it to people, its details to programs. Both are cut to what fits.
pub(super) fn status(refused: &Refused) -> Status {
    let code = match refused.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
    };
    let details = refusal(refused, MAX_DETAILS);
    let mut message = String::new();
    for item in &details.items {
        if !message.is_empty() {
            message.push_str("; ");
        }
        message.push_str(&text(item));
    }
    if message.len() > MAX_TEXT {
        message.truncate(message.floor_char_boundary(MAX_TEXT));
        message.push_str("... and more");
    }
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// The reasons, cut to so many octets.
pub(super) fn refusal(refused: &Refused, max: usize) -> v1::Refusal {
    let mut items = Vec::new();
    let mut size = 0;
    for item in refused.items() {
        size += item.encoded_len() + 4;
        if size > max {
            break;
        }
        items.push(item.clone());
    }
    let left = refused.items().len() - items.len() + refused.more();
    if left > 0 {
        items.push(v1::RefusedItem {
            change: -1,
            item: "transaction".to_owned(),
            field: String::new(),
            reason: format!("{left} more refusals did not fit"),
            fix: "mend those above first".to_owned(),
            code: v1::RefusalCode::Unspecified.into(),
        });
    }
    v1::Refusal { items }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_fit_a_header() {
        let long = "x".repeat(3000);
        let mut refused = Refused::default();
        for change in 0..2000 {
            let item = v1::RefusedItem {
                change,
                item: format!("route {long}"),
                code: v1::RefusalCode::Device.into(),
                ..Default::default()
            };
            refused.push(item);
        }
        let status = status(&refused);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.details().len() < MAX_DETAILS + 200);
        let refusal = v1::Refusal::decode(status.details()).expect("a refusal");
        assert_eq!((refusal.items.len(), refusal.items[2].change), (3, -1));
        assert!(
            refusal.items[2].reason.starts_with("1998 more"),
            "{refusal:?}"
        );
        assert!(
            status.message().len() < MAX_TEXT + 100,
            "{}",
            status.message().len()
        );
    }
}
