"""What the portal keeps of connections: both ends' reports, what it observed itself, and what of it may be shared.

A part of the store. It trusts nobody who reports: only the two peers that a connection was made for may report its end
and ask about it, each for itself; what they are told of the other end leaves out its addresses (`shared`).

How much is kept: the newest KEPT_CONNECTIONS connections and KEPT_S of them, with one report for each end, which is
bounded (`EndingReport`). The first report stands. What happens to a connection or to a link of one of its ends is in
the record of session events, which has a bound of its own.
"""

import re
import sqlite3
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final

import msgspec

from exeunt.actors.portal.messages import Evidence
from exeunt.actors.portal.reports import MAX_OBSERVATIONS, EndingReport, Observation, Side
from exeunt.runtime.log import rfc3339

from .. import testimony

KEPT_CONNECTIONS = 20_000
"""With two reports of some 700 bytes each: 30 MB. Reports as large as they may be: 400 MB."""

KEPT_S = 90 * 86_400.0

AFTERMATH_S = 60.0
"""What happens to the ends' links so long after the connection's end still explains it."""

_OBSERVED: Final = {
    "signed_in": "link_opened",
    "left": "link_closed",
    "lost": "link_closed",
    "replaced": "link_closed",
    "revoked": "link_closed",
    "authorized": "authorized",
    "access_revoked": "access_revoked",
    "ice_restarted": "ice_restarted",
    "ended": "ended",
    "last_will": "last_will",
}
"""Kinds of session events → kinds of observations."""

_HOW: Final = {"left": "left", "replaced": "replaced", "revoked": "token_revoked"}
"""How a link was closed, where the event's own detail does not say it."""

_ADDRESS_CHARS = re.compile(r"[0-9A-Fa-f:.]{3,}")


class ConnectionRecord(msgspec.Struct, frozen=True):
    """A connection that was made, and how each end says that it ended. Times are Unix seconds."""

    id: str
    client_id: str
    gateway_id: str
    made_at: float
    ended_at: float | None = None
    client_cause: str | None = None
    gateway_cause: str | None = None
    client_report: EndingReport | None = None
    """None too where the end is of a version that sends none."""
    gateway_report: EndingReport | None = None

    def side_of(self, peer_id: str) -> Side | None:
        """Which end a peer is; None for everybody else."""
        ends: dict[str, Side] = {self.client_id: "client", self.gateway_id: "gateway"}
        return ends.get(peer_id)


