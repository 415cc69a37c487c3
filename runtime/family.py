"""The members of a supervision tree: supervisors (branches), and what they keep (leaves)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from .backoff import Backoff
from .child_spec import ROOT_ID, Patience, Restart, Strategy, SupervisorSpec
from .errors import NameTaken

_FALLEN_KEPT = 100
"""How many that were given up a supervisor remembers; the oldest are forgotten."""
_FATAL = "fatal"


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
    def hands_over(self) -> bool:
        """Whether it goes on in a successor."""
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
    """A leaf's state; of a supervisor `running` when everything below it runs, else `restarting`; `fatal` for who was
    given up.
    """
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
        self.goes_on = False
        """It has handed over, or is about to, and waits to be started in the successor of what it ran in."""

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
        self.fallen: dict[str, Member[LeafSpec]] = {}
        """Who was a child, and was given up. Nothing is decided about them any more, but people ask."""
        self._window: deque[float] = deque()

    def begin(self) -> None:
        """Be as new: no children yet, and no restarts to remember."""
        self.children = {}
        self.fallen = {}
        self._window.clear()

    def give_up(self, member: Member[LeafSpec]) -> None:
        """Remember a child that won't be started again although it should."""
        self.fallen[member.spec.id] = member
        if len(self.fallen) > _FALLEN_KEPT:
            del self.fallen[next(iter(self.fallen))]

    def forget(self, names: Iterable[str]) -> None:
        """Forget who was given up and has one of these names, or somebody below who has: there is a new one."""
        gone = set(names)
        self.fallen = {
            id_: member for id_, member in self.fallen.items() if not gone & {one.spec.id for one in _members(member)}
        }

    def has_restarted_too_much(self, now: float) -> bool:
        """Count one more restart; say whether that is more than it may in its period."""
        intensity = self.spec.intensity
        self._window.append(now)
        while self._window[0] <= now - intensity.period_s:
            self._window.popleft()
        return len(self._window) > intensity.restarts

    def group(self, ended: Iterable[Member[LeafSpec]]) -> list[Member[LeafSpec]]:
        """Return the children that are restarted when these have ended, from left to right."""
        if self.spec.strategy is Strategy.ONE_FOR_ONE:
            return list(ended)
        children = list(self.children.values())
        if self.spec.strategy is Strategy.REST_FOR_ONE:
            return children[min(children.index(one) for one in ended) :]
        return children


def leaves_of(member: Member[LeafSpec]) -> list[Leaf[LeafSpec]]:
    """Return the leaves below a member, or itself if it is one, from left to right."""
    if isinstance(member, Leaf):
        return [member]
    assert isinstance(member, Branch)
    return [leaf for child in member.children.values() for leaf in leaves_of(child)]


