//! Whether a call failed as too many files are open, and what to do about it.

use std::io;

use crate::sys;

/// In a sentence; none if it failed for another reason.
#[must_use]
pub fn too_many(error: &io::Error) -> Option<String> {
    match error.raw_os_error()? {
        libc::EMFILE => Some(format!(
            "the process has too many open files (limit {}): raise LimitNOFILE= of its unit, or `ulimit -n`",
            sys::most_files()
        )),
        libc::ENFILE => Some(
            "the system has too many open files: raise fs.file-max (`sysctl fs.file-max`)"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_else_is_taken_for_it() {
        let told = |errno| too_many(&io::Error::from_raw_os_error(errno));
        let limit = format!("(limit {})", sys::most_files());
        assert!(told(libc::EMFILE).is_some_and(|it| it.contains(&limit)));
        assert!(told(libc::ENFILE).is_some_and(|it| it.contains("fs.file-max")));
        assert_eq!(told(libc::EBUSY), None);
        assert_eq!(too_many(&io::ErrorKind::NotFound.into()), None);
    }
}
