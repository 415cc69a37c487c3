"""The link to the portal, decided without a socket.

A link is a websocket, a sign-in (the token in the handshake) and a join; only then is anything else said.
It is kept alive by heartbeats and opened again whenever it is lost, for as long as it takes: tunnels
outlive it. Three things end it for good: somebody closes it, somebody leaves, or the portal says that it
will not have us (HTTP 401, `Disconnect`).

    disconnected ─→ connecting ─→ joining ─→ joined ─→ leaving ─→ left ─→ closed
          ↑______________│____________│_________│

Leaving tells the portal first and the peers then, so the connections end after the portal knows that we leave. That is
why a link that has `left` still carries their reports, and nothing else, until whoever left closes it.

A link whose peer is gone looks alive: TCP repeats what it has, ever more rarely, and goes on doing so when the network
is back. So what is said after a silence is said with a heartbeat, and if nothing comes back soon, the link is opened
anew. What was said since the last answer may be lost; ends, candidates and wishes for new paths are said again on the
next link.

Each state has exactly one timer, so `poll_timeout` names the state's only way forward without outside help.
"""

import random
from collections import deque

import msgspec

from .backoff import BackOff
from .claims import in_frames
from .codec import Decoder, MalformedFrame, UnknownMessage, encode, error_about
from .events import (
    CloseSocket,
    LinkDenied,
    LinkDown,
    LinkEvent,
    LinkJoined,
    LinkLeft,
    LinkMessage,
    LinkState,
    OpenSocket,
    SendFrame,
    SocketCommand,
)
from .messages import (
    MAX_PORTAL_FRAME_BYTES,
    ClaimConnections,
    ConnectionEnded,
    Disconnect,
    Error,
    FromPeer,
    FromPortal,
    Heartbeat,
    HeartbeatReply,
    IceCandidates,
    IceRestarted,
    Join,
    Joined,
    LastWill,
    Leaving,
    Left,
    LiveConnection,
    RequestAuthorization,
    RestartIce,
)
from .outbox import Outbox
from .timing import (
    ANSWER_LIMIT_S,
    CONNECT_FIRST_LIMIT_S,
    CONNECT_LIMIT_S,
    FAREWELL_LIMIT_S,
    HEARTBEAT_INTERVAL_S,
    JOIN_LIMIT_S,
    MAX_RETRY_AFTER_S,
    MAX_UNANSWERED_HEARTBEATS,
    NUDGE_INTERVAL_S,
    QUIET_LINK_S,
)

TRANSITIONS: dict[LinkState, dict[str, LinkState]] = {
    "disconnected": {"connect": "connecting", "leave": "closed", "close": "closed"},
    "connecting": {
        "opened": "joining",
        "lost": "disconnected",
        "denied": "closed",
        "leave": "closed",
        "close": "closed",
    },
    "joining": {
        "joined": "joined",
        "lost": "disconnected",
        "denied": "closed",
        "leave": "closed",
        "close": "closed",
    },
    "joined": {"lost": "disconnected", "denied": "closed", "leave": "leaving", "close": "closed"},
    "leaving": {"lost": "closed", "denied": "closed", "left": "left", "close": "closed"},
    "left": {"lost": "closed", "close": "closed"},
    "closed": {},
}
"""state → what happened → state. What is not listed cannot happen in that state and is ignored."""

_UNCONFIRMED_KEPT = 512


class LinkCounters(msgspec.Struct):
    """What the link saw and dropped."""

    malformed_frames: int = 0
    unknown_messages: int = 0
    unknown_fields: int = 0
    early_messages: int = 0
    """Messages that came before the join was confirmed."""
    tries: int = 0
    joins: int = 0


