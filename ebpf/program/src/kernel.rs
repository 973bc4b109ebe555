//! What the kernel gets of an edge port's frames that are not ours.
//!
//! Whoever can make it learn neighbours can fill its table of them, which is one for all devices: so these frames have
//! budgets. Hosts that it knows already make nothing new: each of them has budgets of its own, and takes nothing of the
//! others'. On an owned port the kernel gets only what it needs itself.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::classify::{
    ARP, IPV4, IPV6, begins_with_vlan_0, ipv4, ipv6, is_link_control, network, upper_layer,
};
use crate::layout::{
    BUDGET_NS, Config, HostKey, KNOWN_NS, LocalKey, SENDER_NS, Verdict, budget, is_mapped, mac_key,
    v4_key, v6_key,
};
use crate::packet::{Arp, Ethernet, Frame, Neighbour};
use crate::{BUDGETS, KNOWN, SENDERS, is_broadcast, is_local, is_own_mac};

const ICMP: u8 = 1;
/// ICMP type (RFC 792).
const REDIRECT: u8 = 5;

const ICMPV6: u8 = 58;
/// ICMPv6 types (RFC 4861).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT_V6: u8 = 137;
/// The flag of an advertisement that answers.
const SOLICITED: u8 = 0x40;

/// What ICMP begins with. Both, as of the check for a single byte the compiler makes one that the verifier does not
/// understand.
type TypeCode = [u8; 2];

const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// A frame that is not ours by `verdict`. `Err` says why the kernel does not get it either.
#[inline(always)]
pub(crate) fn admit(frame: &Frame, config: &Config, verdict: Verdict) -> Result<(), Verdict> {
    // What the kernel does not need.
    let rest = match config.owned {
        0 => Ok(()),
        _ => Err(verdict),
    };
    let Some(ethernet) = frame.at::<Ethernet>(0) else {
        return rest;
    };
    let (ether_type, start) = match network(frame, ethernet) {
        Ok(it) => it,
        // To the kernel it would be another frame than it is here. No host sends such.
        Err(why) if begins_with_vlan_0(frame, ethernet) => return Err(why),
        Err(_) => return rest,
    };
    let made = match ether_type {
        ARP => arp(frame, start, ethernet, rest)?,
        IPV4 => over_v4(frame, start, ethernet, rest)?,
        IPV6 => over_v6(frame, start, ethernet, rest)?,
        // Only what is of no other kind: the kernel reads ARP and IP whatever group they are sent to.
        _ if is_link_control(ethernet.destination) => return Ok(()),
        _ => return rest,
    };
    // The kernel reads no frames to other stations.
    let to = ethernet.destination;
    if !is_group(ethernet) && to != config.mac && !is_own_mac(to) {
        return Ok(());
    }
    let v6 = ether_type == IPV6;
    match made {
        Made::Nobody => Ok(()),
        Made::Anybody => charge(budget::TOLD, v6, config),
        Made::By(budget, host) => charge_host(budget, v6, &host, config),
        Made::Sender(sender) => charge_sender(&sender, v6, config),
    }
}

/// Whether a frame is to a multicast or broadcast MAC address.
#[inline(always)]
fn is_group(ethernet: &Ethernet) -> bool {
    ethernet.destination[0] & 1 != 0
}

/// Whom the kernel would learn.
enum Made {
    Nobody,
    /// Whomever the frame names.
    Anybody,
    /// This host, at the cost of this budget.
    By(u32, HostKey),
    /// Whom it answers.
    Sender(LocalKey),
}

/// A host as it names itself.
#[inline(always)]
fn host(address: LocalKey, mac: [u8; 6]) -> HostKey {
    HostKey {
        address,
        mac: mac_key(mac),
    }
}

