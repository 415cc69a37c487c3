"""Erlang between two local nodes, where `erl` is installed. An epmd of its own listens on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from ..protocol import Figures, Measure, serve

_SOURCE = Path(__file__).with_name("exeunt_bench.erl")


@contextlib.contextmanager
def running(*command: str, env: dict[str, str]) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Nodes:
    """An epmd and two nodes; what is measured is said to the first, and answered by it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        if shutil.which("erl") is None:
            raise RuntimeError("erl is not installed")
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        subprocess.run(["erlc", "-o", directory, str(_SOURCE)], check=True, timeout=60)
        port = str(free_port())
        env = {**os.environ, "ERL_EPMD_PORT": port, "ERL_EPMD_ADDRESS": "127.0.0.1", "HOME": directory}
        stack.enter_context(running("epmd", "-address", "127.0.0.1", "-port", port, env=env))
        suffix = f"{os.getpid()}@127.0.0.1"
        erl = ["erl", "-noshell", "-setcookie", secrets.token_hex(8), "-pa", directory]
        erl += ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-start_epmd", "false"]
        began = time.perf_counter()
        stack.enter_context(running(*erl, "-name", f"far{suffix}", "-s", "exeunt_bench", "echo", env=env))
        self._near = stack.enter_context(
            running(*erl, "-name", f"near{suffix}", "-s", "exeunt_bench", "serve", "-extra", f"far{suffix}", env=env)
        )
        assert self._line() == "ready"
        self.start_ms = (time.perf_counter() - began) * 1000

    def measure(self, name: str) -> Figures:
        assert self._near.stdin is not None
        self._near.stdin.write(f"{name}\n")
        self._near.stdin.flush()
        figures: Figures = json.loads(self._line())
        return figures

    def _line(self) -> str:
        assert self._near.stdout is not None
        line = self._near.stdout.readline().strip()
        if not line:
            raise RuntimeError("the node ended; its log says why")
        return line


@asynccontextmanager
async def nodes() -> AsyncGenerator[dict[str, Measure]]:
    with contextlib.ExitStack() as stack:
        pair = Nodes(stack)
        names = ("ask", "asks", "tells", "local_ask", "local_tells", "crowd")
        measures: dict[str, Measure] = {name: partial(pair.measure, name) for name in names}
        yield {**measures, "start": lambda: {"program_start_ms": pair.start_ms}}


if __name__ == "__main__":
    serve(nodes)
