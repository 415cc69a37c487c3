"""The last will: what it says, how it is framed, when it is another one, and what its receiver makes of it."""

import msgspec
import pytest
from tests.actors.notes import Notes
from tests.actors.peer.pair import ConnectionPair

from exeunt.actors.endings import Cause, Initiator
from exeunt.actors.ice import Route
from exeunt.actors.peer.control_packet import Goodbye, decode_control, encode_control
from exeunt.actors.peer.events import SessionChanged
from exeunt.actors.peer.farewell import LAST_WILL
from exeunt.actors.peer.will import Will
from exeunt.actors.wireguard.testing import SIDES, Side, ipv4_packet
from exeunt.runtime.last_words import Told

PEER = ("192.0.2.9", 4500)
LINK = "c/control/portal"


@pytest.fixture
def pair() -> ConnectionPair:
    pair = ConnectionPair()
    pair.connect()
    return pair


def other(side: Side) -> Side:
    return "gateway" if side == "client" else "client"


def sealed(pair: ConnectionPair, side: Side) -> bytes:
    datagram = pair.connections[side].seal_last_will(pair.now)
    assert datagram is not None
    return datagram


def test_it_is_a_goodbye_that_asks_for_nothing() -> None:
    assert decode_control(LAST_WILL) == Goodbye(reason="worker_crashed", last_will=True)


@pytest.mark.parametrize("side", SIDES)
def test_its_receiver_knows_that_the_worker_crashed_and_not_when(pair: ConnectionPair, side: Side) -> None:
    pair.deliver(other(side), sealed(pair, side))
    ended = pair.ending(other(side))
    assert (ended.cause, ended.initiated_by) == (Cause.WORKER_CRASHED, Initiator.SUPERVISOR)
    assert (ended.detection_ms, ended.acknowledged) == (None, None)
    assert ended.evidence == {"told": "last will: worker_crashed"}


def test_it_is_heard_once_however_often_it_is_said(pair: ConnectionPair) -> None:
    will = sealed(pair, "client")
    for _ in range(8):
        pair.deliver("gateway", will)
    pair.advance(10)
    assert len(pair.endings("gateway")) == 1
    assert pair.gateway.state == "ended"


def test_nothing_is_answered_to_it(pair: ConnectionPair) -> None:
    will = sealed(pair, "client")
    before = len(pair.carried)
    pair.deliver("gateway", will)
    assert len(pair.carried) == before


def test_who_was_saying_goodbye_is_not_acknowledged_by_it(pair: ConnectionPair) -> None:
    will = sealed(pair, "gateway")
    pair.lost = lambda _side, _datagram: True
    pair.close("client")
    pair.deliver("client", will)
    ended = pair.ending("client")
    assert (ended.cause, ended.acknowledged) == (Cause.SIGNED_OUT, False)


def test_there_is_none_before_and_none_after(pair: ConnectionPair) -> None:
    assert ConnectionPair().client.seal_last_will(1000.0) is None
    pair.close("client")
    assert pair.client.seal_last_will(pair.now) is None


def test_new_keys_are_reported_and_have_another_one(pair: ConnectionPair) -> None:
    changes = {side: sum(isinstance(event, SessionChanged) for event in pair.events[side]) for side in SIDES}
    assert changes == {"client": 1, "gateway": 1}
    before = {side: sealed(pair, side) for side in SIDES}
    pair.advance(125)
    pair.send("client", ipv4_packet())  # the first packet after REKEY_AFTER_TIME
    pair.advance(1)
    for side in SIDES:
        assert sum(isinstance(event, SessionChanged) for event in pair.events[side]) == 2
        assert sealed(pair, side) != before[side]
    pair.deliver("gateway", sealed(pair, "client"))
    assert pair.ending("gateway").cause is Cause.WORKER_CRASHED


def test_the_mark_is_a_flag_that_older_receivers_do_not_read() -> None:
    plain = encode_control(Goodbye(reason="worker_crashed"))
    differing = [at for at, (one, another) in enumerate(zip(plain, LAST_WILL, strict=True)) if one != another]
    assert differing == [40 + 8 + 3]  # the low byte of what was reserved
    assert LAST_WILL[51] == 1


