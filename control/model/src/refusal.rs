//! Why a transaction was refused: all reasons at once, each naming its change, item and field.

use std::fmt;

pub use twinseal_api::v1::{RefusalCode as Code, RefusedItem};

use crate::parse::ItemKey;
use twinseal_base::text::{sentence, shorten, word};

/// Reasons that one line of a log or an event has.
const SHOWN: usize = 20;

/// What a reason about no single item names.
const WHOLE: &str = "transaction";
/// More reasons than these are only counted: a controller that is wrong a million times need not read it all.
pub const MAX_ITEMS: usize = 1000;

/// Of which kind a code is; decides the gRPC status.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// The item is wrong in itself, or does not fit the others: INVALID_ARGUMENT.
    Invalid,
    /// The item is right but the node is not ready for it: FAILED_PRECONDITION.
    Precondition,
    /// The node has no room for it: RESOURCE_EXHAUSTED.
    Exhausted,
}

impl From<Code> for Kind {
    fn from(code: Code) -> Self {
        match code {
            Code::Unspecified
            | Code::Invalid
            | Code::NotFound
            | Code::InUse
            | Code::WrongKind
            | Code::Conflict
            | Code::Immutable
            | Code::SecretReused
            | Code::Epoch => Self::Invalid,
            Code::SecretBurned
            | Code::SecretsRefused
            | Code::Generation
            | Code::Device
            | Code::Storage
            | Code::Internal
            | Code::SecretNeeded
            | Code::RequestId
            | Code::Pending
            | Code::NotPending
            | Code::Restoring
            | Code::Owner
            | Code::Draining => Self::Precondition,
            Code::NoRoom => Self::Exhausted,
        }
    }
}

/// Every reason that was found. Empty: nothing is refused.
#[derive(Clone, Default, PartialEq, Debug)]
pub struct Refused {
    kind: Option<Kind>,
    items: Vec<RefusedItem>,
    more: usize,
}

impl Refused {
    /// Adds a reason. Of several kinds the first in [`Kind`]'s order stands for all.
    pub fn push(&mut self, mut item: RefusedItem) {
        // They name what was sent, which may be any text of any length.
        for text in [&mut item.item, &mut item.field] {
            shorten(text, word);
        }
        for text in [&mut item.reason, &mut item.fix] {
            shorten(text, sentence);
        }
        let kind = Kind::from(item.code());
        self.kind = Some(self.kind.map_or(kind, |k| k.min(kind)));
        // Checks go through tables that have no order.
        let place = self.items.partition_point(|it| order(it) <= order(&item));
        if place == MAX_ITEMS {
            self.more += 1;
            return;
        }
        self.items.insert(place, item);
        if self.items.len() > MAX_ITEMS {
            self.items.pop();
            self.more += 1;
        }
    }

    /// A single reason about the whole transaction.
    pub fn whole(code: Code, field: &str, reason: String, fix: &str) -> Self {
        Self::about(WHOLE, code, field, reason, fix)
    }

    /// A single reason about something that is no change.
    pub fn about(item: &str, code: Code, field: &str, reason: String, fix: &str) -> Self {
        let mut refused = Self::default();
        refused.push(RefusedItem {
            change: -1,
            item: item.to_owned(),
            field: field.to_owned(),
            reason,
            fix: fix.to_owned(),
            code: code.into(),
        });
        refused
    }

    /// Adds all reasons of another.
    pub fn append(&mut self, other: Self) {
        for item in other.items {
            self.push(item);
        }
        self.more += other.more;
    }

    /// The value, or what is wrong with it added to the rest.
    pub fn sound<T>(&mut self, value: Result<T, Self>) -> Option<T> {
        value.map_err(|why| self.append(why)).ok()
    }

    /// Whether nothing was refused.
    pub fn is_empty(&self) -> bool {
        self.kind.is_none()
    }

    /// The kind of the whole.
    pub fn kind(&self) -> Kind {
        self.kind.unwrap_or(Kind::Invalid)
    }

    /// The same under this kind, if there is one, whatever the reasons are of.
    pub fn of_kind(mut self, kind: Option<Kind>) -> Self {
        self.kind = kind.or(self.kind);
        self
    }

    /// The reasons, at most a thousand: first those of the whole, then by the places of their changes.
    pub fn items(&self) -> &[RefusedItem] {
        &self.items
    }

    /// How many more there are.
    pub fn more(&self) -> usize {
        self.more
    }

    /// `value` if nothing was refused.
    pub fn unless<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

/// What comes first: what is about the whole, then what is about no change, then changes by their places.
fn order(item: &RefusedItem) -> (i32, bool, &str) {
    (item.change, item.item != WHOLE, &item.item)
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.items.iter().take(SHOWN).enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            f.write_str(separator)?;
            f.write_str(&text(item))?;
        }
        match self.items.len().saturating_sub(SHOWN) + self.more {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Refused {}

/// A change's place as the protocol has it. What Replace sweeps away has none.
pub fn place(index: usize) -> i32 {
    i32::try_from(index).unwrap_or(-1)
}

/// A reason that names one item.
pub fn reason(
    code: Code,
    change: Option<usize>,
    item: &ItemKey,
    field: &str,
    reason: impl Into<String>,
    fix: &str,
) -> RefusedItem {
    RefusedItem {
        change: change.map_or(-1, place),
        item: item.to_string(),
        field: field.to_owned(),
        reason: reason.into(),
        fix: fix.to_owned(),
        code: code.into(),
    }
}

/// One reason in one line, as `circuit "a-b": link: there is no link "x": set it in the same transaction`.
pub fn text(item: &RefusedItem) -> String {
    let field = match item.field.as_str() {
        "" => String::new(),
        field => format!("{field}: "),
    };
    let fix = match item.fix.as_str() {
        "" => String::new(),
        fix => format!(": {fix}"),
    };
    format!("{}: {field}{}{fix}", item.item, item.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_in_order_and_the_first_are_kept_of_many() {
        let of = |change: i32, item: &str, field: &str| RefusedItem {
            change,
            item: item.to_owned(),
            field: field.to_owned(),
            ..Default::default()
        };
        let mut refused = Refused::default();
        for change in (0..3000).rev() {
            refused.push(of(change, "route", "first"));
            refused.push(of(change, "route", "second"));
        }
        refused.push(of(-1, "port", "device"));
        refused.append(Refused::whole(
            Code::Invalid,
            "request_id",
            String::new(),
            "",
        ));
        assert_eq!((refused.items().len(), refused.more()), (1000, 5002));
        let told = refused.items().iter();
        let told: Vec<_> = told.map(|it| (it.change, &*it.field)).collect();
        let first = [
            (-1, "request_id"),
            (-1, "device"),
            (0, "first"),
            (0, "second"),
            (1, "first"),
        ];
        assert_eq!(told[..5], first);
        assert_eq!(told[999], (498, "second"));
    }

    #[test]
    fn what_others_wrote_is_cut() {
        let mut refused = Refused::default();
        for _ in 0..1000 {
            refused.push(RefusedItem {
                item: "x".repeat(60_000),
                field: "\u{1b}".repeat(60_000),
                reason: format!("{} is no name", "y".repeat(60_000)),
                fix: "z".repeat(60_000),
                ..Default::default()
            });
        }
        let one = text(&refused.items()[0]);
        assert!(one.len() < 3000 && one.contains(" is no name: z"), "{one}");
        assert!(!one.contains('\u{1b}'), "{one}");
        let all = refused.to_string();
        assert!(all.len() < 60_000, "{}", all.len());
        assert!(all.ends_with("; and 980 more"), "{all}");
    }
}
