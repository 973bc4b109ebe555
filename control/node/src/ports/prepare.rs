//! What a transaction does to ports before it applies, and how that is taken back if it is refused after all.
//!
//! Traffic goes on by the ports that are open, so what may be refused comes first: a look at all devices, then ports that
//! are new, devices beside those that ports have, and endpoints beside those that links have. What takes a port from its
//! traffic ([`reopen`](super::reopen)) comes when nothing else is left, and what closes for good when the tables without it
//! are published.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::refused::{cannot_hold, cannot_open, link_of};
use super::reopen::Reopened;
use super::wanted::wanted;
use super::{IfAbsent, Ports, local};
use crate::events::Events;
use crate::netlink::View;
use twinseal_model::port::{Device, PortSpec};
use twinseal_model::refusal::Refused;
use twinseal_model::state::{Port, PortName, Role, State};
use twinseal_model::transaction::Touched;
use twinseal_runtime::ports::PortError;
use twinseal_runtime::workers::Pool;

/// What a transaction has done to the ports so far, to be undone if it fails, and what is left to do.
#[derive(Default)]
pub(crate) struct Prepared {
    opened: Vec<PortName>,
    /// Ports that carried nothing and have another device now, and what they waited for.
    replaced: Vec<(PortName, Port)>,
    /// Ports that take other packets by the same sockets, and what they were.
    resized: Vec<(PortName, Port)>,
    /// Open ports that have to be closed to become this.
    pub(super) waiting: Vec<(PortName, Port)>,
    /// Those of them that are it.
    pub(super) reopened: Vec<Reopened>,
    /// Endpoints as they were.
    endpoints: Vec<(PortName, Vec<SocketAddr>)>,
    /// And as they will be.
    wanted: Vec<(PortName, Vec<SocketAddr>)>,
}

