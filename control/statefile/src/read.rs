//! From the text to changes of a transaction. What is missing or makes no sense is the node's to refuse; only what the
//! protocol cannot express is refused here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use twinseal_api::v1;
use v1::item::Item;

use super::entry::{Secrets, delete, item, key};
use super::fields::{Fields, Mistakes};
use super::judge::judge;
use super::yaml::{At, Broken, Next, Node, Value, Yaml};
use super::{Origin, Place, StateFile};
use twinseal_base::mistake::Mistake;
use twinseal_model::parse::ItemKey;

/// The sections of a file, in the order in which they are applied.
const SECTIONS: [&str; 11] = [
    "ports",
    "vrfs",
    "links",
    "circuits",
    "labels",
    "groups",
    "routes",
    "neighbours",
    "keys",
    "transmit",
    DELETE,
];
pub(super) const DELETE: &str = "delete";
/// Those with secrets, or near to them.
const KEYS: [&str; 2] = ["keys", "transmit"];
/// In what `ctl get -o yaml` prints, the state among what became of it.
const STATE: &str = "state";

pub(super) fn read(path: &Path, origin: Origin, text: &str) -> Result<StateFile, Vec<Mistake>> {
    let mut reader = Reader {
        path,
        origin,
        mistakes: Mistakes::new(path),
        sections: Default::default(),
        wrong: HashMap::new(),
        secrets: Secrets::default(),
    };
    let mut at = "";
    if let Err(broken) = reader.document(text, &mut at) {
        reader.mistakes.broken(broken, at);
    }
    let Reader {
        mut mistakes,
        sections,
        wrong,
        secrets,
        ..
    } = reader;
    let (mut changes, mut places) = (Vec::new(), Vec::new());
    for (change, place) in sections.into_iter().flatten() {
        changes.push(change);
        places.push(place);
    }
    named_once(&changes, &places, &mut mistakes);
    // What the node is asked anyway, it tells together with what only it can know.
    if origin != Origin::File || !mistakes.all.is_empty() {
        judge(&changes, &places, &wrong, &mut mistakes);
    }
    if !mistakes.all.is_empty() {
        mistakes.all.sort_by_key(|it| (it.line, it.column));
        return Err(mistakes.all);
    }
    Ok(StateFile {
        changes,
        installed: secrets.installed,
        holds_secrets: secrets.written,
        path: path.to_owned(),
        places,
    })
}

/// What is set and deleted, or set twice, is not told which of the two is meant.
fn named_once(changes: &[v1::Change], places: &[Place], mistakes: &mut Mistakes<'_>) {
    let mut named: HashMap<ItemKey, &Place> = HashMap::with_capacity(changes.len());
    for (change, place) in changes.iter().zip(places) {
        // A name that makes no sense is the node's to refuse.
        let Some(key) = ItemKey::of_change(change) else {
            continue;
        };
        let what = key.to_string();
        match named.entry(key) {
            Entry::Vacant(entry) => _ = entry.insert(place),
            Entry::Occupied(entry) => {
                let first = entry.get();
                let reason = format!(
                    "{what} is named in line {} already, by {}",
                    first.at.line,
                    first.entry()
                );
                let fix = match (first.section == DELETE) == (place.section == DELETE) {
                    true => "keep one of them",
                    false => {
                        "keep one of them; to make it anew, delete it in a file of its own first"
                    }
                };
                mistakes.add(place.at, &place.entry(), reason, fix);
            }
        }
    }
}

struct Reader<'p> {
    path: &'p Path,
    origin: Origin,
    mistakes: Mistakes<'p>,
    /// What each section changes.
    sections: [Vec<(v1::Change, Place)>; SECTIONS.len()],
    /// Which fields of an entry were told already.
    wrong: HashMap<(&'static str, usize), Vec<String>>,
    secrets: Secrets,
}

