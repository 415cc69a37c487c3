"""`exeunt gateway run`: a gateway in the foreground."""

import os
import socket
from typing import Annotated, Final

from cyclopts import Parameter

from exeunt.actors.peer_workers import DEVICE_NAME_BYTES, PEER_WORKERS_MAX, device_name

from .. import config
from ..output import DEFAULTS, Options, fail
from ..paths import current
from ..secrets import read_token
from ..session_program import Settings
from ..session_program import run as run_session

_WORKERS_UNASKED: Final = 4
"""By default there are no more: beyond that the kernel's routing and NAT have at least as much to do as we."""


def run(
    *,
    portal: str | None = None,
    token_file: str | None = None,
    name: str | None = None,
    device: str = "exeunt-gw0",
    relay_only: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    masquerade: bool = True,
    workers: Annotated[int | None, Parameter(show_default=False)] = None,
    listen: str | None = None,
    options: Options = DEFAULTS,
) -> int:
    """Let clients in to the resources of this gateway's site, until told to leave (Ctrl-C, SIGTERM, exeunt stop).

    Needs the rights to make network devices and firewall rules: root, or CAP_NET_ADMIN.

    Args:
        portal: The portal's address, ws://HOST:PORT or wss://HOST.
        token_file: Read the token from this file. By default EXEUNT_TOKEN, or the systemd credential.
        name: What others see. By default the host's name.
        device: The name of the tunnel's network device. With several workers the others' are NAME-2, NAME-3, …
        relay_only: Never use a direct path (to test a relay).
        masquerade: Give clients' packets this host's address, so that resources know the way back.
        workers: Processes that clients are spread over. By default one for each core but one, and four at most.
        listen: UDP port for peers that speak plain WireGuard, 51820 for example, or HOST:PORT, where HOST is by what
            they reach this gateway. Connections of the first worker use the same port. By default there are no such
            peers.
        options: What every command takes.
    """
    paths = current()
    flags = {"portal_url": portal, "token_file": token_file, "workers": workers, "listen": listen}
    settings = config.load(config.GatewayConfig, "gateway", paths=paths, options=options, flags=flags)
    token = read_token(paths, program="gateway", token_file=settings.token_file)
    if settings.portal_url is None or token is None:
        missing = "portal's address" if settings.portal_url is None else "token"
        fail("config_invalid", f"The {missing} is missing.", "Give --portal URL and --token-file FILE.")
    session = Settings(
        side="gateway",
        portal_url=settings.portal_url,
        token=token,
        name=name or socket.gethostname(),
        device=device,
        log_level=settings.log_level,
        mtu=settings.mtu,
        relay_only=relay_only,
        masquerade=masquerade,
        peer_workers=peer_workers(settings.workers, device),
        listen=settings.listen,
    )
    return run_session(session, paths=paths, options=options)


def default_workers(cores: int) -> int:
    """Return how many workers clients are spread over on a machine of so many cores.

    One core is left to the kernel, which routes and translates every packet, and to what else runs. On two cores that
    leaves one worker; a second one would only take turns with it.
    """
    return max(1, min(cores - 1, _WORKERS_UNASKED))


def peer_workers(asked: int | None, device: str) -> int:
    """Return how many workers a gateway has, its first device's name given. Raises Failure: so many cannot be."""
    count = default_workers(len(os.sched_getaffinity(0))) if asked is None else asked
    if not 1 <= count <= PEER_WORKERS_MAX:
        fail("config_invalid", f"A gateway has 1 to {PEER_WORKERS_MAX} workers, not {count}.")
    last = device_name(device, count - 1)
    if len(last.encode()) > DEVICE_NAME_BYTES:
        why = f"{last} is too long for a network device's name, which has {DEVICE_NAME_BYTES} bytes at most."
        fail("config_invalid", why, "Give a shorter --device.")
    return count
