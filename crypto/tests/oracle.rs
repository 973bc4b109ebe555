//! Every provider against the RustCrypto implementations, over random inputs.

use aes_gcm::{
    Aes128Gcm, Aes256Gcm,
    aead::{Aead as _, KeyInit, Payload},
};
use chacha20poly1305::ChaCha20Poly1305;
use proptest::prelude::*;
use twinseal_crypto::{
    AAD_LEN, CryptoError, Key, Nonce, Packet, Suite, TAG_LEN, all_forms, open, seal,
};

/// Ciphertext and tag, as RustCrypto makes them.
fn oracle(suite: Suite, key: &[u8], nonce: &Nonce, aad: &[u8], msg: &[u8]) -> Vec<u8> {
    let payload = Payload { msg, aad };
    let nonce = &(*nonce).into();
    match suite {
        Suite::Aes256Gcm => Aes256Gcm::new_from_slice(key)
            .unwrap()
            .encrypt(nonce, payload),
        Suite::Aes128Gcm => Aes128Gcm::new_from_slice(key)
            .unwrap()
            .encrypt(nonce, payload),
        Suite::ChaCha20Poly1305 => ChaCha20Poly1305::new_from_slice(key)
            .unwrap()
            .encrypt(nonce, payload),
    }
    .unwrap()
}

#[derive(Clone, Debug)]
struct Message {
    nonce: Nonce,
    aad: [u8; AAD_LEN],
    text: Vec<u8>,
}

/// A suite, a key, and messages of every length up to a jumbo frame's, with those around block
/// edges often.
fn batches() -> impl Strategy<Value = (Suite, Vec<u8>, Vec<Message>)> {
    let len = prop_oneof![0..130usize, 500..530usize, 1390..1420usize, 0..9000usize];
    let message = (any::<Nonce>(), any::<[u8; AAD_LEN]>(), len, any::<u8>()).prop_map(
        |(nonce, aad, len, seed)| {
            let text = (0..len)
                .map(|at| (at as u8).wrapping_mul(31) ^ seed)
                .collect();
            Message { nonce, aad, text }
        },
    );
    (
        prop::sample::select(&Suite::ALL),
        any::<[u8; 32]>(),
        prop::collection::vec(message, 0..12),
    )
        .prop_map(|(suite, key, messages)| (suite, key[..suite.key_len()].to_vec(), messages))
}

fn packets<'a>(key: &'a Key, messages: &[Message], buffers: &'a mut [Vec<u8>]) -> Vec<Packet<'a>> {
    let packet = |(message, data): (&Message, &'a mut Vec<u8>)| {
        Packet::new(key, message.nonce, message.aad, data)
    };
    messages.iter().zip(buffers).map(packet).collect()
}

proptest! {
    #[test]
    fn providers_agree_with_the_oracle((suite, key, messages) in batches()) {
        let sealed: Vec<_> =
            messages.iter().map(|m| oracle(suite, &key, &m.nonce, &m.aad, &m.text)).collect();
        for provider in all_forms() {
            let aead = provider.key(suite, &key).unwrap();
            prop_assert_eq!(aead.suite(), suite);
            let mut buffers: Vec<_> = messages.iter().map(|m| [&m.text[..], &[0xaa; TAG_LEN]].concat()).collect();

            let mut batch = packets(&aead, &messages, &mut buffers);
            seal(&mut batch);
            prop_assert!(batch.iter().all(|packet| packet.ok));
            prop_assert_eq!(&buffers, &sealed, "{}", provider.label());

            let mut batch = packets(&aead, &messages, &mut buffers);
            open(&mut batch);
            prop_assert!(batch.iter().all(|packet| packet.ok));
            for (buffer, message) in buffers.iter().zip(&messages) {
                prop_assert_eq!(&buffer[..message.text.len()], &message.text[..]);
            }
        }
    }

    /// One wrong bit in nonce, header, text or tag: that packet alone is refused, and its plaintext is not released.
    #[test]
    fn a_flipped_bit_is_refused((suite, key, messages) in batches(), which: prop::sample::Index, bit: prop::sample::Index) {
        prop_assume!(!messages.is_empty());
        let which = which.index(messages.len());
        for provider in all_forms() {
            let aead = provider.key(suite, &key).unwrap();
            let mut buffers: Vec<_> =
                messages.iter().map(|m| oracle(suite, &key, &m.nonce, &m.aad, &m.text)).collect();
            let mut batch = packets(&aead, &messages, &mut buffers);

            let spoilt = &mut batch[which];
            let bit = bit.index((spoilt.nonce.len() + AAD_LEN + spoilt.data.len()) * 8);
            *spoilt.nonce.iter_mut().chain(&mut spoilt.aad).chain(&mut *spoilt.data).nth(bit / 8).unwrap() ^= 1 << (bit % 8);
            let nonce_changed = bit / 8 < spoilt.nonce.len();
            spoilt.ok = true;

            open(&mut batch);
            for (at, packet) in batch.iter().enumerate() {
                prop_assert_eq!(packet.ok, at != which, "{} packet {}", provider.label(), at);
            }
            // Long enough that a run of equal bytes is no accident.
            let (text, left) = (&messages[which].text, &batch[which].data);
            if text.len() >= 64 && !nonce_changed {
                prop_assert!(!left.windows(32).any(|run| run == &text[16..48]), "{} leaks", provider.label());
            }
        }
    }
}

#[test]
fn data_too_short_for_a_tag_is_refused() {
    for provider in all_forms() {
        for suite in Suite::ALL {
            let aead = provider.key(suite, &vec![1; suite.key_len()]).unwrap();
            for len in 0..TAG_LEN {
                let (mut one, mut two) = (vec![0; len], vec![0; TAG_LEN]);
                let mut batch = [
                    Packet::new(&aead, [0; 12], [0; AAD_LEN], &mut one),
                    Packet::new(&aead, [1; 12], [0; AAD_LEN], &mut two),
                ];
                batch[0].ok = true;
                seal(&mut batch);
                assert_eq!(
                    [batch[0].ok, batch[1].ok],
                    [false, true],
                    "an empty plaintext is sealed"
                );
                batch[0].ok = true;
                open(&mut batch);
                assert_eq!([batch[0].ok, batch[1].ok], [false, true]);
            }
        }
    }
}

#[test]
fn keys_of_wrong_length_are_refused() {
    for provider in all_forms() {
        for suite in Suite::ALL {
            for len in (0..=64).filter(|&len| len != suite.key_len()) {
                let Err(error) = provider.key(suite, &vec![0; len]) else {
                    panic!("{} took {len} bytes for {suite}", provider.label());
                };
                assert!(
                    matches!(error, CryptoError::KeyLength { got, .. } if got == len),
                    "{error}"
                );
            }
        }
    }
}
