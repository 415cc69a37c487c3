"""What there is to examine: the portal and relays that a client here would use.

Relays come from the command line, else from the running program (the portal told it), else from the configuration.
Nothing here needs a session, and no credentials are involved: a STUN Binding request is answered to everybody.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Final, Literal

import msgspec

Transport = Literal["udp", "tcp", "tls"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("udp", "tcp", "tls")
DEFAULT_PORTS: Final = {"udp": 3478, "tcp": 3478, "tls": 5349}  # RFC 8489 section 18.6
MAX_RELAYS: Final = 8
"""More make a check slow, and no clearer."""

_PLACE = re.compile(r"(?:(udp|tcp|tls):)?(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+)(?::([0-9]{1,5}))?")


class Place(msgspec.Struct, frozen=True):
    """Where a relay is said to be."""

    host: str
    port: int
    transport: Transport = "udp"
    announced: bool = True

    @property
    def name(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What to examine."""

    relays: tuple[Place, ...] = ()
    portal_url: str | None = None
    tunnel_mtu_bytes: int = 1400
    instance: str | None = None


def parse_place(text: str) -> Place:
    """Read ``HOST``, ``HOST:PORT`` or ``TRANSPORT:HOST:PORT``; IPv6 addresses in brackets. Raises ValueError."""
    match = _PLACE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a relay; write HOST:PORT, tcp:HOST:PORT or tls:HOST:PORT")
    transport: Transport = "tcp" if match[1] == "tcp" else "tls" if match[1] == "tls" else "udp"
    host = match[2].removeprefix("[").removesuffix("]")
    if match[2].startswith("["):
        ip_address(host)  # else it is none, ValueError too
    port = int(match[3] or DEFAULT_PORTS[transport])
    if not 0 < port < 65536:
        raise ValueError(f"{port} is not a port")
    return Place(host, port, transport)


def with_guesses(announced: Sequence[Place]) -> tuple[Place, ...]:
    """Add the transports that nobody announced for a host: whoever blocks UDP makes one wish to know of them."""
    relays = list(dict.fromkeys(announced))[:MAX_RELAYS]
    for relay in tuple(relays):
        told = {each.transport for each in announced if each.host == relay.host}
        if relay.transport == "udp":
            relays += [
                Place(
                    relay.host, relay.port if transport == "tcp" else DEFAULT_PORTS["tls"], transport, announced=False
                )
                for transport in TRANSPORTS
                if transport not in told
            ]
    return tuple(dict.fromkeys(relays))


def parse_places(texts: Iterable[str]) -> tuple[Place, ...]:
    """Read several, each of which may be several itself, apart by commas or spaces. Raises ValueError."""
    return tuple(parse_place(part) for text in texts for part in re.split(r"[,\s]+", text) if part)
