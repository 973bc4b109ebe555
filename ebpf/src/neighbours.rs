//! What the hosts of an edge port can have the kernel learn.

use std::net::{IpAddr, Ipv4Addr};

use crate::layout::{
    Config, HostKey, MAX_KNOWN, MAX_LOCAL_ADDRESSES, Verdict, interval_ns, mac_key, role,
};
use crate::set::local_key;
use crate::{SteerError, Steering};

impl Steering {
    /// Sets how many neighbours of each family the hosts of an edge port can have the kernel learn in five seconds, by ARP and neighbour
    /// discovery that nobody asked them for and by talking to the kernel. What would make more is dropped, as
    /// [`Verdict::NeighbourShare`]. Hosts that [it knows](Self::set_known) make none. Answers to what the kernel asked have no such limit.
    ///
    /// # Errors
    /// [`SteerError::Kernel`].
    pub fn set_neighbours(&mut self, v4: u32, v6: u32) -> Result<(), SteerError> {
        if self.config.role != role::EDGE {
            return Ok(());
        }
        let config = Config {
            interval_ns: [interval_ns(v4), interval_ns(v6)],
            ..self.config
        };
        self.config_map.set(0, config, 0).map_err(|error| {
            SteerError::aya(format!("setting the neighbours of {}", self.name), &error)
        })?;
        self.config = config;
        Ok(())
    }

    /// Sets whom the kernel knows as neighbours on an edge port's device, and by which MAC address: by ARP and neighbour
    /// discovery they make none anew, so these do not count, but for what each of them asks or tells again and again, which
    /// is dropped as [`Verdict::Repeated`]. Those beyond [`MAX_KNOWN`] count. To be called whenever the kernel has learnt or forgotten some; before it is told to forget
    /// one, as that one could make itself known for nothing. Only the difference to what was set before is written.
    ///
    /// # Errors
    /// [`SteerError::Kernel`] (setting again mends what was left undone).
    pub fn set_known(
        &mut self,
        known: impl Iterator<Item = (IpAddr, [u8; 6])>,
    ) -> Result<(), SteerError> {
        if self.config.role != role::EDGE {
            return Ok(());
        }
        let known = known.take(MAX_KNOWN as usize);
        let key = |(address, mac)| HostKey {
            address: local_key(&address),
            mac: mac_key(mac),
        };
        self.known.replace(known.map(key).collect())
    }

    /// Sets the broadcast addresses of the subnets that the machine has on an edge port's device: in frames to all, packets
    /// to these are left to the kernel on ports that are not owned, and such to other addresses dropped. Those beyond
    /// [`MAX_LOCAL_ADDRESSES`] are others. Only the difference to what was set before is written.
    ///
    /// # Errors
    /// [`SteerError::Kernel`] (setting again mends what was left undone).
    pub fn set_broadcasts(
        &mut self,
        addresses: impl Iterator<Item = Ipv4Addr>,
    ) -> Result<(), SteerError> {
        let addresses = addresses.take(MAX_LOCAL_ADDRESSES as usize);
        let keys = addresses.map(|it| local_key(&it.into()));
        self.broadcasts.replace(keys.collect())
    }

    /// Frames that were dropped for [`Verdict::NeighbourShare`] since the program was attached.
    ///
    /// # Errors
    /// [`SteerError::Kernel`].
    pub fn above_share(&self) -> Result<u64, SteerError> {
        self.counter(Verdict::NeighbourShare as u32 + Verdict::COUNT as u32)
    }
}
