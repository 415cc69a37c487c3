"""Every deadline and interval of the tunnel, and the relations between them, asserted.

Deadlines nest: whoever waits for somebody else's work waits strictly longer than that work may take, so that it is
always the inner deadline that fires, and fires with a cause that it knows. What only one room knows of stands there:
`wireguard.timing` and `portal.timing`, with their own relations, `ice.consent` and `ice.relay`, `turn.settings`. The
relations that cross rooms are asserted here.

Who is alive, in the order in which it is known on an idle path: ICE asks (CONSENT_INTERVAL_S, PASSIVE_S on the side
that mostly answers); SUSPECT_S after a packet without an answer, or QUIET_S after anything at all, probes; PROBE_S
later a restart; LOST_AFTER_S after the path was cut, as far as one can tell, the end, also while a restart is under
way; HANDSHAKE_S, if all else failed, the handshake gives up.
"""

from __future__ import annotations

from typing import Final

from exeunt.runtime.inheritance import DEADLINE_S as INHERITANCE_S

from .ice.consent import PASSIVE_S, RESTS_S
from .ice.relay import ALLOCATE_TIMEOUT_S
from .ice.relay_client import FAREWELL_PAUSES_S
from .portal.timing import (
    CONFIRM_LIMIT_S,
    FAREWELL_LIMIT_S,
    JOIN_LIMIT_S,
    PORTAL_SILENCE_LIMIT_S,
    REQUEST_LIFETIME_S,
    RESTART_INTERVAL_S,
)
from .wireguard.timing import (
    ICE_REKEY_ATTEMPT_TIME_S,
    KEEPALIVE_TIMEOUT_S,
    REJECT_AFTER_TIME_S,
    REKEY_AFTER_TIME_S,
)

# --- knowing who is alive ---

LOST_AFTER_S: Final = 15.0
"""Nothing authenticated, and no answer to a consent check, for so long: `network_lost`. RFC 7675 allows 30 s."""

CONSENT_INTERVAL_S: Final = 2.8
"""How long an idle path is left alone; when in that time it was cut, nobody knows. After 5 s without an answer ICE
checks every half second: 20 checks before the verdict, so loss alone never brings it about."""

SUSPECT_S: Final = 5.0
"""Something was sent, and no sign of life came for so long: probe, and if that stays unanswered, find another path."""

BUSY_GAP_S: Final = 0.25
"""A path on which signs of life come so close upon each other is busy."""

BUSY_SUSPECT_S: Final = 0.8
"""On a busy path so short a time without an answer is suspicious: a NAT that forgot us heals within two seconds."""

QUIET_S: Final = 7.0
"""The same where nothing was sent: later than ICE asks by itself, on either side."""

LOST_MARGIN_S: Final = 0.05
"""ICE names a lost network first; while a restart is under way it does not, and so much later this is the end."""

PROBE_REPEAT_S: Final = 0.1
"""Between the probes of a round."""

PROBE_S: Final = 1.5
"""A round of probes without an answer: the peer is not there, or not on this path. Fifteen probes; where a fifth is
lost each way, all of them fail once in four million times."""

DOUBT_S: Final = 0.5
"""The same for a round that concludes nothing, but has another path sought: that costs nobody anything."""

PROBE_ROUND_TRIPS: Final = 2.5
"""On a slow path a round lasts at least so many round trips, so that many of its probes could have been answered."""

TOLD_PATIENCE_S: Final = 3.0
"""A peer that told the portal that it leaves lives until it has. After so long it is taken for one that stays."""

STALL_S: Final = 1.0
"""A timer that fires so late means that our own process was stopped or starved: what it would conclude is void."""

STALL_GRACE_S: Final = 2.0
"""Then nothing is called lost before so long: what the peer said waits in our sockets, or comes by the next probe."""

SUSPEND_S: Final = 5.0
"""So late, the whole host was asleep: it may wake up in another network."""

RELAY_LOST_S: Final = 5.0
"""The relay that carried us is gone, and no other pair works: a restart of ICE has so long to find something else."""

# --- roaming ---

RESTART_S: Final = 10.0
"""What one restart of ICE may take; the old path, if it still lives, stays in use meanwhile."""

RESTART_SPACING_S: Final = 1.5
"""Two restarts are not asked for in a shorter time. The portal takes two requests within a second for one, and answers
only the first.
"""

RESTART_ANSWER_S: Final = 1.0
"""The portal begins a restart in a round trip. After so long the link to it is taken for dead, too."""

PORTAL_DOUBT_SPACING_S: Final = 10.0
"""A link that connections doubt is opened anew at most so often."""

RESTART_REPEAT_S: Final = 4.0
"""A restart that was asked for and not begun (the portal may be away) is asked for again, if it is still wanted."""

NETWORK_SETTLE_S: Final = 0.3
"""A change of network is many changes (an address goes, a route, another address comes): they are told as one, once
nothing has changed for so long."""

