#!/usr/bin/env python3
"""Opens Twinseal packets of a capture, independently of the dataplane: written from docs/protocol.md.

decode.py KEYS.json CAPTURE.pcap   a line of JSON a packet; status 1 if any packet on the port does not open, 2 if it cannot read
decode.py --vectors                the test vectors, as in vectors.json
decode.py --self-test              checks this program, vectors.json and protocol.md against each other
"""

import ipaddress
import json
import pathlib
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SUITES = {"aes-256-gcm": (1, 32, AESGCM), "aes-128-gcm": (2, 16, AESGCM), "chacha20-poly1305": (3, 32, ChaCha20Poly1305)}
DIRECTIONS = {"a-to-b": 0, "b-to-a": 1}
LINK, CIRCUIT = 1, 2
TAG, HEADER = 16, 16  # octets
UDP = 17
COUNTER_LIMIT = 1 << 40
PAYLOADS = {1: "ipv4", 2: "ipv6", 4: "oam"}
OAM, LINK_LABEL = 4, 0
ECHO, ECHOES = struct.Struct(">BBHIQQ"), {0x11: "request", 0x12: "reply"}
LINK_HEADER, CIRCUIT_HEADER = struct.Struct(">BBBBIQ"), struct.Struct(">IBBBBQ")


class Dropped(Exception):
    """A packet that a receiver would drop, with the reason's name."""


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, b"twinseal v1", info).derive(secret)


class Key:
    """One direction's key of a link or circuit, in one epoch; `entry` is that of the keys file."""

    def __init__(self, layer: int, entry: dict):
        number, length, aead = SUITES[entry["suite"]]
        secret = bytes.fromhex(entry["secret"])
        if len(secret) != 32:
            raise ValueError(f"a secret has 32 bytes, not {len(secret)}")
        info = b"twinseal v1 sa" + struct.pack(">BBBI", layer, DIRECTIONS[entry["direction"]], number, entry["epoch"])
        derived = hkdf(secret, info, length + 12)
        self.key, self.iv, self.entry = derived[:length], derived[length:], entry
        self.aead = aead(self.key)
        self.seen = {}

    def nonce(self, lane: int, counter: int) -> bytes:
        return bytes(a ^ b for a, b in zip(self.iv, struct.pack(">IQ", lane, counter)))

    def seal(self, lane: int, counter: int, aad: bytes, plain: bytes) -> bytes:
        return self.aead.encrypt(self.nonce(lane, counter), plain, aad)

    def open(self, lane: int, counter: int, aad: bytes, sealed: bytes):
        """The plaintext, or None where the tag does not verify."""
        try:
            plain = self.aead.decrypt(self.nonce(lane, counter), sealed, aad)
        except InvalidTag:
            return None
        # The same packet may be captured on several hops; two packets under one nonce are the end of all secrecy.
        if self.seen.setdefault((lane, counter), (aad, sealed)) != (aad, sealed):
            raise Dropped("nonce_reused")
        return plain


def circuit_aad(circuit_id: int, traffic_class: int, lane: int, payload_epoch: int) -> bytes:
    return struct.pack(">QBBB5x", circuit_id, traffic_class & 0xFC, lane, payload_epoch)


