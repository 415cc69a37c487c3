"""Longest-prefix match, compared with the slow and obvious way through `ipaddress`."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.actors.device import AllowedIPs

Network = IPv4Network | IPv6Network


def table(*entries: tuple[str, str]) -> AllowedIPs[str]:
    allowed = AllowedIPs[str]()
    for network, owner in entries:
        allowed.insert(network, owner)
    return allowed


def test_the_longest_prefix_wins() -> None:
    allowed = table(("0.0.0.0/0", "world"), ("10.0.0.0/8", "office"), ("10.1.0.0/16", "lab"), ("10.1.0.7/32", "me"))
    found = [allowed.lookup(ip_address(text).packed) for text in ("10.1.0.7", "10.1.0.8", "10.2.0.1", "11.0.0.1")]
    assert found == ["me", "lab", "office", "world"]


def test_the_families_are_apart() -> None:
    allowed = table(("::/0", "six"))
    assert allowed.lookup(ip_address("10.0.0.1").packed) is None
    assert allowed.lookup(ip_address("::1").packed) == "six"


def test_the_last_owner_given_has_the_network() -> None:
    allowed = table(("10.0.0.0/24", "a"), ("10.0.0.0/24", "b"))
    assert allowed.lookup(b"\x0a\0\0\1") == "b"
    assert len(allowed) == 1


def test_removing_uncovers_the_shorter_prefix() -> None:
    allowed = table(("10.0.0.0/8", "a"), ("10.0.0.0/24", "b"))
    assert allowed.remove("10.0.0.0/24")
    assert not allowed.remove("10.0.0.0/24")
    assert allowed.lookup(b"\x0a\0\0\1") == "a"


def test_an_owner_leaves_with_all_its_networks() -> None:
    allowed = table(("10.0.0.0/8", "a"), ("fd00::/8", "a"), ("10.0.0.0/24", "b"))
    assert allowed.remove_owner("a") == 2
    assert list(allowed) == [(ip_network("10.0.0.0/24"), "b")]


@pytest.mark.parametrize("network", ["10.0.0.1/24", "hello", "10.0.0.0/33", ""])
def test_what_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        AllowedIPs[str]().insert(network, "a")


@pytest.mark.parametrize("size", [0, 1, 3, 5, 15, 17])
def test_an_address_of_no_family_belongs_to_nobody(size: int) -> None:
    assert table(("0.0.0.0/0", "a"), ("::/0", "a")).lookup(bytes(size)) is None


# Few distinct bits, so that networks nest and addresses hit: uniformly drawn ones would hardly ever meet.
_v4_addresses = st.integers(0, 255).map(
    lambda bits: (0x0A00_0000 | (bits & 0xF0) << 16 | bits & 0x0F).to_bytes(4, "big")
)
_v6_addresses = st.integers(0, 255).map(
    lambda bits: (0xFD << 120 | (bits & 0xF0) << 60 | bits & 0x0F).to_bytes(16, "big")
)
_addresses = st.one_of(_v4_addresses, _v6_addresses)


@st.composite
def _networks(draw: st.DrawFn) -> Network:
    address = draw(_addresses)
    return ip_network((address, draw(st.integers(0, len(address) * 8))), strict=False)


_steps = st.lists(
    st.tuples(st.sampled_from(["insert", "remove", "leave"]), _networks(), st.integers(0, 3)), max_size=12
)


@settings(max_examples=1_000, deadline=None)
@given(_steps, st.lists(_addresses, min_size=1, max_size=6))
def test_it_answers_as_the_obvious_search_does(steps: list[tuple[str, Network, int]], addresses: list[bytes]) -> None:
    allowed, obvious = AllowedIPs[int](), dict[Network, int]()
    for what, network, owner in steps:
        if what == "insert":
            allowed.insert(network, owner)
            obvious[network] = owner
        elif what == "leave":
            assert allowed.remove_owner(owner) == list(obvious.values()).count(owner)
            obvious = {mine: other for mine, other in obvious.items() if other != owner}
        else:
            assert allowed.remove(network) == (obvious.pop(network, None) is not None)
    assert dict(allowed) == obvious
    assert len(allowed) == len(obvious)
    for packed in addresses:
        covering = [network for network in obvious if ip_address(packed) in network]
        best = max(covering, key=lambda network: network.prefixlen, default=None)
        assert allowed.lookup(packed) == (None if best is None else obvious[best])
