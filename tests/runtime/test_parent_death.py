"""A supervisor that is killed: its workers say their goodbyes and are gone within a second."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.runtime.conftest import wait_for_ends

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


async def test_the_workers_of_a_killed_supervisor_leave_within_a_second(tmp_path: Path) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.runtime.orphans", str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    workers = [psutil.Process(pid) for pid in json.loads(await program.stdout.readline())]
    family = psutil.Process(program.pid).children(recursive=True)
    assert {process.pid for process in workers} <= {process.pid for process in family}
    os.kill(program.pid, signal.SIGKILL)
    killed = time.monotonic()
    await wait_for_ends(process.pid for process in family)
    took_s = time.monotonic() - killed
    await program.wait()
    assert took_s < 1.0  # one of the two workers has an actor whose end hangs
    assert (tmp_path / "chronicle").read_text().split() == ["+c", "-c"]
    last = [json.loads(line)["event"] for line in (tmp_path / "l" / "o.w1.log").read_text().splitlines()][-1]
    assert last == "supervisor_died"
