//! Ports follow their devices: what is gone is closed, what is back under its name is opened again, and what changed is
//! taken over. Nothing of it is the controller's business: links, keys and indices stay as they are.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use super::guard::Guard;
use super::wanted::wanted;
use super::{Ports, local};
use crate::devices::{Departure, Devices};
use crate::health::Status;
use crate::netlink::View;
use twinseal_model::port::{Device, PortSpec};
use twinseal_model::state::{Port, PortName, State};
use twinseal_runtime::ports::PortError;
use twinseal_runtime::workers::Pool;

/// Between two attempts to open a device that is there, the first time and at most. While one is made, workers that open
/// its queues forward nothing.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is known of a device besides what the port got.
#[derive(Default)]
pub(super) struct Following {
    /// Its queues, when last counted.
    queues: Option<u32>,
    /// What its hosts can do.
    pub(super) guard: Guard,
    /// The index of the device that is gone.
    lost: Option<u32>,
    /// When to try again, and how long to wait after that.
    again: Option<(Instant, Duration)>,
}

impl Following {
    fn later(&mut self, now: Instant) {
        let wait = self.again.map_or(RETRY.0, |(_, wait)| wait);
        self.again = Some((now + wait, (wait * 2).min(RETRY.1)));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.again.is_none_or(|(at, _)| at <= now)
    }
}

impl Ports {
    /// Closes ports whose device is gone or cannot be used any more, and takes over what changed of the others. To be
    /// called when the kernel told of devices and when workers found dead queues; `thorough`, now and then, for what nobody
    /// tells. Says whether tables have to be made anew.
    pub(crate) fn follow(
        &mut self,
        pool: &Pool,
        state: &State,
        devices: &mut Devices,
        thorough: bool,
    ) -> bool {
        let departed = devices.departed();
        let dead = pool.dead_ports();
        let mut changed = false;
        for (name, port) in state.ports.iter() {
            let Some((open, handle)) = self.open.get_mut(name).zip(self.handles.get_mut(name))
            else {
                continue;
            };
            let Some(ifindex) = open.ifindex else {
                // A worker may have been faster than the kernel, which says better what has become of it.
                let lost = handle.following.lost.and_then(|lost| departed.get(&lost));
                if let Some(departure) = lost {
                    open.device = Status::Down(gone(*departure).into());
                    changed = true;
                }
                continue;
            };
            if thorough && let Device::AfXdp { netdev, owned, .. } = &port.spec.device {
                handle.following.queues = twinseal_xsk::queue_count(netdev);
                if port.spec.edge {
                    handle.following.guard.look(netdev, *owned);
                }
            }
            let departure = departed.get(&ifindex).copied();
            let is_dead = dead & 1 << open.index.0 != 0;
            let unsteered = thorough && !handle.steering.is_attached();
            let why = lost(&port.spec, ifindex, devices, departure)
                .or_else(|| is_dead.then(|| "the kernel has taken it off its device".into()))
                .or_else(|| unsteered.then(|| "its XDP program was taken off its device".into()));
            let why = why.or_else(|| self.adapt(pool, name, &port.spec, devices, &mut changed));
            if let Some(why) = why {
                self.park(pool, name, why);
                changed = true;
            }
        }
        changed
    }

