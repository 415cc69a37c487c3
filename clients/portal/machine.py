"""The portal, decided without a socket, a database or a clock.

It knows a `Directory` (who may do what), the sessions (who is here), the connections (who talks to whom)
and the questions that gateways have not answered yet. Sessions are numbers that the caller makes up, one
for each websocket; a frame goes in with its session's number, and what comes out names the session that it
is for.

A change of the directory is an input like any other: whatever is no longer allowed is taken back at once.
"""

import random

from exeunt.actors.portal.codec import Decoder, MalformedFrame, UnknownMessage, error_about
from exeunt.actors.portal.messages import (
    MAX_PEER_FRAME_BYTES,
    AskEvidence,
    Authorized,
    ClaimConnections,
    ConnectionEnded,
    Disconnect,
    Error,
    FromPeer,
    Heartbeat,
    HeartbeatReply,
    IceCandidates,
    Join,
    Joined,
    LastWill,
    Leaving,
    Left,
    Relay,
    RelaysChanged,
    RequestAuthorization,
    ResourcesChanged,
    RestartIce,
    StaticPeersChanged,
)
from exeunt.actors.portal.timing import PORTAL_JOIN_LIMIT_S, PORTAL_SILENCE_LIMIT_S

from .authorizations import Authorizations
from .counters import PortalCounters
from .directory import Directory, Identity
from .events import ClosedHow, Fact, ListenerKnown, Output
from .outputs import Outputs
from .presence import ANSWERS_OF_CONNECTION, Presence, Session
from .relays import REFRESH_AFTER_S, relays_for
from .signalling import Signalling

SWEEP_INTERVAL_S = 1.0
"""How late a silent session may be noticed. A timer for each session would be re-armed by every frame."""

# RFC 6455 section 7.4.1.
_GOING_AWAY, _POLICY_VIOLATION = 1001, 1008


