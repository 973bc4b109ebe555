//! The control thread's handle of an open port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::PortError;
use twinseal_wire::ethernet::Mac;

/// What brings packets to a port's queues: the XDP program of an AF_XDP port, nothing for others.
///
/// Dropping it detaches the program, so that the kernel has the device to itself again.
#[derive(Default)]
pub struct Steering {
    program: Option<twinseal_ebpf::Steering>,
    /// Holds our UDP endpoints in the kernel: nobody else takes them, and what slips past the program (a fragment, a
    /// packet on a queue without a socket) is swallowed and not answered by a port-unreachable.
    reserved: BTreeMap<SocketAddr, UdpSocket>,
}

impl Steering {
    pub(super) fn new(program: twinseal_ebpf::Steering) -> Self {
        Self {
            program: Some(program),
            reserved: BTreeMap::new(),
        }
    }

    /// Takes the program off its device; the endpoints stay ours.
    pub fn detach(&mut self) {
        self.program = None;
    }

    /// Goes on with the program of another, which was just made for the same port, and these endpoints.
    pub fn take_over(&mut self, other: Self, endpoints: &[SocketAddr]) -> Result<(), PortError> {
        self.program = other.program;
        let set = self.set_endpoints(endpoints);
        if set.is_err() {
            self.detach();
        }
        set
    }

    /// Whether the program is where it was put: on a device that is there, and not replaced by another program.
    pub fn is_attached(&self) -> bool {
        self.program
            .as_ref()
            .is_none_or(twinseal_ebpf::Steering::is_attached)
    }

    /// Tells an edge port's program that its device has another hardware address now.
    pub fn set_mac(&mut self, mac: Mac) -> Result<(), PortError> {
        if let Some(program) = &mut self.program {
            program.set_mac(mac.0)?;
        }
        Ok(())
    }

    /// Tells an edge port's program which hardware addresses its device has besides its own.
    pub fn set_more_macs(&mut self, macs: &[Mac]) -> Result<(), PortError> {
        if let Some(program) = &mut self.program {
            let macs: Vec<_> = macs.iter().map(|mac| mac.0).collect();
            program.set_more_macs(&macs)?;
        }
        Ok(())
    }

    /// What must not be steered to us but left to the host: the node's own addresses at this port.
    pub fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), PortError> {
        if let Some(program) = &mut self.program {
            program.set_local_addresses(addresses)?;
        }
        Ok(())
    }

    /// The broadcast addresses of the subnets that the host has on an edge port's device.
    pub fn set_broadcasts(
        &mut self,
        addresses: impl Iterator<Item = Ipv4Addr>,
    ) -> Result<(), PortError> {
        if let Some(program) = &mut self.program {
            program.set_broadcasts(addresses)?;
        }
        Ok(())
    }

    /// How many neighbours of each family hosts of an edge port can have the kernel learn in five seconds.
    pub fn set_neighbours(&mut self, v4: u32, v6: u32) -> Result<(), PortError> {
        if let Some(program) = &mut self.program {
            program.set_neighbours(v4, v6)?;
        }
        Ok(())
    }

    /// Whom the kernel knows as neighbours on an edge port's device: they make none anew.
    pub fn set_known(
        &mut self,
        known: impl Iterator<Item = (IpAddr, Mac)>,
    ) -> Result<(), PortError> {
        if let Some(program) = &mut self.program {
            program.set_known(known.map(|(address, mac)| (address, mac.0)))?;
        }
        Ok(())
    }

    /// Frames of an edge port that would have made more than that, and were dropped.
    pub fn above_share(&self) -> Result<u64, PortError> {
        match &self.program {
            Some(program) => Ok(program.above_share()?),
            None => Ok(0),
        }
    }

    /// The socket that holds an endpoint, for another port that is to have it: two cannot be bound.
    pub fn held(&self, endpoint: &SocketAddr) -> Option<UdpSocket> {
        self.reserved.get(endpoint)?.try_clone().ok()
    }

    /// Takes the socket that holds an endpoint of another port's, to be had by the next [`set_endpoints`](Self::set_endpoints).
    pub fn share(&mut self, endpoint: SocketAddr, socket: UdpSocket) {
        self.reserved.insert(endpoint, socket);
    }

    /// The UDP endpoints on which links receive at this underlay port. Replaces the earlier ones; on an error those
    /// are still in force.
    pub fn set_endpoints(&mut self, endpoints: &[SocketAddr]) -> Result<(), PortError> {
        let Some(program) = &mut self.program else {
            return Ok(());
        };
        let mut added = BTreeMap::new();
        for &endpoint in endpoints {
            if !self.reserved.contains_key(&endpoint) && !added.contains_key(&endpoint) {
                added.insert(endpoint, reserve(endpoint)?);
            }
        }
        program.set_endpoints(endpoints)?;
        self.reserved
            .retain(|endpoint, _| endpoints.contains(endpoint));
        self.reserved.append(&mut added);
        Ok(())
    }

    /// Packets by verdict of the steering program.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, PortError> {
        match &self.program {
            Some(program) => Ok(program.counters()?),
            None => Ok(Vec::new()),
        }
    }
}

/// Whether an endpoint could be held that no port holds.
///
/// # Errors
/// As [`set_endpoints`](Steering::set_endpoints) would tell it.
pub fn check_endpoint(endpoint: SocketAddr) -> Result<(), PortError> {
    reserve(endpoint).map(drop)
}

fn reserve(endpoint: SocketAddr) -> Result<UdpSocket, PortError> {
    let socket = UdpSocket::bind(endpoint).map_err(|source| {
        PortError::of("socket(UDP)", source, |source| PortError::Endpoint {
            endpoint,
            source,
        })
    })?;
    // Nobody reads it; the least buffer holds the least rubbish. That it is small is a courtesy, so no error.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 0);
    Ok(socket)
}
