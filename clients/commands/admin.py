"""`exeunt admin`: setting up a portal, on its database.

A portal that runs on the database notices at once. What the commands do is in
`exeunt.clients.portal.administration`.
"""

import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ..output import DEFAULTS, Options, emit
from ..portal import administration, observed, session_tables, tables
from ..portal.rows import RelayRow
from ..portal.running import is_running
from .admin_peer import app as peer
from .admin_store import Database, OfSite, first_line, open_store

app = App(name="admin", help="Set up a portal: sites, gateways, clients, resources, tokens.", version_flags=())
site = App(name="site", help="Places with gateways and resources.", version_flags=())
gateway = App(name="gateway", help="What stands in a site and reaches its resources.", version_flags=())
client = App(name="client", help="Who may sign in to reach resources.", version_flags=())
resource = App(name="resource", help="What can be reached.", version_flags=())
relay = App(name="relay", help="STUN and TURN servers.", version_flags=())
policy = App(name="policy", help="Exceptions to whom resources are for.", version_flags=())
token = App(name="token", help="What peers sign in with.", version_flags=())
for _group in (site, gateway, client, resource, relay, policy, token, peer):
    app.command(_group)


@app.command
def init(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """Make the database, with a first site, gateway and client, and print their tokens, once."""
    with open_store(database, create=True) as (store, path):
        made = administration.initialize(store, path, time.time())
    emit("exeunt.admin.init/1", made, options=options, human=lambda: tables.initialized(made))


@app.command
def revoke(target: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Take away access; a running portal ends what is going on.

    Args:
        target: The id of a token, or a client or gateway (all its tokens), or CLIENT:RESOURCE.
        database: The portal's SQLite file.
        options: The options that every command takes.
    """
    with open_store(database) as (store, _):
        done = administration.revoke(store, target, now_unix=time.time())
    what = f"{done.peer} may not use {done.resource}" if done.resource else f"{done.peer} must sign in anew"
    emit("exeunt.admin.revoke/1", done, options=options, human=lambda: f"Revoked: {what}.")


@app.command
def sessions(
    *,
    limit: int = 20,
    events: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    database: Database = None,
    options: Options = DEFAULTS,
) -> None:
    """Who is here, and how connections ended according to both ends; newest first.

    Args:
        limit: At most so many connections, and events.
        events: Also what happened: who signed in, left, was lost, and with --json always.
        database: The portal's SQLite file.
        options: The options that every command takes.
    """
    with open_store(database) as (store, path):
        seen = observed.sessions(store, limit, running=is_running(path))
    emit(
        "exeunt.admin.sessions/2",
        seen,
        options=options,
        human=lambda: session_tables.render(seen, with_events=events),
    )


@site.command(name="add")
def site_add(name: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Make a site."""
    with open_store(database) as (store, _):
        made = administration.add_site(store, name)
    emit("exeunt.admin.site/1", made, options=options, human=lambda: tables.sites([made]))


@site.command(name="list")
def site_list(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the sites."""
    with open_store(database) as (store, _):
        rows = administration.sites(store)
    emit("exeunt.admin.sites/1", rows, options=options, human=lambda: tables.sites(rows))


@gateway.command(name="add")
def gateway_add(name: str, /, *, site: OfSite = None, database: Database = None, options: Options = DEFAULTS) -> None:
    """Make a gateway, and print its token, once."""
    with open_store(database) as (store, _):
        made = administration.add_gateway(store, name, site=site, now_unix=time.time())
    emit("exeunt.admin.peer/1", made, options=options, human=lambda: tables.new_peer(made, "gateway"))


@gateway.command(name="list")
def gateway_list(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the gateways."""
    with open_store(database) as (store, _):
        rows = administration.peers(store, "gateway")
    emit("exeunt.admin.peers/1", rows, options=options, human=lambda: tables.peers(rows, "gateway"))


@client.command(name="add")
def client_add(name: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Make a client, and print its token, once."""
    with open_store(database) as (store, _):
        made = administration.add_client(store, name, now_unix=time.time())
    emit("exeunt.admin.peer/1", made, options=options, human=lambda: tables.new_peer(made, "client"))


@client.command(name="list")
def client_list(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the clients."""
    with open_store(database) as (store, _):
        rows = administration.peers(store, "client")
    emit("exeunt.admin.peers/1", rows, options=options, human=lambda: tables.peers(rows, "client"))


@resource.command(name="add")
def resource_add(
    name: str,
    address: str,
    /,
    *,
    site: OfSite = None,
    for_: Annotated[tuple[str, ...], Parameter(name="--for", negative="", show_default=False)] = (),
    database: Database = None,
    options: Options = DEFAULTS,
) -> None:
    """Make a resource.

    Args:
        name: What people call it.
        address: A network, such as 10.20.0.0/24 or 2001:db8::/64, or one address.
        site: Where it can be reached. May be left out where there is only one site.
        for_: Only this client may use it. Can be given several times; by default it is for everyone.
        database: The portal's SQLite file.
        options: The options that every command takes.
    """
    with open_store(database) as (store, _):
        made = administration.add_resource(store, name, address, site=site, clients=for_)
    emit("exeunt.admin.resource/1", made, options=options, human=lambda: tables.resources([made]))


@resource.command(name="list")
def resource_list(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the resources."""
    with open_store(database) as (store, _):
        rows = administration.resources(store)
    emit("exeunt.admin.resources/1", rows, options=options, human=lambda: tables.resources(rows))


@resource.command(name="remove")
def resource_remove(name: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Remove a resource; whoever uses it loses it."""
    with open_store(database) as (store, _):
        gone = administration.remove_resource(store, name)
    emit("exeunt.admin.resource/1", gone, options=options, human=lambda: f"Removed: {gone.name}.")


@relay.command(name="add")
def relay_add(address: str, /, *, secret_file: Path, database: Database = None, options: Options = DEFAULTS) -> None:
    """Tell peers about a relay.

    Args:
        address: HOST:PORT, by UDP.
        secret_file: Holds the secret that the relay shares with the portal, in its first line.
        database: The portal's SQLite file.
        options: The options that every command takes.
    """
    secret = first_line(secret_file, "relay's secret")
    with open_store(database) as (store, _):
        made = administration.add_relay(store, address, secret)
    emit("exeunt.admin.relay/1", made, options=options, human=lambda: tables.relays([made]))


@relay.command(name="list")
def relay_list(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the relays."""
    with open_store(database) as (store, _):
        rows = administration.relays(store)
    emit("exeunt.admin.relays/1", rows, options=options, human=lambda: tables.relays(rows))


@relay.command(name="remove")
def relay_remove(address: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Remove a relay, by HOST:PORT or by its id."""
    with open_store(database) as (store, _):
        gone: list[RelayRow] = administration.remove_relay(store, address)
    emit("exeunt.admin.relays/1", gone, options=options, human=lambda: f"Removed: {address}.")


@policy.command(name="allow")
def policy_allow(client: str, resource: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Allow a client a resource."""
    _set_policy(client, resource, allowed=True, database=database, options=options)


@policy.command(name="deny")
def policy_deny(client: str, resource: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Deny a client a resource."""
    _set_policy(client, resource, allowed=False, database=database, options=options)


@policy.command(name="list")
def policy_list(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the exceptions."""
    with open_store(database) as (store, _):
        rows = administration.policies(store)
    emit("exeunt.admin.policies/1", rows, options=options, human=lambda: tables.policies(rows))


@token.command(name="add")
def token_add(peer: str, /, *, database: Database = None, options: Options = DEFAULTS) -> None:
    """Make one more token for a client or gateway; the others stay valid."""
    with open_store(database) as (store, _):
        made = administration.renew_token(store, peer, now_unix=time.time())
    kind = "client" if made.site is None else "gateway"
    emit("exeunt.admin.peer/1", made, options=options, human=lambda: tables.new_peer(made, kind))


@token.command(name="list")
def token_list(*, database: Database = None, options: Options = DEFAULTS) -> None:
    """List the tokens, revoked ones too; never their text."""
    with open_store(database) as (store, _):
        rows = administration.tokens(store)
    emit("exeunt.admin.tokens/1", rows, options=options, human=lambda: tables.tokens(rows))


def _set_policy(client: str, resource: str, *, allowed: bool, database: Path | None, options: Options) -> None:
    with open_store(database) as (store, _):
        made = administration.set_policy(store, client, resource, allowed=allowed)
    emit("exeunt.admin.policy/1", made, options=options, human=lambda: tables.policies([made]))
