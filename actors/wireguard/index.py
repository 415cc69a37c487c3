"""Session indices that say whose they are.

An index is 32 bits that the receiver chooses for itself. Whoever serves many tunnels on one socket gives each a 24-bit
prefix and finds the tunnel of a datagram by it; the last 8 bits tell the tunnel's sessions apart.
"""

_PREFIX_BITS = 24
_SESSION_BITS = 8


class PrefixedIndices:
    """Calling it yields the next index under a prefix; after 256 they repeat, long after the first has expired.

    Raises:
        ValueError: the prefix does not fit 24 bits.
    """

    __slots__ = ("next", "prefix")

    def __init__(self, prefix: int) -> None:
        if not 0 <= prefix < 1 << _PREFIX_BITS:
            raise ValueError("an index prefix has 24 bits")
        self.prefix = prefix
        self.next = 0
        """The last 8 bits of the next one."""

    def __call__(self) -> int:
        """Return an index that this tunnel has not used recently."""
        index = self.prefix << _SESSION_BITS | self.next
        self.next = (self.next + 1) % (1 << _SESSION_BITS)
        return index

    @staticmethod
    def prefix_of(index: int) -> int:
        """Return the prefix under which an index was allocated."""
        return index >> _SESSION_BITS
