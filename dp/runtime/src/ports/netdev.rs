//! What the kernel says of a network device, by ioctl(2): netdevice(7). The `unsafe` of the ports lives here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::PortError;
use twinseal_wire::ethernet::Mac;

const CHECK_NAME: &str = "check the name with `ip link`";
const CHECK_RIGHTS: &str = "it needs CAP_NET_ADMIN and /dev/net/tun";

/// A device's facts.
pub(super) struct Netdev {
    pub(super) ifindex: u32,
    pub(super) mac: Mac,
    pub(super) mtu: u16,
    /// Whether its frames are Ethernet's and it has an address for them.
    pub(super) ethernet: bool,
    /// Whether what it receives came by a wire, so that a device has finished it.
    pub(super) wired: bool,
    /// Whether it is of /dev/net/tun.
    pub(super) tun: bool,
}

impl Netdev {
    /// Reads them.
    pub(super) fn query(name: &str) -> Result<Self, PortError> {
        let control = control_socket()?;
        let mut request = Request::new(name)?;
        let fail = |call| move |source| device_error(name, call, source, CHECK_NAME);
        request
            .ioctl(&control, libc::SIOCGIFINDEX as _)
            .map_err(|source| match source.raw_os_error() {
                Some(libc::ENODEV) => PortError::NoDevice {
                    netdev: name.to_owned(),
                },
                _ => device_error(name, "SIOCGIFINDEX", source, CHECK_NAME),
            })?;
        let ifindex = request.int() as u32;
        request
            .ioctl(&control, libc::SIOCGIFHWADDR as _)
            .map_err(fail("SIOCGIFHWADDR"))?;
        let mac = request.mac();
        // Tunnels have their addresses there, which are none of Ethernet's.
        let ethernet = request.kind() == libc::ARPHRD_ETHER && mac != Mac::default();
        request
            .ioctl(&control, libc::SIOCGIFMTU as _)
            .map_err(fail("SIOCGIFMTU"))?;
        // A larger one cannot be used up by a frame of 4096 octets anyway.
        let mtu = u16::try_from(request.int()).unwrap_or(u16::MAX);
        let (driver, bus) = driver(&control, &mut request);
        Ok(Self {
            ifindex,
            mac,
            mtu,
            ethernet,
            wired: is_wired(&driver, &bus),
            tun: driver == "tun",
        })
    }
}

/// `ETHTOOL_GDRVINFO` and `struct ethtool_drvinfo` of `linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 3;

#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    rest: [u8; 64],
}
const _: () = assert!(size_of::<DriverInfo>() == 196);

/// A device's driver and bus; empty if it cannot tell.
fn driver(control: &std::net::UdpSocket, request: &mut Request) -> (String, String) {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        rest: [0; 64],
    };
    request.0.ifr_ifru.ifru_data = (&raw mut info).cast();
    if request.ioctl(control, libc::SIOCETHTOOL as _).is_err() {
        return Default::default();
    }
    let text = |octets: &[u8; 32]| {
        let octets = octets.split(|octet| *octet == 0).next();
        String::from_utf8_lossy(octets.unwrap_or_default()).into_owned()
    };
    (text(&info.driver), text(&info.bus))
}

/// Whether a device is on a bus, and not a hypervisor's: others hand over what another part of this machine sent, as it
/// left that. One that cannot tell is none.
fn is_wired(driver: &str, bus: &str) -> bool {
    let software = matches!(bus, "" | "N/A" | "tap" | "tun");
    let of_a_hypervisor = matches!(driver, "virtio_net" | "vif" | "hv_netvsc" | "vmxnet3");
    !software && !of_a_hypervisor
}

/// The kernel's switches, of those that are on, by which it forwards what comes in by a device. There is none of a single
/// device for IPv6.
pub fn forwarding(name: &str) -> Vec<String> {
    let switches = [
        format!("net/ipv4/conf/{name}/forwarding"),
        "net/ipv6/conf/all/forwarding".to_owned(),
    ];
    let is_on = |path: &String| sysctl(path).is_some_and(|value| value != 0);
    switches.into_iter().filter(is_on).collect()
}

/// The kernel's switches, of those that are on, by which it takes routes and addresses from whoever is on a device's network:
/// router advertisements and redirects. A kernel that forwards takes fewer of them.
pub fn believes(name: &str) -> Vec<String> {
    let v4 = |of: &str, what: &str| format!("net/ipv4/conf/{of}/{what}");
    let v6 = |what: &str| format!("net/ipv6/conf/{name}/{what}");
    let on = |path: &String| sysctl(path).is_some_and(|value| value != 0);
    let mut switches = Vec::new();
    let host = !on(&v6("forwarding"));
    let advertisements = sysctl(&v6("accept_ra")).unwrap_or(0);
    if advertisements == 2 || advertisements == 1 && host {
        switches.push(v6("accept_ra"));
    }
    if host && on(&v6("accept_redirects")) {
        switches.push(v6("accept_redirects"));
    }
    // Of a host either will do, and a router needs both.
    let redirects = ["all", name].map(|of| v4(of, "accept_redirects"));
    let believed = match on(&v4(name, "forwarding")) {
        true => redirects.iter().all(on),
        false => redirects.iter().any(on),
    };
    if believed {
        switches.extend(redirects.into_iter().filter(on));
    }
    switches
}

