"""One process of the benchmark: started, asked for its figures, and ended with everything that it started.

Some peers start daemons that leave their session and their parent. So each peer gets a mark in its environment, which
all of its descendants inherit, and who bears it at the end is killed, by pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

_MARK = "EXEUNT_BENCH_PEER"
_START_S = 60.0
_MEASURE_S = 180.0
_END_S = 5.0


class PeerFailed(Exception):
    """It could not be started, or did not answer; the message says why."""


class Peer:
    """A module of `peers` or `cases`, running."""

    def __init__(self, module: str, *arguments: str, log_file: Path) -> None:
        """Start it and wait until it can be measured. Raises PeerFailed."""
        self._mark = secrets.token_hex(8)
        self._log_file = log_file
        self._rest = b""
        command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
        path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
        with log_file.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, _MARK: self._mark},
            )
        try:
            self.measures: list[str] = self._answer(_START_S)["ready"]
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def measure(self, name: str) -> dict[str, float]:
        """Measure; return the figures by name. Raises PeerFailed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"measure": name}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerFailed(f"it ended: {self._last_words()}") from None
        figures: dict[str, float] = self._answer(_MEASURE_S)["figures"]
        return figures

    def end(self) -> None:
        """End it, politely first, and then what is left of it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == self._mark:
                    process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line(timeout_s))
        if "error" in answer:
            raise PeerFailed(answer["error"])
        return answer

    def _line(self, timeout_s: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select([descriptor], [], [], timeout_s)[0]:
                raise PeerFailed(f"no answer within {timeout_s:g} s")
            data = os.read(descriptor, 65536)
            if not data:
                raise PeerFailed(self._last_words())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_words(self) -> str:
        lines = self._log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it ended without a word"
