//! Explicit congestion notification across tunnels: RFC 6040.

/// The DSCP bits of a traffic class octet.
pub const DSCP_MASK: u8 = 0xfc;
/// The ECN bits of a traffic class octet.
pub const ECN_MASK: u8 = 0x03;

/// The sender does not take part.
pub const NOT_ECT: u8 = 0b00;
/// ECN-capable, codepoint 1.
pub const ECT1: u8 = 0b01;
/// ECN-capable, codepoint 0.
pub const ECT0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The traffic class of a packet that leaves a tunnel, from its own and that of the tunnel's header: its own DSCP, and
/// the ECN of [`decapsulate`].
#[inline]
pub fn leave(inner: u8, outer: u8) -> Option<u8> {
    // As a rule nothing happened on the way.
    if (inner ^ outer) & ECN_MASK == 0 {
        return Some(inner);
    }
    Some(inner & DSCP_MASK | decapsulate(inner, outer)?)
}

/// The ECN of the packet that leaves a tunnel, from that of the inner and outer headers (RFC 6040, figure 4), or `None`
/// where the packet must be dropped: congestion was marked on a packet whose sender would not understand it.
#[inline]
pub fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & ECN_MASK, outer & ECN_MASK) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT0, ECT1) => Some(ECT1),
        (inner, _) => Some(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_rfc_6040() {
        // Rows: inner Not-ECT, ECT(0), ECT(1), CE. Columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let table = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        for (inner, row) in table {
            for (outer, want) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(row) {
                assert_eq!(
                    decapsulate(inner, outer),
                    want,
                    "inner {inner}, outer {outer}"
                );
                let (inner, outer) = (0xa8 | inner, 0x44 | outer);
                assert_eq!(leave(inner, outer), want.map(|marks| 0xa8 | marks));
            }
        }
    }
}
