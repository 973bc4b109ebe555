"""gRPC's own client against a node: `grpcio.py FOLDER_OF_PROTO SOCKET`. The node has the VRF `red` and nothing else.

However a Replace breaks off, nothing is applied; a refusal of any size comes with its status and with details that gRPC's
libraries can read; and the health service answers. Prints what was wrong, and ends with status 1 if something was.
"""

import asyncio
import sys
import threading
import time

import grpc
from grpc_status import rpc_status

sys.path.insert(0, sys.argv[1])
pb, rpc = grpc.protos_and_services("twinseal/v1/control.proto")
TARGET = "unix:" + sys.argv[2]
OPTIONS = [("grpc.default_authority", "localhost")]
HALF = pb.ReplaceRequest(items=[pb.Item(vrf=pb.Vrf(name="half"))])
wrong = []


def check(what, right, seen):
    if not right:
        wrong.append(f"{what}: {seen}")


def channel():
    return grpc.insecure_channel(TARGET, options=OPTIONS)


def unchanged(how):
    # Once another may come, the node is done with the one that broke off.
    with channel() as fresh:
        stub = rpc.ControlStub(fresh)
        for _ in range(500):
            try:
                stub.Replace(iter([pb.ReplaceRequest(dry_run=True, allow_empty=True, commit=0)]))
                break
            except grpc.RpcError as error:
                check(how, error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error)
                time.sleep(0.02)
        got = stub.Get(pb.GetRequest())
    check(how, (got.generation, len(got.items)) == (1, 1), got)


def source(how, go_on):
    yield HALF
    if how == "its source raises":
        raise RuntimeError("the source broke")
    if how != "its source ends":
        go_on.wait(30)


def by_sync(how):
    go_on = threading.Event()
    timeout = 0.5 if how == "its time is over" else None
    with channel() as mine:
        try:
            call = rpc.ControlStub(mine).Replace.future(source(how, go_on), timeout=timeout)
            if how in ("it is cancelled", "its channel is closed"):
                time.sleep(0.3)
                call.cancel() if how == "it is cancelled" else mine.close()
            call.result()
            wrong.append(f"sync, {how}: applied")
        except (grpc.RpcError, grpc.FutureCancelledError):
            pass
    go_on.set()
    unchanged(f"sync, {how}")


async def by_asyncio(how):
    async def stream():
        yield HALF
        if how == "its source raises":
            raise RuntimeError("the source broke")
        if how != "its source ends":
            await asyncio.sleep(30)

    async with grpc.aio.insecure_channel(TARGET, options=OPTIONS) as mine:
        timeout = 0.5 if how == "its time is over" else None
        call = rpc.ControlStub(mine).Replace(stream(), timeout=timeout)
        try:
            if how in ("it is cancelled", "its channel is closed"):
                await asyncio.sleep(0.3)
                call.cancel() if how == "it is cancelled" else await mine.close()
            await call
            wrong.append(f"asyncio, {how}: applied")
        except (grpc.RpcError, asyncio.CancelledError, RuntimeError):
            pass


def refusals():
    with channel() as mine:
        stub = rpc.ControlStub(mine)
        for count in (1, 20, 30, 1000):
            route = lambda n: pb.Route(vrf=f"tenant-{n}", prefix=f"10.{n >> 8}.{n & 255}.0/24", circuit=f"circuit-{n}")
            changes = [pb.Change(set=pb.Item(route=route(n))) for n in range(count)]
            # Beyond a soft limit gRPC refuses headers by chance.
            for _ in range(20):
                try:
                    stub.Apply(pb.ApplyRequest(changes=changes))
                    wrong.append("applied")
                except grpc.RpcError as error:
                    check(f"{count} wrong routes", error.code() == grpc.StatusCode.INVALID_ARGUMENT, error)
                    last = error
            status = rpc_status.from_call(last)
            names = [detail.TypeName() for detail in status.details]
            check("details", names == ["google.rpc.ErrorInfo", "google.rpc.BadRequest", "twinseal.v1.Refusal"], names)
            refusal = pb.Refusal()
            check("a refusal", status.details[2].Unpack(refusal), status)
            check("its reasons", len(refusal.items) >= min(2 * count, 10), refusal)
            answer = stub.Apply(pb.ApplyRequest(changes=changes, refusal_in_response=True))
            check("all reasons", len(answer.refusal.items) >= min(2 * count, 1000), len(answer.refusal.items))


for how in ("its source ends", "its source raises", "its time is over", "it is cancelled", "its channel is closed"):
    by_sync(how)
    asyncio.run(by_asyncio(how))
    unchanged(f"asyncio, {how}")
refusals()
print("\n".join(wrong))
sys.exit(bool(wrong))
