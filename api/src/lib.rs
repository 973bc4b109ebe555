//! The control protocol of Twinseal: what is generated of it, and a [`client`] for controllers.
//!
//! The protocol itself, with the meaning of every field, is `proto/twinseal/v1/control.proto`; controllers in other
//! languages generate their client from that file.

#![forbid(unsafe_code)]

pub mod client;
pub mod errors;

/// Version 1 of the protocol.
#[allow(missing_docs, clippy::all, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("twinseal.v1");
}

/// The protocol as an encoded `google.protobuf.FileDescriptorSet`: for reflection, and for what builds clients from it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.binpb"));

impl std::fmt::Debug for v1::Key {
    /// All but the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("owner", &self.owner)
            .field("direction", &self.direction())
            .field("epoch", &self.epoch)
            .field("suite", &self.suite())
            .field("receiver_index", &self.receiver_index)
            .field("fingerprint", &self.fingerprint)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::v1;

    #[test]
    fn debug_of_a_key_shows_no_secret() {
        let key = v1::Key {
            epoch: 7,
            secret: vec![0xab; 32],
            ..Default::default()
        };
        let item = v1::Item {
            item: Some(v1::item::Item::Key(key)),
            ..Default::default()
        };
        let shown = format!("{item:?}");
        assert!(shown.contains("epoch: 7"), "{shown}");
        assert!(
            !shown.contains("171") && !shown.contains("secret"),
            "{shown}"
        );
    }
}
