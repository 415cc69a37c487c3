"""`exeunt client run`: the headless client in the foreground."""

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
    device: str = "exeunt0",
    relay_only: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> int:
    """Connect, and stay connected until told to leave (Ctrl-C, SIGTERM, exeunt stop, exeunt sign-out).

    Needs the rights to make network devices: root, or CAP_NET_ADMIN.

    Args:
        portal: The portal's address, ws://HOST:PORT or wss://HOST. By default the one that sign-in stored.
        token_file: Read the token from this file. By default EXEUNT_TOKEN, else what sign-in stored.
        name: What others see. By default the host's name.
        device: The name of the tunnel's network device.
        relay_only: Never use a direct path (to test a relay).
        options: What every command takes.
    """
    paths = current()
    flags = {"portal_url": portal, "token_file": token_file}
    settings = config.load(config.ClientConfig, "client", paths=paths, options=options, flags=flags)
    token = read_token(paths, token_file=settings.token_file)
    if settings.portal_url is None or token is None:
        missing = "portal" if settings.portal_url is None else "token"
        fail("config_invalid", f"There is no {missing} to sign in with.", "Sign in first: exeunt sign-in --portal URL")
    session = Settings(
        side="client",
        portal_url=settings.portal_url,
        token=token,
        name=name or socket.gethostname(),
        device=device,
        log_level=settings.log_level,
        mtu=settings.mtu,
        relay_only=relay_only,
    )
    return run_session(session, paths=paths, options=options)