class Ways:
    """An agent with one way out."""

    def __init__(self, way: Route | None, descriptor: int | None) -> None:
        self._way, self._descriptor = way, descriptor

    def route(self) -> Route | None:
        return self._way

    def channel_descriptor(self, channel: str) -> int | None:
        assert self._way is not None
        assert channel == self._way.channel
        return self._descriptor


DIRECT = Route("udp4", PEER, "192.0.2.1", b"", "direct")
RELAYED = Route("relay-0.3", None, None, b"\x40\x01", "relay")


def test_it_is_deposited_for_its_path() -> None:
    notes = Notes()
    will = Will(notes, "c1", LINK)
    will.renew(b"sealed", Ways(DIRECT, 7))
    assert notes.words == {"c1": (7, b"sealed", {"destination": PEER, "source": "192.0.2.1", "told": None})}
    will.renew(b"again", Ways(RELAYED, 8))
    assert notes.words == {"c1": (8, b"\x40\x01\0\x05again", {"destination": None, "source": None, "told": None})}
    will.withdraw()
    will.withdraw()
    assert notes.words == {}


@pytest.mark.parametrize("padded", [False, True])
def test_over_a_relay_it_is_channel_data(pair: ConnectionPair, padded: bool) -> None:
    notes = Notes()
    datagram = sealed(pair, "client")
    Will(notes, "c1", LINK).renew(datagram, Ways(msgspec.structs.replace(RELAYED, padded=padded), 7))
    _, payload, where = notes.words["c1"]
    assert where["told"] == (Told(LINK, datagram) if padded else None)  # a stream may be in the middle of a message
    assert payload == b"\x40\x01" + len(datagram).to_bytes(2, "big") + datagram
    assert len(payload) % 4 == 0  # RFC 8656, section 12.5: what a stream needs


@pytest.mark.parametrize(("route", "descriptor"), [(None, None), (RELAYED, None)], ids=["TLS", "closed"])
def test_where_nobody_else_can_write_the_link_to_the_portal_is_told(
    route: Route | None, descriptor: int | None
) -> None:
    notes = Notes()
    Will(notes, "c1", LINK).renew(b"sealed", Ways(route, descriptor))
    assert notes.words == {"c1": (None, b"", {"told": Told(LINK, b"sealed")})}


def test_without_a_session_nothing_outdated_stays() -> None:
    notes = Notes()
    will = Will(notes, "c1", LINK)
    will.renew(b"sealed", Ways(DIRECT, 7))
    will.renew(None, Ways(DIRECT, 7))
    assert notes.words == {}


@pytest.mark.parametrize("side", SIDES)
def test_it_is_as_good_when_somebody_else_brings_it(pair: ConnectionPair, side: Side) -> None:
    pair.bring_will(other(side), sealed(pair, side))
    ended = pair.ending(other(side))
    assert (ended.cause, ended.initiated_by) == (Cause.WORKER_CRASHED, Initiator.SUPERVISOR)
    assert (ended.detection_ms, ended.acknowledged) == (None, None)


def test_who_brings_it_can_end_nothing_without_the_keys(pair: ConnectionPair) -> None:
    """The portal is trusted with many things, but connections are not its to end."""
    will = sealed(pair, "client")
    forged = [bytes(will[:-1]) + bytes([will[-1] ^ 1]), b"", will[:31], bytes(64), b"\x04" + bytes(63), b"\x01" * 148]
    stranger = ConnectionPair(seed=2)
    stranger.connect()
    for datagram in (*forged, sealed(pair, "gateway"), sealed(stranger, "client")):
        pair.bring_will("gateway", datagram)
    assert pair.endings("gateway") == []
    assert pair.gateway.state == "established"
    pair.bring_will("gateway", will)
    assert pair.ending("gateway").cause is Cause.WORKER_CRASHED


def test_only_a_last_will_can_be_brought(pair: ConnectionPair) -> None:
    """Another packet of the peer, taken from the path, is nothing that somebody else has to bring."""
    pair.lost = lambda _side, _datagram: True
    pair.close("client")
    goodbye = pair.carried[-1][1]
    pair.bring_will("gateway", goodbye)
    assert pair.endings("gateway") == []


def test_it_is_brought_twice_and_heard_once(pair: ConnectionPair) -> None:
    will = sealed(pair, "client")
    pair.deliver("gateway", will)
    pair.bring_will("gateway", will)
    pair.advance(10)
    pair.bring_will("gateway", will)
    assert len(pair.endings("gateway")) == 1
