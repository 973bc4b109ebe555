//! What can be wrong with the node itself, as events call it. docs/events.md says what each means.

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident => $name:literal,)+) => {
        /// A kind of fault.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)+
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// Its name in events.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// Something is sound, but will hardly do what was meant.
    Warning => "warning",
    /// That is over.
    WarningOver => "warning_over",
    /// The steering program knows not all of the node's own addresses.
    OwnAddresses => "own_addresses",
    /// A refused transaction had closed a port.
    PortInterrupted => "port_interrupted",
    /// A TAP device's MTU could not be set.
    TapMtu => "tap_mtu",
    /// Frames that hold several packets each were lost.
    SuperFrames => "super_frames",
    /// Frames that are larger than the port takes were lost.
    OversizedFrames => "oversized_frames",
    /// Frames were lost that a device did not take.
    FramesNotTaken => "frames_not_taken",
    /// Packets may have gone on with a checksum that nobody has finished.
    ChecksumsUnfinishable => "checksums_unfinishable",
    /// The stored tables cannot be restored.
    RestoreFailed => "restore_failed",
    /// Stored tables were refused.
    StoredTablesDamaged => "stored_tables_damaged",
    /// What applies is not on the disk.
    TablesNotStored => "tables_not_stored",
    /// It is again.
    TablesStoredAgain => "tables_stored_again",
    /// Files of the state directory were removed or cut while the node ran.
    StateFilesLost => "state_files_lost",
    /// No secrets are taken.
    SecretsRefused => "secrets_refused",
    /// The file of what drains could not be read.
    DrainsDamaged => "drains_damaged",
    /// A rollback left some things out.
    RollbackIncomplete => "rollback_incomplete",
    /// A rollback could not be done.
    RollbackFailed => "rollback_failed",
    /// An interval of usage was not stored.
    UsageLost => "usage_lost",
    /// Lines of the audit could not be written.
    AuditFailed => "audit_failed",
    /// The control socket was removed.
    ControlSocketGone => "control_socket_gone",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_have_every_kind() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/");
        let page = |name| std::fs::read_to_string(format!("{pages}{name}")).expect("a page");
        let (events, operations) = (page("events.md"), page("operations.md"));
        for kind in FaultKind::ALL.iter().map(|kind| kind.as_str()) {
            assert!(
                events.contains(&format!("| `{kind}` | ")),
                "events.md lacks {kind}"
            );
            let named = operations.contains(&format!("`{kind}`"))
                || operations.contains(&format!("`fault {kind}`"))
                || operations.contains(&format!("`fault {kind}: "));
            assert!(named, "operations.md lacks {kind}");
        }
        let section = events.split("\n## Faults\n").nth(1).expect("the section");
        let rows = section
            .split("\n\n")
            .find(|it| it.starts_with("| "))
            .expect("its table");
        assert_eq!(
            rows.lines().count() - 2,
            FaultKind::ALL.len(),
            "no more than that"
        );
    }
}
