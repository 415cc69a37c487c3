"""Packed checks against aioice's codec: the same bytes, and the same answer to every spoiled message."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.actors.ice.reference import check_request, success

from exeunt.actors.ice import Address, Credentials, binding
from exeunt.actors.ice.packing import Packing, Role

ICE_CHARACTERS = st.sampled_from("ABCXYZabcxyz019+/")
NAMES = st.text(ICE_CHARACTERS, min_size=4, max_size=40)
PASSWORDS = st.text(ICE_CHARACTERS, min_size=22, max_size=40)
ROLES = st.builds(Role, st.booleans(), st.integers(0, 2**64 - 1))
IDS = st.binary(min_size=12, max_size=12)
HOSTS = st.integers(0, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n))) | st.integers(
    0x2000 << 112, (0x4000 << 112) - 1
).map(lambda n: str(ipaddress.IPv6Address(n)))
ADDRESSES = st.tuples(HOSTS, st.integers(0, 65535))


@st.composite
def both_ends(draw: st.DrawFn) -> tuple[Credentials, Credentials]:
    ours, theirs, our_password, their_password = draw(NAMES), draw(NAMES), draw(PASSWORDS), draw(PASSWORDS)
    here = Credentials(
        local_username=ours, local_password=our_password, remote_username=theirs, remote_password=their_password
    )
    there = Credentials(
        local_username=theirs, local_password=their_password, remote_username=ours, remote_password=our_password
    )
    return here, there


@given(ends=both_ends(), role=ROLES, nominate=st.booleans(), transaction_id=IDS)
def test_a_request_is_packed_as_the_codec_does_and_read_by_the_peer(
    ends: tuple[Credentials, Credentials], role: Role, nominate: bool, transaction_id: bytes
) -> None:
    here, there = ends
    packed = Packing(here).request(transaction_id, role, nominate=nominate)
    assert packed == bytes(check_request(here, role, nominate=nominate, transaction_id=transaction_id))
    message = binding.read(packed)
    assert message is not None
    assert binding.authenticate(message, there) is None
    request = Packing(there).read_request(packed)
    assert request is not None
    assert request.transaction_id == transaction_id
    assert request.role == role
    assert request.priority == message.attributes["PRIORITY"]
    assert request.nominates == (nominate and role.controlling)


@given(ends=both_ends(), source=ADDRESSES, transaction_id=IDS)
def test_an_answer_is_packed_as_the_codec_does_and_read_by_the_peer(
    ends: tuple[Credentials, Credentials], source: Address, transaction_id: bytes
) -> None:
    here, there = ends
    packed = Packing(here).success(transaction_id, source)
    assert packed == success(transaction_id, source, here)
    assert Packing(there).read_success(packed) == (transaction_id, source)


@pytest.mark.slow
@settings(max_examples=2000)
@given(
    ends=both_ends(),
    role=ROLES,
    nominate=st.booleans(),
    spoils=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=3),
    cut=st.integers(0, 3),
)
def test_what_was_spoiled_on_the_way_is_not_read(
    ends: tuple[Credentials, Credentials],
    role: Role,
    nominate: bool,
    spoils: list[tuple[int, int]],
    cut: int,
) -> None:
    here, there = ends
    for true in (
        Packing(here).request(b"transaction!", role, nominate=nominate),
        Packing(here).success(b"transaction!", ("192.0.2.1", 5)),
    ):
        spoiled = bytearray(true)
        for position, change in spoils:
            spoiled[position % len(spoiled)] ^= change
        datagram = bytes(spoiled[: len(spoiled) - cut])
        if datagram != true:
            assert Packing(there).read_request(datagram) is None
            assert Packing(there).read_success(datagram) is None


@given(data=st.binary(min_size=20, max_size=200))
def test_noise_is_not_read(data: bytes) -> None:
    here = Credentials(local_username="aaaa", local_password="a" * 22, remote_username="bbbb", remote_password="b" * 22)
    assert Packing(here).read_request(data) is None
    assert Packing(here).read_success(data) is None
