"""Shortest paths over the links, and backups that share as little as possible with them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .topology import Link

# What a link already used by the first path costs a backup more: avoided wherever there is another way.
SHARED = 1_000_000


@dataclass(frozen=True)
class Path:
    """A way from `nodes[0]` to `nodes[-1]`; `links[i]` joins `nodes[i]` and `nodes[i + 1]`."""

    nodes: tuple[str, ...]
    links: tuple[str, ...]


def shortest(
    links: Iterable[Link], source: str, target: str, cost: Callable[[Link], int] = lambda link: link.cost
) -> Path | None:
    """The cheapest path (Dijkstra), the one of the first names among equals; None if there is none."""
    beside: dict[str, list[Link]] = {}
    for link in sorted(links, key=lambda link: link.name):
        beside.setdefault(link.a.node, []).append(link)
        beside.setdefault(link.b.node, []).append(link)
    reached: set[str] = set()
    # Ties are broken by the path itself, so that every run computes the same circuits.
    queue: list[tuple[int, tuple[str, ...], tuple[str, ...]]] = [(0, (source,), ())]
    while queue:
        so_far, nodes, used = heapq.heappop(queue)
        here = nodes[-1]
        if here == target:
            return Path(nodes, used)
        if here in reached:
            continue
        reached.add(here)
        for link in beside.get(here, []):
            there = link.other(here)
            if there not in reached:
                heapq.heappush(queue, (so_far + cost(link), (*nodes, there), (*used, link.name)))
    return None


def backup(links: Iterable[Link], first: Path) -> Path | None:
    """A path between the same ends that shares as few links with the first as it can; None if it is the same."""
    links = list(links)
    path = shortest(
        links,
        first.nodes[0],
        first.nodes[-1],
        lambda link: link.cost + (SHARED if link.name in first.links else 0),
    )
    return path if path is not None and path != first else None
