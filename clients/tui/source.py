"""Where answers come from: the control socket, and for logs and traces the files that the program writes.

Everything here blocks, so it is called on threads that may wait (`feed`), never on the screen's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import msgspec

from exeunt.runtime.control import ControlClient, ControlError, ControlUnavailable
from exeunt.runtime.trace import Trace, group, load

from ..inspection_contract import ActorRow, TreeNode
from ..instances import Connection, Instance, connect
from ..output import Failure, Options
from ..paths import Paths
from ..record import LogRecord
from .facts import PS, STATUS, TREE, Joined, StatusAnswer

T = TypeVar("T")

RECENT = 200
"""Events from before we came that are asked for."""

LOG_LINES = 500
"""Log lines of one actor that are shown, the last ones."""

ANSWERS: dict[str, Any] = {PS: list[ActorRow], TREE: TreeNode, STATUS: StatusAnswer}
"""What each question is answered with."""


class NotOffered(Exception):
    """The program has no such command."""


class Conversation(Protocol):
    """One connection with the program. Every method raises Failure when it has left or does not answer."""

    def join(self) -> Joined:
        """Ask who is there."""
        ...

    def ask(self, command: str, type_: type[T], args: dict[str, Any] | None = None) -> T:
        """Ask something. Raises NotOffered as well."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Source(Protocol):
    """Where the screen's data comes from."""

    def converse(self) -> Conversation:
        """Connect. Raises Failure."""
        ...

    def events(self) -> Iterator[list[dict[str, Any]]]:
        """Recent events, then each as it happens, until the program leaves or `hang_up`."""
        ...

    def hang_up(self) -> None:
        """End `events` from another thread."""
        ...

    def logs(self, actor: str | None) -> list[dict[str, Any]]:
        """The last log lines of an actor, by address or name; of all without one."""
        ...

    def traces(self, actor: str | None) -> list[Trace]:
        """The traces that an actor took part in, the newest first; all without one."""
        ...


class ControlConversation:
    """A conversation over the control socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def join(self) -> Joined:
        """Ask who is there."""
        return self._connection.request(Joined, "hello")

    def ask(self, command: str, type_: type[T], args: dict[str, Any] | None = None) -> T:
        """Ask something."""
        try:
            return self._connection.request(type_, command, args=args)
        except Failure as failure:
            if failure.error.code == "not_offered":
                raise NotOffered(f"This program does not offer {command}.") from failure
            raise

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


class ControlSource:
    """A running program, and after it its successors of the same name."""

    def __init__(self, instance: Instance, paths: Paths, options: Options) -> None:
        self._instance = instance
        self._paths = paths
        self._options = options
        self._listening: ControlClient | None = None
        self._hung_up = False

    def converse(self) -> ControlConversation:
        """Connect."""
        return ControlConversation(connect(self._instance, self._options))

    def events(self) -> Iterator[list[dict[str, Any]]]:
        """The recent events, then each as it happens."""
        try:
            with ControlClient(self._instance.socket) as client:
                self._listening = client
                if self._hung_up:
                    return
                for event in client.events(recent=RECENT):
                    yield [event]
        except (ControlUnavailable, ControlError, TimeoutError):
            return
        finally:
            self._listening = None

    def recent_events(self) -> list[dict[str, Any]]:
        """What happened lately, if the program keeps it."""
        try:
            with ControlClient(self._instance.socket) as client:
                return _recent(client)
        except (ControlUnavailable, TimeoutError):
            return []

    def hang_up(self) -> None:
        """End `events`, also those that are about to begin."""
        self._hung_up = True
        client = self._listening
        if client is not None:
            client.hang_up()

    def logs(self, actor: str | None) -> list[dict[str, Any]]:
        """Read the log files."""
        lines = LogRecord(self._paths).poll()
        return [line for line in lines if self._wrote(actor, line)][-LOG_LINES:]

    def traces(self, actor: str | None) -> list[Trace]:
        """Read the flight recorders."""
        traces = group(load(self._paths.trace_dir, instance=self._instance.name))
        traces = [
            trace for trace in traces if actor is None or any(actor in (span.from_, span.to) for span in trace.spans)
        ]
        return sorted(traces, key=lambda trace: trace.started_ns, reverse=True)

    def _wrote(self, actor: str | None, line: dict[str, Any]) -> bool:
        writer = str(line.get("actor", ""))
        ours = self._instance.name in (line.get("instance"), line.get("node"), writer.partition("/")[0])
        return ours and (actor is None or actor in (writer, line.get("worker")))


def _recent(client: ControlClient) -> list[dict[str, Any]]:
    try:
        answer: Any = client.request("events", {"limit": RECENT})
    except ControlError:
        return []  # it keeps none
    try:
        return msgspec.convert(answer, list[dict[str, Any]])
    except msgspec.ValidationError:
        return []