#[inline(always)]
fn arp(
    frame: &Frame,
    start: usize,
    ethernet: &Ethernet,
    rest: Result<(), Verdict>,
) -> Result<Made, Verdict> {
    let Some(arp) = frame.at::<Arp>(start) else {
        // Nor does the kernel read it.
        rest?;
        return Ok(Made::Nobody);
    };
    // Linux answers for every address of the machine, on whatever device it is; on an owned port only for the port's own.
    let own = is_local(&v4_key(arp.target));
    let sender = host(v4_key(arp.sender), arp.sender_mac);
    match arp.operation {
        REQUEST if own => Ok(Made::By(budget::ASKED, sender)),
        REPLY if !is_group(ethernet) => Ok(Made::Nobody),
        REPLY => Ok(Made::By(budget::TOLD, sender)),
        // Of hosts that tell of a new MAC address (RFC 5227).
        REQUEST if arp.sender == arp.target => Ok(Made::By(budget::TOLD, sender)),
        _ => {
            rest?;
            Ok(Made::By(budget::TOLD, sender))
        }
    }
}

#[inline(always)]
fn over_v4(
    frame: &Frame,
    start: usize,
    ethernet: &Ethernet,
    rest: Result<(), Verdict>,
) -> Result<Made, Verdict> {
    let Ok((ip, payload)) = ipv4(frame, start) else {
        rest?;
        return Ok(Made::Nobody);
    };
    match ip.destination {
        [224, 0, 0, _] | [255, 255, 255, 255] => {}
        to if is_local(&v4_key(to)) => {}
        [224..=239, ..] => rest?,
        // In a frame to all the kernel takes what is for any address of the machine, whose tenant's it is (RFC 1122, 3.3.6).
        to if is_group(ethernet) && !is_broadcast(&v4_key(to)) => {
            return Err(Verdict::UnicastInMulticast);
        }
        _ => rest?,
    }
    // The type is in the first fragment.
    let first = ip.flags_offset[0] & 0x1f == 0 && ip.flags_offset[1] == 0;
    if ip.protocol[0] == ICMP && first {
        let message = frame.at::<TypeCode>(payload);
        if message.is_some_and(|it| it[0] == REDIRECT) {
            return match rest {
                Ok(()) => Ok(Made::Anybody),
                Err(_) => Err(Verdict::RouterClaim),
            };
        }
    }
    match ip.source {
        [0, 0, 0, 0] => Ok(Made::Nobody),
        source => Ok(Made::Sender(v4_key(source))),
    }
}

#[inline(always)]
fn over_v6(
    frame: &Frame,
    start: usize,
    ethernet: &Ethernet,
    rest: Result<(), Verdict>,
) -> Result<Made, Verdict> {
    let Ok(ip) = ipv6(frame, start) else {
        rest?;
        return Ok(Made::Nobody);
    };
    match ip.destination {
        [0xff, flags, ..] if matches!(flags & 0x0f, 1 | 2) => {}
        [0xff, ..] => rest?,
        to => {
            let key = v6_key(to);
            if is_mapped(&key) || !is_local(&key) {
                if is_group(ethernet) {
                    return Err(Verdict::UnicastInMulticast);
                }
                rest?;
            }
        }
    }
    let source = v6_key(ip.source);
    let sender = host(source, ethernet.source);
    let offset = match upper_layer(frame, start, ip) {
        Ok((ICMPV6, offset)) => offset,
        // The kernel reads no neighbour discovery in fragments (RFC 6980).
        Ok(_) | Err(Verdict::PassFragment) => return Ok(Made::Sender(source)),
        // It reads what is behind any number of headers.
        Err(why) => {
            return match rest {
                Ok(()) => Ok(Made::Anybody),
                Err(_) => Err(why),
            };
        }
    };
    // Behind long headers it may be in a part of the frame that the program does not see, and the kernel does.
    let Some(&[kind, _]) = frame.at::<TypeCode>(offset) else {
        return match rest {
            Ok(()) => Ok(Made::Anybody),
            Err(_) => Err(Verdict::PassTruncated),
        };
    };
    match kind {
        ROUTER_ADVERTISEMENT | REDIRECT_V6 if rest.is_err() => Err(Verdict::RouterClaim),
        // It says where another is.
        REDIRECT_V6 => Ok(Made::Anybody),
        ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT => Ok(Made::By(budget::TOLD, sender)),
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => {
            let Some(message) = frame.at::<Neighbour>(offset) else {
                return Ok(Made::Anybody);
            };
            if kind == NEIGHBOUR_ADVERTISEMENT {
                let answers = !is_group(ethernet) && message.flags[0] & SOLICITED != 0;
                // It is of its target, whoever sends it.
                return Ok(match answers {
                    true => Made::Nobody,
                    false => Made::By(budget::TOLD, host(v6_key(message.target), ethernet.source)),
                });
            }
            Ok(match is_local(&v6_key(message.target)) {
                true => Made::By(budget::ASKED, sender),
                false => Made::By(budget::TOLD, sender),
            })
        }
        _ => Ok(Made::Sender(source)),
    }
}

