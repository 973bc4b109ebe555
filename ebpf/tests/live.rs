//! The program on real devices: modes, attach and detach, and who hears what, also after the process is killed.

mod common;

use std::io::{BufRead, BufReader};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{MAC, PEER, PORT, Xsk, in_namespace, ip, run};
use twinseal_ebpf::{Role, SteerError, Steering, Verdict, XdpMode, XdpOutcome};

const EDGE: Role = Role::Edge {
    mac: MAC,
    owned: false,
};

#[test]
fn modes_are_what_was_asked_for_or_said() {
    in_namespace(&[], || {
        for (mode, outcome) in [
            (XdpMode::Native, XdpOutcome::Native),
            (XdpMode::Generic, XdpOutcome::Generic),
            (XdpMode::Auto, XdpOutcome::Native),
        ] {
            let steering = Steering::attach(PORT, EDGE, mode).unwrap();
            assert_eq!(steering.outcome(), outcome, "{mode:?}");
            assert!(steering.native_refusal().is_none(), "{mode:?}");
            assert_eq!(
                attached(PORT),
                Some(outcome),
                "as the kernel tells, {mode:?}"
            );
            drop(steering);
            assert_eq!(attached(PORT), None, "after drop, {mode:?}");
        }

        // The loopback device has no native XDP.
        let steering = Steering::attach("lo", Role::Underlay, XdpMode::Auto).unwrap();
        assert_eq!(steering.outcome(), XdpOutcome::Generic);
        let refusal = steering.native_refusal().expect("a reason");
        assert_eq!(refusal.raw_os_error(), Some(libc::EOPNOTSUPP));
        drop(steering);
        let error = Steering::attach("lo", Role::Underlay, XdpMode::Native).unwrap_err();
        assert!(
            matches!(error, SteerError::NativeUnsupported { .. }),
            "{error}"
        );
        assert_eq!(attached("lo"), None);
    });
}

#[test]
fn a_second_program_is_refused_and_the_first_is_named() {
    in_namespace(&[], || {
        let first = Steering::attach(PORT, EDGE, XdpMode::Native).unwrap();
        for mode in [XdpMode::Native, XdpMode::Generic, XdpMode::Auto] {
            let error = Steering::attach(PORT, EDGE, mode).unwrap_err();
            assert!(
                matches!(error, SteerError::AlreadyAttached { .. }),
                "{mode:?}: {error}"
            );
            let text = error.to_string();
            assert!(
                text.contains("attached to tw0: twinseal, program id "),
                "{text}"
            );
            assert!(text.contains(", native."), "{text}");
        }
        assert_eq!(
            attached(PORT),
            Some(XdpOutcome::Native),
            "the first is still there"
        );
        drop(first);
        drop(Steering::attach(PORT, EDGE, XdpMode::Generic).unwrap());
    });
}

#[test]
fn drop_detaches_though_a_copy_of_the_descriptor_lives() {
    in_namespace(&[], || {
        let steering = Steering::attach(PORT, EDGE, XdpMode::Native).unwrap();
        // As a process that another thread is starting has one, until it runs its program.
        let copies = copies_of_links();
        assert!(!copies.is_empty());
        drop(steering);
        assert_eq!(attached(PORT), None);
    });
}

#[test]
fn a_program_whose_device_is_gone_says_so() {
    in_namespace(&[], || {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            let steering = Steering::attach(PORT, EDGE, mode).unwrap();
            assert!(steering.is_attached(), "{mode:?}");
            ip(&format!("link del {PORT}"));
            assert!(!steering.is_attached(), "{mode:?}");
            // Another one of that name is not the one that it was on.
            ip(&format!("link add {PORT} type veth peer name {PEER}"));
            assert!(!steering.is_attached(), "{mode:?}");
        }
    });
}

/// Duplicates of all BPF links that this process holds.
fn copies_of_links() -> Vec<OwnedFd> {
    let is_link =
        |path: &Path| std::fs::read_link(path).is_ok_and(|to| to.ends_with("anon_inode:bpf_link"));
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| is_link(path))
        .filter_map(|path| {
            let number = path.file_name()?.to_str()?.parse().ok()?;
            // SAFETY: touches no memory; a descriptor that was closed meanwhile is an error.
            let copy = unsafe { libc::dup(number) };
            // SAFETY: the kernel has just made this descriptor for us.
            (copy >= 0).then(|| unsafe { OwnedFd::from_raw_fd(copy) })
        })
        .collect()
}

