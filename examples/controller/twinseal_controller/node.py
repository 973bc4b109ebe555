"""The way to one node: calls that name the node when they fail, and a thread that follows its events."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_status import rpc_status

from .plan import Key
from .protocol import pb, rpc
from .topology import Node, Tls, is_unix

# Seconds that a call may take, and between two tries to reach a node that is gone.
CALL, RETRY = 30, 0.5


class Refused(Exception):
    """A node refused a transaction and changed nothing; `items` says which changes and why."""

    def __init__(self, node: str, items: Sequence[pb.RefusedItem], message: str) -> None:
        lines = [f"{item.item}: {item.field}: {item.reason}; {item.fix}" for item in items] or [message]
        super().__init__("\n".join(f"{node} refused: {line}" for line in lines))
        self.items = items


class Gone(Exception):
    """A node cannot be reached."""


@dataclass(frozen=True)
class Up:
    """A node can be reached (again), and may have lost everything meanwhile."""

    node: str


@dataclass(frozen=True)
class Down:
    """A node cannot be reached any more."""

    node: str


@dataclass(frozen=True)
class Happened:
    """A node's event."""

    node: str
    event: pb.Event


class Connection:
    """The way to one node."""

    def __init__(self, node: Node, tls: Tls | None, inbox: queue.Queue) -> None:
        self.name = node.name
        self._channel = _channel(node, tls)
        self._stub = rpc.ControlStub(self._channel)
        self._inbox = inbox
        self._stopped = threading.Event()
        self._watch: grpc.Future | None = None
        self._follower = threading.Thread(target=self._follow, name=f"events of {node.name}", daemon=True)

    def start(self) -> None:
        """Begins to follow the node's events: `Up`, `Happened` and `Down` go to the inbox."""
        self._follower.start()

    def close(self) -> None:
        """Ends the thread and the connection."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.cancel()
        self._channel.close()
        self._follower.join(timeout=5)

    def apply(self, changes: Sequence[pb.Change]) -> int:
        """One transaction; returns the generation. Raises `Refused` or `Gone`."""
        return self._call(self._stub.Apply, pb.ApplyRequest(changes=changes)).generation

    def get(self) -> pb.GetResponse:
        """The node's state and what became of it, of any size. Raises `Gone`."""

        def merged(request: pb.GetRequest, timeout: float) -> pb.GetResponse:
            state = pb.GetResponse()
            for part in self._stub.List(request, timeout=timeout):
                state.MergeFrom(part)
            return state

        return self._call(merged, pb.GetRequest())

    def _call(self, call: Callable, request):
        try:
            return call(request, timeout=CALL)
        except grpc.RpcError as error:
            refused = _refusal(error)
            if refused is not None:
                raise Refused(self.name, refused.items, error.details()) from error
            raise Gone(f"{self.name} cannot be reached: {error.details()}") from error

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                self._watch = self._stub.Watch(pb.WatchRequest(), wait_for_ready=True)
                # The stream's headers say that the node has begun to tell: nothing after them is missed. A call that
                # failed has headers too, and the reason only then.
                self._watch.initial_metadata()
                if not self._watch.done():
                    self._inbox.put(Up(self.name))
                for event in self._watch:
                    self._inbox.put(Happened(self.name, event))
            except (grpc.RpcError, ValueError):
                pass  # Whatever broke the stream, the answer is to connect again.
            if not self._stopped.is_set():
                self._inbox.put(Down(self.name))
                self._stopped.wait(RETRY)


def _channel(node: Node, tls: Tls | None) -> grpc.Channel:
    """A channel to a node; raises `OSError` if a certificate's file cannot be read."""
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]
    if is_unix(node.target):
        # The path would be sent as authority, with escapes that no HTTP/2 server of Rust's takes.
        options.append(("grpc.default_authority", "localhost"))
        return grpc.insecure_channel(node.target, options)
    assert tls is not None, "the topology was checked"
    ca, key, certificate = (Path(file).read_bytes() for file in (tls.ca, tls.key, tls.certificate))
    if node.tls_name:
        options.append(("grpc.ssl_target_name_override", node.tls_name))
    return grpc.secure_channel(node.target, grpc.ssl_channel_credentials(ca, key, certificate), options)


def _refusal(error: grpc.RpcError) -> pb.Refusal | None:
    """The refusal in a status's details; None if the call failed for another reason."""
    refusing = (
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
    if error.code() == grpc.StatusCode.PERMISSION_DENIED:
        # Its details are no refusal of items; its message says which role is needed.
        return pb.Refusal()
    if error.code() not in refusing:
        return None
    refusal = pb.Refusal()
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Is(pb.Refusal.DESCRIPTOR):
            detail.Unpack(refusal)
    return refusal


def key_of(item: pb.Item) -> Key | None:
    """What makes an item unique, as in `plan.Plan.items`; None for keys and what transmits."""
    kind = item.WhichOneof("item")
    value = getattr(item, kind)
    match kind:
        case "port" | "vrf" | "link" | "circuit" | "group":
            return kind, value.name
        case "label":
            return kind, value.link, value.label
        case "route":
            return kind, value.vrf, value.prefix
        case "neighbour":
            return kind, value.port, value.address
        case _:
            return None


def reference(key: Key) -> pb.ItemRef:
    """The reference to an item by its key."""
    kind, *names = key
    match kind:
        case "label":
            return pb.ItemRef(label=pb.LabelRef(link=names[0], label=names[1]))
        case "route":
            return pb.ItemRef(route=pb.RouteRef(vrf=names[0], prefix=names[1]))
        case "neighbour":
            return pb.ItemRef(neighbour=pb.NeighbourRef(port=names[0], address=names[1]))
        case _:
            return pb.ItemRef(**{kind: names[0]})
