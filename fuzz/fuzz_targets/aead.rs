//! A batch of packets with keys of their own: every provider, in every form of it, seals it to the same octets, opens it again, and refuses
//! exactly those packets in which a bit was changed. And every provider gives them both seals at once, or only the outer one, as
//! a library makes one after the other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinseal_crypto::{
    AAD_LEN, HEADER_LEN, Key, Layered, Packet, Provider, Seal, Suite, TAG_LEN, all_forms, open,
    seal, seal_layers,
};

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
    /// Whether it takes both seals, or the outer one only.
    both: bool,
}

fuzz_target!(|input: &[u8]| {
    let messages: Vec<_> = input.chunks_exact(CHOICES).take(64).map(message).collect();
    let sealed: Vec<_> = all_forms()
        .into_iter()
        .map(|provider| through(provider, &messages))
        .collect();
    assert!(
        sealed.windows(2).all(|pair| pair[0] == pair[1]),
        "providers differ"
    );
    let wanted = one_by_one(all_forms()[0], &messages);
    for provider in all_forms() {
        assert!(
            at_once(provider, &messages) == wanted,
            "{} does not seal twice as a library does",
            provider.label()
        );
    }
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
        both: choices[6] & 6 != 0,
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
        provider.label()
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
            provider.label()
        );
        let (text, _) = packet.data.split_at(message.text.len());
        assert!(
            !packet.ok || text == message.text,
            "{} opened to other octets",
            provider.label()
        );
    }
    sealed
}

/// The keys of both seals: the link's is the next message's.
fn keys(provider: &dyn Provider, messages: &[Message]) -> Vec<[Key; 2]> {
    let key = |message: &Message| {
        provider
            .key(message.suite, &message.key)
            .expect("a key of its length")
    };
    let next = messages.iter().cycle().skip(1);
    messages
        .iter()
        .zip(next)
        .map(|(message, next)| [key(message), key(next)])
        .collect()
}

fn layered<'a>(
    [circuit, link]: &'a [Key; 2],
    message: &Message,
    data: &'a mut [u8],
) -> Layered<'a> {
    let other = |octet: u8| octet ^ 0xa5;
    let circuit = message.both.then_some(Seal {
        key: circuit,
        nonce: message.nonce,
        aad: message.aad,
    });
    let (nonce, aad) = (message.nonce.map(other), message.aad.map(other));
    let link = Packet::new(link, nonce, aad, data);
    Layered { circuit, link }
}

/// Headers, texts and room for both tags.
fn buffers(messages: &[Message]) -> Vec<Vec<u8>> {
    messages
        .iter()
        .map(|message| {
            let header = [message.aad[0]; HEADER_LEN];
            [&header[..], &message.text, &[0xee; 2 * TAG_LEN]].concat()
        })
        .collect()
}

fn one_by_one(provider: &dyn Provider, messages: &[Message]) -> Vec<Vec<u8>> {
    let mut buffers = buffers(messages);
    for ((keys, message), data) in keys(provider, messages)
        .iter()
        .zip(messages)
        .zip(&mut buffers)
    {
        let Layered { circuit, link } = layered(keys, message, data);
        if let Some(circuit) = circuit {
            let end = link.data.len() - TAG_LEN;
            let text = &mut link.data[HEADER_LEN..end];
            assert!(circuit.key.seal_one(&circuit.nonce, &circuit.aad, text));
        }
        assert!(link.key.seal_one(&link.nonce, &link.aad, link.data));
    }
    buffers
}

fn at_once(provider: &dyn Provider, messages: &[Message]) -> Vec<Vec<u8>> {
    let (keys, mut buffers) = (keys(provider, messages), buffers(messages));
    let mut batch: Vec<_> = keys
        .iter()
        .zip(messages)
        .zip(&mut buffers)
        .map(|((keys, message), data)| layered(keys, message, data))
        .collect();
    seal_layers(&mut batch);
    assert!(
        batch.iter().all(|packet| packet.link.ok),
        "{} did not seal twice",
        provider.label()
    );
    buffers
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
