"""Asks the program again and again, and tells what it learns. Survives the program.

Two threads: one asks what the screen shows just now, one listens to events. Each goes on trying while the program is
away. Single questions (`show`, `restart`, a log) get a thread each: they are rare, and may take their time. All are
daemons, so that a program which does not answer cannot keep the screen from closing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from ..output import Failure
from .facts import Fact, Happened, Left, Looked
from .source import ANSWERS, Conversation, NotOffered, Source

Tell = Callable[[Fact], object]
Job = Callable[[Source], Any]
Done = Callable[[Any], object]


class Feed(Protocol):
    """What keeps the screen's facts coming."""

    every_s: float
    """How long to wait between two looks."""

    def start(self, tell: Tell) -> None:
        """Begin; `tell` is called on other threads."""
        ...

    def stop(self) -> None:
        """Tell nothing any more."""
        ...

    def want(self, commands: frozenset[str]) -> None:
        """Ask these from now on; what is new among them at once. None at all is a pause."""
        ...

    def run(self, job: Job, done: Done) -> None:
        """Do something that blocks, then call `done`, on another thread, with its result, or with its Failure."""
        ...


class LiveFeed:
    """A feed that asks a source."""

    def __init__(self, source: Source, *, every_s: float) -> None:
        self.every_s = every_s
        self._source = source
        self._wanted: frozenset[str] = frozenset()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._tell: Tell = lambda _fact: None
        self._threads: list[threading.Thread] = []

    def start(self, tell: Tell) -> None:
        """Begin."""
        self._tell = tell
        for loop in (self._ask_on, self._listen_on):
            self._threads.append(threading.Thread(target=loop, name=f"top{loop.__name__}", daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Tell nothing any more; the threads end when what they wait for has come."""
        self._stopped.set()
        self._tell = lambda _fact: None
        self._wake.set()
        self._source.hang_up()

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end. A screen that closes does not: the program may be slow to answer."""
        for thread in self._threads:
            thread.join(timeout_s)

    def want(self, commands: frozenset[str]) -> None:
        """Ask these from now on."""
        new = commands - self._wanted
        self._wanted = commands
        if new:
            self._wake.set()

    def run(self, job: Job, done: Done) -> None:
        """Do something on a thread of its own."""

        def work() -> None:
            try:
                result = job(self._source)
            except NotOffered as error:
                result = Failure("not_offered", str(error))
            except Failure as failure:
                result = failure
            except Exception as error:  # noqa: BLE001 - a torn file must not be silence on the screen
                result = Failure("internal", f"Unexpected {type(error).__name__}: {error}")
            if not self._stopped.is_set():
                done(result)

        threading.Thread(target=work, name="top_job", daemon=True).start()

    # --- asking ---

    def _ask_on(self) -> None:
        while not self._stopped.is_set():
            try:
                conversation = self._source.converse()
                try:
                    self._tell(conversation.join())
                    self._ask_while_it_answers(conversation)
                finally:
                    conversation.close()
            except Failure as failure:
                self._tell(Left(failure.error.message))
            self._pause()

    def _ask_while_it_answers(self, conversation: Conversation) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            wanted = self._wanted
            look = look_at(conversation, wanted)
            if wanted:
                self._tell(look)
            if look.troubles:
                return  # an answer may still be under way on this connection: the next question takes a new one
            self._pause()

    def _pause(self) -> None:
        self._wake.wait(self.every_s)

    # --- listening ---

    def _listen_on(self) -> None:
        while not self._stopped.is_set():
            for events in self._source.events():
                if events:
                    self._tell(Happened(events))
            # It left, perhaps while nobody asks: asking finds out.
            self._wake.set()
            self._stopped.wait(self.every_s)


def look_at(conversation: Conversation, commands: frozenset[str]) -> Looked:
    """Ask these commands. Raises Failure when the program has left; what else goes wrong is part of the answer."""
    answers: dict[str, Any] = {}
    absent: set[str] = set()
    troubles: dict[str, str] = {}
    if not commands:
        conversation.join()  # a pause asks nothing of the actors, and still notices that the program left
    for command in sorted(commands):
        try:
            answers[command] = conversation.ask(command, ANSWERS[command])
        except NotOffered:
            absent.add(command)
        except Failure as failure:
            if failure.error.code == "not_running":
                raise
            troubles[command] = failure.error.message
            if failure.error.code == "timeout":
                break
    return Looked(
        at_s=time.monotonic(),
        actors=answers.get("ps"),
        tree=answers.get("tree"),
        status=answers.get("status"),
        absent=frozenset(absent),
        troubles=troubles,
    )