    /// Takes over its device's hardware address and MTU; says if it has to be opened anew for that.
    fn adapt(
        &mut self,
        pool: &Pool,
        name: &PortName,
        spec: &PortSpec,
        devices: &Devices,
        changed: &mut bool,
    ) -> Option<Cow<'static, str>> {
        let open = self.open.get_mut(name)?;
        let handle = self.handles.get_mut(name)?;
        let device = devices.get(open.ifindex?)?;
        let mut now = open.clone();
        now.device = Status::Up;
        if device.mac != open.mac {
            // What was heard may be older than what was found when the port was opened.
            now.mac = twinseal_runtime::ports::mac_of(&device.name).unwrap_or(open.mac);
            now.peer = open.peer.map(|_| now.mac);
            if let Err(error) = handle.steering.set_mac(now.mac) {
                now.device = Status::Degraded(error.to_string().into());
            }
        }
        let more = match spec.edge {
            true => devices.more_macs(open.ifindex?),
            false => Vec::new(),
        };
        if more != open.more_macs {
            match handle.steering.set_more_macs(&more) {
                Ok(()) => now.more_macs = more,
                Err(error) => now.device = Status::Degraded(error.to_string().into()),
            }
        }
        // A TAP device is the node's, and has the MTU that the node gave it.
        if let Device::AfXdp { netdev, .. } = &spec.device {
            now.device_mtu = u16::try_from(device.mtu).unwrap_or(u16::MAX);
            match pool.fit(netdev, device.mtu, spec.mtu) {
                Ok(fit) if fit.jumbo && !pool.needs_jumbo(open.mtu) => {
                    return Some(format!("its device's MTU is {} now", device.mtu).into());
                }
                Ok(fit) => now.mtu = fit.mtu,
                Err(error) => now.device = Status::Degraded(error.to_string().into()),
            }
            let (had, has) = (handle.outcome.bind.len(), handle.following.queues);
            let has = has.map_or(had, |queues| queues as usize);
            if has != had {
                let why = format!("its device has {has} queues now, and had {had}");
                if has > had {
                    // Packets on a queue without a socket are the kernel's.
                    return Some(why.into());
                }
                now.device = Status::Degraded(why.into());
            }
        }
        if now != *open {
            (handle.outcome.mac, handle.outcome.mtu) = (now.mac, now.mtu);
            handle.outcome.device_mtu = now.device_mtu;
            *open = now;
            *changed = true;
        }
        None
    }

    /// Closes a port's queues and lets go of its device; the port stays.
    pub(super) fn park(&mut self, pool: &Pool, name: &PortName, why: Cow<'static, str>) {
        if self.open.contains_key(name) {
            tracing::warn!(port = %name, %why, "the port is closed until its device can be opened again");
        }
        self.let_go(pool, name, why);
    }

    /// The same, and no news.
    pub(super) fn let_go(&mut self, pool: &Pool, name: &PortName, why: Cow<'static, str>) {
        let Some((open, handle)) = self.open.get_mut(name).zip(self.handles.get_mut(name)) else {
            return;
        };
        handle.steering.detach();
        pool.remove_port(open.index);
        handle.following = Following {
            lost: open.ifindex.take(),
            ..Following::default()
        };
        open.device = Status::Down(why);
        open.more_macs.clear();
    }

    /// Opens ports whose device is back. `at_once`: also those that were tried a short while ago, as something has changed.
    /// Says whether tables have to be made anew.
    pub(crate) fn reopen(
        &mut self,
        pool: &Pool,
        state: &State,
        view: &View,
        at_once: bool,
    ) -> bool {
        let devices = &view.devices;
        let now = Instant::now();
        let mut changed = false;
        for (name, port) in state.ports.iter() {
            let Some((open, handle)) = self.open.get_mut(name).zip(self.handles.get_mut(name))
            else {
                continue;
            };
            let Some(netdev) = port.spec.netdev() else {
                continue;
            };
            if open.ifindex.is_some() || open.device.carries() {
                continue;
            }
            let there = devices.is_unknown() || devices.named(netdev).is_some();
            let ours = matches!(port.spec.device, Device::Tap { .. });
            if ours && !there && handle.following.again.is_none() {
                // Whoever deleted it may be about to make another.
                handle.following.later(now);
            }
            if !(there || ours) || !(handle.following.is_due(now) || at_once && there) {
                continue;
            }
            changed = true;
            match self.open_again(pool, name, port, view) {
                Ok(()) => tracing::info!(port = %name, "the port's device is open again"),
                Err(error) => self.wait_for_device(name, &error, now),
            }
        }
        changed
    }

    /// Opens the device of a port that has none.
    pub(super) fn open_again(
        &mut self,
        pool: &Pool,
        name: &PortName,
        port: &Port,
        view: &View,
    ) -> Result<(), PortError> {
        let Some((open, handle)) = self.open.get_mut(name).zip(self.handles.get_mut(name)) else {
            return Ok(());
        };
        let ifindex = port.spec.netdev().and_then(|netdev| view.index_of(netdev));
        let addresses = local(port, ifindex, view);
        let (steering, outcome) = pool.add_port(open.index, &wanted(&port.spec), &addresses)?;
        if let Err(error) = handle.steering.take_over(steering, &handle.endpoints) {
            pool.remove_port(open.index);
            return Err(error);
        }
        (open.mac, open.mtu, open.peer) = (outcome.mac, outcome.mtu, outcome.peer);
        (open.ifindex, open.device) = (outcome.ifindex, Status::Up);
        (open.device_mtu, open.offloads) = (outcome.device_mtu, outcome.offloads);
        open.seen = true;
        handle.outcome = outcome;
        handle.netdev = port.spec.netdev().map(str::to_owned);
        handle.addresses = addresses;
        handle.port = port.clone();
        handle.following = Following::default();
        Ok(())
    }

    pub(super) fn wait_for_device(&mut self, name: &PortName, error: &PortError, now: Instant) {
        let Some((open, handle)) = self.open.get_mut(name).zip(self.handles.get_mut(name)) else {
            return;
        };
        open.device = Status::Down(cannot_be_opened(error));
        handle.following.later(now);
    }
}

/// Why the device of this index is a port's no more.
fn lost(
    spec: &PortSpec,
    ifindex: u32,
    devices: &Devices,
    departure: Option<Departure>,
) -> Option<Cow<'static, str>> {
    if let Some(departure) = departure {
        return Some(gone(departure).into());
    }
    let netdev = spec.netdev()?;
    if devices.is_unknown() {
        return None;
    }
    match devices.get(ifindex) {
        // One that was just made is not heard of yet.
        None if twinseal_runtime::ports::ifindex_of(netdev) != Some(ifindex) => {
            Some("its device is gone".into())
        }
        Some(device) if device.name != netdev && devices.named(netdev).is_some() => Some(
            format!(
                "its device is called {} now, and another has its name",
                device.name
            )
            .into(),
        ),
        _ => None,
    }
}

pub(super) fn cannot_be_opened(error: &PortError) -> Cow<'static, str> {
    format!("its device cannot be opened: {error}").into()
}

fn gone(departure: Departure) -> &'static str {
    match departure {
        Departure::Deleted => "its device was deleted",
        Departure::Moved => "its device was moved to another network namespace",
    }
}
