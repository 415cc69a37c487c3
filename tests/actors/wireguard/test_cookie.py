"""Under load: cookie replies, second MACs, limits per source."""

import pytest

from exeunt.actors.wireguard import (
    Admitted,
    CookieChecker,
    DropReason,
    MessageType,
    Refused,
    classify,
    pack_source,
)
from exeunt.actors.wireguard.source_limit import SourceLimit
from exeunt.actors.wireguard.testing import TunnelPair, ipv4_packet, public_key

GATEWAY_PUBLIC_KEY = public_key(b"\x22" * 32)
SOURCE = pack_source("192.0.2.1", 51820)


def loaded_pair() -> TunnelPair:
    """A pair whose gateway is under load from the first handshake on."""
    return TunnelPair(gateway_gate=CookieChecker(GATEWAY_PUBLIC_KEY, handshakes_per_second=0))


def initiation_of(pair: TunnelPair) -> bytes:
    pair.client.connect(pair.now)
    datagram = pair.client.poll_transmit()
    assert datagram is not None
    return datagram


def test_under_load_the_client_proves_its_address_and_connects_on_the_repetition() -> None:
    pair = loaded_pair()
    pair.send("client", ipv4_packet())
    first, reply = pair.carried
    assert first[1][-16:] == bytes(16)
    assert classify(reply[1]) is MessageType.COOKIE_REPLY
    assert pair.gateway.last_received_at is None
    assert len(pair.carried) == 2  # the cookie is used by the repetition, not at once
    pair.advance(6)
    second = pair.carried[2]
    assert classify(second[1]) is MessageType.INITIATION
    assert second[1][-16:] != bytes(16)
    assert pair.received["gateway"] == [ipv4_packet()]
    assert pair.gateway.drops[DropReason.UNDER_LOAD] == 1


def test_a_client_under_load_asks_the_responder_for_proof_too() -> None:
    gate = CookieChecker(public_key(b"\x11" * 32), handshakes_per_second=0)
    pair = TunnelPair(client_gate=gate)
    pair.connect()
    assert [classify(datagram) for _, datagram in pair.carried] == [
        MessageType.INITIATION,
        MessageType.RESPONSE,
        MessageType.COOKIE_REPLY,
    ]
    pair.advance(6)
    assert pair.client.can_send(pair.now)
    assert pair.gateway.can_send(pair.now)


def test_a_cookie_is_good_for_one_address_only() -> None:
    pair = loaded_pair()
    gate = CookieChecker(GATEWAY_PUBLIC_KEY, handshakes_per_second=0)
    verdict = gate.admit(initiation_of(pair), SOURCE, pair.now)
    assert isinstance(verdict, Refused)
    assert verdict.cookie_reply is not None
    pair.client.handle_datagram(verdict.cookie_reply, pair.now)
    pair.now += 6
    pair.client.handle_timeout(pair.now)
    second = pair.client.poll_transmit()
    assert second is not None
    assert gate.admit(second, SOURCE, pair.now) == Admitted()
    elsewhere = gate.admit(second, pack_source("192.0.2.1", 51821), pair.now)
    assert isinstance(elsewhere, Refused)
    assert elsewhere.reason is DropReason.UNDER_LOAD


def test_the_secret_changes_after_two_minutes() -> None:
    pair = loaded_pair()
    gate = CookieChecker(GATEWAY_PUBLIC_KEY, handshakes_per_second=0)
    verdict = gate.admit(initiation_of(pair), SOURCE, pair.now)
    assert isinstance(verdict, Refused)
    assert verdict.cookie_reply is not None
    pair.client.handle_datagram(verdict.cookie_reply, pair.now)
    pair.client.handle_timeout(pair.now + 6)
    second = pair.client.poll_transmit()
    assert second is not None
    assert gate.admit(second, SOURCE, pair.now + 119) == Admitted()
    assert isinstance(gate.admit(second, SOURCE, pair.now + 121), Refused)


def test_the_client_forgets_a_cookie_before_the_secret_changes() -> None:
    pair = loaded_pair()
    pair.connect()
    pair.advance(6)
    assert pair.client.can_send(pair.now)
    pair.advance(109.5)
    pair.client.connect(pair.now)
    datagram = pair.client.poll_transmit()
    assert datagram is not None
    assert datagram[-16:] == bytes(16)


