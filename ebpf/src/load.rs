//! Loading the program: its maps, and the verifier's look at it.

use std::io;

use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

use crate::steering::{PROGRAM, missing};
use crate::{OBJECT, SteerError, caps, sys};

/// Files that a load may need: maps, the program, its types, its link, and what aya finds out about the kernel with.
const FILES: usize = 24;

/// Parses the object, makes its maps and has the verifier look at the program.
pub(crate) fn load() -> Result<Ebpf, SteerError> {
    // The verifier works before the kernel looks for a free descriptor, and what aya cannot find out about the kernel now it
    // takes to be missing for good.
    sys::room_for_files(FILES)
        .map_err(|error| SteerError::kernel("loading the steering program", error))?;
    // aya asks again after any failure, with room for the log, and again until there is room enough. The whole log is long, and
    // only of use if the verifier said no.
    match load_with(VerifierLogLevel::STATS) {
        Err(SteerError::Verifier { .. }) => load_with(VerifierLogLevel::default()),
        loaded => loaded,
    }
}

fn load_with(log: VerifierLogLevel) -> Result<Ebpf, SteerError> {
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(log)
        .load(OBJECT)
        .map_err(|error| SteerError::aya("loading the steering program's maps", &error))?;
    let program: &mut Xdp = ebpf
        .program_mut(PROGRAM)
        .ok_or_else(|| missing("program", PROGRAM))?
        .try_into()
        .map_err(|error: ProgramError| SteerError::aya("loading the steering program", &error))?;
    match program.load() {
        Ok(()) => Ok(ebpf),
        Err(ProgramError::LoadError {
            io_error,
            verifier_log,
        }) => {
            let log = verifier_log.to_string();
            let missing = caps::missing();
            // What the verifier then says is of pointers and registers, and of no use to anyone.
            if missing.contains(&"CAP_PERFMON") || missing.contains(&"CAP_BPF") {
                let action = "loading the steering program".to_owned();
                return Err(SteerError::NoPermission { action, missing });
            }
            if is_rejected(&io_error) && !log.trim().is_empty() {
                Err(SteerError::Verifier { log })
            } else {
                Err(SteerError::kernel("loading the steering program", io_error))
            }
        }
        Err(error) => Err(SteerError::aya("loading the steering program", &error)),
    }
}

/// Whether the verifier said no, if it left a log: other errors come after it, or before. `ENOSPC` is a log that is too long.
fn is_rejected(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(
        errno,
        Some(
            libc::EACCES
                | libc::EINVAL
                | libc::E2BIG
                | libc::EFAULT
                | libc::EOPNOTSUPP
                | libc::ENOSPC
        )
    )
}
