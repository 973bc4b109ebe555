//! A request's body as it comes: no message of it is longer than its sender may send, and what it takes of the node's
//! memory is charged before it is there.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Bytes};

use super::budget::Charge;
use super::scrub::Scrub;

/// Bytes before each message: whether it is compressed, and its length in four (gRPC over HTTP/2).
const PREFIX: usize = 5;

/// The body.
pub(crate) struct Metered {
    body: Body,
    messages: Messages,
    /// Bytes of a message.
    most: usize,
    /// As the refusal says.
    may: String,
    charge: Arc<Mutex<Charge>>,
    /// Of its connection. What breaks off may have had a secret.
    scrub: Arc<Scrub>,
    ended: bool,
}

impl Metered {
    pub(crate) fn new(
        body: Body,
        (most, may): (usize, String),
        charge: Arc<Mutex<Charge>>,
        scrub: Arc<Scrub>,
    ) -> Self {
        Self {
            body,
            messages: Messages::default(),
            most,
            may,
            charge,
            scrub,
            ended: false,
        }
    }

    fn check(&mut self, data: &[u8]) -> Result<(), Status> {
        let mut data = data;
        while let Some(length) = self.messages.next(&mut data) {
            if length > self.most {
                return Err(Status::out_of_range(format!(
                    "a message of {length} bytes: {}",
                    self.may
                )));
            }
            let mut charge = self.charge.lock().unwrap_or_else(PoisonError::into_inner);
            let charged = charge.set(length);
            charged.map_err(|overdrawn| Status::resource_exhausted(overdrawn.to_string()))?;
        }
        Ok(())
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.check(data)
        {
            return Poll::Ready(Some(Err(status)));
        }
        self.ended = frame.is_none() || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if !self.ended {
            self.scrub.ask();
        }
    }
}

/// Finds the messages of a body in its pieces.
#[derive(Default)]
struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of it that have come.
    come: usize,
    /// Bytes of the message that have not.
    left: usize,
}

impl Messages {
    /// Goes on to where the next message begins, and tells its length; `None` at the piece's end.
    fn next(&mut self, data: &mut &[u8]) -> Option<usize> {
        let (message, rest) = data.split_at(self.left.min(data.len()));
        self.left -= message.len();
        *data = rest;
        let wanted = PREFIX - self.come;
        let (prefix, rest) = data.split_at(wanted.min(data.len()));
        self.prefix[self.come..self.come + prefix.len()].copy_from_slice(prefix);
        self.come += prefix.len();
        *data = rest;
        if self.come < PREFIX {
            return None;
        }
        self.come = 0;
        let [_, length @ ..] = self.prefix;
        self.left = u32::from_be_bytes(length) as usize;
        Some(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let mut body = Vec::new();
        let lengths = [3usize, 0, 700, 1];
        for length in lengths {
            body.push(0);
            body.extend((length as u32).to_be_bytes());
            body.extend(vec![0xff; length]);
        }
        for size in 1..=body.len() {
            let mut messages = Messages::default();
            let mut found = Vec::new();
            for mut piece in body.chunks(size) {
                while let Some(length) = messages.next(&mut piece) {
                    found.push(length);
                }
            }
            assert_eq!(found, lengths, "in pieces of {size}");
        }
    }
}
