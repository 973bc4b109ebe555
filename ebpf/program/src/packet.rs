//! The frame as the program may read it: every access is checked against the frame's end, and the verifier proves it.

use aya_ebpf::programs::XdpContext;

/// A received frame.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    start: usize,
    end: usize,
}

/// Types that any bytes are a value of, at any alignment.
///
/// # Safety
/// The type has alignment 1, no padding and no invalid bit pattern.
pub(crate) unsafe trait Wire: Copy {}

// SAFETY: bytes.
unsafe impl<const N: usize> Wire for [u8; N] {}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self {
            start: context.data(),
            end: context.data_end(),
        }
    }

    /// The header that begins `offset` bytes into the frame, if the whole of it is there.
    #[inline(always)]
    pub(crate) fn at<T: Wire>(&self, offset: usize) -> Option<&T> {
        let start = self.start + offset;
        if start + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: the range lies inside the frame, by the check above, and any bytes are a `T`. The program alone
        // holds the frame while it runs.
        Some(unsafe { &*(start as *const T) })
    }
}

/// Declares headers made of byte fields only, which is what makes them [`Wire`].
macro_rules! headers {
    ($($(#[$doc:meta])* struct $name:ident: $size:literal { $($field:ident: $n:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy)]
            #[repr(C)]
            #[allow(dead_code, reason = "a header is declared whole")]
            pub(crate) struct $name {
                $(pub(crate) $field: [u8; $n],)*
            }

            const _: () = assert!(size_of::<$name>() == $size && align_of::<$name>() == 1);

            // SAFETY: only byte arrays.
            unsafe impl Wire for $name {}
        )*
    };
}

headers! {
    /// IEEE 802.3, without tags.
    struct Ethernet: 14 {
        destination: 6,
        source: 6,
        ether_type: 2,
    }

    /// IEEE 802.1Q: priority and VLAN, and the type of what follows.
    struct Tag: 4 {
        control: 2,
        ether_type: 2,
    }

    /// RFC 826, for Ethernet and IPv4.
    struct Arp: 28 {
        types: 4,
        lengths: 2,
        operation: 2,
        sender_mac: 6,
        sender: 4,
        target_mac: 6,
        target: 4,
    }

    /// RFC 791, without options.
    struct Ipv4: 20 {
        version_ihl: 1,
        tos: 1,
        total_length: 2,
        identification: 2,
        flags_offset: 2,
        ttl: 1,
        protocol: 1,
        checksum: 2,
        source: 4,
        destination: 4,
    }

    /// RFC 8200, section 3.
    struct Ipv6: 40 {
        version_class_flow: 4,
        payload_length: 2,
        next_header: 1,
        hop_limit: 1,
        source: 16,
        destination: 16,
    }

    /// The part that hop-by-hop, routing and destination option headers share (RFC 8200, section 4).
    /// `third` is the routing header's segments left, one byte further.
    struct Extension: 4 {
        next_header: 1,
        length: 1,
        second: 1,
        segments_left: 1,
    }

    /// What neighbour solicitations and advertisements begin with (RFC 4861, 4.3 and 4.4).
    struct Neighbour: 24 {
        type_code: 2,
        checksum: 2,
        flags: 4,
        target: 16,
    }

    /// RFC 768.
    struct Udp: 8 {
        source: 2,
        destination: 2,
        length: 2,
        checksum: 2,
    }
}
