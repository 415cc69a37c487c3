"""What a worker can say of itself: who lives there, what one actor is about, the stacks, the dead letters.

The same question, `Look`, is answered by the same function, `look`, on three ways: through the worker's side door
(`side_door`), which also works while its loop is blocked; directly, where the worker is on the supervisor's own
thread; and by its host, where neither can be (a worker on another machine). Only a `snapshot` is always asked of
the host: it is the actor's own code, and runs where the actor runs.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Sequence
from typing import Literal

import msgspec

from .actor import Actor
from .dead_letters import DeadLetter
from .envelope import Message, RuntimeMessage
from .messages import ActorRow, Description
from .node import Node
from .stacks import handled_by, take
from .wakeups import wakeups_of

What = Literal["actors", "actor", "stacks", "dead_letters"]

_SNAPSHOT_BYTES = 256 * 1024  # of JSON; more is no summary
_SNAPSHOT_S = 1.0


class Look(RuntimeMessage, frozen=True):
    """Ask a worker about itself. Answered by `Seen`."""

    what: What
    name: str = ""
    """For `actor`: whose."""


class Seen(RuntimeMessage, frozen=True):
    """What there was to see: msgpack of `Description`, `Detail | None`, `Stacks` or `Letters`."""

    document: msgspec.Raw


class TakeSnapshot(RuntimeMessage, frozen=True):
    """Ask a worker's host for an actor's `snapshot()`. Answered by `Snapshot`."""

    name: str


class Snapshot(RuntimeMessage, frozen=True):
    """An actor's own account of its state."""

    json: str = ""
    """Empty where there is none."""
    error: str = ""
    """Why there is none, where it has a `snapshot` that failed."""


MESSAGES: tuple[type[Message], ...] = (Look, Seen, TakeSnapshot, Snapshot)


class Detail(msgspec.Struct, frozen=True):
    """One actor, from inside."""

    row: ActorRow
    mailbox_policy: str
    rejected_total: int
    dropped_total: int
    has_snapshot: bool


class Letters(msgspec.Struct, frozen=True):
    """The dead letters of a worker."""

    total: int
    recent: tuple[DeadLetter, ...]


_encode = msgspec.msgpack.Encoder().encode


def look(node: Node, question: Look, *, others: Sequence[Node] = ()) -> bytes:
    """Answer a `Look`, from any thread. `others`: further nodes of this process, whose actors have stacks as well."""
    match question.what:
        case "actors":
            return _encode(describe(node))
        case "actor":
            actor = node.actors.get(question.name)
            return _encode(_detail(actor) if actor is not None else None)
        case "stacks":
            return _encode(take([node, *others], except_thread=_caller(node)))
        case "dead_letters":
            return _encode(_letters(node))


def answer(node: Node, request: bytes) -> bytes:
    """Answer a `Look` that came as JSON through the side door."""
    return look(node, msgspec.json.decode(request, type=Look))


def describe(node: Node) -> Description:
    """Describe the actors of a process, and what wakes it. From any thread."""
    rows, wakeups = tuple(map(_row, list(node.actors.values()))), wakeups_of(node.loop)
    return Description(rows, _letters(node).total, wakeups.counts, wakeups.over_s)


async def snapshot(actor: Actor) -> Snapshot:
    """Have an actor give its `snapshot()`, on its own thread. Whatever it raises becomes the answer."""
    if not _has_snapshot(actor):
        return Snapshot()
    try:
        async with asyncio.timeout(_SNAPSHOT_S):
            state = actor.lifecycle.invoke(actor.snapshot)
            if inspect.isawaitable(state):
                state = await state
        text = msgspec.json.encode(state, order="deterministic").decode()
    except TimeoutError:
        return Snapshot(error=f"it took longer than {_SNAPSHOT_S:g} s")
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - the actor's code; it must not end who asks, nor the actor
        return Snapshot(error=f"{type(error).__name__}: {_words(error)}")
    if len(text) > _SNAPSHOT_BYTES:
        return Snapshot(error=f"it takes {len(text)} bytes, the bound is {_SNAPSHOT_BYTES}")
    return Snapshot(json=text)


def _has_snapshot(actor: Actor) -> bool:
    return type(actor).snapshot is not Actor.snapshot


def _words(error: BaseException) -> str:
    try:
        return str(error)[:1000].encode(errors="replace").decode()
    except Exception:  # noqa: BLE001 - its own __str__ raises
        return "(it cannot be put in words)"


def _row(actor: Actor) -> ActorRow:
    handling = handled_by(actor)
    return ActorRow(
        address=str(actor.ref),
        kind=type(actor).__name__,
        state=actor.state,
        mailbox=len(actor.mailbox),
        handled_total=actor.handled_total,
        incarnation=actor.incarnation,
        started_ns=actor.started_ns,
        mailbox_bound=actor.mailbox.bound,
        handling=handling.message if handling is not None else "",
    )


def _detail(actor: Actor) -> Detail:
    mailbox = actor.mailbox
    return Detail(
        row=_row(actor),
        mailbox_policy=mailbox.policy,
        rejected_total=mailbox.rejected_total,
        dropped_total=mailbox.dropped_total,
        has_snapshot=_has_snapshot(actor),
    )


def _letters(node: Node) -> Letters:
    return Letters(node.dead_letters.total, tuple(node.dead_letters.recent))


def _caller(node: Node) -> int | None:
    """The thread that looks, unless it is the loop's: that one's stack is worth seeing."""
    me = threading.get_ident()
    return None if me == node.thread else me
