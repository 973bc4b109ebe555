"""The controller's loop: hear of what happens, compute what should be, tell the nodes the difference."""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass

from . import plan as planning
from .keys import Changes, Keyring
from .node import Connection, Down, Gone, Happened, Refused, Up, key_of, reference
from .plan import Key, Owner, Plan
from .protocol import pb
from .topology import Topology

log = logging.getLogger(__name__)

# Seconds that packets on an old path, or under an old key, may still be under way.
DRAIN = 0.5
# What happens together is handled together.
SETTLE = 0.1
# After a failure, and even if nothing was heard.
AGAIN, LOOK = 1.0, 30.0


@dataclass(frozen=True)
class Difference:
    """What one node lacks: applied in this order, each step at all nodes before the next begins."""

    new: list[pb.Change]
    changed: list[pb.Change]
    gone: list[pb.Change]


def difference(want: dict[Key, pb.Item], have: dict[Key, pb.Item]) -> Difference:
    """What makes `have` into `want`. Routes come with the changes: what they point at must be everywhere before."""
    sets = {key: item for key, item in want.items() if have.get(key) != item}
    late = {key for key in sets if key in have or key[0] == "route"}
    return Difference(
        [pb.Change(set=item) for key, item in sets.items() if key not in late],
        [pb.Change(set=item) for key, item in sets.items() if key in late],
        [pb.Change(delete=reference(key)) for key in have if key not in want],
    )


