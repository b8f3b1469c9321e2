"""gev's protobuf demo: messages with the names of their types, on gev's wire format.

    pip install 'gevffi[examples]'
    python examples/protobuf.py [ADDRESS]

A msg1 is answered by a msg2. The classes are made here, at run time, from what gev's `user.proto`
would say; with generated code they would be imported.
"""

from __future__ import annotations

import sys
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import DecodeError, Message

import gevffi
from gevffi.protobuf import Protobuf, pack_message

STRING, INT32 = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.TYPE_INT32


def message_types() -> dict[str, Any]:
    """The message classes, by the names that go over the wire."""
    file = descriptor_pb2.FileDescriptorProto(name="user.proto", package="proto", syntax="proto3")
    for name, fields in {
        "Msg1": {"name": STRING, "id": INT32},
        "Msg2": {"name": STRING, "alias": STRING, "id": INT32},
    }.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            message.field.add(
                name=field,
                number=number,
                type=kind,
                label=FieldDescriptorProto.LABEL_OPTIONAL,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name.lower(): message_factory.GetMessageClass(pool.FindMessageTypeByName(f"proto.{name}"))
        for name in ("Msg1", "Msg2")
    }


TYPES = message_types()


def pack(message: Message) -> bytes:
    """The frame of a message."""
    return pack_message(message.DESCRIPTOR.name.lower(), message.SerializeToString())


class Example(gevffi.Handler):
    def on_message(self, conn: gevffi.Connection, ctx: str, data: bytes) -> Any:
        if ctx not in TYPES:
            print("unknown type:", repr(ctx), flush=True)
            return None
        try:
            message = TYPES[ctx].FromString(data)
        except DecodeError as exc:
            raise gevffi.ProtocolError(f"no {ctx}: {exc}") from None
        print(f"{ctx}: {message.name!r}", flush=True)
        if ctx == "msg1":
            return pack(TYPES["msg2"](name=message.name, alias=f"big {message.name}", id=2))
        return None


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:1833"
    server = gevffi.Server(Example(), address, protocol=Protobuf(deliver="bytes"))
    server.run_after(0, lambda: print("listening on", server.address, flush=True))
    server.start()  # Ctrl-C or SIGTERM drains and stops
