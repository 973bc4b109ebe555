//! A batch of packets with keys of their own: every provider seals it to the same octets, opens it again, and refuses
//! exactly those packets in which a bit was changed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinseal_crypto::{AAD_LEN, Key, Packet, Provider, Suite, TAG_LEN, open, providers, seal};

/// What the fuzzer chooses for a packet: suite, key, octets of text (two), a change or none (three).
const CHOICES: usize = 7;
/// The longest text: a jumbo frame and some.
const LONGEST: u16 = 9100;

struct Message {
    suite: Suite,
    key: Vec<u8>,
    nonce: [u8; 12],
    aad: [u8; AAD_LEN],
    text: Vec<u8>,
    /// Which bit of the sealed octets is changed.
    change: Option<usize>,
}

fuzz_target!(|input: &[u8]| {
    let messages: Vec<_> = input.chunks_exact(CHOICES).take(64).map(message).collect();
    let sealed: Vec<_> = providers()
        .iter()
        .map(|provider| through(*provider, &messages))
        .collect();
    assert!(
        sealed.windows(2).all(|pair| pair[0] == pair[1]),
        "providers differ"
    );
});

fn message(choices: &[u8]) -> Message {
    let suite = Suite::ALL[usize::from(choices[0]) % Suite::ALL.len()];
    let octet = |place: usize| (place as u8).wrapping_mul(31) ^ choices[place % CHOICES];
    let text: Vec<u8> = (0..u16::from_le_bytes([choices[2], choices[3]]) % LONGEST)
        .map(|place| octet(place.into()))
        .collect();
    let place = usize::from(u16::from_le_bytes([choices[4], choices[5]]));
    Message {
        suite,
        key: (0..suite.key_len())
            .map(|place| octet(place) ^ choices[1])
            .collect(),
        nonce: std::array::from_fn(octet),
        aad: std::array::from_fn(|place| octet(place + 1)),
        change: (choices[6] & 1 == 1).then_some(place % ((text.len() + TAG_LEN) * 8)),
        text,
    }
}

/// What a provider seals the messages to. Fails unless it opens just those that were not changed.
fn through(provider: &dyn Provider, messages: &[Message]) -> Vec<Vec<u8>> {
    let keys: Vec<_> = messages
        .iter()
        .map(|message| {
            provider
                .key(message.suite, &message.key)
                .expect("a key of its length")
        })
        .collect();
    let mut buffers: Vec<_> = messages
        .iter()
        .map(|message| [&message.text[..], &[0xee; TAG_LEN]].concat())
        .collect();
    let mut batch = packets(&keys, messages, &mut buffers);
    seal(&mut batch);
    assert!(
        batch.iter().all(|packet| packet.ok),
        "{} did not seal",
        provider.name()
    );

    let sealed = buffers.clone();
    for (buffer, message) in buffers.iter_mut().zip(messages) {
        if let Some(bit) = message.change {
            buffer[bit / 8] ^= 1 << (bit % 8);
        }
    }
    let mut batch = packets(&keys, messages, &mut buffers);
    open(&mut batch);
    for (packet, message) in batch.iter().zip(messages) {
        assert_eq!(
            packet.ok,
            message.change.is_none(),
            "{} opened",
            provider.name()
        );
        let (text, _) = packet.data.split_at(message.text.len());
        assert!(
            !packet.ok || text == message.text,
            "{} opened to other octets",
            provider.name()
        );
    }
    sealed
}

fn packets<'a>(
    keys: &'a [Key],
    messages: &[Message],
    buffers: &'a mut [Vec<u8>],
) -> Vec<Packet<'a>> {
    keys.iter()
        .zip(messages)
        .zip(buffers)
        .map(|((key, message), data)| Packet::new(key, message.nonce, message.aad, data))
        .collect()
}
