//! Numbers of users and groups.
//!
//! Only the local databases are read. Users of a directory service are configured by number; that keeps the name service,
//! with all it loads into a process, out of the daemon.

use std::fs;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    User,
    Group,
}

impl Kind {
    pub(super) fn database(self) -> &'static str {
        match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        }
    }
}

/// The number of a name, `None` if the database has no such name.
pub(super) fn id_of(kind: Kind, name: &str) -> Option<u32> {
    find(&fs::read_to_string(kind.database()).ok()?, name)
}

/// Both databases have the name in the first field and the number in the third (passwd(5), group(5)).
fn find(database: &str, name: &str) -> Option<u32> {
    database.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The user that this process runs as.
pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names_in_the_database() {
        let text = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:/bin/false\nbroken:x:many:1\n";
        assert_eq!(find(text, "web"), Some(33));
        assert_eq!(find(text, "root"), Some(0));
        assert_eq!(find(text, "broken"), None);
        assert_eq!(find(text, "we"), None);
        assert_eq!(id_of(Kind::User, "root"), Some(0));
    }
}
