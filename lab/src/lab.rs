//! The lab itself: what makes things and takes them down again.

use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use rustix::thread::UnshareFlags;

use crate::error::{Doing, LabError};
use crate::interface::link_body;
use crate::journal::{self, Entry, Journal};
use crate::namespace::Namespace;
use crate::netlink::{Netlink, Request};
use crate::sys;

/// `VETH_INFO_PEER`.
const VETH_PEER: u16 = 1;
/// `IFLA_BR_FORWARD_DELAY`, in hundredths of a second.
const BRIDGE_FORWARD_DELAY: u16 = 1;
/// `IFLA_BR_STP_STATE`.
const BRIDGE_STP: u16 = 5;
/// `IFLA_BR_MCAST_SNOOPING`.
const BRIDGE_SNOOPING: u16 = 23;
/// `IFLA_VXLAN_ID`.
const VXLAN_ID: u16 = 1;
/// `IFLA_VXLAN_GROUP` and `IFLA_VXLAN_GROUP6`: where to send.
const VXLAN_REMOTE: [u16; 2] = [2, 16];
/// `IFLA_VXLAN_LOCAL` and `IFLA_VXLAN_LOCAL6`.
const VXLAN_LOCAL: [u16; 2] = [4, 17];
/// `IFLA_VXLAN_PORT`, in network order.
const VXLAN_DPORT: u16 = 15;
/// The port that RFC 7348 gives VXLAN.
const VXLAN_PORT: u16 = 4789;
/// Longest name of a namespace: a file name, with room for nothing else.
const NAME_MAX: usize = 100;

/// A throw-away network. All that it makes is named `<prefix>-<pid>-<role>`, recorded in a journal before it is made,
/// and taken down in reverse order when the lab is dropped, also by a panic. What a killed process leaves is taken
/// down by the next lab's [`Lab::sweep`].
#[derive(Debug)]
pub struct Lab {
    journal: Arc<Journal>,
    kept: bool,
}

/// A veth pair to make with [`Lab::veth`]. One end may be in the same namespace as the other.
#[derive(Debug, Clone)]
pub struct VethConfig<'a> {
    /// Where the first end is, and its interface name.
    pub a: (&'a Namespace, &'a str),
    /// Where the second end is, and its interface name.
    pub b: (&'a Namespace, &'a str),
    /// Receive and transmit queues of each end, at least 1.
    pub queues: u32,
    /// In bytes, without the Ethernet header.
    pub mtu: u32,
    /// Whether the kernel may leave checksums, segmentation, GRO and VLAN tags to the device. A veth has no device: with
    /// them on, captures show packets without checksums and longer than the MTU. Off by default.
    pub offloads: bool,
    /// The hardware address of the first end, random when none.
    pub mac_a: Option<[u8; 6]>,
    /// The hardware address of the second end, random when none.
    pub mac_b: Option<[u8; 6]>,
    /// Addresses of the first end.
    pub addresses_a: Vec<IpNet>,
    /// Addresses of the second end.
    pub addresses_b: Vec<IpNet>,
}

impl<'a> VethConfig<'a> {
    /// One queue, an MTU of 1500, no offloads, random hardware addresses.
    pub fn new(a: (&'a Namespace, &'a str), b: (&'a Namespace, &'a str)) -> Self {
        VethConfig {
            a,
            b,
            queues: 1,
            mtu: 1500,
            offloads: false,
            mac_a: None,
            mac_b: None,
            addresses_a: Vec::new(),
            addresses_b: Vec::new(),
        }
    }

    /// Adds addresses to the first and to the second end.
    pub fn addresses(mut self, a: &[IpNet], b: &[IpNet]) -> Self {
        self.addresses_a.extend(a);
        self.addresses_b.extend(b);
        self
    }
}

impl Lab {
    /// A new lab, after sweeping what dead ones left. `prefix`: lower-case letters, digits and hyphens.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] without the privileges; [`LabError::Invalid`] for a bad prefix.
    pub fn new(prefix: &str) -> Result<Self, LabError> {
        check_name("prefix", prefix)?;
        check_privileges()?;
        if let Err(e) = Lab::sweep() {
            // Others' leftovers must not stop this lab.
            eprintln!("twinseal-lab: leftovers of a dead lab stay: {e}");
        }
        let journal = Journal::create(prefix)?;
        let lab = Lab {
            journal: Arc::new(journal),
            kept: false,
        };
        lab.journal.record(&Entry::Directory)?;
        let directory = lab.directory();
        std::fs::create_dir(&directory).doing(|| format!("create {}", directory.display()))?;
        Ok(lab)
    }

