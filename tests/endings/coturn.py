"""A relay that is reached over TLS: coturn, as a player of the stage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from tests.lab.relays import SECRET, TLS_PORT, Authority, start_coturn

from exeunt.clients.demo.stage import Player
from exeunt.clients.lab import Internet
from exeunt.clients.lab.internet import RELAY_ADDRESSES

ADDRESS: Final = f"{RELAY_ADDRESSES[1]}:{TLS_PORT}"
RELAY_SECRET: Final = SECRET


def is_installed() -> bool:
    """Whether this machine has it."""
    return shutil.which("turnserver") is not None


class Coturn(Player):
    """It answers on other addresses than the relay of ours, and has no control socket."""

    def __init__(self, internet: Internet, home: Path, authority: Authority | None = None) -> None:
        super().__init__("relay", internet.relay, home)
        self._internet = internet
        self._authority = authority or Authority(home)

    @property
    def certificate(self) -> Path:
        """Of the authority that whoever signs in must trust."""
        return self._authority.certificate

    def again(self) -> Coturn:
        """Return the same program, not started."""
        return Coturn(self._internet, self.home, self._authority)

    def start(self, *argv: str, environ: dict[str, str] | None = None) -> None:
        """Start it, and wait until it answers."""
        assert not argv
        assert environ is None
        self.process = start_coturn(self._internet, self.home, self._authority, ipv6=False)
