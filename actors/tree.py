"""The supervision tree of a client and of a gateway: specs only.

    supervisor
    ├── network    network                                    the only worker that keeps its privileges
    ├── peers-1…N  device · peer-<connection> (as they come)  no privileges; device-2 in the second, and so on
    └── control    event-loop · event-stream · session · portal-link · watcher

The event loop and the event stream are temporary: a session that lost its mind ends, and says so, rather than to
begin again with other keys behind its peers' backs. The event stream is significant: when it has drained, the
program may end. So is the network actor: the firewall's rules go with it, and a gateway without them must not stay.
All of these hand over when their worker is restarted on request: their successors are the same session.
"""

from __future__ import annotations

from typing import Any

import msgspec

from exeunt.runtime import ChildSpec, Restart, WorkerSpec

from .loop_config import LoopConfig
from .portal.static import Listener
from .timing import DRAIN_S, EVENT_LOOP_LEAVE_S, PEER_CLOSE_S, WORKER_LEAVE_S


class PortalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the portal, and as whom."""

    url: str
    """The whole websocket URL."""
    token_file: str
    name: str
    external_id: str
    public_key: bytes
    listener: Listener | None = None
    """Of a gateway that static peers can find."""


def workers(peers: tuple[str, ...]) -> list[WorkerSpec]:
    """Return the processes, in order of start."""
    leave_ms = int(WORKER_LEAVE_S * 1000)
    return [
        WorkerSpec(name="network", shutdown_ms=leave_ms, hands_over=True),
        *(WorkerSpec(name=name, shutdown_ms=leave_ms, unprivileged=True, hands_over=True) for name in peers),
        WorkerSpec(name="control", shutdown_ms=leave_ms, unprivileged=True, hands_over=True),
    ]


def children(instance: str, *, loop: LoopConfig, portal: PortalConfig) -> list[ChildSpec]:
    """Return the actors, in order of start."""
    event_loop = f"{instance}/control/event-loop"
    kind = "client_loop:ClientLoop" if loop.side == "client" else "gateway_loop:GatewayLoop"
    portal_args: dict[str, Any] = {**msgspec.to_builtins(portal, builtin_types=(bytes,)), "owner": event_loop}
    return [
        ChildSpec(
            id="network",
            worker="network",
            start="exeunt.actors.network.actor:Network",
            args={"instance": instance},
            restart=Restart.TEMPORARY,
            significant=True,
            hands_over=True,
        ),
        *(
            ChildSpec(
                id=loop.device_actor_of(worker),
                worker=worker,
                start="exeunt.actors.device.actor:Device",
                args={
                    "hand_over": loop.hand_over_of(worker),
                    "owner": event_loop,
                    "listen_port": loop.listen_port if worker == loop.peer_workers[0] else 0,
                },
                shutdown_ms=int(PEER_CLOSE_S * 1000),
            )
            for worker in loop.peer_workers
        ),
        ChildSpec(
            id="event-loop",
            worker="control",
            start=f"exeunt.actors.{kind}",
            args=msgspec.structs.asdict(loop),
            restart=Restart.TEMPORARY,
            hands_over=True,
            shutdown_ms=int(EVENT_LOOP_LEAVE_S * 1000),
        ),
        ChildSpec(
            id="event-stream",
            worker="control",
            start="exeunt.actors.event_stream:EventStream",
            args={"loop": event_loop},
            restart=Restart.TEMPORARY,
            significant=True,
            hands_over=True,
            shutdown_ms=int(DRAIN_S * 1000),
        ),
        ChildSpec(
            id="session",
            worker="control",
            start="exeunt.actors.session_actor:SessionActor",
            args={"loop": event_loop},
            restart=Restart.TRANSIENT,
        ),
        ChildSpec(
            id="portal-link",
            worker="control",
            start="exeunt.actors.portal.actor:PortalLink",
            args=portal_args,
        ),
        ChildSpec(
            id="watcher",
            worker="control",
            start="exeunt.actors.network.watch_actor:NetworkWatcher",
            args={"owner": event_loop, "ignored": loop.devices},
        ),
    ]
