"""`python -m gevffi`: a server in one command."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Any

from gevffi import Connection, Delimited, Handler, LengthPrefixed, Protocol, Raw, Server, ws

PROTOCOLS: dict[str, type[Protocol]] = {
    "raw": Raw,
    "lines": Delimited,
    "length-prefixed": LengthPrefixed,
}
"""What `--protocol` may be, each with its defaults."""


class Echo(Handler):
    """Sends back what it gets."""

    def on_message(self, conn: Connection, ctx: Any, data: Any) -> Any:
        """Return the message."""
        return data


class WebSocketEcho(ws.Handler):
    """Sends back every message, text as text and binary as binary."""

    def on_message(self, conn: ws.Connection, message: Any) -> Any:
        """Return the message."""
        return message


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m gevffi", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    echo = commands.add_parser("echo", help="send back what comes in")
    echo.add_argument("--address", default="127.0.0.1:1833", help="default: %(default)s")
    echo.add_argument("--loops", type=int, default=1, help="event loops; default: %(default)s")
    echo.add_argument("--reuse-port", action="store_true", help="a listening socket per loop")
    echo.add_argument(
        "--idle-time",
        type=float,
        default=0,
        metavar="SECONDS",
        help="close connections silent for so long; default: never",
    )
    echo.add_argument(
        "--metrics-address",
        metavar="ADDRESS",
        help="serve metrics to Prometheus there; default: nowhere",
    )
    echo.add_argument(
        "--protocol",
        choices=list(PROTOCOLS),
        default="raw",
        help="what a message is: whatever was read, a line of at most 64 KiB, or at most 1 MiB "
        "behind a big-endian length of 4 bytes; default: %(default)s",
    )
    ws_echo = commands.add_parser("ws-echo", help="send back WebSocket messages")
    ws_echo.add_argument("--address", default="127.0.0.1:9001", help="default: %(default)s")
    ws_echo.add_argument("--loops", type=int, default=1, help="event loops; default: %(default)s")
    ws_echo.add_argument("--no-compression", action="store_true", help="no permessage-deflate")
    ws_echo.add_argument(
        "--max-message-size",
        type=int,
        default=1 << 20,
        metavar="BYTES",
        help="larger messages close the connection with 1009; default: %(default)s",
    )
    return top


def server_for(arguments: argparse.Namespace) -> Server:
    """Return the server that the command line asks for.

    Raises:
        ValueError: an argument is out of its range.
    """
    if arguments.command == "ws-echo":
        return ws.Server(
            WebSocketEcho(),
            arguments.address,
            loops=arguments.loops,
            compression=None if arguments.no_compression else ws.Deflate(),
            max_message_size=arguments.max_message_size,
            text="bytes",
        )
    return Server(
        Echo(),
        arguments.address,
        protocol=PROTOCOLS[arguments.protocol](),
        loops=arguments.loops,
        reuse_port=arguments.reuse_port,
        idle_time=arguments.idle_time,
        metrics_address=arguments.metrics_address,
    )


def announce(server: Server) -> None:
    """Say where the server can be reached."""
    print(f"listening on {server.address}", flush=True)
    if server.metrics_address is not None:
        print(f"metrics at http://{server.metrics_address}/metrics", flush=True)


def main() -> int:
    """Run the server until Ctrl-C or SIGTERM; return the exit status."""
    arguments = parser().parse_args()
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        server = server_for(arguments)
        server.run_after(0, announce, server)
        server.start()
    except (ValueError, OSError, ImportError) as exc:
        print(f"gevffi: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