/// A number of the kernel's, named as below `/proc/sys`.
fn sysctl(path: &str) -> Option<u32> {
    let value = std::fs::read_to_string(format!("/proc/sys/{path}")).ok()?;
    value.trim().parse().ok()
}

/// Attaches a descriptor of /dev/net/tun to a TAP device, which is made if it is the first.
pub(super) fn attach_tap(tun: &OwnedFd, name: &str, queues: usize) -> Result<(), PortError> {
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI;
    if queues > 1 {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    let mut request = Request::new(name)?;
    request.set_flags(flags as libc::c_short);
    request
        .ioctl(tun, libc::TUNSETIFF as _)
        .map_err(|source| device_error(name, "TUNSETIFF", source, CHECK_RIGHTS))
}

/// Sets a device's MTU.
pub(super) fn set_mtu(name: &str, mtu: u16) -> Result<(), PortError> {
    let mut request = Request::new(name)?;
    request.set_int(mtu.into());
    request
        .ioctl(&control_socket()?, libc::SIOCSIFMTU as _)
        .map_err(|source| device_error(name, "SIOCSIFMTU", source, CHECK_RIGHTS))
}

/// Brings a TAP device up, without address resolution: all its frames go to us.
pub(super) fn raise_tap(name: &str, mtu: u16) -> Result<(), PortError> {
    let control = control_socket()?;
    let fail = |call| move |source| device_error(name, call, source, CHECK_RIGHTS);
    if mtu != 0 {
        set_mtu(name, mtu)?;
    }
    let mut request = Request::new(name)?;
    request
        .ioctl(&control, libc::SIOCGIFFLAGS as _)
        .map_err(fail("SIOCGIFFLAGS"))?;
    let flags = request.flags() | (libc::IFF_UP | libc::IFF_NOARP) as libc::c_short;
    request.set_flags(flags);
    request
        .ioctl(&control, libc::SIOCSIFFLAGS as _)
        .map_err(fail("SIOCSIFFLAGS"))
}

fn device_error(name: &str, call: &'static str, source: io::Error, fix: &'static str) -> PortError {
    PortError::Device {
        netdev: name.to_owned(),
        call,
        source,
        fix,
    }
}

/// Any socket will do for these ioctls.
fn control_socket() -> Result<std::net::UdpSocket, PortError> {
    std::net::UdpSocket::bind("127.0.0.1:0")
        .or_else(|_| std::net::UdpSocket::bind("0.0.0.0:0"))
        .map_err(PortError::system("socket(AF_INET)"))
}

/// A `struct ifreq` with a name.
struct Request(libc::ifreq);

impl Request {
    fn new(name: &str) -> Result<Self, PortError> {
        // SAFETY: all octets zero are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        let room = request.ifr_name.len() - 1;
        if name.is_empty() || name.len() > room || name.contains(['\0', '/']) {
            return Err(device_error(
                name,
                "name",
                io::ErrorKind::InvalidInput.into(),
                "a device's name has 1 to 15 octets and no slash",
            ));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self(request))
    }

    fn ioctl(&mut self, fd: &impl AsRawFd, call: libc::Ioctl) -> io::Result<()> {
        // SAFETY: every call of this module takes a pointer to an ifreq, which this is, and keeps none of it. The one that
        // follows a pointer in it (SIOCETHTOOL) was given one to what it fills in.
        match unsafe { libc::ioctl(fd.as_raw_fd(), call, &raw mut self.0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn int(&self) -> i32 {
        // SAFETY: all members of the union are plain integers at its start, initialised at least to zero.
        unsafe { self.0.ifr_ifru.ifru_ifindex }
    }

    fn set_int(&mut self, value: i32) {
        self.0.ifr_ifru.ifru_mtu = value;
    }

    fn flags(&self) -> libc::c_short {
        // SAFETY: as for `int`.
        unsafe { self.0.ifr_ifru.ifru_flags }
    }

    fn set_flags(&mut self, flags: libc::c_short) {
        self.0.ifr_ifru.ifru_flags = flags;
    }

    /// `ARPHRD_*`, what kind of addresses a device has.
    fn kind(&self) -> u16 {
        // SAFETY: as for `int`; a sockaddr is integers too.
        unsafe { self.0.ifr_ifru.ifru_hwaddr.sa_family }
    }

    fn mac(&self) -> Mac {
        // SAFETY: as for `int`; a sockaddr is integers too.
        let data = unsafe { self.0.ifr_ifru.ifru_hwaddr.sa_data };
        Mac(std::array::from_fn(|n| data[n] as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_nothing() {
        let lo = Netdev::query("lo").unwrap();
        assert_eq!((lo.ifindex, lo.mac), (1, Mac::default()));
        assert!(!lo.ethernet && !lo.wired && !lo.tun);
        let error = Netdev::query("no-such-dev").err().unwrap().to_string();
        assert!(
            error.contains("no-such-dev") && error.contains("ip link"),
            "{error}"
        );
        for bad in ["", "a-name-that-is-too-long", "a/b"] {
            let error = Netdev::query(bad).err().unwrap().to_string();
            assert!(error.contains("1 to 15"), "{error}");
        }
    }
}
