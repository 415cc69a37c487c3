"""The frame of the command line: it finds the command, runs it, and turns how that went into an exit code.

Every failure takes one road: a `Failure` becomes a sentence on stderr, with ``--json`` also a document
on stdout, and its exit code. What cyclopts refuses is a `Failure` with the code ``usage``; anything
unforeseen is one with the code ``internal``.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .catalogue import COMMANDS, GROUPS, SUMMARY, overview

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

    from .output import Failure

_SWITCHES: Final = frozenset({"--json", "--quiet", "--verbose"})
_VALUED: Final = frozenset({"--color", "--config", "--instance", "--timeout"})


def run(argv: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    tokens = globals_last(argv)
    if len(tokens) == 0 or tokens[0] in {"--help", "-h", "help"}:
        print(overview(bold=sys.stdout.isatty() and "NO_COLOR" not in os.environ))  # noqa: T201
        return 0
    return _guarded(lambda: build()(tokens), tokens)


def build() -> "App":
    """The command line as a cyclopts app whose commands are imported when they are run."""
    from cyclopts import App

    app = App(
        name="exeunt",
        help=SUMMARY,
        version=_version,
        help_flags=("--help", "-h"),
        version_flags=("--version",),
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    groups = {name: App(name=name, help=text, version_flags=()) for name, text in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for command in COMMANDS:
        *outer, name = command.words
        parent = groups[outer[0]] if outer else app
        parent.command(command.import_path, name=name, help=command.help)
    return app


def globals_last(argv: Sequence[str]) -> list[str]:
    """Move global options that come before the command behind it: ``--json ps`` becomes ``ps --json``."""
    leading = 0
    while leading < len(argv):
        name, equals, _ = argv[leading].partition("=")
        if name in _VALUED and not equals:
            leading += 2
        elif name in _VALUED | _SWITCHES:
            leading += 1
        else:
            break
    moved, rest = list(argv[:leading]), list(argv[leading:])
    if not rest:
        return moved
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *moved, *rest[end:]]


def _guarded(command: Callable[[], Any], tokens: Sequence[str]) -> int:
    from cyclopts import CycloptsError

    from .output import ExitCode, Failure, emit_error

    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    json = "--json" in options
    try:
        result = command()
        sys.stdout.flush()
    except CycloptsError as error:
        failure = Failure("usage", _usage_message(error, tokens), _usage_hint(tokens))
    except Failure as error:
        failure = error
    except KeyboardInterrupt:
        failure = Failure("interrupted", "Interrupted.")
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`exeunt logs | head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except PermissionError as error:
        hint = "Run it as the user whose program it is, or as root."
        failure = Failure("permission", f"Permission denied: {error}.", hint)
    except Exception as error:  # noqa: BLE001 - the last resort: stdout must parse and the exit code must be ours
        failure = _internal(error, verbose="--verbose" in options)
    else:
        return result if isinstance(result, int) else ExitCode.OK
    emit_error(failure, json=json)
    return failure.exit_code


def _internal(error: Exception, *, verbose: bool) -> "Failure":
    from .output import Failure

    if verbose:
        import traceback

        traceback.print_exception(error)
    hint = None if verbose else "Run it again with --verbose to see where."
    return Failure("internal", f"Unexpected {type(error).__name__}: {error}", hint)


def _usage_message(error: "CycloptsError", tokens: Sequence[str]) -> str:
    from cyclopts import UnknownCommandError

    if isinstance(error, UnknownCommandError):
        # cyclopts would import every command to write its message; the table knows their names.
        from difflib import get_close_matches

        group = tokens[0] if tokens[0] in GROUPS else None
        word = tokens[1] if group is not None else tokens[0]
        depth = 0 if group is None else 1
        known = [c.words[depth] for c in COMMANDS if group is None or (len(c.words) > 1 and c.words[0] == group)]
        close = get_close_matches(word, known, n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        return f"There is no command {' '.join(filter(None, (group, word)))}.{guess}"
    error.verbose = False
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?")) else f"{text}."


def _usage_hint(tokens: Sequence[str]) -> str:
    for command in COMMANDS:
        if tuple(tokens[: len(command.words)]) == command.words:
            return f"exeunt {' '.join(command.words)} --help shows how it is used."
    return "exeunt --help lists the commands."


def _version() -> str:
    from importlib.metadata import version

    return version("exeunt")
