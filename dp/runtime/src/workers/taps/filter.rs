//! Which packets a tap takes, by their IP headers.

use std::net::IpAddr;

use twinseal_wire::flow_key::FlowKey;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Net {
    /// One of them.
    pub address: IpAddr,
    /// How many bits.
    pub len: u8,
}

impl Net {
    fn has(self, address: IpAddr) -> bool {
        let bits = |address| match address {
            IpAddr::V4(a) => u128::from(a.to_bits()) << 96,
            IpAddr::V6(a) => a.to_bits(),
        };
        let same = bits(self.address) ^ bits(address);
        self.address.is_ipv4() == address.is_ipv4() && same.leading_zeros() >= self.len.into()
    }
}

/// All of what is given must hold; a packet without an IP header fits only if nothing is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Filter {
    /// From.
    pub source: Option<Net>,
    /// To.
    pub destination: Option<Net>,
    /// The protocol number.
    pub protocol: Option<u8>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
}

impl Filter {
    /// Whether anything is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a packet fits; `read` is only called if that is asked.
    pub fn fits(&self, read: impl FnOnce() -> Option<FlowKey>) -> bool {
        self.is_empty() || read().is_some_and(|brief| self.takes(&brief))
    }

    fn takes(&self, it: &FlowKey) -> bool {
        let port = |want: Option<u16>, of: fn(&(u16, u16)) -> u16| {
            want.is_none_or(|want| it.ports.as_ref().map(of) == Some(want))
        };
        self.source.is_none_or(|net| net.has(it.source))
            && self.destination.is_none_or(|net| net.has(it.destination))
            && self.protocol.is_none_or(|protocol| protocol == it.protocol)
            && port(self.source_port, |ports| ports.0)
            && port(self.destination_port, |ports| ports.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str, len: u8) -> Option<Net> {
        let address = text.parse().expect("an address");
        Some(Net { address, len })
    }

    #[test]
    fn all_that_is_given_must_hold() {
        let brief = FlowKey {
            source: "10.1.0.9".parse().expect("an address"),
            destination: "10.2.0.9".parse().expect("an address"),
            protocol: 17,
            ports: Some((1000, 2000)),
            length: 100,
            ttl: 64,
        };
        let fits = |filter: Filter| filter.fits(|| Some(brief));
        let none = Filter::default();
        assert!(fits(none) && none.fits(|| None));
        let source = |net| Filter {
            source: net,
            ..none
        };
        assert!(fits(source(net("10.1.0.9", 32))) && fits(source(net("10.1.255.255", 16))));
        assert!(fits(source(net("0.0.0.0", 0))) && !fits(source(net("::", 0))));
        assert!(!fits(source(net("10.1.0.8", 32))) && fits(source(net("10.1.0.8", 31))));
        let all = Filter {
            source: net("10.1.0.0", 16),
            destination: net("10.2.0.0", 16),
            protocol: Some(17),
            source_port: Some(1000),
            destination_port: Some(2000),
        };
        assert!(fits(all) && !all.fits(|| None));
        for wrong in [
            Filter {
                destination: net("10.3.0.0", 16),
                ..all
            },
            Filter {
                protocol: Some(6),
                ..all
            },
            Filter {
                source_port: Some(1),
                ..all
            },
            Filter {
                destination_port: Some(1),
                ..all
            },
        ] {
            assert!(!fits(wrong), "{wrong:?}");
        }
    }
}
