//! Events: what happens to the node, told in numbered order to whoever watches and to a file.
//!
//! ```text
//! health, changes, usage, guard -> Events (ring) -> Reader -> Watch
//!                                                \-> file (JSON lines)
//! ```

pub mod changes;
mod fault;
pub mod file;
mod ring;
pub mod security;

use twinseal_api::v1::{self, event::Event as Body};

pub use fault::FaultKind;
pub use ring::{Events, Log, Reader, Start};
pub use twinseal_api::v1::EventKind;
use twinseal_model::items::key_ref;
use twinseal_model::state::KeyId;

/// How many events are kept unless the configuration says otherwise.
pub const DEFAULT_RING: usize = 16384;

impl Events {
    /// Tells of a key.
    pub fn key(&self, id: &KeyId, change: v1::KeyChange) {
        self.limit(id, change, "");
    }

    /// Tells of a key by one of its limits.
    pub fn limit(&self, id: &KeyId, change: v1::KeyChange, limit: &str) {
        let kind = match change {
            v1::KeyChange::NearlyExhausted | v1::KeyChange::Exhausted => EventKind::Fault,
            _ => EventKind::Security,
        };
        let body = v1::KeyEvent {
            key: Some(key_ref(id)),
            change: change.into(),
            limit: limit.to_owned(),
        };
        self.emit(kind, Body::Key(body));
    }

    /// Tells that something is wrong with the node itself.
    pub fn fault(&self, kind: FaultKind, detail: String) {
        let body = v1::FaultEvent {
            kind: kind.as_str().to_owned(),
            detail,
        };
        self.emit(EventKind::Fault, Body::Fault(body));
    }
}
