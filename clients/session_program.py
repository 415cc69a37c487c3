"""The programs that run a session: the headless client and the gateway.

They differ in a config and in what they say to the person who watches. Their composition root is here: paths and
configuration in, a `Session` out, its events to the terminal, the log and the control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

from exeunt.actors.endings import Cause
from exeunt.actors.messages import (
    AllGatewaysOffline,
    ConnectionEnded,
    ConnectionEstablished,
    Disconnected,
    Event,
    GatewayVersionMismatch,
    ResourcesUpdated,
    SessionDescription,
    TunInterfaceUpdated,
)
from exeunt.actors.session import EventStream, Session, SessionConfig
from exeunt.runtime import Directories, ExeuntError
from exeunt.runtime.context import CURRENT, stand_in
from exeunt.runtime.control import ControlError
from exeunt.runtime.inspector import Inspector
from exeunt.runtime.wakeups import new_event_loop

from .listening import listen
from .output import ExitCode, Failure, Options, fail
from .paths import Paths, ensure_private
from .program import Program, running_program
from .secrets import read_token

_CAP_NET_ADMIN = 12


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a client or a gateway is told."""

    side: str
    portal_url: str
    token: str
    name: str
    device: str
    log_level: str = "INFO"
    mtu: int = 1400
    lost_after_s: float = 15.0
    idle_after_s: float | None = None
    relay_only: bool = False
    masquerade: bool = True
    peer_workers: int = 1
    listen: str | None = None
    """[HOST:]PORT for peers that speak plain WireGuard."""


def run(settings: Settings, *, paths: Paths, options: Options) -> int:
    """Run a session in the foreground until it is over; return the exit code."""
    if not 1280 <= settings.mtu <= 1400:
        fail("config_invalid", f"The MTU {settings.mtu} is not between 1280 and 1400.")
    if not may_change_the_network():
        fail(
            "permission",
            f"A {settings.side} makes a network device, and this user may not.",
            f"Run it as root (sudo exeunt {settings.side} run), or give it CAP_NET_ADMIN.",
        )
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_run(settings, paths, options))


def may_change_the_network(status: Path = Path("/proc/self/status")) -> bool:
    """Say whether this process has CAP_NET_ADMIN (capabilities(7)); if that cannot be read, let the kernel decide."""
    try:
        lines = status.read_text(encoding="ascii").splitlines()
    except OSError:
        return True
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), -1)
    return bool(effective >> _CAP_NET_ADMIN & 1)


async def _run(settings: Settings, paths: Paths, options: Options) -> int:
    async with running_program(settings.side, paths=paths, options=options, log_level=settings.log_level) as program:
        following: Settings | None = settings
        code = int(ExitCode.OK)
        while following is not None:
            token_file = _write_token(paths, program.instance, following.token)
            try:
                code, following = await _serve(program, following, token_file)
            finally:
                with contextlib.suppress(OSError):
                    token_file.unlink()
        return code


class SignIns:
    """What `exeunt sign-in` has told the running program: the session that follows this one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.following: Settings | None = None

    def take(self, paths: Paths, portal_url: str) -> bool:
        """Take over the stored token and the portal's address; False when they are the ones in use."""
        token = read_token(paths, program=self._settings.side) or self._settings.token
        wanted = msgspec.structs.replace(self._settings, token=token, portal_url=portal_url)
        if wanted == self._settings:
            return False
        self.following = wanted
        return True


async def _serve(program: Program, settings: Settings, token_file: Path) -> tuple[int, Settings | None]:
    """Run one session; return the exit code, and the settings of the one that is to follow."""
    config = _session_config(program, settings, token_file)
    sign_ins = SignIns(settings)
    program.say(f"The {settings.side} starts.")
    try:
        session, events = await Session.connect(config)
    except (ExeuntError, RuntimeError, TimeoutError, OSError) as error:
        fail("failed", f"The {settings.side} could not start: {error}", "exeunt logs says more.")
    _register(program, session, sign_ins)
    watcher = Watcher(program, settings.side)
    await watcher.watch(events)
    outcome = await session.ended()
    if program.forced:
        return ExitCode.INTERRUPTED, None
    if sign_ins.following is not None and not program.leaving.is_set():
        return ExitCode.OK, sign_ins.following
    if outcome.failed:
        program.say(f"The {settings.side} failed: {outcome.reason}. exeunt logs says more.")
    if watcher.disconnected is not None and watcher.disconnected.requires_sign_in:
        program.say("Sign in again: exeunt sign-in")
    failed = outcome.failed or watcher.disconnected is not None
    return (ExitCode.FAILED if failed else ExitCode.OK), None


class Watcher:
    """Tells the person, the service manager and the control socket what the session tells."""

    def __init__(self, program: Program, side: str) -> None:
        self._program = program
        self._side = side
        self._ready = False
        self.disconnected: Disconnected | None = None
        self._names: dict[str, str] = {}

    async def watch(self, events: EventStream) -> None:
        """Until the stream has drained."""
        async for event in events:
            self._program.control.publish({"type": type(event).__name__, **msgspec.to_builtins(_fields(event))})
            sentence = self._sentence(event)
            if sentence:
                self._program.say(sentence)

    def _sentence(self, event: Event) -> str:
        match event:
            case TunInterfaceUpdated(config=config):
                return self._when_ready(f"Ready: {config.device} has {', '.join(config.addresses)}.")
            case ResourcesUpdated(resources=resources):
                self._names = {resource.id: resource.name for resource in resources}
                known = ", ".join(f"{one.name} ({one.address})" for one in resources) or "none"
                sentence = f"Resources: {known}."
                return self._when_ready(f"Ready. {sentence}") if self._side == "gateway" else sentence
            case ConnectionEstablished(peer=peer, path=path):
                return f"Connected to {peer} ({path})."
            case ConnectionEnded(ending=ending):
                return f"The connection to {ending.peer} ended: {ending.cause} (by {ending.initiated_by})."
            case AllGatewaysOffline(resource_id=resource_id):
                return f"All gateways of {self._names.get(resource_id, resource_id)} are offline."
            case GatewayVersionMismatch(resource_id=resource_id):
                return f"The gateways of {self._names.get(resource_id, resource_id)} are of another version."
            case Disconnected(reason=reason):
                self.disconnected = event
                return f"Disconnected: {reason}."

    def _when_ready(self, sentence: str) -> str:
        if self._ready:
            return ""
        self._ready = True
        self._program.ready()
        return sentence


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