/// A frame of a budget of a family.
#[inline(always)]
fn charge(budget: u32, v6: bool, config: &Config) -> Result<(), Verdict> {
    let [of_v4, of_v6] = config.interval_ns;
    let (interval, place) = match v6 {
        false => (of_v4, budget),
        true => (of_v6, budget + budget::COUNT),
    };
    let interval = match budget {
        _ if interval == 0 => return Ok(()),
        budget::ASKED => interval,
        _ => 2 * interval,
    };
    let Some(spent) = BUDGETS.get_ptr_mut(place) else {
        return Ok(());
    };
    match spend(spent, interval) {
        true => Ok(()),
        false => Err(Verdict::NeighbourShare),
    }
}

/// A frame by which a host asks or tells, of its own budget if the kernel knows it.
#[inline(always)]
fn charge_host(budget: u32, v6: bool, host: &HostKey, config: &Config) -> Result<(), Verdict> {
    let Some(spent) = KNOWN.get_ptr_mut(host) else {
        return charge(budget, v6, config);
    };
    let spent = spent.cast::<u64>();
    let spent = match budget {
        budget::ASKED => spent,
        // SAFETY: the second of two.
        _ => unsafe { spent.add(1) },
    };
    match spend(spent, KNOWN_NS) {
        true => Ok(()),
        false => Err(Verdict::Repeated),
    }
}

/// A packet of a sender, which costs nothing if one of it was let through a short while ago. One that the kernel knows on
/// this device costs as much: the answer may go to another, as where tenants have the same addresses.
#[inline(always)]
fn charge_sender(sender: &LocalKey, v6: bool, config: &Config) -> Result<(), Verdict> {
    // SAFETY: it reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(since) = SENDERS.get_ptr(sender) {
        // SAFETY: the entry of a map of words; of one that is overwritten meanwhile either value will do.
        let since = unsafe { since.read_volatile() };
        if now - since < SENDER_NS {
            return Ok(());
        }
    }
    charge(budget::SENDERS, v6, config)?;
    // What is not remembered costs again.
    let _ = SENDERS.insert(sender, &now, 0);
    Ok(())
}

/// Takes one frame out of a budget that has one more every so often, and says whether there was one. (All CPUs have the
/// same: by as many queues as there are nobody gets more.) The word is an aligned one of an entry of a map, which the kernel
/// keeps at least as long as the program runs.
#[inline(always)]
fn spend(spent: *mut u64, interval: u64) -> bool {
    // SAFETY: it reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // Whom others overtake this often is in a flood.
    for _ in 0..4 {
        // SAFETY: as the argument says; it is written by the exchange below only.
        let before = unsafe { spent.read_volatile() };
        let from = if before > now { before } else { now };
        if from - now > BUDGET_NS {
            break;
        }
        // SAFETY: the same. (By the intrinsic, as core has the method only for targets that can do all of its kind.)
        let (_, exchanged) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(
                spent,
                before,
                from + interval,
            )
        };
        if exchanged {
            return true;
        }
    }
    false
}
