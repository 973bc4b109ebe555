//! A network namespace: run code and processes in it, give its interfaces addresses and routes.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::error::{Doing, LabError};
use crate::ethtool;
use crate::journal::{Entry, Journal, NETNS};
use crate::netlink::{Netlink, Request};
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

/// A route to add with [`Namespace::add_route`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    dst: IpNet,
    via: Option<IpAddr>,
    dev: Option<String>,
    mtu: Option<u32>,
}

impl Route {
    /// A route to `dst`; give it [`via`](Route::via), [`dev`](Route::dev) or both.
    pub fn to(dst: IpNet) -> Self {
        Route {
            dst,
            via: None,
            dev: None,
            mtu: None,
        }
    }

    /// By this gateway.
    pub fn via(mut self, gateway: IpAddr) -> Self {
        self.via = Some(gateway);
        self
    }

    /// Out of this interface.
    pub fn dev(mut self, ifname: &str) -> Self {
        self.dev = Some(ifname.to_owned());
        self
    }

    /// With this path MTU in bytes.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }
}

/// What the kernel says of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index in its namespace.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// In bytes, without the Ethernet header.
    pub mtu: u32,
    /// Set up by its administrator.
    pub up: bool,
    /// Can carry packets now.
    pub running: bool,
    /// Counters since it was made.
    pub stats: InterfaceStats,
}

/// Counters of an interface since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[allow(missing_docs)]
pub struct InterfaceStats {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
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

