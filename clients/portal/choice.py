"""Which gateway serves a request.

Any gateway of the resource's site reaches the resource. One that the client is connected to already costs
no new connection; otherwise the least busy one, and among equals a random one, so that clients spread.
"""

import random
from collections.abc import Iterable

from exeunt.actors.portal.messages import FailureReason

from .connections import Connections
from .directory import Directory
from .presence import Presence, Session
from .versions import compatible


def choose_gateway(
    client: Session,
    resource_id: str,
    excluded_ids: Iterable[str],
    *,
    directory: Directory,
    presence: Presence,
    connections: Connections,
    rng: random.Random,
) -> Session | FailureReason:
    """The session of the gateway to ask, or why there is none."""
    excluded = frozenset(excluded_ids)
    assert client.join is not None
    version = client.join.version
    online = [
        session
        for session in presence
        if presence.of(session.peer_id) is session
        and not session.leaving
        and session.peer_id not in excluded
        and directory.may_serve(session.peer_id, resource_id)
    ]
    if not online:
        return "offline"
    able = [s for s in online if s.join is not None and compatible(version, s.join.version)]
    if not able:
        return "version_mismatch"
    for session in able:
        if connections.between(client.peer_id, session.peer_id) is not None:
            return session
    fewest = min(connections.count_of(s.peer_id) for s in able)
    return rng.choice([s for s in able if connections.count_of(s.peer_id) == fewest])
