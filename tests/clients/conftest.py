"""A home of its own for each test, a program that answers at a real control socket, and the command line in-process."""

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from exeunt.clients import app
from exeunt.clients.contract import Ending
from exeunt.clients.paths import Paths, current
from exeunt.runtime.control import ControlServer


class Result(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The only document on stdout."""
        (line,) = self.out.splitlines()
        return msgspec.json.decode(line, type=dict[str, Any])

    @property
    def data(self) -> Any:
        """The document's data."""
        return self.document["data"]

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The documents of a stream."""
        return [json.loads(line) for line in self.out.splitlines()]


class Program:
    """Stands in for a running program: a control server on a thread, answering with `answers` or calling them."""

    def __init__(self, paths: Paths, name: str, answers: dict[str, Any], pid: int) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.paths, self.name = paths, name
        paths.control_socket(name).parent.mkdir(mode=0o700, parents=True)
        paths.pid_file(name).write_text(str(pid))
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(
            paths.control_socket(name), {key: self._command(key, value) for key, value in answers.items()}
        )
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(5)

    def leave(self) -> None:
        """Answer nobody any more."""
        # asyncio trips over a connection that it has accepted and not yet set up when its server closes.
        asyncio.run_coroutine_threadsafe(_some_turns(), self._loop).result(5)
        asyncio.run_coroutine_threadsafe(self._server.close(), self._loop).result(5)

    def come_back(self) -> None:
        """Answer again."""
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(5)

    def publish(self, event: dict[str, Any]) -> None:
        """Give an event to whoever has subscribed."""
        self._loop.call_soon_threadsafe(self._server.publish, event)

    def close(self) -> None:
        self.leave()
        asyncio.run_coroutine_threadsafe(_some_turns(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _command(self, name: str, answer: Any) -> Any:
        async def command(args: dict[str, Any]) -> Any:
            self.calls.append((name, args))
            result = answer(args) if callable(answer) else answer
            return await result if asyncio.iscoroutine(result) else result

        return command


async def _some_turns() -> None:
    """Let the loop do what it has begun."""
    for _ in range(10):
        await asyncio.sleep(0)


StartProgram = Callable[..., Program]
Cli = Callable[..., Result]


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[Paths]:
    """The paths of a new home, short enough for sockets."""
    home = tempfile.mkdtemp(prefix="exeunt-test-")
    monkeypatch.setenv("EXEUNT_HOME", home)
    monkeypatch.delenv("EXEUNT_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    yield current()
    shutil.rmtree(home)


@pytest.fixture
def start_program(paths: Paths) -> Iterator[StartProgram]:
    """Starts programs that answer at their control sockets."""
    programs: list[Program] = []

    def start(name: str = "client", *, pid: int | None = None, program: str | None = None, **answers: Any) -> Program:
        pid = os.getpid() if pid is None else pid
        hello = {"instance": name, "pid": pid, "program": program or name, "version": "0.1.0", "started_at": ""}
        programs.append(Program(paths, name, {"hello": hello, **answers}, pid))
        return programs[-1]

    yield start
    for program in programs:
        program.close()


@pytest.fixture
def cli(paths: Paths, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process."""

    def run(*argv: str) -> Result:
        capsys.readouterr()
        code = app.run(argv)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that can be told to go."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


AppendEnding = Callable[..., Ending]


@pytest.fixture
def append_ending(paths: Paths) -> AppendEnding:
    """Writes an ending into an instance's record."""

    def append(instance: str = "client", **changes: Any) -> Ending:
        ending = msgspec.structs.replace(ENDING, **changes)
        path = paths.endings_file(instance)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(msgspec.json.encode(ending) + b"\n")
        return ending

    return append


AppendLog = Callable[..., None]


@pytest.fixture
def append_log(paths: Paths) -> AppendLog:
    """Writes a line into a log."""

    def append(message: str, *, file: str = "client.control.log", **fields: Any) -> None:
        line = {"time": "2026-11-23T14:02:11.000000000Z", "severity": "INFO", "message": message, **fields}
        paths.log_dir.mkdir(parents=True, exist_ok=True)
        with Path(paths.log_dir / file).open("ab") as log:
            log.write(msgspec.json.encode(line) + b"\n")

    return append


ENDING = Ending(
    connection="c-7f3a",
    peer="gateway-1",
    side="client",
    cause="signed_out",
    initiated_by="us",
    evidence={"reason": "signed_out", "acknowledged_by": "goodbye_ack", "acknowledged_ms": 12.3},
    detection_ms=11.8,
    acknowledged=True,
    started_at="2026-11-23T14:02:00.000Z",
    ended_at="2026-11-23T14:05:20.500Z",
    last_seen_at="2026-11-23T14:05:20.400Z",
    rx_bytes=12_582_912,
    tx_bytes=301_000,
    path="direct",
)
