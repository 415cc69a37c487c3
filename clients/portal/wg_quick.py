"""A configuration for wg-quick(8), as text: what a static peer needs to know.

Its own private key is not the portal's business; where it is not known, a line says what to put in its place. Of
several gateways one can be in use: networks can lead to one peer only, so the others stand by as comments.
"""

import base64
from collections.abc import Sequence

import msgspec

from exeunt.actors.portal.static import Listener

MTU_BYTES = 1280
"""Nobody measures a static peer's path: whoever sends to it is told to send no more (`actors.device.reach`)."""
_PLACEHOLDER = "PUT-THE-PRIVATE-KEY-HERE"


class Tunnel(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into a configuration. Its keys are secrets."""

    name: str
    public_key: bytes
    private_key: bytes | None = None
    preshared_key: bytes | None = None
    addresses: tuple[str, str]
    networks: tuple[str, ...]
    persistent_keepalive_s: int | None = None

    def __repr__(self) -> str:
        return f"Tunnel({self.name!r})"


def key_text(key: bytes) -> str:
    """A key as WireGuard's tools write it (RFC 4648 section 4)."""
    return base64.b64encode(key).decode()


def configuration(tunnel: Tunnel, gateways: Sequence[tuple[str, Listener]]) -> str:
    """The whole file; `gateways` are names and listeners, the one to use first."""
    addresses = ", ".join(f"{one}/{128 if ':' in one else 32}" for one in tunnel.addresses)
    private = _PLACEHOLDER if tunnel.private_key is None else key_text(tunnel.private_key)
    lines = [
        f"# {tunnel.name}",
        "[Interface]",
        *([f"# The private key of {key_text(tunnel.public_key)}"] if tunnel.private_key is None else []),
        f"PrivateKey = {private}",
        f"Address = {addresses}",
        f"MTU = {MTU_BYTES}",
    ]
    for number, (name, listener) in enumerate(gateways):
        mark = "" if number == 0 else "# "
        lines += ["", f"# {name}" if number == 0 else f"# {name}, instead of {gateways[0][0]}:"]
        lines += [f"{mark}{line}" for line in _peer(tunnel, listener)]
    return "\n".join(lines) + "\n"


def endpoint(listener: Listener) -> str | None:
    """HOST:PORT of a listener; None: nobody knows by which host it can be reached."""
    if not listener.hosts:
        return None
    host = listener.hosts[0]
    return f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"


def _peer(tunnel: Tunnel, listener: Listener) -> list[str]:
    where = endpoint(listener)
    return [
        "[Peer]",
        f"PublicKey = {key_text(listener.public_key)}",
        *([f"PresharedKey = {key_text(tunnel.preshared_key)}"] if tunnel.preshared_key is not None else []),
        f"Endpoint = {where}" if where else f"# Endpoint = THE-GATEWAY:{listener.port}",
        f"AllowedIPs = {', '.join(tunnel.networks)}",
        *([f"PersistentKeepalive = {tunnel.persistent_keepalive_s}"] if tunnel.persistent_keepalive_s else []),
    ]
