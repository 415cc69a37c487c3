"""What the client downloads: an HTTP server in the gateway's network, and the download itself.

The content is a fixed pseudo-random stream, so both ends know its SHA-256 without sharing a file. The server
answers ranges, so that a download can go on where it stopped, over a new connection.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

PORT: Final = 80
_CHUNK_BYTES: Final = 64 * 1024
_SIZE_MAX_BYTES: Final = 1 << 30
_STALL_S: Final = 1.0
"""A connection that gives nothing for so long is given up for a new one: its gateway may be gone."""


def content(size: int) -> bytes:
    """Return the file: SHAKE-128 of its size."""
    return hashlib.shake_128(str(size).encode()).digest(size)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Serve `/SIZE`, whole or from `Range: bytes=N-`."""
        name = self.path.strip("/")
        size = int(name) if re.fullmatch(r"\d{1,10}", name) else 0
        if not 0 < size <= _SIZE_MAX_BYTES:
            self.send_error(404)
            return
        assert isinstance(self.server, _Server)
        data = self.server.file(size)
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        try:
            self.wfile.write(data[start:])
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing: the demo tells the story."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self._files: dict[int, bytes] = {}

    def file(self, size: int) -> bytes:
        """Return the file of that size, made once."""
        if size not in self._files:
            self._files[size] = content(size)
        return self._files[size]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


def serve(address: str) -> None:
    """Serve until the process is ended."""
    _Server((address, PORT)).serve_forever()


@dataclass
class Download:
    """A download, and what was measured of it."""

    size: int
    received: int = 0
    connect_ms: float = 0.0
    """From the first packet to a TCP connection: portal, ICE and handshake are in it."""
    first_byte_ms: float = 0.0
    duration_s: float = 0.0
    connections: int = 0
    longest_gap_s: float = 0.0
    """The longest time without a byte."""
    digest: str = ""

    @property
    def sha256_ok(self) -> bool:
        """Say whether what came is what was sent."""
        return self.digest == hashlib.sha256(content(self.size)).hexdigest()

    @property
    def mbit_s(self) -> float:
        """Return the rate, from the first byte to the last."""
        return self.received * 8 / 1e6 / self.duration_s if self.duration_s else 0.0


def download(
    address: str,
    size: int,
    *,
    open_socket: Callable[[float], socket.socket],
    on_progress: Callable[[Download], None] = lambda _download: None,
    give_up_s: float = 30.0,
) -> Download:
    """Download `/SIZE`, going on over new connections where one breaks.

    `open_socket(timeout_s)` connects to the server (in whatever namespace). Raises TimeoutError when nothing came
    for `give_up_s`.
    """
    result = Download(size)
    digest = hashlib.sha256()
    began = last_byte = time.monotonic()
    first_byte: float | None = None
    while result.received < size:
        if time.monotonic() - last_byte > give_up_s:
            raise TimeoutError(f"nothing came from {address} for {give_up_s:g} s")
        try:
            with open_socket(_STALL_S if result.connections else 5.0) as connection:
                result.connections += 1
                result.connect_ms = result.connect_ms or (time.monotonic() - began) * 1000
                for chunk in _fetch(connection, address, size, result.received):
                    now = time.monotonic()
                    if first_byte is None:
                        first_byte, result.first_byte_ms = now, (now - began) * 1000
                    else:
                        result.longest_gap_s = max(result.longest_gap_s, now - last_byte)
                    last_byte = now
                    digest.update(chunk)
                    result.received += len(chunk)
                    on_progress(result)
        except (OSError, http.client.HTTPException):
            continue  # broken or stalled: once more, from where we are
    result.duration_s = time.monotonic() - (first_byte or began)
    result.digest = digest.hexdigest()
    return result


def _fetch(connection: socket.socket, address: str, size: int, start: int) -> Iterator[bytes]:
    connection.settimeout(_STALL_S)
    client = http.client.HTTPConnection(address, PORT)
    client.sock = connection
    client.request("GET", f"/{size}", headers={"Range": f"bytes={start}-"} if start else {})
    response = client.getresponse()
    if response.status not in (200, 206):
        raise http.client.HTTPException(f"status {response.status}")
    while chunk := response.read1(_CHUNK_BYTES):
        yield chunk


if __name__ == "__main__":
    serve(sys.argv[1])