NETWORK_SETTLE_MAX_S: Final = 2.0
"""A network that keeps changing is told of at least so often."""

CLOCK_LOOK_S: Final = 2.0
"""How often the watcher compares the clocks: a suspend is noticed within this time after it."""

CONNECT_S: Final = 15.0
"""From the first candidate to an agreed path; then `never_connected`."""

HANDSHAKE_S: Final = ICE_REKEY_ATTEMPT_TIME_S

HANDSHAKE_REPEAT_S: Final = 1.0
"""An unanswered initiation is repeated. The paper waits REKEY_TIMEOUT, 5 s, not knowing whether anybody is there; we
know that the path works, so a lost datagram should not cost the first request five seconds."""

SESSION_KEEPALIVE_S: Final = 45.0
"""An idle initiator sends an empty packet so often, and so renews the session before it expires. Without one there is
no last will, and a goodbye takes a handshake first."""

# --- leaving, innermost first ---

GOODBYE_REPEAT_S: Final = 0.05
"""An unacknowledged goodbye is said again. With 20 % loss each way a round fails with 0.36; 19 rounds fit into the
deadline (0.36^19 is nothing)."""

GOODBYE_REPEAT_MAX_S: Final = 0.15
"""On a slow path it is repeated when it could have been answered; but a measured round trip may have a retransmission
in it, so never later than this."""

GOODBYE_WORK_S: Final = 0.0004
"""What one goodbye and its acknowledgement cost a worker. Where hundreds are under way, they are repeated only when
all of them could have been answered."""

GOODBYE_DEADLINE_S: Final = 1.0
"""Then the ending stands, unacknowledged."""

GOODBYE_PATIENCE_S: Final = 0.002
"""For each goodbye that is said at the same time the deadline is later by this much,"""

GOODBYE_LATEST_S: Final = 1.8
"""but never later than this: a gateway with hundreds of clients on a busy host has so long."""

LINGER_S: Final = 2.3
"""Who was told goodbye stays so long to acknowledge repetitions: its first acknowledgement may be lost."""

LINGER_LEAVING_S: Final = 0.3
"""Who leaves has less time: he acknowledges for so long what is said again, since when he was told. Several repetitions
on a path of 50 ms."""

RELEASE_S: Final = 0.3
"""Closing the ICE agent: TURN allocations are released with lifetime 0, and their answers awaited so long."""

PEER_CLOSE_S: Final = 2.2
"""What the event loop waits for one `Close`: goodbye and release, side by side for all peers."""

PORTAL_LEAVE_S: Final = 0.25
"""What leaving waits for the portal's `Left`; a portal that is down must not hold us."""

EVENT_LOOP_LEAVE_S: Final = 2.6
"""Portal, then every peer."""

LAST_DELIVERY_S: Final = 0.25
"""After its loop has gone: what the event stream waits for the user to take an event, and then to hear of the end."""

DRAIN_S: Final = 3.2
"""The event stream: its loop gone and its last event delivered."""

APPLICATION_LEAVE_S: Final = 3.6
"""The supervisor's patience with all of it, before it ends the workers."""

WORKER_LEAVE_S: Final = 4.0
"""What a worker may take to stop its actors, who may still have goodbyes to say."""

TAKE_OVER_S: Final = INHERITANCE_S + 1.0
"""A worker is restarted: when its connections are given up that no successor has taken. By then the supervisor has said
their last wills."""

# --- asking ---

AUTHORIZE_S: Final = 16.0
"""The portal answers a request within 15 s, if only with `offline`."""

INTENT_REPEAT_S: Final = 2.0
"""The same resource is asked for at most so often."""

EXCLUDE_GATEWAY_S: Final = 10.0
"""A gateway that said goodbye is not asked for again so soon: the portal may not have noticed yet."""

EXPIRY_PATIENCE_S: Final = 2.0
"""A client waits so long for the gateway's goodbye after an authorisation's end, before it ends it by itself. Their
clocks may differ, too."""

PING_S: Final = 5.0

LATEST_S: Final = LOST_AFTER_S + CONSENT_INTERVAL_S / 2 + LOST_MARGIN_S
"""From the last sign of life of an idle path to the verdict."""

EARLIEST_S: Final = LOST_AFTER_S + RESTS_S[0] / 2 + LOST_MARGIN_S
"""The same of one that carried traffic."""

