"""The test vectors of docs/protocol.md, and the checks of `decode.py --self-test`. Run it by decode.py."""

import ipaddress
import json
import pathlib
import struct

from decode import CIRCUIT, CIRCUIT_HEADER, ECHO, HEADER, LINK, LINK_HEADER, OAM, UDP, Decoder, Dropped, Key, checksum, circuit_aad, hkdf, pcap

FOLDER = pathlib.Path(__file__).resolve().parent
V4, V6 = {"outer_src": "192.0.2.1", "outer_dst": "192.0.2.2"}, {"outer_src": "2001:db8::1", "outer_dst": "2001:db8::2"}


def secret(first: int) -> str:
    return bytes(range(first, first + 32)).hex()


def udp_packet(source: str, destination: str, ttl: int, traffic_class: int, text: bytes) -> str:
    """An inner packet: UDP from port 40000 to 7, as an edge has it after routing."""
    source, destination = ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed
    length = 8 + len(text)
    udp = struct.pack(">HHHH", 40000, 7, length, 0) + text
    udp = udp[:6] + checksum(source + destination + struct.pack(">HH", UDP, length) + udp).to_bytes(2, "big") + text
    if len(source) == 4:
        ip = struct.pack(">BBHHHBBH", 0x45, traffic_class, 20 + length, 0x1234, 0, ttl, UDP, 0) + source + destination
        ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    else:
        ip = struct.pack(">IHBB", 6 << 28 | traffic_class << 20 | 0xABCDE, length, UDP, ttl) + source + destination
    return (ip + udp).hex()


FIRST = {
    "name": "aes-256-gcm, first hop",
    "suite": "aes-256-gcm", "direction": "a-to-b",
    "link_secret": secret(0x00), "link_epoch": 1, "circuit_secret": secret(0x20), "circuit_epoch": 2,
    "receiver_index": 0x01020304, "lane": 5, "counter": 0x1122334455,
    "circuit_id": 0x0A0B0C0D0E0F1011, "label": 0xA0B0C0D0, "hop_limit": 64, "traffic_class": 0xBA,
    "circuit_lane": 7, "circuit_counter": 0x99AABBCCDD, "payload_type": 1,
    **V4, "source_port_salt": 1000,
    "inner": udp_packet("10.1.0.2", "10.2.0.2", 63, 0xBA, b"Twinseal over IPv4"),
}  # fmt: skip
INPUTS = [
    FIRST,
    # The same circuit packet after a transit node: of what the circuit sealed no octet differs.
    FIRST | V6 | {
        "name": "aes-256-gcm, second hop: other link, label swapped, hop limit down, congestion marked",
        "direction": "a-to-b", "link_secret": secret(0x40), "link_epoch": 9, "receiver_index": 2, "lane": 0, "counter": 0,
        "label": 17, "hop_limit": 63, "traffic_class": 0xBB, "source_port_salt": 16383,
    },
    FIRST | V6 | {
        "name": "aes-128-gcm, largest lanes and counters, source port wraps",
        "suite": "aes-128-gcm", "direction": "b-to-a",
        "link_secret": secret(0x60), "link_epoch": 0xFFFFFFFF, "circuit_secret": secret(0x80), "circuit_epoch": 0x01020304,
        "receiver_index": 0xFFFFFFFF, "lane": 255, "counter": 2**40 - 1, "circuit_id": 2**64 - 1, "label": 0xFFFFFFFF,
        "hop_limit": 255, "traffic_class": 0x00, "circuit_lane": 255, "circuit_counter": 2**40 - 1, "payload_type": 2,
        "source_port_salt": 65535,
        "inner": udp_packet("2001:db8:1::2", "2001:db8:2::2", 63, 0x00, b"Twinseal over IPv6"),
    },
    FIRST | {
        "name": "chacha20-poly1305, first packet",
        "suite": "chacha20-poly1305", "link_secret": secret(0xA0), "link_epoch": 0,
        "circuit_secret": secret(0xC0), "circuit_epoch": 0, "receiver_index": 1, "lane": 0, "counter": 0, "circuit_id": 1,
        "label": 3, "hop_limit": 1, "traffic_class": 0xFD, "circuit_lane": 0, "circuit_counter": 0, "payload_type": 2,
        "source_port_salt": 0,
        "inner": udp_packet("2001:db8:1::2", "2001:db8:2::2", 63, 0xFD, b""),
    },
    FIRST | {
        "name": "aes-256-gcm, echo request through a circuit, with two bytes of padding",
        "lane": 7, "counter": 0x1122334456, "circuit_counter": 0x99AABBCCDE, "traffic_class": 0x00, "payload_type": OAM,
        "inner": (ECHO.pack(0x11, 0, 0, 0x01020304, 5, 0x1122334455667788) + b"..").hex(),
    },
]  # fmt: skip


