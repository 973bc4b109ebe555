//! What a test packet carries.

use crate::error::LabError;

/// A pattern given by the caller, best random: known plaintext to look for in captures.
pub type Marker = [u8; 8];

/// Bytes of a payload's header: marker, flow, sequence number, time.
pub const HEADER: usize = 28;

/// The header of a test packet. Integers are in network order; the rest of the packet repeats the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    /// Bytes 0-7.
    pub marker: Marker,
    /// Bytes 8-11: which flow.
    pub flow: u32,
    /// Bytes 12-19: number in its flow, from 0.
    pub seq: u64,
    /// Bytes 20-27: when it was sent, nanoseconds of `CLOCK_MONOTONIC` ([`now_ns`](super::now_ns)).
    pub sent_ns: u64,
}

impl Payload {
    /// Fills all of `buf`.
    ///
    /// # Errors
    /// [`LabError::Invalid`] when `buf` is shorter than [`HEADER`].
    pub fn write(&self, buf: &mut [u8]) -> Result<(), LabError> {
        self.write_header(buf)?;
        let fill = self.marker.iter().cycle();
        buf[HEADER..]
            .iter_mut()
            .zip(fill)
            .for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Fills the header only, for a `buf` that was [written](Payload::write) before with the same marker.
    ///
    /// # Errors
    /// [`LabError::Invalid`] when `buf` is shorter than [`HEADER`].
    pub fn write_header(&self, buf: &mut [u8]) -> Result<(), LabError> {
        let len = buf.len();
        let Some(head) = buf.first_chunk_mut::<HEADER>() else {
            return Err(LabError::Invalid {
                what: "payload size",
                value: len.to_string(),
                fix: "use 28 bytes or more",
            });
        };
        head[..8].copy_from_slice(&self.marker);
        head[8..12].copy_from_slice(&self.flow.to_be_bytes());
        head[12..20].copy_from_slice(&self.seq.to_be_bytes());
        head[20..].copy_from_slice(&self.sent_ns.to_be_bytes());
        Ok(())
    }

    /// Reads a header; none when `buf` is too short or carries another marker.
    pub fn parse(marker: &Marker, buf: &[u8]) -> Option<Payload> {
        let (found, rest) = buf.split_first_chunk::<8>()?;
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let sent_ns = rest.first_chunk::<8>()?;
        (found == marker).then(|| Payload {
            marker: *found,
            flow: u32::from_be_bytes(*flow),
            seq: u64::from_be_bytes(*seq),
            sent_ns: u64::from_be_bytes(*sent_ns),
        })
    }

    /// Whether the fill of `buf`, from which this was parsed, is as it was written.
    pub fn is_intact(&self, buf: &[u8]) -> bool {
        let (chunks, rest) = buf.get(HEADER..).unwrap_or_default().as_chunks::<8>();
        let marker = u64::from_ne_bytes(self.marker);
        // Without a branch a chunk, so that it is done many chunks at a time.
        let differences = chunks
            .iter()
            .fold(0, |all, chunk| all | (u64::from_ne_bytes(*chunk) ^ marker));
        differences == 0 && rest == &self.marker[..rest.len()]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(marker: Marker, flow: u32, seq: u64, sent_ns: u64, len in HEADER..200) {
            let payload = Payload { marker, flow, seq, sent_ns };
            let mut buf = vec![0; len];
            payload.write(&mut buf).expect("long enough");
            prop_assert_eq!(Payload::parse(&marker, &buf), Some(payload));
            prop_assert!(payload.is_intact(&buf));
        }

        #[test]
        fn any_change_of_the_fill_shows(len in HEADER + 1..200, at: prop::sample::Index, bit in 0u32..8) {
            let payload = Payload { marker: *b"markmark", flow: 1, seq: 2, sent_ns: 3 };
            let mut buf = vec![0; len];
            payload.write(&mut buf).expect("long enough");
            buf[HEADER + at.index(len - HEADER)] ^= 1u8 << bit;
            prop_assert!(!payload.is_intact(&buf));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, marker: Marker) {
            if let Some(payload) = Payload::parse(&marker, &bytes) {
                payload.is_intact(&bytes);
            }
        }
    }

    #[test]
    fn the_layout_is_fixed() {
        let payload = Payload {
            marker: *b"ABCDEFGH",
            flow: 0x0102_0304,
            seq: 5,
            sent_ns: 6,
        };
        let mut buf = [0; 31];
        payload.write(&mut buf).expect("long enough");
        let expected = b"ABCDEFGH\x01\x02\x03\x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06ABC";
        assert_eq!(&buf, expected);
        assert!(payload.write(&mut [0; 27]).is_err());
        assert_eq!(Payload::parse(b"ABCDEFGX", &buf), None);
    }
}
