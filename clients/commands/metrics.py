"""`exeunt metrics`: Prometheus text, printed or written for node_exporter's textfile collector.

A collector may read at any moment, so a file is written beside its place and then put there in one step.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from cyclopts import App

from ..contract import MetricsFile, Status
from ..exposition import Family, render
from ..inspection_contract import ActorRow, DeadLetters, Wakeups
from ..instances import Connection, Hello, Instance, connect, running
from ..metrics import ProgramFacts, families
from ..output import DEFAULTS, Failure, Options, emit, fail
from ..paths import Paths, current
from ..record import EndingsRecord

app = App(name="metrics", help="Endings, peers, actors and processes, as Prometheus text.", version_flags=())

_MODE = 0o644
"""Node exporter runs as another user; there is nothing in it that `exeunt status` would not tell."""


@app.default
def run(*, options: Options = DEFAULTS) -> None:
    """Print the metrics of everything below this home: endings from the record, the rest of what runs now."""
    _print(options)


@app.command(name="print")
def show(*, options: Options = DEFAULTS) -> None:
    """Print the metrics of everything below this home: endings from the record, the rest of what runs now."""
    _print(options)


@app.command
def write(path: Path, /, *, options: Options = DEFAULTS) -> None:
    """Write the metrics into a file, in one step: a reader sees the old ones or the new ones.

    Args:
        path: Where to; node_exporter's textfile collector reads *.prom.
        options: The options that every command takes.
    """
    found = _families(current(), options)
    content = render(found).encode()
    try:
        _replace(path, content)
    except PermissionError:
        raise
    except OSError as error:
        fail("not_written", f"{path} could not be written: {error.strerror or error}.")
    samples = sum(len(family.samples) for family in found)
    written = MetricsFile(file=str(path), samples=samples, file_bytes=len(content))
    emit("exeunt.metrics-file/1", written, options=options, human=lambda: f"{samples} samples in {path}")


def _print(options: Options) -> None:
    found = _families(current(), options)
    if options.json:
        emit("exeunt.metrics/1", [family for family in found if family.samples], options=options)
    else:
        sys.stdout.write(render(found))  # for a program: neither coloured nor wrapped


def _families(paths: Paths, options: Options) -> list[Family]:
    record = EndingsRecord(paths, options.instance)
    kept = record.poll_kept()
    wanted = [one for one in running(paths) if options.instance in (None, one.name)]
    programs = [facts for one in wanted if (facts := _facts(one, options)) is not None]
    return families(kept, record.skipped, programs)


def _facts(instance: Instance, options: Options) -> ProgramFacts | None:
    """What a program answers; None for one that has just left."""
    try:
        with connect(instance, options) as program:
            hello = program.request(Hello, "hello")
            letters = _asked(program, DeadLetters, "dead_letters")
            return ProgramFacts(
                instance=instance.name,
                program=hello.program,
                version=hello.version,
                status=_asked(program, Status, "status"),
                actors=_asked(program, list[ActorRow], "ps"),
                dead_letters=None if letters is None else letters.totals,
                counters=_asked(program, dict[str, int], "counters"),
                wakeups=_asked(program, list[Wakeups], "wakeups"),
            )
    except Failure:
        return None


def _asked(program: Connection, type_: type[Any], command: str) -> Any:
    try:
        return program.request(type_, command)
    except Failure:
        return None  # a portal has no status, an older program no counters; the other metrics stand


def _replace(path: Path, content: bytes) -> None:
    # The name is hidden and no *.prom: whoever lists the directory meanwhile passes it over.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), _MODE)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
