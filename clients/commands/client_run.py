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
    idle_after: Annotated[float | None, Parameter(show_default=False)] = None,
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
        idle_after: End a connection that carried nothing for so many seconds; the next packet makes another. By default
            none is ended.
        options: What every command takes.
    """
    if idle_after is not None and idle_after < 1:
        fail("usage", "A connection is not idle before a second has passed.", "Give --idle-after in seconds.")
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
        idle_after_s=idle_after,
    )
    return run_session(session, paths=paths, options=options)
