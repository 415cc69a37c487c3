"""The portal's memory on disk: SQLite behind a small interface.

Several programs use one database at once: the running portal, and each `exeunt admin` command. Write-ahead
logging lets them read while another writes, and `PRAGMA data_version` tells the portal, for the price of a
function call, that somebody else has written. Nothing can be lost that way, and an administrator's command needs
neither the portal's address nor its permission. So that the portal need not wait for its next look, whoever has changed
something rings its bell (`bell`) on closing.
"""

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec

from exeunt.actors.portal.messages import PeerKind, Transport

from .addresses import tunnel_addresses
from .bell import ring
from .directory import Directory, Identity, PeerRecord, RelayRecord, ResourceRecord, SiteRecord, StaticPeerRecord
from .endings import EndingsTable
from .errors import AlreadyExists, InvalidValue, NotFound
from .schema import migrate
from .static_table import StaticPeersTable
from .tokens import StoredToken, issue, matches, token_id

BUSY_LIMIT_S = 5.0
"""How long to wait for another program's transaction; theirs, like ours, take milliseconds."""

KEPT_EVENTS = 100_000
"""Session events. At some 100 bytes each: 10 MB."""


class TokenRecord(msgspec.Struct, frozen=True):
    """A token, without anything secret. Times are Unix seconds."""

    id: str
    kind: PeerKind
    peer: str
    created_at: float
    revoked_at: float | None


class SessionEvent(msgspec.Struct, frozen=True):
    """Something that happened to a peer's session. `at` is in Unix seconds."""

    at: float
    kind: str
    peer_id: str
    detail: str
    connection: str = ""
    """Empty for what concerns the peer's link."""


class Present(msgspec.Struct, frozen=True):
    """A peer that is joined to the portal, since when (Unix seconds), and its version."""

    peer_id: str
    since: float
    version: str


