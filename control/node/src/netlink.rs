//! What the kernel knows of our devices: neighbours, addresses, carrier; and asking it to resolve neighbours.
//!
//! Forwarded packets pass the kernel by, so nothing makes it resolve a neighbour or keep one fresh but our asking: `NTF_USE`
//! starts ARP or neighbour discovery as a packet of the host's own would, and `NUD_PROBE` sees whether one that is known is
//! still there and the same.
//!
//! Without netlink the node works on with static neighbours.

use std::collections::HashSet;
use std::net::IpAddr;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinHandle;

use crate::compile::{HostAddress, HostAddresses, KernelNeighbours, Standing};
use crate::devices::Devices;
use twinseal_wire::ethernet::Mac;

/// The kernel's tables as last heard.
#[derive(Clone, Default, Debug)]
pub struct View {
    /// Neighbours that packets can be sent to.
    pub neighbours: KernelNeighbours,
    /// This host's addresses.
    pub addresses: HostAddresses,
    /// Neighbours that an operator set for good. Asking the kernel to use one would make it an ordinary one.
    permanent: HashSet<(u32, IpAddr)>,
    /// Neighbours that packets could be sent to and cannot any more, since this was last emptied.
    pub vanished: Vec<(u32, IpAddr)>,
    /// Its devices.
    pub devices: Devices,
}

/// What a burst of messages changed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Changed {
    /// Neighbours.
    pub neighbours: bool,
    /// This host's addresses.
    pub addresses: bool,
    /// Devices or their carrier.
    pub devices: bool,
    /// Some were lost: call [`Netlink::restart`].
    pub lost: bool,
}

impl Changed {
    /// Both together.
    pub(crate) fn merge(&mut self, other: Self) {
        self.neighbours |= other.neighbours;
        self.addresses |= other.addresses;
        self.devices |= other.devices;
        self.lost |= other.lost;
    }
}

/// The connection to the kernel, in the network namespace of the thread that made it.
pub(crate) struct Netlink {
    connection: Option<Connection>,
    /// What was heard so far.
    pub view: View,
}

/// Requests have a socket of their own: what the kernel tells everyone about a request comes to the socket that made it
/// as part of the answer, and would be lost to us.
struct Connection {
    handle: Handle,
    messages: Messages,
    tasks: [JoinHandle<()>; 2],
}

type Messages = UnboundedReceiver<(NetlinkMessage<Message>, SocketAddr)>;

impl Netlink {
    /// Connects and reads everything once. Never fails: without netlink the view stays empty.
    pub(crate) async fn start() -> Self {
        let mut netlink = Self {
            connection: None,
            view: View::default(),
        };
        netlink.restart().await;
        netlink
    }

    /// Connects again and reads everything anew, as is needed after messages were lost.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        match Connection::new() {
            Ok(connection) => {
                // What changes meanwhile waits in the other socket.
                self.view = View::read(&connection.handle).await;
                self.connection = Some(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "no netlink: only static neighbours will be known");
            }
        }
    }

    fn stop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.tasks.iter().for_each(JoinHandle::abort);
        }
    }

    /// Waits for changes, and takes in all that have come. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Changed {
        let Some(connection) = &mut self.connection else {
            return std::future::pending().await;
        };
        let mut changed = Changed::default();
        match connection.messages.next().await {
            Some((message, _)) => self.view.hear(message.payload, &mut changed),
            // The kernel had more to say than fits the socket.
            None => {
                changed.lost = true;
                self.stop();
                return changed;
            }
        }
        while let Ok((message, _)) = connection.messages.try_recv() {
            self.view.hear(message.payload, &mut changed);
        }
        changed
    }

    /// Makes the kernel resolve a neighbour, or see now and then whether it is still there. Does not wait, and does
    /// nothing without the privilege.
    pub(crate) fn resolve(&self, ifindex: u32, address: IpAddr) {
        let mut message = neighbour(ifindex, address, NeighbourState::None);
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(ifindex, address, Message::NewNeighbour(message), flags);
    }

    /// Makes the kernel see at once whether a neighbour that it knows is still there and the same: it asks it three times,
    /// a second apart, and without an answer gives it up. As [`resolve`](Self::resolve) otherwise.
    pub(crate) fn probe(&self, ifindex: u32, address: IpAddr) {
        let message = neighbour(ifindex, address, NeighbourState::Probe);
        self.ask(
            ifindex,
            address,
            Message::NewNeighbour(message),
            NLM_F_REPLACE,
        );
    }

    /// Makes the kernel forget a neighbour. As [`resolve`](Self::resolve) otherwise.
    pub(crate) fn forget(&self, ifindex: u32, address: IpAddr) {
        let message = neighbour(ifindex, address, NeighbourState::None);
        self.ask(ifindex, address, Message::DelNeighbour(message), 0);
    }

    fn ask(&self, ifindex: u32, address: IpAddr, message: Message, flags: u16) {
        let Some(Connection { handle, .. }) = &self.connection else {
            return;
        };
        if self.view.permanent.contains(&(ifindex, address)) {
            return;
        }
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut handle = handle.clone();
        tokio::spawn(async move {
            let error = match handle.request(request) {
                Ok(mut answers) => match answers.next().await.map(|answer| answer.payload) {
                    Some(NetlinkPayload::Error(error)) if error.code.is_some() => error.to_string(),
                    _ => return,
                },
                Err(error) => error.to_string(),
            };
            tracing::debug!(%error, ifindex, %address, "the kernel does not see to the neighbour");
        });
    }
}

