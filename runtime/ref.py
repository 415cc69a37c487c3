"""A reference to an actor: the same near and far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .address import Address
from .envelope import Message
from .reply import Reply

if TYPE_CHECKING:
    from .node import Node

DEFAULT_ASK_TIMEOUT_S = 5.0  # OTP's gen_server:call default


class Ref:
    """Where to send. It holds an address, not an actor: it stays valid over restarts, and says nothing about who
    lives.
    """

    __slots__ = ("_node", "_text", "address")

    def __init__(self, address: Address, node: Node) -> None:
        self.address = address
        self._text = str(address)
        self._node = node

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<Ref {self._text}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def tell(self, message: Message) -> None:
        """Send and forget. What cannot be delivered becomes a dead letter: counted, traced, visible. From any
        thread.
        """
        self._node.tell(self._text, message)

    def ask(self, message: Message, *, timeout_s: float = DEFAULT_ASK_TIMEOUT_S) -> Reply:
        """Send and get a reply: `await` it on the loop, `.get()` it on any other thread.

        It ends in the handler's answer, or raises `RemoteFailure` (the handler failed), `Refused`, `ActorDead`,
        `MailboxFull` or `AskTimeout`.
        """
        return self._node.ask(self._text, message, timeout_s=timeout_s)

    def watch(self) -> None:
        """Have the actor that calls this told by `Terminated`, exactly once, when this one ends or cannot be
        reached.
        """
        self._node.watch(self._text)

    def unwatch(self) -> None:
        """Take a watch back; no `Terminated` comes after this."""
        self._node.unwatch(self._text)

    def stop(self, reason: str = "shutdown") -> None:
        """Ask it to stop after the message it handles now. Watch it to learn that it has."""
        self._node.stop_actor(self._text, reason)
