"""When to let checks gather: a gateway with a thousand idle peers is asked 400 times a second whether it is there.

Waking up costs more than answering. So while a socket brings nothing but checks, and many of them, it is left alone for
50 ms after each reading, and several are answered in one go. Keepalives of idle tunnels may wait as well, and the
handshakes that renew them. The first datagram of anything else ends that at once: who begins to talk after a second of
silence waits 50 ms at most, once, and only where so many peers are idle. So does who comes, or seeks another path: each
check of it is waited for. Pure.
"""

REST_S = 0.05
MANY_PER_S = 100.0
"""Five come in each rest then."""
WINDOW_S = 1.0
"""What the last second brought decides about the next."""


class Lull:
    """Counts what one socket brings. All times are seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self.is_on = False
        """Whether to rest after each reading."""
        self._began_at = now
        self._checks = 0
        self._is_pure = True

    def note(self, checks: int, now: float, *, data: bool) -> None:
        """Take note of a reading: how many datagrams it brought, and whether there was anything that cannot wait."""
        if data:
            self.is_on = self._is_pure = False
        self._checks += checks
        elapsed_s = now - self._began_at
        if elapsed_s >= WINDOW_S:
            self.is_on = self._is_pure and self._checks >= MANY_PER_S * elapsed_s
            self._began_at, self._checks, self._is_pure = now, 0, True
