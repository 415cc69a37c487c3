"""`exeunt portal run`: the portal in the foreground."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from ..output import DEFAULTS, Options, fail, talk
from ..paths import current, ensure_private
from ..portal.addresses import host_and_port
from ..portal.app import PortalConfig, serve_until
from ..portal.counters import PortalCounters
from ..program import running_program


def run(
    *,
    listen: str = "127.0.0.1:8080",
    database: Path | None = None,
    options: Options = DEFAULTS,
) -> int:
    """Run the portal until it is told to leave (Ctrl-C, SIGTERM).

    Clients and gateways sign in here, learn what they may reach, and find each other. It carries none of
    their traffic: while it is away, tunnels stay up. It speaks plain HTTP; put a proxy with a certificate
    in front of it when it listens on more than this machine. Set it up with `exeunt admin`.

    Parameters
    ----------
    listen
        Where peers reach it, ADDRESS:PORT. Port 0 takes any free one.
    database
        Its SQLite file. By default portal.db in the state directory.
    options
        What every command takes.
    """
    host, port = _listening(listen)
    paths = current()
    config = PortalConfig(database=database or default_database(), host=host, port=port)

    async def serve() -> None:
        async with running_program("portal", paths=paths, options=options) as program:

            def ready(url: str) -> None:
                program.ready()
                program.say(f"The portal is ready at {url}")

            def count(counters: PortalCounters) -> None:
                async def answer(_args: dict[str, Any]) -> dict[str, int]:
                    return msgspec.structs.asdict(counters)

                program.control.commands["counters"] = answer

            await serve_until(program.leaving, config, ready, count=count)

    try:
        asyncio.run(serve())
    except (OSError, sqlite3.Error) as error:
        fail("portal_not_started", f"The portal cannot run: {error}.", "See: exeunt portal run --help")
    talk(options, "The portal has left.")
    return 0


def default_database() -> Path:
    """Where the portal's database is when nobody says; its directory is made."""
    return ensure_private(current().state_dir) / "portal.db"


def _listening(text: str) -> tuple[str, int]:
    from ipaddress import ip_address

    try:
        # Port 0 is no port to connect to, but one to listen on.
        host, port = host_and_port(text.removesuffix("0") + "1") if text.endswith(":0") else host_and_port(text)
        ip_address(host)
    except ValueError:
        fail("usage", f"{text!r} is not an address with a port.", "Write 127.0.0.1:8080 or [::1]:8080.")
    return host, 0 if text.endswith(":0") else port
