"""The scenes: each brings the connection to another end, and each ending is explained.

All of them begin alike: everybody enters, a file is downloaded through the tunnel. Then comes what the scene is
about. Each returns what it measured; the programs are still on the stage when it returns, but for those who left in
it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from exeunt.actors.endings import Ending
from exeunt.runtime.trace import Trace, group, load

from ..lab.topology import RESOURCE_ADDRESS
from .narrator import Narrator
from .resource import Download, download
from .stage import RESOURCE_NAME, Player, Stage, StageError

Scene = Literal["sign-out", "gateway-upgrade", "access-revoked", "worker-killed", "network-cut"]

_CUT_LIMIT_S: Final = 25.0
_TOLD_LIMIT_S: Final = 5.0


@dataclass
class Result:
    """What a scene has shown."""

    download: Download
    path: str
    sign_out_ms: float = 0.0
    trace: str | None = None
    drained: bool = False
    continued_after_s: float | None = None
    """How long the download stood still when the gateway left; only in `gateway-upgrade`."""
    complaints: list[str] = field(default_factory=list[str])
    """What did not go as it should have."""


@dataclass(frozen=True)
class Script:
    """One scene: what it says of itself, what it needs, and how it goes."""

    explanation: str
    gateways: int
    play: Callable[[Stage, Narrator, int], Result]


def enter(stage: Stage, narrator: Narrator) -> None:
    """Bring everybody onto the stage, one after another."""
    count = len(stage.lab.namespaces)
    narrator.say(f"A laboratory of {count} network namespaces: a client behind one NAT, gateways behind another.")
    stage.prepare()
    stage.start_resource()
    stage.start_portal_and_relay()
    narrator.say("The portal and the relay answer, on the internet between the two.")
    stage.start_gateways()
    names = " and ".join(gateway.name for gateway in stage.gateways)
    narrator.say(f"{names} signed in: {RESOURCE_NAME} ({RESOURCE_ADDRESS}) is in their network.")
    stage.start_client()
    workers = ", ".join(str(pid) for pid in stage.client.workers)
    narrator.say(f"The client signed in: a supervisor ({stage.client.pid}) and its workers ({workers}).")


def transfer(stage: Stage, narrator: Narrator, size: int) -> Result:
    """Download through the tunnel, and say by which path."""
    narrator.say(
        f"The first packet to {RESOURCE_NAME} makes the client ask the portal for a gateway.", mark="◐", style="yellow"
    )
    with narrator.downloading(size) as on_progress:
        got = download(RESOURCE_ADDRESS, size, open_socket=stage.open_socket, on_progress=on_progress)
    peer = current_peer(stage)
    endpoint = f", {peer['endpoint']}" if peer["endpoint"] else ""
    narrator.say(f"Connected to {peer['peer']} after {got.connect_ms:.0f} ms: a {peer['path']} path{endpoint}.")
    verdict = "SHA-256 is right" if got.sha256_ok else "SHA-256 is WRONG"
    narrator.say(f"{got.received / 1e6:.1f} MB came through the tunnel at {got.mbit_s:.0f} Mbit/s; {verdict}.")
    pong = stage.client.ask("ping", {"peer": peer["peer"]})
    narrator.say(f"A round trip through the tunnel takes {pong['rtt_ms']:.2f} ms.")
    result = Result(got, str(peer["path"]))
    if not got.sha256_ok:
        result.complaints.append("the download's SHA-256 is wrong")
    return result


def sign_out(stage: Stage, narrator: Narrator, size: int) -> Result:
    """The client signs out."""
    result = transfer(stage, narrator, size)
    _leave_client(stage, narrator, result)
    _expect(stage, result, {"signed_out"}, "signed_out")
    return result


def gateway_upgrade(stage: Stage, narrator: Narrator, size: int) -> Result:
    """The gateway in use is told to leave, as an upgrade would; a download goes on through the other one."""
    result = transfer(stage, narrator, size)
    leaver = next(one for one in stage.gateways if one.name == current_peer(stage)["peer"])
    long_one = _LongDownload(stage, size * 12)
    long_one.wait_for_bytes(size)
    narrator.say(f"A longer download runs. {leaver.name} gets SIGTERM.", mark="◐", style="yellow")
    leaver.terminate()
    leaver.end()
    ending = _told(stage.client, leaver.name)
    narrator.say(f"{leaver.name} has left; the client knew after {ending.detection_ms:.2f} ms: {ending.cause}.")
    got = long_one.finish()
    peer = current_peer(stage)
    result.continued_after_s = got.longest_gap_s
    stood = f"{got.longest_gap_s:.2f} s without a byte, {got.connections} connections"
    narrator.say(f"The download went on through {peer['peer']}: {stood}.")
    if not got.sha256_ok:
        result.complaints.append("the continued download's SHA-256 is wrong")
    if got.longest_gap_s > 2.0:
        result.complaints.append(f"the download stood still for {got.longest_gap_s:.2f} s")
    _leave_client(stage, narrator, result)
    _expect(stage, result, {"shutting_down", "signed_out"}, "shutting_down")
    return result


def access_revoked(stage: Stage, narrator: Narrator, size: int) -> Result:
    """An administrator takes the client's access away."""
    result = transfer(stage, narrator, size)
    peer = current_peer(stage)
    narrator.say(f"exeunt admin revoke client-1:{RESOURCE_NAME}", mark="◐", style="yellow")
    began = time.monotonic()
    stage.revoke(f"client-1:{RESOURCE_NAME}")
    _told(stage.client, str(peer["peer"]))
    _told(stage.gateways[0], "client-1")
    took_ms = (time.monotonic() - began) * 1000
    narrator.say(f"Both sides know, {took_ms:.0f} ms after the command.")
    _leave_client(stage, narrator, result)
    _expect(stage, result, {"access_revoked"}, "access_revoked")
    return result


