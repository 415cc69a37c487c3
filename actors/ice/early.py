"""Candidates of a session that has not begun here yet.

Both sides are told of a restart by the portal, each in its own time. The peer may have begun and sent candidates while
our own word of the restart, or the actor that acts on it, is still on the way. They wait here, in bounds: the portal
is trusted to route, not to be right about how much.
"""

from .candidate import Candidate

MAX_GENERATIONS = 4
MAX_HELD = 65
"""For each generation: as many as a session takes (`check_list.MAX_REMOTE_CANDIDATES`), and the end."""


class EarlyCandidates:
    """What was told for generations to come; None stands for the end of candidates."""

    def __init__(self) -> None:
        self._held: dict[int, list[Candidate | None]] = {}

    def hold(self, generation: int, candidate: Candidate | None) -> bool:
        """Keep one until its generation begins; False: there are too many, and it is not kept."""
        if generation not in self._held and len(self._held) >= MAX_GENERATIONS:
            return False
        held = self._held.setdefault(generation, [])
        if len(held) >= MAX_HELD:
            return False
        held.append(candidate)
        return True

    def forget(self, generation: int, candidate: Candidate) -> None:
        """Drop one that was withdrawn before its generation began."""
        held = self._held.get(generation, [])
        held[:] = [other for other in held if other is None or other.address != candidate.address]

    def take(self, generation: int) -> list[Candidate | None]:
        """Hand out what was held for a generation that begins now, and forget older ones."""
        found = self._held.get(generation, [])
        self._held = {later: held for later, held in self._held.items() if later > generation}
        return found
