//! Test frames: written in a few stores, and looked at when they come. Pure.

use twinseal_lab::LabError;
use twinseal_lab::frame::{ETHERNET, UdpFrame, checksum};
use twinseal_lab::traffic::{HEADER, Marker, Payload};

const UDP: usize = 8;
const PROTOCOL_UDP: u8 = 17;
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// Octets of the IP and UDP headers before a payload.
pub fn headers(v6: bool) -> usize {
    UDP + if v6 { 40 } else { 20 }
}

/// The shortest IP packet that can carry a test payload, in octets.
pub fn min_octets(v6: bool) -> usize {
    headers(v6) + HEADER
}

/// What all frames of one size have in common.
#[derive(Debug)]
pub(super) struct Template {
    /// The whole frame of flow 0: source port, payload header and UDP checksum are zero in it.
    frame: Vec<u8>,
    payload_at: usize,
    /// Sum of all that the UDP checksum is over, as far as it is the same in all frames.
    sum: u32,
}

impl Template {
    /// Of frames with a UDP payload of so many bytes.
    pub(super) fn new(udp: &UdpFrame, marker: Marker, payload: usize) -> Result<Self, LabError> {
        let udp = UdpFrame {
            src_port: 0,
            ..*udp
        };
        let payload_at = udp.payload_offset();
        let mut frame = Vec::new();
        udp.write(payload, &mut frame);
        let empty = Payload {
            marker,
            flow: 0,
            seq: 0,
            sent_ns: 0,
        };
        empty.write(&mut frame[payload_at..])?;
        frame[payload_at..payload_at + HEADER].fill(0);
        let sum = !checksum(
            u32::from(PROTOCOL_UDP) + (UDP + payload) as u32,
            &frame[pseudo(payload_at)..],
        );
        Ok(Self {
            frame,
            payload_at,
            sum: sum.into(),
        })
    }

    /// Bytes of a frame.
    pub(super) fn len(&self) -> usize {
        self.frame.len()
    }

    /// Writes all of a frame but what [`finish`](Self::finish) writes. `frame` is as long as the template.
    pub(super) fn lay_out(&self, frame: &mut [u8]) {
        frame.copy_from_slice(&self.frame);
    }

    /// Completes a frame that was [laid out](Self::lay_out), or finished, before.
    pub(super) fn finish(&self, frame: &mut [u8], src_port: u16, payload: &Payload) {
        let at = self.payload_at;
        // Headers too: whoever had the chunk since may have changed them.
        frame[..at].copy_from_slice(&self.frame[..at]);
        let written = payload.write_header(&mut frame[at..]);
        debug_assert!(written.is_ok(), "a template has room for it");
        let sum = match checksum(self.sum + u32::from(src_port), &frame[at..at + HEADER]) {
            // Zero on the wire would mean "no checksum" (RFC 768).
            0 => 0xffff,
            sum => sum,
        };
        frame[at - UDP..at - UDP + 2].copy_from_slice(&src_port.to_be_bytes());
        frame[at - 2..at].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What a received frame is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// Not a test packet.
    Foreign,
    /// A test packet whose headers do not agree with their checksums.
    Damaged,
    /// A test packet's payload; nobody looked at its fill yet.
    Payload(&'a [u8]),
}

/// Looks at a received frame: UDP over IPv4 without options or over IPv6 without extension headers, as we sent it.
pub(super) fn look<'a>(frame: &'a [u8], marker: &Marker) -> Seen<'a> {
    let Some((payload_at, payload)) = udp_payload(frame) else {
        return Seen::Foreign;
    };
    if payload.len() < HEADER || payload[..marker.len()] != marker[..] {
        return Seen::Foreign;
    }
    let v4 = payload_at == ETHERNET + headers(false);
    if v4 && checksum(0, &frame[ETHERNET..ETHERNET + 20]) != 0 {
        return Seen::Damaged;
    }
    let sent_without = v4 && frame[payload_at - 2..payload_at] == [0, 0];
    let constant =
        u32::from(PROTOCOL_UDP) + (UDP + payload.len()) as u32 + fill_sum(marker, payload.len());
    if !sent_without && checksum(constant, &frame[pseudo(payload_at)..payload_at + HEADER]) != 0 {
        return Seen::Damaged;
    }
    Seen::Payload(payload)
}

