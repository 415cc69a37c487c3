"""Who watches whom: the bookkeeping behind `Terminated`, delivered exactly once.

Each side keeps its half. The watcher's process knows what its actors watch (so that a dead worker's actors can be
reported even though nobody is left to say so); the target's process knows who is to be told.
"""

from __future__ import annotations


class Watches:
    """Both halves, for the actors of one process."""

    def __init__(self) -> None:
        self._by_watcher: dict[str, dict[str, None]] = {}
        self._by_target: dict[str, dict[str, None]] = {}

    def add(self, watcher: str, target: str) -> bool:
        """A local watcher begins; False when it already watches that target."""
        targets = self._by_watcher.setdefault(watcher, {})
        if target in targets:
            return False
        targets[target] = None
        return True

    def remove(self, watcher: str, target: str) -> bool:
        """A local watcher's watch ends; False when there was none."""
        targets = self._by_watcher.get(watcher)
        if targets is None or target not in targets:
            return False
        del targets[target]
        if not targets:
            del self._by_watcher[watcher]
        return True

    def add_remote(self, watcher: str, target: str) -> None:
        """Anyone watches a local target."""
        self._by_target.setdefault(target, {})[watcher] = None

    def remove_remote(self, watcher: str, target: str) -> None:
        """Anyone stops watching a local target."""
        watchers = self._by_target.get(target)
        if watchers is not None:
            watchers.pop(watcher, None)
            if not watchers:
                del self._by_target[target]

    def of_target(self, target: str) -> list[str]:
        """Take out everybody who is to be told that a local target ended."""
        return list(self._by_target.pop(target, {}))

    def by_target_prefix(self, prefix: str) -> list[tuple[str, str]]:
        """List (watcher, target) of local watchers whose target's address begins so."""
        return [
            (watcher, target)
            for watcher, targets in self._by_watcher.items()
            for target in targets
            if target.startswith(prefix)
        ]

    def forget_watcher(self, watcher: str) -> list[str]:
        """A local watcher has ended; return what it watched."""
        return list(self._by_watcher.pop(watcher, {}))

    def forget_watchers_of(self, prefix: str) -> None:
        """A worker is gone: its actors no longer want to know anything."""
        for watchers in self._by_target.values():
            for watcher in [one for one in watchers if one.startswith(prefix)]:
                del watchers[watcher]
