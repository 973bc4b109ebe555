//! A network namespace: run code and processes in it.

use std::fs;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::{Doing, LabError};
use crate::journal::{Entry, Journal, NETNS};
use crate::netlink::{Answer, Netlink, Request};
use crate::process::Process;
use crate::sys;

/// A named network namespace of a [`Lab`](crate::Lab). Clones are handles to the same one.
///
/// People find it under its name too: `ip netns exec <name> ...`.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    journal: Arc<Journal>,
    handle: OwnedFd,
    /// Sockets stay in the namespace in which they were opened, so these serve callers on any thread.
    netlink: Mutex<Netlink>,
    control: OwnedFd,
}

impl Namespace {
    /// Makes the namespace and its name, sets lo up and silences IPv6 autoconfiguration.
    pub(crate) fn create(journal: Arc<Journal>, name: String) -> Result<Self, LabError> {
        prepare_directory()?;
        let path = Path::new(NETNS).join(&name);
        let made = on_thread(|| {
            sys::unshare(UnshareFlags::NEWNET).doing(|| format!("make namespace {name}"))?;
            let own = "/proc/thread-self/ns/net";
            let handle = fs::File::open(own).doing(|| format!("open {own}"))?;
            let meta = handle.metadata().doing(|| format!("look at {own}"))?;
            // Known to nobody so far: recorded with its identity before it gets a name.
            journal.record(&Entry::Namespace {
                name: name.clone(),
                inode: std::os::unix::fs::MetadataExt::ino(&meta),
            })?;
            match fs::File::create_new(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    return Err(LabError::Exists {
                        what: "namespace",
                        name: name.clone(),
                        fix: "choose another role or prefix",
                    });
                }
                other => other.doing(|| format!("create {}", path.display()))?,
            };
            rustix::mount::mount_bind(own, &path).doing(|| format!("mount {}", path.display()))?;
            let netlink = Netlink::open().doing(|| format!("open netlink in {name}"))?;
            let control = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)
                .doing(|| format!("open a socket in {name}"))?;
            Ok((OwnedFd::from(handle), netlink, control))
        });
        let (handle, netlink, control) = made?;
        let inner = Inner {
            name,
            journal,
            handle,
            netlink: Mutex::new(netlink),
            control,
        };
        let namespace = Namespace {
            inner: Arc::new(inner),
        };
        namespace.make_quiet()?;
        namespace.set_up("lo")?;
        Ok(namespace)
    }

    /// Its name, as under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Where it is mounted: `/run/netns/<name>`.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS).join(&self.inner.name)
    }

    /// The namespace itself, for `setns` and `IFLA_NET_NS_FD`.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.handle.as_fd()
    }

    /// The scratch directory of its lab, removed with the lab.
    pub fn directory(&self) -> PathBuf {
        self.inner.journal.directory()
    }

    /// Runs `f` on a new thread inside the namespace and waits for it. A panic in `f` goes on in the caller.
    ///
    /// As with `ip netns exec`, `/sys` shows the namespace's devices; threads and processes started by `f` inherit all this.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_thread(|| {
            self.move_thread_in()?;
            self.mount_sysfs();
            Ok(f())
        })
    }

    /// Moves the calling thread inside until the guard is dropped. `/sys` stays as it is.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter(&self) -> Result<Entered, LabError> {
        let own = "/proc/thread-self/ns/net";
        let back = fs::File::open(own).doing(|| format!("open {own}"))?;
        self.move_thread_in()?;
        Ok(Entered {
            back: back.into(),
            this_thread: PhantomData,
        })
    }

    /// Starts a child process inside, its output going to a log file. It is killed and reaped when the handle is dropped.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self, mut command: Command) -> Result<Process, LabError> {
        let journal = &self.inner.journal;
        self.run(|| Process::start(&mut command, journal, &self.inner.name))?
    }

    /// Writes a sysctl, named as below `/proc/sys`: `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// When there is no such sysctl or the kernel refuses the value.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(LabError::Invalid {
                what: "sysctl",
                value: path.to_owned(),
                fix: "give a path below /proc/sys, such as net/ipv4/ip_forward",
            });
        }
        on_thread(|| {
            self.move_thread_in()?;
            fs::write(Path::new("/proc/sys").join(path), value)
                .doing(|| format!("set {path} to {value} in {}", self.name()))
        })
    }

    /// Sends a request for which only the acknowledgement matters.
    pub(crate) fn netlink(
        &self,
        request: Request,
        doing: impl FnOnce() -> String,
    ) -> Result<(), LabError> {
        self.ask(request, doing).map(drop)
    }

    /// A socket of the namespace for ioctls on its interfaces.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.inner.control.as_fd()
    }

    /// Opens something (a socket) by code that runs inside the namespace.
    pub(crate) fn open<T: Send>(
        &self,
        f: impl FnOnce() -> Result<T, LabError> + Send,
    ) -> Result<T, LabError> {
        on_thread(|| {
            self.move_thread_in()?;
            f()
        })
    }

    /// Sends a request and collects the answers.
    pub(crate) fn ask(
        &self,
        request: Request,
        doing: impl FnOnce() -> String,
    ) -> Result<Vec<Answer>, LabError> {
        let mut netlink = self
            .inner
            .netlink
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        netlink.request(request, || format!("{} in {}", doing(), self.name()))
    }

    fn move_thread_in(&self) -> Result<(), LabError> {
        move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
            .doing(|| format!("enter namespace {}", self.name()))
    }

    /// Lets `/sys` show the namespace's devices, for this thread and its children only. What fails leaves `/sys` as it is.
    fn mount_sysfs(&self) {
        if sys::unshare(UnshareFlags::NEWNS).is_err() {
            return;
        }
        // As a slave it follows the host's unmounts, so it never keeps a removed namespace alive.
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        if rustix::mount::mount_change("/", slave).is_err() {
            return;
        }
        let _ = rustix::mount::unmount("/sys", UnmountFlags::DETACH);
        let _ = rustix::mount::mount(self.name(), "/sys", "sysfs", MountFlags::empty(), None);
        // Pinned BPF objects of this thread's children; another instance than the host's.
        let _ = rustix::mount::mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None);
    }

    /// Stops what a test would otherwise have to wait for or explain: DAD, router solicitation, source filters, redirects.
    fn make_quiet(&self) -> Result<(), LabError> {
        let settings = [
            ("net/ipv6/conf/CONF/accept_dad", "0"),
            ("net/ipv6/conf/CONF/accept_ra", "0"),
            ("net/ipv6/conf/CONF/router_solicitations", "0"),
            ("net/ipv4/conf/CONF/rp_filter", "0"),
            ("net/ipv4/conf/CONF/accept_redirects", "0"),
            ("net/ipv6/conf/CONF/accept_redirects", "0"),
        ];
        for (path, value) in settings {
            for conf in ["all", "default"] {
                let path = path.replace("CONF", conf);
                // A kernel without IPv6 has nothing to silence.
                if Path::new("/proc/sys").join(&path).exists() {
                    self.sysctl(&path, value)?;
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Namespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Namespace").field(&self.name()).finish()
    }
}

/// The calling thread is inside a namespace until this is dropped. Made by [`Namespace::enter`].
#[must_use = "dropping it leaves the namespace at once"]
#[derive(Debug)]
pub struct Entered {
    back: OwnedFd,
    /// A namespace belongs to a thread, so the guard must not move to another.
    this_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Cannot fail for a namespace that the thread was in; going on in the wrong one would be worse than a panic.
        move_into_link_name_space(self.back.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("return to the namespace that the thread came from");
    }
}

/// Runs `f` on a thread of its own, whose namespaces it may change.
fn on_thread<T: Send>(f: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
    std::thread::scope(|scope| match scope.spawn(f).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Makes `/run/netns` a shared mount of its own as iproute2 does, so that names come and go in every mount namespace.
/// It stays: it belongs to the machine, not to a lab.
fn prepare_directory() -> Result<(), LabError> {
    fs::create_dir_all(NETNS).doing(|| format!("create {NETNS}"))?;
    let directory = fs::File::open(NETNS).doing(|| format!("open {NETNS}"))?;
    // iproute2 takes the same lock, so the directory is not mounted twice.
    rustix::fs::flock(&directory, rustix::fs::FlockOperation::LockExclusive)
        .doing(|| format!("lock {NETNS}"))?;
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    if rustix::mount::mount_change(NETNS, shared).is_ok() {
        return Ok(());
    }
    rustix::mount::mount_bind_recursive(NETNS, NETNS)
        .and_then(|()| rustix::mount::mount_change(NETNS, shared))
        .doing(|| format!("make {NETNS} a shared mount"))
}