/// What is asked about a neighbour.
fn neighbour(ifindex: u32, address: IpAddr, state: NeighbourState) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let (family, destination) = match address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    message.header.family = family;
    message.header.ifindex = ifindex;
    message.header.state = state;
    let destination = NeighbourAttribute::Destination(destination);
    message.attributes.push(destination);
    message
}

impl Connection {
    fn new() -> std::io::Result<Self> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (listening, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let (asking, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            handle,
            messages,
            tasks: [tokio::spawn(listening), tokio::spawn(asking)],
        })
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.stop();
    }
}

impl View {
    async fn read(handle: &Handle) -> Self {
        let mut view = Self::default();
        let mut ignored = Changed::default();
        let mut links = std::pin::pin!(handle.link().get().execute());
        while let Some(Ok(link)) = links.next().await {
            view.devices.hear(&link, true);
        }
        let mut addresses = std::pin::pin!(handle.address().get().execute());
        while let Some(Ok(address)) = addresses.next().await {
            view.address(&address, true, &mut ignored);
        }
        let mut neighbours = std::pin::pin!(handle.neighbours().get().execute());
        while let Some(Ok(neighbour)) = neighbours.next().await {
            view.neighbour(&neighbour, true, &mut ignored);
        }
        view
    }

    /// The addresses of the host on a device. One that another host was found to have is none.
    pub fn addresses_on(&self, ifindex: u32) -> impl Iterator<Item = IpAddr> {
        let here = self.addresses.iter();
        here.filter(move |(it, standing)| {
            it.ifindex == ifindex && **standing != Standing::Duplicate
        })
        .map(|(it, _)| it.address)
    }

    /// The kernel's index of the device of this name.
    pub fn index_of(&self, name: &str) -> Option<u32> {
        self.devices.named(name).map(|(index, _)| index)
    }

    /// Whether there is a device of this name; `None` if no device was heard of at all.
    pub fn has_device(&self, name: &str) -> Option<bool> {
        (!self.devices.is_unknown()).then(|| self.devices.named(name).is_some())
    }

    fn hear(&mut self, payload: NetlinkPayload<Message>, changed: &mut Changed) {
        match payload {
            NetlinkPayload::InnerMessage(message) => match message {
                Message::NewLink(link) => changed.devices |= self.devices.hear(&link, true),
                Message::DelLink(link) => changed.devices |= self.devices.hear(&link, false),
                Message::NewAddress(address) => self.address(&address, true, changed),
                Message::DelAddress(address) => self.address(&address, false, changed),
                Message::NewNeighbour(neighbour) => self.neighbour(&neighbour, true, changed),
                Message::DelNeighbour(neighbour) => self.neighbour(&neighbour, false, changed),
                _ => {}
            },
            NetlinkPayload::Overrun(_) => changed.lost = true,
            _ => {}
        }
    }

    fn address(&mut self, message: &AddressMessage, exists: bool, changed: &mut Changed) {
        // On point-to-point devices the address is the peer's and the local one is ours.
        let (mut local, mut address) = (None, None);
        let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(*ip),
                AddressAttribute::Address(ip) => address = Some(*ip),
                AddressAttribute::Flags(all) => flags = *all,
                _ => {}
            }
        }
        let len = match (local, address) {
            (Some(local), Some(peer)) if local != peer => match local {
                IpAddr::V4(_) => 32,
                IpAddr::V6(_) => 128,
            },
            _ => message.header.prefix_len,
        };
        let Some(address) = local.or(address) else {
            return;
        };
        let entry = HostAddress {
            ifindex: message.header.index,
            address,
            len,
        };
        let now = exists.then(|| standing(flags));
        let before = match now {
            Some(standing) => self.addresses.insert(entry, standing),
            None => self.addresses.remove(&entry),
        };
        changed.addresses |= before != now;
    }

    fn neighbour(&mut self, message: &NeighbourMessage, exists: bool, changed: &mut Changed) {
        let (mut address, mut mac) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some(IpAddr::V4(*ip));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some(IpAddr::V6(*ip));
                }
                NeighbourAttribute::LinkLayerAddress(octets) => {
                    mac = octets.as_slice().try_into().ok().map(Mac);
                }
                _ => {}
            }
        }
        let Some(address) = address.filter(|a| !a.is_multicast()) else {
            return;
        };
        let usable = exists
            && matches!(
                message.header.state,
                NeighbourState::Reachable
                    | NeighbourState::Stale
                    | NeighbourState::Delay
                    | NeighbourState::Probe
                    | NeighbourState::Permanent
                    | NeighbourState::Noarp
            );
        let key = (message.header.ifindex, address);
        if exists && message.header.state == NeighbourState::Permanent {
            self.permanent.insert(key);
        } else {
            self.permanent.remove(&key);
        }
        // A multicast or all-zero address is no host's, as of a device without ARP.
        let mac = mac.filter(|mac| usable && mac.0[0] & 1 == 0 && *mac != Mac::default());
        let before = match mac {
            Some(mac) => self.neighbours.insert(key, mac),
            None => self.neighbours.remove(&key),
        };
        changed.neighbours |= before != mac;
        if before.is_some() && mac.is_none() {
            self.vanished.push(key);
        }
    }
}

fn standing(flags: AddressFlags) -> Standing {
    // Optimistic ones are tentative too, and may be used (RFC 4429).
    let tentative = flags.contains(AddressFlags::Tentative);
    if flags.contains(AddressFlags::Dadfailed) {
        Standing::Duplicate
    } else if tentative && !flags.contains(AddressFlags::Optimistic) {
        Standing::Tentative
    } else if flags.contains(AddressFlags::Deprecated) {
        Standing::Deprecated
    } else {
        Standing::Preferred
    }
}

#[cfg(test)]
#[path = "netlink_tests.rs"]
mod tests;
