"""The topology file: which nodes, links and tenants there are. Parsed once, never validated again."""

from __future__ import annotations

import ipaddress
import itertools
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")
PATTERNS = ("full-mesh", "hub-and-spoke")


class TopologyError(Exception):
    """All that is wrong with a topology file, a line each: where, what, and what to do."""


@dataclass(frozen=True)
class Underlay:
    """A port that faces other nodes."""

    name: str
    netdev: str


@dataclass(frozen=True)
class Site:
    """A port that faces a tenant's hosts, and the prefixes behind it."""

    name: str
    netdev: str
    vrf: str
    prefixes: tuple[str, ...]


@dataclass(frozen=True)
class Tls:
    """Files with the controller's certificate, and with who issued those of the nodes, PEM."""

    ca: str
    certificate: str
    key: str


@dataclass(frozen=True)
class Node:
    """A router: where its control socket is, and its ports. `tls_name` is in its certificate, if the host is not."""

    name: str
    target: str
    tls_name: str
    underlays: dict[str, Underlay]
    sites: dict[str, Site]


@dataclass(frozen=True)
class End:
    """One end of a link."""

    node: str
    port: str
    address: str
    next_hop: str


@dataclass(frozen=True)
class Link:
    """A hop between two nodes. `a` and `b` are the ends that the nodes agree on."""

    name: str
    a: End
    b: End
    cost: int

    def end(self, node: str) -> End:
        """The end that is at this node."""
        return self.a if self.a.node == node else self.b

    def other(self, node: str) -> str:
        """The node at the other end."""
        return self.b.node if self.a.node == node else self.a.node


