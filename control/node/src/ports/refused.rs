//! Errors of ports as reasons of refusals.

use twinseal_model::parse::ItemKey;
use twinseal_model::refusal::{Code, RefusedItem, reason};
use twinseal_model::state::{PortName, State};
use twinseal_model::transaction::Touched;
use twinseal_runtime::ports::PortError;

/// That a port's device cannot be had.
pub(super) fn cannot_open(name: &PortName, touched: &Touched, error: &PortError) -> RefusedItem {
    let item = ItemKey::Port(name.clone());
    let change = touched.get(&item).copied();
    let (why, fix) = split(error);
    let field = match error {
        PortError::NoDevice { .. } | PortError::NoHardwareAddress { .. } => "af_xdp.netdev",
        _ => "device",
    };
    reason(code(error), change, &item, field, why, &fix)
}

/// That a port cannot receive on an endpoint.
pub(super) fn cannot_hold(item: ItemKey, touched: &Touched, error: &PortError) -> RefusedItem {
    let (why, fix) = split(error);
    let change = touched.get(&item).copied();
    reason(code(error), change, &item, "local", why, &fix)
}

/// The link whose endpoint an error is about, or its port.
pub(super) fn link_of(state: &State, port: &PortName, error: &PortError) -> ItemKey {
    let mut links = state.links.iter();
    let link = links.find(|(_, link)| match error {
        PortError::Endpoint { endpoint, .. } => link.port == *port && link.local == *endpoint,
        _ => false,
    });
    link.map_or_else(
        || ItemKey::Port(port.clone()),
        |(name, _)| ItemKey::Link(name.clone()),
    )
}

fn code(error: &PortError) -> Code {
    match error {
        PortError::TooMany | PortError::Memory { .. } => Code::NoRoom,
        _ => Code::Device,
    }
}

/// A port's errors end with what to do; a refusal has a field for that.
fn split(error: &PortError) -> (String, String) {
    let text = error.to_string();
    match text.rsplit_once("; ").or_else(|| text.rsplit_once(": ")) {
        Some((why, fix)) => (why.to_owned(), fix.to_owned()),
        None => (text, String::new()),
    }
}
