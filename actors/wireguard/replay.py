"""A sliding window over packet counters: each counter is accepted once, however the network reorders.

The algorithm is RFC 6479's: a ring of 64-bit words, one word more than the window needs, so that moving forward clears
whole words and never shifts bits. Checking comes before authentication and changes nothing; marking comes after it.
"""

from array import array
from collections.abc import Sequence
from typing import Self

from .timing import REPLAY_WINDOW_PACKETS

_WORD_BITS = 64
_WORDS = REPLAY_WINDOW_PACKETS // _WORD_BITS + 1


class ReplayWindow:
    """Remembers which of the last 8192 counters were seen."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = array("Q", bytes(8 * (1 + _WORDS)))
        """The highest counter marked plus one, then the ring. The kernels of `batch` work on it directly."""

    @classmethod
    def restored(cls, highest: int, words: Sequence[int]) -> Self:
        """Return a window as another one was. Raises ValueError when there are not so many words."""
        if len(words) != _WORDS:
            raise ValueError(f"a replay window has {_WORDS} words, not {len(words)}")
        window = cls()
        window.state = array("Q", [highest + 1, *words])
        return window

    @property
    def words(self) -> tuple[int, ...]:
        """The ring, for `restored`."""
        return tuple(self.state[1:])

    @property
    def highest(self) -> int:
        """The highest counter marked so far, or -1."""
        return self.state[0] - 1

    def is_fresh(self, counter: int) -> bool:
        """Say whether a packet with this counter may be accepted. Changes nothing."""
        after_highest = self.state[0]
        if counter >= after_highest:
            return True
        if after_highest - counter > REPLAY_WINDOW_PACKETS:
            return False
        word, bit = divmod(counter, _WORD_BITS)
        return not self.state[1 + word % _WORDS] >> bit & 1

    def mark(self, counter: int) -> bool:
        """Record an authenticated counter; False when it was not fresh (and then nothing changes)."""
        if not self.is_fresh(counter):
            return False
        state = self.state
        word, bit = divmod(counter, _WORD_BITS)
        if counter >= state[0]:
            passed = min(word - (state[0] - 1) // _WORD_BITS, _WORDS)
            for offset in range(passed):
                state[1 + (word - offset) % _WORDS] = 0
            state[0] = counter + 1
        state[1 + word % _WORDS] |= 1 << bit
        return True
