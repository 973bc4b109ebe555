//! Refusals as gRPC statuses.

use prost::Message;
use tonic::{Code, Status};
use twinseal_api::errors::{self, FieldViolation};
use twinseal_api::v1;

use twinseal_model::refusal::{Kind, MAX_ITEMS, Refused, text};
use twinseal_node::handle::Stopped;

/// Refusals travel in HTTP headers, of which gRPC's own clients take 8 KiB in all, names and 32 bytes a header with them:
/// bytes of the text with its escapes, and of the details, which take a third more there.
const MAX_TEXT: usize = 1 << 10;
const MAX_DETAILS: usize = 4600;
/// Octets of the details besides the text and the reasons.
const FRAME: usize = 420;

/// That the node is gone.
pub(crate) fn stopped(stopped: Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}

/// A refusal as a status: its message says it to people, its details to programs. Both are cut to what fits. `list` is
/// what the request calls the list of what is wrong in it.
pub(crate) fn status(refused: &Refused, list: &str) -> Status {
    let code = match refused.kind() {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Precondition => Code::FailedPrecondition,
        Kind::Exhausted => Code::ResourceExhausted,
    };
    let text = cut_text(refused);
    let room = MAX_DETAILS - FRAME - text.len();
    let count = fit(refused, room, |item| {
        item.encoded_len() + violation(item, list).encoded_len()
    });
    let shown = &refused.items()[..count];
    let reason = shown.first().or(refused.items().first());
    let reason = reason.map_or("UNSPECIFIED", |item| item.code().as_str_name());
    let all = refused.items().len() + refused.more();
    let facts = [("refused", all.to_string()), ("shown", count.to_string())];
    let violations = shown.iter().map(|item| violation(item, list));
    let details = vec![
        errors::info(reason.trim_start_matches("REFUSAL_CODE_"), facts),
        errors::bad_request(violations.collect()),
        errors::any(&cut(
            refused,
            count,
            "set refusal_in_response to get more at once",
        )),
    ];
    errors::status(code, text, details)
}

/// The reasons, cut to so many bytes.
pub(crate) fn refusal(refused: &Refused, max: usize) -> v1::Refusal {
    let count = fit(refused, max, Message::encoded_len);
    cut(refused, count, "mend those above first")
}

/// How many of the reasons fit.
fn fit(refused: &Refused, max: usize, size: impl Fn(&v1::RefusedItem) -> usize) -> usize {
    let mut taken = 0;
    let fits = |item: &&v1::RefusedItem| {
        // A few bytes each for their places in lists.
        taken += size(item) + 12;
        taken <= max
    };
    refused.items().iter().take_while(fits).count()
}

/// So many reasons, and how many there are besides.
fn cut(refused: &Refused, count: usize, fix: &str) -> v1::Refusal {
    let all = refused.items().len() + refused.more();
    // What tells how many there are besides is one of them.
    let count = match all > count {
        true => count.min(MAX_ITEMS - 1),
        false => count,
    };
    let mut items = refused.items()[..count].to_vec();
    let left = all - count;
    if left > 0 {
        items.push(v1::RefusedItem {
            change: -1,
            item: "transaction".to_owned(),
            field: String::new(),
            reason: match left {
                1 => "1 more refusal did not fit".to_owned(),
                _ => format!("{left} more refusals did not fit"),
            },
            fix: fix.to_owned(),
            code: v1::RefusalCode::Unspecified.into(),
        });
    }
    v1::Refusal { items }
}

fn violation(item: &v1::RefusedItem, list: &str) -> FieldViolation {
    let field = match (item.change, item.field.as_str()) {
        (..0, field) => field.to_owned(),
        (n, "") => format!("{list}[{n}]"),
        (n, field) => format!("{list}[{n}].{field}"),
    };
    FieldViolation {
        field,
        description: text(item),
        ..Default::default()
    }
}

