"""NAT behaviour discovery, the server's side (RFC 5780): which of four sockets answers.

A client finds out what its NAT does by asking one server at several addresses, and by having it answer from another
address than the one that was asked. For that a relay listens on two hosts and two ports of each, four sockets in all:

    listener      host      port      asked to change …, the answer leaves from …
    PRIMARY       first     first     host and port: OTHER_BOTH
    OTHER_PORT    first     second    port: the listener whose port bit differs
    OTHER_HOST    second    first     host: the listener whose host bit differs
    OTHER_BOTH    second    second

Two bits name a listener, and CHANGE-REQUEST has the same two, so that the answer's listener is their exclusive or.

An answer goes to whoever asked, from wherever, and is no longer than without all this but for two addresses. What the
RFC has beyond that is refused (420): RESPONSE-PORT sends answers to where nobody asked, PADDING makes them longer than
the question.
"""

from enum import IntEnum
from typing import Final

import msgspec

from . import codec
from .codec import Address, MalformedError, Message, family_of

# RFC 5780 section 7.2: "change IP" and "change port" of CHANGE-REQUEST.
CHANGE_HOST: Final = 0x4
CHANGE_PORT: Final = 0x2


class Listener(IntEnum):
    """One of the four sockets of an address family that clients may talk to."""

    PRIMARY = 0
    """The one that is announced. It is the only one that serves TURN."""
    OTHER_PORT = 1
    OTHER_HOST = 2
    OTHER_BOTH = 3

    def changed(self, change: "Listener") -> "Listener":
        """Answer the one that differs from this in what `change` names."""
        return Listener(self ^ change)


class Origins(msgspec.Struct, frozen=True):
    """The two addresses of one family by which clients know a relay. Raises ValueError where they are no two."""

    primary: Address
    other: Address

    def __post_init__(self) -> None:
        """Refuse what cannot work: RFC 5780 section 6 wants both the host and the port to differ."""
        if family_of(self.primary[0]) != family_of(self.other[0]):
            raise ValueError("The other address of a relay is of the same family as the first.")
        if self.primary[0] == self.other[0] or self.primary[1] == self.other[1]:
            raise ValueError("The other address of a relay differs from the first in both host and port.")

    @property
    def family(self) -> int:
        """4 or 6."""
        return family_of(self.primary[0])

    def address(self, listener: Listener) -> Address:
        """Answer where clients see a listener."""
        host = self.other[0] if listener & Listener.OTHER_HOST else self.primary[0]
        port = self.other[1] if listener & Listener.OTHER_PORT else self.primary[1]
        return host, port

    def attributes(self, asked: Listener, answering: Listener) -> list[tuple[int, bytes]]:
        """Answer what a response tells (RFC 5780 section 6.1): where it comes from, and what is opposite of it."""
        return [
            (codec.RESPONSE_ORIGIN, codec.plain_address(self.address(answering))),
            (codec.OTHER_ADDRESS, codec.plain_address(self.address(asked.changed(Listener.OTHER_BOTH)))),
        ]


def answering(asked: Listener, message: Message) -> Listener:
    """Answer which listener a request wants its response from; raises `MalformedError`."""
    flags = message.number(codec.CHANGE_REQUEST)
    if flags is None:
        return asked
    if flags & ~(CHANGE_HOST | CHANGE_PORT):
        raise MalformedError("CHANGE-REQUEST has two flags, and no more.")
    host = Listener.OTHER_HOST if flags & CHANGE_HOST else Listener.PRIMARY
    port = Listener.OTHER_PORT if flags & CHANGE_PORT else Listener.PRIMARY
    return asked.changed(host).changed(port)
