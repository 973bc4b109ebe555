//! The XDP steering program: hands our frames to AF_XDP, everything else to the kernel, and counts what it did.
//!
//! It changes no frame. It drops none but on owned ports and, on edge ports, those that would fill the kernel's table of
//! neighbours, ask it without end or be another frame to it than to us; so whatever else goes wrong here, the host still hears.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(
    internal_features,
    reason = "the compiler is one that takes it, and core has no other exchange for this target"
)]

mod classify;
mod kernel;
#[allow(dead_code, reason = "the loader uses the rest")]
#[path = "../../src/layout.rs"]
mod layout;
mod packet;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, xdp_action};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;

use layout::{
    Config, EndpointKey, HostKey, HostSpent, LocalKey, MAX_ENDPOINTS, MAX_KNOWN,
    MAX_LOCAL_ADDRESSES, MAX_MACS, MAX_QUEUES, MAX_SENDERS, MacKey, Verdict, budget, mac_key, role,
};

/// This port's role; one entry.
#[map]
static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// The AF_XDP socket of each receive queue.
#[map]
static XSKS: XskMap = XskMap::with_max_entries(MAX_QUEUES, 0);

/// The host's own addresses (edge).
#[map]
static LOCAL: HashMap<LocalKey, u8> =
    HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, BPF_F_NO_PREALLOC);

/// The broadcast addresses of the host's subnets on the device (edge).
#[map]
static BROADCASTS: HashMap<LocalKey, u8> =
    HashMap::with_max_entries(MAX_LOCAL_ADDRESSES, BPF_F_NO_PREALLOC);

/// The device's MAC addresses besides its own (edge).
#[map]
static MACS: HashMap<MacKey, u8> = HashMap::with_max_entries(MAX_MACS, BPF_F_NO_PREALLOC);

/// Our UDP endpoints (underlay).
#[map]
static ENDPOINTS: HashMap<EndpointKey, u8> =
    HashMap::with_max_entries(MAX_ENDPOINTS, BPF_F_NO_PREALLOC);

/// Up to when each budget of each family is spent (edge).
#[map]
static BUDGETS: Array<u64> = Array::with_max_entries(2 * budget::COUNT, 0);

/// The hosts that the kernel knows as neighbours on this device, and what they have spent (edge).
#[map]
static KNOWN: HashMap<HostKey, HostSpent> = HashMap::with_max_entries(MAX_KNOWN, BPF_F_NO_PREALLOC);

/// When a packet of a sender was last let through at the cost of a budget (edge).
#[map]
static SENDERS: LruHashMap<LocalKey, u64> = LruHashMap::with_max_entries(MAX_SENDERS, 0);

/// Frames a verdict, and behind them those that were dropped for it.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(2 * Verdict::COUNT as u32, 0);

/// `frags`: frames larger than a page may come, as on jumbo ports; headers are always in their first part.
#[xdp(frags)]
pub fn twinseal(context: XdpContext) -> u32 {
    let frame = packet::Frame::new(&context);
    let Some(config) = CONFIG.get(0) else {
        count(Verdict::PassUnconfigured as u32);
        return xdp_action::XDP_PASS;
    };
    let (action, verdict) = match classify::classify(&frame, config) {
        Err(verdict) if config.role == role::EDGE => match kernel::admit(&frame, config, verdict) {
            Ok(()) => (xdp_action::XDP_PASS, verdict),
            Err(why) => (xdp_action::XDP_DROP, why),
        },
        Err(verdict) => (xdp_action::XDP_PASS, verdict),
        // Without a socket on this queue the helper returns the flags.
        Ok(()) => {
            let without = match config.owned {
                0 => xdp_action::XDP_PASS,
                _ => xdp_action::XDP_DROP,
            };
            match XSKS.redirect(context.rx_queue_index(), without.into()) {
                Ok(action) => (action, Verdict::Redirected),
                Err(action) => (action, Verdict::NoSocket),
            }
        }
    };
    match action {
        xdp_action::XDP_DROP => count(verdict as u32 + Verdict::COUNT as u32),
        _ => count(verdict as u32),
    }
    action
}

#[inline(always)]
fn is_local(address: &LocalKey) -> bool {
    LOCAL.get_ptr(address).is_some()
}

#[inline(always)]
fn is_broadcast(address: &LocalKey) -> bool {
    BROADCASTS.get_ptr(address).is_some()
}

#[inline(always)]
fn is_own_mac(mac: [u8; 6]) -> bool {
    MACS.get_ptr(&mac_key(mac)).is_some()
}

#[inline(always)]
fn is_endpoint(endpoint: &EndpointKey) -> bool {
    ENDPOINTS.get_ptr(endpoint).is_some()
}

#[inline(always)]
fn count(counter: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the entry is this CPU's own, and XDP runs to its end on a CPU before another XDP program runs there.
        unsafe { *counter = (*counter).wrapping_add(1) };
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Not reached: the verifier would refuse a program that can loop here.
    loop {}
}

// The kernel reads this to decide about GPL-only helpers; we use none.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 18] = *b"Apache-2.0 OR MIT\0";
