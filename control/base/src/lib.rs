//! What all crates of the control plane stand on: texts of others made safe to show, times, files with secrets, mistakes in files,
//! and random bytes.

#![forbid(unsafe_code)]

pub mod mistake;
pub mod private;
pub mod signals;
pub mod text;
pub mod time;

/// Where control sockets are unless configured otherwise: the file there is `NAME.sock`.
pub const SOCKET_DIR: &str = "/run/twinseal";

/// Fills `bytes` from the kernel's random number generator.
///
/// # Errors
/// If the kernel has none to give.
pub fn random(bytes: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| std::io::Error::other(format!("the kernel gave no random bytes: {error}")))
}

/// Makes the process undumpable: no core dump has its secrets, and no process of the same user may read its memory
/// (prctl(2), PR_SET_DUMPABLE).
///
/// # Errors
/// If the kernel refuses.
pub fn forbid_dumps() -> std::io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(std::io::Error::from)
}
