"""Every deadline and interval of the tunnel, and the relations between them, asserted.

Deadlines nest: whoever waits for somebody else's work waits strictly longer than that work may take, so that it is
always the inner deadline that fires, and fires with a cause that it knows. The protocol timers of WireGuard and ICE
have modules of their own (`wireguard.timing`, `ice`); the relations that cross rooms are asserted here.
"""

from __future__ import annotations

from typing import Final

from .wireguard.timing import ICE_REKEY_ATTEMPT_TIME_S, KEEPALIVE_TIMEOUT_S

# --- knowing who is alive ---

LOST_AFTER_S: Final = 15.0
"""Nothing authenticated, and no answer to a consent check, for so long: `network_lost`. RFC 7675 allows 30 s."""

CONSENT_INTERVAL_S: Final = 3.6
"""How long an idle path is left alone. After 5 s without an answer ICE checks every half second: 20 checks before the
verdict, so loss alone never brings it about."""

CONNECT_S: Final = 15.0
"""From the first candidate to an agreed path; then `never_connected`."""

HANDSHAKE_S: Final = ICE_REKEY_ATTEMPT_TIME_S

HANDSHAKE_REPEAT_S: Final = 1.0
"""An unanswered initiation is repeated. The paper waits REKEY_TIMEOUT, 5 s, not knowing whether anybody is there; we
know that the path works, so a lost datagram should not cost the first request five seconds."""

# --- leaving, innermost first ---

GOODBYE_REPEAT_S: Final = 0.05
"""An unacknowledged goodbye is said again. With 20 % loss each way a round fails with 0.36; 19 rounds fit into the
deadline (0.36^19 is nothing)."""

GOODBYE_REPEAT_MAX_S: Final = 0.15
"""On a slow path it is repeated when it could have been answered; but a measured round trip may have a retransmission
in it, so never later than this."""

GOODBYE_DEADLINE_S: Final = 1.0
"""Then the ending stands, unacknowledged."""

LINGER_S: Final = 1.5
"""Who was told goodbye stays so long to acknowledge repetitions: its first acknowledgement may be lost."""

RELEASE_S: Final = 0.3
"""Closing the ICE agent: TURN allocations are released with lifetime 0, and their answers awaited so long."""

PEER_CLOSE_S: Final = 1.6
"""What the event loop waits for one `Close`: goodbye and release, side by side for all peers."""

PORTAL_LEAVE_S: Final = 0.25
"""What leaving waits for the portal's `Left`; a portal that is down must not hold us."""

EVENT_LOOP_LEAVE_S: Final = 2.2
"""Portal, then every peer."""

LAST_DELIVERY_S: Final = 0.25
"""After its loop has gone: what the event stream waits for the user to take an event, and then to hear of the end."""

DRAIN_S: Final = 2.8
"""The event stream: its loop gone and its last event delivered."""

APPLICATION_LEAVE_S: Final = 3.2
"""The supervisor's patience with all of it, before it ends the workers."""

WORKER_LEAVE_S: Final = 4.0
"""What a worker may take to stop its actors, who may still have goodbyes to say."""

# --- asking ---

AUTHORIZE_S: Final = 16.0
"""The portal answers a request within 15 s, if only with `offline`."""

INTENT_REPEAT_S: Final = 2.0
"""The same resource is asked for at most so often."""

EXCLUDE_GATEWAY_S: Final = 10.0
"""A gateway that said goodbye is not asked for again so soon: the portal may not have noticed yet."""

PING_S: Final = 5.0

_INEQUALITIES: Final = (
    ("a repetition fits its deadline", GOODBYE_REPEAT_S * 10 < GOODBYE_DEADLINE_S),
    ("who lingers outlasts who repeats", GOODBYE_DEADLINE_S < LINGER_S),
    ("closing a peer outlasts goodbye and release", GOODBYE_DEADLINE_S + RELEASE_S < PEER_CLOSE_S),
    ("the event loop outlasts portal and peers", PORTAL_LEAVE_S + PEER_CLOSE_S < EVENT_LOOP_LEAVE_S),
    ("the stream outlasts its loop and a slow user", EVENT_LOOP_LEAVE_S + 2 * LAST_DELIVERY_S < DRAIN_S),
    ("the supervisor outlasts the stream", DRAIN_S < APPLICATION_LEAVE_S),
    ("a worker outlasts a peer", PEER_CLOSE_S < WORKER_LEAVE_S),
    ("a worker outlasts its event loop", EVENT_LOOP_LEAVE_S < WORKER_LEAVE_S),
    ("a cut network is named before the handshake gives up", LOST_AFTER_S < ICE_REKEY_ATTEMPT_TIME_S),
    ("consent is asked for long before the verdict", CONSENT_INTERVAL_S * 4 < LOST_AFTER_S),
    ("a keepalive comes before the verdict", KEEPALIVE_TIMEOUT_S < LOST_AFTER_S),
)

for _what, _holds in _INEQUALITIES:
    if not _holds:
        raise AssertionError(f"timers contradict each other: {_what}")
