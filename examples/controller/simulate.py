"""How large the desired state of many nodes is: a made-up network of any size, planned as `plan` plans a real one.

    venv/bin/python simulate.py 10 100 1000

The network: regions of ten nodes, two of them hubs. The hubs of a region are joined to each other, and its other nodes to
both; hubs stand on a square that is closed to a torus, each joined to those beside it. Every node has one site with one
prefix; tenants have ten sites each, drawn at random (always the same), in a full mesh of circuits.

No node runs: it is arithmetic with the planner of this controller, not a measurement of a network.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from typing import Any

from google.protobuf.json_format import MessageToDict

from twinseal_controller import plan as planning
from twinseal_controller.topology import Topology

REGION, TENANT = 10, 10
# Keys of a link or circuit that both of its ends hold, in and out.
KEYS = 2


def network(nodes: int) -> dict[str, Any]:
    """The topology file of so many nodes, a multiple of ten."""
    if nodes < REGION or nodes % REGION:
        raise ValueError(f"{nodes} nodes: give a multiple of {REGION}")
    document: dict[str, Any] = {"nodes": {}, "links": {}, "tenants": {}}
    order = list(range(nodes))
    random.Random(1).shuffle(order)
    tenant_of = {node: f"tenant-{place // TENANT}" for place, node in enumerate(order)}
    for node in range(nodes):
        site = {"netdev": "eth1", "vrf": tenant_of[node], "prefixes": [f"10.{node >> 8}.{node & 255}.0/24"]}
        document["nodes"][_name(node)] = {
            "target": f"unix:/{_name(node)}",
            "underlays": {"wan": {"netdev": "eth0"}},
            "sites": {"lan": site},
        }
        document["tenants"][tenant_of[node]] = {}

    def join(a: int, b: int) -> None:
        a, b = sorted((a, b))
        ends = {end: {"node": _name(node), "port": "wan", "address": _address(node)} for end, node in (("a", a), ("b", b))}
        document["links"][f"{_name(a)}.{_name(b)}"] = ends

    regions = nodes // REGION
    width = math.isqrt(regions)
    for region in range(regions):
        first = region * REGION
        join(first, first + 1)
        for node in range(first + 2, first + REGION):
            join(first, node)
            join(first + 1, node)
        for other in ((region + 1) % regions, (region + width) % regions):
            if other != region:
                for hub in (0, 1):
                    join(first + hub, other * REGION + hub)
    return document


def measure(nodes: int) -> dict[str, Any]:
    """What the planner comes to for so many nodes: counts, and octets of the state as JSON."""
    topology = Topology.parse(network(nodes))
    begin = time.monotonic()
    plan = planning.make(topology)
    seconds = time.monotonic() - begin
    sizes = [
        sum(len(json.dumps(MessageToDict(item), separators=(",", ":"))) for item in items.values())
        for items in plan.items.values()
    ]
    return {
        "nodes": nodes,
        "links": len(topology.links),
        "circuits": sum(owner.kind == "circuit" for owner in plan.owners.values()),
        "items": sum(len(items) for items in plan.items.values()),
        "keys": 2 * KEYS * len(plan.owners),
        "most_items": max(len(items) for items in plan.items.values()),
        "median_bytes": round(statistics.median(sizes)),
        "most_bytes": max(sizes),
        "all_bytes": sum(sizes),
        "unreachable": len(plan.unreachable),
        "seconds": round(seconds, 2),
    }


def _name(node: int) -> str:
    return f"n{node}"


def _address(node: int) -> str:
    return f"172.{16 + (node >> 16)}.{node >> 8 & 255}.{node & 255}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nodes", type=int, nargs="*", default=[10, 100, 1000], help="how many, multiples of ten")
    for nodes in parser.parse_args().nodes:
        print(json.dumps(measure(nodes)), flush=True)


if __name__ == "__main__":
    main()
