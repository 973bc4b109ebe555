//! What hosts of an edge port can do to this machine by its kernel: what is bounded, and what is told.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::{Handle, Ports};
use crate::asked::Key;
use crate::compile::{HostAddress, KernelNeighbours, subnet_ends};
use crate::crowd::{Crowd, Taken};
use crate::devices::Devices;
use crate::netlink::View;
use crate::warnings::Found;
use twinseal_model::parse::ItemKey;
use twinseal_model::port::Device;
use twinseal_runtime::ports::{Steering, believes, forwarding};
use twinseal_wire::ethernet::Mac;

/// How long after it was last exceeded the share of neighbours is told of.
const TOLD: Duration = Duration::from_secs(10);

/// What was found of a port.
#[derive(Default)]
pub(super) struct Guard {
    /// By what the kernel forwards, or believes, in words.
    warnings: Vec<String>,
    /// The neighbours of each family that the program was told of, and how many frames it had dropped above that.
    share: Option<[u32; 2]>,
    above: u64,
    exceeded: Option<Instant>,
    /// Who fills the table, if not hosts of this port.
    others: Option<String>,
}

impl Guard {
    /// Looks at the device's switches.
    pub(super) fn look(&mut self, netdev: &str, owned: bool) {
        let switches = forwarding(netdev);
        let forwards = (!switches.is_empty()).then(|| forwarded(netdev, owned, &switches));
        // On an owned port the program drops what these are about.
        let switches = match owned {
            true => Vec::new(),
            false => believes(netdev),
        };
        let believes = (!switches.is_empty()).then(|| believed(netdev, &switches));
        self.warnings = forwards.into_iter().chain(believes).collect();
    }

    /// Tells the program its share, and sees whether hosts would have exceeded it.
    fn share(&mut self, steering: &mut Steering, share: [u32; 2], now: Instant) {
        if self.share != Some(share) {
            match steering.set_neighbours(share[0], share[1]) {
                Ok(()) => self.share = Some(share),
                Err(error) => {
                    tracing::debug!(%error, "a port's share of neighbours cannot be set")
                }
            }
        }
        match steering.above_share() {
            Ok(above) if above != self.above => (self.above, self.exceeded) = (above, Some(now)),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a steering counter cannot be read"),
        }
        self.exceeded = self.exceeded.filter(|at| now - *at < TOLD);
    }

    fn found(&self, netdev: &str) -> Vec<String> {
        let mut found = self.warnings.clone();
        if self.exceeded.is_some() {
            found.push(exceeded(netdev, self.others.as_deref()));
        }
        found
    }
}

impl Ports {
    /// Gives every edge port its share of the kernel's tables of neighbours, and tells it whom the kernel knows there; but for
    /// those whom it is about to forget. To be called every second.
    pub(crate) fn share_neighbours(&mut self, view: &View, leaving: &[Key], now: Instant) {
        let mut edges: Vec<_> = self.handles.values_mut().filter(|it| edge(it)).collect();
        let known = &view.neighbours;
        let mut at = on_devices(known, leaving);
        let crowd = Crowd::by_kernel();
        let taken = Taken::count(known);
        let devices = |handle: &Handle| {
            let above = |it| view.devices.above(it).map(|(index, _)| index);
            let device = handle.outcome.ifindex.into_iter();
            device.flat_map(move |it| std::iter::once(it).chain(above(it)))
        };
        let ports = edges.len();
        let fullest = [0, 1].map(|nth| {
            let most = edges.iter().max_by_key(|it| taken.on(devices(it))[nth])?;
            let fills = crowd.fills(nth, taken.on(devices(most)), ports);
            most.netdev.clone().filter(|_| fills)
        });
        for handle in &mut edges {
            let here = taken.on(devices(handle));
            let share = crowd.most(taken.all, here, ports);
            let others = crowd.filled_by_others(taken.all, here, ports);
            let others = others.and_then(|nth| fullest[nth].clone());
            let all: HashSet<_> = devices(handle).collect();
            let addresses = view.addresses.keys();
            let addresses = addresses.filter(|it| all.contains(&it.ifindex));
            let broadcasts = addresses.filter_map(broadcast);
            if let Err(error) = handle.steering.set_broadcasts(broadcasts) {
                tracing::debug!(%error, "a port's broadcast addresses cannot be set");
            }
            let Handle {
                steering,
                following,
                outcome,
                ..
            } = &mut **handle;
            following.guard.share(steering, share, now);
            following.guard.others = others;
            let here = outcome.ifindex.map(|device| {
                let above = view.devices.above(device).map(|(index, _)| index);
                let here = at.remove(&device).unwrap_or_default();
                on_all(here, known, &above.collect::<Vec<_>>())
            });
            if let Err(error) = steering.set_known(here.unwrap_or_default().into_iter()) {
                tracing::debug!(%error, "a port's neighbours cannot be set");
            }
        }
    }

    /// What is to be told of ports' devices, as was found last.
    pub(crate) fn guarded(&self, devices: &Devices) -> Found {
        let handles = self.handles.iter();
        let found = handles.filter_map(|(name, handle)| {
            let mut found = handle.following.guard.found(handle.netdev.as_deref()?);
            if matches!(handle.port.spec.device, Device::AfXdp { .. }) {
                let ifindex = handle.outcome.ifindex;
                found.extend(ifindex.and_then(|it| devices.taken(it)));
            }
            (!found.is_empty()).then(|| (ItemKey::Port(name.clone()), found))
        });
        found.collect()
    }
}

