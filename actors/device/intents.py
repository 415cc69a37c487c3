"""Packets that nobody can carry yet: what they want, kept until somebody can. Pure.

A packet for a resource without a connection is an *intent*: the client asks the portal for that resource, and the
packet waits, so that the first request of a program succeeds. Bounded for each resource (see `waiting`); asked for at
most every INTENT_REPEAT_S.
"""

from __future__ import annotations

from ..timing import INTENT_REPEAT_S
from .packet import IpHeader
from .routes import AllowedIPs
from .waiting import WAITING_PACKETS, WaitingPackets


class Intents:
    """Resources by network, and the packets that wait for each."""

    def __init__(self) -> None:
        self._resources: AllowedIPs[str] = AllowedIPs()
        self._waiting: dict[str, WaitingPackets] = {}
        self._asked_at: dict[str, float] = {}

    def set_resources(self, resources: dict[str, str]) -> None:
        """Replace the resources: network to resource id. Packets for others are forgotten."""
        self._resources = AllowedIPs()
        for network, resource_id in resources.items():
            self._resources.insert(network, resource_id)
        wanted = set(resources.values())
        self._waiting = {one: packets for one, packets in self._waiting.items() if one in wanted}
        self._asked_at = {one: at for one, at in self._asked_at.items() if one in wanted}

    def keep(self, packet: bytes, header: IpHeader, now: float) -> tuple[str | None, bool]:
        """Keep a packet that nobody can carry. Return its resource (None: it wants none of ours), and whether to
        ask for it.
        """
        resource_id = self._resources.lookup(header.destination)
        if resource_id is None:
            return None, False
        waiting = self._waiting.get(resource_id)
        if waiting is None:
            waiting = self._waiting[resource_id] = WaitingPackets(WAITING_PACKETS)
        waiting.put(packet)
        asked_at = self._asked_at.get(resource_id)
        if asked_at is not None and now < asked_at + INTENT_REPEAT_S:
            return resource_id, False
        self._asked_at[resource_id] = now
        return resource_id, True

    def take_all(self) -> list[bytes]:
        """Take out everything that waits, oldest first of each resource: somebody new can carry some of it."""
        packets = [packet for waiting in self._waiting.values() for packet in waiting.take_all()]
        self._waiting.clear()
        self._asked_at.clear()
        return packets
