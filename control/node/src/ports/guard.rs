//! What hosts of an edge port can do to this machine by its kernel: what is bounded, and what is told.

use std::time::{Duration, Instant};

use super::{Handle, Ports};
use crate::compile::KernelNeighbours;
use crate::crowd::Crowd;
use crate::warnings::Found;
use twinseal_model::parse::ItemKey;
use twinseal_model::port::Device;
use twinseal_runtime::ports::{Steering, believes, forwarding};

/// How long after it was last exceeded the share of neighbours is told of.
const TOLD: Duration = Duration::from_secs(10);

/// What was found of a port.
#[derive(Default)]
pub(super) struct Guard {
    /// By what the kernel forwards, or believes, in words.
    warnings: Vec<String>,
    /// The neighbours that the program was told of, and how many frames it had dropped above that.
    share: Option<u32>,
    above: u64,
    exceeded: Option<Instant>,
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
    fn share(&mut self, steering: &mut Steering, share: u32, now: Instant) {
        if self.share != Some(share) {
            match steering.set_neighbours(share) {
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
            found.push(format!(
                "hosts on {netdev} make more neighbours than the port's share of the kernel's table: their further ARP requests and neighbour solicitations are dropped (drop_neighbour_share), so that other ports find room; look with `ctl capture` or `ip neighbour show dev {netdev}` who it is, and if all of them are to be there raise net.ipv4.neigh.default.gc_thresh1, 2 and 3, and those of ipv6"
            ));
        }
        found
    }
}

impl Ports {
    /// Gives every edge port its share of the kernel's tables of neighbours, of which these are known. To be called every
    /// second.
    pub(crate) fn share_neighbours(&mut self, known: &KernelNeighbours, now: Instant) {
        let mut edges: Vec<_> = self.handles.values_mut().filter(|it| edge(it)).collect();
        let crowd = Crowd::by_kernel();
        let share = match crowd.is_calm(known) {
            true => crowd.in_calm(),
            false => crowd.in_five_seconds(edges.len()),
        };
        for handle in &mut edges {
            handle
                .following
                .guard
                .share(&mut handle.steering, share, now);
        }
    }

    /// What is to be told of edge ports' devices, as was found last.
    pub(crate) fn guarded(&self) -> Found {
        let handles = self.handles.iter();
        let found = handles.filter_map(|(name, handle)| {
            let found = handle.following.guard.found(handle.netdev.as_deref()?);
            (!found.is_empty()).then(|| (ItemKey::Port(name.clone()), found))
        });
        found.collect()
    }
}

fn edge(handle: &Handle) -> bool {
    handle.port.spec.edge && matches!(handle.port.spec.device, Device::AfXdp { .. })
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
    fn the_warning_is_a_command_to_copy() {
        let switches = ["net/ipv6/conf/eth2/accept_ra".to_owned()];
        let warning = believed("eth2", &switches);
        assert!(
            warning.contains("`sysctl -w net.ipv6.conf.eth2.accept_ra=0`"),
            "{warning}"
        );
    }
}
