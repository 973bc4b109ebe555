//! The fields of an entry, taken one by one; what is wrong with any of them is noted, and the next is looked at.

use std::borrow::Cow;
use std::path::Path;

use zeroize::Zeroizing;

use super::yaml::{At, Broken, Node, Pair, Value};
use twinseal_base::mistake::Mistake;
use twinseal_base::text::{hide_secrets, quoted};

/// Mistakes of one file that are told.
const MAX_MISTAKES: usize = 1000;
/// Characters of an unknown field's name that are shown where it may be a secret: ours have no more.
const MAX_SHOWN: usize = 24;

/// What is wrong with a file.
pub(super) struct Mistakes<'p> {
    path: &'p Path,
    /// Whether secrets are near: then no value is told, nor a name of a field that may be one.
    pub(super) private: bool,
    pub(super) all: Vec<Mistake>,
}

/// A word of a small vocabulary.
pub(crate) trait Word: Sized {
    /// All of them.
    const WORDS: &'static [&'static str];
    /// The protocol's number of a word.
    fn number_of(word: &str) -> Option<i32>;
}

impl<'p> Mistakes<'p> {
    pub(super) fn new(path: &'p Path) -> Self {
        Self {
            path,
            private: false,
            all: Vec::new(),
        }
    }

    /// The name of an unknown field.
    pub(super) fn shown<'t>(&self, name: &'t str) -> Cow<'t, str> {
        let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
        match self.private && (name.len() > MAX_SHOWN || !name.bytes().all(plain)) {
            true => Cow::Borrowed("(a name that is not shown)"),
            false => hide_secrets(name),
        }
    }

    pub(super) fn add(&mut self, at: At, field: &str, reason: impl Into<String>, fix: &str) {
        if self.all.len() < MAX_MISTAKES {
            let place = (at.line, at.column);
            let reason = reason.into();
            let mistake = Mistake::new(self.path, place, field, &hide_secrets(&reason), fix);
            self.all.push(mistake);
        }
    }

    /// The text cannot be read from there on.
    pub(super) fn broken(&mut self, broken: Broken, field: &str) {
        self.add(broken.at, field, broken.reason, "correct the text there");
    }

    /// Reads a map by its fields. Those that `read` does not ask for are mistakes.
    pub(super) fn entry<T>(
        &mut self,
        node: Node<'_>,
        within: &str,
        read: impl FnOnce(&mut Fields<'_, '_, 'p>) -> T,
    ) -> Option<T> {
        let Value::Map(pairs) = node.value else {
            let field = within.trim_end_matches('.');
            self.add(
                node.at,
                field,
                "it has no fields",
                "write them like { name: value }, or a line each",
            );
            return None;
        };
        let mut fields = Fields {
            at: node.at,
            within,
            pairs: Vec::with_capacity(pairs.len()),
            known: Vec::new(),
            mistakes: self,
        };
        fields.fill(pairs);
        let value = read(&mut fields);
        fields.end();
        Some(value)
    }
}

/// The fields of an entry that were not taken yet.
pub(super) struct Fields<'a, 'm, 'p> {
    /// Where the entry is.
    pub(super) at: At,
    /// What names of fields begin with in mistakes.
    within: &'m str,
    pairs: Vec<Pair<'a>>,
    known: Vec<&'static str>,
    pub(super) mistakes: &'m mut Mistakes<'p>,
}

