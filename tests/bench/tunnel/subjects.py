"""Who is measured: each on a line of its own, opened once, alive through all rounds."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from typing import Literal, Protocol, cast

import psutil

from exeunt.clients.demo.home import make_home
from exeunt.clients.demo.resource import download
from exeunt.clients.demo.stage import Player, Stage
from exeunt.clients.lab import Lab, Namespace
from exeunt.clients.lab.topology import RESOURCE_ADDRESS

from .line import Line

Side = Literal["client", "gateway"]
SIDES: tuple[Side, Side] = ("client", "gateway")
KERNELS = {"exeunt-native": "1", "exeunt-pure": "0"}
"""What EXEUNT_NATIVE is for each of ours."""


class NotHere(Exception):
    """This subject can't be measured on this machine; the message says why."""


class Subject(Protocol):
    """A tunnel on a line, or none."""

    name: str
    line: Line

    @property
    def client(self) -> Namespace:
        """Where the traffic's one end is."""
        ...

    @property
    def resource(self) -> Namespace:
        """Where its other end is."""
        ...

    def processes(self, side: Side) -> list[psutil.Process]:
        """The tunnel's own processes on that side."""
        ...

    def close(self) -> None:
        """End everything. Idempotent."""
        ...


class Veth:
    """The line alone."""

    name = "veth"

    def __init__(self) -> None:
        self.line = Line()
        self.line.masquerade()
        self.client, self.resource = self.line.client, self.line.resource

    def processes(self, side: Side) -> list[psutil.Process]:
        return []

    def close(self) -> None:
        self.line.close()


class Exeunt:
    """Our client and our gateway, as anybody would start them."""

    def __init__(self, name: str, *, mtu: int | None = None, workers: int = 1) -> None:
        """`name` is one of `KERNELS`; `mtu` is of the tunnel, by default what the programs take; `workers` has the
        gateway for its peers.
        """
        self.name = name
        self._mtu = mtu
        self.line = Line()
        self.client, self.resource = self.line.client, self.line.resource
        self.stage = Stage(make_home(), lab=cast("Lab", self.line))
        try:
            with environment(name, mtu, workers):
                self.stage.prepare()
                self.stage.start_resource()
                self.stage.start_portal_and_relay()
                self.stage.start_gateways()
                self.stage.start_client()
        except BaseException:
            self.close()
            raise

    def player(self, side: Side) -> Player:
        """The program on that side."""
        return self.stage.client if side == "client" else self.stage.gateways[0]

    def processes(self, side: Side) -> list[psutil.Process]:
        supervisor = psutil.Process(self.player(side).pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def worker(self, side: Side, name: str) -> int:
        """The pid of one of its workers."""
        rows = self.player(side).ask("ps")
        return next(int(row["pid"]) for row in rows if row["worker"] == name)

    def paths(self) -> set[str]:
        """By which kind of path the client reaches its peers: `direct`, `relay`."""
        return {peer["path"] for peer in self.stage.client.status()["peers"]}

    def sign_in_again(self) -> tuple[float, float]:
        """Have a new client sign in and fetch a byte; return the milliseconds from the program's start until it is
        signed in, and from the first packet to the first byte.
        """
        self.stage.client.leave("signed_out")
        self.stage.client = self.stage.client.again()
        began = time.monotonic()
        with environment(self.name, self._mtu):
            self.stage.start_client()
        signed_in = time.monotonic()
        got = download(RESOURCE_ADDRESS, 1, open_socket=self.stage.open_socket)
        return (signed_in - began) * 1000, got.first_byte_ms

    def close(self) -> None:
        self.stage.close()


@contextlib.contextmanager
def environment(name: str, mtu: int | None = None, workers: int = 1) -> Generator[None]:
    """What is started meanwhile uses that subject's kernel, this MTU and so many workers."""
    wanted = {"EXEUNT_NATIVE": KERNELS[name], "EXEUNT_WORKERS": str(workers)}
    if mtu is not None:
        wanted["EXEUNT_MTU"] = str(mtu)
    before = {variable: os.environ.get(variable) for variable in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value
