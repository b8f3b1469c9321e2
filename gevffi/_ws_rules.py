"""What a request must be to be answered at all, and to open a WebSocket.

Whatever is not right is a `RefuseError` with the status that the RFCs ask for.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import urlsplit

from gevffi._ws_http import (
    Fields,
    Request,
    Response,
    has_token,
    parse_extensions,
    parse_subprotocols,
)

_HOST = re.compile(r"(?:[\w.~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?", re.ASCII)


class RefuseError(Exception):
    """Raised by a hook of `Upgrader`: the handshake is refused, and the connection closes.

    Args:
        status, body, headers: of the `Response`.
    """

    def __init__(
        self, status: int = 403, body: str | bytes | None = None, headers: Fields = ()
    ) -> None:
        self.response = Response(status, body, headers)
        super().__init__(f"{self.response.status.value} {self.response.status.phrase}")


def check_http(request: Request) -> None:
    """Whether it is a GET that a server may answer (RFC 9112, sections 2.3, 3.2).

    Raises:
        RefuseError: it is not.
    """
    if request.method != "GET":
        raise RefuseError(405, headers={"Allow": "GET"})
    if request.version not in {"1.1", "1.0"}:
        raise RefuseError(400, "HTTP/1.1 is spoken here\n")
    if not request.path.startswith("/"):  # a proxy's form: http://host/path
        try:
            parts = urlsplit(request.path)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in {"http", "https", "ws", "wss"} or not parts.netloc:
            raise RefuseError(400, "the request's target is malformed\n")
        request.path = parts.path or "/"
    hosts = request.headers.get_all("Host")
    if (len(hosts) != 1 or not _HOST.fullmatch(hosts[0])) and (hosts or request.version == "1.1"):
        raise RefuseError(400, "there must be one Host, and a good one\n")


def check_handshake(request: Request) -> str:
    """Whether it is a client's opening handshake (RFC 6455, section 4.2.1); return its key.

    Raises:
        RefuseError: it is not.
    """
    headers = request.headers
    if not has_token(headers.get("Upgrade"), "websocket"):
        raise _upgrade_required("a WebSocket is spoken here\n")
    if request.version != "1.1":
        raise RefuseError(400, "a handshake takes HTTP/1.1\n")
    if not has_token(headers.get("Connection"), "upgrade"):
        raise RefuseError(400, "Connection must contain upgrade\n")
    if headers.get("Sec-WebSocket-Version") != "13":
        raise _upgrade_required("Sec-WebSocket-Version must be 13\n")
    if "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0":
        raise RefuseError(400, "a handshake has no body\n")
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        good = len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        good = False
    if not good:
        raise RefuseError(400, "Sec-WebSocket-Key must be 16 bytes in base64\n")
    if len(headers.get_all("Origin")) > 1:
        raise RefuseError(400, "there may be one Origin\n")
    try:
        request.subprotocols = parse_subprotocols(headers.get("Sec-WebSocket-Protocol"))
        request.extensions = parse_extensions(headers.get("Sec-WebSocket-Extensions"))
    except ValueError as exc:
        raise RefuseError(400, f"{exc}\n") from None
    return key


def _upgrade_required(why: str) -> RefuseError:
    """RFC 6455, section 4.2.2, 4; RFC 9110, section 15.5.22."""
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade, close",
        "Sec-WebSocket-Version": "13",
    }
    return RefuseError(426, why, fields)
