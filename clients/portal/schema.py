"""The database's shape, as the steps that lead to it.

`PRAGMA user_version` counts the steps that a database has been through. Steps are only ever added: one that
was released is never edited.
"""

import sqlite3

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE site (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;

    -- A peer's number is its place in the tunnel's address ranges. AUTOINCREMENT never gives one out again.
    CREATE TABLE peer (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL CHECK (kind IN ('client', 'gateway')),
        name TEXT NOT NULL,
        site_id TEXT REFERENCES site(id),
        created_at REAL NOT NULL,
        UNIQUE (kind, name),
        CHECK ((kind = 'gateway') = (site_id IS NOT NULL))
    ) STRICT;

    CREATE TABLE resource (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        address TEXT NOT NULL,
        site_id TEXT NOT NULL REFERENCES site(id),
        for_everyone INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE policy (
        resource_id TEXT NOT NULL REFERENCES resource(id) ON DELETE CASCADE,
        client_id TEXT NOT NULL REFERENCES peer(id) ON DELETE CASCADE,
        allowed INTEGER NOT NULL,
        PRIMARY KEY (resource_id, client_id)
    ) STRICT;

    CREATE TABLE token (
        id TEXT PRIMARY KEY,
        peer_id TEXT NOT NULL REFERENCES peer(id) ON DELETE CASCADE,
        salt BLOB NOT NULL,
        digest BLOB NOT NULL,
        created_at REAL NOT NULL,
        revoked_at REAL
    ) STRICT;

    -- The secret cannot be hashed: credentials are derived from it.
    CREATE TABLE relay (
        id TEXT PRIMARY KEY,
        transport TEXT NOT NULL,
        host TEXT NOT NULL,
        port INTEGER NOT NULL,
        secret TEXT NOT NULL,
        UNIQUE (transport, host, port)
    ) STRICT;

    CREATE TABLE session_event (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;
    """,
    """
    ALTER TABLE session_event ADD COLUMN connection_id TEXT NOT NULL DEFAULT '';
    CREATE INDEX session_event_connection ON session_event (connection_id) WHERE connection_id <> '';
    CREATE INDEX session_event_peer ON session_event (peer_id, at);

    -- Reports are JSON: the portal only passes them on. Peers may be gone by the time that somebody asks.
    CREATE TABLE connection (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        client_id TEXT NOT NULL,
        gateway_id TEXT NOT NULL,
        made_at REAL NOT NULL,
        ended_at REAL,
        client_cause TEXT,
        gateway_cause TEXT,
        client_report TEXT,
        gateway_report TEXT
    ) STRICT;
    CREATE INDEX connection_ended ON connection (ended_at) WHERE ended_at IS NOT NULL;

    -- Who is here, as the running portal sees it.
    CREATE TABLE presence (
        peer_id TEXT PRIMARY KEY,
        since REAL NOT NULL,
        version TEXT NOT NULL
    ) STRICT;
    """,
    """
    -- A client without a token: it speaks WireGuard and nothing else. `only_named`: it may use what a policy names.
    CREATE TABLE static_peer (
        peer_id TEXT PRIMARY KEY REFERENCES peer(id) ON DELETE CASCADE,
        public_key BLOB NOT NULL UNIQUE,
        preshared_key BLOB,
        endpoint TEXT NOT NULL,
        persistent_keepalive_s INTEGER,
        only_named INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE static_peer_gateway (
        peer_id TEXT NOT NULL REFERENCES static_peer(peer_id) ON DELETE CASCADE,
        gateway_id TEXT NOT NULL REFERENCES peer(id) ON DELETE CASCADE,
        place INTEGER NOT NULL,
        PRIMARY KEY (peer_id, gateway_id)
    ) STRICT;

    -- Where gateways listen for them, as of their last join. Hosts are JSON.
    CREATE TABLE listener (
        gateway_id TEXT PRIMARY KEY REFERENCES peer(id) ON DELETE CASCADE,
        public_key BLOB NOT NULL,
        port INTEGER NOT NULL,
        hosts TEXT NOT NULL
    ) STRICT;
    """,
)


def migrate(database: sqlite3.Connection) -> None:
    """Bring a database to the newest shape; each step is one transaction.

    Raises:
        sqlite3.DatabaseError: the file is no database, or a newer version of this program made it.
    """
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > len(STEPS):
        raise sqlite3.DatabaseError("the portal's database was made by a newer version of exeunt")
    for number, step in enumerate(STEPS[version:], start=version + 1):
        # Two programs may arrive here at once: the second waits for the lock and must then look again.
        database.execute("BEGIN IMMEDIATE")
        try:
            (current,) = database.execute("PRAGMA user_version").fetchone()
            if current < number:
                for statement in statements(step):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {number}")
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")


def statements(script: str) -> list[str]:
    """A script's single statements: `executescript` would commit the transaction around it."""
    found: list[str] = []
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found