class Decoder:
    def __init__(self, keys: dict):
        self.port = keys.get("port", 21591)
        self.links = [Key(LINK, entry) for entry in keys.get("links", [])]
        self.circuits = [Key(CIRCUIT, entry) for entry in keys.get("circuits", [])]

    def frame(self, frame: bytes, whole: int):
        """What an Ethernet frame of `whole` octets holds, or None if it is not for our port."""
        version = {b"\x08\x00": 4, b"\x86\xdd": 6}.get(frame[12:14])
        ip = frame[14:]
        if version == 4 and len(ip) >= 20:
            (start, end), protocol = ((ip[0] & 15) * 4, int.from_bytes(ip[2:4], "big")), ip[9]
            source, destination, traffic_class = ip[12:16], ip[16:20], ip[1]
            fragment = int.from_bytes(ip[6:8], "big") & 0x3FFF
        elif version == 6 and len(ip) >= 40:
            (start, end), protocol, fragment = (40, 40 + int.from_bytes(ip[4:6], "big")), ip[6], 0
            source, destination, traffic_class = ip[8:24], ip[24:40], int.from_bytes(ip[:2], "big") >> 4 & 255
        else:
            return None
        udp = ip[start:end]
        if protocol != UDP or fragment & 0x1FFF or len(udp) < 8:
            return None
        source_port, port, length, _ = struct.unpack(">HHHH", udp[:8])
        if port != self.port:
            return None
        said = {"outer_src": str(ipaddress.ip_address(source)), "outer_dst": str(ipaddress.ip_address(destination))}
        said |= {"source_port": source_port, "outer_traffic_class": traffic_class}
        try:
            if ip[0] >> 4 != version or version == 4 and start < 20:
                raise Dropped("bad_ip_header")
            if len(frame) < whole or len(ip) < end or length > len(udp):
                raise Dropped("truncated")
            if version == 4 and checksum(ip[:start]) != 0:
                raise Dropped("bad_checksum")
            if fragment:
                raise Dropped("outer_fragment")
            self.payload(udp[8:length], said)
        except Dropped as reason:
            said["error"] = str(reason)
        return said

    def payload(self, payload: bytes, said: dict) -> None:
        """Opens a UDP payload and adds to `said` what comes to light."""
        if len(payload) < 2 * (HEADER + TAG):
            raise Dropped("truncated")
        header = payload[:HEADER]
        kind, lane, flags, reserved, receiver, counter = LINK_HEADER.unpack(header)
        said |= {"receiver": receiver, "lane": lane, "counter": counter}
        if (kind, flags, reserved) != (0x11, 0, 0):
            raise Dropped("bad_link_header")
        # Receiver indices are unique at their node only, and a capture may show several nodes.
        keys = [key for key in self.links if key.entry["receiver_index"] == receiver]
        if not keys:
            raise Dropped("unknown_receiver")
        opened = next(filter(None, (key.open(lane, counter, header, payload[HEADER:]) for key in keys)), None)
        if opened is None:
            raise Dropped("link_authentication")
        if counter >= COUNTER_LIMIT:
            raise Dropped("link_too_old")
        self.circuit(opened[:HEADER], opened[HEADER:], said)

    def circuit(self, header: bytes, sealed: bytes, said: dict) -> None:
        label, hop_limit, traffic_class, lane, payload_epoch, counter = CIRCUIT_HEADER.unpack(header)
        kind, epoch = payload_epoch >> 4, payload_epoch & 15
        said |= {"label": label, "hop_limit": hop_limit, "traffic_class": traffic_class, "circuit_lane": lane}
        said |= {"circuit_counter": counter, "payload_type": PAYLOADS.get(kind, kind)}
        if label == LINK_LABEL:
            # The link's own: there is no circuit, and so no lane, epoch or counter of one.
            if (payload_epoch, lane, counter) != (OAM << 4, 0, 0):
                raise Dropped("unknown_label")
            return echo(sealed, said)
        keys = [key for key in self.circuits if key.entry.get("label", label) == label]
        if not keys:
            raise Dropped("unknown_label")
        if kind not in PAYLOADS:
            raise Dropped("unsupported_payload")
        keys = [key for key in keys if key.entry["epoch"] & 15 == epoch]
        if not keys:
            raise Dropped("unknown_epoch")
        for key in keys:
            aad = circuit_aad(key.entry["id"], traffic_class, lane, payload_epoch)
            inner = key.open(lane, counter, aad, sealed)
            if inner is not None:
                break
        else:
            raise Dropped("circuit_authentication")
        if counter >= COUNTER_LIMIT:
            raise Dropped("circuit_too_old")
        said |= {"circuit_id": key.entry["id"], "circuit_epoch": key.entry["epoch"], "inner": inner.hex()}
        if kind == OAM:
            return echo(inner, said)
        version, least = {1: (4, 20), 2: (6, 40)}[kind]
        if len(inner) < least or inner[0] >> 4 != version:
            raise Dropped("bad_ip_header")
        addresses, protocol = ((inner[12:16], inner[16:20]), inner[9]) if version == 4 else ((inner[8:24], inner[24:40]), inner[6])
        source, destination = (str(ipaddress.ip_address(address)) for address in addresses)
        said |= {"inner_src": source, "inner_dst": destination, "inner_proto": protocol}


def echo(message: bytes, said: dict) -> None:
    """Adds an echo request or reply to `said`."""
    if len(message) < ECHO.size:
        raise Dropped("oam_unknown")
    kind, flags, reserved, session, sequence, stamp = ECHO.unpack(message[: ECHO.size])
    if kind not in ECHOES or flags or reserved:
        raise Dropped("oam_unknown")
    said |= {"echo": ECHOES[kind], "session": session, "sequence": sequence, "stamp": stamp}
    said["padding"] = len(message) - ECHO.size


def checksum(octets: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pcap(data: bytes):
    """The frames of a classic pcap, with their lengths before the capture cut them."""
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}.get(data[:4])
    if order is None or len(data) < 24 or struct.unpack(order + "I", data[20:24])[0] & 0xFFFF != 1:
        raise ValueError("not a classic pcap of Ethernet frames")
    at = 24
    while at < len(data):
        captured, whole = struct.unpack(order + "8xII", data[at : at + 16])
        if len(data) < at + 16 + captured:
            raise ValueError("the capture ends within a packet")
        yield data[at + 16 : at + 16 + captured], whole
        at += 16 + captured


def main(arguments: list) -> int:
    if arguments in (["--vectors"], ["--self-test"]):
        import vectors

        return vectors.print_all() if arguments == ["--vectors"] else vectors.self_test()
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    failed = False
    try:
        decoder = Decoder(json.loads(pathlib.Path(arguments[0]).read_text()))
        data = sys.stdin.buffer.read() if arguments[1] == "-" else pathlib.Path(arguments[1]).read_bytes()
        for frame, whole in pcap(data):
            said = decoder.frame(frame, whole)
            if said is not None:
                failed |= "error" in said
                print(json.dumps(said))
    except (OSError, ValueError, LookupError, struct.error) as error:
        print(f"cannot decode {arguments[1]} with {arguments[0]}: {error!r}", file=sys.stderr)
        return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
