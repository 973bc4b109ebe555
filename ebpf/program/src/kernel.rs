//! What the kernel gets of an edge port's frames that are not ours.
//!
//! Whoever can make it learn neighbours can fill its table of them, which is one for all devices: so these frames have
//! budgets. On an owned port the kernel gets only what it needs itself.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::classify::{ARP, IPV4, IPV6, ipv4, ipv6, is_link_control, network, upper_layer};
use crate::layout::{
    BUDGET_NS, Config, LocalKey, SENDER_NS, Verdict, budget, is_mapped, v4_key, v6_key,
};
use crate::packet::{Arp, Ethernet, Frame, Neighbour};
use crate::{BUDGETS, SENDERS, is_local, is_own_mac};

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
    if is_link_control(ethernet.destination) {
        return Ok(());
    }
    let Ok((ether_type, start)) = network(frame, ethernet) else {
        return rest;
    };
    let made = match ether_type {
        ARP => arp(frame, start, ethernet, rest)?,
        IPV4 => over_v4(frame, start, rest)?,
        IPV6 => over_v6(frame, start, ethernet, rest)?,
        _ => return rest,
    };
    // The kernel reads no frames to other stations.
    let to = ethernet.destination;
    if to[0] & 1 == 0 && to != config.mac && !is_own_mac(to) {
        return Ok(());
    }
    match made {
        Made::Nobody => Ok(()),
        Made::By(budget) => charge(budget, config),
        Made::Sender(sender) => charge_sender(&sender, config),
    }
}

/// Whom the kernel would learn.
enum Made {
    Nobody,
    /// At the cost of this budget.
    By(u32),
    /// Whom it answers.
    Sender(LocalKey),
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
    match arp.operation {
        REQUEST if own => Ok(Made::By(budget::ASKED)),
        REPLY if ethernet.destination[0] & 1 == 0 => Ok(Made::Nobody),
        REPLY => Ok(Made::By(budget::TOLD)),
        // Of hosts that tell of a new MAC address (RFC 5227).
        REQUEST if arp.sender == arp.target => Ok(Made::By(budget::TOLD)),
        _ => {
            rest?;
            Ok(Made::By(budget::TOLD))
        }
    }
}

#[inline(always)]
fn over_v4(frame: &Frame, start: usize, rest: Result<(), Verdict>) -> Result<Made, Verdict> {
    let Ok((ip, payload)) = ipv4(frame, start) else {
        rest?;
        return Ok(Made::Nobody);
    };
    match ip.destination {
        [224, 0, 0, _] | [255, 255, 255, 255] => {}
        to if is_local(&v4_key(to)) => {}
        _ => rest?,
    }
    // The type is in the first fragment.
    let first = ip.flags_offset[0] & 0x1f == 0 && ip.flags_offset[1] == 0;
    if rest.is_err() && ip.protocol[0] == ICMP && first {
        let message = frame.at::<TypeCode>(payload);
        if message.is_some_and(|it| it[0] == REDIRECT) {
            return Err(Verdict::RouterClaim);
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
        to => {
            let key = v6_key(to);
            if is_mapped(&key) || !is_local(&key) {
                rest?;
            }
        }
    }
    let offset = match upper_layer(frame, start, ip) {
        Ok((ICMPV6, offset)) => offset,
        // The kernel reads no neighbour discovery in fragments (RFC 6980).
        Ok(_) | Err(Verdict::PassFragment) => return Ok(Made::Sender(v6_key(ip.source))),
        // It reads what is behind any number of headers.
        Err(why) => {
            return match rest {
                Ok(()) => Ok(Made::By(budget::TOLD)),
                Err(_) => Err(why),
            };
        }
    };
    let Some(&[kind, _]) = frame.at::<TypeCode>(offset) else {
        return Ok(Made::Sender(v6_key(ip.source)));
    };
    match kind {
        ROUTER_ADVERTISEMENT | REDIRECT_V6 if rest.is_err() => Err(Verdict::RouterClaim),
        ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT | REDIRECT_V6 => Ok(Made::By(budget::TOLD)),
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => {
            let Some(message) = frame.at::<Neighbour>(offset) else {
                return Ok(Made::Nobody);
            };
            let one = ethernet.destination[0] & 1 == 0;
            if kind == NEIGHBOUR_ADVERTISEMENT {
                let answers = one && message.flags[0] & SOLICITED != 0;
                return Ok(match answers {
                    true => Made::Nobody,
                    false => Made::By(budget::TOLD),
                });
            }
            Ok(match is_local(&v6_key(message.target)) {
                true => Made::By(budget::ASKED),
                false => Made::By(budget::TOLD),
            })
        }
        _ => Ok(Made::Sender(v6_key(ip.source))),
    }
}

/// A frame of a budget. (All CPUs have the same: by as many queues as there are nobody gets more.)
#[inline(always)]
fn charge(budget: u32, config: &Config) -> Result<(), Verdict> {
    let interval = match budget {
        _ if config.interval_ns == 0 => return Ok(()),
        budget::ASKED => config.interval_ns,
        _ => 2 * config.interval_ns,
    };
    let Some(spent) = BUDGETS.get_ptr_mut(budget) else {
        return Ok(());
    };
    // SAFETY: it reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // Whom others overtake this often is in a flood.
    for _ in 0..4 {
        // SAFETY: the aligned entry of an array that lives as long as the program; it is written by the exchange below only.
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
            return Ok(());
        }
    }
    Err(Verdict::NeighbourShare)
}

/// A packet of a sender, which costs nothing if one of it was let through a short while ago.
#[inline(always)]
fn charge_sender(sender: &LocalKey, config: &Config) -> Result<(), Verdict> {
    // SAFETY: it reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(since) = SENDERS.get_ptr(sender) {
        // SAFETY: the entry of a map of words; of one that is overwritten meanwhile either value will do.
        let since = unsafe { since.read_volatile() };
        if now - since < SENDER_NS {
            return Ok(());
        }
    }
    charge(budget::SENDERS, config)?;
    // What is not remembered costs again.
    let _ = SENDERS.insert(sender, &now, 0);
    Ok(())
}
