"""Keys: which owners lack them, and how new ones come without a packet lost. Secrets are held only while they are sent."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from .plan import Owner
from .protocol import pb

DIRECTIONS = (pb.DIRECTION_A_TO_B, pb.DIRECTION_B_TO_A)

Changes = dict[str, list[pb.Change]]


class Keyring:
    """What two nodes said of the keys that they share."""

    def __init__(self, states: Mapping[str, pb.GetResponse]) -> None:
        # By node: its keys by (kind, name, direction, epoch), and the receiver indices in use.
        self._held: dict[str, dict[tuple, pb.KeyState]] = {}
        self._indices: dict[str, set[int]] = {}
        for node, state in states.items():
            self._held[node] = {_id(key.key): key for key in state.keys}
            self._indices[node] = {key.receiver_index for key in state.keys if key.receiver_index}

    def is_good(self, owner: Owner) -> bool:
        """Whether both ends transmit, each with a key that the other has. A restart leaves keys without their secrets."""
        for direction, sender, receiver in _ways(owner):
            sending = [
                place
                for place, key in self._held[sender].items()
                if key.transmitting and not key.needed and place[:3] == (owner.kind, owner.name, direction)
            ]
            received = self._held[receiver].get(sending[0]) if sending else None
            if received is None or received.needed:
                return False
        return True

    def rotate(self, owners: Iterable[Owner]) -> tuple[Changes, Changes, Changes]:
        """New keys for these owners: the transactions that install them, that transmit with them, and that retire the old.

        Each is to be applied at all nodes before the next begins: make before break.
        """
        install: Changes = {}
        transmit: Changes = {}
        retire: Changes = {}
        for owner in owners:
            old = {
                node: [place for place in self._held[node] if place[:2] == (owner.kind, owner.name)]
                for node in (owner.a, owner.b)
            }
            epoch = 1 + max((place[3] for places in old.values() for place in places), default=0)
            for direction, _, receiver in _ways(owner):
                key = pb.Key(direction=direction, epoch=epoch, secret=secrets.token_bytes(32), **_owned(owner))
                if owner.kind == "link":
                    key.receiver_index = self._free_index(receiver)
                for node in (owner.a, owner.b):
                    install.setdefault(node, []).append(pb.Change(set=pb.Item(key=key)))
            for node in (owner.a, owner.b):
                now = pb.Transmit(epoch=epoch, **_owned(owner))
                transmit.setdefault(node, []).append(pb.Change(set=pb.Item(transmit=now)))
                for _, _, direction, epoch_of in old[node]:
                    ref = pb.KeyRef(direction=direction, epoch=epoch_of, **_owned(owner))
                    retire.setdefault(node, []).append(pb.Change(delete=pb.ItemRef(key=ref)))
        return install, transmit, retire

    def _free_index(self, node: str) -> int:
        used = self._indices[node]
        index = 1 + max(used, default=0)
        if index >= 1 << 20:
            # Old ones are free again: start over below them.
            index = next(number for number in range(1, 1 << 20) if number not in used)
        used.add(index)
        return index


def _ways(owner: Owner) -> tuple[tuple[int, str, str], ...]:
    """Direction, who transmits, who receives."""
    return (DIRECTIONS[0], owner.a, owner.b), (DIRECTIONS[1], owner.b, owner.a)


def _owned(owner: Owner) -> dict[str, str]:
    return {owner.kind: owner.name}


def _id(ref: pb.KeyRef) -> tuple[str, str, int, int]:
    kind = ref.WhichOneof("owner")
    return kind, getattr(ref, kind), ref.direction, ref.epoch