class Family(Generic[LeafSpec]):
    """Who there is: a tree of members, each known by its id. It grows and shrinks; it decides nothing."""

    def __init__(self, root: SupervisorSpec) -> None:
        self.root: Branch[LeafSpec] = Branch(root, None)
        self._leaves: dict[str, Leaf[LeafSpec]] = {}
        self._branches: dict[str, Branch[LeafSpec]] = {root.id: self.root}
        self._barred: set[str] = set()
        """Leaves that are never started again, because what they ran in is not."""

    def add(self, spec: LeafSpec | SupervisorSpec, under: str = "") -> tuple[str, ...]:
        """Add a member, right of all others of its supervisor (`under`, or the root); return the leaves to start.

        Raises NameTaken when its id, or one below it, is there already; KeyError when there is no such supervisor.
        """
        parent = self._branches[under] if under else self.root
        names = list(_ids(spec))
        known = {one for branch in self._branches.values() for one in _ids(branch.spec)}  # they may come back
        taken = [name for name in names if name in self._leaves or name in known]
        taken += [name for name in set(names) if names.count(name) > 1]
        if taken:
            raise NameTaken(f"there is a child {taken[0]} already")
        for branch in self._branches.values():
            branch.forget(names)
        return tuple(leaf.spec.id for leaf in leaves_of(self._grow(parent, spec, {})))

    def spec(self, leaf_id: str) -> LeafSpec | None:
        """Return the spec of a leaf; None when there is none (any more)."""
        leaf = self._leaves.get(leaf_id)
        return leaf.spec if leaf is not None else None

    def is_waiting(self, leaf_id: str) -> bool:
        """Say whether a leaf is there and is to be started."""
        leaf = self._leaves.get(leaf_id)
        return leaf is not None and leaf.state is State.WAITING

    def is_starting(self, leaf_id: str, incarnation: int) -> bool:
        """Say whether just this incarnation of a leaf is being started."""
        leaf = self._leaves.get(leaf_id)
        return leaf is not None and leaf.state is State.STARTING and leaf.incarnation == incarnation

    def leaves(self, under: str = "") -> list[Leaf[LeafSpec]]:
        """Return the leaves below a supervisor (or all), in order of start. Raises KeyError when there is none."""
        return leaves_of(self._branches[under] if under else self.root)

    def is_supervisor(self, member_id: str) -> bool:
        """Say whether that is the id of a supervisor other than the root."""
        return member_id in self._branches and member_id != ROOT_ID

    def above(self, leaf_id: str) -> list[str]:
        """Return the ids of the supervisors of a leaf, its own first, the root last."""
        member: Member[LeafSpec] | None = self._leaves.get(leaf_id)
        found: list[str] = []
        while member is not None and member.parent is not None:
            member = member.parent
            found.append(member.spec.id)
        return found

    def restarts_of(self, leaf_id: str) -> int:
        """Return how often a leaf was restarted."""
        leaf = self._leaves.get(leaf_id)
        return leaf.restarts if leaf is not None else 0

    @property
    def restarts(self) -> dict[str, int]:
        """How often each was restarted; those that never were are left out."""
        members: Iterable[Member[LeafSpec]] = (*self._leaves.values(), *self._branches.values())
        return {member.spec.id: member.restarts for member in members if member.restarts}

    def tree(self) -> TreeNode:
        """Describe it all."""
        return describe(self.root)

    def given_up(self) -> list[Leaf[LeafSpec]]:
        """Return the leaves that are not started again although they should be."""
        branches = self._branches.values()
        return [leaf for branch in branches for fallen in branch.fallen.values() for leaf in leaves_of(fallen)]

    def knows(self, member_id: str) -> bool:
        """Say whether there is a member of that id other than the root, be it that it was given up."""
        return self._member(member_id) is not None

    # --- for the decision ---

    def _grow(self, parent: Branch[LeafSpec], spec: Any, known: dict[str, Member[LeafSpec]]) -> Member[LeafSpec]:
        """Hang a member into the tree, with all below it. What was `known` of it is kept: restarts, incarnations."""
        member: Member[LeafSpec]
        if isinstance(spec, SupervisorSpec):
            found = known.get(spec.id)
            branch: Branch[LeafSpec] = found if isinstance(found, Branch) else Branch(spec, parent)
            branch.begin()
            self._branches[spec.id] = member = branch
            for child in spec.children:
                self._grow(branch, child, known)
        else:
            if spec.id in self._barred and known:
                barred: Leaf[LeafSpec] = Leaf(spec, parent)
                parent.give_up(barred)
                return barred
            found = known.get(spec.id)
            leaf: Leaf[LeafSpec] = found if isinstance(found, Leaf) else Leaf(spec, parent)
            self._leaves[spec.id] = member = leaf
        parent.children[spec.id] = member
        return member

    def _restore(self, member: Member[LeafSpec]) -> list[str]:
        """Give a supervisor the children of its spec again; return the leaves to start."""
        if isinstance(member, Branch):
            known = {one.spec.id: one for one in _members(member)}
            for one in known.values():
                self._leaves.pop(one.spec.id, None)
                self._branches.pop(one.spec.id, None)
            assert member.parent is not None
            self._grow(member.parent, member.spec, known)
        return [leaf.spec.id for leaf in leaves_of(member)]

    def _member(self, member_id: str) -> Member[LeafSpec] | None:
        """Find whom somebody may restart."""
        if member_id in self._leaves:
            return self._leaves[member_id]
        if member_id in self._branches:
            return self._branches[member_id] if member_id != ROOT_ID else None
        fallen = [branch.fallen[member_id] for branch in self._branches.values() if member_id in branch.fallen]
        return fallen[0] if fallen and member_id not in self._barred else None

    def _remove(self, member: Member[LeafSpec]) -> None:
        if member.parent is not None:
            member.parent.children.pop(member.spec.id, None)
        for one in _members(member):
            self._leaves.pop(one.spec.id, None)
            self._branches.pop(one.spec.id, None)


def describe(member: Member[Any], *, fallen: bool = False) -> TreeNode:
    """Describe a member, and all below it, as plain data. `fallen`: it was given up."""
    restart = str(member.spec.restart)
    if isinstance(member, Branch):
        living = tuple(describe(child, fallen=fallen) for child in member.children.values())
        state = "running" if all(child.state == State.RUNNING for child in living) else "restarting"
        children = (*living, *(describe(child, fallen=True) for child in member.fallen.values()))
        return TreeNode(
            id=member.spec.id,
            kind="supervisor",
            state=_FATAL if fallen else state,
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
        state=_FATAL if fallen else str(member.state),
        restarts=member.restarts,
        restart=restart,
        worker=worker,
        incarnation=member.incarnation,
    )


def _members(member: Member[Any]) -> list[Member[Any]]:
    below = member.children.values() if isinstance(member, Branch) else ()
    return [member, *(one for child in below for one in _members(child))]


def _ids(spec: Any) -> Iterable[str]:
    yield spec.id
    if isinstance(spec, SupervisorSpec):
        for child in spec.children:
            yield from _ids(child)
