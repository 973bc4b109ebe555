//! The node's open ports.

mod absent;
mod follow;
mod guard;
mod wanted;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::compile::OpenPort;
use crate::events::{Events, FaultKind};
use crate::netlink::View;
pub(super) use absent::IfAbsent;
use follow::Following;
use twinseal_fib::{MAX_PORTS, PortIndex};
use twinseal_model::parse::ItemKey;
use twinseal_model::refusal::{Code, Refused, RefusedItem, reason};
use twinseal_model::state::{Link, LinkName, Port, PortName, Role, State, Table};
use twinseal_model::transaction::Touched;
use twinseal_runtime::ports::{Outcome, PortError, Steering, tap};
use twinseal_runtime::workers::Pool;
use wanted::wanted;

/// Ports that are open, by name.
#[derive(Default)]
pub(super) struct Ports {
    open: BTreeMap<PortName, OpenPort>,
    handles: BTreeMap<PortName, Handle>,
    /// The links whose endpoints the handles have; none if that is not known.
    links: Option<Table<LinkName, Link>>,
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

/// What a transaction has done to the ports so far, to be undone if it fails.
#[derive(Default)]
pub(super) struct Undo {
    opened: Vec<PortName>,
    /// Ports whose device is another now, and what it was.
    changed: Vec<(PortName, Port)>,
    /// Endpoints as they were.
    endpoints: Vec<(PortName, Vec<SocketAddr>)>,
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

    /// Opens the ports of `state` that are not open, and has them receive on the links' endpoints. On failure everything
    /// is as before.
    pub(super) fn prepare(
        &mut self,
        pool: &Pool,
        state: &State,
        touched: &Touched,
        view: &View,
        if_absent: IfAbsent,
    ) -> Result<Undo, Refused> {
        let mut undo = Undo::default();
        match self.try_prepare(pool, state, touched, view, (if_absent, &mut undo)) {
            Ok(()) => Ok(undo),
            Err(refused) => {
                self.undo(pool, undo, view);
                Err(refused)
            }
        }
    }

    fn try_prepare(
        &mut self,
        pool: &Pool,
        state: &State,
        touched: &Touched,
        view: &View,
        (if_absent, undo): (IfAbsent, &mut Undo),
    ) -> Result<(), Refused> {
        let mut refused = Refused::default();
        for (name, port) in state.ports.iter() {
            let opened = match self.handles.get(name).map(|handle| handle.port.clone()) {
                Some(before) if before.spec == port.spec => continue,
                Some(before) => self
                    .change_device(pool, name, port, view)
                    .inspect(|()| undo.changed.push((name.clone(), before))),
                None => self
                    .open_one(pool, name, port, view, if_absent)
                    .inspect(|()| undo.opened.push(name.clone())),
            };
            if let Err(error) = opened {
                refused.push(cannot_open(name, touched, &error));
            }
        }
        refused.unless(())?;
        // Links come by the thousand, and most transactions leave them alone.
        let same = self
            .links
            .as_ref()
            .is_some_and(|links| links.same(&state.links));
        if !same || !undo.opened.is_empty() || !undo.changed.is_empty() {
            self.links = None;
            self.set_endpoints(pool, state, touched, (if_absent, undo))?;
            self.links = Some(state.links.clone());
        }
        Ok(())
    }

