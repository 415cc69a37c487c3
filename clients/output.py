"""What every command has in common: its global options, its exit codes, and how it speaks.

Data goes to stdout, talk to stderr. With ``--json`` stdout is one document, or JSON Lines where a command
streams, and always parses, also when the command fails. A command that cannot do its work calls `fail`; it
never prints an error or chooses an exit code itself.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import msgspec
from cyclopts import Group, Parameter

from .contract import Error, Problem
from .durations import Duration

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

ACCENT: Final = "cyan"
"""The one accent colour."""


class ExitCode(IntEnum):
    """What a script learns without reading anything. 3 and 4 agree with systemctl and LSB."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NOT_FOUND = 4
    TIMED_OUT = 5
    PERMISSION = 6
    CONFIG_INVALID = 7
    UNACKNOWLEDGED = 8
    INTERRUPTED = 130


EVERYWHERE: Final = Group("Everywhere", sort_key=100)


@Parameter(name="*", group=EVERYWHERE)
@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """The options that every command takes."""

    json: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Print one JSON document (JSON Lines where the command streams)."""
    quiet: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Print data and errors, nothing else."""
    verbose: Annotated[bool, Parameter(negative="", show_default=False)] = False
    """Say more."""
    color: Literal["auto", "always", "never"] = "auto"
    """Colour: auto means on a terminal, unless NO_COLOR is set."""
    config: Path | None = None
    """Read this configuration file."""
    instance: str | None = None
    """The program to talk to, or the name to run under."""
    timeout_s: Annotated[Duration, Parameter(name="--timeout", show_default=lambda seconds: f"{seconds:g}s")] = 10.0
    """How long to wait for an answer: 500ms, 10s, 5m."""


DEFAULTS: Final = Options()
"""The default value of each command's `options` parameter."""


class Failure(Exception):
    """A command could not do its work: what happened, and what to run next."""

    def __init__(self, code: str, message: str, hint: str | None = None, *, exit_code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.error: Final = Error(code=code, message=message, hint=hint)
        self.exit_code: Final = exit_code_of(code) if exit_code is None else exit_code


def exit_code_of(code: str) -> ExitCode:
    """The exit code that belongs to an error's code."""
    if code.startswith("no_such_"):
        return ExitCode.NOT_FOUND
    return {
        "usage": ExitCode.USAGE,
        "ambiguous_instance": ExitCode.USAGE,
        "ambiguous_actor": ExitCode.USAGE,
        "not_running": ExitCode.NOT_RUNNING,
        "not_connected": ExitCode.NOT_RUNNING,
        "timeout": ExitCode.TIMED_OUT,
        "permission": ExitCode.PERMISSION,
        "config_invalid": ExitCode.CONFIG_INVALID,
        "unacknowledged": ExitCode.UNACKNOWLEDGED,
        "interrupted": ExitCode.INTERRUPTED,
    }.get(code, ExitCode.FAILED)


def fail(code: str, message: str, hint: str | None = None) -> NoReturn:
    """End the command with an error.

    Args:
        code: a stable word for scripts; it decides the exit code (`exit_code_of`).
        message: one sentence that says what happened, and why.
        hint: what to run or do next.

    Raises:
        Failure: always; the frame prints it.
    """
    raise Failure(code, message, hint)


def emit(
    schema: str,
    data: Any,
    *,
    options: Options,
    human: Callable[[], "RenderableType"] | None = None,
    problems: Sequence[Problem] = (),
) -> None:
    """Print a command's result: the document with ``--json``, else what `human` returns (rich or a string).

    Args:
        schema: the document's name, ``exeunt.NAME/VERSION``.
        data: anything msgspec encodes; see `exeunt.clients.contract`.
        options: the command's.
        human: called only when a person reads. Problems are printed below it.
        problems: what a person should look at though the command succeeded.
    """
    if options.json:
        _write_json({"schema": schema, "at": now_rfc3339(), "data": data, "problems": list(problems)})
        return
    if human is not None:
        show(human(), options)
    for problem in problems:
        hint = f" {problem.hint}" if problem.hint else ""
        talk(options, f"! {problem.message}{hint}", style="yellow")


def emit_line(schema: str, data: Any, *, at: str | None = None) -> None:
    """Print one line of a stream: ``{"schema", "at", "data"}``. `at` is the fact's own time."""
    _write_json({"schema": schema, "at": at or now_rfc3339(), "data": data})


def emit_error(failure: Failure, *, json: bool) -> None:
    """Print an error: the sentence and its hint on stderr, with ``--json`` also the document on stdout."""
    if json:
        error = {key: value for key, value in msgspec.structs.asdict(failure.error).items() if value is not None}
        _write_json({"schema": "exeunt.error/1", "at": now_rfc3339(), "error": error})
    print(f"exeunt: {failure.error.message}", file=sys.stderr)  # noqa: T201 - this is how a command speaks
    if failure.error.hint:
        print(f"        {failure.error.hint}", file=sys.stderr)  # noqa: T201


def show(view: "RenderableType", options: Options) -> None:
    """Print a view on stdout. A string is text, not markup: what it quotes may contain brackets."""
    from rich.console import Group
    from rich.text import Text

    # Inside a group, a text keeps its own ideas of wrapping; and no path or id is ever cropped.
    console(options).print(Group(Text(view) if isinstance(view, str) else view), crop=False)


def talk(options: Options, text: str, *, style: str | None = None) -> None:
    """Say something on stderr, unless ``--quiet``."""
    if not options.quiet:
        console(options, stderr=True).print(text, style=style, markup=False)


def console(options: Options, *, stderr: bool = False) -> "Console":
    """A rich console that obeys ``--color``, ``NO_COLOR`` and ``TERM``, and does not wrap into a pipe."""
    from rich.console import Console  # 20 ms that --json does not need

    stream = sys.stderr if stderr else sys.stdout
    on_terminal = stream.isatty()
    width = None if on_terminal or "COLUMNS" in os.environ else 200
    return Console(
        file=stream,
        width=width,
        highlight=False,
        emoji=False,
        force_terminal=True if options.color == "always" else None,
        no_color={"always": False, "never": True}.get(options.color),
    )


def now_rfc3339() -> str:
    """The time of day, RFC 3339 UTC with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _write_json(document: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()
