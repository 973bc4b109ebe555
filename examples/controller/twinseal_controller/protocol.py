"""The control protocol, compiled from its .proto when the controller starts: there is no generated code to keep."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import grpc

PROTO = "twinseal/v1/control.proto"


def _folder() -> Path:
    """The folder that holds the .proto: TWINSEAL_PROTO, or this repository's."""
    named = os.environ.get("TWINSEAL_PROTO")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "api" / "proto"
    if not (folder / PROTO).is_file():
        raise SystemExit(f"there is no {PROTO} in {folder}: name its folder in TWINSEAL_PROTO")
    return folder


sys.path.insert(0, str(_folder()))
pb, rpc = grpc.protos_and_services(PROTO)
