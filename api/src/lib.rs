//! The control protocol of Twinseal and its generated client and server.
//!
//! The protocol itself, with the meaning of every field, is `proto/twinseal/v1/control.proto`; controllers in other
//! languages generate their client from that file.

/// Version 1 of the protocol.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("twinseal.v1");
}
