//! Wipes what a connection's receive buffer still has of requests that were read: HTTP/2's library reads into one buffer
//! as long as the connection lasts, and what is in it lies there until something else is read over it.
//!
//! So something else is read: frames of a type that nobody knows, which are ignored (RFC 9113, section 5.5), slipped in
//! between two of the client's. (A TLS connection's library has a buffer of its own below; that one is out of reach.)

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::task::Context;

use futures::task::AtomicWaker;
use tokio::io::ReadBuf;

/// Bytes before a frame's payload: its length in three, type, flags, and its stream in four.
const HEADER: usize = 9;
/// What a client says before its first frame.
const PREFACE: usize = 24;
/// Of the frame types that carry a part of a header block, the flag that it is the last part.
const END_HEADERS: u8 = 4;
/// The header of a padding frame: 16384 bytes, which all implementations take, of type 0xfa.
const PADDING: [u8; HEADER] = [0, 0x40, 0, 0xfa, 0, 0, 0, 0, 0];
/// Bytes of one.
const FRAME: usize = HEADER + (16 << 10);
/// So many are several times what the buffer can have.
const FRAMES: usize = 16;

/// Asks for it.
#[derive(Default)]
pub(crate) struct Scrub {
    asked: AtomicBool,
    reader: AtomicWaker,
}

impl Scrub {
    /// What came before this is not to stay.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Release);
        self.reader.wake();
    }
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrub")
    }
}

/// Follows the frames of one direction.
pub(super) struct Frames {
    /// Bytes of the preface or of a payload until the next frame.
    left: usize,
    header: [u8; HEADER],
    /// Bytes of it that have come.
    come: usize,
    /// A header block has begun, and only its other parts may follow.
    in_headers: bool,
    /// Bytes of padding that are still to be read.
    padding: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            left: PREFACE,
            header: [0; HEADER],
            come: 0,
            in_headers: false,
            padding: 0,
        }
    }
}

impl Frames {
    /// Of what a server sends: it has no preface but its first frame.
    pub(super) fn of_server() -> Self {
        Self {
            left: 0,
            ..Self::default()
        }
    }

    /// Whether another frame may begin here.
    pub(super) fn is_between(&self) -> bool {
        self.left == 0 && self.come == 0 && !self.in_headers
    }

    /// Gives padding to the reader if it was asked for and has its place here.
    pub(crate) fn pad(
        &mut self,
        scrub: &Scrub,
        cx: &Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> bool {
        let between = self.is_between();
        if self.padding == 0 {
            // Before it is looked at: nobody who asks then is missed.
            scrub.reader.register(cx.waker());
            if between && scrub.asked.swap(false, AcqRel) {
                self.padding = FRAMES * FRAME;
            }
        }
        let filled = buffer.filled().len();
        while self.padding > 0 && buffer.remaining() > 0 {
            let at = (FRAMES * FRAME - self.padding) % FRAME;
            let piece = match PADDING.get(at..).filter(|header| !header.is_empty()) {
                Some(header) => &header[..header.len().min(buffer.remaining())],
                None => &ZEROES[..(FRAME - at).min(buffer.remaining())],
            };
            buffer.put_slice(piece);
            self.padding -= piece.len();
        }
        buffer.filled().len() > filled
    }

    /// What was sent.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= payload.len();
            let (header, rest) = rest.split_at((HEADER - self.come).min(rest.len()));
            self.header[self.come..self.come + header.len()].copy_from_slice(header);
            self.come += header.len();
            bytes = rest;
            if self.come == HEADER {
                self.come = 0;
                let [a, b, c, kind, flags, ..] = self.header;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                // HEADERS, PUSH_PROMISE, CONTINUATION.
                if matches!(kind, 1 | 5 | 9) {
                    self.in_headers = flags & END_HEADERS == 0;
                }
            }
        }
    }
}

static ZEROES: [u8; FRAME] = [0; FRAME];

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, kind: u8, flags: u8) -> Vec<u8> {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let mut frame = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![0xee; length]);
        frame
    }

    /// All that a reader gets, which reads by so many bytes and asks at every one.
    fn padded(frames: &mut Frames, scrub: &Scrub, size: usize) -> Vec<u8> {
        let cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        loop {
            let mut memory = vec![0xcc; size];
            let mut buffer = ReadBuf::new(&mut memory);
            if !frames.pad(scrub, &cx, &mut buffer) {
                return all;
            }
            all.extend(buffer.filled());
        }
    }

    #[test]
    fn padding_comes_whole_and_only_between_frames() {
        let mut stream = vec![b'x'; PREFACE];
        let mut ends = vec![stream.len()];
        for (length, kind, flags, ends_there) in [
            (0, 4, 0, true),
            (20, 1, 0, false),
            (3, 9, 0, false),
            (5, 9, END_HEADERS, true),
            (70_000, 0, 1, true),
            (4, 1, END_HEADERS | 1, true),
        ] {
            stream.extend(frame(length, kind, flags));
            if ends_there {
                ends.push(stream.len());
            }
        }
        for size in [1, 7, 9, 4096, 100_000] {
            let (mut frames, scrub) = (Frames::default(), Scrub::default());
            let mut at = 0;
            for piece in stream.chunks(size) {
                frames.pass(piece);
                at += piece.len();
                scrub.ask();
                let padding = padded(&mut frames, &scrub, 5000);
                assert_eq!(!padding.is_empty(), ends.contains(&at), "at {at} of {size}");
                if !padding.is_empty() {
                    assert_eq!(padding.len(), FRAMES * FRAME);
                    for frame in padding.chunks(FRAME) {
                        assert_eq!(frame[..HEADER], PADDING);
                        assert!(frame[HEADER..].iter().all(|byte| *byte == 0));
                    }
                }
                assert!(padded(&mut frames, &scrub, 5000).is_empty(), "once");
            }
        }
    }
}