@dataclass(frozen=True)
class Tenant:
    """A VRF, the nodes that have hosts in it, and which of them get circuits to each other."""

    vrf: str
    pattern: str
    hub: str | None
    backup: bool
    members: tuple[str, ...]
    tags: dict[str, str]

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of nodes that get a circuit, each once, its first end first."""
        if self.pattern == "hub-and-spoke":
            return [(self.hub, node) for node in self.members if node != self.hub]
        return list(itertools.combinations(self.members, 2))


@dataclass(frozen=True)
class Topology:
    """Everything in the file."""

    nodes: dict[str, Node] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    # For nodes that are reached over TCP.
    tls: Tls | None = None

    @staticmethod
    def load(path: str) -> Topology:
        """Reads a file.

        Raises `TopologyError` with everything that is wrong with it.
        """
        try:
            with open(path, encoding="utf-8") as file:
                document = yaml.safe_load(file)
        except OSError as error:
            raise TopologyError(f"{path}: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise TopologyError(f"{path}: this is no YAML: {error}") from error
        return Topology.parse(document)

    @staticmethod
    def parse(document: Any) -> Topology:
        """Checks a document and makes a topology of it; raises `TopologyError`."""
        parser = _Parser()
        topology = parser.topology(document)
        if parser.wrong:
            raise TopologyError("\n".join(parser.wrong))
        return topology


def is_unix(target: str) -> bool:
    """Whether a target is a Unix socket; else it is host:port, where nodes speak TLS only."""
    return target.startswith(("unix:", "unix-abstract:"))


class _Parser:
    """Collects what is wrong instead of stopping at the first."""

    def __init__(self) -> None:
        self.wrong: list[str] = []

    def topology(self, document: Any) -> Topology:
        top = self.table("", document, {"nodes", "links", "tenants", "tls"}, required={"nodes"})
        tls = self.tls(top["tls"]) if "tls" in top else None
        nodes = {name: self.node(name, value) for name, value in self.named("nodes", top.get("nodes"))}
        links = {
            name: self.link(name, value, nodes) for name, value in self.named("links", top.get("links", {}))
        }
        tenants = {
            vrf: self.tenant(vrf, value, nodes) for vrf, value in self.named("tenants", top.get("tenants", {}))
        }
        for node in nodes.values():
            for site in node.sites.values():
                if site.vrf not in tenants:
                    self.say(f"nodes.{node.name}.sites.{site.name}.vrf", f"there is no tenant {site.vrf!r}")
        for node in nodes.values():
            if not is_unix(node.target) and tls is None:
                self.say(f"nodes.{node.name}.target", f"{node.target!r} wants TLS: add `tls` with ca, certificate and key")
        return Topology(nodes, links, tenants, tls)

    def tls(self, value: Any) -> Tls:
        files = {"ca", "certificate", "key"}
        table = self.table("tls", value, files, required=files)
        return Tls(**{name: str(table.get(name, "")) for name in files})

    def node(self, name: str, value: Any) -> Node:
        at = f"nodes.{name}"
        table = self.table(at, value, {"target", "tls_name", "underlays", "sites"}, required={"target"})
        underlays, sites = {}, {}
        for port, settings in self.named(f"{at}.underlays", table.get("underlays", {})):
            where = f"{at}.underlays.{port}"
            ours = self.table(where, settings, {"netdev"}, required={"netdev"})
            underlays[port] = Underlay(port, str(ours.get("netdev", "")))
        for port, settings in self.named(f"{at}.sites", table.get("sites", {})):
            where = f"{at}.sites.{port}"
            ours = self.table(where, settings, {"netdev", "vrf", "prefixes"}, required={"netdev", "vrf", "prefixes"})
            prefixes = tuple(
                prefix
                for nth, text in enumerate(self.list(f"{where}.prefixes", ours.get("prefixes")))
                if (prefix := self.prefix(f"{where}.prefixes[{nth}]", text))
            )
            sites[port] = Site(port, str(ours.get("netdev", "")), str(ours.get("vrf", "")), prefixes)
        for port in underlays.keys() & sites.keys():
            self.say(f"{at}.sites.{port}", "an underlay has this name: give each port its own")
        return Node(name, str(table.get("target", "")), str(table.get("tls_name", "")), underlays, sites)

    def link(self, name: str, value: Any, nodes: dict[str, Node]) -> Link:
        at = f"links.{name}"
        table = self.table(at, value, {"a", "b", "cost"}, required={"a", "b"})
        cost = table.get("cost", 1)
        if not isinstance(cost, int) or isinstance(cost, bool) or cost < 1:
            self.say(f"{at}.cost", f"{cost!r} is no whole number from 1 up")
            cost = 1
        a, b = (self.end(f"{at}.{end}", table.get(end), nodes) for end in ("a", "b"))
        if a.node == b.node:
            self.say(at, f"both ends are at {a.node!r}: a link joins two nodes")
        families = {ipaddress.ip_address(end.address).version for end in (a, b)}
        if len(families) > 1:
            self.say(at, "the addresses are of two families: use IPv4 at both ends, or IPv6")
        return Link(name, a, b, cost)

    def end(self, at: str, value: Any, nodes: dict[str, Node]) -> End:
        table = self.table(at, value, {"node", "port", "address", "next_hop"}, required={"node", "port", "address"})
        node, port = str(table.get("node", "")), str(table.get("port", ""))
        if node not in nodes:
            self.say(f"{at}.node", f"there is no node {node!r}")
        elif port not in nodes[node].underlays:
            self.say(f"{at}.port", f"node {node!r} has no underlay {port!r}")
        address = self.address(f"{at}.address", table.get("address"))
        next_hop = table.get("next_hop")
        return End(node, port, address, self.address(f"{at}.next_hop", next_hop) if next_hop else "")

    def tenant(self, vrf: str, value: Any, nodes: dict[str, Node]) -> Tenant:
        at = f"tenants.{vrf}"
        table = self.table(at, value or {}, {"pattern", "hub", "backup", "tags"})
        pattern = table.get("pattern", "full-mesh")
        if pattern not in PATTERNS:
            self.say(f"{at}.pattern", f"{pattern!r} is none of {', '.join(PATTERNS)}")
        members = tuple(
            name for name, node in nodes.items() if any(site.vrf == vrf for site in node.sites.values())
        )
        hub = table.get("hub")
        if pattern == "hub-and-spoke" and hub not in members:
            self.say(f"{at}.hub", f"{hub!r} has no site of this tenant: name a node that has")
        tags = {str(key): str(text) for key, text in self.table(f"{at}.tags", table.get("tags", {}), None).items()}
        return Tenant(vrf, pattern, hub, bool(table.get("backup", False)), members, tags)

    def say(self, at: str, what: str) -> None:
        self.wrong.append(f"{at or 'the file'}: {what}")

    def table(self, at: str, value: Any, known: set[str] | None, required: set[str] = frozenset()) -> dict:
        if not isinstance(value, dict):
            self.say(at, "this is to be a table of fields")
            return {}
        for field_name in value.keys() - (known if known is not None else value.keys()):
            self.say(f"{at}.{field_name}".lstrip("."), f"there is no such field: use {', '.join(sorted(known))}")
        for field_name in sorted(required - value.keys()):
            self.say(f"{at}.{field_name}".lstrip("."), "this field is needed")
        return value

    def named(self, at: str, value: Any) -> list[tuple[str, Any]]:
        table = self.table(at, value if value is not None else {}, None)
        for name in table:
            if not NAME.fullmatch(str(name)):
                self.say(f"{at}.{name}", "a name is 1 to 32 of A-Z a-z 0-9 _ . -")
        return [(str(name), settings) for name, settings in table.items()]

    def list(self, at: str, value: Any) -> list:
        if not isinstance(value, list):
            self.say(at, "this is to be a list")
            return []
        return value

    def address(self, at: str, value: Any) -> str:
        try:
            return str(ipaddress.ip_address(str(value)))
        except ValueError:
            self.say(at, f"{value!r} is no IP address")
            return "0.0.0.0"

    def prefix(self, at: str, value: Any) -> str | None:
        try:
            return str(ipaddress.ip_network(str(value)))
        except ValueError as error:
            self.say(at, f"{error}: write it as 10.1.0.0/24 or 2001:db8::/64")
            return None
