"""A node's items as a state file, which `twinseal ctl apply` and etcd's agents take."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from .protocol import pb


def text(items: Iterable[pb.Item]) -> str:
    """The file, in YAML: a section a kind, which is its name in the protocol with an s."""
    sections: dict[str, list[Any]] = {}
    for item in items:
        kind = item.WhichOneof("item")
        sections.setdefault(f"{kind}s", []).append(_fields(getattr(item, kind)))
    return yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, width=120)


def _fields(message: Message) -> dict[str, Any]:
    """The fields that are set, by their names in the protocol, which are those of the file."""
    told = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            told[field.name] = dict(value)
        elif field.is_repeated:
            told[field.name] = [_value(field, one) for one in value]
        else:
            told[field.name] = _value(field, value)
    return told


def _value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return _fields(value)
    if field.enum_type is not None:
        # PORT_ROLE_EDGE is `edge`, DIRECTION_A_TO_B is `a-to-b`.
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", field.enum_type.name).upper() + "_"
        name = field.enum_type.values_by_number[value].name
        return name.removeprefix(prefix).lower().replace("_", "-")
    return value
