"""Which kernels there are, and what they load."""

import subprocess
import sys

import pytest

from exeunt.actors.batch.pure import PureKernel

from .both_ends import Receiver, seal
from .oracle import Tcp, frame_of


def test_numpy_is_loaded_when_the_first_session_is_made() -> None:
    program = """
import sys
from exeunt.actors.batch.pure import KERNEL
print("numpy" in sys.modules)
KERNEL.sealing(bytes(32), 1)
print("numpy" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_without_numpy_it_works_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "exeunt.actors.batch.columns", None)
    kernel = PureKernel()
    frame = frame_of(Tcp(payload=bytes(9_000)), 1_000)
    datagrams, _ = seal(kernel, frame)
    assert Receiver(kernel).open(datagrams)[0] == [(frame, 9)]
