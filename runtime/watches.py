"""Who watches whom: the bookkeeping behind `Terminated`, delivered exactly once, and behind links.

Each side keeps its half. The watcher's process knows what its actors watch (so that a dead worker's actors can be
reported even though nobody is left to say so); the target's process knows who is to be told. A watch has an id, which
its `Terminated` carries: one that was under way when the watch was taken back does not count for a later one.
"""

from __future__ import annotations

import msgspec


class Tie(msgspec.Struct):
    """Why a watcher is to be told."""

    id: int
    watched: bool = False
    linked: bool = False


class Watches:
    """Both halves, for the actors of one process."""

    def __init__(self) -> None:
        self._by_watcher: dict[str, dict[str, Tie]] = {}
        self._by_target: dict[str, dict[str, Tie]] = {}

    # --- the watcher's half ---

    def add(self, watcher: str, target: str, watch_id: int, *, linked: bool = False) -> bool:
        """A local actor watches, or is linked to, a target; False when it did so already (the old id stays)."""
        targets = self._by_watcher.setdefault(watcher, {})
        tie = targets.get(target)
        if tie is None:
            targets[target] = Tie(watch_id, watched=not linked, linked=linked)
            return True
        known = tie.linked if linked else tie.watched
        if linked:
            tie.linked = True
        else:
            tie.watched = True
        return not known

    def id_of(self, watcher: str, target: str) -> int:
        """Return the id of a watch; 0 when there is none."""
        tie = self._by_watcher.get(watcher, {}).get(target)
        return 0 if tie is None else tie.id

    def drop(self, watcher: str, target: str, *, linked: bool = False) -> int:
        """Take back a watch, or a link. Return its id when nothing of it is left, else 0."""
        tie = self._by_watcher.get(watcher, {}).get(target)
        if tie is None:
            return 0
        if linked:
            tie.linked = False
        else:
            tie.watched = False
        return 0 if tie.watched or tie.linked else self._remove(watcher, target).id

    def end(self, watcher: str, target: str, watch_id: int) -> Tie | None:
        """A target has ended; return the tie that is thereby over, if that is the one."""
        tie = self._by_watcher.get(watcher, {}).get(target)
        if tie is None or (watch_id and tie.id != watch_id):
            return None
        return self._remove(watcher, target)

    def forget_watcher(self, watcher: str) -> list[tuple[str, Tie]]:
        """A local watcher has ended; return what it was tied to."""
        return list(self._by_watcher.pop(watcher, {}).items())

    def by_target_prefix(self, prefix: str) -> list[tuple[str, str]]:
        """List (watcher, target) of local watchers whose target's address begins so."""
        return [
            (watcher, target)
            for watcher, targets in self._by_watcher.items()
            for target in targets
            if target.startswith(prefix)
        ]

    def _remove(self, watcher: str, target: str) -> Tie:
        targets = self._by_watcher[watcher]
        tie = targets.pop(target)
        if not targets:
            del self._by_watcher[watcher]
        return tie

    # --- the target's half ---

    def add_remote(self, watcher: str, target: str, watch_id: int) -> None:
        """Anyone watches a local target."""
        self._by_target.setdefault(target, {})[watcher] = Tie(watch_id)

    def remove_remote(self, watcher: str, target: str, watch_id: int) -> None:
        """Anyone stops watching a local target."""
        watchers = self._by_target.get(target)
        if watchers is not None and watcher in watchers and watchers[watcher].id == watch_id:
            del watchers[watcher]
            if not watchers:
                del self._by_target[target]

    def of_target(self, target: str) -> list[tuple[str, int]]:
        """Take out everybody who is to be told that a local target ended, with the id of their watch."""
        return [(watcher, tie.id) for watcher, tie in self._by_target.pop(target, {}).items()]

    def forget_watchers_of(self, prefix: str) -> None:
        """A worker is gone: its actors no longer want to know anything."""
        for target, watchers in list(self._by_target.items()):
            for watcher in [one for one in watchers if one.startswith(prefix)]:
                del watchers[watcher]
            if not watchers:
                del self._by_target[target]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is kept."""
        return not self._by_watcher and not self._by_target
