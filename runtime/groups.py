"""Groups of actors across workers (OTP's `pg`), and the names of a program's children.

An actor joins a group by name, in a handler or a hook, and leaves it by itself, or by ending. Every worker knows the
members of all groups: whoever changes one tells the supervisor, which tells every worker. So the workers agree in the
end, not at once; one's own worker knows at once. A group is there while it has members. Members of a dead worker drop
out of every worker's view when that worker hears of the death.

Names are simpler: the supervisor's specs say where a child lives, whether or not it lives just now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .context import current
from .envelope import Message
from .messages import GroupJoined, GroupLeft, NamesChanged
from .ref import Ref

if TYPE_CHECKING:
    from .node import Node


class Groups:
    """The groups as one worker knows them (`node.groups`). On its loop only."""

    def __init__(self, node: Node) -> None:
        self.on_change: Callable[[GroupJoined | GroupLeft], None] = lambda _message: None
        """Called when a local actor joins or leaves."""
        self._node = node
        self._prefix = f"{node.name}/{node.worker}/"
        self._members: dict[str, dict[str, None]] = {}
        self._turns: dict[str, int] = {}

    # --- for actors ---

    def join(self, group: str) -> None:
        """Have the actor that calls this join. To join twice is to join. Raises RuntimeError outside of an actor."""
        me = self._me()
        if me not in self._members.get(group, ()):
            self._add(group, me)
            self.on_change(GroupJoined(group, (me,)))

    def leave(self, group: str) -> None:
        """Have the actor that calls this leave; nothing happens when it is no member."""
        me = self._me()
        if me in self._members.get(group, ()):
            self._drop(group, me)
            self.on_change(GroupLeft(group, (me,)))

    def names(self) -> list[str]:
        """Return the groups that have members."""
        return sorted(self._members)

    def members(self, group: str) -> list[Ref]:
        """Return the members of a group, of all workers, sorted by address; none when there is no such group."""
        return [self._node.ref(address) for address in sorted(self._members.get(group, ()))]

    def tell_all(self, group: str, message: Message) -> int:
        """Tell every member; return how many that were."""
        members = self.members(group)
        for member in members:
            member.tell(message)
        return len(members)

    def one_of(self, group: str) -> Ref | None:
        """Return a member, each in its turn (of this worker's askers); None when there is none."""
        members = self.members(group)
        if not members:
            return None
        turn = self._turns[group] = self._turns.get(group, -1) + 1
        return members[turn % len(members)]

    # --- for the node and its host ---

    def ended(self, address: str) -> None:
        """A local actor has ended: it leaves every group."""
        for group in [group for group, members in self._members.items() if address in members]:
            self._drop(group, address)
            self.on_change(GroupLeft(group, (address,)))

    def worker_down(self, worker: str) -> None:
        """A worker is gone, and its members with it."""
        prefix = f"{self._node.name}/{worker}/"
        for group, members in list(self._members.items()):
            for address in [address for address in members if address.startswith(prefix)]:
                self._drop(group, address)

    def hear(self, message: GroupJoined | GroupLeft) -> None:
        """Take note of what happened elsewhere. About our own actors nobody knows better than we do."""
        change = self._add if isinstance(message, GroupJoined) else self._drop
        for address in message.members:
            if not address.startswith(self._prefix):
                change(message.group, address)

    def all(self) -> list[GroupJoined]:
        """Return all there is to know, for a worker that is new."""
        return [GroupJoined(group, tuple(members)) for group, members in self._members.items()]

    def _me(self) -> str:
        context = current()
        if context is None or not context.to.startswith(self._prefix):
            raise RuntimeError("only an actor can join or leave a group: call this in a handler or a hook")
        return context.to

    def _add(self, group: str, address: str) -> None:
        self._members.setdefault(group, {})[address] = None

    def _drop(self, group: str, address: str) -> None:
        members = self._members.get(group)
        if members is not None:
            members.pop(address, None)
            if not members:
                del self._members[group]
                self._turns.pop(group, None)


class Names:
    """The addresses of the program's children as one worker knows them (`node.names`)."""

    def __init__(self) -> None:
        self._addresses: dict[str, str] = {}

    def address(self, child_id: str) -> str | None:
        """Return where a child lives; None for one that is not known (any more)."""
        return self._addresses.get(child_id)

    def hear(self, message: NamesChanged) -> None:
        """Take note."""
        for child_id in message.gone:
            self._addresses.pop(child_id, None)
        self._addresses.update(message.known)

    def all(self) -> NamesChanged:
        """Return all there is to know, for a worker that is new."""
        return NamesChanged(dict(self._addresses))