/// The reasons for people, cut to what fits when what HTTP does not take in a header is escaped.
fn cut_text(refused: &Refused) -> String {
    let mut message = String::new();
    let mut escaped = 0;
    for item in refused.items() {
        let separator = if message.is_empty() { "" } else { "; " };
        for char in separator.chars().chain(text(item).chars()) {
            escaped += match char {
                '"' | '#' | '%' | '<' | '>' | '`' | '?' | '{' | '}' => 3,
                '!'..='~' => 1,
                char => 3 * char.len_utf8(),
            };
            if escaped > MAX_TEXT {
                message.push_str("... and more");
                return message;
            }
            message.push(char);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use prost::Name;

    use super::*;

    fn refused(count: i32, name: &str) -> Refused {
        let mut refused = Refused::default();
        for change in 0..count {
            let item = v1::RefusedItem {
                change,
                item: format!("route {name}"),
                field: "circuit".to_owned(),
                reason: format!("there is no circuit {name}"),
                fix: "set it in the same transaction, or name another".to_owned(),
                code: v1::RefusalCode::Device.into(),
            };
            refused.push(item);
        }
        refused
    }

    /// What a client counts: names and values as they are in HTTP, and 32 bytes each.
    fn headers(status: &Status) -> usize {
        let mut headers = tonic::codegen::http::HeaderMap::new();
        status.add_header(&mut headers).expect("they fit");
        let sizes = headers.iter();
        sizes
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum()
    }

    #[test]
    fn statuses_fit_the_headers_that_clients_take() {
        for (count, name) in [
            (1, "a"),
            (20, "tenant-1"),
            (2000, "a"),
            (2000, "tenant-1"),
            (2000, "\"{<%>}\" \u{7d2f}\u{8a08}\u{6570}"),
            (2000, &"\u{1F600}".repeat(64)),
            (2000, &"x".repeat(3000)),
        ] {
            let refused = refused(count, name);
            let status = status(&refused, "changes");
            assert_eq!(status.code(), Code::FailedPrecondition);
            let size = headers(&status);
            assert!(size < 7600, "{count} of {name}: {size}");
            let told: v1::Refusal = errors::detail(&status).expect("a refusal");
            let all = told.items.len() == count as usize;
            let last = told.items.last().expect("at least how many there are");
            assert!(all || last.reason.ends_with("more refusals did not fit"));
            if name.len() < 10 {
                assert!(
                    told.items.len() >= 12.min(count as usize),
                    "{}",
                    told.items.len()
                );
            }
        }
    }

    #[test]
    fn a_thousand_are_told_and_how_many_there_are_besides_is_one_of_them() {
        for (count, told, last) in [
            (999, 999, None),
            (1000, 1000, None),
            (1001, 1000, Some("2 more refusals did not fit")),
            (5000, 1000, Some("4001 more refusals did not fit")),
        ] {
            let refusal = refusal(&refused(count, "a"), 2 << 20);
            assert_eq!(refusal.items.len(), told, "{count}");
            let more = refusal.items.last().filter(|item| item.change == -1);
            assert_eq!(more.map(|item| item.reason.as_str()), last, "{count}");
        }
    }

    #[test]
    fn details_are_what_libraries_read() {
        let refused = refused(3, "c");
        let status = status(&refused, "items");
        let rich = twinseal_api::errors::Rich::decode(status.details()).expect("google.rpc.Status");
        assert_eq!(rich.code, Code::FailedPrecondition as i32);
        assert_eq!(rich.message, status.message());
        let types: Vec<_> = rich.details.iter().map(|it| it.type_url.as_str()).collect();
        assert_eq!(
            types,
            [
                "type.googleapis.com/google.rpc.ErrorInfo",
                "type.googleapis.com/google.rpc.BadRequest",
                "type.googleapis.com/twinseal.v1.Refusal"
            ]
        );
        assert_eq!(v1::Refusal::full_name(), "twinseal.v1.Refusal");
        let info = errors::ErrorInfo::decode(&*rich.details[0].value).expect("it decodes");
        assert_eq!((&*info.reason, &*info.domain), ("DEVICE", "twinseal"));
        assert_eq!(
            (&*info.metadata["refused"], &*info.metadata["shown"]),
            ("3", "3")
        );
        let bad = errors::BadRequest::decode(&*rich.details[1].value).expect("it decodes");
        assert_eq!(bad.field_violations[2].field, "items[2].circuit");
        assert_eq!(
            bad.field_violations[2].description,
            "route c: circuit: there is no circuit c: set it in the same transaction, or name another"
        );
    }
}
