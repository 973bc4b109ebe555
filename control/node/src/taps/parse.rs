//! Filters and addresses of requests.

use std::net::IpAddr;

use twinseal_api::v1;

use twinseal_model::refusal::{Code, Refused};
use twinseal_model::state::Prefix;
use twinseal_runtime::workers::taps::{Filter, Net};

/// A filter; all that is wrong with it goes to `refused`.
pub(super) fn filter(
    filter: Option<&v1::PacketFilter>,
    item: &str,
    refused: &mut Refused,
) -> Filter {
    let Some(it) = filter else {
        return Filter::default();
    };
    let mut net = |field: &str, text: &str| {
        if text.is_empty() {
            return None;
        }
        let net = self::net(text);
        if net.is_none() {
            let why = format!("{text:?} is neither an address nor a prefix");
            let fix = "write it like 192.0.2.1, 10.0.0.0/8 or 2001:db8::/32";
            refused.append(Refused::about(item, Code::Invalid, field, why, fix));
        }
        net
    };
    let (source, destination) = (
        net("filter.source", &it.source),
        net("filter.destination", &it.destination),
    );
    if let (Some(source), Some(destination)) = (source, destination)
        && source.address.is_ipv4() != destination.address.is_ipv4()
    {
        let why = "source and destination are of two families".to_owned();
        let fix = "no packet has both: give addresses of one family";
        refused.append(Refused::about(item, Code::Invalid, "filter", why, fix));
    }
    Filter {
        source,
        destination,
        protocol: number(it.protocol, "filter.protocol", item, refused),
        source_port: number(it.source_port, "filter.source_port", item, refused),
        destination_port: number(
            it.destination_port,
            "filter.destination_port",
            item,
            refused,
        ),
    }
}

fn net(text: &str) -> Option<Net> {
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let len = len.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
    let prefix = Prefix::new(address, len)?;
    Some(Net {
        address: prefix.address(),
        len,
    })
}

/// A number that fits.
pub(super) fn number<N: TryFrom<u32>>(
    value: Option<u32>,
    field: &str,
    item: &str,
    refused: &mut Refused,
) -> Option<N> {
    let value = value?;
    let number = N::try_from(value).ok();
    if number.is_none() {
        let most = (1u64 << (8 * size_of::<N>())) - 1;
        let why = format!("{value} is more than {most}");
        refused.append(Refused::about(
            item,
            Code::Invalid,
            field,
            why,
            "give a smaller one",
        ));
    }
    number
}

/// An address.
pub(super) fn address(
    text: &str,
    field: &str,
    item: &str,
    refused: &mut Refused,
) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        let why = format!("{text:?} is not an IP address");
        let fix = "write it like 192.0.2.1 or 2001:db8::1";
        refused.append(Refused::about(item, Code::Invalid, field, why, fix));
    }
    address
}

/// Which way.
pub(super) fn direction(number: i32, refused: &mut Refused) -> v1::CaptureDirection {
    v1::CaptureDirection::try_from(number).unwrap_or_else(|_| {
        let why = format!("{number} is no direction");
        let fix = "give both, in or out";
        refused.append(Refused::about(
            "capture",
            Code::Invalid,
            "direction",
            why,
            fix,
        ));
        v1::CaptureDirection::Both
    })
}
