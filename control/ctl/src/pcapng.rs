//! Captured frames as a pcapng file (draft-ietf-opsawg-pcapng): one section, one interface, its frames, and at the end
//! how many are missing.

use std::io::{self, Write};

use twinseal_api::v1;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const ETHERNET: u16 = 1;
// Options.
const END: u16 = 0;
const USER_APPLICATION: u16 = 4;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;
const DROPPED: u16 = 5;

/// Writes one.
pub(super) struct File<W>(W);

impl<W: Write> File<W> {
    /// Begins; `port` names the interface.
    pub(super) fn begin(out: W, port: &str, snap_length: u32) -> io::Result<Self> {
        let mut file = Self(out);
        let mut body = Vec::new();
        // The byte order's mark, version 1.0, and a length that is not known.
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(u64::MAX.to_le_bytes());
        let program = concat!("twinseal ", env!("CARGO_PKG_VERSION"));
        option(&mut body, USER_APPLICATION, program.as_bytes());
        option(&mut body, END, &[]);
        file.block(SECTION, &body)?;
        body.clear();
        body.extend(ETHERNET.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(snap_length.to_le_bytes());
        option(&mut body, NAME, port.as_bytes());
        // Times are in nanoseconds.
        option(&mut body, RESOLUTION, &[9]);
        option(&mut body, END, &[]);
        file.block(INTERFACE, &body)?;
        Ok(file)
    }

    /// Adds a frame.
    pub(super) fn frame(&mut self, frame: &v1::CapturedFrame) -> io::Result<()> {
        let mut body = Vec::with_capacity(frame.octets.len() + 48);
        body.extend(0u32.to_le_bytes());
        time(&mut body, frame.unix_nanos);
        body.extend((frame.octets.len() as u32).to_le_bytes());
        body.extend(frame.length.to_le_bytes());
        body.extend(&frame.octets);
        pad(&mut body);
        let flags: u32 = match frame.direction() {
            v1::CaptureDirection::In => 1,
            v1::CaptureDirection::Out => 2,
            v1::CaptureDirection::Both => 0,
        };
        option(&mut body, FLAGS, &flags.to_le_bytes());
        option(&mut body, END, &[]);
        self.block(PACKET, &body)
    }

    /// Says how many frames are missing, and ends.
    pub(super) fn end(&mut self, unix_nanos: u64, lost: u64) -> io::Result<()> {
        let mut body = Vec::new();
        body.extend(0u32.to_le_bytes());
        time(&mut body, unix_nanos);
        option(&mut body, DROPPED, &lost.to_le_bytes());
        option(&mut body, END, &[]);
        self.block(STATISTICS, &body)?;
        self.flush()
    }

    /// Has all written so far leave.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = (body.len() as u32 + 12).to_le_bytes();
        self.0.write_all(&kind.to_le_bytes())?;
        self.0.write_all(&length)?;
        self.0.write_all(body)?;
        self.0.write_all(&length)
    }
}

fn time(body: &mut Vec<u8>, unix_nanos: u64) {
    body.extend(((unix_nanos >> 32) as u32).to_le_bytes());
    body.extend((unix_nanos as u32).to_le_bytes());
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_their_lengths_at_both_ends_and_frames_come_back() {
        let mut octets = Vec::new();
        let frame = v1::CapturedFrame {
            unix_nanos: 1_795_185_600_123_456_789,
            direction: v1::CaptureDirection::Out.into(),
            length: 1500,
            octets: (0..61).collect(),
            worker: 0,
        };
        let mut file = File::begin(&mut octets, "wan", 96).expect("memory");
        file.frame(&frame).expect("memory");
        file.end(7, 3).expect("memory");
        let word =
            |at: usize| u32::from_le_bytes(octets[at..at + 4].try_into().expect("four octets"));
        let (mut at, mut kinds) = (0, Vec::new());
        while at < octets.len() {
            let length = word(at + 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(at + length - 4) as usize, length);
            kinds.push((word(at), at));
            at += length;
        }
        let [section, interface, packet, statistics] = kinds[..] else {
            panic!("{kinds:?}");
        };
        assert_eq!(
            (section.0, interface.0, packet.0, statistics.0),
            (SECTION, INTERFACE, PACKET, STATISTICS)
        );
        let at = packet.1 + 8;
        let when = u64::from(word(at + 4)) << 32 | u64::from(word(at + 8));
        assert_eq!(when, frame.unix_nanos);
        assert_eq!((word(at + 12), word(at + 16)), (61, 1500));
        assert_eq!(octets[at + 20..at + 81], frame.octets);
        assert_eq!(word(at + 88), 2, "outbound");
    }
}
