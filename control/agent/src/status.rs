//! What the agent writes back.

use std::fmt;

use serde::Serialize;
use twinseal_api::v1;

use twinseal_base::mistake::Mistake;
use twinseal_base::text::{sentence, word};

/// What became of the desired state: the value of `PREFIX/status/NODE`, in JSON.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub(super) struct Status {
    /// The node's name in the store.
    pub(super) node: String,
    /// The version of the agent.
    pub(super) version: &'static str,
    /// How far the desired state got.
    pub(super) state: Progress,
    /// The store's revision that the node is at; 0 if it never was at any.
    pub(super) revision: i64,
    /// The generation of the node's tables then.
    pub(super) generation: u64,
    /// Why the state did not get further; empty if it is applied.
    pub(super) reasons: Vec<Reason>,
}

/// How far a state got.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Progress {
    /// The node has it.
    Applied,
    /// Some fragment is wrong: the node was not asked.
    Invalid,
    /// The node refused it and is as it was.
    Refused,
    /// The node cannot be reached.
    Unreachable,
}

/// One reason.
#[derive(Clone, PartialEq, Eq, Serialize, Debug, Default)]
pub(super) struct Reason {
    /// Which item.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) item: String,
    /// Its field.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) field: String,
    /// What is wrong.
    pub(super) reason: String,
    /// What to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) fix: String,
}

/// A status stays small, however much is wrong.
pub(super) const MAX_REASONS: usize = 32;

impl Reason {
    /// What is wrong with an item as a whole.
    pub(super) fn new(item: &str, reason: &str, fix: &str) -> Self {
        Self {
            item: word(item).into_owned(),
            field: String::new(),
            reason: sentence(reason).into_owned(),
            fix: fix.to_owned(),
        }
    }

    /// Only a text.
    pub(super) fn text(reason: impl ToString) -> Self {
        Self {
            reason: sentence(&reason.to_string()).into_owned(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.item, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.reason)?;
        match self.fix.as_str() {
            "" => Ok(()),
            fix => write!(f, "; {fix}"),
        }
    }
}

impl From<&Mistake> for Reason {
    fn from(mistake: &Mistake) -> Self {
        Self {
            item: mistake.place(),
            field: mistake.field.clone(),
            reason: mistake.reason.clone(),
            fix: mistake.fix.clone(),
        }
    }
}

impl From<v1::RefusedItem> for Reason {
    fn from(item: v1::RefusedItem) -> Self {
        // The node's words, which it has shortened if it is of this version.
        Self {
            item: word(&item.item).into_owned(),
            field: word(&item.field).into_owned(),
            reason: sentence(&item.reason).into_owned(),
            fix: sentence(&item.fix).into_owned(),
        }
    }
}

impl Status {
    /// Nothing is applied yet.
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            state: Progress::Unreachable,
            revision: 0,
            generation: 0,
            reasons: Vec::new(),
        }
    }

    /// The node is at this revision.
    pub(super) fn applied(&mut self, revision: i64, generation: u64) {
        self.state = Progress::Applied;
        self.revision = revision;
        self.generation = generation;
        self.reasons.clear();
    }

    /// It is not.
    pub(super) fn failed(&mut self, state: Progress, mut reasons: Vec<Reason>) {
        let left = reasons.len().saturating_sub(MAX_REASONS);
        reasons.truncate(MAX_REASONS);
        if left > 0 {
            reasons.push(Reason::text(format!("{left} more")));
        }
        self.state = state;
        self.reasons = reasons;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_json_that_says_what_is_wrong_and_stays_small() {
        let mut status = Status::new("a");
        status.applied(7, 3);
        let json = |status: &Status| serde_json::to_value(status).unwrap();
        assert_eq!(json(&status)["state"], "applied");
        status.failed(
            Progress::Refused,
            vec![v1::RefusedItem::default().into(); 100],
        );
        let shown = json(&status);
        assert_eq!(
            (&shown["state"], &shown["revision"]),
            (&"refused".into(), &7.into())
        );
        assert_eq!(shown["reasons"].as_array().unwrap().len(), MAX_REASONS + 1);
        assert_eq!(shown["reasons"][MAX_REASONS]["reason"], "68 more");
    }
}