impl Prepared {
    /// Whether open ports have to be closed and opened anew.
    pub(crate) fn reopens(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Ports {
    /// Opens the ports of `state` that are not open, and has all receive on the links' endpoints besides those on which they
    /// do. No open port is closed. On failure everything is as before.
    pub(crate) fn prepare(
        &mut self,
        pool: &Pool,
        state: &State,
        touched: &Touched,
        view: &View,
        if_absent: IfAbsent,
    ) -> Result<Prepared, Refused> {
        let mut refused = Refused::default();
        self.check(pool, state, touched, if_absent, &mut refused);
        refused.unless(())?;
        let mut prepared = Prepared::default();
        match self.try_prepare(pool, state, touched, view, (if_absent, &mut prepared)) {
            Ok(()) => Ok(prepared),
            Err(refused) => {
                self.take_back(pool, prepared, view);
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
        (if_absent, prepared): (IfAbsent, &mut Prepared),
    ) -> Result<(), Refused> {
        let mut refused = Refused::default();
        for (name, port) in state.ports.iter() {
            if self.has(name, port) {
                continue;
            }
            let opened = match self.handles.get(name).map(|handle| handle.port.clone()) {
                None => self
                    .open_one(pool, name, port, view, if_absent)
                    .map(|()| prepared.opened.push(name.clone())),
                Some(before) if !self.carries(name) => self
                    .open_again(pool, name, port, view)
                    .map(|()| prepared.replaced.push((name.clone(), before))),
                Some(before) if self.resize(pool, name, port) => {
                    prepared.resized.push((name.clone(), before));
                    Ok(())
                }
                Some(_) => self
                    .try_apart(pool, name, port, view)
                    .map(|()| prepared.waiting.push((name.clone(), port.clone()))),
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
        if !same || !prepared.opened.is_empty() {
            self.links = None;
            self.add_endpoints(pool, state, touched, (if_absent, prepared))?;
            self.links = Some(state.links.clone());
        }
        Ok(())
    }

    /// Whether a port carries packets, which closing it would cost.
    pub(super) fn carries(&self, name: &PortName) -> bool {
        self.open.get(name).is_some_and(|it| it.device.carries())
    }

    /// Has a port take packets of another size, if that is all that it is to do and its sockets can.
    fn resize(&mut self, pool: &Pool, name: &PortName, port: &Port) -> bool {
        let Some((open, handle)) = self.open.get_mut(name).zip(self.handles.get_mut(name)) else {
            return false;
        };
        let Device::AfXdp { netdev, .. } = &port.spec.device else {
            return false;
        };
        let before = PortSpec {
            mtu: port.spec.mtu,
            ..handle.port.spec.clone()
        };
        let fit = pool.fit(netdev, open.device_mtu.into(), port.spec.mtu);
        match fit {
            Ok(fit) if before == port.spec && (!fit.jumbo || pool.needs_jumbo(open.mtu)) => {
                (open.mtu, handle.outcome.mtu) = (fit.mtu, fit.mtu);
                handle.port = port.clone();
                true
            }
            _ => false,
        }
    }

    /// Opens what a port is to be for a moment, beside what it is, where that is another device.
    fn try_apart(
        &self,
        pool: &Pool,
        name: &PortName,
        port: &Port,
        view: &View,
    ) -> Result<(), PortError> {
        let spec = &port.spec;
        let before = self.handles.get(name).map(|it| &it.port.spec.device);
        let another = match (before, &spec.device) {
            (_, Device::AfXdp { .. }) => !self.is_on_its_device(name, spec),
            (Some(Device::Tap { netdev: before }), Device::Tap { netdev }) => before != netdev,
            (Some(Device::Memory { wire: before, .. }), Device::Memory { wire, .. }) => {
                before != wire
            }
            _ => true,
        };
        let Some(index) = self.free_index().filter(|_| another) else {
            return Ok(());
        };
        let ifindex = spec.netdev().and_then(|netdev| view.index_of(netdev));
        match pool.add_port(index, &wanted(spec), &local(port, ifindex, view)) {
            Ok((steering, _)) => {
                drop(steering);
                pool.remove_port(index);
                Ok(())
            }
            // There may be room once the one before is closed.
            Err(PortError::Memory { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Has ports receive on the endpoints of `state`, and still on those that they have: its tables are not published yet.
    fn add_endpoints(
        &mut self,
        pool: &Pool,
        state: &State,
        touched: &Touched,
        (if_absent, prepared): (IfAbsent, &mut Prepared),
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
        for endpoints in wanted.values_mut() {
            endpoints.sort_unstable();
            endpoints.dedup();
        }
        self.share_endpoints(&wanted);
        let mut refused = Refused::default();
        for (name, endpoints) in wanted {
            let Some(handle) = self.handles.get_mut(name) else {
                continue;
            };
            if handle.endpoints == endpoints {
                continue;
            }
            let mut both = [&handle.endpoints[..], &endpoints].concat();
            both.sort_unstable();
            both.dedup();
            // There may be no room for both.
            let set = handle.steering.set_endpoints(&both).map(|()| both);
            let set = set.or_else(|_| {
                let set = handle.steering.set_endpoints(&endpoints);
                set.map(|()| endpoints.clone())
            });
            match set {
                Ok(set) => {
                    let before = std::mem::replace(&mut handle.endpoints, set);
                    prepared.endpoints.push((name.clone(), before));
                    prepared.wanted.push((name.clone(), endpoints));
                }
                Err(error) if if_absent.waits(&handle.port.spec, &error) => {
                    handle.endpoints = endpoints;
                    self.wait_for_endpoint(pool, name, &error);
                }
                Err(error) => {
                    let before = handle.endpoints.clone();
                    prepared.endpoints.push((name.clone(), before));
                    let item = link_of(state, name, &error);
                    refused.push(cannot_hold(item, touched, &error));
                }
            }
        }
        refused.unless(())
    }

    /// What one port gives up and another is to have, both hold until the first gives it up.
    fn share_endpoints(&mut self, wanted: &BTreeMap<&PortName, Vec<SocketAddr>>) {
        let mut given_up = BTreeMap::new();
        for (name, handle) in &self.handles {
            let kept = wanted.get(name).map_or(&[][..], Vec::as_slice);
            let gives_up = |it: &&SocketAddr| kept.binary_search(it).is_err();
            for endpoint in handle.endpoints.iter().filter(gives_up) {
                given_up.insert(*endpoint, name.clone());
            }
        }
        if given_up.is_empty() {
            return;
        }
        for (name, endpoints) in wanted {
            for endpoint in endpoints {
                let giver = given_up.get(endpoint).and_then(|it| self.handles.get(it));
                let socket = giver.and_then(|giver| giver.steering.held(endpoint));
                let handle = self.handles.get_mut(*name);
                if let Some((handle, socket)) = handle.zip(socket)
                    && !handle.endpoints.contains(endpoint)
                {
                    handle.steering.share(*endpoint, socket);
                }
            }
        }
    }

    /// Takes back what was done, and tells what that costs.
    pub(crate) fn undo(
        &mut self,
        pool: &Pool,
        mut prepared: Prepared,
        view: &View,
        events: &Events,
    ) {
        self.restore(pool, &mut prepared, view, events);
        self.take_back(pool, prepared, view);
    }

    fn take_back(&mut self, pool: &Pool, prepared: Prepared, view: &View) {
        self.links = None;
        for (name, endpoints) in prepared.endpoints {
            if !prepared.opened.contains(&name) {
                self.set_endpoints(&name, endpoints);
            }
        }
        for name in prepared.opened {
            self.close(pool, &name);
        }
        for (name, before) in prepared.resized {
            // It fitted before.
            self.resize(pool, &name, &before);
        }
        for (name, before) in prepared.replaced {
            self.park(pool, &name, "its transaction was refused".into());
            if let Err(error) = self.open_again(pool, &name, &before, view) {
                if let Some(handle) = self.handles.get_mut(&name) {
                    handle.port = before;
                }
                self.wait_for_device(&name, &error, Instant::now());
            }
        }
    }

    /// Closes the ports that `state` does not have, and gives up endpoints that no link has any more; only after tables
    /// without them are published.
    pub(crate) fn finish(&mut self, pool: &Pool, state: &State, prepared: Prepared) {
        let gone: Vec<_> = self
            .open
            .keys()
            .filter(|name| !state.ports.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            self.close(pool, &name);
        }
        for (name, endpoints) in prepared.wanted {
            self.set_endpoints(&name, endpoints);
        }
    }

    /// Has a port receive on no more than these endpoints, all of which it has.
    fn set_endpoints(&mut self, name: &PortName, endpoints: Vec<SocketAddr>) {
        let Some(handle) = self.handles.get_mut(name) else {
            return;
        };
        if let Err(error) = handle.steering.set_endpoints(&endpoints) {
            tracing::error!(%error, port = %name, "the port goes on to receive on endpoints that no link has");
        }
        handle.endpoints = endpoints;
    }
}
