"""The relays as peers see them: with credentials of their own that expire."""

from exeunt.actors.portal.messages import Relay
from exeunt.actors.turn.credentials import credentials, gateway_identifier

from .directory import RelayRecord

CREDENTIALS_LIFETIME_S = 24 * 3600.0
"""Long against a portal that is down over night, short against a laptop that is stolen."""
REFRESH_AFTER_S = CREDENTIALS_LIFETIME_S / 2
"""New ones are sent this long before the old ones expire: a peer may be away for the other half."""


def relays_for(
    peer_id: str, records: tuple[RelayRecord, ...], now_unix: float, *, is_gateway: bool = False
) -> tuple[Relay, ...]:
    """What to tell a peer about the relays."""
    identifier = gateway_identifier(peer_id) if is_gateway else peer_id
    relays: list[Relay] = []
    for record in records:
        username, password = credentials(record.secret, identifier, now_unix, CREDENTIALS_LIFETIME_S)
        relays.append(
            Relay(
                id=record.id,
                transport=record.transport,
                host=record.host,
                port=record.port,
                username=username,
                password=password,
                expires_at=int(now_unix + CREDENTIALS_LIFETIME_S),
            )
        )
    return tuple(relays)
