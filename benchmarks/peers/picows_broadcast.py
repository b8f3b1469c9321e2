"""picows on uvloop, sending what it reads to everybody: a `send` for each; it has no broadcast."""

from __future__ import annotations

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from benchmarks.peers.picows_echo import answer_close, serve

everybody: set[WSTransport] = set()


class Hub(WSListener):
    """Sends whatever comes to all of them."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        everybody.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        everybody.discard(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            answer_close(transport, frame)
        else:
            message = frame.get_payload_as_bytes()
            for other in everybody:
                other.send(frame.msg_type, message)


if __name__ == "__main__":
    uvloop.run(serve(Hub))
