//! How far an audit log went that is there at a start.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::Value;

use crate::jsonl::open_regular;

/// Bytes at a file's end that are looked at for its last generation: more than any two lines have.
const TAIL: u64 = 256 << 10;

/// The generation of the last line of a file that tells of one; 0 if none does.
pub fn last_generation(path: &Path) -> u64 {
    let mut first = path.as_os_str().to_owned();
    first.push(".1");
    // It may have been rotated just now.
    let found = [path, Path::new(&first)].into_iter().find_map(last_of);
    found.unwrap_or(0)
}

fn last_of(path: &Path) -> Option<u64> {
    let mut file = open_regular(OpenOptions::new().read(true), path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))
        .ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    tail.rsplit(|&byte| byte == b'\n').find_map(|line| {
        let object: Value = serde_json::from_slice(line).ok()?;
        // One that was repeated may be of any generation before.
        let repeated = object.get("repeated").is_some();
        object.get("generation").filter(|_| !repeated)?.as_u64()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_answer_is_not_how_far_it_went() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("audit.json");
        let lines =
            "{\"generation\":7}\n{\"outcome\":\"refused\"}\n{\"generation\":3,\"repeated\":true}\n";
        std::fs::write(&path, lines).expect("a file");
        assert_eq!(last_generation(&path), 7);
    }
}