def seal(v: dict) -> dict:
    """The vector with everything that follows from its inputs; a sender, in short."""
    link, circuit = (Key(layer, entry) for layer, entry in ((LINK, link_entry(v)), (CIRCUIT, circuit_entry(v))))
    payload_epoch = v["payload_type"] << 4 | v["circuit_epoch"] & 15
    lane, counter = v["circuit_lane"], v["circuit_counter"]
    header = CIRCUIT_HEADER.pack(v["label"], v["hop_limit"], v["traffic_class"], lane, payload_epoch, counter)
    aad = circuit_aad(v["circuit_id"], v["traffic_class"], lane, payload_epoch)
    sealed = circuit.seal(lane, counter, aad, bytes.fromhex(v["inner"]))
    link_header = LINK_HEADER.pack(0x11, v["lane"], 0, 0, v["receiver_index"], v["counter"])
    payload = link_header + link.seal(v["lane"], v["counter"], link_header, header + sealed)
    octets = {
        "circuit_key": circuit.key, "circuit_iv": circuit.iv, "circuit_nonce": circuit.nonce(lane, counter),
        "circuit_aad": aad, "circuit_header": header, "circuit_sealed": sealed,
        "link_key": link.key, "link_iv": link.iv, "link_nonce": link.nonce(v["lane"], v["counter"]),
        "link_header": link_header, "udp_payload": payload, "frame": outer_frame(payload, v),
    }  # fmt: skip
    return v | {name: value.hex() for name, value in octets.items()}


def link_echo() -> bytes:
    """The UDP payload of an echo reply of a link: the link's own label, and no seal but the link's."""
    link, v = Key(LINK, link_entry(FIRST)), FIRST | {"counter": 0x1122334457}
    header = LINK_HEADER.pack(0x11, v["lane"], 0, 0, v["receiver_index"], v["counter"])
    message = CIRCUIT_HEADER.pack(0, 1, 0, 0, OAM << 4, 0) + ECHO.pack(0x12, 0, 0, 0x01020304, 5, 0x1122334455667788)
    return header + link.seal(v["lane"], v["counter"], header, message)


def link_entry(v: dict) -> dict:
    common = {"suite": v["suite"], "direction": v["direction"]}
    return common | {"receiver_index": v["receiver_index"], "secret": v["link_secret"], "epoch": v["link_epoch"]}


def circuit_entry(v: dict) -> dict:
    common = {"suite": v["suite"], "direction": v["direction"]}
    return common | {"id": v["circuit_id"], "secret": v["circuit_secret"], "epoch": v["circuit_epoch"]}


