"""Where a gateway's host sends what is for a client: into the device of the worker that has its connection. Pure.

All clients' networks lead into the first worker's device. For a client of another worker its own addresses lead into
that one's, as long as its connection is there: the longer prefix counts. A client that comes anew, perhaps to another
worker, is led there from the start of the new connection on, whenever the old one's end is heard.
"""

from __future__ import annotations

from collections.abc import Iterable

from .loop_config import LoopConfig, PeerRecord
from .network.messages import Steer


class Steering:
    """Knows the newest connection of each address, and says what is to be changed; None: nothing."""

    def __init__(self, config: LoopConfig) -> None:
        self._config = config
        self._newest: dict[str, tuple[str, str]] = {}
        """By network: the connection, and the device; empty where the wide route will do."""

    def restore(self, records: Iterable[PeerRecord]) -> None:
        """Know what stands: the connections in the order in which they began."""
        for record in records:
            self._note(record)

    def begin(self, record: PeerRecord) -> Steer | None:
        """A connection begins."""
        former = {network for network in record.networks if self._device(network)}
        device = self._note(record)
        networks = record.networks if device else tuple(sorted(former))
        return Steer(networks, device) if networks else None

    def end(self, record: PeerRecord) -> Steer | None:
        """A connection has ended; what a newer one has stays."""
        mine = [one for one in record.networks if self._newest.get(one, ("", ""))[0] == record.connection]
        led = tuple(network for network in mine if self._device(network))
        for network in mine:
            del self._newest[network]
        return Steer(led) if led else None

    def _note(self, record: PeerRecord) -> str:
        is_first = record.worker == self._config.peer_workers[0]
        device = "" if is_first else self._config.device_of(record.worker)
        self._newest.update(dict.fromkeys(record.networks, (record.connection, device)))
        return device

    def _device(self, network: str) -> str:
        return self._newest.get(network, ("", ""))[1]
