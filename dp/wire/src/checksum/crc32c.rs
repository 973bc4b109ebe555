//! CRC32c (Castagnoli), the checksum of SCTP (RFC 9260, appendix A): eight bytes a step.

/// Reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `TABLES[n][octet]`: what an octet does to the sum, `n` octets before the end of a step.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut octet = 0;
    while octet < 256 {
        let (mut sum, mut bit) = (octet as u32, 0);
        while bit < 8 {
            sum = (sum >> 1) ^ (POLYNOMIAL * (sum & 1));
            bit += 1;
        }
        tables[0][octet] = sum;
        octet += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut octet = 0;
        while octet < 256 {
            let sum = tables[n - 1][octet];
            tables[n][octet] = (sum >> 8) ^ tables[0][(sum & 0xff) as usize];
            octet += 1;
        }
        n += 1;
    }
    tables
}

pub(super) fn checksum(octets: &[u8]) -> u32 {
    let (steps, rest) = octets.as_chunks::<8>();
    let sum = steps.iter().fold(!0u32, |sum, step| {
        let step = (u64::from_le_bytes(*step) ^ u64::from(sum)).to_le_bytes();
        let tables = TABLES.iter().rev().zip(step);
        tables.fold(0, |sum, (table, octet)| sum ^ table[usize::from(octet)])
    });
    !rest.iter().fold(sum, |sum, octet| {
        (sum >> 8) ^ TABLES[0][usize::from(sum as u8 ^ octet)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_sums() {
        // RFC 3720, B.4, and the usual check value.
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
    }

    proptest! {
        #[test]
        fn as_bit_by_bit(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut sum = !0u32;
            for octet in &octets {
                sum ^= u32::from(*octet);
                for _ in 0..8 {
                    sum = (sum >> 1) ^ (POLYNOMIAL * (sum & 1));
                }
            }
            prop_assert_eq!(checksum(&octets), !sum);
        }
    }
}
