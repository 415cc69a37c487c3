"""The members of a supervision tree: supervisors (branches), and what they keep (leaves)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from .backoff import Backoff
from .child_spec import Patience, Restart, Strategy, SupervisorSpec


class Kept(Protocol):
    """What the decision needs to know of whatever is kept: a `ChildSpec`, or a `WorkerSpec`."""

    @property
    def id(self) -> str:
        """Unique in its tree."""
        ...

    @property
    def restart(self) -> Restart:
        """When it is started again."""
        ...

    @property
    def shutdown_ms(self) -> Patience:
        """How long its end may take."""
        ...

    @property
    def significant(self) -> bool:
        """Whether its end for good is its supervisor's."""
        ...

    @property
    def backoff(self) -> Backoff | None:
        """How long to wait before it is started again."""
        ...


LeafSpec = TypeVar("LeafSpec", bound=Kept)


class State(StrEnum):
    """How a leaf is."""

    WAITING = "waiting"
    """To be started."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"


class TreeNode(msgspec.Struct, frozen=True, kw_only=True):
    """A member of the tree as plain data."""

    id: str
    kind: str
    """`supervisor`, `actor`, or `worker` in the tree of workers."""
    state: str
    """A leaf's state; of a supervisor `running` when everything below it runs, else `restarting`."""
    restarts: int
    restart: str
    worker: str = ""
    """Where an actor lives."""
    incarnation: int = 0
    strategy: str = ""
    """A supervisor's."""
    children: tuple[TreeNode, ...] = ()


class Member(Generic[LeafSpec]):
    """One of the tree."""

    def __init__(self, spec: Any, parent: Branch[LeafSpec] | None) -> None:
        self.spec = spec
        self.parent = parent
        self.restarts = 0
        self.failures = 0
        """In a row: none of them after it had run for long."""
        self.since: float | None = None
        """When it was last started; None while it does not run."""

    @property
    def backoff(self) -> Backoff | None:
        """Its own, or that of the nearest supervisor that has one."""
        member: Member[LeafSpec] | None = self
        while member is not None:
            if member.spec.backoff is not None:
                found: Backoff = member.spec.backoff
                return found
            member = member.parent
        return None

    def count_failure(self, reset_s: float, now: float) -> int:
        """It has failed: return how often in a row."""
        if self.since is not None and now - self.since >= reset_s:
            self.failures = 0
        self.since = None
        self.failures += 1
        return self.failures


class Leaf(Member[LeafSpec]):
    """An actor, or a worker."""

    def __init__(self, spec: LeafSpec, parent: Branch[LeafSpec]) -> None:
        super().__init__(spec, parent)
        self.spec: LeafSpec = spec
        self.state = State.WAITING
        self.incarnation = 0
        """Of who lives, or lived last; 0 before the first start."""

    @property
    def alive(self) -> bool:
        """Whether its end would be news."""
        return self.state in {State.STARTING, State.RUNNING}


class Branch(Member[LeafSpec]):
    """A supervisor."""

    def __init__(self, spec: SupervisorSpec, parent: Branch[LeafSpec] | None) -> None:
        super().__init__(spec, parent)
        self.spec: SupervisorSpec = spec
        self.children: dict[str, Member[LeafSpec]] = {}
        self._window: deque[float] = deque()

    def begin(self) -> None:
        """Be as new: no children yet, and no restarts to remember."""
        self.children = {}
        self._window.clear()

    def has_restarted_too_much(self, now: float) -> bool:
        """Count one more restart; say whether that is more than it may in its period."""
        intensity = self.spec.intensity
        self._window.append(now)
        while self._window[0] <= now - intensity.period_s:
            self._window.popleft()
        return len(self._window) > intensity.restarts

    def group(self, ended: Iterable[Member[LeafSpec]]) -> list[Member[LeafSpec]]:
        """Return the children that are restarted when these have ended, from left to right."""
        children = list(self.children.values())
        if self.spec.strategy is Strategy.ONE_FOR_ALL:
            return children
        if self.spec.strategy is Strategy.REST_FOR_ONE:
            return children[min(children.index(one) for one in ended) :]
        return [one for one in children if one in list(ended)]


def leaves_of(member: Member[LeafSpec]) -> list[Leaf[LeafSpec]]:
    """Return the leaves below a member, or itself if it is one, from left to right."""
    if isinstance(member, Leaf):
        return [member]
    assert isinstance(member, Branch)
    return [leaf for child in member.children.values() for leaf in leaves_of(child)]


def describe(member: Member[Any]) -> TreeNode:
    """Describe a member, and all below it, as plain data."""
    restart = str(member.spec.restart)
    if isinstance(member, Branch):
        children = tuple(describe(child) for child in member.children.values())
        state = "running" if all(child.state == State.RUNNING for child in children) else "restarting"
        return TreeNode(
            id=member.spec.id,
            kind="supervisor",
            state=state,
            restarts=member.restarts,
            restart=restart,
            strategy=str(member.spec.strategy),
            children=children,
        )
    assert isinstance(member, Leaf)
    worker = getattr(member.spec, "worker", "")
    return TreeNode(
        id=member.spec.id,
        kind="actor" if worker else "worker",
        state=str(member.state),
        restarts=member.restarts,
        restart=restart,
        worker=worker,
        incarnation=member.incarnation,
    )
