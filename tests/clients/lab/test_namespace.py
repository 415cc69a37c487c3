"""Namespaces: inside is inside, and nothing is left, however their process ends."""

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from exeunt.actors.network.links import Links
from exeunt.clients.lab import LabError, Namespace, connect, occupants

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="making network namespaces needs root"),
]


def device_names() -> list[str]:
    with Links() as links:
        return links.names()


def test_a_call_runs_inside_and_the_caller_stays_outside() -> None:
    outside = Path("/proc/self/ns/net").stat().st_ino
    with Namespace("one") as one:
        inside = one.run(lambda: Path("/proc/thread-self/ns/net").stat().st_ino)
        assert inside == one.identity != outside
        assert one.run(device_names) == ["lo"]
        assert Path("/proc/self/ns/net").stat().st_ino == outside


def test_an_exception_inside_is_raised_outside() -> None:
    with Namespace("one") as one, pytest.raises(ZeroDivisionError):
        one.run(lambda: 1 // 0)


def test_a_cable_joins_two_namespaces_and_a_socket_stays_where_it_was_made() -> None:
    with Namespace("one") as one, Namespace("two") as two:
        connect(one, "eth0", two, "wan")
        one.configure(addresses={"eth0": ["10.0.0.1/24"]})
        two.configure(addresses={"wan": ["10.0.0.2/24"]})
        with one.run(lambda: udp("10.0.0.1")) as here, two.run(lambda: udp("10.0.0.2")) as there:
            here.sendto(b"hello", there.getsockname())
            assert there.recvfrom(100) == (b"hello", here.getsockname())


def udp(address: str) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.settimeout(5)
    bound.bind((address, 0))
    return bound


def test_a_child_is_inside_and_leaves_with_the_namespace() -> None:
    with Namespace("one") as one:
        identity = one.identity
        child = one.popen([sys.executable, "-c", "print('ready', flush=True); input()"], stdin=-1, stdout=-1)
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"ready\n"
        assert occupants([identity]) == {identity: [child.pid]}
    assert child.returncode == -signal.SIGTERM
    assert occupants([identity]) == {}
    child.stdin.close()
    child.stdout.close()


def test_a_program_that_does_not_exist_is_told_by_its_exit() -> None:
    with Namespace("one") as one:
        child = one.popen(["/no/such/program"], stderr=subprocess.PIPE, text=True)
        assert "/no/such/program: No such file" in child.communicate()[1]
        assert child.returncode == 1


@pytest.mark.slow
def test_a_child_that_ignores_the_request_to_leave_is_killed() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    with Namespace("one") as one:
        child = one.popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == b"ready\n"
        one.end_children()
        assert child.returncode == -signal.SIGKILL


def test_a_closed_namespace_says_so() -> None:
    before = threading.active_count()
    one = Namespace("one")
    one.close()
    one.close()
    assert threading.active_count() == before
    with pytest.raises(LabError, match="closed"):
        one.run(device_names)
    with pytest.raises(LabError, match="closed"):
        one.popen(["true"])


@pytest.mark.slow
def test_a_child_does_not_survive_the_death_of_the_laboratory() -> None:
    code = """
import subprocess, sys
from exeunt.clients.lab import Namespace
one = Namespace("one")
child = one.popen([sys.executable, "-c", "print('ready', flush=True); input()"], stdin=-1, stdout=-1)
child.stdout.readline()
print(one.identity, child.pid, flush=True)
sys.stdin.read()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    with holder.stdin, holder.stdout:
        identity, child_pid = map(int, holder.stdout.readline().split())
        assert occupants([identity]) == {identity: [child_pid]}
        child = os.pidfd_open(child_pid)
        holder.kill()
        holder.wait()
    try:
        assert select.select([child], [], [], 5)[0], "the child lives on"
    finally:
        os.close(child)
    assert occupants([identity]) == {}