impl Reader<'_> {
    fn document(&mut self, text: &str, section: &mut &'static str) -> Result<(), Broken> {
        let mut yaml = Yaml::new(text);
        match yaml.next()? {
            (_, Next::Over) => return Ok(()),
            (_, Next::Map) if text.contains(STATE) && has_state(text) => {
                self.printed(&mut yaml, section)?;
            }
            (_, Next::Map) => self.sections(&mut yaml, section)?,
            (_, Next::Node(node)) if node.is_null() => {}
            (at, next) => {
                yaml.rest(at, next)?;
                let fix = "write sections such as `ports:`, each with a list";
                self.mistakes.add(at, "", "there are no sections", fix);
            }
        }
        *section = "";
        // The end of the document, and what is behind it.
        yaml.next()?;
        if let Some(at) = yaml.more()? {
            let fix = "apply each from a file of its own";
            self.mistakes.add(at, "", "a second document begins", fix);
        }
        Ok(())
    }

    /// Takes the state, and leaves what became of it.
    fn printed(&mut self, yaml: &mut Yaml<'_>, section: &mut &'static str) -> Result<(), Broken> {
        while let Some((at, name)) = name(yaml)? {
            let (value_at, value) = yaml.next()?;
            match value {
                Next::Map if name == STATE => self.sections(yaml, section)?,
                value => {
                    let node = yaml.rest(value_at, value)?;
                    if name == STATE && !node.is_null() {
                        let fix = "write sections such as `ports:`, each with a list";
                        self.mistakes.add(at, STATE, "it has no sections", fix);
                    }
                }
            }
        }
        Ok(())
    }

    fn sections(&mut self, yaml: &mut Yaml<'_>, section: &mut &'static str) -> Result<(), Broken> {
        let mut seen = [false; SECTIONS.len()];
        while let Some((at, name)) = name(yaml)? {
            let n = SECTIONS.iter().position(|section| *section == name);
            let Some(n) = n.filter(|&n| self.origin.may_have(SECTIONS[n])) else {
                self.misplaced(at, &name, n);
                let (at, value) = yaml.next()?;
                yaml.rest(at, value)?;
                continue;
            };
            *section = SECTIONS[n];
            if std::mem::replace(&mut seen[n], true) {
                let fix = "keep one of them";
                self.mistakes.add(at, SECTIONS[n], "it is a duplicate", fix);
            }
            self.section(yaml, n)?;
        }
        Ok(())
    }

    /// A section that is none, or none of this text's.
    fn misplaced(&mut self, at: At, name: &str, n: Option<usize>) {
        let (reason, fix) = match n {
            None => {
                let sections = SECTIONS.iter().filter(|name| self.origin.may_have(name));
                let sections: Vec<_> = sections.copied().collect();
                let reason = format!("unknown field; there are {}", sections.join(", "));
                (reason, "correct its name or remove it")
            }
            Some(_) if name == DELETE => (
                "a fragment says what is to be there".to_owned(),
                "remove the item, or the key, instead",
            ),
            Some(_) => (
                "a fragment under `keys` has the sections keys and transmit only".to_owned(),
                "move the section to a fragment under `state`",
            ),
        };
        self.mistakes.private = self.origin == Origin::StoredKeys;
        let name = self.mistakes.shown(name);
        self.mistakes.add(at, &name, reason, fix);
        self.mistakes.private = false;
    }

    fn section(&mut self, yaml: &mut Yaml<'_>, n: usize) -> Result<(), Broken> {
        match yaml.next()? {
            (_, Next::List) => {
                for index in 0.. {
                    let (at, next) = yaml.next()?;
                    if matches!(next, Next::End) {
                        break;
                    }
                    let node = yaml.rest(at, next)?;
                    self.one(n, index, node);
                }
            }
            (_, Next::Node(node)) if node.is_null() => {}
            (at, next) => match yaml.rest(at, next)?.value {
                // One with an anchor comes whole.
                Value::List(nodes) => {
                    for (index, node) in nodes.into_iter().enumerate() {
                        self.one(n, index, node);
                    }
                }
                _ => {
                    let fix = "write a value of that kind";
                    self.mistakes.add(at, SECTIONS[n], "it is no list", fix);
                }
            },
        }
        Ok(())
    }

    /// One entry of a section.
    fn one(&mut self, n: usize, index: usize, node: Node<'_>) {
        let (at, section) = (node.at, SECTIONS[n]);
        let before = self.mistakes.all.len();
        self.mistakes.private = KEYS.contains(&section) || section == DELETE;
        let change = match section {
            DELETE => self.mistakes.entry(node, "", delete).flatten(),
            "keys" => {
                let Self {
                    path,
                    origin,
                    secrets,
                    ..
                } = self;
                let read = |f: &mut Fields<'_, '_, '_>| {
                    let owner = owner(f, *origin);
                    set(Item::Key(key(f, path, *origin, secrets)), owner)
                };
                self.mistakes.entry(node, "", read)
            }
            _ => {
                let origin = self.origin;
                let read = |f: &mut Fields<'_, '_, '_>| {
                    let owner = owner(f, origin);
                    set(item(section, f), owner)
                };
                self.mistakes.entry(node, "", read)
            }
        };
        self.mistakes.private = false;
        if let Some(told @ [_, ..]) = self.mistakes.all.get(before..) {
            let fields = told.iter().map(|it| it.field.clone());
            self.wrong.insert((section, index), fields.collect());
        }
        if let Some(change) = change {
            let change = v1::Change {
                change: Some(change),
            };
            let place = Place { at, section, index };
            self.sections[n].push((change, place));
        }
    }
}

impl Origin {
    fn may_have(self, section: &str) -> bool {
        match self {
            Self::File => true,
            Self::Store => section != DELETE,
            Self::StoredKeys => KEYS.contains(&section),
        }
    }
}

/// Whether the text is what `ctl get` prints for programs.
fn has_state(text: &str) -> bool {
    let mut yaml = Yaml::new(text);
    if !matches!(yaml.next(), Ok((_, Next::Map))) {
        return false;
    }
    while let Ok(Some((_, name))) = name(&mut yaml) {
        if name == STATE {
            return true;
        }
        let skipped = yaml.next().and_then(|(at, next)| yaml.rest(at, next));
        if skipped.is_err() {
            break;
        }
    }
    false
}

/// The next field of a map that was begun; `None` at its end.
fn name(yaml: &mut Yaml<'_>) -> Result<Option<(At, String)>, Broken> {
    match yaml.next()? {
        (_, Next::End | Next::Over) => Ok(None),
        (at, Next::Node(node)) => match node.value {
            Value::Scalar { text, .. } => Ok(Some((at, text.into_owned()))),
            _ => Err(no_name(at)),
        },
        (at, _) => Err(no_name(at)),
    }
}

fn no_name(at: At) -> Broken {
    let reason = "a list or a map is no name of a section".to_owned();
    Broken { at, reason }
}

/// Whose it is, as `ctl get` prints it. What a store has is its reader's.
fn owner(f: &mut Fields<'_, '_, '_>, origin: Origin) -> String {
    match origin {
        Origin::File => f.text("owner"),
        Origin::Store | Origin::StoredKeys => String::new(),
    }
}

fn set(item: Item, owner: String) -> v1::change::Change {
    v1::change::Change::Set(v1::Item {
        item: Some(item),
        owner,
    })
}
