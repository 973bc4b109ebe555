//! The XDP steering program: hands our frames to AF_XDP, everything else to the kernel, and counts what it did.
//!
//! It never drops and never changes a frame, so that whatever goes wrong here, the host still hears.

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
    Config, EndpointKey, LocalKey, MAX_ENDPOINTS, MAX_LOCAL_ADDRESSES, MAX_QUEUES, Verdict,
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

/// Our UDP endpoints (underlay).
#[map]
static ENDPOINTS: HashMap<EndpointKey, u8> =
    HashMap::with_max_entries(MAX_ENDPOINTS, BPF_F_NO_PREALLOC);

/// Frames a verdict.
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::COUNT as u32, 0);

/// `frags`: frames larger than a page may come, as on jumbo ports; headers are always in their first part.
#[xdp(frags)]
pub fn twinseal(context: XdpContext) -> u32 {
    let frame = packet::Frame::new(&context);
    let (action, verdict) = match CONFIG.get(0) {
        None => (xdp_action::XDP_PASS, Verdict::PassUnconfigured),
        Some(config) => match classify::classify(&frame, config) {
            Err(pass) => (xdp_action::XDP_PASS, pass),
            // Without a socket on this queue the helper returns the flags: pass.
            Ok(()) => match XSKS.redirect(context.rx_queue_index(), xdp_action::XDP_PASS.into()) {
                Ok(action) => (action, Verdict::Redirected),
                Err(action) => (action, Verdict::NoSocket),
            },
        },
    };
    count(verdict);
    action
}

#[inline(always)]
fn is_local(address: &LocalKey) -> bool {
    LOCAL.get_ptr(address).is_some()
}

#[inline(always)]
fn is_endpoint(endpoint: &EndpointKey) -> bool {
    ENDPOINTS.get_ptr(endpoint).is_some()
}

#[inline(always)]
fn count(verdict: Verdict) {
    if let Some(counter) = COUNTERS.get_ptr_mut(verdict as u32) {
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
