"""The database's tables of static peers, and of where gateways listen for them."""

import sqlite3

import msgspec

from exeunt.actors.portal.static import Listener

from .directory import StaticPeerRecord
from .errors import AlreadyExists


class StaticPeersTable:
    """Static peers and listeners in an open database, which stays its owner's."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, record: StaticPeerRecord) -> None:
        """Have a client that exists be a static peer. Use it within a transaction.

        Raises:
            AlreadyExists: another one has this key.
        """
        row = (
            record.peer_id,
            record.public_key,
            record.preshared_key,
            record.endpoint,
            record.persistent_keepalive_s,
            int(record.only_named),
        )
        try:
            self._database.execute("INSERT INTO static_peer VALUES (?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError:
            raise AlreadyExists("There is already a peer with this key.", "See: exeunt admin peer list") from None
        self._database.executemany(
            "INSERT INTO static_peer_gateway VALUES (?, ?, ?)",
            [(record.peer_id, gateway_id, place) for place, gateway_id in enumerate(record.gateway_ids)],
        )

    def all(self) -> dict[str, StaticPeerRecord]:
        """Return every static peer by its id, its gateways in the order in which they were named."""
        gateways: dict[str, list[str]] = {}
        for peer_id, gateway_id in self._database.execute(
            "SELECT peer_id, gateway_id FROM static_peer_gateway ORDER BY peer_id, place"
        ):
            gateways.setdefault(peer_id, []).append(gateway_id)
        return {
            peer_id: StaticPeerRecord(
                peer_id=peer_id,
                public_key=public_key,
                preshared_key=preshared_key,
                endpoint=endpoint,
                persistent_keepalive_s=persistent_keepalive_s,
                only_named=bool(only_named),
                gateway_ids=tuple(gateways.get(peer_id, ())),
            )
            for peer_id, public_key, preshared_key, endpoint, persistent_keepalive_s, only_named in (
                self._database.execute("SELECT * FROM static_peer ORDER BY rowid")
            )
        }

    def set_listener(self, gateway_id: str, listener: Listener | None) -> None:
        """Remember where a gateway listens; None: it doesn't."""
        if listener is None:
            self._database.execute("DELETE FROM listener WHERE gateway_id = ?", (gateway_id,))
            return
        hosts = msgspec.json.encode(listener.hosts).decode()
        self._database.execute(
            "INSERT INTO listener VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " public_key = excluded.public_key, port = excluded.port, hosts = excluded.hosts",
            (gateway_id, listener.public_key, listener.port, hosts),
        )

    def listeners(self) -> dict[str, Listener]:
        """Return where gateways listen, by the gateway's id."""
        return {
            gateway_id: Listener(
                public_key=public_key, port=port, hosts=msgspec.json.decode(hosts, type=tuple[str, ...])
            )
            for gateway_id, public_key, port, hosts in self._database.execute(
                "SELECT gateway_id, public_key, port, hosts FROM listener"
            )
        }
