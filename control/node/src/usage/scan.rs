//! Reads closed intervals back, a segment at a time.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use prost::Message;
use twinseal_api::v1;

use super::Filter;
use super::store::{Flushed, HEADER, MAGIC, checksum};

/// Walks over what was there at one moment. Blocks; not for the control thread.
pub struct Scan {
    left: VecDeque<(PathBuf, u64)>,
    filter: Filter,
    segment: Vec<u8>,
    at: usize,
}

impl Scan {
    /// Of these segments, from the first.
    pub fn new(flushed: Flushed, filter: Filter) -> Self {
        Self {
            left: flushed.into(),
            filter,
            segment: Vec::new(),
            at: 0,
        }
    }

    /// The wanted records of the next block that has any; `None` at the end. What is damaged is left out.
    pub fn next_block(&mut self) -> io::Result<Option<Vec<v1::UsageRecord>>> {
        loop {
            while let Some(payload) = block(&self.segment, &mut self.at) {
                let records: Vec<_> = records(payload)
                    .filter(|record| self.filter.wants(record))
                    .collect();
                if !records.is_empty() {
                    return Ok(Some(records));
                }
            }
            let Some((path, size)) = self.left.pop_front() else {
                return Ok(None);
            };
            self.at = 0;
            self.segment = match read(&path, size) {
                Ok(segment) => segment,
                // It was the oldest, and went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                Err(error) => return Err(error),
            };
        }
    }
}

fn read(path: &Path, size: u64) -> io::Result<Vec<u8>> {
    let mut segment = Vec::new();
    File::open(path)?.take(size).read_to_end(&mut segment)?;
    Ok(segment)
}

/// The payload of the next whole block from `at`, which moves behind it.
fn block<'a>(segment: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    while let Some(rest) = segment.get(*at..).filter(|rest| rest.len() >= HEADER) {
        if rest[..4] == MAGIC {
            let length = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
            let payload = rest.get(HEADER..).and_then(|rest| rest.get(..length));
            if let Some(payload) = payload.filter(|it| checksum(&rest[4..8], it) == rest[8..HEADER])
            {
                *at += HEADER + length;
                return Some(payload);
            }
        }
        // Torn or damaged: the next block begins somewhere behind.
        *at += 1;
    }
    None
}

fn records(mut payload: &[u8]) -> impl Iterator<Item = v1::UsageRecord> {
    std::iter::from_fn(move || {
        (!payload.is_empty())
            .then(|| v1::UsageRecord::decode_length_delimited(&mut payload).ok())?
    })
}
