"""What waits while the link is down.

Only what still means something later is kept, and only one of a kind: the last request for a resource, the
end of a connection, and the union of a connection's candidates. An `Authorized` answers a question that the
portal has given up by then. The box is bounded; what does not fit is refused and counted.
"""

from .messages import MAX_CANDIDATES, ConnectionEnded, FromPeer, IceCandidates, RequestAuthorization

CAPACITY = 32
"""Messages. One user waits for a handful of resources; more than this is a loop."""

REQUEST_LIFETIME_S = 15.0
"""The portal waits this long for a gateway; whoever asked has given up by then, and asks again if need be."""


class Outbox:
    """Messages held until the next join, in the order in which they were first put in."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], tuple[float, FromPeer]] = {}
        self.refused = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, message: FromPeer, now: float) -> None:
        """Hold a message, merge it with one that already waits, or refuse it."""
        match message:
            case RequestAuthorization():
                self._hold(("request", message.resource_id), message, now)
            case ConnectionEnded():
                self._held.pop(("candidates", message.connection), None)
                self._hold(("ended", message.connection), message, now)
            case IceCandidates():
                self._merge(message, now)
            case _:
                self.refused += 1

    def take_all(self, now: float) -> list[FromPeer]:
        """Empty the box. Requests that nobody waits for any more are left out."""
        held = list(self._held.values())
        self._held.clear()
        return [
            message
            for held_at, message in held
            if not isinstance(message, RequestAuthorization) or now - held_at < REQUEST_LIFETIME_S
        ]

    def _hold(self, key: tuple[str, str], message: FromPeer, now: float) -> None:
        if key not in self._held and len(self._held) >= CAPACITY:
            self.refused += 1
        else:
            self._held[key] = (now, message)

    def _merge(self, message: IceCandidates, now: float) -> None:
        key = ("candidates", message.connection)
        before: tuple[str, ...] = ()
        end = message.end
        if key in self._held:
            earlier = self._held[key][1]
            assert isinstance(earlier, IceCandidates)
            before, end = earlier.candidates, end or earlier.end
        union = tuple(dict.fromkeys(before + message.candidates))[:MAX_CANDIDATES]
        self._hold(key, IceCandidates(connection=message.connection, candidates=union, end=end), now)