def worker_killed(stage: Stage, narrator: Narrator, size: int) -> Result:
    """The process that carries the connection is killed: its supervisor says the goodbye that it had deposited."""
    result = transfer(stage, narrator, size)
    pid = next(int(row["pid"]) for row in stage.client.ask("ps") if row["worker"] == "peers-1")
    narrator.say(f"kill -9 {pid}: the client's worker that carries the connection.", mark="✖", style="red")
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    ending = _told(stage.gateways[0], "client-1")
    took_ms = (time.monotonic() - began) * 1000
    narrator.say(f"The gateway knows, {took_ms:.0f} ms later: {ending.cause}. The dead worker's supervisor told it.")
    got = download(RESOURCE_ADDRESS, size, open_socket=stage.open_socket)
    narrator.say(f"The next packet made another connection: {got.received / 1e6:.1f} MB came, {got.mbit_s:.0f} Mbit/s.")
    if not got.sha256_ok:
        result.complaints.append("the second download's SHA-256 is wrong")
    stage.client.note_workers()
    _leave_client(stage, narrator, result)
    _expect(stage, result, {"worker_crashed", "signed_out"}, "worker_crashed")
    return result


def network_cut(stage: Stage, narrator: Narrator, size: int) -> Result:
    """Nobody says anything: the client's cable is cut. Only this is left to the timeout."""
    result = transfer(stage, narrator, size)
    peer = current_peer(stage)
    stage.lab.cut(stage.lab.client_site)
    narrator.say(
        "The client's line to the internet is cut. Nobody is told; both sides can only wait.", mark="✖", style="red"
    )
    began = time.monotonic()
    for player, name in ((stage.client, str(peer["peer"])), (stage.gateways[0], "client-1")):
        ending = _told(player, name, limit_s=_CUT_LIMIT_S)
        waited = time.monotonic() - began
        narrator.say(f"{player.name}: {ending.cause}, {waited:.1f} s after the cut.")
    stage.lab.heal(stage.lab.client_site)
    narrator.say("The line is mended.")
    _leave_client(stage, narrator, result)
    _expect(stage, result, {"network_lost"}, "network_lost")
    return result


