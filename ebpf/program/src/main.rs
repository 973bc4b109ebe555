//! The XDP steering program: hands our frames to AF_XDP, everything else to the kernel, and counts what it did.
//!
//! It changes no frame, and drops none but on owned ports, so that whatever goes wrong here, the host still hears.

#![no_std]
#![no_main]

mod classify;
#[allow(dead_code, reason = "the loader uses the rest")]
#[path = "../../src/layout.rs"]
mod layout;
mod packet;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, xdp_action};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;

use layout::{
    Config, EndpointKey, LocalKey, MAX_ENDPOINTS, MAX_LOCAL_ADDRESSES, MAX_MACS, MAX_QUEUES, MacKey,
    Verdict, mac_key,
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

/// The device's MAC addresses besides its own (edge).
#[map]
static MACS: HashMap<MacKey, u8> = HashMap::with_max_entries(MAX_MACS, BPF_F_NO_PREALLOC);

/// Our UDP endpoints (underlay).
#[map]
static ENDPOINTS: HashMap<EndpointKey, u8> =
    HashMap::with_max_entries(MAX_ENDPOINTS, BPF_F_NO_PREALLOC);

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
        Err(verdict) if config.owned != 0 && !classify::is_for_kernel(&frame, verdict) => {
            (xdp_action::XDP_DROP, verdict)
        }
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