class LinkMachine:
    """The link's decisions.

    After each `handle_*`, drain `poll_transmit` and `poll_event`, then set the timer.
    """

    def __init__(self, join: Join, *, rng: random.Random) -> None:
        self._join = join
        self._connections = join.connections
        self._rng = rng
        self._state: LinkState = "disconnected"
        self._timer: tuple[float, str] | None = None
        self._back_off = BackOff()
        self._outbox = Outbox()
        self._decoder: Decoder[FromPortal] = Decoder(FromPortal, max_bytes=MAX_PORTAL_FRAME_BYTES)
        self._unclaimed: list[tuple[LiveConnection, ...]] = []
        self._heartbeat_ref = 0
        self._unanswered = 0
        self._heard_at = 0.0
        self._unconfirmed: deque[FromPeer] = deque(maxlen=_UNCONFIRMED_KEPT)
        self._connect_limit_s = CONNECT_LIMIT_S
        self._nudge_after = 0.0
        self._commands: deque[SocketCommand] = deque()
        self._events: deque[LinkEvent] = deque()
        self.counters = LinkCounters()

    @property
    def state(self) -> LinkState:
        """Where in `TRANSITIONS` the link is."""
        return self._state

    @property
    def refused_messages(self) -> int:
        """Messages that could not be held while the link was down."""
        return self._outbox.refused

    # From the session.

    def handle_start(self, now: float) -> None:
        """Connect now, at the start or before the back-off allows it."""
        if self._state == "disconnected":
            self._connect(now)

    def handle_reset(self, now: float) -> None:
        """The network has changed, so the socket is likely dead: give it up and connect at once."""
        if self._state in ("connecting", "joining", "joined"):
            self._lose("the network has changed", now)
        self.handle_start(now)

    def handle_connections(self, connections: tuple[LiveConnection, ...]) -> None:
        """Which connections the next join shall claim as still alive."""
        self._connections = connections

    def handle_send(self, message: FromPeer, now: float, join: int | None = None) -> None:
        """Send a message, or hold it until the next join (see `Outbox`). Who leaves has only ends to tell of.

        `join`: the number of the join (`LinkCounters.joins`) of which a request's maker last knew. Made before it knew
        of this one, the request is made again, and dropped here.
        """
        if self._state == "joined":
            if not isinstance(message, RequestAuthorization) or join in (None, self.counters.joins):
                self._say(message, now)
        elif self._state in ("leaving", "left"):
            if isinstance(message, ConnectionEnded | LastWill):
                self._transmit(message)
        elif self._state != "closed":
            self._outbox.put(message, now)
            if isinstance(message, RequestAuthorization) and now >= self._nudge_after:
                self.handle_start(now)

    def handle_leave(self, reason: str, timeout_s: float, now: float) -> None:
        """Say goodbye; `LinkLeft` follows, after `timeout_s` at the latest. The socket stays until `handle_close`."""
        before = self._state
        if not self._step("leave"):
            return
        if before == "joined":
            self._transmit(Leaving(reason=reason))
            self._timer = (now + timeout_s, "leave")
        else:
            self._shut()
            self._events.append(LinkLeft(acknowledged=False))

    def handle_close(self) -> None:
        """Let go of the link without a word."""
        leaving = self._state == "leaving"
        if self._step("close"):
            self._shut()
            if leaving:
                self._events.append(LinkLeft(acknowledged=False))

    def take_unsaid(self, now: float) -> tuple[FromPeer, ...]:
        """Take out what the portal may not have heard, for another link to say: what waits, and what is unconfirmed."""
        self._hold_unconfirmed(now)
        return tuple(self._outbox.take_all(now))

    # From the socket.

    def handle_opened(self, now: float) -> None:
        """The websocket is open and the token was accepted."""
        if self._step("opened"):
            first, *self._unclaimed = in_frames(self._connections)
            complete = not self._unclaimed
            self._transmit(msgspec.structs.replace(self._join, connections=first, complete=complete))
            self._timer = (now + JOIN_LIMIT_S, "join")

    def handle_refused(self, status: int, retry_after_s: float | None, now: float) -> None:
        """The handshake was answered with an HTTP status other than 101."""
        if status == 401:
            self._deny("the portal does not accept the token", requires_sign_in=True)
        else:
            self._lose(f"the portal answered HTTP {status}", now, retry_after_s)

    def handle_closed(self, reason: str, now: float) -> None:
        """The websocket could not be opened, or has ended."""
        self._lose(reason, now)

    def handle_frame(self, frame: str | bytes, now: float) -> None:
        """A frame arrived."""
        if self._state not in ("joining", "joined", "leaving"):
            return
        self._heard_at = now
        if self._timer is not None and self._timer[1] == "question":
            self._timer = (now + HEARTBEAT_INTERVAL_S, "heartbeat")
        try:
            decoded = self._decoder.decode(frame)
        except MalformedFrame as problem:
            self.counters.malformed_frames += 1
            self._answer_error(error_about(problem))
        except UnknownMessage:
            self.counters.unknown_messages += 1
        else:
            self.counters.unknown_fields += decoded.unknown_fields
            self._handle_message(decoded.message, now)

    def handle_timeout(self, now: float) -> None:
        """`now` may have passed the moment that `poll_timeout` named."""
        if self._timer is None or now < self._timer[0]:
            return
        match self._timer[1]:
            case "reconnect":
                self._connect(now)
            case "heartbeat":
                self._beat(now)
            case "leave":
                self._left(now, acknowledged=False)
            case "farewell":
                self.handle_close()
            case "question":
                self._lose("the portal does not answer", now)
                self.handle_start(now)
            case why:
                self._lose(f"no answer to the {why} in time", now)

    # To the socket, the session and the clock.

    def poll_transmit(self) -> SocketCommand | None:
        """The next order to the socket."""
        return self._commands.popleft() if self._commands else None

    def poll_event(self) -> LinkEvent | None:
        """The next fact for the session."""
        return self._events.popleft() if self._events else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """When to call `handle_timeout`, and why."""
        return self._timer

    # Inside.

    def _step(self, trigger: str) -> bool:
        following = TRANSITIONS[self._state].get(trigger)
        if following is None:
            return False
        self._state, self._timer = following, None
        return True

    def _connect(self, now: float) -> None:
        if self._step("connect"):
            self.counters.tries += 1
            self._commands.append(OpenSocket())
            self._timer = (now + self._connect_limit_s, "connect")
            self._connect_limit_s = min(self._connect_limit_s * 2, CONNECT_LIMIT_S)
            self._nudge_after = now + NUDGE_INTERVAL_S

    def _handle_message(self, message: FromPortal, now: float) -> None:
        match message:
            case Disconnect():
                self._deny(message.reason, requires_sign_in=message.requires_sign_in)
            case HeartbeatReply():
                if message.ref == self._heartbeat_ref:
                    self._unanswered = 0
                    self._unconfirmed.clear()
            case Left():
                self._left(now, acknowledged=True)
            case Joined():
                self._handle_joined(message, now)
            case Error() if self._state == "joining":
                self._lose(f"the portal refused the join: {message.code}", now)
            case _ if self._state == "joining":
                self.counters.early_messages += 1
            case _:
                if isinstance(message, IceRestarted):
                    self._forget_wish(message.connection)
                self._events.append(LinkMessage(message))

    def _forget_wish(self, connection: str) -> None:
        """It is fulfilled: said again by another link, it would be a second one."""
        kept = [one for one in self._unconfirmed if not (isinstance(one, RestartIce) and one.connection == connection)]
        self._unconfirmed = deque(kept, maxlen=_UNCONFIRMED_KEPT)

    def _handle_joined(self, joined: Joined, now: float) -> None:
        if self._step("joined"):
            self.counters.joins += 1
            self._back_off.reset()
            self._unanswered = 0
            self._connect_limit_s = CONNECT_FIRST_LIMIT_S
            self._timer = (now + HEARTBEAT_INTERVAL_S, "heartbeat")
            for connections in self._unclaimed:
                self._transmit(ClaimConnections(connections=connections))
            self._unclaimed = []
            for message in self._outbox.take_all(now):
                self._say(message, now)
        self._events.append(LinkJoined(joined))

    def _beat(self, now: float) -> None:
        if self._unanswered >= MAX_UNANSWERED_HEARTBEATS:
            self._lose("the portal has stopped answering", now)
            return
        self._unanswered += 1
        self._ask_for_life()
        self._timer = (now + HEARTBEAT_INTERVAL_S, "heartbeat")

    def _ask_for_life(self) -> None:
        self._heartbeat_ref += 1
        self._transmit(Heartbeat(ref=self._heartbeat_ref))

    def _say(self, message: FromPeer, now: float) -> None:
        self._transmit(message)
        if isinstance(message, ConnectionEnded | IceCandidates | LastWill | RestartIce):
            self._unconfirmed.append(message)
        if now - self._heard_at >= QUIET_LINK_S and self._timer is not None and self._timer[1] != "question":
            self._ask_for_life()
            self._timer = (now + ANSWER_LIMIT_S, "question")

    def _lose(self, reason: str, now: float, retry_after_s: float | None = None) -> None:
        before = self._state
        if not self._step("lost"):
            return
        self._commands.append(CloseSocket())
        if self._state == "closed":
            if before == "leaving":
                self._events.append(LinkLeft(acknowledged=False))
            return
        self._hold_unconfirmed(now)
        retry_s = self._back_off.next_delay_s(self._rng)
        if retry_after_s is not None:
            retry_s = max(retry_s, min(retry_after_s, MAX_RETRY_AFTER_S))
            self._nudge_after = now + retry_s
        self._timer = (now + retry_s, "reconnect")
        self._events.append(LinkDown(reason, was_joined=before == "joined", retry_s=retry_s))

    def _hold_unconfirmed(self, now: float) -> None:
        for message in self._unconfirmed:
            self._outbox.put(message, now)
        self._unconfirmed.clear()

    def _deny(self, reason: str, *, requires_sign_in: bool) -> None:
        before = self._state
        if self._step("denied"):
            self._shut()
            if before == "leaving":
                self._events.append(LinkLeft(acknowledged=False))
            self._events.append(LinkDenied(reason, requires_sign_in))

    def _left(self, now: float, *, acknowledged: bool) -> None:
        if self._step("left"):
            self._timer = (now + FAREWELL_LIMIT_S, "farewell")
            self._events.append(LinkLeft(acknowledged))

    def _shut(self) -> None:
        self._timer = None
        self._commands.append(CloseSocket())

    def _transmit(self, message: FromPeer) -> None:
        self._commands.append(SendFrame(encode(message)))

    def _answer_error(self, error: Error) -> None:
        # Before the join nothing but `Join` is said, not even a complaint.
        if self._state == "joined":
            self._transmit(error)
