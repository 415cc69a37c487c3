"""What ends are told of each other's endings, and what the portal keeps and shares."""

from typing import Any

import msgspec
import pytest

from exeunt.actors.portal.messages import (
    AskEvidence,
    ConnectionEnded,
    Error,
    Evidence,
    LastWill,
    Leaving,
    Left,
    LiveConnection,
    PeerGone,
)
from exeunt.actors.portal.reports import MAX_OBSERVATIONS, EndingReport, Observation
from exeunt.clients.portal import endings
from exeunt.clients.portal.endings import ConnectionRecord, agreement, shared
from exeunt.clients.portal.events import ClosedHow

from .conftest import Peer, Rig

REPORT = EndingReport(
    cause="network_lost",
    initiated_by="network",
    started_at="2026-01-01T00:00:00Z",
    ended_at="2026-01-01T00:01:00.5Z",
    evidence={"silence_ms": "15000", "endpoint": "192.0.2.1:51820"},
)


def report(**changes: Any) -> EndingReport:
    return msgspec.structs.replace(REPORT, **changes)


class Pair:
    """A client and a gateway that are connected."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.client, self.gateway = rig.peer(rig.client_made), rig.peer(rig.gateway_made)
        self.gateway.join()
        self.client.join()
        rig.now += 1
        self.id = rig.connect(self.client, self.gateway).connection
        self.client.take_all()
        self.gateway.take_all()

    def claim_of_client(self) -> LiveConnection:
        return LiveConnection(connection=self.id, peer_id=self.gateway.id, resource_ids=(self.rig.web.id,))

    def claim_of_gateway(self) -> LiveConnection:
        return LiveConnection(connection=self.id, peer_id=self.client.id, resource_ids=(self.rig.web.id,))

    def evidence(self, asker: Peer) -> Evidence:
        asker.say(AskEvidence(ref=9, connection=self.id))
        return asker.take(Evidence)


@pytest.fixture
def pair(rig: Rig) -> Pair:
    return Pair(rig)


# --- hints ---


@pytest.mark.parametrize(
    ("how", "kind"), [("reset", "reset"), ("closed", "silent"), ("not_reading", "silent"), ("silent", "silent")]
)
def test_a_hint_says_how_the_portal_knows(pair: Pair, how: ClosedHow, kind: str) -> None:
    pair.client.lose(how)
    hint = pair.gateway.take(PeerGone)
    assert (hint.connection, hint.kind, hint.cause) == (pair.id, kind, "")
    assert pair.rig.facts[-1].detail == how


def test_a_last_will_is_handed_to_the_other_end_as_it_is(pair: Pair) -> None:
    will = LastWill(connection=pair.id, datagram=b"\4" + bytes(range(100)))
    pair.client.say(will)
    assert pair.gateway.take_all() == [will]
    pair.client.say(will)
    assert pair.gateway.take_all() == [], "once"
    back = LastWill(connection=pair.id, datagram=bytes(64))
    pair.gateway.say(back)
    assert pair.client.take_all() == [back]
    assert pair.rig.machine.counters.last_wills == 2
    kinds = [one.kind for one in pair.evidence(pair.gateway).observations]
    assert kinds.count("last_will") == 2


def test_a_last_will_may_come_after_the_end_was_reported_and_from_who_leaves(pair: Pair) -> None:
    pair.client.say(Leaving(reason="shutting_down"))
    pair.client.say(ConnectionEnded(connection=pair.id, cause="worker_crashed"))
    pair.gateway.take_all()
    will = LastWill(connection=pair.id, datagram=bytes(64))
    pair.client.say(will)
    assert pair.gateway.take_all() == [will]


def test_only_an_end_can_have_a_last_will(pair: Pair) -> None:
    stranger = pair.rig.peer(pair.rig.add_client("stranger"))
    stranger.join()
    for sender, connection in ((stranger, pair.id), (pair.client, "no-such-connection")):
        sender.say(LastWill(connection=connection, datagram=bytes(64)))
        assert sender.take(Error).code == "unknown_connection"
    pair.client.raw('{"type": "last_will", "connection": "c", "datagram": "AAAA"}')
    assert pair.client.take(Error).code == "malformed_frame"
    assert pair.gateway.take_all() == []


def test_a_last_will_for_who_is_away_is_not_kept(pair: Pair) -> None:
    """The report that comes with it is: who claims the connection is told how it ended."""
    pair.gateway.lose("reset")
    pair.client.say(LastWill(connection=pair.id, datagram=bytes(64)))
    pair.client.say(ConnectionEnded(connection=pair.id, cause="worker_crashed"))
    again = pair.rig.peer(pair.rig.gateway_made)
    again.join(pair.claim_of_gateway())
    told = again.take_all()
    assert [(one.kind, one.cause) for one in told if isinstance(one, PeerGone)] == [("ended", "worker_crashed")]
    assert not any(isinstance(one, LastWill) for one in told)


def test_missing_heartbeats_are_silence(pair: Pair) -> None:
    pair.rig.now += 30
    pair.client.say(AskEvidence(ref=1, connection="c"))
    pair.rig.run_until(pair.rig.now + 20)
    assert pair.client.take(PeerGone).kind == "silent"
    assert pair.rig.facts[-1].detail == "silent"


def test_a_portal_that_stops_says_nothing_of_its_peers(pair: Pair) -> None:
    pair.rig.machine.handle_stopping()
    pair.client.lose("closed")
    assert pair.gateway.take_all() == []
    assert [fact.kind for fact in pair.rig.facts] == ["signed_in", "signed_in", "authorized"]


def test_a_leave_is_told_when_its_link_is_closed(pair: Pair) -> None:
    pair.client.say(Leaving(reason="signed_out"))
    pair.client.take(Left)
    assert pair.gateway.take_all() == []
    pair.client.lose("closed")
    hint = pair.gateway.take(PeerGone)
    assert (hint.kind, hint.cause) == ("left", "signed_out")


def test_who_leaves_reports_what_ended(pair: Pair) -> None:
    pair.client.say(Leaving(reason="signed_out"))
    pair.client.say(ConnectionEnded(connection=pair.id, cause="signed_out", report=report(cause="signed_out")))
    hint = pair.gateway.take(PeerGone)
    assert (hint.kind, hint.cause) == ("ended", "signed_out")
    pair.client.lose("closed")
    assert pair.gateway.take_all() == [], "told once"
    assert pair.evidence(pair.gateway).reports["client"].cause == "signed_out"


def test_who_leaves_and_comes_back_at_once_has_left_all_the_same(pair: Pair) -> None:
    pair.client.say(Leaving(reason="upgrade"))
    pair.rig.peer(pair.rig.client_made).join()
    assert [(hint.kind, hint.cause) for hint in pair.gateway.take_all() if isinstance(hint, PeerGone)] == [
        ("left", "upgrade")
    ]


@pytest.mark.parametrize("first", ["new link", "loss"])
def test_who_comes_back_quickly_and_claims_its_connections_has_not_died(pair: Pair, first: str) -> None:
    if first == "loss":
        pair.client.lose("reset")
        assert pair.gateway.take(PeerGone).kind == "reset", "the portal cannot know better yet"
    pair.rig.peer(pair.rig.client_made).join(pair.claim_of_client())
    pair.client.lose("reset")
    pair.rig.run_until(pair.rig.now + 30)
    assert pair.gateway.take_all() == []


def test_each_end_is_told_of_the_others_report_and_not_of_its_own(pair: Pair) -> None:
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle"))
    assert pair.gateway.take(PeerGone).kind == "ended"
    pair.gateway.say(ConnectionEnded(connection=pair.id, cause="idle"))
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle"))
    assert pair.client.take_all() == []
    assert pair.gateway.take_all() == []
    assert [(fact.kind, fact.peer_id) for fact in pair.rig.facts[-2:]] == [
        ("ended", pair.client.id),
        ("ended", pair.gateway.id),
    ]


def test_an_end_that_was_away_is_told_when_it_claims_what_is_over(pair: Pair) -> None:
    pair.gateway.lose("reset")
    pair.client.say(ConnectionEnded(connection=pair.id, cause="access_expired"))
    again = pair.rig.peer(pair.rig.gateway_made)
    again.join(pair.claim_of_gateway())
    hint = again.take(PeerGone)
    assert (hint.kind, hint.cause) == ("ended", "access_expired")
    assert again.take_all() == []


def test_an_end_whose_link_broke_before_it_had_read_how_is_told_again(pair: Pair) -> None:
    pair.gateway.say(ConnectionEnded(connection=pair.id, cause="network_lost"))
    assert pair.client.take(PeerGone).cause == "network_lost"
    pair.client.lose("silent")  # it was asleep, and gave up its link when it woke
    again = pair.rig.peer(pair.rig.client_made)
    again.join(pair.claim_of_client())
    hint = again.take(PeerGone)
    assert (hint.kind, hint.cause) == ("ended", "network_lost")


def test_a_report_that_comes_after_the_join_still_reaches_the_other_end(pair: Pair) -> None:
    pair.client.lose("reset")
    pair.gateway.take_all()
    again = pair.rig.peer(pair.rig.client_made)
    again.join()
    assert pair.gateway.take(PeerGone).kind == "reset"
    again.say(ConnectionEnded(connection=pair.id, cause="network_lost", report=REPORT))
    hint = pair.gateway.take(PeerGone)
    assert (hint.kind, hint.cause) == ("ended", "network_lost")
    assert pair.evidence(pair.gateway).reports["client"].cause == "network_lost"


# --- reports and evidence ---


def test_both_ends_learn_both_reports_and_what_the_portal_saw(pair: Pair) -> None:
    pair.rig.now += 1
    pair.client.lose("reset")
    pair.rig.now += 1
    again = pair.rig.peer(pair.rig.client_made)
    again.join(pair.claim_of_client())
    again.say(ConnectionEnded(connection=pair.id, cause="idle", report=report(cause="idle", initiated_by="us")))
    pair.rig.now += 1
    pair.gateway.say(ConnectionEnded(connection=pair.id, cause="idle", report=report(cause="idle")))
    told = pair.evidence(pair.gateway)
    assert (told.ref, told.connection) == (9, pair.id)
    assert {side: one.cause for side, one in told.reports.items()} == {"client": "idle", "gateway": "idle"}
    assert [(one.at[11:19], one.side, one.kind, one.detail) for one in told.observations] == [
        ("08:00:01", "client", "authorized", ""),
        ("08:00:02", "client", "link_closed", "reset"),
        ("08:00:03", "client", "link_opened", "0.1.0"),
        ("08:00:03", "client", "ended", "idle"),
        ("08:00:04", "gateway", "ended", "idle"),
    ]
    assert pair.evidence(again).observations == told.observations


def test_addresses_are_told_to_nobody_but_their_owner(pair: Pair) -> None:
    pair.client.say(ConnectionEnded(connection=pair.id, cause="network_lost", report=REPORT))
    assert pair.evidence(pair.client).reports["client"].evidence["endpoint"] == "192.0.2.1:51820"
    assert pair.evidence(pair.gateway).reports["client"].evidence == {
        "silence_ms": "15000",
        "endpoint": "(address)",
    }


def test_strangers_are_told_nothing_and_cannot_report(pair: Pair) -> None:
    stranger = pair.rig.peer(pair.rig.add_client("stranger"))
    stranger.join()
    stranger.say(ConnectionEnded(connection=pair.id, cause="access_revoked", report=REPORT))
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle", report=REPORT))
    nothing = pair.evidence(stranger)
    assert (nothing.reports, nothing.observations) == ({}, ())
    stranger.say(AskEvidence(ref=9, connection="never-was"))
    never = stranger.take(Evidence)
    assert (never.reports, never.observations) == (nothing.reports, nothing.observations)
    record = pair.rig.store.endings.get(pair.id)
    assert record is not None
    assert (record.client_cause, record.gateway_cause) == ("idle", None)


def test_evidence_is_for_those_who_joined(rig: Rig) -> None:
    client = rig.peer(rig.client_made)
    client.open()
    client.say(AskEvidence(ref=1, connection="c"))
    assert client.take(Error).code == "not_joined"


def test_nobody_takes_over_the_record_of_a_connection_by_claiming_it(pair: Pair) -> None:
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle", report=REPORT))
    pair.rig.restart()
    thief = pair.rig.peer(pair.rig.add_gateway("thief"))
    thief.join(pair.claim_of_gateway())
    told = pair.evidence(thief)
    assert (told.reports, told.observations) == ({}, ())


def test_reports_outlive_the_portal_and_the_first_one_stands(pair: Pair) -> None:
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle", report=REPORT))
    pair.rig.restart()
    gateway = pair.rig.peer(pair.rig.gateway_made)
    gateway.join()
    gateway.say(ConnectionEnded(connection=pair.id, cause="idle", report=report(rx_bytes=7)))
    gateway.say(ConnectionEnded(connection=pair.id, cause="replaced", report=report(rx_bytes=8)))
    told = pair.evidence(gateway)
    assert told.reports["gateway"].rx_bytes == 7
    assert set(told.reports) == {"client", "gateway"}


def test_an_end_of_an_older_version_reports_only_its_cause(pair: Pair) -> None:
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle"))
    told = pair.evidence(pair.gateway)
    assert told.reports == {}
    assert told.observations[-1] == Observation(at=told.observations[-1].at, kind="ended", side="client", detail="idle")


def test_a_link_that_flaps_does_not_make_the_evidence_longer_than_allowed(pair: Pair) -> None:
    for _ in range(MAX_OBSERVATIONS):
        pair.client.lose("reset")
        pair.client = pair.rig.peer(pair.rig.client_made)
        pair.client.join(pair.claim_of_client())
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle"))
    observations = pair.evidence(pair.client).observations
    assert len(observations) == MAX_OBSERVATIONS
    assert observations[-1].kind == "ended"


def test_what_happens_long_after_the_end_does_not_explain_it(pair: Pair) -> None:
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle"))
    before = pair.evidence(pair.client).observations
    pair.rig.now += endings.AFTERMATH_S + 1
    pair.gateway.lose("reset")
    assert pair.evidence(pair.client).observations == before


def test_old_connections_are_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "KEPT_CONNECTIONS", 3)
    for number in range(5):
        rig.store.endings.add(f"c{number}", "client", "gateway", 1000.0 + number)
    assert [rig.store.endings.get(f"c{number}") is not None for number in range(5)] == [False, False, True, True, True]
    rig.store.endings.add("later", "client", "gateway", 1004.0 + endings.KEPT_S)
    assert rig.store.endings.get("c3") is None
    assert rig.store.endings.get("c4") is not None


def test_a_report_that_this_version_cannot_read_is_left_out(pair: Pair) -> None:
    pair.client.say(ConnectionEnded(connection=pair.id, cause="idle", report=REPORT))
    pair.rig.admin._database.execute("UPDATE connection SET client_report = '{\"cause\":7}'")  # pyright: ignore[reportPrivateUsage]
    assert pair.evidence(pair.client).reports == {}


# --- what may be shared, and whether two ends agree ---


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("192.0.2.1", "(address)"),
        ("192.0.2.1:51820", "(address)"),
        ("[2001:db8::1]:51820", "[(address)]:51820"),
        ("2001:db8::1", "(address)"),
        ("fe80::1%eth0", "(address)%eth0"),
        ("ICMP refused from 10.0.0.7.", "ICMP refused from (address)"),
        ("::ffff:192.0.2.1", "(address)"),
        ("a 192.0.2.1 b 2001:db8::2 c", "a (address) b (address) c"),
        ("candidate:1 1 udp 2130706431 192.0.2.7 4321 typ", "candidate:1 1 udp 2130706431 (address) 4321 typ"),
        ("15000.5", "15000.5"),
        ("12:30:05", "12:30:05"),
        ("0.1.0", "0.1.0"),
        ("host→relay", "host→relay"),
        ("added: dead beef", "added: dead beef"),
    ],
)
def test_addresses_are_found_in_any_text(text: str, told: str) -> None:
    assert shared(report(evidence={"k": text})).evidence["k"] == told


def record(client: tuple[str, str] | None, gateway: tuple[str, str] | None) -> ConnectionRecord:
    made = [None if one is None else report(cause=one[0], initiated_by=one[1]) for one in (client, gateway)]
    return ConnectionRecord(
        "c",
        "client-1",
        "gateway-1",
        0.0,
        1.0,
        None if client is None else client[0],
        None if gateway is None else gateway[0],
        *made,
    )


@pytest.mark.parametrize(
    ("client", "gateway", "word"),
    [
        (("signed_out", "us"), ("signed_out", "peer"), "agree"),
        (("signed_out", "us"), ("signed_out", "us"), "agree"),
        (("network_lost", "network"), ("network_lost", "network"), "agree"),
        (("worker_crashed", "supervisor"), ("worker_crashed", "peer"), "agree"),
        (("signed_out", "peer"), ("signed_out", "peer"), "differ"),
        (("signed_out", "us"), ("network_lost", "network"), "differ"),
        (("signed_out", "us"), None, "one_side_only"),
        (None, ("process_died", "peer"), "one_side_only"),
    ],
)
def test_whether_two_ends_agree(client: tuple[str, str] | None, gateway: tuple[str, str] | None, word: str) -> None:
    assert agreement(record(client, gateway)) == word
