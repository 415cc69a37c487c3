"""A worker's deposits: the words that are to be said in its name if it dies. The worker's side of `last_words`.

`node.deposits` is there in every worker, and does nothing where nobody could speak for it: inline workers die with
their supervisor, those on other machines are out of its reach. A deposit is one system call of some microseconds; from
then on it is in force, whatever happens to this process. If the supervisor does not keep up, deposits wait here, the
latest of each key; nothing ever waits for them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec

from .last_words import CloseChannel, Deposit, OpenChannel, Withdraw, WithdrawAll, Words, encode


class _Waiting(msgspec.Struct):
    """A message that the kernel has no room for, and the duplicate of a descriptor that goes with it."""

    message: bytes
    descriptor: int | None


class Deposits:
    """The last words of one process. On its loop only."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is where the supervisor listens; None where it doesn't. Raises OSError."""
        self._socket: socket.socket | None = None
        self._channels: dict[str, set[str]] = {}
        """The keys that each channel is for, by the channel's name."""
        self._channel_of: dict[str, str] = {}
        """By key."""
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        if path is not None:
            self._loop = asyncio.get_running_loop()
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                self._socket.connect(str(path))
            except OSError:
                self._socket.close()
                raise
            self._socket.setblocking(False)

    @property
    def is_kept(self) -> bool:
        """Whether anybody keeps what is deposited."""
        return self._socket is not None

    def put(
        self,
        key: str,
        descriptor: int,
        payload: bytes,
        *,
        destination: tuple[str, int] | None = None,
        source: str | None = None,
    ) -> None:
        """Have `payload` sent through a socket if this process dies, in the place of earlier words of that key.

        `descriptor` is the socket's; a duplicate is taken. `destination` is an address and a port, None if the socket
        is connected; `source` the address that the datagram is to leave from, if the socket is bound to none.

        Raises OSError when there is no such descriptor.
        """
        if self._socket is None:
            return
        channel = str(
            os.fstat(descriptor).st_ino
        )  # tells sockets apart for as long as they are open, and here they are
        before = self._channel_of.get(key)
        if channel not in self._channels:
            self._channels[channel] = set()
            self._send("channel", channel, OpenChannel(channel=channel), descriptor)
        self._channels[channel].add(key)
        self._channel_of[key] = channel
        words = Words(key=key, channel=channel, payload=payload, destination=destination, source=source)
        self._send("words", key, words)
        if before is not None and before != channel:
            self._leave(before, key)

    def withdraw(self, key: str) -> None:
        """Have the words of this key not said. Harmless when there are none."""
        channel = self._channel_of.pop(key, None)
        if channel is not None:
            self._send("words", key, Withdraw(key=key))
            self._leave(channel, key)

    def withdraw_all(self) -> None:
        """Have nothing said: whoever had something to say has said it."""
        if self._channels:
            self._channels.clear()
            self._channel_of.clear()
            self._send("all", "", WithdrawAll())

    def close(self) -> None:
        """Hang up. What was deposited and not withdrawn is said when this process has ended."""
        self._drop_waiting()
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _leave(self, channel: str, key: str) -> None:
        """Let go of a channel that nothing is to be sent through."""
        keys = self._channels[channel]
        keys.discard(key)
        if not keys:
            del self._channels[channel]
            self._send("channel", channel, CloseChannel(channel=channel))

    def _send(self, kind: str, name: str, deposit: Deposit, descriptor: int | None = None) -> None:
        if self._socket is None:
            return
        message = encode(deposit)
        if self._waiting or not self._try(message, descriptor):
            self._wait(kind, name, message, descriptor)

    def _try(self, message: bytes, descriptor: int | None) -> bool:
        """Send it; False when there is no room. If the supervisor has died, nobody speaks for us any more."""
        assert self._socket is not None
        try:
            if descriptor is None:
                self._socket.send(message)
            else:
                socket.send_fds(self._socket, [message], [descriptor])
        except BlockingIOError:
            return False
        except OSError:
            self.close()
        return True

    def _wait(self, kind: str, name: str, message: bytes, descriptor: int | None) -> None:
        assert self._socket is not None
        if not self._waiting:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        self._forget_waiting((kind, name))
        self._waiting[kind, name] = _Waiting(message, None if descriptor is None else os.dup(descriptor))

    def _flush(self) -> None:
        while self._waiting and self._socket is not None:
            place, waiting = next(iter(self._waiting.items()))
            if not self._try(waiting.message, waiting.descriptor):
                return
            self._forget_waiting(place)
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())

    def _forget_waiting(self, place: tuple[str, str]) -> None:
        waiting = self._waiting.pop(place, None)
        if waiting is not None and waiting.descriptor is not None:
            os.close(waiting.descriptor)

    def _drop_waiting(self) -> None:
        for place in list(self._waiting):
            self._forget_waiting(place)
