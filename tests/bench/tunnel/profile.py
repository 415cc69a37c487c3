"""Where our time goes: py-spy on the workers that carry the packets, while one TCP stream does its best."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from . import traffic
from .subjects import SIDES, Exeunt

SECONDS = 4
_TOP = 8
_OTHER_THREAD = "Thread._bootstrap (threading.py"


def take(subject: Exeunt, directory: Path) -> None:
    """Write folded stacks of both sides' workers, and print the functions that cost most by themselves."""
    py_spy = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if py_spy is None:
        print("no profiles: py-spy is not installed (make bench-tunnel does it)")
        return
    directory.mkdir(parents=True, exist_ok=True)
    for way in ("down", "up"):
        with contextlib.ExitStack() as stack:
            seconds = SECONDS + 1
            stream = stack.enter_context(
                traffic.Stream(subject.client, subject.resource, down=way == "down", streams=1, seconds=seconds)
            )
            paths = {side: directory / f"{subject.name}-{way}-{side}.folded" for side in SIDES}
            profiling = {side: _profile(py_spy, subject.worker(side, "peers-1"), paths[side]) for side in SIDES}
            mbit_s = stream.finish().mbit_s
            for side, process in profiling.items():
                complaint = process.communicate()[0]
                print(f"\n{subject.name}, {way}, {side}: {paths[side]} (at {mbit_s:,.0f} Mbit/s)")
                print(complaint.strip()[-300:] if process.returncode else top(paths[side].read_text()))


def top(folded: str) -> str:
    """The functions with the largest share of samples, without what they call; threads that only wait left out.

    A worker's packets are all on its main thread; py-spy takes another that sleeps in accept(2) for a busy one.
    """
    own: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        if stack.startswith(_OTHER_THREAD):
            continue
        own[stack.rpartition(";")[2]] += int(count)
    total = own.total() or 1
    return "\n".join(f"{count / total:7.1%}  {frame}" for frame, count in own.most_common(_TOP))


def _profile(py_spy: str, pid: int, path: Path) -> subprocess.Popen[str]:
    how = ["--duration", str(SECONDS), "--rate", "250", "--format", "raw", "--output", str(path)]
    return subprocess.Popen(
        [py_spy, "record", "--pid", str(pid), *how],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
