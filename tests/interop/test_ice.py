"""Our ICE agent with other people's: libnice and werift-ice, each in both roles, directly and through coturn."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Literal

import pytest

from exeunt.actors.ice import (
    Callbacks,
    IceAgent,
    IceConfig,
    IceServer,
    Lost,
    Path,
    new_username_and_password,
    one_by_one,
)
from exeunt.actors.turn import credentials

HERE = FilePath(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
TIMEOUT_S = 20.0
KEPT_S = 12.0
"""Longer than libnice and werift-ice wait between two checks of consent (5 s, give or take a fifth), twice over."""
READY = {"ready", "connected", "completed"}
LOST = {"failed", "closed", "disconnected"}
SECRET = "a secret that two programs share"
Role = Literal["controlling", "controlled"]
Turn = dict[str, Any] | None


def libnice_is_missing() -> bool:
    probe = "import gi; gi.require_version('Nice', '0.1'); from gi.repository import Nice; import ctypes"
    if shutil.which(SYSTEM_PYTHON) is None:
        return True
    return subprocess.run([SYSTEM_PYTHON, "-c", probe], check=False, capture_output=True).returncode != 0


LIBNICE = pytest.param(
    [SYSTEM_PYTHON, str(HERE / "libnice_peer.py")],
    id="libnice",
    marks=pytest.mark.skipif(
        libnice_is_missing(), reason="libnice10, gir1.2-nice-0.1 and python3-gi are not installed"
    ),
)
WERIFT = pytest.param(
    ["node", str(HERE / "werift_peer.js")],
    id="werift",
    marks=pytest.mark.skipif(
        shutil.which("node") is None or not (HERE / "node_modules" / "werift-ice").is_dir(),
        reason="node or werift-ice is not installed (npm ci in tests/interop)",
    ),
)
PEERS = pytest.mark.parametrize("command", [LIBNICE, WERIFT])
ROLES = pytest.mark.parametrize("our_role", ["controlling", "controlled"])
pytestmark = pytest.mark.slow


class Theirs:
    """A peer in a process of its own, spoken with in JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._events: dict[str, asyncio.Queue[dict[str, Any]]] = {}
        self.states: list[str] = []
        self.errors: list[str] = []
        self.reading = asyncio.create_task(self._read())

    def tell(self, do: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")

    async def next(self, event: str) -> dict[str, Any]:
        """The next event of a kind."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._queue(event).get()

    async def until_ready(self) -> None:
        """Until the peer may send: its own check was answered, maybe later than ours."""
        while (await self.next("state"))["state"] not in READY:
            pass

    async def data(self) -> bytes:
        return bytes.fromhex((await self.next("data"))["hex"])

    def _queue(self, event: str) -> asyncio.Queue[dict[str, Any]]:
        return self._events.setdefault(event, asyncio.Queue())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if event["event"] == "state":
                self.states.append(event["state"])
            if event["event"] == "error":
                self.errors.append(event["message"])
            self._queue(event["event"]).put_nowait(event)


@asynccontextmanager
async def theirs(command: list[str], role: Role, turn: Turn) -> AsyncGenerator[Theirs]:
    process = await asyncio.create_subprocess_exec(*command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    peer = Theirs(process)
    try:
        peer.tell("start", role=role, turn=turn)
        yield peer
    finally:
        peer.tell("close")
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await peer.reading
        assert process.stdin is not None
        process.stdin.close()


@dataclass
class Ours:
    """Our agent, with everything that it says. The only place that knows its constructor and callbacks."""

    role: Role
    remote_username: str
    remote_password: str
    turn: Turn
    tell_candidate: Callable[[str], object]
    datagrams: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue[bytes])
    losses: asyncio.Queue[Lost] = field(default_factory=asyncio.Queue[Lost])

    def __post_init__(self) -> None:
        self.username, self.password = new_username_and_password()
        config = IceConfig(
            role=self.role,
            local_username=self.username,
            local_password=self.password,
            remote_username=self.remote_username,
            remote_password=self.remote_password,
            servers=() if self.turn is None else (IceServer("turn", transport="udp", **self.turn),),
            relay_only=self.turn is not None,
            host_filter=lambda host: host == "127.0.0.1",
        )
        callbacks = Callbacks(
            on_candidate=self.on_candidate,
            on_datagrams=one_by_one(self.datagrams.put_nowait),
            on_path=lambda _path: None,
            on_lost=self.losses.put_nowait,
        )
        self.agent = IceAgent(config, callbacks)

    def on_candidate(self, line: str, _generation: int = 0) -> None:
        self.tell_candidate(line)


@dataclass
class Pair:
    """Both ends, connected."""

    ours: Ours
    theirs: Theirs
    path: Path

    async def exchange(self, word: str) -> None:
        """Data there and back; bytes that text would not survive among them."""
        self.ours.agent.send(b"\4\0\xff" + word.encode())
        assert await self.theirs.data() == b"\4\0\xff" + word.encode()
        self.theirs.tell("send", hex=(b"\4\xff\0" + word.encode()).hex())
        async with asyncio.timeout(TIMEOUT_S):
            assert await self.ours.datagrams.get() == b"\4\xff\0" + word.encode()

    async def keep(self) -> None:
        """Idle, but for the checks of consent; whatever ends the path ends the test at once."""
        ends_at = time.monotonic() + KEPT_S
        while (left_s := ends_at - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(left_s, 0.5)):
                    pytest.fail(f"our agent lost the path: {await self.ours.losses.get()}")
            except TimeoutError:
                assert not LOST & set(self.theirs.states), self.theirs.states
                assert self.theirs.errors == []


@asynccontextmanager
async def connected(
    command: list[str], our_role: Role, our_turn: Turn = None, their_turn: Turn = None
) -> AsyncGenerator[Pair]:
    their_role: Role = "controlled" if our_role == "controlling" else "controlling"
    async with theirs(command, their_role, their_turn) as peer:
        told = await peer.next("credentials")
        ours = Ours(
            our_role, told["username"], told["password"], our_turn, lambda line: peer.tell("candidate", line=line)
        )
        peer.tell("remote", username=ours.username, password=ours.password)

        async def trickle() -> None:
            while True:
                line = (await peer.next("candidate"))["line"]
                ours.agent.add_remote_candidate(line or None)
                if not line:
                    return

        trickling = asyncio.create_task(trickle())
        try:
            _, path = await asyncio.gather(ours.agent.gather(), ours.agent.connect(TIMEOUT_S))
            await trickling
            await peer.until_ready()
            yield Pair(ours, peer, path)
        finally:
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)
            await ours.agent.close(2.0)


@PEERS
@ROLES
async def test_a_direct_path_carries_data_and_is_kept(command: list[str], our_role: Role) -> None:
    async with connected(command, our_role) as pair:
        assert pair.path.kind == "direct"
        await pair.exchange("at first")
        await pair.keep()
        await pair.exchange("at last")


# Relayed


@asynccontextmanager
async def coturn(directory: FilePath) -> AsyncGenerator[dict[str, Any]]:
    """A TURN server; what an agent must know of it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = shutil.which("turnserver")
    assert program is not None
    arguments = [
        *("--listening-ip=127.0.0.1", f"--listening-port={port}", "--relay-ip=127.0.0.1", "--realm=exeunt", "-n"),
        *("--use-auth-secret", f"--static-auth-secret={SECRET}", "--no-cli", "--no-tls", "--no-dtls"),
        *("--allow-loopback-peers", f"--pidfile={directory}/pid", f"--userdb={directory}/db"),
        *("--log-file=stdout", "--simple-log"),
    ]
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    username, password = credentials(SECRET, "somebody", time.time(), 600)
    try:
        await until_listening(port)
        yield {"host": "127.0.0.1", "port": port, "username": username, "password": password}
    finally:
        process.kill()
        await process.wait()


async def until_listening(port: int) -> None:
    """A TCP connection is refused until coturn listens."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@PEERS
@ROLES
@pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn's turnserver is not installed")
async def test_a_relayed_path_carries_data(command: list[str], our_role: Role, tmp_path: FilePath) -> None:
    """Both ends use nothing but their relay."""
    async with coturn(tmp_path) as turn, connected(command, our_role, turn, turn) as pair:
        assert (pair.path.kind, pair.path.local_type, pair.path.remote_type) == ("relay", "relay", "relay")
        await pair.exchange("through coturn")


@PEERS
@pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn's turnserver is not installed")
async def test_one_end_may_be_relayed_alone(command: list[str], tmp_path: FilePath) -> None:
    async with coturn(tmp_path) as turn, connected(command, "controlling", turn) as pair:
        assert (pair.path.kind, pair.path.local_type) == ("relay", "relay")
        await pair.exchange("half the way")


def test_the_peers_are_here() -> None:
    """Where nothing may be skipped, the peers' programs are at least what they should be."""
    assert (HERE / "package-lock.json").exists()
    assert os.access(HERE / "libnice_peer.py", os.R_OK)
