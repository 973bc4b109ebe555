//! Reads a text with all that is wrong with it. A parser stops at its first mistake; so what is wrong is noted, taken out
//! and read past, until the rest is sound.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::de::{DeArray, DeTable, DeValue, Deserializer, Error};

use twinseal_base::mistake::{Mistake, Source, backticked, fix_for};

/// Mistakes of one file that are told.
const MAX_MISTAKES: usize = 100;

/// What could be read of a text.
pub(super) struct Read<T> {
    /// What is sound in it.
    pub(super) file: T,
    /// What is not.
    pub(super) mistakes: Vec<Mistake>,
    /// Whether all of the text was looked at, so that what is not in `file` is not in the text either, or is a mistake
    /// already.
    pub(super) whole: bool,
}

/// Reads as much as there is. Fields that must be given must be optional in `T`: else the whole is taken for wrong.
pub(super) fn read<T: DeserializeOwned + Default>(source: &Source<'_>) -> Read<T> {
    let (mut root, errors) = DeTable::parse_recoverable(source.text);
    let mut whole = errors.is_empty();
    // Behind a text that cannot be parsed the parser guesses: what it meets on one line is one mistake.
    let mut mistakes: Vec<_> = errors.iter().map(|error| mistake(source, error)).collect();
    mistakes.dedup_by_key(|it| it.line);
    loop {
        let error = match T::deserialize(Deserializer::from(root.clone())) {
            Ok(file) => {
                return Read {
                    file,
                    mistakes,
                    whole,
                };
            }
            Err(error) => error,
        };
        mistakes.push(mistake(source, &error));
        let span = error.span();
        let removed = span.is_some_and(|span| remove(root.get_mut(), &span));
        if !removed || mistakes.len() >= MAX_MISTAKES {
            whole = false;
            let file = T::default();
            return Read {
                file,
                mistakes,
                whole,
            };
        }
    }
}

/// Takes out the field whose name or value stands there; false if none does.
fn remove(table: &mut DeTable<'_>, at: &Range<usize>) -> bool {
    let mut fields = table.iter();
    let field = fields.find(|(key, value)| key.span() == *at || value.span() == *at);
    if let Some(key) = field.map(|(key, _)| key.clone()) {
        return table.remove(&key).is_some();
    }
    for (_, value) in table.iter_mut() {
        let removed = match value.get_mut() {
            DeValue::Table(table) => remove(table, at),
            DeValue::Array(array) => remove_of(array, at),
            _ => false,
        };
        if removed {
            return true;
        }
    }
    false
}

fn remove_of(array: &mut DeArray<'_>, at: &Range<usize>) -> bool {
    let mut rest = DeArray::new();
    for value in array.iter().filter(|value| value.span() != *at) {
        rest.push(value.clone());
    }
    let removed = rest.len() < array.len();
    *array = rest;
    removed
}

/// A mistake that the parser found, with the field that it was in.
fn mistake(source: &Source<'_>, error: &Error) -> Mistake {
    let message = error.message();
    let (line, column) = source.place(error.span().map_or(0, |span| span.start));
    let header = |line: &str| {
        line.trim()
            .strip_prefix('[')
            .and_then(|l| l.split(']').next())
            .map(str::to_owned)
    };
    let section = (1..=line)
        .rev()
        .find_map(|n| header(source.line(n)))
        .unwrap_or_default();
    let key = if message.starts_with("unknown field") {
        backticked(message).unwrap_or_default()
    } else {
        source
            .line(line)
            .split_once('=')
            .map_or("", |(key, _)| key.trim())
    };
    // A mistake in a section's own header is in the section, not in a field of it.
    let key = if key == section { "" } else { key };
    let field = [section.as_str(), key]
        .into_iter()
        .filter(|s| !s.is_empty())
        .collect::<Vec<_>>();
    let (field, fix) = (field.join("."), fix_for(message));
    Mistake::new(source.path, (line, column), &field, &plain(message), fix)
}

/// A parser's message without the names of its types.
fn plain(message: &str) -> String {
    const NUMBERS: [(&str, &str); 8] = [
        ("a nonzero u64", "a whole number from 1"),
        ("a nonzero u32", "a whole number from 1 to 4294967295"),
        ("u64", "a whole number from 0"),
        ("usize", "a whole number from 0"),
        ("u32", "a whole number from 0 to 4294967295"),
        ("u16", "a whole number from 0 to 65535"),
        ("u8", "a whole number from 0 to 255"),
        ("path string", "a path"),
    ];
    let message = message.trim().replace('\n', ", ");
    let Some((found, expected)) = message.rsplit_once("expected ") else {
        return message;
    };
    let expected = NUMBERS.iter().find(|(name, _)| *name == expected);
    match expected {
        Some((_, words)) => format!("{found}expected {words}"),
        None => message,
    }
}