#[test]
fn errors_say_what_to_do() {
    in_namespace(&[], || {
        for name in [
            "no-such",
            "",
            "a name that is far too long for a device",
            "nul\0nul",
        ] {
            let error = Steering::attach(name, EDGE, XdpMode::Auto).unwrap_err();
            assert!(
                matches!(error, SteerError::NoSuchDevice { .. }),
                "{name:?}: {error}"
            );
        }

        let mut steering = Steering::attach(PORT, EDGE, XdpMode::Auto).unwrap();
        let socket = Xsk::bind(PORT, 0).unwrap();
        let error = steering.register(256, &socket).unwrap_err();
        assert!(
            matches!(
                error,
                SteerError::QueueOutOfRange {
                    queue: 256,
                    max: 256
                }
            ),
            "{error}"
        );
        let error = steering.register(0, std::io::stderr()).unwrap_err();
        assert!(matches!(error, SteerError::Kernel { .. }), "{error}");
        drop(steering);

        drop_capabilities();
        let error = Steering::attach(PORT, EDGE, XdpMode::Auto).unwrap_err();
        assert!(matches!(error, SteerError::NoPermission { .. }), "{error}");
    });
}

/// In a process of its own, of which it takes nearly all descriptors.
#[test]
fn too_many_open_files_are_told_as_that() {
    const FEW: &str = "TWINSEAL_TEST_FEW_FILES";
    if std::env::var_os(FEW).is_none() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([
            "--exact",
            "too_many_open_files_are_told_as_that",
            "--nocapture",
        ]);
        assert!(child.env(FEW, "").status().unwrap().success());
        return;
    }
    in_namespace(&[], || {
        // SAFETY: takes no pointers; the copy is closed at once.
        let next = unsafe {
            let next = libc::dup(0);
            libc::close(next);
            libc::rlim_t::try_from(next).unwrap()
        };
        for spare in 0..64 {
            let limit = libc::rlimit {
                rlim_cur: next + spare,
                rlim_max: 1024,
            };
            // SAFETY: points to a limit that outlives the call.
            let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
            if set != 0 {
                let why = std::io::Error::last_os_error();
                eprintln!("SKIPPED: cannot set the limit of open files: {why}");
                return;
            }
            match Steering::attach(PORT, EDGE, XdpMode::Native) {
                Ok(_) => {
                    assert!(spare > 8, "it has maps, a program and a link");
                    return;
                }
                Err(SteerError::TooManyFiles { why, .. }) => {
                    let told = format!("(limit {}): raise LimitNOFILE=", next + spare);
                    assert!(why.contains(&told), "{spare}: {why}");
                }
                Err(other) => panic!("{spare}: {other}"),
            }
        }
        panic!("it opens never");
    });
}

#[test]
fn an_edge_port_takes_what_is_routed_and_the_host_hears_its_own() {
    in_namespace(NEIGHBOUR, || {
        let neighbour = Neighbour::new();
        for mode in [XdpMode::Native, XdpMode::Generic] {
            let mut steering = Steering::attach(PORT, EDGE, mode).unwrap();
            steering
                .set_local_addresses(&["10.0.0.1".parse().unwrap()])
                .unwrap();
            let sockets = [0, 1].map(|queue| {
                let socket = Xsk::bind(PORT, queue).unwrap();
                steering.register(queue, &socket).unwrap();
                socket
            });
            assert!(
                neighbour.ping("10.0.0.1"),
                "{mode:?}: ARP and ping reach the host"
            );
            assert!(
                !neighbour.ping("10.9.0.1"),
                "{mode:?}: nobody answers for what we took"
            );

            let frame = sockets
                .iter()
                .find_map(Xsk::receive)
                .expect("the routed frame");
            assert_eq!(frame[..6], MAC, "{mode:?}");
            assert_eq!(frame[12..14], [0x08, 0x00], "{mode:?}");
            assert_eq!(frame[30..34], [10, 9, 0, 1], "{mode:?}");
            let counters = steering.counters().unwrap();
            let count = |verdict: Verdict| counters[verdict as usize].1;
            assert_eq!(count(Verdict::Redirected), 1, "{mode:?}: {counters:?}");
            assert!(count(Verdict::PassLocal) >= 1, "{mode:?}: {counters:?}");
        }
    });
}

#[test]
fn hidden_vlan_tags_are_told() {
    in_namespace(&["ethtool"], || {
        let steering = Steering::attach(PORT, EDGE, XdpMode::Native).unwrap();
        for (setting, hidden) in [("on", true), ("off", false)] {
            run("ethtool", &format!("-K {PORT} rxvlan {setting}"));
            assert_eq!(steering.vlan_tags_hidden().unwrap(), hidden);
        }
    });
}

#[test]
fn tagged_frames_pass_once_the_tag_is_in_the_frame() {
    in_namespace(NEIGHBOUR, || {
        let neighbour = Neighbour::new();
        if !neighbour.try_run(
            "ip",
            &format!("link add link {PEER} name v42 type vlan id 42"),
        ) {
            eprintln!("SKIPPED: this kernel has no VLAN devices");
            return;
        }
        neighbour.run("ip", "address add 10.42.0.2/24 dev v42");
        neighbour.run("ip", "link set v42 up");
        neighbour.run(
            "ip",
            &format!("neighbour replace 10.42.0.9 lladdr {} dev v42", mac_text()),
        );
        let steering = Steering::attach(PORT, EDGE, XdpMode::Native).unwrap();

        // On a veth the sender's offload decides whether the tag is in the frame.
        neighbour.run("ethtool", &format!("-K {PEER} txvlan off"));
        neighbour.ping("10.42.0.9");
        let counters = steering.counters().unwrap();
        assert!(counters[Verdict::PassVlan as usize].1 >= 1, "{counters:?}");
        assert_eq!(counters[Verdict::NoSocket as usize].1, 0, "{counters:?}");
    });
}

