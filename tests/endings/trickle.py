"""A download that is under way while something happens to its connection: one TCP connection, read slowly at first.

Surviving means that this connection goes on, so it is never made anew: whoever waits long enough sees whether the
tunnel came back.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from typing import Final, NamedTuple

from exeunt.clients.demo.resource import content
from exeunt.clients.lab import Lab
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

_STEP_S: Final = 0.2
_SMALL_BUFFER_BYTES, _LARGE_BUFFER_BYTES = 4_096, 262_144


class Pace(NamedTuple):
    """How much is downloaded, and how slowly at first: it must last longer than the event."""

    size_bytes: int
    step_bytes: int
    """In each fifth of a second."""


STEADY: Final = Pace(600_000, 2_048)
CAREFUL: Final = Pace(60_000, 200)
"""For a bad line: TCP that loses every third segment carries a kilobyte or two a second."""


class Trickle:
    """The download, on a thread of its own from the start."""

    def __init__(self, lab: Lab, pace: Pace = STEADY) -> None:
        self._pace = pace
        self.received = 0
        self.longest_gap_s = 0.0
        self.error: BaseException | None = None
        self._digest = hashlib.sha256()
        self._hurry = threading.Event()
        self._begun = threading.Event()
        self._socket = lab.client.run(self._open)
        self._thread = threading.Thread(target=self._run, name="trickle", daemon=True)
        self._thread.start()
        self._begun.wait(10)

    def finish(self, limit_s: float) -> str:
        """Read what is left as fast as it comes; return what is wrong with it, empty if nothing is."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LARGE_BUFFER_BYTES)
        self._hurry.set()
        self._thread.join(limit_s)
        running = self._thread.is_alive()
        self._socket.close()
        if running:
            return f"the download stands still at {self.received} of {self._pace.size_bytes} bytes"
        if self.error is not None:
            return f"the download broke at {self.received} bytes: {self.error}"
        right = hashlib.sha256(content(self._pace.size_bytes)).digest()
        return "" if self._digest.digest() == right else "the download's checksum is wrong"

    @staticmethod
    def _open() -> socket.socket:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
            connection.settimeout(15)
            connection.connect((RESOURCE_ADDRESS, 80))
        except BaseException:
            connection.close()
            raise
        return connection

    def _run(self) -> None:
        try:
            self._socket.settimeout(90)
            self._socket.sendall(f"GET /{self._pace.size_bytes} HTTP/1.1\r\nHost: {RESOURCE_ADDRESS}\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += self._receive(1)
            self._begun.set()
            last = time.monotonic()
            while self.received < self._pace.size_bytes:
                slow = not self._hurry.is_set()
                chunk = self._receive(self._pace.step_bytes if slow else 65_536)
                now = time.monotonic()
                self.longest_gap_s, last = max(self.longest_gap_s, now - last), now
                self._digest.update(chunk)
                self.received += len(chunk)
                if slow:
                    self._hurry.wait(_STEP_S)
        except (OSError, ConnectionError) as error:
            self.error = error
        finally:
            self._begun.set()

    def _receive(self, size: int) -> bytes:
        chunk = self._socket.recv(size)
        if not chunk:
            raise ConnectionError("the other end closed it")
        return chunk
