"""What `exeunt admin sessions` answers: who is here, how connections ended, what happened."""

import msgspec

from exeunt.actors.portal.reports import EndingReport

from ..contract_portal import EndedConnection, PresentPeer, ReportedEnding, SessionEventRow, Sessions
from .administration import rfc3339
from .endings import ConnectionRecord, agreement
from .store import Store


def sessions(store: Store, limit: int, *, running: bool) -> Sessions:
    """Everybody who is present, and the newest `limit` ended connections and events.

    Args:
        store: the portal's.
        limit: of connections and of events, each.
        running: whether a portal runs; what an ended one noted of who is present is not true any more.
    """
    peers = store.directory().peers
    names = {peer.id: peer.name for peer in peers.values()}
    return Sessions(
        running=running,
        present=[
            PresentPeer(
                peer=peers[one.peer_id].name,
                kind=peers[one.peer_id].kind,
                since=rfc3339(one.since),
                version=one.version,
            )
            for one in (store.present() if running else [])
            if one.peer_id in peers
        ],
        connections=[_connection(record, names) for record in store.endings.ended(limit)],
        events=[
            SessionEventRow(
                at=rfc3339(event.at),
                kind=event.kind,
                peer=names.get(event.peer_id, event.peer_id),
                detail=event.detail,
                connection=event.connection or None,
            )
            for event in store.session_events(limit)
        ],
    )


def _connection(record: ConnectionRecord, names: dict[str, str]) -> EndedConnection:
    assert record.ended_at is not None, "only those that ended are asked for"
    return EndedConnection(
        connection=record.id,
        client=names.get(record.client_id, record.client_id),
        gateway=names.get(record.gateway_id, record.gateway_id),
        made_at=rfc3339(record.made_at),
        ended_at=rfc3339(record.ended_at),
        agreement=agreement(record),
        client_says=_says(record.client_cause, record.client_report),
        gateway_says=_says(record.gateway_cause, record.gateway_report),
    )


def _says(cause: str | None, report: EndingReport | None) -> ReportedEnding | None:
    if report is not None:
        return msgspec.convert(report, ReportedEnding, from_attributes=True)
    return None if cause is None else ReportedEnding(cause=cause)
