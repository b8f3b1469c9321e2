"""picows on uvloop: the fastest WebSocket library for Python that was found, written in Cython.

Its frames are views of the receive buffer, valid until the callback returns, and are sent as such.
A Close frame is the listener's to answer. Whether it uses uvloop's transports or those of
aiofastnet is picows' own choice: the latter where they are installed, as they are with picows.
"""

from __future__ import annotations

from collections.abc import Callable

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

from benchmarks.peers.asyncio_echo import BACKLOG


class Echo(WSListener):
    """Sends back whatever comes."""

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            answer_close(transport, frame)
        else:
            transport.send(frame.msg_type, frame.get_payload_as_memoryview())


def answer_close(transport: WSTransport, frame: WSFrame) -> None:
    """Send the Close frame back and end the connection."""
    transport.send_close(frame.get_close_code(), frame.get_close_message())
    transport.disconnect()


async def serve(listener: Callable[[], WSListener]) -> None:
    """Listen on a free port of 127.0.0.1, say which, and serve for ever."""

    def accept(request: WSUpgradeRequest) -> WSListener:
        return listener()

    server = await ws_create_server(accept, "127.0.0.1", 0, backlog=BACKLOG)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Echo))