/// The neighbours on each device, but for those that leave.
fn on_devices(known: &KernelNeighbours, leaving: &[Key]) -> HashMap<u32, Vec<(IpAddr, Mac)>> {
    let leaving: HashSet<_> = leaving.iter().collect();
    let mut at: HashMap<_, Vec<_>> = HashMap::new();
    for (key, mac) in known.iter().filter(|(key, _)| !leaving.contains(key)) {
        at.entry(key.0).or_default().push((key.1, *mac));
    }
    at
}

/// Of the neighbours on a device those that are known on these, too. They stand on the device and hear what it hears, so that
/// the kernel would learn others there.
fn on_all(
    mut here: Vec<(IpAddr, Mac)>,
    known: &KernelNeighbours,
    above: &[u32],
) -> Vec<(IpAddr, Mac)> {
    here.retain(|(address, mac)| {
        let mut above = above.iter();
        above.all(|device| known.get(&(*device, *address)) == Some(mac))
    });
    here
}

/// The broadcast address of the subnet of an address, by which hosts of the subnet talk to all of them.
fn broadcast(own: &HostAddress) -> Option<Ipv4Addr> {
    match subnet_ends(own).last() {
        Some(IpAddr::V4(last)) => Some(last),
        _ => None,
    }
}

fn edge(handle: &Handle) -> bool {
    handle.port.spec.edge && matches!(handle.port.spec.device, Device::AfXdp { .. })
}

/// That the program drops what would have made neighbours.
fn exceeded(netdev: &str, others: Option<&str>) -> String {
    let fix = "if all of them are to be there raise net.ipv4.neigh.default.gc_thresh1, 2 and 3, and those of ipv6";
    match others {
        None => format!(
            "hosts on {netdev} make more neighbours than the port's share of the kernel's table: their further ARP requests and neighbour solicitations are dropped (drop_neighbour_share), so that other ports find room; look with `ctl capture` or `ip neighbour show dev {netdev}` who it is, and {fix}"
        ),
        Some(others) => format!(
            "hosts on {netdev} make more neighbours at once than there is room for while others, most of them on {others}, fill the kernel's table: their further ARP requests and neighbour solicitations are dropped (drop_neighbour_share); look with `ip neighbour show dev {others}` who it is, and {fix}"
        ),
    }
}

/// That the kernel may send packets of hosts on as they came.
fn forwarded(netdev: &str, owned: bool, switches: &[String]) -> String {
    let switches = switches.join(", ");
    let (when, fix) = match owned {
        true => ("while the node does not run", ""),
        false => (
            "while the node does not run, and those that are not its own at any time",
            ", or set owned: true on the port",
        ),
    };
    format!(
        "the kernel forwards ({switches} is on): {when} packets of hosts on {netdev} may leave unencrypted; switch it off, or forbid it by a rule{fix}"
    )
}

/// That the kernel may take routes from hosts.
fn believed(netdev: &str, switches: &[String]) -> String {
    let commands: Vec<_> = switches
        .iter()
        .map(|switch| format!("{}=0", switch.replace('/', ".")))
        .collect();
    format!(
        "the kernel believes router advertisements or redirects of hosts on {netdev}, by which they give this machine routes and addresses: `sysctl -w {}`, or set owned: true on the port",
        commands.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_the_kernel_is_about_to_forget_is_a_new_one_to_its_port() {
        let host = |device: u32, last| (device, IpAddr::from([10, 0, 0, last]));
        let keys = [host(1, 1), host(1, 2), host(2, 1)];
        let known = keys.map(|key| (key, Mac([2; 6]))).into_iter().collect();
        let at = on_devices(&known, &[host(1, 1)]);
        assert_eq!(at[&1], [(host(1, 2).1, Mac([2; 6]))]);
        assert_eq!(at[&2], [(host(2, 1).1, Mac([2; 6]))]);
        // And one that a virtual router on the device does not know.
        let here = |above: &[u32]| on_all(at[&1].clone(), &known, above);
        assert_eq!(here(&[]), at[&1]);
        assert_eq!(here(&[2]), []);
    }

    #[test]
    fn the_broadcast_address_is_the_subnets_last() {
        let of = |address: [u8; 4], len| {
            let address = address.into();
            let ifindex = 1;
            broadcast(&HostAddress {
                ifindex,
                address,
                len,
            })
        };
        assert_eq!(of([10, 1, 0, 1], 24), Some([10, 1, 0, 255].into()));
        assert_eq!(of([10, 1, 0, 1], 30), Some([10, 1, 0, 3].into()));
        assert_eq!(of([10, 1, 0, 1], 31), None);
        assert_eq!(of([10, 1, 0, 1], 32), None);
    }

    #[test]
    fn the_warning_names_whose_hosts_fill_the_table() {
        let own = exceeded("eth2", None);
        assert!(own.contains("`ip neighbour show dev eth2`"), "{own}");
        let others = exceeded("eth2", Some("eth3"));
        assert!(others.starts_with("hosts on eth2 "), "{others}");
        assert!(others.contains("`ip neighbour show dev eth3`"), "{others}");
    }

    #[test]
    fn the_warning_is_a_command_to_copy() {
        let switches = ["net/ipv6/conf/eth2/accept_ra".to_owned()];
        let warning = believed("eth2", &switches);
        assert!(
            warning.contains("`sysctl -w net.ipv6.conf.eth2.accept_ra=0`"),
            "{warning}"
        );
    }
}
