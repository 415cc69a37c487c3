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

    __slots__ = ("_node", "_text", "address", "incarnation")

    def __init__(self, address: Address, node: Node, incarnation: int = 0) -> None:
        self.address = address
        self.incarnation = incarnation
        """Of the actor that this ref was made for; 0: of whoever lives there. Only stops look at it: what was meant
        for one does not stop its successor.
        """
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

        An actor that tells a slower one of another worker more than its window handles nothing more until that one
        has caught up.
        """
        self._node.tell(self._text, message)

    async def offer(self, message: Message, *, timeout_s: float = DEFAULT_ASK_TIMEOUT_S) -> None:
        """Tell as soon as the recipient has room for it. Raises MailboxFull when that takes longer than `timeout_s`.

        For whoever sends a lot and is no actor that could be held up. On the loop's thread only.
        """
        await self._node.offer(self._text, message, timeout_s=timeout_s)

    def ask(self, message: Message, *, timeout_s: float | None = None) -> Reply:
        """Send and get a reply: `await` it on the loop, `.get()` it on any other thread.

        It ends in the handler's answer, or raises `RemoteFailure` (the handler failed), `Refused`, `ActorDead`,
        `MailboxFull`, `AskCycle` or `AskTimeout`. Without `timeout_s` it waits 5 s, and in a handler no longer than
        whoever asked that. Cancel the reply, or the task that awaits it, to withdraw the ask.
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

    def link(self) -> None:
        """Tie the actor that calls this to the other: when one of them ends abnormally, or cannot be reached, so does
        the other. One whose class says `trap_exits` gets a `Terminated` instead.
        """
        self._node.link(self._text)

    def unlink(self) -> None:
        """Untie them."""
        self._node.unlink(self._text)

    def stop(self, reason: str = "shutdown") -> None:
        """Stop it after the message it handles now. Watch it to learn that it has."""
        self._node.stop_actor(self._text, reason, incarnation=self.incarnation)

    def drain(self, reason: str = "shutdown") -> None:
        """Stop it after all that waits in its mailbox; it takes nothing more meanwhile."""
        self._node.stop_actor(self._text, reason, how="drain", incarnation=self.incarnation)

    def kill(self) -> None:
        """End it at once: what it awaits is cancelled, and no `on_stop` runs."""
        self._node.stop_actor(self._text, "killed", how="kill", incarnation=self.incarnation)