def outer_frame(payload: bytes, v: dict) -> bytes:
    """Ethernet, IP and UDP headers before a UDP payload, as a sender writes them."""
    source, destination = (ipaddress.ip_address(v[end]) for end in ("outer_src", "outer_dst"))
    port = 49152 + (v["source_port_salt"] + v["lane"]) % 16384
    udp = struct.pack(">HHHH", port, 21591, 8 + len(payload), 0) + payload
    traffic_class = v["traffic_class"]
    if source.version == 4:
        ip = struct.pack(">BBHHHBBH", 0x45, traffic_class, 20 + len(udp), 0, 0x4000, 64, UDP, 0) + source.packed + destination.packed
        ip = ip[:10] + checksum(ip).to_bytes(2, "big") + ip[12:]
    else:
        ip = struct.pack(">IHBB", 6 << 28 | traffic_class << 20 | port, len(udp), UDP, 64) + source.packed + destination.packed
    macs = bytes.fromhex("020000000002020000000001")
    return macs + (b"\x08\x00" if source.version == 4 else b"\x86\xdd") + ip + udp


def print_all() -> int:
    print(json.dumps([seal(v) for v in INPUTS], indent=2))
    return 0


def error_of(keys: dict, payload: bytes):
    """The reason for which a payload does not open, or None."""
    try:
        Decoder(keys).payload(payload, {})
    except Dropped as reason:
        return str(reason)
    return None


def check(what: str, got, want) -> None:
    if got != want:
        raise SystemExit(f"FAILED: {what}: got {got!r}, want {want!r}")


def self_test() -> int:
    known_answers()
    computed = [seal(v) for v in INPUTS]
    check("vectors.json", json.loads((FOLDER / "vectors.json").read_text()), computed)
    page = "".join((FOLDER.parent / "protocol.md").read_text().split())
    for v in computed:
        for field in ("link_key", "circuit_key", "circuit_aad", "circuit_header", "circuit_sealed", "udp_payload", "frame"):
            check(f"{v['name']}: {field} in protocol.md", v[field] in page, True)
    check("the circuit's octets on two hops", computed[0]["circuit_sealed"], computed[1]["circuit_sealed"])

    keys = {"links": [link_entry(v) for v in INPUTS], "circuits": [circuit_entry(v) for v in INPUTS]}
    for order, magic in (("<", 0xA1B2C3D4), (">", 0xA1B23C4D)):
        capture = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
        for v in computed:
            # Padding behind the IP packet, as Ethernet may add it.
            frame = bytes.fromhex(v["frame"]) + bytes(6)
            capture += struct.pack(order + "IIII", 0, 0, len(frame), len(frame)) + frame
        decoder = Decoder(keys)
        for v, (frame, whole) in zip(computed, pcap(capture), strict=True):
            round_trip(v, decoder.frame(frame, whole))
    for v in computed:
        refuses(v)
    check("a link's echo in protocol.md", link_echo().hex() in page, True)
    said = {}
    Decoder({"links": [link_entry(FIRST)]}).payload(link_echo(), said)
    check("a link's echo", (said["echo"], said["session"], said["sequence"], said["padding"]), ("reply", 0x01020304, 5, 0))
    print(f"{len(computed)} vectors are as computed, shown in protocol.md, open, and do not open when changed")
    return 0


def known_answers() -> None:
    def derived(layer: int, direction: str, suite: str, epoch: int) -> str:
        key = Key(layer, {"secret": secret(0), "direction": direction, "suite": suite, "epoch": epoch})
        return (key.key + key.iv).hex()

    check("link key", derived(LINK, "a-to-b", "aes-256-gcm", 1),
          "3c781fcc784f12f8e71aca5e3edf06a2026354c59455841d6e1111a23c74a2f927d428d24ea704b140b4ffea")  # fmt: skip
    check("circuit key", derived(CIRCUIT, "b-to-a", "aes-128-gcm", 0x01020304),
          "1dd529a76cbf4f0d37f94f3517d3cc36e3e37281ac5a54e530d33ec2")  # fmt: skip
    check("chacha key", derived(LINK, "b-to-a", "chacha20-poly1305", 0xFFFFFFFF),
          "38d6c649569622865f42ac57ddfbdbfec651030e4e0881aa34cded679395bf9a209bfe834ea44cf5930cf8c9")  # fmt: skip
    check("fingerprint", hkdf(bytes.fromhex(secret(0)), b"twinseal v1 fingerprint", 32).hex(),
          "0cb2ff4ff62621e59554171a8e927ef2d676ffa8cb53afbaaaae52b7da934375")  # fmt: skip


