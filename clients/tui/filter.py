"""What `/` takes: words that must all occur, or with `!` must not. Upper and lower case are the same."""

from __future__ import annotations

from typing import NamedTuple


class Filter(NamedTuple):
    """Which lines are shown. One without words admits all."""

    wanted: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str) -> Filter:
        """Read what a person typed."""
        words = [word for word in text.casefold().split() if word != "!"]
        return cls(
            tuple(word for word in words if not word.startswith("!")),
            tuple(word[1:] for word in words if word.startswith("!")),
        )

    def admits(self, *texts: str) -> bool:
        """Whether a line that says all this is shown."""
        line = " ".join(texts).casefold()
        return all(word in line for word in self.wanted) and not any(word in line for word in self.unwanted)

    def __bool__(self) -> bool:
        return bool(self.wanted or self.unwanted)
