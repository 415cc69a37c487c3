"""A connection's lane (`batch.lanes`): when there is one, what it says, and what is made of its books.

There is one while the connection is established, its session has carried something, and its path is direct, over a
socket that takes whole trains. Whatever changes that comes by the actor, which then calls `refresh`. What went by is
taken into account within moments (`device.crossing`), and before anything else of the peer is.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Protocol

from ..batch.lanes import Books, Lane, LaneKeys
from ..device.pump import Pump, Sink
from ..ice.agent import PathAgent, Route
from ..ice.ancillary import sent_from
from ..ice.candidate import ip_version
from ..ice.sockets import Sockets
from ..ice.trains import Sender
from ..wireguard import Frame
from .carried import CarriedConnection


class Carried(Sink, Protocol):
    """The actor, as far as this concerns it."""

    @property
    def agent(self) -> PathAgent:
        """What finds its paths."""
        ...

    def attend(self, now: float) -> None:
        """Do what follows from what the machine was told."""
        ...


class PeerLane:
    """The lane that a connection has now and then. It knows the actor only while it is open."""

    __slots__ = ("_actor", "_is_for", "_lane", "_machine", "_pump", "_sockets")

    def __init__(self, machine: CarriedConnection, pump: Pump, sockets: Sockets) -> None:
        self._machine = machine
        self._pump = pump
        self._sockets = sockets
        self._actor: Carried | None = None
        self._lane: Lane | None = None
        self._is_for: tuple[object, ...] | None = None

    def refresh(self, actor: Carried) -> None:
        """Open it, close it, or open another one, as things are now."""
        self.book()
        session, route = self._machine.session_in_use, None
        if session is not None and self._pump.crossing is not None:
            route = actor.agent.route()
        sender = None if route is None else self._sender(route)
        wanted = None if sender is None or route is None else (session, sender, route, actor.reach.limit)
        if wanted == self._is_for:
            return
        self.close()
        keys = None if session is None else session.lane_keys()
        if keys is not None and sender is not None and route is not None:
            self._open(actor, sender, route, keys)
            self._is_for = wanted

    def _sender(self, route: Route) -> Sender | None:
        """Return what sends trains on that path; None: it is none that a lane knows."""
        if route.kind != "direct" or route.destination is None or "%" in route.destination[0]:
            return None
        sender = self._sockets.sender(route.channel)
        return sender if sender is not None and sender.may_segment(route.destination) else None

    def _open(self, actor: Carried, sender: Sender, route: Route, keys: LaneKeys) -> None:
        assert self._pump.crossing is not None
        assert route.destination is not None
        assert route.source is not None
        self._actor = actor
        self._lane = self._pump.crossing.open(
            actor,
            owner=self,
            descriptor=sender.descriptor,
            remote=route.destination[1].to_bytes(2, "big") + bytes(4) + _packed(route.destination[0]),
            local=_packed(route.source),
            limit=actor.reach.limit,
            **keys,
        )

    def close(self) -> None:
        """End it. What went by is in the machine's books then. Idempotent."""
        actor, self._actor, self._is_for = self._actor, None, None
        if actor is not None and self._lane is not None and self._pump.crossing is not None:
            self._take_books(actor, self._lane, time.monotonic())
            self._lane = None
            self._pump.crossing.close(actor)

    # --- what goes by ---

    def book(self) -> None:
        """Read the books, if something went by."""
        if self._actor is not None and self._lane is not None and self._lane.is_noted:
            now = time.monotonic()
            self._take_books(self._actor, self._lane, now)
            self._actor.attend(now)

    def _take_books(self, actor: Carried, lane: Lane, now: float) -> None:
        books = Books(*lane.books())
        self._machine.handle_books(books, now)
        if books.datagrams:
            actor.agent.note_alive(books.received_at)
        if books.sent:
            actor.agent.note_sent(books.sent_at)

    def take_rest(self, out: memoryview, frames: Sequence[Frame], ecn: int) -> None:
        """Take what was opened, but not given to the device."""
        actor = self._actor
        self.book()
        if actor is not None:
            now = time.monotonic()
            self._pump.deliver(actor, out, self._machine.handle_opened(out, frames, now), ecn)
            actor.attend(now)

    def take_unsent(self, train: memoryview, stride: int, ecn: int, error: int) -> None:
        """Take what was sealed, but refused."""
        actor = self._actor
        route = None if actor is None else actor.agent.route()
        sender = None if route is None else self._sockets.sender(route.channel)
        if actor is not None and route is not None and route.source is not None and sender is not None:
            ancillary = sent_from(route.source)
            sender.send_rest(train, stride, ancillary, route.destination, ecn=ecn, error=error)
            self.refresh(actor)


def _packed(host: str) -> bytes:
    return socket.inet_pton(socket.AF_INET if ip_version(host) == 4 else socket.AF_INET6, host)