class Controller:
    """Keeps the nodes of a topology as its plan says."""

    def __init__(self, topology: Topology, rotate_every: float | None = None) -> None:
        self.topology = topology
        self.rotate_every = rotate_every
        self.inbox: queue.Queue = queue.Queue()
        self.nodes = {node.name: Connection(node, topology.tls, self.inbox) for node in topology.nodes.values()}
        self.reachable: set[str] = set()
        self.told_unreachable: list[tuple[str, str, str]] = []

    def run(self, stop_when_done: bool = False) -> None:
        """Works until interrupted, or until all nodes are as they should be."""
        for node in self.nodes.values():
            node.start()
        rotate_at = time.monotonic() + self.rotate_every if self.rotate_every else None
        due: float | None = None
        try:
            while True:
                now = time.monotonic()
                if due is not None and now >= due:
                    done = self.reconcile()
                    due = None if done else time.monotonic() + AGAIN
                    if done and stop_when_done and self.reachable == self.nodes.keys():
                        return
                if rotate_at is not None and now >= rotate_at:
                    self.rotate_all()
                    rotate_at = time.monotonic() + self.rotate_every
                wakes = [time.monotonic() + LOOK] + [at for at in (due, rotate_at) if at is not None]
                if self.hear(max(0.0, min(wakes) - time.monotonic())):
                    due = time.monotonic() + SETTLE if due is None else min(due, time.monotonic() + SETTLE)
        finally:
            for node in self.nodes.values():
                node.close()

    def hear(self, patience: float) -> bool:
        """Waits for news and says whether they may call for changes."""
        try:
            news = self.inbox.get(timeout=patience)
        except queue.Empty:
            return True
        match news:
            case Up(name):
                log.info("%s: reachable", name)
                self.reachable.add(name)
            case Down(name):
                if name in self.reachable:
                    log.warning("%s: not reachable; what it forwards goes on as it is", name)
                self.reachable.discard(name)
                return False
            case Happened(name, event):
                return self._heard(name, event)
        return True

    def _heard(self, name: str, event: pb.Event) -> bool:
        kind = event.WhichOneof("event")
        match kind:
            case "link":
                state = pb.LinkStatus.Name(event.link.status).removeprefix("LINK_STATUS_").lower()
                if event.link.reason:
                    state += f": {event.link.reason}"
                log.info("%s: link %s is %s", name, event.link.link, state)
                return True
            case "fault":
                log.warning("%s: %s: %s", name, event.fault.kind, event.fault.detail)
                return False
            case "gap":
                log.warning("%s: events %d to %d are missing", name, event.gap.first, event.gap.next - 1)
                return True
            case "drain":
                target = event.drain.target
                what = target.WhichOneof("target")
                status = pb.DrainStatus.Name(event.drain.status).removeprefix("DRAIN_STATUS_").lower()
                log.info("%s: %s %s is %s", name, what, getattr(target, what) if what != "node" else name, status)
                return True
            case "key":
                return event.key.change == pb.KEY_CHANGE_NEARLY_EXHAUSTED
            case _:
                return False

    def reconcile(self) -> bool:
        """Brings all nodes that can be reached to the plan; whether that was possible."""
        try:
            states = {name: self.nodes[name].get() for name in sorted(self.reachable)}
            plan = planning.make(self.topology, _down(states), _draining(states))
            self._tell_unreachable(plan)
            steps = {}
            for name, state in states.items():
                have = {key: item for item in state.items if (key := key_of(item)) is not None}
                steps[name] = difference(plan.items[name], have)
            self._apply({name: step.new for name, step in steps.items()})
            self._give_keys(plan)
            self._apply({name: step.changed for name, step in steps.items()})
            if any(step.gone for step in steps.values()):
                time.sleep(DRAIN)
                self._apply({name: step.gone for name, step in steps.items()})
        except (Gone, Refused) as error:
            log.error("%s", error)
            return False
        return True

    def rotate_all(self) -> None:
        """New keys for every link and circuit whose ends can both be reached."""
        try:
            states = {name: self.nodes[name].get() for name in sorted(self.reachable)}
            plan = planning.make(self.topology, _down(states), _draining(states))
            owners = [owner for owner in plan.owners.values() if _at_hand(owner, states) and _known(owner, states)]
            self._rotate(Keyring(states), owners)
        except (Gone, Refused) as error:
            # The next reconciliation gives keys to whoever was left without.
            log.error("keys not rotated: %s", error)
            self.inbox.put(Up(next(iter(self.nodes))))

    def _give_keys(self, plan: Plan) -> None:
        """Keys for those that have none at both ends, as after a node's restart: its old secrets must not seal again."""
        states = {name: self.nodes[name].get() for name in sorted(self.reachable)}
        keyring = Keyring(states)
        owners = [
            owner for owner in plan.owners.values() if _at_hand(owner, states) and not keyring.is_good(owner)
        ]
        self._rotate(keyring, owners)

    def _rotate(self, keyring: Keyring, owners: list[Owner]) -> None:
        if not owners:
            return
        install, transmit, retire = keyring.rotate(owners)
        self._apply(install)
        self._apply(transmit)
        if retire:
            time.sleep(DRAIN)
            self._apply(retire)
        log.info("new keys for %s", ", ".join(f"{owner.kind} {owner.name}" for owner in owners))

    def _apply(self, changes: Changes) -> None:
        for name, of_node in changes.items():
            if of_node:
                generation = self.nodes[name].apply(of_node)
                log.info("%s: %d changes, generation %d", name, len(of_node), generation)

    def _tell_unreachable(self, plan: Plan) -> None:
        for vrf, a, b in plan.unreachable:
            if (vrf, a, b) not in self.told_unreachable:
                log.error("tenant %s: no path joins %s and %s", vrf, a, b)
        self.told_unreachable = plan.unreachable


def _down(states: dict[str, pb.GetResponse]) -> set[str]:
    """Links that either end says are down. A link that no node knows yet counts as up."""
    return {link.link for state in states.values() for link in state.links if not link.up}


def _draining(states: dict[str, pb.GetResponse]) -> set[str]:
    """Links that an operator is taking out of service at either end."""
    return {link.link for state in states.values() for link in state.links if link.draining}


def _at_hand(owner: Owner, states: dict[str, pb.GetResponse]) -> bool:
    return owner.a in states and owner.b in states


def _known(owner: Owner, states: dict[str, pb.GetResponse]) -> bool:
    """Whether both nodes have it: not while a new one is still being set up."""
    key = (owner.kind, owner.name)
    return all(any(key_of(item) == key for item in states[node].items) for node in (owner.a, owner.b))