def test_load_is_measured_over_the_last_two_seconds() -> None:
    pair = TunnelPair()
    gate = CookieChecker(GATEWAY_PUBLIC_KEY, handshakes_per_second=10)
    initiation = initiation_of(pair)
    verdicts = [gate.admit(initiation, SOURCE, 50.0) for _ in range(12)]
    assert verdicts[:10] == [Admitted()] * 10
    assert isinstance(verdicts[10], Refused)
    assert gate.is_under_load(51.5)
    assert not gate.is_under_load(54.0)


def test_a_bad_first_mac_is_not_even_counted_as_load() -> None:
    pair = TunnelPair()
    gate = CookieChecker(GATEWAY_PUBLIC_KEY, handshakes_per_second=1)
    broken = bytearray(initiation_of(pair))
    broken[20] ^= 1
    for _ in range(100):
        assert gate.admit(bytes(broken), SOURCE, 50.0) == Refused(DropReason.BAD_MAC1)
    assert not gate.is_under_load(50.0)
    assert gate.admit(b"\x04\0\0\0" + bytes(60), SOURCE, 50.0) == Refused(DropReason.NOT_WIREGUARD)


def test_the_cookie_reply_is_smaller_than_what_it_answers() -> None:
    gate = CookieChecker(GATEWAY_PUBLIC_KEY, handshakes_per_second=0)
    verdict = gate.admit(initiation_of(TunnelPair()), SOURCE, 50.0)
    assert isinstance(verdict, Refused)
    assert verdict.cookie_reply is not None
    assert len(verdict.cookie_reply) == 64


def test_a_forged_or_repeated_cookie_reply_is_refused() -> None:
    pair = loaded_pair()
    gate = CookieChecker(GATEWAY_PUBLIC_KEY, handshakes_per_second=0)
    verdict = gate.admit(initiation_of(pair), SOURCE, pair.now)
    assert isinstance(verdict, Refused)
    assert verdict.cookie_reply is not None
    forged = bytearray(verdict.cookie_reply)
    forged[-1] ^= 1
    pair.client.handle_datagram(bytes(forged), pair.now)
    assert pair.client.drops[DropReason.BAD_COOKIE_REPLY] == 1
    pair.client.handle_datagram(verdict.cookie_reply, pair.now)
    assert pair.client.drops[DropReason.BAD_COOKIE_REPLY] == 1
    pair.client.handle_datagram(verdict.cookie_reply, pair.now)
    assert pair.client.drops[DropReason.BAD_COOKIE_REPLY] == 2


def test_a_proven_source_is_limited_too_and_others_are_not() -> None:
    limit = SourceLimit()
    assert [limit.allow(SOURCE, 10.0) for _ in range(6)] == [True] * 5 + [False]
    assert limit.allow(pack_source("192.0.2.2", 51820), 10.0)
    assert limit.allow(SOURCE, 10.06)
    assert not limit.allow(SOURCE, 10.06)


def test_an_ipv6_source_shares_its_limit_with_its_64() -> None:
    limit = SourceLimit()
    assert all(limit.allow(pack_source(f"2001:db8::{n}", 1), 10.0) for n in range(5))
    assert not limit.allow(pack_source("2001:db8::ffff", 1), 10.0)
    assert limit.allow(pack_source("2001:db8:0:1::", 1), 10.0)


def test_the_table_of_sources_is_bounded_and_recovers() -> None:
    limit = SourceLimit()
    sources = [number.to_bytes(4, "big") + b"\0\1" for number in range(4097)]
    assert all(limit.allow(source, 10.0) for source in sources[:4096])
    assert not limit.allow(sources[4096], 10.0)
    assert limit.allow(sources[4096], 11.0)


def test_a_source_is_an_address() -> None:
    assert pack_source("192.0.2.1", 258).hex() == "c00002010102"
    assert len(pack_source("2001:db8::1", 1)) == 18
    with pytest.raises(ValueError, match="does not appear"):
        pack_source("gateway.example", 1)