    /// Adds an address, usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn add_address(&self, ifname: &str, address: IpNet) -> Result<(), LabError> {
        let index = self.index(ifname)?;
        let bytes = octets(address.addr());
        let flags = match address {
            IpNet::V4(_) => 0,
            IpNet::V6(_) => libc::IFA_F_NODAD as u8,
        };
        let mut body = vec![family(address.addr()), address.prefix_len(), flags, 0];
        body.extend(index.to_ne_bytes());
        let request = Request::new(
            libc::RTM_NEWADDR,
            libc::NLM_F_CREATE | libc::NLM_F_EXCL,
            &body,
        )
        .put(libc::IFA_LOCAL, &bytes)
        .put(libc::IFA_ADDRESS, &bytes);
        self.netlink(request, || format!("add {address} to {ifname}"))
    }

    /// Adds a route to the main table, replacing one to the same destination.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn add_route(&self, route: &Route) -> Result<(), LabError> {
        let Route { dst, via, dev, mtu } = route;
        let scope = match via {
            Some(_) => libc::RT_SCOPE_UNIVERSE,
            None => libc::RT_SCOPE_LINK,
        };
        let mut body = vec![family(dst.addr()), dst.prefix_len(), 0, 0];
        body.extend([
            libc::RT_TABLE_MAIN,
            libc::RTPROT_STATIC,
            scope,
            libc::RTN_UNICAST,
        ]);
        body.extend([0; 4]);
        let mut request = Request::new(
            libc::RTM_NEWROUTE,
            libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
            &body,
        )
        .put(libc::RTA_DST, &octets(dst.network()))
        .put_some(libc::RTA_GATEWAY, via.map(octets));
        if let Some(dev) = dev {
            request = request.put_u32(libc::RTA_OIF, self.index(dev)?);
        }
        if let Some(mtu) = mtu {
            /// `RTAX_MTU`.
            const MTU: u16 = 2;
            request = request.nest(libc::RTA_METRICS, &[], |r| r.put_u32(MTU, *mtu));
        }
        self.netlink(request, || format!("add a route to {dst}"))
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn set_up(&self, ifname: &str) -> Result<(), LabError> {
        self.set_flag(ifname, libc::IFF_UP as u32)
    }

    /// Sets an interface down.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn set_down(&self, ifname: &str) -> Result<(), LabError> {
        self.set_flag(ifname, 0)
    }

    /// Changes the MTU of an interface (bytes, without the Ethernet header).
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn set_mtu(&self, ifname: &str, mtu: u32) -> Result<(), LabError> {
        let body = link_body(self.index(ifname)?, 0, 0);
        let request = Request::new(libc::RTM_NEWLINK, 0, &body).put_u32(libc::IFLA_MTU, mtu);
        self.netlink(request, || format!("set the MTU of {ifname} to {mtu}"))
    }

    /// Makes an interface a port of a bridge.
    ///
    /// # Errors
    /// When one of them is not there or the kernel refuses.
    pub fn set_master(&self, ifname: &str, bridge: &str) -> Result<(), LabError> {
        let body = link_body(self.index(ifname)?, 0, 0);
        let request = Request::new(libc::RTM_NEWLINK, 0, &body)
            .put_u32(libc::IFLA_MASTER, self.index(bridge)?);
        self.netlink(request, || format!("make {ifname} a port of {bridge}"))
    }

    /// Removes an interface, and with a veth its other end.
    ///
    /// # Errors
    /// When it is not there or the kernel refuses.
    pub fn delete_link(&self, ifname: &str) -> Result<(), LabError> {
        let body = link_body(self.index(ifname)?, 0, 0);
        self.netlink(Request::new(libc::RTM_DELLINK, 0, &body), || {
            format!("remove {ifname}")
        })
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

    /// What the neighbour table (ARP or ND) has for an address: its hardware address, if resolved.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn neighbour(&self, ifname: &str, ip: IpAddr) -> Result<Option<[u8; 6]>, LabError> {
        const FIXED: usize = 12;
        let body = self.neighbour_body(ifname, ip, 0)?;
        let request = Request::new(libc::RTM_GETNEIGH, 0, &body).put(libc::NDA_DST, &octets(ip));
        match self.ask(request, || format!("look up neighbour {ip} on {ifname}")) {
            Ok(answers) => Ok(answers
                .first()
                .and_then(|a| a.attribute(FIXED, libc::NDA_LLADDR)?.try_into().ok())),
            Err(LabError::System { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Puts a permanent entry into the neighbour table.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn set_neighbour(&self, ifname: &str, ip: IpAddr, mac: [u8; 6]) -> Result<(), LabError> {
        let body = self.neighbour_body(ifname, ip, libc::NUD_PERMANENT)?;
        let request = Request::new(
            libc::RTM_NEWNEIGH,
            libc::NLM_F_CREATE | libc::NLM_F_REPLACE,
            &body,
        )
        .put(libc::NDA_DST, &octets(ip))
        .put(libc::NDA_LLADDR, &mac);
        self.netlink(request, || format!("set neighbour {ip} on {ifname}"))
    }

    /// The hardware address of an interface.
    ///
    /// # Errors
    /// When it is not there.
    pub fn mac(&self, ifname: &str) -> Result<[u8; 6], LabError> {
        Ok(self.interface(ifname)?.mac)
    }

    /// What the kernel says of an interface.
    ///
    /// # Errors
    /// When it is not there.
    pub fn interface(&self, ifname: &str) -> Result<Interface, LabError> {
        const FIXED: usize = 16;
        let missing = || LabError::Missing {
            what: "interface",
            name: format!("{ifname} in {}", self.name()),
            fix: "make it with Lab::veth or Lab::bridge first",
        };
        if ifname.len() >= libc::IFNAMSIZ {
            return Err(missing());
        }
        let request = Request::new(libc::RTM_GETLINK, 0, &link_body(0, 0, 0))
            .put_str(libc::IFLA_IFNAME, ifname);
        let answers = match self.ask(request, || format!("look up {ifname}")) {
            Err(LabError::System { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                return Err(missing());
            }
            other => other?,
        };
        let answer = answers.first().ok_or_else(missing)?;
        let word = |at: usize| {
            let bytes = answer.body().get(at..).and_then(|b| b.first_chunk::<4>());
            u32::from_ne_bytes(*bytes.unwrap_or(&[0; 4]))
        };
        let mtu = answer.attribute(FIXED, libc::IFLA_MTU);
        let stats = answer
            .attribute(FIXED, libc::IFLA_STATS64)
            .unwrap_or_default();
        let mut counters = stats
            .chunks_exact(8)
            .map(|c| c.try_into().map_or(0, u64::from_ne_bytes));
        let mut next = || counters.next().unwrap_or_default();
        Ok(Interface {
            index: word(4),
            mac: answer
                .attribute(FIXED, libc::IFLA_ADDRESS)
                .and_then(|mac| mac.try_into().ok())
                .unwrap_or_default(),
            mtu: mtu
                .and_then(|m| m.try_into().ok())
                .map_or(0, u32::from_ne_bytes),
            up: word(8) & libc::IFF_UP as u32 != 0,
            running: word(8) & libc::IFF_RUNNING as u32 != 0,
            stats: InterfaceStats {
                rx_packets: next(),
                tx_packets: next(),
                rx_bytes: next(),
                tx_bytes: next(),
                rx_errors: next(),
                tx_errors: next(),
                rx_dropped: next(),
                tx_dropped: next(),
            },
        })
    }

    /// The features of an interface by the kernel's name (`tx-checksum-ip-generic`), true when active.
    ///
    /// # Errors
    /// When it is not there.
    pub fn features(&self, ifname: &str) -> Result<BTreeMap<String, bool>, LabError> {
        ethtool::features(self.inner.control.as_fd(), ifname)
            .doing(|| format!("read the features of {ifname} in {}", self.name()))
    }

    /// Turns off checksum, segmentation, scatter-gather, GRO and VLAN offloads: what is sent is what the wire sees.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn disable_offloads(&self, ifname: &str) -> Result<(), LabError> {
        ethtool::disable(self.inner.control.as_fd(), ifname, is_offload)
            .doing(|| format!("turn off the offloads of {ifname} in {}", self.name()))
    }

    /// Sends a request for which only the acknowledgement matters.
    pub(crate) fn netlink(
        &self,
        request: Request,
        doing: impl FnOnce() -> String,
    ) -> Result<(), LabError> {
        self.ask(request, doing).map(drop)
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

    fn ask(
        &self,
        request: Request,
        doing: impl FnOnce() -> String,
    ) -> Result<Vec<crate::netlink::Answer>, LabError> {
        let mut netlink = self
            .inner
            .netlink
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        netlink.request(request, || format!("{} in {}", doing(), self.name()))
    }

    fn index(&self, ifname: &str) -> Result<u32, LabError> {
        Ok(self.interface(ifname)?.index)
    }

    fn set_flag(&self, ifname: &str, flags: u32) -> Result<(), LabError> {
        let body = link_body(self.index(ifname)?, flags, libc::IFF_UP as u32);
        self.netlink(Request::new(libc::RTM_NEWLINK, 0, &body), || {
            format!("set {ifname} {}", if flags == 0 { "down" } else { "up" })
        })
    }

    fn neighbour_body(&self, ifname: &str, ip: IpAddr, state: u16) -> Result<Vec<u8>, LabError> {
        let mut body = vec![family(ip), 0, 0, 0];
        body.extend(self.index(ifname)?.to_ne_bytes());
        body.extend(state.to_ne_bytes());
        body.extend([0, 0]);
        Ok(body)
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

    /// Stops what a test would otherwise have to wait for or explain: DAD, router solicitation, source filters.
    fn make_quiet(&self) -> Result<(), LabError> {
        let settings = [
            ("net/ipv6/conf/CONF/accept_dad", "0"),
            ("net/ipv6/conf/CONF/accept_ra", "0"),
            ("net/ipv6/conf/CONF/router_solicitations", "0"),
            ("net/ipv4/conf/CONF/rp_filter", "0"),
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

/// An `ifinfomsg`: family and type unspecified, index, flags, which flags to change.
pub(crate) fn link_body(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&change.to_ne_bytes());
    body
}

fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn is_offload(feature: &str) -> bool {
    let segmentation = feature.starts_with("tx-") && feature.ends_with("segmentation");
    segmentation
        || feature.starts_with("tx-checksum")
        || feature.starts_with("tx-scatter-gather")
        || feature.starts_with("tx-gso")
        || feature.starts_with("rx-gro")
        || feature.starts_with("rx-udp-gro")
        || feature == "rx-lro"
        || feature.starts_with("rx-vlan-")
        || feature.starts_with("tx-vlan-")
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
