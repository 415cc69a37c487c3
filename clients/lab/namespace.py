"""A network namespace that is held by a file descriptor.

`ip netns add` pins a namespace to a path, where it stays until somebody removes it. Here a thread unshares its
network and keeps ``/proc/thread-self/ns/net`` open; the kernel frees the namespace with the last descriptor,
socket and process in it, so nothing has to be cleaned up, not even after a SIGKILL.

A thread can enter a namespace without the rest of the process following it. So `run` calls a function "inside" in a
fresh thread, and a socket that it makes stays in that namespace for good, whoever uses it later.

Children: a child is forked by the namespace's own *holder* thread, which stays inside as long as the namespace is
open. That puts the child inside without code between fork and exec, and it makes PR_SET_PDEATHSIG, which fires
when the forking *thread* ends, mean what one wants: the child gets SIGTERM when the namespace is closed or the
process dies.
"""

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from exeunt.actors.network.links import STATIC_PROTOCOL, Links
from exeunt.actors.network.sysctl import write_sysctl

from .devices import switch_on
from .errors import LabError
from .kernel import CLONE_NEWNET, PR_SET_PDEATHSIG, setns, unshare

_T = TypeVar("_T")
_NAMESPACE_OF_THIS_THREAD = "/proc/thread-self/ns/net"
_LEAVE_TIMEOUT_S = 2.0  # a child that ignores SIGTERM for so long is killed

# Run in front of each child's program. The check closes the gap between the fork and prctl.
_TELL_WHEN_PARENT_DIES = f"""
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl({PR_SET_PDEATHSIG}, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{{sys.argv[2]}}: {{error.strerror}}")
"""


@dataclass(frozen=True, slots=True)
class Route:
    """A route to set up: ``network`` through ``device``, by the gateway ``via`` if there is one."""

    network: str
    device: str
    via: str = ""
    onlink: bool = False


class _Outcome(Generic[_T]):
    """What a call on another thread came to: its value, or the exception that it raised."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self._call = call
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._value: _T | None = None

    def work(self) -> None:
        """Make the call; for the other thread."""
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001  (raised again where the caller waits)
            self._error = error
        finally:
            self._done.set()

    def wait(self) -> _T:
        """Wait for the call and answer what it answered."""
        self._done.wait()
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # else the traceback would keep this object, and itself, alive
        return cast("_T", self._value)


class Namespace:
    """A network namespace with its loopback up. ``name`` is for people; the kernel does not know it.

    Raises:
        OSError: EPERM when this process may not make namespaces.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.children: list[subprocess.Popen[Any]] = []
        self._fd = -1
        self._work: queue.SimpleQueue[_Outcome[Any] | None] = queue.SimpleQueue()
        opening = _Outcome(self._open)
        self._holder = threading.Thread(target=self._hold, args=(opening,), name=f"lab-{name}", daemon=True)
        self._holder.start()
        try:
            opening.wait()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Namespace({self.name!r})"

    @property
    def fd(self) -> int:
        """The descriptor that holds the namespace.

        Raises:
            LabError: the namespace is closed.
        """
        if self._fd < 0:
            raise LabError(f"the namespace {self.name} is closed")
        return self._fd

    @property
    def identity(self) -> int:
        """The namespace's inode number, by which ``/proc/PID/ns/net`` names it (see `occupants`)."""
        return os.fstat(self.fd).st_ino

    def run(self, call: Callable[[], _T]) -> _T:
        """Call it on a fresh thread inside the namespace; answer or raise what it does.

        Raises:
            LabError: the namespace is closed.
        """
        fd = self.fd

        def inside() -> _T:
            setns(fd, CLONE_NEWNET)
            return call()

        outcome = _Outcome(inside)
        thread = threading.Thread(target=outcome.work, name=f"lab-{self.name}-run", daemon=True)
        thread.start()
        result = outcome.wait()
        thread.join()
        return result

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        """Start a program inside the namespace. ``options`` are those of `subprocess.Popen`.

        The child gets SIGTERM when this namespace is closed and when this process dies. A program that does
        not exist is known by its exit code 1 and a line on stderr.

        Raises:
            LabError: the namespace is closed.
        """
        self.fd  # noqa: B018  (raises when closed)
        launcher = [sys.executable, "-ISE", "-c", _TELL_WHEN_PARENT_DIES, str(os.getpid())]
        starting = _Outcome(lambda: subprocess.Popen([*launcher, *argv], **options))  # noqa: S603
        self._work.put(starting)
        child = starting.wait()
        self.children.append(child)
        return child

    def configure(
        self,
        *,
        addresses: Mapping[str, Iterable[str]] | None = None,
        routes: Iterable[Route] = (),
        sysctls: Mapping[str, str] | None = None,
    ) -> None:
        """Set sysctls, switch the named devices on with their addresses, then add the routes.

        Raises:
            NetworkError: the kernel refused one.
        """

        def inside() -> None:
            for name, value in (sysctls or {}).items():
                write_sysctl(name, value)
            with Links(route_protocol=STATIC_PROTOCOL) as links:
                for device, texts in (addresses or {}).items():
                    switch_on(links, device, texts)
                for route in routes:
                    links.add_route(route.network, route.device, via=route.via, onlink=route.onlink)

        self.run(inside)

    def end_children(self) -> None:
        """Ask every child to leave (SIGTERM), kill those that do not within two seconds, reap them all."""
        children, self.children = self.children, []
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(_LEAVE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def close(self) -> None:
        """End the children and let go of the namespace. Idempotent."""
        self.end_children()
        self._work.put(None)
        self._holder.join()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _open(self) -> None:
        unshare(CLONE_NEWNET)
        self._fd = os.open(_NAMESPACE_OF_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
        # IPv6 only on devices that ask for it: no link-local addresses, no router solicitations on the cables.
        with contextlib.suppress(Exception):
            write_sysctl("ipv6/conf/default/disable_ipv6", "1")
        with Links() as links:
            links.set_up("lo")

    def _hold(self, opening: _Outcome[None]) -> None:
        opening.work()
        while (work := self._work.get()) is not None:
            work.work()


def occupants(identities: Iterable[int]) -> dict[int, list[int]]:
    """Which processes are in which of these namespaces: identity to process ids, empty ones left out.

    A namespace that nobody is in and no descriptor holds does not exist any more.
    """
    wanted, found = set(identities), dict[int, list[int]]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it left meanwhile, or is not ours to look into
                identity = (entry / "ns" / "net").stat().st_ino
                if identity in wanted:
                    found.setdefault(identity, []).append(int(entry.name))
    return found
