"""``exeunt relay run``: a STUN and TURN relay in the foreground."""

import asyncio
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from exeunt.runtime.wakeups import new_event_loop

from ..output import DEFAULTS, Options, fail, talk
from ..paths import current
from ..program import running_program
from ..relay import RelayConfig, RelayStartError, serve_until
from ..relay_sockets import Address

VARIABLE = "EXEUNT_RELAY_SECRET"
CREDENTIAL = "exeunt.relay-secret"
MIN_SECRET_CHARACTERS = 16  # below that an offline search over one sniffed credential becomes practical


def run(
    *,
    listen: str = "0.0.0.0:3478",
    listen_ipv6: str | None = None,
    other_listen: str | None = None,
    other_listen_ipv6: str | None = None,
    public_address: str | None = None,
    public_ipv6: str | None = None,
    other_public_address: str | None = None,
    realm: str = "exeunt",
    secret_file: Path | None = None,
    min_port: int = 49152,
    max_port: int = 65535,
    max_allocations: int = 4096,
    max_allocations_per_user: int = 64,
    max_allocations_per_gateway: int = 2048,
    deny_peer: Annotated[tuple[str, ...], Parameter(negative="", show_default=False)] = (),
    allow_loopback_peers: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    options: Options = DEFAULTS,
) -> int:
    """Run a STUN and TURN relay until it is told to leave (Ctrl-C, SIGTERM).

    Credentials are the time-limited ones that coturn calls use-auth-secret. The secret that they are made
    with is read from a file or from EXEUNT_RELAY_SECRET, never from an argument.

    Parameters
    ----------
    listen
        Where clients reach it over IPv4, ADDRESS:PORT, by UDP.
    listen_ipv6
        Where clients reach it over IPv6, [ADDRESS]:PORT. Without it the relay takes no IPv6 clients.
    other_listen
        A second IPv4 address, of another host and port. With it, clients can find out what their NAT does
        (RFC 5780; exeunt check). The address of --listen must be named then, not 0.0.0.0.
    other_listen_ipv6
        The same for IPv6.
    public_address
        The IPv4 address that peers see relayed traffic come from. By default the one that it listens on, or
        the one by which this machine reaches the world.
    public_ipv6
        The same for IPv6. Without it, and without listen-ipv6, no IPv6 is relayed.
    other_public_address
        The second IPv4 address as clients see it, where that is not the one of --other-listen.
    realm
        Named to clients when they are asked for their credentials.
    secret_file
        Holds the secret shared with the portal, in its first line.
    min_port
        The lowest port that relayed traffic uses.
    max_port
        The highest.
    max_allocations
        How many allocations it serves at a time.
    max_allocations_per_user
        How many of them one client may hold.
    max_allocations_per_gateway
        How many of them one gateway may hold: it needs one for each of its clients.
    deny_peer
        A network (CIDR) that must not be reached through the relay. Can be given several times.
    allow_loopback_peers
        Relay to this machine's loopback addresses too; for tests.
    options
        What every command takes.
    """
    config = RelayConfig(
        secret=read_secret(secret_file, os.environ),
        listen=_listening(listen, listen_ipv6),
        other_listen=_listening(other_listen, other_listen_ipv6),
        public_ipv4=public_address,
        public_ipv6=public_ipv6,
        other_public_ipv4=other_public_address,
        realm=realm,
        min_port=min_port,
        max_port=max_port,
        max_allocations=max_allocations,
        max_allocations_per_user=max_allocations_per_user,
        max_allocations_per_gateway=max_allocations_per_gateway,
        denied_peers=deny_peer,
        allow_loopback_peers=allow_loopback_peers,
    )

    async def serve() -> None:
        async with running_program("relay", paths=current(), options=options) as program:

            def ready() -> None:
                program.ready()
                program.say("The relay is ready.")

            await serve_until(program.leaving, config, ready)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve())
    except RelayStartError as error:
        fail(
            "config_invalid",
            f"The relay can't start: {str(error).removesuffix('.')}.",
            "See `exeunt relay run --help`.",
        )
    talk(options, "The relay has left.")
    return 0


def read_secret(secret_file: Path | None, environ: MutableMapping[str, str]) -> str:
    """Read the secret: from the file, else ``EXEUNT_RELAY_SECRET``, else systemd's credential.

    The variable is removed from ``environ`` in any case.

    Raises:
        Failure: there is none, it can't be read, or it is too short.
    """
    from_environment = environ.pop(VARIABLE, None)
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if secret_file is not None:
        secret = _read(secret_file)
    elif from_environment is not None:
        secret = from_environment.strip()
    elif directory is not None and (Path(directory) / CREDENTIAL).exists():
        secret = _read(Path(directory) / CREDENTIAL)
    else:
        fail("config_invalid", "The relay has no secret.", f"Give --secret-file FILE, or set {VARIABLE}.")
    if len(secret) < MIN_SECRET_CHARACTERS:
        fail(
            "config_invalid",
            f"The relay's secret is shorter than {MIN_SECRET_CHARACTERS} characters.",
            "Make one with: openssl rand -base64 32",
        )
    return secret


def parse_listen(text: str) -> Address:
    """Read ``ADDRESS:PORT`` or ``[ADDRESS]:PORT``.

    Raises:
        Failure: it isn't one.
    """
    from ipaddress import ip_address

    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        fail("usage", f"{text!r} is not an address with a port.", "Write 0.0.0.0:3478 or [::]:3478.")
    return host, number


def _listening(listen: str | None, listen_ipv6: str | None) -> tuple[Address, ...]:
    return tuple(parse_listen(each) for each in (listen, listen_ipv6) if each is not None)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail("config_invalid", f"The relay's secret can't be read: {error}.")
