"""aiohttp's WebSocket server, on asyncio: what a web application in Python often has at hand."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from benchmarks.peers.asyncio_echo import BACKLOG


async def echo(request: web.Request) -> web.WebSocketResponse:
    """Sends back whatever comes."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.BINARY:
            await socket.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


async def serve() -> None:
    """Listen on a free port of 127.0.0.1, say which, and serve for ever."""
    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=BACKLOG)
    await site.start()
    print(f"listening on 127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
