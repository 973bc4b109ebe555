//! What operators do to interfaces that are in use.

use std::os::fd::AsRawFd;

use ipnet::IpNet;

use crate::Namespace;
use crate::error::LabError;
use crate::interface::{family, link_body, octets};
use crate::netlink::Request;

/// `MACVLAN_MODE_BRIDGE` and `IFLA_MACVLAN_MODE` of `linux/if_link.h`.
const MACVLAN_BRIDGE: u32 = 4;
const MACVLAN_MODE: u16 = 1;
/// `IFLA_NET_NS_FD` of `linux/if_link.h`.
const NET_NS_FD: u16 = 28;

impl Namespace {
    /// Changes the hardware address of an interface.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn set_mac(&self, ifname: &str, mac: [u8; 6]) -> Result<(), LabError> {
        let body = link_body(self.index(ifname)?, 0, 0);
        let request = Request::new(libc::RTM_NEWLINK, 0, &body).put(libc::IFLA_ADDRESS, &mac);
        self.netlink(request, || format!("set the hardware address of {ifname}"))
    }

    /// Gives an interface another name.
    ///
    /// # Errors
    /// When the interface is not there, the name is taken, or the kernel refuses.
    pub fn rename(&self, ifname: &str, to: &str) -> Result<(), LabError> {
        let body = link_body(self.index(ifname)?, 0, 0);
        let request = Request::new(libc::RTM_NEWLINK, 0, &body).put_str(libc::IFLA_IFNAME, to);
        self.netlink(request, || format!("rename {ifname} to {to}"))
    }

    /// Moves an interface into another namespace, where it is down and without addresses.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn move_to(&self, ifname: &str, to: &Namespace) -> Result<(), LabError> {
        let body = link_body(self.index(ifname)?, 0, 0);
        let fd = to.as_fd().as_raw_fd() as u32;
        let request = Request::new(libc::RTM_NEWLINK, 0, &body).put_u32(NET_NS_FD, fd);
        self.netlink(request, || format!("move {ifname} to {}", to.name()))
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// When the interface or its address is not there.
    pub fn delete_address(&self, ifname: &str, address: IpNet) -> Result<(), LabError> {
        let bytes = octets(address.addr());
        let mut body = vec![family(address.addr()), address.prefix_len(), 0, 0];
        body.extend(self.index(ifname)?.to_ne_bytes());
        let request = Request::new(libc::RTM_DELADDR, 0, &body).put(libc::IFA_LOCAL, &bytes);
        self.netlink(request, || format!("take {address} from {ifname}"))
    }

    /// Makes a macvlan (mode bridge) on an interface, with this hardware address, up.
    ///
    /// # Errors
    /// When the interface is not there, the name is taken, or the kernel has no macvlan.
    pub fn add_macvlan(&self, name: &str, on: &str, mac: [u8; 6]) -> Result<(), LabError> {
        let mode = MACVLAN_BRIDGE;
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let request = Request::new(libc::RTM_NEWLINK, flags, &link_body(0, 0, 0))
            .put_str(libc::IFLA_IFNAME, name)
            .put_u32(libc::IFLA_LINK, self.index(on)?)
            .put(libc::IFLA_ADDRESS, &mac)
            .nest(libc::IFLA_LINKINFO, &[], |info| {
                info.put_str(libc::IFLA_INFO_KIND, "macvlan").nest(
                    libc::IFLA_INFO_DATA,
                    &[],
                    |data| data.put_u32(MACVLAN_MODE, mode),
                )
            });
        self.netlink(request, || format!("make macvlan {name} on {on}"))?;
        self.set_up(name)
    }
}
