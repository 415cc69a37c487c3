"""What the Python of this process is doing right now: the stacks of its threads, and of what its actors wait for.

Two kinds of stacks. A thread's is what runs, or blocks: `sys._current_frames` has it, also while another thread asks.
A suspended handler's is on no thread; it is the chain of coroutines from the actor's task down to the future that
they wait for. Read-only, from any thread, under the interpreter's lock: nothing is stopped or slowed down.

Where that lock is never let go (an extension in C that computes for seconds), no Python can look. For this case a
worker has `faulthandler`, whose dump `parse_dump` reads: it has frames, but knows neither actors nor coroutines.
"""

from __future__ import annotations

import asyncio
import linecache
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import msgspec

if TYPE_CHECKING:
    from .actor import Actor
    from .node import Node

_DEPTH = 60  # frames a stack; a deep recursion repeats itself
_AWAITS = ("cr_await", "gi_yieldfrom", "ag_await")
_FRAMES = ("cr_frame", "gi_frame", "ag_frame")


class Frame(msgspec.Struct, frozen=True):
    """One call."""

    file: str
    line: int
    function: str
    source: str = ""
    """The line's text, where it can be read."""


class Handling(msgspec.Struct, frozen=True):
    """A message that an actor has begun to handle."""

    actor: str
    """Its address."""
    message: str = ""
    """The type; empty in a hook, which has no message."""
    sender: str = ""
    trace: int = 0


class ThreadStack(msgspec.Struct, frozen=True):
    """What one thread does."""

    thread: str
    """Its name."""
    native_id: int
    """As the operating system counts it; 0 where unknown."""
    is_loop: bool
    """Whether the worker's event loop runs on it."""
    frames: tuple[Frame, ...]
    """The innermost first."""
    handling: Handling | None = None
    """Which actor's code runs on it."""


class WaitingStack(msgspec.Struct, frozen=True):
    """Where one suspended coroutine of an actor stands."""

    handling: Handling
    frames: tuple[Frame, ...]
    """The innermost first."""
    waits_for: str = ""
    """What the innermost awaits."""


class Stacks(msgspec.Struct, frozen=True):
    """All stacks of a process."""

    pid: int
    threads: tuple[ThreadStack, ...]
    waiting: tuple[WaitingStack, ...] = ()
    via: str = "thread"
    """`thread` (of the worker asked itself), `host` (its actor), `signal` (no Python ran: frames only)."""


def take(nodes: Iterable[Node], *, except_thread: int | None = None) -> Stacks:
    """Return the stacks of this process. `nodes`: whose actors to look for. `except_thread` is whoever asks."""
    nodes = list(nodes)
    actors = [actor for node in nodes for actor in list(node.actors.values())]
    loops = {node.thread for node in nodes}
    living = {thread.ident: thread for thread in threading.enumerate()}
    threads: list[ThreadStack] = []
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] - its documented name
    for ident, frame in frames.items():
        if ident == except_thread:
            continue
        thread = living.get(ident)
        threads.append(
            ThreadStack(
                thread=thread.name if thread is not None else f"thread {ident:#x}",
                native_id=(thread.native_id or 0) if thread is not None else 0,
                is_loop=ident in loops,
                frames=tuple(_frames_of(frame)),
                handling=_running(frame),
            )
        )
    threads.sort(key=lambda stack: (not stack.is_loop, stack.native_id))
    running = {stack.handling.actor for stack in threads if stack.handling is not None}
    waiting = [stack for actor in actors if str(actor.ref) not in running for stack in _suspended(actor)]
    return Stacks(os.getpid(), tuple(threads), tuple(waiting))


def handled_by(actor: Actor) -> Handling | None:
    """Say which message an actor handles now, if any."""
    envelope = actor.lifecycle.envelope
    if envelope is None:
        return None
    return Handling(str(actor.ref), type(envelope.body).__name__, envelope.sender, envelope.trace)


# --- threads ---


def _frames_of(frame: FrameType | None) -> Iterator[Frame]:
    count = 0
    while frame is not None and count < _DEPTH:
        yield _frame(frame)
        frame = frame.f_back
        count += 1


def _frame(frame: FrameType) -> Frame:
    code = frame.f_code
    line = frame.f_lineno or code.co_firstlineno
    return Frame(code.co_filename, line, code.co_qualname, linecache.getline(code.co_filename, line).strip())


def _running(frame: FrameType | None) -> Handling | None:
    """Find the innermost call of an actor's own method: whatever it called runs for it."""
    from .actor import Actor  # here: actors are started by hosts, and those answer with stacks

    while frame is not None:
        code = frame.f_code
        if code.co_argcount and code.co_varnames[0] == "self":
            actor = frame.f_locals.get("self")
            if isinstance(actor, Actor):
                return handled_by(actor) or Handling(str(actor.ref))
        frame = frame.f_back
    return None


# --- coroutines ---


def _suspended(actor: Actor) -> Iterator[WaitingStack]:
    life = actor.lifecycle
    if life.busy and life.task is not None:
        yield _waiting(handled_by(actor) or Handling(str(actor.ref)), life.task)
    for task in list((life.unanswered or {}).values()):
        yield _waiting(Handling(str(actor.ref), "Later"), task)


def _waiting(handling: Handling, task: asyncio.Task[Any]) -> WaitingStack:
    chain, waits_for = _chain(task)
    return WaitingStack(handling, tuple(reversed(chain[-_DEPTH:])), waits_for)


def _chain(task: Any) -> tuple[list[Frame], str]:
    """Follow a task's coroutine to what it waits for, outermost first, and through tasks that it waits for."""
    chain: list[Frame] = []
    seen: set[int] = set()
    while isinstance(task, asyncio.Task) and id(cast("object", task)) not in seen:
        awaited = cast("Any", task)  # pyright knows a task's attributes, but not its result's type
        seen.add(id(awaited))
        inner = awaited.get_coro()
        while inner is not None:
            frame = next((getattr(inner, name) for name in _FRAMES if hasattr(inner, name)), None)
            if frame is not None:
                chain.append(_frame(frame))
            inner = next((getattr(inner, name) for name in _AWAITS if hasattr(inner, name)), None)
        task = getattr(awaited, "_fut_waiter", None)
    return chain, type(cast("object", task)).__name__ if task is not None else ""


# --- a dump that was written without Python ---

_THREAD_LINE = re.compile(r"(?:Current thread|Thread) 0x([0-9a-f]+)(?: \[(.*?)\])?.*\(most recent call first\):")
_FRAME_LINE = re.compile(r'  File "(.*)", line (\d+|\?\?\?) in (.*)')


def parse_dump(text: str, pid: int) -> Stacks:
    """Read what `faulthandler` wrote. Lines that are not understood are passed over."""
    threads: list[tuple[str, list[Frame]]] = []
    for line in text.splitlines():
        if thread := _THREAD_LINE.match(line):
            threads.append((thread[2] or f"thread 0x{thread[1].lstrip('0')}", []))
        elif threads and (frame := _FRAME_LINE.match(line)):
            number = int(frame[2]) if frame[2].isdigit() else 0
            source = linecache.getline(frame[1], number).strip()
            threads[-1][1].append(Frame(frame[1], number, frame[3], source))
    # The interpreter lists the newest thread first, so the main one, which has the loop, is the last.
    last = len(threads) - 1
    stacks = [
        ThreadStack("MainThread" if n == last else name, pid if n == last else 0, n == last, tuple(frames))
        for n, (name, frames) in enumerate(threads)
    ]
    return Stacks(pid, tuple(reversed(stacks)), via="signal")
