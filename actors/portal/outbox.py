"""What waits while the link is down.

Only what still means something later is kept, and only one of a kind: the end of a connection, and what a dead worker
had left to be said for it, a wish for new ICE credentials, and the union of a connection's candidates. A request for a
resource is not: whoever made it makes it again after the join, as those that were under way when the link broke; of
two, the portal takes the second for the loss of what the first has brought. An `Authorized` answers a question that the
portal has given up by then, and whoever asked for evidence asks again. The box is bounded; what does not fit is refused
and counted.

Ends have a larger share of their own: a gateway whose portal is down may lose all its clients meanwhile, and their
endings are what the portal can tell afterwards.
"""

from .candidates import merged
from .messages import ConnectionEnded, FromPeer, IceCandidates, LastWill, RequestAuthorization, RestartIce
from .timing import REQUEST_LIFETIME_S

CAPACITY = 400
"""Messages that are no ends: a restart, or candidates, for each of many connections of a gateway that has moved."""

ENDS_CAPACITY = 512
"""Ends of connections, with their reports: some 500 kB. With the rest it is what the portal takes in one burst."""


class Outbox:
    """Messages held until the next join, in the order in which they were first put in."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[float, FromPeer]] = {}
        self._ends = 0
        self.refused = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, message: FromPeer, now: float) -> None:
        """Hold a message, merge it with one that already waits, or refuse it."""
        match message:
            case RequestAuthorization():
                pass  # is made again
            case RestartIce():
                self._hold(("restart", message.connection), message, now)
            case LastWill():
                self._hold(("will", message.connection), message, now)
            case ConnectionEnded():
                self._held.pop(("candidates", message.connection), None)
                self._held.pop(("restart", message.connection), None)
                self._hold(("ended", message.connection), message, now)
            case IceCandidates():
                self._merge(message, now)
            case _:
                self.refused += 1

    def take_all(self, now: float) -> list[FromPeer]:
        """Empty the box. Wishes that nobody waits for any more are left out."""
        held = list(self._held.values())
        self._held.clear()
        self._ends = 0
        return [
            message
            for held_at, message in held
            if not isinstance(message, RestartIce) or now - held_at < REQUEST_LIFETIME_S
        ]

    def _hold(self, key: tuple[str, str], message: FromPeer, now: float) -> None:
        is_end = isinstance(message, ConnectionEnded)
        room = self._ends < ENDS_CAPACITY if is_end else len(self._held) - self._ends < CAPACITY
        if key in self._held:
            self._held[key] = (now, message)
        elif room:
            self._held[key] = (now, message)
            self._ends += is_end
        else:
            self.refused += 1

    def _merge(self, message: IceCandidates, now: float) -> None:
        key = ("candidates", message.connection)
        before = self._held[key][1] if key in self._held else None
        assert before is None or isinstance(before, IceCandidates)
        self._hold(key, merged(before, message), now)