/// Set for the process that the next test starts: itself again, to be killed.
const VICTIM: &str = "TWINSEAL_EBPF_VICTIM";

#[test]
fn after_kill_nine_the_host_hears_again() {
    if std::env::var_os(VICTIM).is_some() {
        return deafen();
    }
    in_namespace(NEIGHBOUR, || {
        let neighbour = Neighbour::new();
        for mode in ["native", "generic"] {
            assert!(neighbour.ping("10.0.0.1"), "{mode}: before");
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "after_kill_nine_the_host_hears_again",
                    "--nocapture",
                ])
                .env(VICTIM, mode)
                .stdout(Stdio::piped())
                .spawn()
                .map(Kill)
                .unwrap();
            wait_for_line(&mut victim.0, "attached");
            assert!(attached(PORT).is_some(), "{mode}");
            assert!(!neighbour.ping("10.0.0.1"), "{mode}: it took all frames");

            victim.0.kill().unwrap(); // SIGKILL
            victim.0.wait().unwrap();
            assert_eq!(attached(PORT), None, "{mode}");
            assert!(neighbour.ping("10.0.0.1"), "{mode}: after");
        }
    });
}

/// Takes all unicast frames of the port, as an edge port that knows no local address does, until killed.
fn deafen() {
    let mode = match std::env::var(VICTIM).as_deref() {
        Ok("native") => XdpMode::Native,
        _ => XdpMode::Generic,
    };
    let mut steering = Steering::attach(PORT, EDGE, mode).unwrap();
    let _sockets = [0, 1].map(|queue| {
        let socket = Xsk::bind(PORT, queue).unwrap();
        steering.register(queue, &socket).unwrap();
        socket
    });
    println!("attached");
    // Killed long before; if the test died, not left behind.
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// The programs that [`Neighbour`] and its users run.
const NEIGHBOUR: &[&str] = &["unshare", "nsenter", "ping", "ethtool"];

/// Another host, in a namespace of its own, with the port's peer as 10.0.0.2 and a route to 10.9.0.0/24 through us.
struct Neighbour(Kill);

impl Neighbour {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 120"])
            .stdout(Stdio::piped())
            .spawn()
            .map(Kill)
            .expect("unshare of util-linux");
        wait_for_line(&mut holder.0, "ready");
        ip(&format!("address add 10.0.0.1/24 dev {PORT}"));
        ip(&format!("link set {PEER} netns {}", holder.0.id()));
        let neighbour = Self(holder);
        neighbour.run("ip", &format!("address add 10.0.0.2/24 dev {PEER}"));
        neighbour.run("ip", &format!("link set {PEER} up"));
        neighbour.run("ip", "route add 10.9.0.0/24 via 10.0.0.1");
        neighbour
    }

    fn run(&self, program: &str, arguments: &str) {
        run(
            "nsenter",
            &format!("--target {} --net {program} {arguments}", self.0.0.id()),
        );
    }

    fn try_run(&self, program: &str, arguments: &str) -> bool {
        Command::new("nsenter")
            .args(["--target", &self.0.0.id().to_string(), "--net", program])
            .args(arguments.split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }

    /// Whether one of a few echo requests was answered.
    fn ping(&self, address: &str) -> bool {
        self.try_run("ping", &format!("-n -c 1 -W 1 {address}"))
    }
}

/// A process that ends with its owner.
struct Kill(Child);

impl Drop for Kill {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads what the process prints until a line ends with `text` (libtest prints the test's name before it).
fn wait_for_line(child: &mut Child, text: &str) {
    let output = child.stdout.take().expect("piped");
    let found = BufReader::new(output)
        .lines()
        .any(|line| line.unwrap().ends_with(text));
    assert!(found, "the process ended without {text:?}");
}

/// The mode of the device's XDP program, as `ip` tells it.
fn attached(device: &str) -> Option<XdpOutcome> {
    let shown = run("ip", &format!("link show dev {device}"));
    if shown.contains("xdpgeneric") {
        Some(XdpOutcome::Generic)
    } else if shown.contains("xdp") {
        Some(XdpOutcome::Native)
    } else {
        None
    }
}

fn mac_text() -> String {
    MAC.map(|byte| format!("{byte:02x}")).join(":")
}

/// Takes all effective capabilities from the calling thread, and only from it.
fn drop_capabilities() {
    // `struct __user_cap_header_struct` (version 3, this thread) and two of `struct __user_cap_data_struct`.
    let header = [0x2008_0522u32, 0];
    let data = [0u32; 6];
    // SAFETY: the kernel reads the two arrays, which have the sizes it wants.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}
