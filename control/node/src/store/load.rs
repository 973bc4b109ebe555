//! Reading back what was stored: the newest snapshot that is whole, and every transaction since.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::hmac;
use twinseal_api::v1;
use twinseal_crypto::BurnMark;

use super::format::{FileError, Kind, Reader, Record};
use super::{FOLDER, Name, files, newest};
use twinseal_model::parse::{Action, Change, Item};
use twinseal_model::refusal::Refused;
use twinseal_model::state::{Key, OwnerName, State};
use twinseal_model::{parse, transaction};

/// What was found.
#[derive(Default)]
pub(crate) struct Loaded {
    /// The tables, `None` if nothing was ever stored.
    pub(crate) state: Option<State>,
    /// What was refused, and why. What is in `state` came before it.
    pub(crate) damage: Vec<String>,
    /// The generations of transactions that waited for their confirmation, and are not in `state`.
    pub(crate) waiting: Vec<u64>,
    /// Why the file that tells how far all went tells nothing.
    pub(crate) newest_lost: Option<String>,
    /// What that file tells.
    pub(crate) reached: Option<newest::Reached>,
    /// This version does not take what an earlier one did: that is why generations are missing.
    unsound: bool,
    /// How far the burned secrets went, by whatever tells most.
    pub(crate) burned: BurnMark,
}

impl Loaded {
    fn damaged(&mut self, error: &FileError) {
        self.unsound |= matches!(error, FileError::Unsound { .. });
        self.damage.push(error.to_string());
    }

    /// One more that tells how far the burned secrets went.
    fn burned(&mut self, mark: Option<BurnMark>) {
        if let Some(mark) = mark.filter(|mark| mark.count >= self.burned.count) {
            self.burned = mark;
        }
    }
}

/// Reads what a state directory has.
pub(super) fn load(state_dir: &Path, key: &hmac::Key) -> std::io::Result<Loaded> {
    let mut loaded = tables(&state_dir.join(FOLDER), key)?;
    match newest::read(state_dir, key) {
        Ok(reached) => {
            let found = loaded.state.as_ref().map_or(0, |state| state.generation);
            if found < reached.generation && loaded.unsound {
                loaded.damage.push(format!(
                    "generation {} was stored, and what is left goes to generation {found}",
                    reached.generation
                ));
            } else if found < reached.generation {
                loaded.damage.push(format!(
                    "generation {} was stored and is not there any more: files of {} were cut short, removed, or put back from a copy; \
                     what is left goes to generation {found}",
                    reached.generation,
                    state_dir.join(FOLDER).display()
                ));
            }
            loaded.burned(Some(reached.burned));
            loaded.reached = Some(reached);
        }
        Err(why) => {
            loaded.damage.push(why.clone());
            loaded.newest_lost = Some(why);
        }
    }
    Ok(loaded)
}

fn tables(dir: &Path, key: &hmac::Key) -> std::io::Result<Loaded> {
    let files = files(dir)?;
    let mut loaded = Loaded::default();
    let mut state = None;
    let snapshots = files.iter().rev();
    let snapshots = snapshots.filter_map(|(name, path)| match name {
        Name::Snapshot(generation) => Some((*generation, path)),
        Name::Journal(_) => None,
    });
    for (generation, path) in snapshots {
        match snapshot(path, generation, key) {
            Ok((found, mark)) => {
                state = Some(found);
                loaded.burned(mark);
                break;
            }
            Err(error) => {
                loaded.damaged(&error);
                set_aside(path)?;
            }
        }
    }
    let journals: Vec<_> = files
        .iter()
        .filter_map(|(name, path)| match name {
            Name::Journal(generation) => Some((*generation, path.clone())),
            Name::Snapshot(_) => None,
        })
        .collect();
    if state.is_none() && journals.is_empty() {
        return Ok(loaded);
    }
    let mut replay = Replay {
        state: state.unwrap_or_default(),
        waiting: BTreeMap::new(),
        burned: None,
    };
    for (generation, path) in journals {
        if generation < replay.state.generation {
            continue;
        }
        match replay.journal(generation, &path, key) {
            Ok(()) => {}
            // A crash cut the last write short: nobody was told that it is stored.
            Err(FileError::Torn { path, offset }) => {
                tracing::info!(path = %path.display(), offset, "the last record is not whole and is left out");
            }
            Err(error) => {
                loaded.damaged(&error);
                // What comes before the damage is needed, should a snapshot fail. What does not follow here must never
                // follow what will be written from now on.
                if !replay.follows(generation) {
                    set_aside(&path)?;
                }
            }
        }
    }
    loaded.burned(replay.burned);
    let mut state = replay.state;
    // What was not confirmed is not here. That is a change of the tables too.
    if let Some(last) = replay.waiting.values().max() {
        state.generation = state.generation.max(*last) + 1;
    }
    for owner in replay.waiting.keys() {
        state.owners.changed(owner, state.generation);
    }
    loaded.waiting = replay.waiting.into_values().collect();
    loaded.state = Some(state);
    Ok(loaded)
}

