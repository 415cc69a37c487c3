"""`exeunt gateway run`: a gateway in the foreground."""

import socket
from typing import Annotated

from cyclopts import Parameter

from .. import config
from ..output import DEFAULTS, Options, fail
from ..paths import current
from ..secrets import read_token
from ..session_program import Settings
from ..session_program import run as run_session


def run(
    *,
    portal: str | None = None,
    token_file: str | None = None,
    name: str | None = None,
    device: str = "exeunt-gw0",
    relay_only: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    masquerade: bool = True,
    listen: str | None = None,
    options: Options = DEFAULTS,
) -> int:
    """Let clients in to the resources of this gateway's site, until told to leave (Ctrl-C, SIGTERM, exeunt stop).

    Needs the rights to make network devices and firewall rules: root, or CAP_NET_ADMIN.

    Args:
        portal: The portal's address, ws://HOST:PORT or wss://HOST.
        token_file: Read the token from this file. By default EXEUNT_TOKEN, or the systemd credential.
        name: What others see. By default the host's name.
        device: The name of the tunnel's network device.
        relay_only: Never use a direct path (to test a relay).
        masquerade: Give clients' packets this host's address, so that resources know the way back.
        listen: UDP port for peers that speak plain WireGuard, 51820 for example, or HOST:PORT, where HOST is by what
            they reach this gateway. Connections of clients use the same port. By default there are no such peers.
        options: What every command takes.
    """
    paths = current()
    flags = {"portal_url": portal, "token_file": token_file, "listen": listen}
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
        listen=settings.listen,
    )
    return run_session(session, paths=paths, options=options)
