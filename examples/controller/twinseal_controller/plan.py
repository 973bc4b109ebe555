"""What each node is to be told: pure, from the topology and the links that are down.

A circuit runs between two nodes of a tenant. On each of its links it has a label a direction, chosen by hash of the
circuit's name and path, so that the same file always gives the same labels and a new node changes nobody else's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from . import paths
from .paths import Path
from .protocol import pb
from .topology import End, Link, Tenant, Topology

# What makes an item unique at its node: its kind, and the fields that name it.
Key = tuple

# What a node fills in where an item says nothing: told back, so that what is planned equals what is there.
UDP_PORT, HOP_LIMIT = 21591, 64

# Labels are indices into tables of the nodes: kept small, so that these tables are.
FIRST_LABEL, LABELS = 16, 1 << 20


@dataclass(frozen=True)
class Owner:
    """A link or circuit, whose two ends share keys. `a` transmits a-to-b."""

    kind: str
    name: str
    a: str
    b: str


@dataclass
class Plan:
    """The desired state of all nodes but for their keys."""

    items: dict[str, dict[Key, pb.Item]] = field(default_factory=dict)
    owners: dict[tuple[str, str], Owner] = field(default_factory=dict)
    # Pairs of sites that no path joins now.
    unreachable: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, node: str, key: Key, item: pb.Item) -> None:
        """Adds an item to a node's state."""
        self.items[node][key] = item


def make(topology: Topology, down: Iterable[str] = (), draining: Iterable[str] = ()) -> Plan:
    """The state of all nodes, with circuits that avoid the links that are `down`, and before that those that are
    `draining`, where they can."""
    plan = Plan({name: {} for name in topology.nodes})
    _ports(plan, topology)
    for link in topology.links.values():
        _link(plan, link)
    labels = _Labels()
    down, draining = set(down), set(draining)
    for tenant in topology.tenants.values():
        for a, b in tenant.pairs():
            _pair(plan, topology, labels, tenant, a, b, down, draining)
    return plan


def _ports(plan: Plan, topology: Topology) -> None:
    for node in topology.nodes.values():
        for underlay in node.underlays.values():
            port = pb.Port(name=underlay.name, role=pb.PORT_ROLE_UNDERLAY, af_xdp=pb.AfXdp(netdev=underlay.netdev))
            plan.add(node.name, ("port", underlay.name), pb.Item(port=port))
        for site in node.sites.values():
            port = pb.Port(
                name=site.name, role=pb.PORT_ROLE_EDGE, vrf=site.vrf, af_xdp=pb.AfXdp(netdev=site.netdev)
            )
            plan.add(node.name, ("port", site.name), pb.Item(port=port))
            plan.add(node.name, ("vrf", site.vrf), pb.Item(vrf=pb.Vrf(name=site.vrf)))
            for prefix in site.prefixes:
                route = pb.Route(vrf=site.vrf, prefix=prefix, via=pb.Via(port=site.name))
                plan.add(node.name, ("route", site.vrf, prefix), pb.Item(route=route))


def _link(plan: Plan, link: Link) -> None:
    plan.owners["link", link.name] = Owner("link", link.name, link.a.node, link.b.node)
    for end, ours, theirs in ((pb.END_A, link.a, link.b), (pb.END_B, link.b, link.a)):
        plan.add(ours.node, ("link", link.name), pb.Item(link=_link_end(link, end, ours, theirs)))


def _link_end(link: Link, end: int, ours: End, theirs: End) -> pb.Link:
    return pb.Link(
        name=link.name,
        end=end,
        port=ours.port,
        local=ours.address,
        remote=theirs.address,
        local_port=UDP_PORT,
        remote_port=UDP_PORT,
        next_hop=ours.next_hop,
    )