class EndingsTable:
    """The `connection` table. Not for several threads."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add(self, connection_id: str, client_id: str, gateway_id: str, now_unix: float) -> None:
        """A connection was made. One that is known stays whose it is."""
        added = self._database.execute(
            "INSERT OR IGNORE INTO connection (id, client_id, gateway_id, made_at) VALUES (?, ?, ?, ?)",
            (connection_id, client_id, gateway_id, now_unix),
        ).lastrowid
        self._database.execute(
            "DELETE FROM connection WHERE number <= ? OR made_at < ?",
            ((added or 0) - KEPT_CONNECTIONS, now_unix - KEPT_S),
        )

    def report(
        self, connection_id: str, peer_id: str, cause: str, report: EndingReport | None, now_unix: float
    ) -> bool:
        """An end says how the connection ended. False if it is no end of it, or has said so before."""
        record = self.get(connection_id)
        side = None if record is None else record.side_of(peer_id)
        if side is None:
            return False
        text = None if report is None else msgspec.json.encode(report).decode()
        statement = (
            f"UPDATE connection SET {side}_cause = ?, {side}_report = ?, ended_at = ifnull(ended_at, ?)"  # noqa: S608
            f" WHERE id = ? AND {side}_cause IS NULL"  # `side` is one of two words
        )
        return self._database.execute(statement, (cause, text, now_unix, connection_id)).rowcount > 0

    def get(self, connection_id: str) -> ConnectionRecord | None:
        """A connection by its id."""
        return next(self._select("WHERE id = ?", connection_id), None)

    def ended(self, limit: int) -> list[ConnectionRecord]:
        """The connections that ended last, newest first."""
        return list(self._select("WHERE ended_at IS NOT NULL ORDER BY ended_at DESC LIMIT ?", limit))

    def evidence(self, ref: int, connection_id: str, peer_id: str) -> Evidence:
        """What the peer may know of a connection; nothing if it is no end of it."""
        record = self.get(connection_id)
        own = None if record is None else record.side_of(peer_id)
        if record is None or own is None:
            return Evidence(ref=ref, connection=connection_id)
        stored: dict[Side, EndingReport | None] = {"client": record.client_report, "gateway": record.gateway_report}
        reports: dict[Side, EndingReport] = {
            side: report if side == own else shared(report) for side, report in stored.items() if report is not None
        }
        return Evidence(
            ref=ref, connection=connection_id, reports=reports, observations=tuple(self._observations(record))
        )

    # Inside.

    def _select(self, where: str, *values: object) -> Iterator[ConnectionRecord]:
        columns = (
            "id, client_id, gateway_id, made_at, ended_at, client_cause, gateway_cause, client_report, gateway_report"
        )
        for row in self._database.execute(f"SELECT {columns} FROM connection {where}", values):  # noqa: S608
            yield ConnectionRecord(*row[:7], *(_report(text) for text in row[7:]))

    def _observations(self, record: ConnectionRecord) -> Iterator[Observation]:
        until = record.ended_at + AFTERMATH_S if record.ended_at is not None else float("inf")
        rows = self._database.execute(
            "SELECT * FROM (SELECT id, at, kind, peer_id, detail FROM session_event WHERE connection_id = ?"
            " UNION SELECT id, at, kind, peer_id, detail FROM session_event WHERE connection_id = ''"
            " AND peer_id IN (?, ?) AND at BETWEEN ? AND ? ORDER BY id DESC LIMIT ?) ORDER BY id",
            (record.id, record.client_id, record.gateway_id, record.made_at, until, MAX_OBSERVATIONS),
        )
        for _, at, kind, peer_id, detail in rows:
            side = record.side_of(peer_id)
            observed = _OBSERVED.get(kind)
            if side is None or observed is None:
                continue
            said = _detail(kind, detail)
            yield Observation(at=rfc3339(int(at * 1e9)), kind=observed, side=side, detail=said[:64])


def shared(report: EndingReport) -> EndingReport:
    """What the other end may see of a report: everything but the addresses in its evidence."""
    return msgspec.structs.replace(
        report, evidence={key: _ADDRESS_CHARS.sub(_hidden, text) for key, text in report.evidence.items()}
    )


def agreement(record: ConnectionRecord) -> str:
    """Whether the two ends tell the same of a connection; see `testimony.agreement`."""
    return testimony.agreement(
        _claim(record.client_cause, record.client_report), _claim(record.gateway_cause, record.gateway_report)
    )


def _claim(cause: str | None, report: EndingReport | None) -> testimony.Claim | None:
    return None if cause is None else testimony.Claim(cause, None if report is None else report.initiated_by)


def _hidden(match: re.Match[str]) -> str:
    text = match.group().strip(".:") or match.group()
    candidates = {match.group(), text, text.rpartition(":")[0], match.group().rstrip(".")}
    return "(address)" if any(_is_address(one) for one in candidates) else match.group()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _report(text: str | None) -> EndingReport | None:
    try:
        return None if text is None else msgspec.json.decode(text, type=EndingReport)
    except msgspec.DecodeError:  # of a version that knew other reports
        return None


def _detail(kind: str, detail: str) -> str:
    match kind:
        case "left":
            return f"left: {detail}" if detail else "left"
        case "authorized":
            return ""
        case _:
            return _HOW.get(kind, detail)
