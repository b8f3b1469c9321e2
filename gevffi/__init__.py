"""gevffi: reactor-style TCP servers on cffi, Go's gev reborn for Python.

    import gevffi

    class Echo(gevffi.Handler):
        def on_message(self, conn, ctx, data):
            return data

    gevffi.Server(Echo(), "127.0.0.1:1833").start()

`Handler` is what one writes, `Server` what one starts, `Connection` what one gets; `Client` is the
other end, for scripts, and `EventLoop.connect` for handlers. The system calls underneath are in
`gevffi.sys`, the ring buffer in `gevffi.ringbuf`.
"""

from gevffi.balance import Balance, LeastConnections, RoundRobin, SourceHash
from gevffi.batch import Batch
from gevffi.client import Client, ConnectionClosedError
from gevffi.connection import Connection
from gevffi.connection_info import CloseReason
from gevffi.framing import Delimited, FixedSize, Framing, LengthPrefixed
from gevffi.handler import Handler
from gevffi.listener import parse_address
from gevffi.loop import EventLoop
from gevffi.options import Options
from gevffi.protocol import FrameTooLargeError, Protocol, ProtocolError, Raw
from gevffi.ringbuf import ReadBuffer, RingBuffer
from gevffi.server import Server
from gevffi.stats import LoopStats
from gevffi.sys.sockaddr import Address
from gevffi.timers import Timer

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Balance",
    "Batch",
    "Client",
    "CloseReason",
    "Connection",
    "ConnectionClosedError",
    "Delimited",
    "EventLoop",
    "FixedSize",
    "FrameTooLargeError",
    "Framing",
    "Handler",
    "LeastConnections",
    "LengthPrefixed",
    "LoopStats",
    "Options",
    "Protocol",
    "ProtocolError",
    "Raw",
    "ReadBuffer",
    "RingBuffer",
    "RoundRobin",
    "Server",
    "SourceHash",
    "Timer",
    "parse_address",
]
