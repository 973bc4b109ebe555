//! Small files that are whole under their name, or not there.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a file of its owner's alone (mode 0600), in place of whatever has the name. When this returns
/// it is on the disk under its name; whatever happens before, the name has what it had, or all of this.
///
/// What is written first stands beside it, with the extension `new`: one process at a time writes a file.
///
/// # Errors
/// What the system says; the name then has what it had, unless only the folder could not be synced.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // What a crash has left, or a link to somewhere that somebody else has put there.
    let _ = fs::remove_file(&temporary);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The name must outlive a crash, too.
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("small");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "theirs").expect("a file");
        symlink(&elsewhere, dir.path().join("small.new")).expect("a link");
        for text in ["one", "a longer one", ""] {
            write_whole(&path, text.as_bytes()).expect("a file");
            assert_eq!(fs::read_to_string(&path).expect("it is there"), text);
            let mode = fs::metadata(&path).expect("it is there").permissions();
            assert_eq!(mode.mode() & 0o7777, 0o600);
        }
        assert_eq!(fs::read_to_string(&elsewhere).expect("as it was"), "theirs");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 2);
        // A name that cannot be had keeps what it has.
        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("full")).expect("a folder");
        write_whole(&folder, b"x").expect_err("it is a folder");
        assert!(!dir.path().join("folder.new").exists() && folder.join("full").exists());
    }
}