class Store:
    """An open database.

    Not for several threads. Methods raise `PortalError`s for what an administrator got wrong.
    """

    def __init__(self, path: Path) -> None:
        # The file holds hashes, relay secrets and who talks to whom: nobody else's business (0600).
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        self._path = path
        self._database = sqlite3.connect(path, timeout=BUSY_LIMIT_S, isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.execute("PRAGMA foreign_keys = ON")
            migrate(self._database)
        except BaseException:
            self._database.close()
            raise
        self.endings = EndingsTable(self._database)
        self.static_peers = StaticPeersTable(self._database)

    def close(self) -> None:
        """Close the database, and ring if it was changed. Other methods then raise."""
        changed = self._database.total_changes > 0
        self._database.close()
        if changed:
            ring(self._path)

    def change_number(self) -> int:
        """A number that is another one after any other program has committed a change."""
        (number,) = self._database.execute("PRAGMA data_version").fetchone()
        return int(number)

    def directory(self) -> Directory:
        """Everything that administrators have set up, as of now."""
        with self._transaction("DEFERRED"):
            rows = self._database.execute
            peers: dict[str, PeerRecord] = {}
            for number, peer_id, kind, name, site_id in rows(
                "SELECT number, id, kind, name, ifnull(site_id, '') FROM peer ORDER BY number"
            ):
                peers[peer_id] = PeerRecord(peer_id, kind, name, *tunnel_addresses(number), site_id)
            resources = rows("SELECT id, name, address, site_id, for_everyone FROM resource ORDER BY name")
            return Directory(
                sites={row[0]: SiteRecord(*row) for row in rows("SELECT id, name FROM site ORDER BY name")},
                peers=peers,
                resources={r[0]: ResourceRecord(r[0], r[1], r[2], r[3], bool(r[4])) for r in resources},
                relays=tuple(
                    RelayRecord(*row)
                    for row in rows("SELECT id, host, port, secret, transport FROM relay ORDER BY rowid")
                ),
                tokens=dict(rows("SELECT id, peer_id FROM token WHERE revoked_at IS NULL")),
                policies={(r, c): bool(a) for r, c, a in rows("SELECT resource_id, client_id, allowed FROM policy")},
                static_peers=self.static_peers.all(),
            )

    def authenticate(self, token: str) -> Identity | None:
        """Whom a token signs in; None for one that is unknown, wrong or revoked."""
        row = self._database.execute(
            "SELECT token.id, peer.kind, token.salt, token.digest, peer.id FROM token"
            " JOIN peer ON peer.id = token.peer_id WHERE token.id = ? AND revoked_at IS NULL",
            (token_id(token),),
        ).fetchone()
        if row is None:
            return None
        stored = StoredToken(*row[:4])
        return Identity(stored.kind, row[4], stored.id) if matches(token, stored) else None

    def add_site(self, name: str) -> SiteRecord:
        """A new site."""
        site = SiteRecord(_new_id("site"), name)
        self._insert("site", {"id": site.id, "name": name}, f"a site named {name!r}")
        return site

    def add_peer(self, kind: PeerKind, name: str, site_id: str | None, now_unix: float) -> PeerRecord:
        """A new client or gateway, without a token."""
        peer_id = _new_id(kind)
        row = {"id": peer_id, "kind": kind, "name": name, "site_id": site_id, "created_at": now_unix}
        number = self._insert("peer", row, f"a {kind} named {name!r}")
        return PeerRecord(peer_id, kind, name, *tunnel_addresses(number), site_id or "")

    def add_token(self, peer: PeerRecord, now_unix: float) -> str:
        """A new token for a peer. It cannot be shown again."""
        text, stored = issue(peer.kind)
        row = {"id": stored.id, "salt": stored.salt, "digest": stored.digest}
        self._insert("token", row | {"peer_id": peer.id, "created_at": now_unix}, "this token")
        return text

    def add_static_peer(self, record: StaticPeerRecord, allowed_resource_ids: tuple[str, ...] = ()) -> None:
        """Have a client be a static peer, and in the same moment what it may use."""
        with self._transaction():
            self.static_peers.add(record)
            for resource_id in allowed_resource_ids:
                self.set_policy(resource_id, record.peer_id, allowed=True)

    def remove_peer(self, peer_id: str) -> None:
        """Remove a peer, and all that is said of it."""
        self._delete("peer", peer_id)

    def revoke_tokens(self, *, token: str | None = None, peer_id: str | None = None, now_unix: float) -> int:
        """Revoke one token by its id, or all of a peer. How many that were."""
        return self._database.execute(
            "UPDATE token SET revoked_at = ? WHERE revoked_at IS NULL AND (id = ? OR peer_id = ?)",
            (now_unix, token, peer_id),
        ).rowcount

    def tokens(self) -> list[TokenRecord]:
        """All tokens, revoked ones too."""
        rows = self._database.execute(
            "SELECT token.id, kind, name, token.created_at, revoked_at FROM token"
            " JOIN peer ON peer.id = peer_id ORDER BY token.created_at, token.rowid"
        )
        return [TokenRecord(*row) for row in rows]

    def add_resource(self, record: ResourceRecord, allowed_client_ids: tuple[str, ...] = ()) -> None:
        """A new resource, and in the same moment who may use it."""
        row = msgspec.structs.asdict(record) | {"for_everyone": int(record.for_everyone)}
        with self._transaction():
            self._insert("resource", row, f"a resource named {record.name!r}")
            for client_id in allowed_client_ids:
                self.set_policy(record.id, client_id, allowed=True)

    def remove_resource(self, resource_id: str) -> None:
        """Remove a resource and its policies."""
        self._delete("resource", resource_id)

    def set_policy(self, resource_id: str, client_id: str, *, allowed: bool) -> None:
        """Allow or deny a client a resource."""
        self._database.execute(
            "INSERT INTO policy (resource_id, client_id, allowed) VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET allowed = excluded.allowed",
            (resource_id, client_id, int(allowed)),
        )

    def add_relay(self, host: str, port: int, secret: str, transport: Transport = "udp") -> RelayRecord:
        """A relay that shares `secret` with the portal."""
        relay = RelayRecord(_new_id("relay"), host, port, secret, transport)
        self._insert("relay", msgspec.structs.asdict(relay), f"a relay at {host}:{port}")
        return relay

    def remove_relay(self, relay_id: str) -> None:
        """Remove a relay."""
        self._delete("relay", relay_id)

    def record(self, event: SessionEvent) -> None:
        """Remember a session event; the oldest are forgotten."""
        added = self._database.execute(
            "INSERT INTO session_event (at, kind, peer_id, detail, connection_id) VALUES (?, ?, ?, ?, ?)",
            msgspec.structs.astuple(event),
        ).lastrowid
        self._database.execute("DELETE FROM session_event WHERE id <= ?", ((added or 0) - KEPT_EVENTS,))

    def session_events(self, limit: int = 100) -> list[SessionEvent]:
        """The newest session events, newest first."""
        rows = self._database.execute(
            "SELECT at, kind, peer_id, detail, connection_id FROM session_event ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [SessionEvent(*row) for row in rows]

    def set_present(self, present: Present) -> None:
        """A peer has joined."""
        self._database.execute(
            "INSERT OR REPLACE INTO presence (peer_id, since, version) VALUES (?, ?, ?)",
            msgspec.structs.astuple(present),
        )

    def set_absent(self, peer_id: str | None = None) -> None:
        """A peer is not joined any more, or nobody is."""
        self._database.execute("DELETE FROM presence WHERE ifnull(?, peer_id) = peer_id", (peer_id,))

    def present(self) -> list[Present]:
        """Who is joined, as of the portal that wrote it last; longest first."""
        return [
            Present(*row)
            for row in self._database.execute("SELECT peer_id, since, version FROM presence ORDER BY since, peer_id")
        ]

    @contextlib.contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing of what is changed inside."""
        with self._transaction():
            yield

    @contextlib.contextmanager
    def _transaction(self, mode: str = "IMMEDIATE") -> Generator[None]:
        if self._database.in_transaction:
            yield
            return
        self._database.execute(f"BEGIN {mode}")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _insert(self, table: str, row: dict[str, Any], what: str) -> int:
        # Table and column names come from this file, values never enter the statement.
        names, places = ", ".join(row), ", ".join("?" * len(row))
        statement = f"INSERT INTO {table} ({names}) VALUES ({places})"  # noqa: S608
        try:
            added = self._database.execute(statement, tuple(row.values())).lastrowid
        except sqlite3.IntegrityError as error:
            if "UNIQUE" in str(error):
                raise AlreadyExists(f"There is already {what}.") from None
            raise InvalidValue(f"Cannot add {what}: {error}.") from None
        assert added is not None
        return added

    def _delete(self, table: str, row_id: str) -> None:
        statement = f"DELETE FROM {table} WHERE id = ?"  # noqa: S608  # a name from this file
        if self._database.execute(statement, (row_id,)).rowcount == 0:
            raise NotFound(f"There is no such {table}.")


def new_resource_id() -> str:
    """An id for a resource."""
    return _new_id("resource")


def _new_id(kind: str) -> str:
    return f"{kind}-{secrets.token_hex(4)}"
