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
    word = counter >> 6
    if counter >= state[0]:
        if word != state[0] - 1 >> 6:
            _clear(state, word)
        state[0] = counter + 1
    state[1 + word % (len(state) - 1)] |= 1 << (counter & 63)


def mark_run(state: array[int], first: int, count: int) -> None:
    """Record so many counters from the first one on, at least one, all of them above the highest."""
    last = first + count - 1
    newest = last >> 6
    _clear(state, newest)
    state[0] = last + 1
    words = len(state) - 1
    for word in range(max(first >> 6, newest - words + 1), newest + 1):
        low = max(first - word * _WORD_BITS, 0)
        high = min(last - word * _WORD_BITS, _WORD_BITS - 1)
        state[1 + word % words] |= (_ALL >> (_WORD_BITS - 1 - high + low)) << low


def _clear(state: array[int], newest: int) -> None:
    """Forget the words that the ring takes up again when it moves on to the newest one."""
    words = len(state) - 1
    for word in range(max(state[0] - 1 >> 6, newest - words) + 1, newest + 1):
        state[1 + word % words] = 0
