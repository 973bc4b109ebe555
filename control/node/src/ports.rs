//! The node's open ports.

mod absent;
mod follow;
mod guard;
mod look;
mod prepare;
mod refused;
mod reopen;
mod wanted;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::compile::OpenPort;
use crate::events::{Events, FaultKind};
use crate::netlink::View;
pub(super) use absent::IfAbsent;
use follow::Following;
pub(super) use prepare::Prepared;
use twinseal_fib::{MAX_PORTS, PortIndex};
use twinseal_model::state::{Link, LinkName, PersistentMap, Port, PortName, Role, State};
use twinseal_runtime::ports::{Outcome, PortError, Steering, tap};
use twinseal_runtime::workers::Pool;
use wanted::wanted;

/// Ports that are open, by name.
#[derive(Default)]
pub(super) struct Ports {
    open: BTreeMap<PortName, OpenPort>,
    handles: BTreeMap<PortName, Handle>,
    /// The links whose endpoints the handles have; none if that is not known.
    links: Option<PersistentMap<LinkName, Link>>,
}

struct Handle {
    steering: Steering,
    outcome: Outcome,
    netdev: Option<String>,
    /// Its own, as the steering program was told.
    addresses: Vec<IpAddr>,
    endpoints: Vec<SocketAddr>,
    /// What is open.
    port: Port,
    following: Following,
}

impl Ports {
    /// The ports as tables need them.
    pub(super) fn open(&self) -> &BTreeMap<PortName, OpenPort> {
        &self.open
    }

    /// What a port really got.
    pub(super) fn outcome(&self, name: &PortName) -> Option<&Outcome> {
        self.handles.get(name).map(|handle| &handle.outcome)
    }

    /// Verdicts of a port's steering program; empty where it has none.
    pub(super) fn steering(&self, name: &PortName) -> Vec<(&'static str, u64)> {
        let counters = self
            .handles
            .get(name)
            .map(|handle| handle.steering.counters());
        match counters {
            Some(Ok(counters)) => counters,
            Some(Err(error)) => {
                tracing::debug!(%error, port = %name, "steering counters cannot be read");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Whether this is what a port's device is, or what it waits for.
    pub(super) fn has(&self, name: &PortName, port: &Port) -> bool {
        let handle = self.handles.get(name);
        handle.is_some_and(|handle| handle.port.spec == port.spec)
    }

    /// An index that no port has.
    fn free_index(&self) -> Option<PortIndex> {
        let mut all = (0..MAX_PORTS as u8).map(PortIndex);
        all.find(|index| self.open.values().all(|open| open.index != *index))
    }

    fn open_one(
        &mut self,
        pool: &Pool,
        name: &PortName,
        port: &Port,
        view: &View,
        if_absent: IfAbsent,
    ) -> Result<(), PortError> {
        let index = self.free_index().ok_or(PortError::TooMany)?;
        let ifindex = port.spec.netdev().and_then(|netdev| view.index_of(netdev));
        let addresses = local(port, ifindex, view);
        let (steering, outcome) = match pool.add_port(index, &wanted(&port.spec), &addresses) {
            Ok(opened) => opened,
            Err(error) if if_absent.waits(&port.spec, &error) => {
                self.take_in_closed(name, port, index, view, &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let handle = Handle {
            netdev: port.spec.netdev().map(str::to_owned),
            addresses,
            endpoints: Vec::new(),
            port: port.clone(),
            following: Following::default(),
            steering,
            outcome,
        };
        self.open
            .insert(name.clone(), OpenPort::new(index, &handle.outcome));
        self.handles.insert(name.clone(), handle);
        Ok(())
    }

    fn close(&mut self, pool: &Pool, name: &PortName) {
        // The steering program goes first, so that the host hears its packets again while the queues drain.
        self.handles.remove(name);
        if let Some(port) = self.open.remove(name) {
            pool.remove_port(port.index);
        }
    }

    /// Has TAP devices take no more than these MTUs, and what they could when they were made.
    pub(super) fn fit(&mut self, mtus: &BTreeMap<PortName, u16>, events: &Events) {
        for (name, mtu) in mtus {
            let open = self.open.get(name).filter(|open| open.ifindex.is_some());
            let (Some(open), Some(handle)) = (open, self.handles.get_mut(name)) else {
                continue;
            };
            let wanted = open.mtu.min(*mtu);
            let Some(netdev) = handle
                .netdev
                .as_deref()
                .filter(|_| handle.outcome.mtu != wanted)
            else {
                continue;
            };
            match tap::set_mtu(netdev, wanted) {
                Ok(()) => {
                    tracing::info!(port = %name, mtu = wanted, "the TAP device has the MTU that fits its circuits")
                }
                Err(error) => {
                    let why = format!(
                        "port {name}: {error}; the host may send packets that fit no circuit"
                    );
                    tracing::error!("{why}");
                    events.fault(FaultKind::TapMtu, why);
                }
            }
            // What failed once would fail again.
            handle.outcome.mtu = wanted;
        }
    }

    /// Tells every edge port which addresses are the node's own there.
    pub(super) fn set_local_addresses(&mut self, state: &State, view: &View, events: &Events) {
        for (name, handle) in &mut self.handles {
            let Some(port) = state.ports.get(name) else {
                continue;
            };
            let addresses = local(port, handle.outcome.ifindex, view);
            if addresses == handle.addresses {
                continue;
            }
            if let Err(error) = handle.steering.set_local_addresses(&addresses) {
                let why = format!(
                    "port {name}: {error}; the host does not hear what hosts there send to the others"
                );
                tracing::error!("{why}");
                events.fault(FaultKind::OwnAddresses, why);
            }
            // What failed once would fail again.
            handle.addresses = addresses;
        }
    }
}

/// The node's own addresses at a port: those that the host has on its device, and those that it is given.
fn local(port: &Port, ifindex: Option<u32>, view: &View) -> Vec<IpAddr> {
    // What stands on the device has addresses for the same hosts, as virtual routers have.
    let above = |it| view.devices.above(it).map(|(index, _)| index);
    let devices = ifindex
        .into_iter()
        .flat_map(|it| std::iter::once(it).chain(above(it)));
    let kernel = devices.flat_map(|it| view.addresses_on(it));
    match port.role {
        Role::Underlay => Vec::new(),
        Role::Edge(_) => kernel.chain(port.local.iter().copied()).collect(),
    }
}
