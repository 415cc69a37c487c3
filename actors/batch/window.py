"""The replay window's memory, as the kernels use it: the algorithm is `wireguard.replay`'s, from RFC 6479.

`state[0]` is the highest counter marked plus one. A burst that arrived in order has counters in a row, all of them
above: marking those is setting runs of bits.
"""

from __future__ import annotations

from array import array
from typing import Final

_WORD_BITS: Final = 64
_ALL: Final = (1 << _WORD_BITS) - 1


def is_fresh(state: array[int], counter: int) -> bool:
    """Say whether a datagram with this counter may be accepted. Changes nothing."""
    behind = state[0] - counter
    if behind <= 0:
        return True
    words = len(state) - 1
    if behind > (words - 1) * _WORD_BITS:
        return False
    return not state[1 + (counter >> 6) % words] >> (counter & 63) & 1


def mark(state: array[int], counter: int) -> None:
    """Record a counter that is fresh."""
    if counter >= state[0]:
        _advance(state, counter)
    state[1 + (counter >> 6) % (len(state) - 1)] |= 1 << (counter & 63)


def mark_run(state: array[int], first: int, count: int) -> None:
    """Record so many counters from the first one on, at least one, all of them above the highest."""
    last = first + count - 1
    _advance(state, last)
    words = len(state) - 1
    oldest = max(first >> 6, (last >> 6) - words + 1)
    for word in range(oldest, (last >> 6) + 1):
        low = max(first - word * _WORD_BITS, 0)
        high = min(last - word * _WORD_BITS, _WORD_BITS - 1)
        state[1 + word % words] |= (_ALL >> (_WORD_BITS - 1 - high + low)) << low


def _advance(state: array[int], counter: int) -> None:
    words = len(state) - 1
    word = counter >> 6
    for passed in range(word - min(word - (state[0] - 1 >> 6), words) + 1, word + 1):
        state[1 + passed % words] = 0
    state[0] = counter + 1
