//! The packet path allocates nothing: counted, thread by thread, by the allocator itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use twinseal_xsk::{Frame, Socket};

use crate::bpf::Redirect;
use crate::net::{ifindex, in_namespace, veth};
use crate::packet::packet;
use crate::{FRAMES, config, frame, umem};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: passes every call on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[test]
fn the_packet_path_does_not_allocate() {
    in_namespace(|| {
        veth("a", "b", 1);
        let mut umem = umem();
        let mut from = Socket::open(&umem, "a", 0, &config()).expect("socket");
        let mut to = Socket::open(&umem, "b", 0, &config()).expect("socket");
        let redirects = [
            Redirect::attach(ifindex("a"), 1),
            Redirect::attach(ifindex("b"), 1),
        ];
        redirects[1].insert(0, to.fd());
        let bytes = packet(1, 700);
        let mut batch: Vec<Frame> = Vec::with_capacity(64);
        let mut received = 0;

        let before = ALLOCATIONS.get();
        for _ in 0..200 {
            to.fill(&mut umem, 128);
            while batch.len() < 64 {
                batch.push(frame(&mut umem, &bytes));
            }
            from.transmit(&mut batch);
            from.wake_tx().expect("wake");
            from.complete(&mut umem);
            to.wake_rx().expect("wake");
            received += to.receive(&mut umem, 64, |frame| {
                assert_eq!(frame.data(), bytes);
                // The tx ring has taken all, so there is room.
                batch.push(frame);
            });
            batch.drain(..).for_each(|frame| umem.free(frame));
        }
        assert_eq!(ALLOCATIONS.get(), before);
        assert!(received > 0, "packets did flow");

        from.close(&mut umem);
        to.close(&mut umem);
        assert_eq!(umem.available(), FRAMES as usize);
    });
}