def round_trip(v: dict, said: dict) -> None:
    check(f"{v['name']}: error", said.get("error"), None)
    same = ("outer_src", "outer_dst", "lane", "counter", "label", "hop_limit", "traffic_class", "circuit_id", "circuit_lane",
            "circuit_counter", "circuit_epoch", "inner")  # fmt: skip
    for field in same:
        check(f"{v['name']}: {field}", said[field], v[field])
    check("receiver", said["receiver"], v["receiver_index"])
    oam = v["payload_type"] == OAM
    check("payload type", said["payload_type"], "oam" if oam else f"ipv{v['payload_type'] * 2 + 2}")
    check("outer traffic class", said["outer_traffic_class"], v["traffic_class"])
    check("source port", said["source_port"], 49152 + (v["source_port_salt"] + v["lane"]) % 16384)
    if oam:
        check("echo", (said["echo"], said["session"], said["sequence"], said["padding"]), ("request", 0x01020304, 5, 2))
    else:
        check("inner protocol", said["inner_proto"], UDP)


def refuses(v: dict) -> None:
    """Whatever bit of a payload is changed, or whatever part of the keys, it does not open, and for the right reason."""
    payload = bytes.fromhex(v["udp_payload"])
    keys = {"links": [link_entry(v)], "circuits": [circuit_entry(v)]}
    check(f"{v['name']}: error", error_of(keys, payload), None)
    for bit in range(len(payload) * 8):
        changed = bytearray(payload)
        changed[bit // 8] ^= 0x80 >> bit % 8
        at = bit // 8
        by_place = "bad_link_header" if at in (0, 2, 3) else "unknown_receiver" if 4 <= at < 8 else "link_authentication"
        check(f"{v['name']}: bit {bit}", error_of(keys, bytes(changed)), by_place)
    check("too short", error_of(keys, payload[:63]), "truncated")
    other = {"direction": "b-to-a" if v["direction"] == "a-to-b" else "a-to-b", "secret": secret(0xE0), "id": v["circuit_id"] ^ 1}
    for part, value in other.items():
        circuit = [keys["circuits"][0] | {part: value}]
        check(f"other circuit {part}", error_of(keys | {"circuits": circuit}, payload), "circuit_authentication")
    for epoch, reason in ((v["circuit_epoch"] ^ 16, "circuit_authentication"), (v["circuit_epoch"] ^ 1, "unknown_epoch")):
        circuit = [keys["circuits"][0] | {"epoch": epoch}]
        check(f"other circuit epoch {epoch}", error_of(keys | {"circuits": circuit}, payload), reason)
    inside(v, keys)
    reused = Decoder(keys)
    reused.payload(payload, {})
    try:
        reused.payload(bytes.fromhex(seal(v | {"hop_limit": v["hop_limit"] ^ 3})["udp_payload"]), {})
    except Dropped as reason:
        check("two packets under one nonce", str(reason), "nonce_reused")
    else:
        raise SystemExit("FAILED: two packets under one nonce were not noticed")


def inside(v: dict, keys: dict) -> None:
    """Changes of the circuit header by one who has the link's key, such as a transit node: what it may change, and no more."""
    link = Key(LINK, link_entry(v))
    header, sealed = bytes.fromhex(v["link_header"]), bytes.fromhex(v["circuit_header"] + v["circuit_sealed"])
    for bit in range(HEADER * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 0x80 >> bit % 8
        error = error_of(keys, header + link.seal(v["lane"], v["counter"], header, bytes(changed)))
        may_change = bit < 40 or bit in (46, 47)
        check(f"{v['name']}: inner bit {bit} is the circuit's", error is None, may_change)
