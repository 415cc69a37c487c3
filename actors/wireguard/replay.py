"""A sliding window over packet counters: each counter is accepted once, however the network reorders.

The algorithm is RFC 6479's: a ring of 64-bit words, one word more than the window needs, so that moving forward clears
whole words and never shifts bits. Checking comes before authentication and changes nothing; marking comes after it.
"""

from collections.abc import Sequence
from typing import Self

from .timing import REPLAY_WINDOW_PACKETS

_WORD_BITS = 64
_WORDS = REPLAY_WINDOW_PACKETS // _WORD_BITS + 1


class ReplayWindow:
    """Remembers which of the last 8192 counters were seen."""

    __slots__ = ("_highest", "_words")

    def __init__(self) -> None:
        self._highest = -1
        self._words = [0] * _WORDS

    @classmethod
    def restored(cls, highest: int, words: Sequence[int]) -> Self:
        """Return a window as another one was. Raises ValueError when there are not so many words."""
        if len(words) != _WORDS:
            raise ValueError(f"a replay window has {_WORDS} words, not {len(words)}")
        window = cls()
        window._highest, window._words = highest, list(words)
        return window

    @property
    def words(self) -> tuple[int, ...]:
        """The ring, for `restored`."""
        return tuple(self._words)

    @property
    def highest(self) -> int:
        """The highest counter marked so far, or -1."""
        return self._highest

    def is_fresh(self, counter: int) -> bool:
        """Say whether a packet with this counter may be accepted. Changes nothing."""
        if counter > self._highest:
            return True
        if self._highest - counter >= REPLAY_WINDOW_PACKETS:
            return False
        word, bit = divmod(counter, _WORD_BITS)
        return not self._words[word % _WORDS] >> bit & 1

    def mark(self, counter: int) -> bool:
        """Record an authenticated counter; False when it was not fresh (and then nothing changes)."""
        if not self.is_fresh(counter):
            return False
        word, bit = divmod(counter, _WORD_BITS)
        if counter > self._highest:
            passed = min(word - self._highest // _WORD_BITS, _WORDS)
            for offset in range(passed):
                self._words[(word - offset) % _WORDS] = 0
            self._highest = counter
        self._words[word % _WORDS] |= 1 << bit
        return True
