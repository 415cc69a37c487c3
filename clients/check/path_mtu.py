"""How long a packet may be on the way to a relay: STUN requests of several lengths that nobody may fragment. Pure.

The idea is that of RFC 8899 (probing by packets of the transport's own), with STUN's Binding request as the probe: it
can be made as long as one likes, and its answer is short. So only the way there is measured. All lengths are asked at
once; the longest that was answered counts. A length that the host's own device refuses to send is none.
"""

from typing import Final

from exeunt.actors.turn.codec import Address, family_of

from .questions import Questions

HEADER_BYTES: Final = {4: 20 + 8, 6: 40 + 8}
"""IP and UDP."""

PACKET_BYTES: Final = (1280, 1340, 1344, 1364, 1380, 1400, 1420, 1440, 1452, 1460, 1472, 1480, 1492, 1500)
"""What is tried: IPv6's least (RFC 8200 section 5), a tunnel's least with its headers, and what links are known for:
1420 and 1440 in other tunnels, 1492 over PPPoE (RFC 2516), 1500 on Ethernet."""


class PathMtuProbe:
    """Asks one relay; the socket must set Don't Fragment."""

    def __init__(self, server: Address, questions: Questions | None = None) -> None:
        self.questions = questions or Questions()
        self._server = server
        self._names = {f"{packet_bytes} bytes": packet_bytes for packet_bytes in PACKET_BYTES}

    @property
    def is_done(self) -> bool:
        """Whether nothing more will come."""
        return not self.questions.is_open(*self._names)

    def handle_start(self, now: float) -> None:
        """Begin."""
        header_bytes = HEADER_BYTES[family_of(self._server[0])]
        for name, packet_bytes in self._names.items():
            self.questions.ask(name, self._server, now, length_bytes=packet_bytes - header_bytes)

    def handle_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take what came in."""
        self.questions.handle_datagram(data, source, now)
        longest = f"{PACKET_BYTES[-1]} bytes"
        if self.questions.answers.get(longest):
            for name in self._names:
                self.questions.give_up(name)  # shorter ones get through where the longest did

    def handle_timeout(self, now: float) -> None:
        """Go on without what has not come."""
        self.questions.handle_timeout(now)

    @property
    def packet_bytes(self) -> int | None:
        """The longest packet that was answered; None if none was."""
        answered = (self.questions.answers.get(name) for name in self._names)
        pairs = zip(self._names.values(), answered, strict=True)
        return max((each for each, answer in pairs if answer and answer.source == self._server), default=None)
