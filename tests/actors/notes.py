"""What a worker deposits, noted as its supervisor would: last words, and what a successor inherits."""

import os
from collections.abc import Sequence
from typing import Any

from exeunt.runtime.deposits import Deposits
from exeunt.runtime.inheritance import Bequest


class Notes(Deposits):
    """Keeps what is deposited, and gives what is bequeathed to whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[str, tuple[int | None, bytes, dict[str, Any]]] = {}
        """Descriptor, payload, and where it goes, by key."""
        self.left: dict[str, Bequest] = {}
        self.taken_keys: list[str] = []
        self.succeeds = False
        """Whether whoever asks is a successor."""

    @property
    def is_heir(self) -> bool:
        return self.succeeds

    @property
    def is_kept(self) -> bool:
        return True

    def put(self, key: str, descriptor: int | None, payload: bytes, **where: Any) -> None:
        self.words[key] = (descriptor, payload, where)

    def withdraw(self, key: str) -> None:
        self.words.pop(key, None)

    def bequeath(self, key: str, document: bytes, descriptors: Sequence[int] = ()) -> None:
        assert key not in self.left
        self.left[key] = Bequest(document=document, descriptors=[os.dup(one) for one in descriptors])

    def inherit(self, key: str) -> Bequest | None:
        return self.left.pop(key, None)

    def taken(self, key: str) -> None:
        self.taken_keys.append(key)
