"""A matrix that is ended in the middle leaves nobody behind, not even a client that it has put to sleep."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
STANDS_S = 120.0
LEAVES_S = 40.0


@pytest.fixture
def matrix(tmp_path: Path) -> Iterator[psutil.Popen]:
    """One run of the row that has its client stand still, begun."""
    argv = [sys.executable, "-m", "tests.endings", "--rows", "SIGSTOP", "--variants", "plain", "--runs", "1"]
    with (tmp_path / "output").open("wb") as output:
        process = psutil.Popen([*argv, "--output", str(tmp_path / "endings.json")], cwd=ROOT, stdout=output)
    yield process
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()
    process.wait()


def wait_until(what: str, test: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not test():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def stand_still(matrix: psutil.Popen) -> list[psutil.Process]:
    """Wait until the client's processes stand still; return all that the matrix has started."""
    started: list[psutil.Process] = []

    def some_are_stopped() -> bool:
        assert matrix.poll() is None
        started[:] = matrix.children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess):
            return sum(one.status() == psutil.STATUS_STOPPED for one in started) >= 3
        return False

    wait_until("nobody stands still", some_are_stopped, STANDS_S)
    return started


def live(processes: list[psutil.Process]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    return live([one for one in processes if one.is_running()])


@pytest.mark.timeout(200)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_nobody_is_left_behind(matrix: psutil.Popen, number: signal.Signals) -> None:
    started = stand_still(matrix)
    matrix.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
        matrix.wait(LEAVES_S)
    assert matrix.returncode == (-number if number is signal.SIGKILL else 128 + number)
    wait_until("somebody is left behind", lambda: not live(started), LEAVES_S)
