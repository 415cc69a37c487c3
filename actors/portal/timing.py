"""Every timer of the link to the portal, of both ends, and the relations between them.

A peer's link waits for its portal (connect, join, heartbeats, leave), a portal for its peers (silence, join, confirm);
of two that wait for the same thing, it is always the peer's that fires first, since only the peer can try again.
"""

CONNECT_FIRST_LIMIT_S = 2.0
"""The first try to open a lost link; each further one may take twice as long. A network that is back is back for the
next SYN, and within one try the kernel sends them ever more rarely."""

CONNECT_LIMIT_S = 15.0
"""TCP, TLS and the websocket handshake together, on a slow mobile network."""

QUIET_LINK_S = 1.0
"""What is said on a link that has been silent for so long is said with a heartbeat: TCP would hide for long that nobody
is there."""

ANSWER_LIMIT_S = 1.5
"""If that is not answered, the link is opened anew. A lost segment or two fit in."""

NUDGE_INTERVAL_S = 2.0
"""A person who wants something now is not kept waiting for the back-off: a link is tried at most so often for them."""

JOIN_LIMIT_S = 5.0
"""What a peer waits for the answer to its `Join`."""

HEARTBEAT_INTERVAL_S = 10.0

MAX_UNANSWERED_HEARTBEATS = 3
"""Then the link is opened anew."""

MAX_RETRY_AFTER_S = 300.0
"""However long a busy portal asks us to wait, people are waiting too."""

REQUEST_LIFETIME_S = 15.0
"""What waits for the link longer than this is not asked any more; whoever asked has given up."""

FAREWELL_LIMIT_S = 5.0
"""After `Leaving`: how long the link stays for the reports of what then ends. Whoever leaves closes it earlier."""

CLOSE_LIMIT_S = 0.1
"""For what is still queued, and again for the closing handshake (RFC 6455 section 7.1.2)."""

# --- the portal's ---

PORTAL_JOIN_LIMIT_S = 10.0
"""Between the sign-in and the join."""

PORTAL_SILENCE_LIMIT_S = 37.0
"""Three heartbeats may be lost, and the fourth may be late."""

CONFIRM_LIMIT_S = 15.0
"""A gateway confirms in one round trip; one that takes longer than a heartbeat and a half is stuck."""

RESTART_INTERVAL_S = 1.0
"""Both ends of a connection notice the same change: their requests for an ICE restart within this are one."""

UNATTENDED_LIMIT_S = 600.0
"""After both ends have been away this long, they are taken to have ended their connection between them."""

_INEQUALITIES = (
    ("a peer gives up its join before the portal does", JOIN_LIMIT_S < PORTAL_JOIN_LIMIT_S),
    (
        "a peer opens a dead link anew before the portal gives it up",
        HEARTBEAT_INTERVAL_S * MAX_UNANSWERED_HEARTBEATS < PORTAL_SILENCE_LIMIT_S,
    ),
    ("a silent link is doubted long before the next heartbeat", QUIET_LINK_S + ANSWER_LIMIT_S < HEARTBEAT_INTERVAL_S),
    ("what is still asked can still be answered", REQUEST_LIFETIME_S <= CONFIRM_LIMIT_S),
    ("a peer that comes back finds its connections", PORTAL_SILENCE_LIMIT_S < UNATTENDED_LIMIT_S),
    ("reports of a leave are not taken for silence", FAREWELL_LIMIT_S < PORTAL_SILENCE_LIMIT_S),
)

for _what, _holds in _INEQUALITIES:
    if not _holds:
        raise AssertionError(f"timers contradict each other: {_what}")