class PortalMachine:
    """The portal's decisions. After each `handle_*`, drain `poll_transmit` and `poll_event`, then set the timer.

    `unix_offset_s` is what added to `now` gives Unix time. Authorizations last `authorization_lifetime_s`; None means
    until they are revoked.
    """

    def __init__(
        self,
        directory: Directory,
        *,
        rng: random.Random,
        unix_offset_s: float,
        authorization_lifetime_s: float | None = None,
    ) -> None:
        self._directory = directory
        self._unix_offset_s = unix_offset_s
        self._presence = Presence()
        self._outputs = Outputs(self._presence)
        self.counters = PortalCounters()
        self._signalling = Signalling(directory, self._presence, self._outputs, self.counters)
        self._authorizations = Authorizations(
            self._signalling,
            self._presence,
            self._outputs,
            rng=rng,
            unix_offset_s=unix_offset_s,
            lifetime_s=authorization_lifetime_s,
        )
        self._decoder: Decoder[FromPeer] = Decoder(FromPeer, max_bytes=MAX_PEER_FRAME_BYTES)
        self._next_sweep = 0.0
        self._stopping = False

    # From the websockets.

    def handle_opened(self, session_id: int, identity: Identity, now: float) -> None:
        """A websocket was opened with a valid token."""
        session = Session(session_id, identity, opened_at=now, last_seen=now)
        if len(self._presence) == 0:
            self._next_sweep = now + SWEEP_INTERVAL_S
        self._presence.open(session)
        if identity.token_id not in self._directory.tokens:
            self._revoke_session(session, now)

    def handle_frame(self, session_id: int, frame: str | bytes, now: float) -> None:
        """A frame arrived."""
        session = self._presence.get(session_id)
        if session is None:
            return
        session.last_seen = now
        if not session.spend(now):
            self.counters.rate_limited += 1
            if session.warn_once():
                self._outputs.send(session.id, Error(code="rate_limited"))
            return
        try:
            decoded = self._decoder.decode(frame)
        except MalformedFrame as problem:
            self.counters.malformed_frames += 1
            self._outputs.send(session.id, error_about(problem))
        except UnknownMessage as problem:
            self.counters.unknown_messages += 1
            self._outputs.send(session.id, error_about(problem))
        else:
            self.counters.unknown_fields += decoded.unknown_fields
            self._handle_message(session, decoded.message, now)

    def handle_closed(self, session_id: int, how: ClosedHow, now: float) -> None:
        """A websocket has ended. Not an error if the machine closed it itself."""
        session = self._presence.get(session_id)
        if session is not None:
            self._remove(session, "portal_stopping" if self._stopping else how, now)

    def handle_stopping(self) -> None:
        """The portal stops: sessions that end from now on say nothing of their peers."""
        self._stopping = True

    # From the administrators and the clock.

    def handle_directory(self, directory: Directory, now: float) -> None:
        """Something was changed: take back what is not allowed any more, and tell everybody what is new for
        them.
        """
        before, self._directory, self._signalling.directory = self._directory, directory, directory
        for session in self._presence:
            if session.identity.token_id not in directory.tokens:
                self._revoke_session(session, now)
        for connection in self._signalling.enforce():
            self._authorizations.ask_again(connection, now)
        self._authorizations.enforce()
        for session in self._presence:
            if session.join is None:
                continue
            resources = directory.resources_of(session.peer_id)
            if resources != before.resources_of(session.peer_id):
                self._outputs.send(session.id, ResourcesChanged(resources=resources))
            static_peers = directory.static_peers_of(session.peer_id)
            if static_peers != before.static_peers_of(session.peer_id):
                self._outputs.send(session.id, StaticPeersChanged(static_peers=static_peers))
            if directory.relays != before.relays:
                self._send_relays(session, now)

    def handle_timeout(self, now: float) -> None:
        """`now` may have passed the moment that `poll_timeout` named."""
        self._authorizations.expire(now)
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_INTERVAL_S
        self._signalling.sweep(now)
        for session in self._presence:
            self._sweep(session, now)

    # To the websockets, the record and the clock.

    def poll_transmit(self) -> Output | None:
        """The next message to send, or session to close."""
        transmits = self._outputs.transmits
        return transmits.popleft() if transmits else None

    def poll_event(self) -> Fact | None:
        """The next fact for the record."""
        facts = self._outputs.facts
        return facts.popleft() if facts else None

    def poll_timeout(self) -> tuple[float, str] | None:
        """When to call `handle_timeout`, and why."""
        sweep = (self._next_sweep, "sweep") if len(self._presence) else None
        deadline = self._authorizations.next_deadline()
        pending = None if deadline is None else (deadline, "authorization")
        return min((timeout for timeout in (sweep, pending) if timeout is not None), default=None)

    # Inside.

    def _handle_message(self, session: Session, message: FromPeer, now: float) -> None:
        match message:
            case Heartbeat():
                self._outputs.send(session.id, HeartbeatReply(ref=message.ref))
            case Error():
                self.counters.errors_received += 1
            case Join() if session.join is None:
                self._join(session, message, now)
            case Leaving() if not session.leaving:
                self._leave(session, message.reason, now)
            case _ if session.join is None:
                self._refuse(session, "not_joined")
            case ConnectionEnded():
                # Also from who leaves: its connections end after the portal knows of it.
                connection = self._signalling.end(session, message)
                if connection is not None:
                    self._authorizations.ask_again(connection, now)
            case LastWill():
                self._signalling.pass_on(session, message)
            case _ if session.leaving:
                self._refuse(session, "not_joined")
            case _:
                self._handle_wish(session, message, now)

    def _handle_wish(self, session: Session, message: FromPeer, now: float) -> None:
        match message:
            case RequestAuthorization() if session.kind == "client":
                excluded = frozenset(message.excluded_gateway_ids)
                self._authorizations.request(session, message.resource_id, excluded, now)
            case Authorized() if session.kind == "gateway":
                self._authorizations.confirm(session, message.ref)
            case ClaimConnections():
                self._signalling.claim(session, message.connections)
            case IceCandidates():
                self._signalling.relay(session, message)
            case RestartIce():
                self._signalling.restart(session, message, now, now + self._unix_offset_s)
            case AskEvidence():
                self._outputs.tell_evidence(session.id, message.ref, message.connection, session.peer_id)
            case _:
                self._refuse(session, "not_allowed")

    def _refuse(self, session: Session, code: str) -> None:
        self.counters.refused_messages += 1
        self._outputs.send(session.id, Error(code=code))

    def _join(self, session: Session, join: Join, now: float) -> None:
        peer = self._directory.peers[session.peer_id]
        replaced = self._presence.join(session, join)
        if replaced is not None:
            self._replace(replaced, now)
        site = self._directory.sites.get(peer.site_id)
        self._outputs.send(
            session.id,
            Joined(
                peer_id=peer.id,
                name=peer.name,
                site="" if site is None else site.name,
                address_ipv4=peer.address_ipv4,
                address_ipv6=peer.address_ipv6,
                resources=self._directory.resources_of(peer.id),
                relays=self._relays(session, now),
                static_peers=self._directory.static_peers_of(peer.id),
            ),
        )
        if peer.kind == "gateway":
            self._outputs.note(ListenerKnown(peer.id, join.listener))
        self._outputs.tell("signed_in", peer.kind, peer.id, join.version)
        for connection in self._signalling.joined(session):
            self._authorizations.ask_again(connection, now)

    def _replace(self, session: Session, now: float) -> None:
        """The peer has come back on another session. Questions to the old one were lost with it."""
        self._presence.remove(session)
        self._outputs.send(session.id, Disconnect(reason="replaced"))
        self._outputs.close(session.id, _GOING_AWAY, "replaced")
        self._outputs.tell("replaced", session.kind, session.peer_id)
        if session.leaving:
            self._signalling.gone(session, "closed")
        self._withdraw(session, now)

    def _withdraw(self, session: Session, now: float) -> None:
        """Nothing more is to be expected from the session, neither answers nor interest in them."""
        if session.kind == "client":
            self._authorizations.client_gone(session)
        else:
            self._authorizations.pass_over(session.peer_id, now)

    def _leave(self, session: Session, reason: str, now: float) -> None:
        session.leaving, session.leaving_reason = True, reason
        self._withdraw(session, now)
        self._outputs.tell("left", session.kind, session.peer_id, reason)
        self._outputs.send(session.id, Left())

    def _remove(self, session: Session, how: ClosedHow, now: float) -> None:
        if not self._presence.remove(session):
            return
        self._signalling.gone(session, how)
        self._withdraw(session, now)
        if not session.leaving and how != "portal_stopping":
            self._outputs.tell("lost", session.kind, session.peer_id, how)

    def _revoke_session(self, session: Session, now: float) -> None:
        self._outputs.send(session.id, Disconnect(reason="revoked", requires_sign_in=True))
        self._outputs.close(session.id, _POLICY_VIOLATION, "revoked")
        self._outputs.tell("revoked", session.kind, session.peer_id, session.identity.token_id)
        if not self._presence.remove(session):
            return
        over = self._signalling.revoke_peer(session.peer_id)
        self._withdraw(session, now)
        for connection in over:
            self._authorizations.ask_again(connection, now)

    def _sweep(self, session: Session, now: float) -> None:
        if now - session.last_seen > PORTAL_SILENCE_LIMIT_S:
            self._outputs.close(session.id, _GOING_AWAY, "silent")
            self._remove(session, "silent", now)
        elif session.join is None and now - session.opened_at > PORTAL_JOIN_LIMIT_S:
            self._outputs.close(session.id, _POLICY_VIOLATION, "no join")
            self._remove(session, "not_joined", now)
        elif session.join is not None and now >= session.relays_fresh_until and self._directory.relays:
            self._send_relays(session, now)

    def _send_relays(self, session: Session, now: float) -> None:
        session.earn(ANSWERS_OF_CONNECTION * self._signalling.connections.count_of(session.peer_id))
        self._outputs.send(session.id, RelaysChanged(relays=self._relays(session, now)))

    def _relays(self, session: Session, now: float) -> tuple[Relay, ...]:
        session.relays_fresh_until = now + REFRESH_AFTER_S
        now_unix, is_gateway = now + self._unix_offset_s, session.kind == "gateway"
        return relays_for(session.peer_id, self._directory.relays, now_unix, is_gateway=is_gateway)
