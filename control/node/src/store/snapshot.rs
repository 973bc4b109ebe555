//! Snapshots: written beside the others, and the old ones removed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use aws_lc_rs::hmac;

use super::format::{Kind, Record, Writer};
use super::load::set;
use super::writer::Whole;
use super::{Name, files, name};
use twinseal_model::items;

/// Items of a record of a snapshot.
const CHUNK: usize = 4096;

/// A new file for this user alone.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Writes a snapshot beside the others. Tells its size.
pub(super) fn write_snapshot(dir: &Path, key: &hmac::Key, whole: &Whole) -> io::Result<u64> {
    let temporary = dir.join("snapshot.new");
    let _ = fs::remove_file(&temporary);
    let written = write_items(&temporary, key, whole);
    if written.is_err() {
        // On a full disk what is there of it would be in everybody's way.
        let _ = fs::remove_file(&temporary);
    }
    let size = written?;
    let path = dir.join(name(Name::Snapshot(whole.state.generation)));
    fs::rename(&temporary, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(size)
}

fn write_items(path: &Path, key: &hmac::Key, whole: &Whole) -> io::Result<u64> {
    let (state, burned) = (&whole.state, &whole.burned);
    let mut writer = Writer::new(BufWriter::new(create(path)?), key, state.generation)?;
    let mut record = Record::new(Kind::Items, 0, burned, Vec::new());
    let mut result = Ok(());
    items::each(state, |item| {
        record.changes.push(set(item));
        if record.changes.len() == CHUNK {
            if result.is_ok() {
                result = writer.write(&record);
            }
            record.changes.clear();
        }
    });
    result?;
    writer.write(&record)?;
    let mut end = Record::new(Kind::End, state.generation, burned, Vec::new());
    end.say(&state.owners);
    writer.write(&end)?;
    writer.get_mut().flush()?;
    writer.get_mut().get_ref().sync_data()?;
    Ok(writer.written)
}

/// Keeps the last two snapshots, which are whole, and the journals since the older of them.
pub(super) fn clear(dir: &Path) -> io::Result<()> {
    let files = files(dir)?;
    let mut snapshots: Vec<_> = files
        .iter()
        .filter_map(|(name, _)| match name {
            Name::Snapshot(generation) => Some(*generation),
            Name::Journal(_) => None,
        })
        .collect();
    snapshots.reverse();
    let oldest = snapshots.get(1).copied().unwrap_or(0);
    for (name, path) in files {
        let (Name::Snapshot(generation) | Name::Journal(generation)) = name;
        if generation < oldest {
            fs::remove_file(path)?;
        }
    }
    // Journals that were set aside for one that begins where they did: that has a snapshot now.
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "old") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
