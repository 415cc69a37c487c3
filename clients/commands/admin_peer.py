"""`exeunt admin peer`: clients that speak WireGuard and nothing else, such as routers and telephones."""

import contextlib
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from ..contract import Problem
from ..output import DEFAULTS, Options, emit, fail
from ..portal import static_administration, tables
from ..portal.rows import NewStaticPeer
from .admin_store import Database, first_line, open_store

app = App(name="peer", help="Clients that speak plain WireGuard.", version_flags=())

Several = Parameter(negative="", show_default=False)
Flag = Parameter(negative="", show_default=False)
Output = Annotated[Path | None, Parameter(help="Write the configuration into this new file (0600), and don't show it.")]


@app.command(name="add")
def add(
    name: str,
    /,
    *,
    wireguard: str | None = None,
    generate: Annotated[bool, Flag] = False,
    preshared_key_file: Path | None = None,
    site: str | None = None,
    gateway: Annotated[tuple[str, ...], Several] = (),
    resource: Annotated[tuple[str, ...], Several] = (),
    endpoint: str = "",
    persistent_keepalive: int | None = None,
    output: Output = None,
    database: Database = None,
    options: Options = DEFAULTS,
) -> None:
    """Let a plain WireGuard peer in, and print a configuration for it (wg-quick).

    Args:
        name: What people call it.
        wireguard: Its public key. The private one stays where it was made (wg genkey).
        generate: Make a pair of keys for it; the private one is in the configuration, and not shown again.
        preshared_key_file: Holds a preshared key (wg genpsk), in its first line.
        site: Whose gateway it uses. May be left out where there is only one site.
        gateway: The gateway that it uses, if the site has several. Can be given several times, the best one first.
        resource: What it may use. Can be given several times; by default whatever is for everyone.
        endpoint: HOST:PORT of the peer, if the gateway shall begin; by default it waits.
        persistent_keepalive: Seconds after which something is sent, so that NATs keep the path open.
        output: See there.
        database: The portal's SQLite file.
        options: The options that every command takes.
    """
    if (wireguard is None) == (not generate):
        fail(
            "usage", "Either the peer's public key is given, or a pair is to be made.", "Use --wireguard or --generate."
        )
    with open_store(database) as (store, _):
        private_key = None
        if wireguard is None:
            private_key, public_key = static_administration.new_key_pair()
        else:
            public_key = static_administration.read_public_key(wireguard)
        preshared_key = None
        if preshared_key_file is not None:
            preshared_key = static_administration.read_key(first_line(preshared_key_file, "preshared key"), "preshared")
        wishes = static_administration.Wishes(
            public_key=public_key,
            private_key=private_key,
            preshared_key=preshared_key,
            site=site,
            gateways=gateway,
            resources=resource,
            endpoint=endpoint,
            persistent_keepalive_s=persistent_keepalive,
        )
        with _new_file(output) as write:
            made = static_administration.add(store, name, wishes, now_unix=time.time())
            write(made.configuration)
    _show(made, output, options)


@app.command(name="config")
def config(name: str, /, *, output: Output = None, database: Database = None, options: Options = DEFAULTS) -> None:
    """Print the configuration for a peer as it would be now. Its private key is not known here."""
    with open_store(database) as (store, _):
        made = static_administration.configuration_of(store, name)
        with _new_file(output) as write:
            write(made.configuration)
    _show(made, output, options)


@app.command(name="list")
def list_(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the peers that speak plain WireGuard."""
    with open_store(database) as (store, _):
        rows = static_administration.listed(store)
    emit("exeunt.admin.static-peers/1", rows, options=options, human=lambda: tables.static_peers(rows))


@app.command(name="remove")
def remove(name: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Remove a peer; its gateway lets nothing of it through any more."""
    with open_store(database) as (store, _):
        gone = static_administration.remove(store, name)
    emit("exeunt.admin.static-peer-removed/1", gone, options=options, human=lambda: f"Removed: {gone.name}.")


def _show(made: NewStaticPeer, output: Path | None, options: Options) -> None:
    problems: list[Problem] = []
    if made.endpoint is None:
        hint = "Write it into the configuration, or start the gateway with --listen HOST:PORT."
        problems.append(
            Problem(code="no_endpoint", message="It is not known where the gateway can be reached.", hint=hint)
        )
    if not made.peer.resources:
        hint = "Allow it one with: exeunt admin policy allow PEER RESOURCE"
        problems.append(Problem(code="no_resources", message=f"{made.peer.name} may not use any resource.", hint=hint))
    if output is not None:
        made = msgspec.structs.replace(made, configuration=None, file=str(output))
    text = f"{made.peer.name} has {made.peer.address_ipv4}; its configuration is in {output}."
    emit(
        "exeunt.admin.static-peer/1",
        made,
        options=options,
        human=lambda: text if made.configuration is None else made.configuration.rstrip(),
        problems=problems,
    )


@contextlib.contextmanager
def _new_file(path: Path | None) -> Generator[Callable[[str | None], object]]:
    """Give what writes the file; it is made before anything that it would be needed for, and goes if that fails."""
    if path is None:
        yield lambda _text: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        fail("failed", f"The configuration cannot be written: {error}.", "Name a file that is not there yet.")
    with os.fdopen(descriptor, "w") as file:
        try:
            yield lambda text: file.write(text or "")
        except BaseException:
            path.unlink(missing_ok=True)
            raise
