//! The interfaces of a namespace: addresses, routes, neighbours, offloads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::Namespace;
use crate::error::{Doing, LabError};
use crate::ethtool;
use crate::netlink::Request;

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

    /// Takes an entry out of the neighbour table.
    ///
    /// # Errors
    /// When there is none.
    pub fn forget_neighbour(&self, ifname: &str, ip: IpAddr) -> Result<(), LabError> {
        let body = self.neighbour_body(ifname, ip, 0)?;
        let request = Request::new(libc::RTM_DELNEIGH, 0, &body).put(libc::NDA_DST, &octets(ip));
        self.netlink(request, || format!("forget neighbour {ip} on {ifname}"))
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
        ethtool::features(self.control(), ifname)
            .doing(|| format!("read the features of {ifname} in {}", self.name()))
    }

    /// Turns off checksum, segmentation, scatter-gather, GRO and VLAN offloads: what is sent is what the wire sees.
    ///
    /// # Errors
    /// When the interface is not there or the kernel refuses.
    pub fn disable_offloads(&self, ifname: &str) -> Result<(), LabError> {
        ethtool::disable(self.control(), ifname, is_offload)
            .doing(|| format!("turn off the offloads of {ifname} in {}", self.name()))
    }

    pub(crate) fn index(&self, ifname: &str) -> Result<u32, LabError> {
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
}

/// An `ifinfomsg`: family and type unspecified, index, flags, which flags to change.
pub(crate) fn link_body(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..].copy_from_slice(&change.to_ne_bytes());
    body
}

pub(crate) fn family(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
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