impl<'a, 'p> Fields<'a, '_, 'p> {
    /// What is given twice counts once; `<<` brings what is not given.
    fn fill(&mut self, pairs: Vec<Pair<'a>>) {
        let mut merged = Vec::new();
        for mut pair in pairs {
            match &mut pair.value.value {
                Value::Map(pairs) if pair.key == "<<" => merged.append(pairs),
                _ if self.has(&pair.key) => {
                    let name = self.mistakes.shown(&pair.key);
                    self.wrong(pair.at, &name, "it is a duplicate", "keep one of them");
                }
                _ => self.pairs.push(pair),
            }
        }
        for pair in merged {
            if !self.has(&pair.key) {
                self.pairs.push(pair);
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|pair| pair.key == name)
    }

    /// How many fields were not taken yet.
    pub(super) fn given(&self) -> usize {
        self.pairs.len()
    }

    /// Notes a mistake in a field.
    pub(super) fn wrong(&mut self, at: At, field: &str, reason: impl Into<String>, fix: &str) {
        let field = format!("{}{field}", self.within);
        self.mistakes.add(at, &field, reason, fix);
    }

    /// A field, unless it is not given or nothing.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Node<'a>> {
        self.known.push(name);
        let place = self.pairs.iter().position(|pair| pair.key == name)?;
        let node = self.pairs.swap_remove(place).value;
        (!node.is_null()).then_some(node)
    }

    fn scalar(&mut self, name: &'static str, kind: &str) -> Option<(At, Cow<'a, str>)> {
        let node = self.take(name)?;
        match node.value {
            Value::Scalar { text, .. } => Some((node.at, text)),
            _ => {
                self.kind(node.at, name, kind);
                None
            }
        }
    }

    fn kind(&mut self, at: At, name: &str, kind: &str) {
        self.wrong(
            at,
            name,
            format!("it is no {kind}"),
            "write a value of that kind",
        );
    }

    /// A text, or none.
    pub(super) fn maybe(&mut self, name: &'static str) -> Option<String> {
        self.scalar(name, "text").map(|(_, text)| text.into_owned())
    }

    /// A text; none is an empty one.
    pub(super) fn text(&mut self, name: &'static str) -> String {
        self.maybe(name).unwrap_or_default()
    }

    /// A text that must be given.
    pub(super) fn needed(&mut self, name: &'static str) -> String {
        self.need(name);
        self.text(name)
    }

    /// A text that is wiped, and its place.
    pub(super) fn secret(&mut self, name: &'static str) -> Option<Zeroizing<String>> {
        let (_, text) = self.scalar(name, "text")?;
        Some(Zeroizing::new(text.into_owned()))
    }

    /// A number from 0; none is 0.
    pub(super) fn number<T: TryFrom<u64> + Default>(&mut self, name: &'static str) -> T {
        self.maybe_number(name).unwrap_or_default()
    }

    /// A number from 0, or none.
    pub(super) fn maybe_number<T: TryFrom<u64>>(&mut self, name: &'static str) -> Option<T> {
        let (at, text) = self.scalar(name, "whole number")?;
        let number = number(&text).and_then(|number| T::try_from(number).ok());
        if number.is_none() {
            let most = u64::MAX >> (64 - 8 * size_of::<T>());
            self.kind(at, name, &format!("whole number from 0 to {most}"));
        }
        number
    }

    /// A number that must be given.
    pub(super) fn needed_number<T: TryFrom<u64> + Default>(&mut self, name: &'static str) -> T {
        self.need(name);
        self.number(name)
    }

    /// True or false; none is false.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        let Some((at, text)) = self.scalar(name, "true or false") else {
            return false;
        };
        match &*text {
            "true" | "True" | "TRUE" | "yes" | "on" => true,
            "false" | "False" | "FALSE" | "no" | "off" => false,
            _ => {
                self.wrong(
                    at,
                    name,
                    "it is neither true nor false",
                    "write true or false",
                );
                false
            }
        }
    }

    /// The number of a word; none is 0, the protocol's "unspecified".
    pub(super) fn word<W: Word>(&mut self, name: &'static str) -> i32 {
        let Some((at, text)) = self.scalar(name, "word") else {
            return 0;
        };
        W::number_of(&text).unwrap_or_else(|| {
            let value = match self.mistakes.private {
                true => Cow::Borrowed("it"),
                false => Cow::Owned(quoted(&text)),
            };
            let reason = format!("{value} is not one of {}", W::WORDS.join(", "));
            self.wrong(at, name, reason, "write one of these");
            0
        })
    }

    /// A map of further fields.
    pub(super) fn map<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_, '_, 'p>) -> T,
    ) -> Option<T> {
        let node = self.take(name)?;
        let within = format!("{}{name}.", self.within);
        self.mistakes.entry(node, &within, read)
    }

    /// A list of maps.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Fields<'_, '_, 'p>) -> T,
    ) -> Vec<T> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let Value::List(nodes) = node.value else {
            self.kind(node.at, name, "list");
            return Vec::new();
        };
        let mut all = Vec::with_capacity(nodes.len());
        for (n, node) in nodes.into_iter().enumerate() {
            let within = format!("{}{name}[{n}].", self.within);
            all.extend(self.mistakes.entry(node, &within, &mut read));
        }
        all
    }

    /// A list of texts.
    pub(super) fn texts_of(&mut self, name: &'static str) -> Vec<String> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let Value::List(nodes) = node.value else {
            self.kind(node.at, name, "list of texts");
            return Vec::new();
        };
        let mut texts = Vec::with_capacity(nodes.len());
        for Node { at, value } in nodes {
            match value {
                Value::Scalar { text, .. } => texts.push(text.into_owned()),
                _ => self.kind(at, name, "text"),
            }
        }
        texts
    }

    /// A map of names to texts of the user's own.
    pub(super) fn texts(&mut self, name: &'static str) -> Vec<(String, String)> {
        let Some(node) = self.take(name) else {
            return Vec::new();
        };
        let Value::Map(pairs) = node.value else {
            self.kind(node.at, name, "map of texts");
            return Vec::new();
        };
        let mut texts: Vec<(String, String)> = Vec::with_capacity(pairs.len());
        for Pair { at, key, value } in pairs {
            if texts.iter().any(|(other, _)| *other == key) {
                self.wrong(at, name, "it has a duplicate", "keep one of them");
                continue;
            }
            match value.value {
                Value::Scalar { text, .. } => texts.push((key.into_owned(), text.into_owned())),
                _ => self.kind(value.at, name, "map of texts"),
            }
        }
        texts
    }

    /// The one of several alternatives that is given. None at all is the node's to refuse.
    pub(super) fn one_of<T, const N: usize>(
        &mut self,
        fields: &str,
        options: [Option<T>; N],
    ) -> Option<T> {
        let mut given = options.into_iter().flatten();
        let first = given.next();
        if given.next().is_some() {
            let reason = "more than one of these is given";
            self.mistakes
                .add(self.at, fields, reason, "keep one of them");
        }
        first
    }

    fn need(&mut self, name: &'static str) {
        if !self.has(name) {
            self.wrong(self.at, name, format!("missing field `{name}`"), "add it");
        }
    }

    fn end(&mut self) {
        for pair in std::mem::take(&mut self.pairs) {
            let known = self.known.join(", ");
            let reason = format!("unknown field; there are {known}");
            let name = self.mistakes.shown(&pair.key);
            self.wrong(pair.at, &name, reason, "correct its name or remove it");
        }
    }
}

/// In decimal, or with 0x, 0o or 0b; `_` may part digits.
fn number(text: &str) -> Option<u64> {
    let digits = |radix, digits: &str| {
        let sound = !digits.starts_with(['_', '+']) && !digits.ends_with('_');
        let digits = digits.replace('_', "");
        u64::from_str_radix(&digits, radix).ok().filter(|_| sound)
    };
    match text.get(..2) {
        Some("0x") => digits(16, &text[2..]),
        Some("0o") => digits(8, &text[2..]),
        Some("0b") => digits(2, &text[2..]),
        _ => digits(10, text),
    }
}
