//! What all tests on real namespaces begin with.

use twinseal_lab::{IpNet, Lab};

/// A lab, or none and a loud word when this machine cannot have one.
pub(crate) fn lab(prefix: &str) -> Option<Lab> {
    if let Err(e) = Lab::available() {
        eprintln!("SKIPPED: {e}");
        return None;
    }
    Some(Lab::new(prefix).expect("a lab where one is available"))
}

/// An address with its prefix length.
pub(crate) fn net(text: &str) -> IpNet {
    text.parse().expect("an address with a prefix length")
}