def _register(program: Program, session: Session, sign_ins: SignIns) -> None:
    """Wire the session to the program's signals and control socket."""
    inspector = Inspector(session.supervisor)

    def leave(cause: str) -> None:
        session.stop(Cause(cause))

    async def status(_args: dict[str, Any]) -> dict[str, Any]:
        return _status(await session.describe())

    async def ping(args: dict[str, Any]) -> dict[str, Any]:
        peer = str(args["peer"])
        pong = await session.ping(peer, float(args.get("timeout_s", 5.0)))
        via = {"endpoint": pong.endpoint, "local_relay": pong.local_relay, "remote_relay": pong.remote_relay}
        return {"peer": peer, "rtt_ms": pong.rtt_ms, "path": pong.path} | {key: at or None for key, at in via.items()}

    async def evidence(args: dict[str, Any]) -> dict[str, Any]:
        found = await session.evidence(str(args["connection"]))
        return {"evidence": None if found is None else msgspec.to_builtins(found)}

    async def stop(args: dict[str, Any]) -> dict[str, Any]:
        if args.get("now"):
            asyncio.get_running_loop().call_soon(program.force)
            return {"trace": None}
        cause = Cause(args.get("reason", Cause.SHUTTING_DOWN))
        trace = time.time_ns() & 0xFFFF_FFFF_FFFF_FFFF | 1 << 63
        # The command is the root of a trace of its own: every hop of the leave follows from it.
        token = CURRENT.set(stand_in(trace, 0, f"{program.instance}/supervisor/control"))
        try:
            program.leave(cause)
        finally:
            CURRENT.reset(token)
        return {"trace": f"{trace:016x}"}

    async def sign_in(args: dict[str, Any]) -> dict[str, Any]:
        try:
            changed = sign_ins.take(program.paths, str(args["portal_url"]))
        except Failure as failure:
            raise ControlError(failure.error.code, failure.error.message, failure.error.hint) from failure
        if changed:
            session.stop(Cause.REPLACED)  # the next one begins when this one has taken its leave
        return {"instance": program.instance, "changed": changed}

    inspector.publish_to(program.control)
    program.look = inspector.look
    program.on_leave = leave
    program.on_force = session.force
    program.on_network_changed = lambda: session.reset("SIGHUP")
    program.control.commands.update(
        {
            "status": status,
            "ping": ping,
            "evidence": evidence,
            "stop": stop,
            "sign_in": sign_in,
            **inspector.commands,
        }
    )
    if program.leaving.is_set():
        leave("shutting_down")  # the signal came while the session was starting


def _status(description: SessionDescription) -> dict[str, Any]:
    return {
        "session": description.session,
        "resources": [
            {
                "name": one.name,
                "address": one.address,
                "site": one.site or None,
                "state": description.resource_states.get(one.id),
            }
            for one in description.resources
        ],
        "peers": [msgspec.to_builtins(_peer_row(peer)) for peer in description.peers],
        "problems": [{"code": "degraded", "message": problem} for problem in description.problems],
        "relays": [msgspec.to_builtins(relay) for relay in description.relays],
    }


def _peer_row(peer: Any) -> dict[str, Any]:
    names = ("peer", "path", "endpoint", "rtt_ms", "handshake_age_s", "rx_bytes", "tx_bytes", "connection", "state")
    return {
        name: getattr(peer, name) for name in (*names, "last_seen_s_ago", "generation", "handshakes", "path_mtu_bytes")
    }


def _session_config(program: Program, settings: Settings, token_file: Path) -> SessionConfig:
    paths, instance = program.paths, program.instance
    return SessionConfig(
        side=settings.side,
        instance=instance,
        portal_url=settings.portal_url,
        token_file=token_file,
        name=settings.name,
        external_id=_device_id(paths, instance),
        directories=Directories(
            ipc=paths.instance_run_dir(instance) / "ipc", logs=paths.log_dir, traces=ensure_private(paths.trace_dir)
        ),
        endings_file=paths.endings_file(instance),
        device=settings.device,
        mtu=settings.mtu,
        lost_after_s=settings.lost_after_s,
        idle_after_s=settings.idle_after_s,
        relay_only=settings.relay_only,
        masquerade=settings.masquerade,
        peer_workers=settings.peer_workers,
        listen=None if settings.listen is None else listen(settings.listen, paths.state_dir / instance),
        log_level="DEBUG" if program.options.verbose else settings.log_level,
    )


def _device_id(paths: Paths, instance: str) -> str:
    """Return the device's own lasting identity, made at its first start."""
    path = paths.state_dir / instance / "device-id"
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii").strip()
    identity = uuid.uuid4().hex
    path.write_text(identity + "\n", encoding="ascii")
    path.chmod(0o600)
    return identity


def _write_token(paths: Paths, instance: str, token: str) -> Path:
    """Put the token where the control worker can read it, and nobody else."""
    path = paths.instance_run_dir(instance) / "token"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return path