def _pair(
    plan: Plan,
    topology: Topology,
    labels: _Labels,
    tenant: Tenant,
    a: str,
    b: str,
    down: set[str],
    draining: set[str],
) -> None:
    """The circuits between two nodes, and the routes into the better of them."""
    links = topology.links.values()
    up = [link for link in links if link.name not in down]
    circuits: list[tuple[str, Path]] = []
    name = f"{tenant.vrf}.{a}.{b}"
    calm = [link for link in up if link.name not in draining]
    if tenant.backup:
        first = paths.shortest(links, a, b)
    else:
        first = paths.shortest(calm, a, b) or paths.shortest(up, a, b)
    if first is not None:
        circuits.append((name, first))
        # A backup stands ready with keys of its own: to move to it is one route at each end.
        second = paths.backup(links, first) if tenant.backup else None
        if second is not None:
            circuits.append((f"{name}.backup", second))
    for circuit, path in circuits:
        _circuit(plan, labels, tenant, circuit, path)
    usable = [circuit for circuit, path in circuits if not down.intersection(path.links)]
    better = [circuit for circuit, path in circuits if not (down | draining).intersection(path.links)]
    if not usable:
        plan.unreachable.append((tenant.vrf, a, b))
    # With no way left, routes stay where they are: the node counts what it drops.
    chosen = (better or usable or [circuit for circuit, _ in circuits])[:1]
    for circuit in chosen:
        for here, there in ((a, b), (b, a)):
            for prefix in _behind(topology, tenant, here, there):
                route = pb.Route(vrf=tenant.vrf, prefix=prefix, circuit=circuit)
                plan.add(here, ("route", tenant.vrf, prefix), pb.Item(route=route))


def _behind(topology: Topology, tenant: Tenant, here: str, there: str) -> list[str]:
    """The prefixes that `here` reaches through `there`: its own, and through a hub those of all other spokes."""
    nodes = [there]
    if there == tenant.hub and tenant.pattern == "hub-and-spoke":
        nodes += [node for node in tenant.members if node not in (here, there)]
    sites = (site for node in nodes for site in topology.nodes[node].sites.values())
    return [prefix for site in sites if site.vrf == tenant.vrf for prefix in site.prefixes]


def _circuit(plan: Plan, labels: _Labels, tenant: Tenant, name: str, path: Path) -> None:
    a, b = path.nodes[0], path.nodes[-1]
    plan.owners["circuit", name] = Owner("circuit", name, a, b)
    # There and back, by what each hop awaits: labels[i] is known to the node at the far end of links[i].
    there = [labels.take(name, path, link, to) for link, to in zip(path.links, path.nodes[1:])]
    back = [labels.take(name, path, link, to) for link, to in zip(path.links, path.nodes)]
    for node, end, link, out, into in (
        (a, pb.END_A, path.links[0], there[0], back[0]),
        (b, pb.END_B, path.links[-1], back[-1], there[-1]),
    ):
        circuit = pb.Circuit(
            name=name,
            id=_hash(f"circuit {name}", 63) or 1,
            end=end,
            vrf=tenant.vrf,
            link=link,
            label=out,
            hop_limit=HOP_LIMIT,
            tags=tenant.tags,
        )
        plan.add(node, ("circuit", name), pb.Item(circuit=circuit))
        label = pb.Label(link=link, label=into, egress=pb.Egress(circuit=name))
        plan.add(node, ("label", link, into), pb.Item(label=label))
    for nth, node in enumerate(path.nodes[1:-1]):
        before, after = path.links[nth], path.links[nth + 1]
        for came, label, goes, next_label in (
            (before, there[nth], after, there[nth + 1]),
            (after, back[nth + 1], before, back[nth]),
        ):
            swap = pb.Label(link=came, label=label, swap=pb.Swap(link=goes, label=next_label))
            plan.add(node, ("label", came, label), pb.Item(label=swap))


class _Labels:
    """Hands out labels: a hash, or the next free one if two meet."""

    def __init__(self) -> None:
        self.taken: set[tuple[str, str, int]] = set()

    def take(self, circuit: str, path: Path, link: str, to: str) -> int:
        """The label under which `to` awaits this circuit's packets on `link`."""
        # The path is in the hash: a circuit that moves has new labels, and its packets on the old way still arrive.
        place = _hash(f"label {circuit} {'/'.join(path.links)} {link} {to}", 32) % LABELS
        while (link, to, place) in self.taken:
            place = (place + 1) % LABELS
        self.taken.add((link, to, place))
        return FIRST_LABEL + place


def _hash(text: str, bits: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - bits)
