"""What the portal and a gateway tell each other of static peers: whoever speaks WireGuard and nothing else.

A static peer has no link to the portal, no ICE and no goodbye: a router, a telephone. It knows the gateway's public key
and where the gateway listens, and its administrator has told the portal its own public key. A gateway that listens for
such peers says so when it joins; the portal tells it which ones are its, and again whenever they are others. What one
of them may reach is told by the ids of the gateway's resources.
"""

from typing import Annotated, Any

import msgspec

from .texts import PRINTABLE, Id, Name

MAX_STATIC_PEERS = 256
"""For each gateway: with a hundred resources each they take 800 kB, and a list goes in one frame."""
MAX_LISTENER_HOSTS = 16

Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Host = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=PRINTABLE)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
KeepaliveSeconds = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class Listener(msgspec.Struct, frozen=True, kw_only=True):
    """Where a gateway listens for static peers. The key is one of its own, and stays when the gateway is restarted."""

    public_key: Key
    port: Port
    hosts: Annotated[tuple[Host, ...], msgspec.Meta(max_length=MAX_LISTENER_HOSTS)] = ()
    """By which it can be reached, the likeliest first."""


class StaticPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A peer that a gateway lets in for its key alone."""

    id: Id
    name: Name
    public_key: Key
    preshared_key: Key | None = None
    address_ipv4: str
    address_ipv6: str
    resource_ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=4096)] = ()
    endpoint: Annotated[str, msgspec.Meta(max_length=300, pattern=PRINTABLE)] = ""
    """HOST:PORT, if the gateway shall begin; else it waits for the peer."""
    persistent_keepalive_s: KeepaliveSeconds | None = None
    """How often the gateway sends something, so that NATs on the way keep the path open."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields without the secret one."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name != "preshared_key"]

    def __repr__(self) -> str:
        return f"StaticPeer({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"
