//! That a thing is missing which tables shall point at. A checked state with all its ports open has none, so it is a fault
//! of the node, and says which thing it was.

use twinseal_model::parse::ItemKey;

/// What tables were to point at, and is not there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is pointed at and not there")]
pub(crate) struct Missing(pub ItemKey);

pub(super) trait OrMissing<T> {
    /// What is there, or that `item` is missing.
    fn or_missing(self, item: impl FnOnce() -> ItemKey) -> Result<T, Missing>;
}

impl<T> OrMissing<T> for Option<T> {
    fn or_missing(self, item: impl FnOnce() -> ItemKey) -> Result<T, Missing> {
        self.ok_or_else(|| Missing(item()))
    }
}
