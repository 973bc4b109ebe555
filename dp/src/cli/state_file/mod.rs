//! State files: what a node shall forward, in YAML that people write; `ctl apply` sends it, `ctl get` prints it.
//!
//! Each entry becomes one change of a transaction. Its place in the file is kept, so that a refusal of the node can be
//! shown there.

mod from_proto;
mod into_proto;
pub(super) mod schema;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use twinseal_api::v1;
use zeroize::Zeroizing;

use crate::config::{Mistake, Source, backticked, fix_for};
use schema::File;

/// A state file, read.
#[derive(Debug)]
pub struct StateFile {
    /// What to apply, in the order of the file's sections.
    pub changes: Vec<v1::Change>,
    /// How many of them are keys whose secret is `installed`: the node must have them.
    pub installed: usize,
    path: PathBuf,
    places: Vec<Place>,
}

/// Where a text comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The user's own file.
    File,
    /// A store, in which others write.
    Store,
}

/// Where an entry begins.
#[derive(Clone, Debug)]
struct Place {
    line: u64,
    section: &'static str,
    index: usize,
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
        match text {
            Ok(text) => Self::parse(path, &Zeroizing::new(text)),
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
        Self::parse_from(Origin::File, path, text)
    }

    /// Reads a text that is no file of this machine's, and must not make us read one: no `secret_file`. `key` is what it
    /// is called in messages.
    ///
    /// # Errors
    /// [`StateFileError::Invalid`] with the mistakes in it.
    pub fn parse_fragment(key: &Path, text: &str) -> Result<Self, StateFileError> {
        Self::parse_from(Origin::Store, key, text)
    }

    fn parse_from(origin: Origin, path: &Path, text: &str) -> Result<Self, StateFileError> {
        // The file is the user's own, so nothing limits its size. Snippets are off: they could show a secret.
        let options = serde_saphyr::options! { budget: None, with_snippet: false };
        let file = if text
            .lines()
            .all(|line| line.trim().is_empty() || line.trim().starts_with('#'))
        {
            File::default()
        } else {
            serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| StateFileError::Invalid(vec![syntax(path, text, &error)]))?
        };
        into_proto::convert(path, origin, file).map_err(StateFileError::Invalid)
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
        let Place {
            line,
            section,
            index,
        } = self.place;
        write!(f, "{}:{line}: {section}[{index}]", self.path.display())
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
pub(super) fn json(items: &[v1::Item]) -> serde_json::Result<serde_json::Value> {
    serde_json::to_value(from_proto::file(items))
}

/// A mistake that the parser found, with the field that it was in.
fn syntax(path: &Path, text: &str, error: &serde_saphyr::Error) -> Mistake {
    let (line, column) = error
        .location()
        .map_or((1, 1), |at| (at.line() as usize, at.column() as usize));
    let message = error.without_snippet().to_string();
    // The parser appends the place, which we put first, and names Rust's types.
    let reason = match message.split(" at line ").next().unwrap_or_default().trim() {
        "invalid u32" => format!("invalid value: not a whole number from 0 to {}", u32::MAX),
        "invalid u64" => format!("invalid value: not a whole number from 0 to {}", u64::MAX),
        reason => reason.to_owned(),
    };
    let field = if reason.contains("missing field") || reason.contains("unknown field") {
        backticked(&reason).unwrap_or_default().to_owned()
    } else {
        field_at(Source { path, text }.line(line), column)
    };
    let fix = fix_for(&reason).to_owned();
    Mistake {
        path: path.to_owned(),
        line,
        column,
        field,
        reason,
        fix,
    }
}

/// The key whose value stands at a column of a line; empty if there is none.
fn field_at(line: &str, column: usize) -> String {
    let before: String = line.chars().take(column.saturating_sub(1)).collect();
    let Some(before) = before.trim_end().strip_suffix(':') else {
        return String::new();
    };
    before
        .rsplit([' ', '{', ',', '['])
        .next()
        .unwrap_or_default()
        .to_owned()
}