fn snapshot(
    path: &Path,
    generation: u64,
    key: &hmac::Key,
) -> Result<(State, Option<BurnMark>), FileError> {
    let mut reader = Reader::open(path, key)?;
    let mut state = State::default();
    while let Some(record) = reader.next()? {
        match record.kind() {
            Kind::Items => replay(&mut state, record).map_err(|refused| unsound(path, &refused))?,
            Kind::End if reader.generation == generation && record.generation == generation => {
                state.generation = generation;
                let heard = record.hear(&mut state.owners);
                heard.map_err(|refused| unsound(path, &refused))?;
                return Ok((state, record.mark()));
            }
            _ => {
                return Err(FileError::Kind {
                    path: path.to_owned(),
                });
            }
        }
    }
    Err(FileError::NoEnd {
        path: path.to_owned(),
    })
}

fn unsound(path: &Path, refused: &Refused) -> FileError {
    FileError::Unsound {
        path: path.to_owned(),
        detail: refused.to_string(),
    }
}

struct Replay {
    state: State,
    /// The generations of transactions that wait for their confirmation.
    waiting: BTreeMap<OwnerName, u64>,
    /// How far the burned secrets went, as the last record says.
    burned: Option<BurnMark>,
}

/// Renames a file that was refused: it is kept for people and never read again.
fn set_aside(path: &Path) -> std::io::Result<()> {
    std::fs::rename(path, path.with_extension("refused"))
}

impl Replay {
    /// Whether a journal that begins at this generation goes on here.
    fn follows(&self, generation: u64) -> bool {
        let here = self.state.generation;
        let waits = self.waiting.values().max();
        generation <= here || waits.is_some_and(|waits| generation == here.max(*waits) + 1)
    }

    fn journal(&mut self, generation: u64, path: &Path, key: &hmac::Key) -> Result<(), FileError> {
        let mut reader = Reader::open(path, key)?;
        let gap = |detail| FileError::Gap {
            path: path.to_owned(),
            detail,
        };
        let here = self.state.generation;
        if reader.generation != generation || !self.follows(generation) {
            return Err(gap(format!(
                "it begins at generation {generation}, after {here}"
            )));
        }
        self.state.generation = generation;
        self.waiting.clear();
        while let Some(record) = reader.next()? {
            self.burned = record.mark();
            let owner = OwnerName::parse(&record.owner);
            let owner = owner.map_err(|refused| unsound(path, &refused))?;
            match record.kind() {
                // Others may have gone on since.
                Kind::Waiting => _ = self.waiting.insert(owner, record.generation),
                Kind::Commit => {
                    let generation = record.generation;
                    if generation <= self.state.generation {
                        return Err(gap(format!("generation {generation} comes twice")));
                    }
                    replay(&mut self.state, record).map_err(|refused| unsound(path, &refused))?;
                    self.state.generation = generation;
                    self.waiting.remove(&owner);
                }
                kind => return Err(gap(format!("it holds a record of kind {kind:?}"))),
            }
        }
        Ok(())
    }
}

/// Applies what was applied before.
fn replay(state: &mut State, mut record: Record) -> Result<(), Refused> {
    if record.kind() == Kind::Commit {
        record.hear(&mut state.owners)?;
    }
    // Each item says whose it is; to the parser that would be another's.
    let mut owners = Vec::with_capacity(record.changes.len());
    for change in &mut record.changes {
        let told = match &mut change.change {
            Some(v1::change::Change::Set(item)) => std::mem::take(&mut item.owner),
            _ => String::new(),
        };
        owners.push(OwnerName::parse(&told)?);
    }
    let parsed = parse::changes(record.changes);
    let changes = parsed.refused.unless(parsed.changes)?;
    let changes = changes.into_iter().map(|change| {
        let owner = owners.get(change.index).cloned();
        (known(change), owner)
    });
    transaction::replay(state, changes);
    Ok(())
}

/// Keys come by their fingerprints, and their secrets are gone.
fn known(change: Change) -> Action {
    match change.action {
        Action::Keep(id, kept) => match kept.fingerprint {
            Some(fingerprint) => {
                let key = Key {
                    suite: kept.suite,
                    fingerprint,
                    receiver_index: kept.receiver_index,
                    limits: kept.limits,
                    installed: false,
                };
                Action::Set(Item::Key(id, key))
            }
            None => Action::Keep(id, kept),
        },
        action => action,
    }
}

/// A change as it is stored.
pub(super) fn set(item: v1::Item) -> v1::Change {
    v1::Change {
        change: Some(v1::change::Change::Set(item)),
    }
}
