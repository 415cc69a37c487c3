"""The programs that run below this home, and how a command speaks with one of them.

A program that runs has a directory in `Paths.run_dir` with its pid and a socket that accepts
connections. What a killed one left behind has neither a living process nor an open socket, and is passed
over.
"""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import msgspec

from . import paths as paths_
from .output import Failure, Options, fail
from .paths import Paths

if TYPE_CHECKING:
    from exeunt.runtime.control import ControlClient

T = TypeVar("T")

ANSWER_TIMEOUT_S = 1.0
"""For a first sign of life on a Unix socket, which takes microseconds."""


class Instance(NamedTuple):
    """A program that runs."""

    name: str
    pid: int
    socket: Path


class Connection:
    """A conversation with a running program."""

    def __init__(self, instance: Instance, client: "ControlClient", timeout_s: float) -> None:
        self.instance = instance
        self._client = client
        self._timeout_s = timeout_s

    def request(
        self,
        type_: type[T],
        command: str,
        *,
        args: dict[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """Send a command, and convert its answer.

        Raises:
            Failure: the program refused, did not answer in time, left, or speaks another version's language.
        """
        data = self._answer(command, args, self._timeout_s if timeout_s is None else timeout_s)
        try:
            return msgspec.convert(data, type_)
        except msgspec.ValidationError as error:
            message = f"{self.instance.name} answered {command} in a way this version does not understand: {error}."
            raise Failure("version_mismatch", message, "Restart it, so that both are of one version.") from error

    def order(self, command: str, args: dict[str, Any] | None = None) -> None:
        """Send a command whose answer carries nothing. Raises as `request` does."""
        self._answer(command, args, self._timeout_s)

    def follow(self, *, recent: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the program's events until it leaves, the last `recent` ones first. Raises as `request` does."""
        from exeunt.runtime.control import ControlError, ControlUnavailable

        try:
            yield from self._client.events(recent=recent)
        except ControlError as error:
            raise Failure(error.code, error.message, error.hint) from error
        except ControlUnavailable as error:
            raise Failure("not_running", f"{self.instance.name} has left.", "exeunt endings shows why.") from error

    def _answer(self, command: str, args: dict[str, Any] | None, timeout_s: float) -> Any:
        from exeunt.runtime.control import ControlError, ControlUnavailable

        try:
            return self._client.request(command, args, timeout_s=timeout_s)
        except ControlError as error:
            if error.code == "usage" and error.message.startswith("no such command"):
                raise _not_offered(self.instance, command) from error
            raise Failure(error.code, error.message, error.hint) from error
        except ControlUnavailable as error:
            raise Failure("not_running", f"{self.instance.name} has left.", "exeunt endings shows why.") from error
        except TimeoutError as error:
            message = f"{self.instance.name} did not answer within {timeout_s:g} s."
            raise Failure("timeout", message, "exeunt logs shows what it is doing.") from error

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_OF_ACTORS = frozenset({"show", "restart", "dead_letters", "wakeups"})


def _not_offered(instance: Instance, command: str) -> Failure:
    """Say that a program is not of the kind that has what was asked for."""
    if command in _OF_ACTORS:
        hint = "exeunt ps, exeunt stack and exeunt logs say what it does."
        return Failure("not_offered", f"{instance.name} has no actors: it is one process.", hint)
    return Failure("not_offered", f"{instance.name} does not offer {command}.", "exeunt ps says what runs there.")


class Hello(msgspec.Struct, frozen=True):
    """How a program introduces itself."""

    program: str
    pid: int
    version: str = ""


def running(paths: Paths) -> list[Instance]:
    """The programs that run below this home, by name."""
    found: list[Instance] = []
    for directory in sorted(paths.run_dir.glob("*/")):
        name = directory.name
        pid = _read_pid(paths.pid_file(name))
        if pid is not None and _accepts(paths.control_socket(name)):
            found.append(Instance(name, pid, paths.control_socket(name)))
    return found


def pick(paths: Paths, options: Options, *, program: str | None = None) -> Instance:
    """The program that a command means: the one that ``--instance`` names, else the only one that runs.

    Args:
        paths: where to look.
        options: the command's.
        program: consider only instances of this program (``client``, ``gateway``, …).

    Raises:
        Failure: none runs (exit 3), or several do (exit 2).
    """
    candidates = running(paths)
    if options.instance is not None:
        if not paths_.is_instance_name(options.instance):
            fail(
                "usage",
                f"{options.instance!r} is not an instance's name.",
                "exeunt paths lists those that run.",
            )
        candidates = [found for found in candidates if found.name == options.instance]
    elif program is not None:
        candidates = [found for found in candidates if program_of(found, options) == program]
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        names = ", ".join(found.name for found in candidates)
        fail("ambiguous_instance", f"Several programs run here: {names}.", "Choose one with --instance NAME.")
    what = options.instance or (f"No {program}" if program else "No program")
    message = f"{what} is not running." if options.instance else f"{what} runs here."
    return fail("not_running", message, f"Start one with exeunt {program or 'client'} run (home: {_home(paths)}).")


def connect(instance: Instance, options: Options) -> Connection:
    """Begin a conversation with a running program."""
    from exeunt.runtime.control import ControlClient, ControlUnavailable

    try:
        return Connection(instance, ControlClient(instance.socket), options.timeout_s)
    except ControlUnavailable as error:
        raise Failure("not_running", f"{instance.name} has left.", "exeunt endings shows why.") from error


def program_of(instance: Instance, options: Options) -> str:
    """Which program an instance is: ``client``, ``gateway``, ``portal``, ``relay``."""
    with connect(instance, options) as connection:
        return connection.request(Hello, "hello").program


def _home(paths: Paths) -> str:
    parent = paths.run_dir.parent
    return str(parent if paths.config_dir.parent == parent else paths.config_dir)


def _read_pid(path: Path) -> int | None:
    try:
        pid = int(path.read_text())
        os.kill(pid, 0)
    except (ValueError, FileNotFoundError, ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        # The process lives and is somebody else's. If instead the file is closed to us, so is the program.
        return int(path.read_text())
    return pid


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except PermissionError:
            raise
        except OSError:
            return False
    return True
