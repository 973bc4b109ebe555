//! Operations and maintenance: what nodes ask each other about a link or circuit, inside its seals.

use zerocopy::byteorder::network_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The label of a packet that is the link's own and no circuit's. Controllers give it to none.
pub const LINK_LABEL: u32 = 0;
/// First byte of an echo request: version 1 in the high nibble, type 1 in the low one.
pub const ECHO_REQUEST: u8 = 0x11;
/// First byte of an echo reply.
pub const ECHO_REPLY: u8 = 0x12;

/// An echo request, or the reply to it. Bytes that follow are padding, which a reply repeats.
#[derive(
    FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, PartialEq, Eq, Debug,
)]
#[repr(C)]
pub struct Echo {
    /// [`ECHO_REQUEST`] or [`ECHO_REPLY`].
    pub kind: u8,
    /// Zero; a receiver drops anything else.
    pub flags: u8,
    /// Zero; a receiver drops anything else.
    pub reserved: U16,
    /// Whose request it is at the asking node, which alone knows what it means.
    pub session: U32,
    /// Which request of the session.
    pub sequence: U64,
    /// When it was sent, by a clock of the asking node's alone.
    pub stamp: U64,
}

/// Bytes of an echo message without padding.
pub const ECHO_LEN: usize = size_of::<Echo>();
const _: () = assert!(ECHO_LEN == 24);

impl Echo {
    /// A request that is yet to be stamped.
    pub fn request(session: u32, sequence: u64) -> Self {
        Self {
            kind: ECHO_REQUEST,
            flags: 0,
            reserved: 0.into(),
            session: session.into(),
            sequence: sequence.into(),
            stamp: 0.into(),
        }
    }

    /// As it is sent.
    pub fn bytes(&self) -> [u8; ECHO_LEN] {
        zerocopy::transmute!(*self)
    }

    /// Writes the time into a message, if it is a request.
    pub fn stamp(message: &mut [u8], now: u64) {
        if let Ok((echo, _)) = Self::mut_from_prefix(message)
            && echo.kind == ECHO_REQUEST
        {
            echo.stamp = now.into();
        }
    }

    /// Of a message of a version, type and flags that we speak; its kind is one of the two.
    pub fn of(message: &[u8]) -> Option<Self> {
        let (echo, _) = Self::read_from_prefix(message).ok()?;
        let known = matches!(echo.kind, ECHO_REQUEST | ECHO_REPLY);
        (known && echo.flags == 0 && echo.reserved.get() == 0).then_some(echo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_documented_bytes() {
        let echo = Echo {
            stamp: 0x2122_2324_2526_2728.into(),
            ..Echo::request(0x0102_0304, 0x1112_1314_1516_1718)
        };
        let bytes = [
            0x11, 0, 0, 0, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x21, 0x22,
            0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
        ];
        assert_eq!(echo.bytes(), bytes);
        assert_eq!(Echo::of(&bytes), Some(echo));
        assert_eq!(Echo::of(&bytes[..23]), None, "too short");
        // A version, a type, a flag and a reserved byte that we do not speak.
        for (at, value) in [(0, 0x21), (0, 0x13), (1, 1), (2, 1), (3, 1)] {
            let mut other = bytes;
            other[at] = value;
            assert_eq!(Echo::of(&other), None, "byte {at} is {value}");
        }
    }
}
