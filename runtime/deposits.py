"""What a worker has deposited with its supervisor: words to be said if it dies, and what a successor is to have.

The worker's side of `last_words` and of `inheritance`. `node.deposits` is there in every worker, and does nothing where
nobody could speak for it: inline workers die with their supervisor, those on other machines are out of its reach. A
deposit is one system call of some microseconds; from then on it is in force, whatever happens to this process. If the
supervisor does not keep up, deposits wait here, the latest of each key; nothing ever waits for them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from .inheritance import Assembly, Bequest, Complete, Part, Taken, parts
from .last_words import CloseChannel, Deposit, OpenChannel, Told, Withdraw, WithdrawAll, Words, encode
from .line import Line, close_all

_HEIRLOOMS = msgspec.msgpack.Decoder(Part | Complete)


class Deposits:
    """The deposits of one process. On its loop only."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is where the supervisor listens; None where it doesn't. Raises OSError."""
        self._channels: dict[str, set[str]] = {}
        """The keys that each channel is for, by the channel's name."""
        self._channel_of: dict[str, str] = {}
        """By key; empty for words that go through none."""
        self._inheritance = Assembly()
        self._inherited = asyncio.Event()
        self._line: Line | None = None
        if path is not None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                connection.connect(str(path))
            except OSError:
                connection.close()
                raise
            self._line = Line(connection, self._on_message)

    @property
    def is_kept(self) -> bool:
        """Whether anybody keeps what is deposited."""
        return self._line is not None and self._line.is_open

    @property
    def is_heir(self) -> bool:
        """Whether this process succeeds one that has handed over, and so has all that was left to it."""
        return self._inherited.is_set()

    # --- last words ---

    def put(
        self,
        key: str,
        descriptor: int | None,
        payload: bytes,
        *,
        destination: tuple[str, int] | None = None,
        source: str | None = None,
        told: Told | None = None,
    ) -> None:
        """Have `payload` sent through a socket if this process dies, in the place of earlier words of that key.

        `descriptor` is the socket's; a duplicate is taken. `destination` is an address and a port, None if the socket
        is connected; `source` the address that the datagram is to leave from, if the socket is bound to none. `told` is
        for an actor of another worker, besides; or alone, with no descriptor and an empty payload.

        Raises OSError when there is no such descriptor.
        """
        if not self.is_kept:
            return
        channel = "" if descriptor is None else str(os.fstat(descriptor).st_ino)  # tells open sockets apart
        before = self._channel_of.get(key)
        if descriptor is not None and channel not in self._channels:
            self._channels[channel] = set()
            self._say(OpenChannel(channel=channel), "channel", channel, [descriptor])
        if channel:
            self._channels[channel].add(key)
        self._channel_of[key] = channel
        words = Words(key=key, channel=channel, payload=payload, destination=destination, source=source, told=told)
        self._say(words, "words", key)
        if before is not None and before != channel:
            self._leave(before, key)

    def withdraw(self, key: str) -> None:
        """Have the words of this key not said. Harmless when there are none."""
        channel = self._channel_of.pop(key, None)
        if channel is not None:
            self._say(Withdraw(key=key), "words", key)
            self._leave(channel, key)

    def withdraw_all(self) -> None:
        """Have nothing said: whoever had something to say has said it."""
        if self._channel_of:
            self._channels.clear()
            self._channel_of.clear()
            self._say(WithdrawAll(), "all", "")

    # --- inheritance ---

    def bequeath(self, key: str, document: bytes, descriptors: Sequence[int] = ()) -> None:
        """Leave something to this worker's successor, once for each key; the words of that key stay in force until the
        successor has taken it. Duplicates of the descriptors are taken. Raises ValueError when it is too long.
        """
        for part in parts(key, document):
            self._say(part, "part", f"{part.number} {key}", descriptors if part.number == 0 else ())

    def inherit(self, key: str) -> Bequest | None:
        """Take what our predecessor has left under this key, once; its descriptors are ours to close."""
        return self._inheritance.take(key)

    def taken(self, key: str) -> None:
        """Go on with what was inherited: from now on the predecessor's words of that key are not said, but ours."""
        self._say(Taken(key=key), "taken", key)

    async def until_inherited(self) -> None:
        """Return when everything that our predecessor has left is here."""
        await self._inherited.wait()

    async def until_clear(self) -> None:
        """Return when everything has been handed to the kernel."""
        if self._line is not None:
            await self._line.until_clear()

    def close(self) -> None:
        """Hang up. What was deposited and not withdrawn is said when this process has ended."""
        close_all(self._inheritance.take_descriptors())
        if self._line is not None:
            self._line.close()

    # --- inside ---

    def _leave(self, channel: str, key: str) -> None:
        """Let go of a channel that nothing is to be sent through."""
        if not channel:
            return
        keys = self._channels[channel]
        keys.discard(key)
        if not keys:
            del self._channels[channel]
            self._say(CloseChannel(channel=channel), "channel", channel)

    def _say(self, deposit: Deposit, kind: str, name: str, descriptors: Sequence[int] = ()) -> None:
        if self._line is not None:
            self._line.send(encode(deposit), descriptors, place=(kind, name))

    def _on_message(self, message: bytes | None, descriptors: list[int]) -> None:
        """Our supervisor says what it keeps for us."""
        heirloom = None if message is None else _HEIRLOOMS.decode(message)
        if isinstance(heirloom, Part) and self._inheritance.add(heirloom, descriptors):
            return
        close_all(descriptors)
        if isinstance(heirloom, Complete):
            self._inherited.set()