    /// Adds why ports of `state` would not open, as far as can be known without opening them. One that waits for its device
    /// may go on to.
    pub(super) fn check(
        &self,
        pool: &Pool,
        state: &State,
        touched: &Touched,
        refused: &mut Refused,
    ) {
        let mut room = MAX_PORTS.saturating_sub(self.open.len());
        for (name, port) in state
            .ports
            .iter()
            .filter(|(name, port)| !self.has(name, port))
        {
            let mut checked = pool.check_port(&wanted(&port.spec));
            if !self.handles.contains_key(name) {
                match room.checked_sub(1) {
                    Some(rest) => room = rest,
                    None => checked = checked.and(Err(PortError::TooMany)),
                }
            }
            if let Err(error) = checked {
                refused.push(cannot_open(name, touched, &error));
            }
        }
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

    fn set_endpoints(
        &mut self,
        pool: &Pool,
        state: &State,
        touched: &Touched,
        (if_absent, undo): (IfAbsent, &mut Undo),
    ) -> Result<(), Refused> {
        let mut wanted: BTreeMap<&PortName, Vec<SocketAddr>> = state
            .ports
            .iter()
            .filter(|(_, port)| port.role == Role::Underlay)
            .map(|(name, _)| (name, Vec::new()))
            .collect();
        for link in state.links.values() {
            wanted.entry(&link.port).or_default().push(link.local);
        }
        let mut refused = Refused::default();
        for (name, mut endpoints) in wanted {
            endpoints.sort_unstable();
            endpoints.dedup();
            let Some(handle) = self.handles.get_mut(name) else {
                continue;
            };
            if handle.endpoints == endpoints {
                continue;
            }
            match handle.steering.set_endpoints(&endpoints) {
                Ok(()) => {
                    let before = std::mem::replace(&mut handle.endpoints, endpoints);
                    undo.endpoints.push((name.clone(), before));
                }
                Err(error) if if_absent.waits(&handle.port.spec, &error) => {
                    handle.endpoints = endpoints;
                    self.wait_for_endpoint(pool, name, &error);
                }
                Err(error) => {
                    let before = handle.endpoints.clone();
                    undo.endpoints.push((name.clone(), before));
                    let (why, fix) = split(&error);
                    let link = link_of(state, name, &error);
                    let item = link.unwrap_or(ItemKey::Port(name.clone()));
                    let change = touched.get(&item).copied();
                    refused.push(reason(code(&error), change, &item, "local", why, &fix));
                }
            }
        }
        refused.unless(())
    }

    /// Takes back what [`prepare`](Self::prepare) did.
    pub(super) fn undo(&mut self, pool: &Pool, undo: Undo, view: &View) {
        self.links = None;
        for (name, endpoints) in undo.endpoints {
            if undo.opened.contains(&name) {
                continue;
            }
            if let Some(handle) = self.handles.get_mut(&name) {
                if let Err(error) = handle.steering.set_endpoints(&endpoints) {
                    tracing::error!(%error, port = %name, "the port's endpoints could not be restored");
                }
                handle.endpoints = endpoints;
            }
        }
        for name in undo.opened {
            self.close(pool, &name);
        }
        for (name, before) in undo.changed {
            if let Err(error) = self.swap_device(pool, &name, &before, view) {
                tracing::error!(%error, port = %name, "the port's device could not be restored");
            }
        }
    }

    /// Closes the ports that `state` does not have; only after tables without them are published.
    pub(super) fn sweep(&mut self, pool: &Pool, state: &State) {
        let gone: Vec<_> = self
            .open
            .keys()
            .filter(|name| !state.ports.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.close(pool, &name);
        }
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

/// The link whose endpoint an error is about.
fn link_of(state: &State, port: &PortName, error: &PortError) -> Option<ItemKey> {
    let PortError::Endpoint { endpoint, .. } = error else {
        return None;
    };
    let mut links = state.links.iter();
    links
        .find(|(_, link)| link.port == *port && link.local == *endpoint)
        .map(|(name, _)| ItemKey::Link(name.clone()))
}

/// That a port's device cannot be had.
fn cannot_open(name: &PortName, touched: &Touched, error: &PortError) -> RefusedItem {
    let item = ItemKey::Port(name.clone());
    let change = touched.get(&item).copied();
    let (why, fix) = split(error);
    let field = match error {
        PortError::NoDevice { .. } | PortError::NoHardwareAddress { .. } => "af_xdp.netdev",
        _ => "device",
    };
    reason(code(error), change, &item, field, why, &fix)
}

fn code(error: &PortError) -> Code {
    match error {
        PortError::TooMany | PortError::Memory { .. } => Code::NoRoom,
        _ => Code::Device,
    }
}

/// A port's errors end with what to do; a refusal has a field for that.
fn split(error: &PortError) -> (String, String) {
    let text = error.to_string();
    match text.rsplit_once("; ").or_else(|| text.rsplit_once(": ")) {
        Some((why, fix)) => (why.to_owned(), fix.to_owned()),
        None => (text, String::new()),
    }
}