    /// Whether a lab can run here: privileges, namespaces and veths are tried, not guessed.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] with what is missing and what to do.
    pub fn available() -> Result<(), LabError> {
        check_privileges()?;
        let tried = std::thread::spawn(|| {
            sys::unshare(UnshareFlags::NEWNET).map_err(|e| LabError::Unavailable {
                need: format!("network namespaces cannot be made: {e}"),
                fix: "use a kernel with CONFIG_NET_NS and, in a container, allow unshare",
            })?;
            // Dies with the thread, and the pair with it.
            let mut netlink = Netlink::open().doing(|| "open netlink".into())?;
            let request = new_link("t0", "veth", |r| r).put_u32(libc::IFLA_MTU, 1500);
            netlink
                .request(request, || "make a veth pair".into())
                .map_err(|e| LabError::Unavailable {
                    need: e.to_string(),
                    fix: "load the veth module (modprobe veth)",
                })
        });
        match tried.join() {
            Ok(result) => result.map(drop),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// The lab's name: `<prefix>-<pid>`, with a number after it for a second lab of the same prefix in one process.
    pub fn id(&self) -> &str {
        self.journal.id()
    }

    /// A scratch directory (sockets, configuration, logs), removed with the lab.
    pub fn directory(&self) -> PathBuf {
        self.journal.directory()
    }

    /// Makes a network namespace `<id>-<role>`, with lo up. `role`: lower-case letters, digits and hyphens.
    ///
    /// # Errors
    /// [`LabError::Exists`] when somebody has a namespace of that name; [`LabError::Invalid`] for a bad role.
    pub fn namespace(&self, role: &str) -> Result<Namespace, LabError> {
        check_name("role", role)?;
        Namespace::create(self.journal.clone(), format!("{}-{role}", self.id()))
    }

    /// Makes a veth pair, both ends up, with its addresses.
    ///
    /// # Errors
    /// When a name is taken or the kernel refuses.
    pub fn veth(&self, config: &VethConfig<'_>) -> Result<(), LabError> {
        let ((ns_a, if_a), (ns_b, if_b)) = (config.a, config.b);
        check_ifname(if_a)?;
        check_ifname(if_b)?;
        let end = |r: Request, mac: Option<[u8; 6]>| {
            r.put_u32(libc::IFLA_MTU, config.mtu)
                .put_u32(libc::IFLA_NUM_TX_QUEUES, config.queues)
                .put_u32(libc::IFLA_NUM_RX_QUEUES, config.queues)
                .put_some(libc::IFLA_ADDRESS, mac)
        };
        // Made inside the first namespace with the peer in the second: it never is in the caller's own.
        let peer_ns = ns_b.as_fd().as_raw_fd() as u32;
        let request = new_link(if_a, "veth", |r| {
            r.nest(VETH_PEER, &link_body(0, 0, 0), |r| {
                end(r.put_str(libc::IFLA_IFNAME, if_b), config.mac_b)
                    .put_u32(libc::IFLA_NET_NS_FD, peer_ns)
            })
        });
        ns_a.netlink(end(request, config.mac_a), || {
            format!("make veth {if_a} with {if_b} in {}", ns_b.name())
        })?;
        for ((ns, ifname), addresses) in [
            (config.a, &config.addresses_a),
            (config.b, &config.addresses_b),
        ] {
            if !config.offloads {
                ns.disable_offloads(ifname)?;
            }
            ns.set_up(ifname)?;
            for address in addresses {
                ns.add_address(ifname, *address)?;
            }
        }
        Ok(())
    }

    /// Makes a kernel bridge of `ports`, as a switch: no spanning tree, no multicast snooping, forwarding at once.
    ///
    /// A capture on its ports sees what an AF_XDP socket at the other end of a veth sends, which a capture beside that
    /// socket does not.
    ///
    /// # Errors
    /// When a name is taken, a port is not there or the kernel refuses.
    pub fn bridge(&self, ns: &Namespace, name: &str, ports: &[&str]) -> Result<(), LabError> {
        check_ifname(name)?;
        let request = new_link(name, "bridge", |r| {
            r.put_u32(BRIDGE_FORWARD_DELAY, 0)
                .put_u32(BRIDGE_STP, 0)
                .put(BRIDGE_SNOOPING, &[0])
        });
        ns.netlink(request, || format!("make bridge {name}"))?;
        for port in ports {
            ns.set_master(port, name)?;
        }
        ns.set_up(name)
    }

    /// Makes a VXLAN tunnel (RFC 7348, port 4789) from `local` to `remote`, up: a wire of its own between the two ends.
    ///
    /// # Errors
    /// When the name is taken, the kernel has no VXLAN, or the addresses are of two families.
    pub fn vxlan(
        &self,
        ns: &Namespace,
        name: &str,
        id: u32,
        local: IpAddr,
        remote: IpAddr,
    ) -> Result<(), LabError> {
        check_ifname(name)?;
        let request = new_link(name, "vxlan", |r| {
            let address = |r: Request, [v4, v6]: [u16; 2], address| match address {
                IpAddr::V4(address) => r.put(v4, &address.octets()),
                IpAddr::V6(address) => r.put(v6, &address.octets()),
            };
            let r = address(r.put_u32(VXLAN_ID, id), VXLAN_REMOTE, remote);
            address(r, VXLAN_LOCAL, local).put(VXLAN_DPORT, &VXLAN_PORT.to_be_bytes())
        });
        ns.netlink(request, || format!("make vxlan {name} to {remote}"))?;
        ns.set_up(name)
    }

    /// Makes a device of a kind that needs no parameters (`wireguard`, `dummy`), not up yet.
    ///
    /// # Errors
    /// When the name is taken, or the kernel has no such kind.
    pub fn device(&self, ns: &Namespace, name: &str, kind: &str) -> Result<(), LabError> {
        check_ifname(name)?;
        ns.netlink(new_link(name, kind, |r| r), || {
            format!("make {kind} {name}")
        })
    }

    /// Leaves all running after this process. Returns the lab's name, for [`Lab::teardown`].
    ///
    /// # Errors
    /// When the journal cannot be written; all is then taken down.
    pub fn keep(mut self) -> Result<String, LabError> {
        self.journal.record(&Entry::Kept)?;
        self.journal.release();
        self.kept = true;
        Ok(self.id().to_owned())
    }

    /// Takes down a lab that was kept, or whose owner is dead, by its name.
    ///
    /// # Errors
    /// [`LabError::Missing`] when there is none of this name, [`LabError::InUse`] when its owner lives.
    pub fn teardown(id: &str) -> Result<(), LabError> {
        check_name("lab", id)?;
        Journal::open(id)?.tear_down()
    }

    /// Takes down what labs of dead processes left, and only what their journals say. Returns the labs' names.
    ///
    /// # Errors
    /// The first failure, after all have been tried.
    pub fn sweep() -> Result<Vec<String>, LabError> {
        journal::sweep()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(e) = self.journal.tear_down() {
            eprintln!(
                "twinseal-lab: {} is not wholly taken down, the next lab tries again: {e}",
                self.id()
            );
        }
    }
}

/// A request for a new link of a kind; `data` appends what the kind wants to know.
fn new_link(name: &str, kind: &str, data: impl FnOnce(Request) -> Request) -> Request {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Request::new(libc::RTM_NEWLINK, flags, &link_body(0, 0, 0))
        .put_str(libc::IFLA_IFNAME, name)
        .nest(libc::IFLA_LINKINFO, &[], |r| {
            r.put_str(libc::IFLA_INFO_KIND, kind)
                .nest(libc::IFLA_INFO_DATA, &[], data)
        })
}

fn check_name(what: &'static str, name: &str) -> Result<(), LabError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(good) {
        return Ok(());
    }
    Err(LabError::Invalid {
        what,
        value: name.to_owned(),
        fix: "use 1 to 100 lower-case letters, digits and hyphens",
    })
}

fn check_ifname(name: &str) -> Result<(), LabError> {
    let good = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':');
    if (1..libc::IFNAMSIZ).contains(&name.len()) && name.bytes().all(good) {
        return Ok(());
    }
    Err(LabError::Invalid {
        what: "interface name",
        value: name.to_owned(),
        fix: "use 1 to 15 printable characters without slash, colon and space",
    })
}

/// Whether this thread may do what a lab does.
fn check_privileges() -> Result<(), LabError> {
    const NEEDED: [(u32, &str); 3] = [
        (12, "CAP_NET_ADMIN"),
        (13, "CAP_NET_RAW"),
        (21, "CAP_SYS_ADMIN"),
    ];
    let status = std::fs::read_to_string("/proc/thread-self/status")
        .doing(|| "read /proc/thread-self/status".into())?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    match NEEDED.iter().find(|(bit, _)| effective >> bit & 1 == 0) {
        None => Ok(()),
        Some((_, name)) => Err(LabError::Unavailable {
            need: format!("{name} is missing"),
            fix: "run as root (sudo), in a container with --privileged",
        }),
    }
}