SCENES: Final = MappingProxyType(
    {
        "sign-out": Script("A client signs out. The gateway is told, and knows it from a cut cable.", 1, sign_out),
        "gateway-upgrade": Script(
            "A gateway leaves for an upgrade; its client goes on through another.", 2, gateway_upgrade
        ),
        "access-revoked": Script("Access is taken away; both sides know why the connection ended.", 1, access_revoked),
        "worker-killed": Script("A worker is killed. Its supervisor speaks for it, at once.", 1, worker_killed),
        "network-cut": Script("A cable is cut. This, and only this, is left to the timeout.", 1, network_cut),
    }
)


def leave_trace(stage: Stage, trace_id: str | None) -> Trace | None:
    """Return the trace of the client's leave, from the command to the last actor's end."""
    if trace_id is None:
        return None
    traces = group(load(stage.client.paths.trace_dir))
    return next((one for one in traces if f"{one.id:016x}" == trace_id), None)


def current_peer(stage: Stage) -> dict[str, object]:
    """Return the peer that the client is connected to. Raises StageError when there is none."""
    peers = [one for one in stage.client.status()["peers"] if one["state"] == "established"]
    if not peers:
        raise StageError(f"the client is connected to nobody\n{stage.client.output()}")
    peer: dict[str, object] = peers[0]
    return peer


def _leave_client(stage: Stage, narrator: Narrator, result: Result) -> None:
    narrator.say("exeunt sign-out", mark="◐", style="yellow")
    result.trace, result.sign_out_ms = stage.client.leave("signed_out")
    code = stage.client.process.returncode if stage.client.process else None
    result.drained = code == 0
    narrator.say(
        f"The client has left: its process was gone {result.sign_out_ms:.0f} ms after the command, exit code {code}."
    )
    if code != 0:
        result.complaints.append(f"the client's exit code is {code}")


def _expect(stage: Stage, result: Result, allowed: set[str], wanted: str) -> None:
    """Note endings that this scene must not have."""
    both = [*stage.client.endings(), *(one for gateway in stage.gateways for one in gateway.endings())]
    for side in ("client", "gateway"):
        causes = [ending.cause.value for ending in both if ending.side == side]
        if wanted not in causes:
            result.complaints.append(f"no ending of the {side} says {wanted}")
        result.complaints += [f"an ending of the {side} says {cause}" for cause in causes if cause not in allowed]


def _told(player: Player, peer: str, *, limit_s: float = _TOLD_LIMIT_S) -> Ending:
    """Wait until a program has recorded an ending with a peer. Raises StageError when it does not in time."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        for ending in player.endings():
            if ending.peer == peer:
                return ending
        time.sleep(0.01)
    raise StageError(f"{player.name} recorded no ending with {peer} within {limit_s:g} s\n{player.output()}")


class _LongDownload:
    """A download on a thread of its own, so that something can happen meanwhile."""

    def __init__(self, stage: Stage, size: int) -> None:
        self._progress = Download(size)
        self._result: Download | None = None
        self._error: BaseException | None = None
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(stage, size), daemon=True)
        self._thread.start()

    def wait_for_bytes(self, count: int) -> None:
        """Return once so much has come. Raises StageError when it does not."""
        with self._moved:
            if not self._moved.wait_for(lambda: self._progress.received >= count or self._error is not None, 30):
                raise StageError("the longer download does not move")

    def finish(self) -> Download:
        """Return the result. Raises what ended the download."""
        self._thread.join()
        if self._result is None:
            raise StageError(f"the longer download failed: {self._error}")
        return self._result

    def _run(self, stage: Stage, size: int) -> None:
        def moved(now: Download) -> None:
            with self._moved:
                self._progress = now
                self._moved.notify_all()

        try:
            self._result = download(RESOURCE_ADDRESS, size, open_socket=stage.open_socket, on_progress=moved)
        except BaseException as error:  # noqa: BLE001 - told by `finish`, on the thread that cares
            self._error = error
            with self._moved:
                self._moved.notify_all()
