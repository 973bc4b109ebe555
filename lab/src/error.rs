//! What can go wrong, which object it concerns and what to do about it.

use std::io;

/// The error of every lab operation.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine or the caller's privileges do not allow a lab.
    #[error("a lab cannot run here: {need}; {fix}")]
    Unavailable {
        /// What is missing.
        need: String,
        /// What to do.
        fix: &'static str,
    },
    /// A name or value given by the caller cannot be used.
    #[error("{what} {value:?} cannot be used: {fix}")]
    Invalid {
        /// Which kind of value: "prefix", "role", "interface name", ...
        what: &'static str,
        /// The value as given.
        value: String,
        /// What would be accepted.
        fix: &'static str,
    },
    /// Something of that name is there already, and the lab did not make it.
    #[error("{what} {name:?} exists already; {fix}")]
    Exists {
        /// Which kind of object.
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do.
        fix: &'static str,
    },
    /// The named object is not there.
    #[error("{what} {name:?} is not there; {fix}")]
    Missing {
        /// Which kind of object.
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do.
        fix: &'static str,
    },
    /// The lab is still owned by a live process.
    #[error("lab {id:?} is in use by a live process; end it first, its labs then go with it")]
    InUse {
        /// The lab.
        id: String,
    },
    /// The kernel refused an operation.
    #[error("{doing}: {source}{}", .detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    System {
        /// What was attempted, on which object.
        doing: String,
        /// The kernel's error.
        #[source]
        source: io::Error,
        /// The kernel's own words (netlink extended acknowledgement) or a hint.
        detail: Option<String>,
    },
}

/// Adds to a system error what was being done.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|e| LabError::System {
            doing: what(),
            source: e.into(),
            detail: None,
        })
    }
}
