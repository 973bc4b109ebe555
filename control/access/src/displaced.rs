//! What is said when a connection ends because its place was needed: to its client, and in the log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::scrub::Frames;

/// A client's lines in the log are so far apart.
const PERIOD: Duration = Duration::from_secs(60);
/// Clients that are remembered.
const REMEMBERED: usize = 256;
/// What the client is told.
const WHY: &str = "this connection was silent longest, and its place was needed: use one for many requests, or raise \
                   control.limits.client_connections";
/// HTTP/2's GOAWAY frame, type 7, its code ENHANCE_YOUR_CALM, and the highest number of a stream: which of them were begun
/// is not known here.
const GOAWAY: u8 = 7;
const CODE: u32 = 0xb;
const LAST_STREAM: u32 = 0x7fff_ffff;

/// What was sent on a connection, for a last frame to have its place.
pub(super) struct Sent {
    frames: Frames,
    begun: bool,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            frames: Frames::of_server(),
            begun: false,
        }
    }
}

impl Sent {
    /// These bytes were.
    pub(super) fn pass(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        self.frames.pass(bytes);
    }

    /// The frame that says why the connection ends, if there may be one here; once. In the middle of another frame it would
    /// be taken for a part of that.
    pub(super) fn last(&mut self) -> Option<Vec<u8>> {
        if !std::mem::take(&mut self.begun) || !self.frames.is_between() {
            return None;
        }
        let [_, length @ ..] = (8 + WHY.len() as u32).to_be_bytes();
        let mut frame = length.to_vec();
        frame.extend([GOAWAY, 0, 0, 0, 0, 0]);
        frame.extend(LAST_STREAM.to_be_bytes());
        frame.extend(CODE.to_be_bytes());
        frame.extend(WHY.as_bytes());
        Some(frame)
    }
}

/// Lets a line a minute into the log for each client.
#[derive(Default)]
pub(super) struct Lines(HashMap<String, (Instant, u64)>);

impl Lines {
    /// A connection of this client ended. How many have since its last line, if it is time for one.
    pub(super) fn note(&mut self, now: Instant, client: &str) -> Option<u64> {
        if let Some((at, count)) = self.0.get_mut(client) {
            *count += 1;
            if now.duration_since(*at) < PERIOD {
                return None;
            }
            *at = now;
            return Some(std::mem::take(count));
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, (at, _)| now.duration_since(*at) < PERIOD);
        }
        if self.0.len() >= REMEMBERED {
            return None;
        }
        self.0.insert(client.to_owned(), (now, 0));
        Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_frame_has_its_place_between_others() {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let mut sent = Sent::default();
        assert_eq!(sent.last(), None, "before the first");
        sent.pass(&settings[..5]);
        assert_eq!(sent.last(), None, "within one");
        let mut sent = Sent::default();
        sent.pass(&settings);
        let frame = sent.last().expect("between two");
        assert_eq!(frame[..4], [0, 0, 8 + WHY.len() as u8, 7]);
        assert_eq!(&frame[17..], WHY.as_bytes());
        assert_eq!(sent.last(), None, "once");
    }

    #[test]
    fn a_client_has_a_line_a_minute() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        assert_eq!(lines.note(now, "a"), Some(1));
        assert_eq!(lines.note(now, "a"), None);
        assert_eq!(lines.note(now, "b"), Some(1));
        assert_eq!(lines.note(now + PERIOD, "a"), Some(2));
        let many = (0..2 * REMEMBERED).filter(|n| lines.note(now, &n.to_string()).is_some());
        assert_eq!(many.count(), REMEMBERED - 2);
        assert_eq!(lines.note(now + 2 * PERIOD, "new"), Some(1));
    }
}