/// Where a UDP payload begins in the frame, and its bytes.
fn udp_payload(frame: &[u8]) -> Option<(usize, &[u8])> {
    let ether_type = *frame.get(12..)?.first_chunk::<2>()?;
    let ip = frame.get(ETHERNET..)?;
    let (protocol_at, payload_at) = match (ether_type, ip.first()?) {
        (TYPE_IPV4, 0x45) => (9, ETHERNET + headers(false)),
        (TYPE_IPV6, 0x60..=0x6f) => (6, ETHERNET + headers(true)),
        _ => return None,
    };
    if *ip.get(protocol_at)? != PROTOCOL_UDP {
        return None;
    }
    let len = u16::from_be_bytes(*frame.get(payload_at - 4..)?.first_chunk::<2>()?);
    // By UDP's length: short frames are padded.
    let end = payload_at + usize::from(len).checked_sub(UDP)?;
    Some((payload_at, frame.get(payload_at..end)?))
}

/// Where the addresses begin: with protocol and length they are the pseudo header of the UDP checksum.
fn pseudo(payload_at: usize) -> usize {
    let addresses = if payload_at == ETHERNET + headers(false) {
        8
    } else {
        32
    };
    payload_at - UDP - addresses
}

/// Sum of the 16-bit words of the fill of a payload of `len` bytes.
fn fill_sum(marker: &Marker, len: usize) -> u32 {
    let fill = len - HEADER;
    let whole = !checksum(0, marker);
    let rest = !checksum(0, &marker[..fill % marker.len()]);
    u32::from(whole) * (fill / marker.len()) as u32 + u32::from(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKER: Marker = *b"\xf1ramemrk";

    fn udp(v6: bool) -> UdpFrame {
        let address = |n: u8| match v6 {
            false => [10, 0, 0, n].into(),
            true => [0xfd00, 0, 0, 0, 0, 0, 0, n.into()].into(),
        };
        UdpFrame {
            dst_mac: [2, 0, 0, 0, 0, 2],
            src_mac: [2, 0, 0, 0, 0, 1],
            src: address(1),
            dst: address(2),
            src_port: 9,
            dst_port: 7000,
            ttl: 64,
            traffic_class: 0,
        }
    }

    fn made(v6: bool, len: usize, port: u16, payload: &Payload) -> Vec<u8> {
        let template = Template::new(&udp(v6), MARKER, len).expect("a template");
        let mut frame = vec![0xaa; template.len()];
        template.lay_out(&mut frame);
        template.finish(&mut frame, port, payload);
        frame
    }

    proptest! {
        #[test]
        fn is_what_the_lab_would_write(v6: bool, len in HEADER..300, port: u16, flow: u32, seq: u64, sent_ns: u64) {
            let payload = Payload { marker: MARKER, flow, seq, sent_ns };
            let udp = UdpFrame { src_port: port, ..udp(v6) };
            let mut expected = Vec::new();
            udp.write(len, &mut expected);
            payload.write(&mut expected[udp.payload_offset()..]).expect("long enough");
            udp.seal(&mut expected);
            prop_assert_eq!(made(v6, len, port, &payload), expected);
        }

        #[test]
        fn is_seen_as_it_was_sent_with_or_without_padding(v6: bool, len in HEADER..300, pad in 0usize..20, seq: u64) {
            let payload = Payload { marker: MARKER, flow: 1, seq, sent_ns: 5 };
            let mut frame = made(v6, len, 1000, &payload);
            let at = udp(v6).payload_offset();
            frame.resize(frame.len() + pad, 0);
            prop_assert_eq!(look(&frame, &MARKER), Seen::Payload(&frame[at..at + len]));
            prop_assert_eq!(look(&frame, b"another!"), Seen::Foreign);
        }

        #[test]
        fn any_change_of_addresses_ports_or_numbers_shows(v6: bool, at: prop::sample::Index, bit in 0u32..8) {
            let payload = Payload { marker: MARKER, flow: 1, seq: 2, sent_ns: 3 };
            let mut frame = made(v6, 100, 1000, &payload);
            let from = pseudo(udp(v6).payload_offset());
            let to = udp(v6).payload_offset() + HEADER;
            frame[from + at.index(to - from)] ^= 1u8 << bit;
            prop_assert!(!matches!(look(&frame, &MARKER), Seen::Payload(_)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, marker: Marker) {
            look(&bytes, &marker);
        }
    }

    #[test]
    fn a_payload_too_short_is_refused() {
        assert!(Template::new(&udp(false), MARKER, HEADER - 1).is_err());
    }
}
