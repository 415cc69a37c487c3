"""Wake-ups on a grid: a gateway looks after thousands of idle connections, and need not wake up for each of them.

A timer that is far away is set a little too early, to the next point of a grid before it, where others meet it. Mostly
it is put off again there, as the peer has shown meanwhile that it lives; where not, it is near by then, and exact.
"""

COARSE_AFTER_S, COARSE_S = 1.0, 0.25


def on_grid(due: float, now: float) -> float:
    """Return when to wake up for something that is due; both are seconds of one clock."""
    return due - due % COARSE_S if due - now > COARSE_AFTER_S else due
