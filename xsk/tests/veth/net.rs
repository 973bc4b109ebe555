//! A network namespace with veth pairs in it.

use std::process::Command;

/// Runs a test in its own thread and network namespace. Devices, sockets and programs in it vanish with the thread,
/// also after a panic.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: takes no pointers; affects only this thread.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!(
                "SKIPPED: no network namespace ({}): run as root",
                std::io::Error::last_os_error()
            );
            return;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            eprintln!("SKIPPED: no `ip` command: install iproute2");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .expect("ip runs");
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A veth pair with this many queues at each end, up and quiet.
pub(crate) fn veth(one: &str, other: &str, queues: u32) {
    let q = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(&format!(
        "link add name {one} {q} type veth peer name {other} {q}"
    ));
    for name in [one, other] {
        // No link-local address, so no router solicitations between our packets.
        ip(&format!("link set dev {name} addrgenmode none"));
        ip(&format!("link set dev {name} up"));
    }
}

/// The index of a device.
pub(crate) fn ifindex(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).expect("a name");
    // SAFETY: a zero-terminated name that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{name:?} exists");
    index
}

/// Takes effective capabilities, given as bits below 32, from this thread.
pub(crate) fn drop_capabilities(bits: u32) {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    // Effective, permitted and inheritable, twice.
    let mut sets = [0u32; 6];
    // SAFETY: header and sets have the sizes of this version; both outlive the calls.
    unsafe {
        assert_eq!(
            libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()),
            0
        );
        sets[0] &= !bits;
        assert_eq!(
            libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()),
            0
        );
    }
}
