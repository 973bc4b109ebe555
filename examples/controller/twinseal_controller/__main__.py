"""The command line. Exit statuses: 0 it worked, 1 it failed, 2 the command line or the topology file is wrong."""

from __future__ import annotations

import argparse
import logging
import sys

from . import plan as planning
from . import state_file
from .controller import Controller
from .topology import Topology, TopologyError


def main() -> int:
    """Reads the command line and does it."""
    parser = argparse.ArgumentParser(prog="twinseal_controller", description="A controller for Twinseal nodes.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="bring the nodes to the topology and keep them there")
    run.add_argument("topology", help="a YAML file; see example.yaml")
    run.add_argument("--rotate-every", type=float, metavar="SECONDS", help="replace all keys so often")
    run.add_argument("--once", action="store_true", help="end as soon as all nodes are as they should be")
    show = commands.add_parser(
        "plan", help="print what each node would be told, as state files for `twinseal ctl apply`, and tell nobody"
    )
    show.add_argument("topology")
    show.add_argument("--node", metavar="NAME", help="only this node's: one state file")
    show.add_argument("--down", action="append", default=[], metavar="LINK", help="as if this link were down")
    args = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        topology = Topology.load(args.topology)
    except TopologyError as error:
        print(error, file=sys.stderr)
        return 2
    if args.command == "plan":
        for name in args.down:
            if name not in topology.links:
                print(f"--down {name}: there is no such link", file=sys.stderr)
                return 2
        if args.node is not None and args.node not in topology.nodes:
            print(f"--node {args.node}: there is no such node", file=sys.stderr)
            return 2
        _print(planning.make(topology, args.down), args.node)
        return 0
    try:
        controller = Controller(topology, args.rotate_every)
    except OSError as error:
        print(f"tls: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    try:
        controller.run(args.once)
    except KeyboardInterrupt:
        pass
    return 0


def _print(plan: planning.Plan, only: str | None) -> None:
    """State files: one a YAML document, which `ctl apply` takes one of."""
    for nth, (node, items) in enumerate(plan.items.items()):
        if only is None:
            print("---" if nth else "", f"# the state file of {node}; its keys come with `run`", sep="\n" if nth else "")
        if only in (None, node):
            print(state_file.text(items.values()), end="")
    for vrf, a, b in plan.unreachable:
        print(f"tenant {vrf}: no path joins {a} and {b}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
