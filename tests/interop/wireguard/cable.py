"""Two hosts on one cable: ours, and one with wireguard-go."""

import socket
from pathlib import Path
from typing import Any

from tests.interop.wireguard.ours import Ours
from tests.interop.wireguard.theirs import Theirs

from exeunt.clients.lab import Namespace, connect


class Cable:
    """Two namespaces and what runs in them. `near` is ours, `far` theirs."""

    OURS, ELSEWHERE, STRANGER, THEIRS = "192.0.2.1", "192.0.2.3", "192.0.2.66", "192.0.2.2"
    OUR_INNER, THEIR_INNER = ("10.213.77.2", "fd00:213::2"), ("10.213.77.1", "fd00:213::1")

    def __init__(self, binary: str, scratch: Path) -> None:
        self._binary, self._scratch = binary, scratch
        self._ours: list[Ours] = []
        self._theirs: Theirs | None = None
        self.near, self.far = Namespace("ours"), Namespace("theirs")
        connect(self.near, "eth0", self.far, "eth0")
        outer = [f"{address}/24" for address in (self.OURS, self.ELSEWHERE, self.STRANGER)]
        self.near.configure(addresses={"eth0": outer})
        self.far.configure(addresses={"eth0": [f"{self.THEIRS}/24"]})

    @property
    def theirs(self) -> Theirs:
        """Their wireguard-go, started at first use."""
        if self._theirs is None:
            inner = _networks(self.THEIR_INNER)
            self._theirs = Theirs(self.far, self._binary, self._scratch, inner=inner, outer=self.THEIRS)
        return self._theirs

    def ours(self, *, initiator: bool, knows: bool = True, **options: Any) -> Ours:
        """Return our end, which (or not) knows where theirs is; options as for `Ours`."""
        endpoint = self.theirs.endpoint if knows else None
        inner = _networks(self.OUR_INNER)
        made = Ours(self.near, initiator=initiator, inner=inner, outer=self.OURS, endpoint=endpoint, **options)
        self._ours.append(made)
        return made

    def introduce(self, ours: Ours, *, knows: bool = True, **options: Any) -> None:
        """Make ours a peer of theirs, which (or not) knows where ours is; options as for `Theirs.know_us`."""
        allowed = tuple(f"{one}/{128 if ':' in one else 32}" for one in self.OUR_INNER)
        self.theirs.know_us(allowed=allowed, endpoint=ours.address if knows else None, **options)

    def shout(self, *datagrams: bytes, source: str = STRANGER) -> None:
        """Send datagrams to theirs as they are, from an address that is not our end's."""
        endpoint = self.theirs.endpoint

        def inside() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((source, 0))
                for datagram in datagrams:
                    stranger.sendto(datagram, endpoint)

        self.near.run(inside)

    def bad_segments(self) -> int:
        """TCP segments that a kernel on either side has found damaged."""
        return sum(place.run(_tcp_errors) for place in (self.near, self.far))

    def close(self) -> None:
        """Take everything down."""
        for ours in self._ours:
            ours.close()
        if self._theirs is not None:
            self._theirs.close()
        self.near.close()
        self.far.close()


def _networks(addresses: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{one}/{64 if ':' in one else 24}" for one in addresses)


def _tcp_errors() -> int:
    table = Path("/proc/thread-self/net/snmp").read_text()
    names, values = (line.split() for line in table.splitlines() if line.startswith("Tcp:"))
    return int(values[names.index("InErrs")])