_INEQUALITIES: Final = (
    ("a client hears that its access has expired before it says so", GOODBYE_LATEST_S < EXPIRY_PATIENCE_S),
    ("a repetition fits its deadline", GOODBYE_REPEAT_S * 10 < GOODBYE_DEADLINE_S),
    ("a goodbye among many has more time than one alone", GOODBYE_DEADLINE_S < GOODBYE_LATEST_S),
    ("who lingers outlasts who repeats", GOODBYE_LATEST_S < LINGER_S),
    ("who leaves still hears some repetitions", GOODBYE_REPEAT_MAX_S * 2 <= LINGER_LEAVING_S < LINGER_S),
    ("a relay is told several times before everybody has left", sum(FAREWELL_PAUSES_S) < RELEASE_S),
    ("closing a peer outlasts goodbye and release", GOODBYE_LATEST_S + RELEASE_S < PEER_CLOSE_S),
    ("the event loop outlasts portal and peers", PORTAL_LEAVE_S + PEER_CLOSE_S < EVENT_LOOP_LEAVE_S),
    ("the stream outlasts its loop and a slow user", EVENT_LOOP_LEAVE_S + 2 * LAST_DELIVERY_S < DRAIN_S),
    ("the supervisor outlasts the stream", DRAIN_S < APPLICATION_LEAVE_S),
    ("a worker outlasts a peer, told goodbye or telling", LINGER_LEAVING_S + PEER_CLOSE_S < WORKER_LEAVE_S),
    ("a worker outlasts its event loop", EVENT_LOOP_LEAVE_S < WORKER_LEAVE_S),
    ("a cut network is named before the handshake gives up", LOST_AFTER_S < ICE_REKEY_ATTEMPT_TIME_S),
    ("consent is asked for long before the verdict", CONSENT_INTERVAL_S * 4 < LOST_AFTER_S),
    ("a keepalive comes before the verdict", KEEPALIVE_TIMEOUT_S < LOST_AFTER_S),
    ("many probes make a round", PROBE_REPEAT_S * 10 < PROBE_S),
    ("a dead process is named within two seconds", PROBE_S + 2 * PROBE_REPEAT_S < 2.0),
    ("who leaves the portal has said goodbye before it is concluded", PORTAL_LEAVE_S + GOODBYE_DEADLINE_S < PROBE_S),
    ("who leaves the portal is waited for until it has left", EVENT_LOOP_LEAVE_S < TOLD_PATIENCE_S),
    ("a busy path is suspected sooner than another", BUSY_GAP_S < BUSY_SUSPECT_S < SUSPECT_S),
    ("what is busy has another path sought within a second and a half", BUSY_SUSPECT_S + DOUBT_S < 1.5),
    ("an idle peer is asked by ICE before it is suspected", CONSENT_INTERVAL_S < PASSIVE_S < QUIET_S),
    ("a round that concludes nothing is shorter than one that does", PROBE_REPEAT_S * 4 < DOUBT_S < PROBE_S),
    ("suspicion, probes and a restart come before the verdict", QUIET_S + PROBE_S + RESTART_REPEAT_S < LOST_AFTER_S),
    ("the latest verdict is not the handshake's", LATEST_S < HANDSHAKE_S),
    ("a cut is named within a second and a half of its time", CONSENT_INTERVAL_S / 2 + LOST_MARGIN_S < 1.5),
    ("a stopped host probes before it concludes", PROBE_S < STALL_GRACE_S),
    ("a stall is shorter than a suspend", STALL_S < SUSPEND_S),
    ("a relay's end is told before the silence that follows is a verdict", RELAY_LOST_S < LOST_AFTER_S),
    ("a restart is asked for again only when it cannot be the same", RESTART_SPACING_S < RESTART_REPEAT_S),
    ("a change of network is told before anybody is suspected", NETWORK_SETTLE_MAX_S < SUSPECT_S),
    ("an idle session is renewed before it expires", REKEY_AFTER_TIME_S + SESSION_KEEPALIVE_S < REJECT_AFTER_TIME_S),
    ("a restarted worker's connections are taken over before they are called lost", TAKE_OVER_S < LOST_AFTER_S),
    ("who was not taken over is spoken for before it is given up", INHERITANCE_S < TAKE_OVER_S),
    ("a second restart is not taken for the first", RESTART_INTERVAL_S * 1.2 < RESTART_SPACING_S),
    ("a link is doubted before a restart is asked for again", RESTART_ANSWER_S < RESTART_REPEAT_S),
    ("a doubted link is back, or cannot be had", JOIN_LIMIT_S < PORTAL_DOUBT_SPACING_S),
    ("a restart outlasts the relays that it asks for", ALLOCATE_TIMEOUT_S <= RESTART_S < CONNECT_S),
    ("a restart begun on suspicion is over at the latest verdict", SUSPECT_S + DOUBT_S + RESTART_S < EARLIEST_S),
    ("a client outlasts the portal's wait for a gateway", max(CONFIRM_LIMIT_S, REQUEST_LIFETIME_S) < AUTHORIZE_S),
    ("a host that sleeps is lost before the portal misses it", LATEST_S < PORTAL_SILENCE_LIMIT_S),
    ("the portal hears of the endings of who leaves", EVENT_LOOP_LEAVE_S < FAREWELL_LIMIT_S),
    ("a suspend is noticed before the peer is called lost", CLOCK_LOOK_S < LOST_AFTER_S),
)

for _what, _holds in _INEQUALITIES:
    if not _holds:
        raise AssertionError(f"timers contradict each other: {_what}")
