//! State files: what a node shall forward, in YAML that people write; `ctl apply` sends it, `ctl get` prints it.
//!
//! Each entry becomes one change of a transaction. Its place in the file is kept, so that a refusal of the node can be
//! shown there.

#![forbid(unsafe_code)]

mod entry;
mod fields;
mod from_proto;
mod judge;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod yaml;

use std::fmt;
use std::path::{Path, PathBuf};

use twinseal_api::v1;
use zeroize::Zeroizing;

use twinseal_base::mistake::Mistake;
use twinseal_base::{private, text};
use yaml::At;

/// A state file, read.
#[derive(Debug)]
pub struct StateFile {
    /// What to apply, in the order of the file's sections.
    pub changes: Vec<v1::Change>,
    /// How many of them are keys whose secret is `installed` or `needed`: the node must have them.
    pub installed: usize,
    /// Whether secrets are written in it.
    holds_secrets: bool,
    path: PathBuf,
    places: Vec<Place>,
}

/// A cipher suite as the file has it; `None` if it is unspecified or of a later API.
#[must_use]
pub fn suite_word(number: i32) -> Option<&'static str> {
    schema::Suite::from_number(number).map(schema::Suite::word)
}

/// A direction as the file has it; `None` if it is unspecified or of a later API.
#[must_use]
pub fn direction_word(number: i32) -> Option<&'static str> {
    schema::Direction::from_number(number).map(schema::Direction::word)
}

/// Where a text comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The user's own file.
    File,
    /// A store, in which others write.
    Store,
    /// What a store has of keys: its writers may set nothing else.
    StoredKeys,
}

/// Where an entry begins.
#[derive(Clone, Debug)]
struct Place {
    at: At,
    section: &'static str,
    index: usize,
}

impl Place {
    /// Which entry of which section.
    fn entry(&self) -> String {
        format!("{}[{}]", self.section, self.index)
    }
}

/// Why a state file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file could not be read.
    #[error("cannot read {}: {source}; name a readable file with -f, or - for standard input", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{}", .0.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Mistake>),
}

impl StateFile {
    /// Reads a file; `-` is standard input, whose `secret_file`s are relative to the working directory.
    ///
    /// # Errors
    /// [`StateFileError::Read`] if it cannot be read, [`StateFileError::Invalid`] with the mistakes in it.
    pub fn load(path: &Path) -> Result<Self, StateFileError> {
        let (path, text) = if path == Path::new("-") {
            (
                Path::new("stdin"),
                std::io::read_to_string(std::io::stdin()),
            )
        } else {
            (path, std::fs::read_to_string(path))
        };
        match text.map(Zeroizing::new) {
            Ok(text) => {
                let file = Self::parse(path, &text)?;
                if file.holds_secrets && private::others_may_read(path) {
                    tracing::warn!(
                        "{0} has secrets, and others may read it: chmod 600 {0}",
                        path.display()
                    );
                }
                Ok(file)
            }
            Err(source) => Err(StateFileError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads the text of a file. `path` is for messages, and `secret_file`s are relative to its directory.
    ///
    /// # Errors
    /// [`StateFileError::Invalid`] with the mistakes in it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, StateFileError> {
        read::read(path, Origin::File, text).map_err(StateFileError::Invalid)
    }

    /// Reads a text that is no file of this machine's, and must not make us read one: no `secret_file`, and no `delete`.
    /// `key` is what it is called in messages.
    ///
    /// # Errors
    /// All mistakes in it, with those that the node would find in its entries.
    pub fn parse_fragment(key: &Path, text: &str) -> Result<Self, Vec<Mistake>> {
        read::read(key, Origin::Store, text)
    }

    /// The same of a fragment by someone who may set keys, and what transmits, and nothing else.
    ///
    /// # Errors
    /// As [`StateFile::parse_fragment`].
    pub fn parse_keys(key: &Path, text: &str) -> Result<Self, Vec<Mistake>> {
        read::read(key, Origin::StoredKeys, text)
    }

    /// The line in which a change of the transaction begins, and where in it; `None` as with [`place`](Self::place).
    /// The line and column of a change in the file.
    pub fn line(&self, change: i32) -> Option<(usize, usize)> {
        let At { line, column } = self.places.get(usize::try_from(change).ok()?)?.at;
        Some((line, column))
    }

    /// Where a change of the transaction stands in the file; `None` for an index that is none of its changes.
    #[must_use]
    pub fn place(&self, change: i32) -> Option<impl fmt::Display + '_> {
        let place = self.places.get(usize::try_from(change).ok()?)?;
        Some(Shown {
            path: &self.path,
            place,
        })
    }
}

struct Shown<'a> {
    path: &'a Path,
    place: &'a Place,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { at, .. } = self.place;
        let (path, entry) = (text::path(self.path), self.place.entry());
        write!(f, "{path}:{}: {entry}", at.line)
    }
}

/// Writes items as a state file. Keys are written without their secrets, as `secret: installed`.
#[must_use]
pub fn render(items: &[v1::Item]) -> String {
    let file = from_proto::file(items);
    // Only a failing writer could make this an error, and a string does not fail.
    serde_saphyr::to_string(&file).unwrap_or_default()
}

/// The same, for `ctl get --json`.
pub fn json(items: &[v1::Item]) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(from_proto::file(items))
}
