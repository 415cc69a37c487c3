"""Transactions as bytes, against encodings worked out by hand from the kernel's headers."""

import struct
from ipaddress import ip_address, ip_network

import pytest

from exeunt.actors.network import netlink
from exeunt.actors.network import nft_expressions as nft
from exeunt.actors.network.nft_expressions import Family, Meta, Verdict
from exeunt.actors.network.nftables import Chain, Hook, Range, Set, TableFlag, Transaction


def words(*values: int | bytes) -> bytes:
    """Netlink written by hand: attribute headers as (length, type) pairs, values as bytes."""
    return b"".join(value if isinstance(value, bytes) else struct.pack("=H", value) for value in values)


def test_a_comparison() -> None:
    expected = words(44, 0x8001, 8, 1, b"cmp\0", 32, 0x8002)
    expected += words(8, 1, b"\0\0\0\x08", 8, 2, b"\0\0\0\1", 12, 0x8003, 5, 1, b"\x02\0\0\0")
    assert nft.compare(b"\2", nft.Compare.NOT_EQUAL) == expected


def test_a_meta_load() -> None:
    expected = words(36, 0x8001, 9, 1, b"meta\0\0\0\0", 20, 0x8002, 8, 1, b"\0\0\0\x08", 8, 2, b"\0\0\0\x10")
    assert nft.meta(Meta.PROTOCOL) == expected


def test_a_jump_names_its_chain_and_goes_to_the_verdict_register() -> None:
    verdict = words(28, 0x8002, 24, 0x8002, 8, 1, b"\xff\xff\xff\xfd", 10, 2, b"other\0\0\0")
    expected = words(60, 0x8001, 14, 1, b"immediate\0\0\0", 40, 0x8002, 8, 1, b"\0\0\0\0")
    got = nft.verdict(Verdict.JUMP, "other")
    assert got.endswith(verdict)
    assert got[: len(expected)] == expected


def test_interface_names_are_compared_with_their_padding() -> None:
    load, match = nft.came_in_by("wan")
    assert load == nft.meta(Meta.INPUT_NAME)
    assert match == nft.compare(b"wan" + bytes(13))


def test_a_set_of_interfaces_is_looked_up_and_may_be_the_ones_that_are_not_in_it() -> None:
    load, lookup = nft.leaves_by_any("wans", negate=True)
    assert load == nft.meta(Meta.OUTPUT_NAME)
    expected = words(48, 0x8001, 11, 1, b"lookup\0\0", 32, 0x8002)
    expected += words(9, 1, b"wans\0\0\0\0", 8, 2, b"\0\0\0\x08", 8, 5, b"\0\0\0\1")
    assert lookup == expected
    assert nft.came_in_by_any("wans") == (nft.meta(Meta.INPUT_NAME), nft.in_set("wans"))


def test_a_network_is_asked_for_after_its_version() -> None:
    version, version_match, load, mask, match = nft.source_within(ip_network("fd00::/64"))
    assert (version, version_match) == nft.is_family(6)
    assert load == nft.network_header(8, 16)
    assert mask == nft.mask(b"\xff" * 8 + bytes(8))
    assert match == nft.compare(ip_address("fd00::").packed)


def test_a_chance_is_compared_in_network_order() -> None:
    draw, order, match = nft.by_chance(20)
    assert (draw, order) == (nft.random_number(10_000), nft.to_network_order())
    assert match == nft.compare((2000).to_bytes(4, "big"), nft.Compare.LESS)


def test_a_transaction_is_a_batch_whose_last_change_asks_for_an_answer() -> None:
    change = Transaction(Family.INET, "t")
    change.add_table(TableFlag.OWNER)
    change.add_chain(Chain("c", Hook.FORWARD, -300, policy=Verdict.DROP))
    begin, table, chain, end = netlink.parse_messages(change.encode())
    assert (begin.kind, end.kind) == (0x10, 0x11)
    assert begin.body == end.body == b"\0\0\0\x0a"  # family, version, NFNL_SUBSYS_NFTABLES
    assert [each.sequence for each in (begin, table, chain, end)] == [0, 1, 2, 3]
    assert [bool(each.flags & netlink.NLM_F_ACK) for each in (begin, table, chain, end)] == [False, False, True, False]
    assert table.kind == 0xA00
    assert table.flags & netlink.NLM_F_EXCL
    assert netlink.generic_attributes(table) == {1: b"t\0", 2: b"\0\0\0\2"}
    values = netlink.generic_attributes(chain)
    assert netlink.parse_attributes(values[4]) == {1: b"\0\0\0\2", 2: b"\xff\xff\xfe\xd4"}
    assert (values[5], values[7]) == (b"\0\0\0\0", b"filter\0")


@pytest.mark.parametrize(("size", "type_id", "key_bytes"), [(4, 7, 8), (16, 8, 32)])
def test_a_set_of_ranges_describes_its_fields(size: int, type_id: int, key_bytes: int) -> None:
    change = Transaction(Family.INET, "t")
    change.add_set(Set("s", (size, size), (type_id, type_id)))
    change.add_elements("s", [Range(bytes(key_bytes), b"\xff" * key_bytes)])
    _, described, element, _ = netlink.parse_messages(change.encode())
    values = netlink.generic_attributes(described)
    assert values[3] == b"\0\0\0\x84"  # INTERVAL | CONCAT
    assert values[4] == (type_id << 6 | type_id).to_bytes(4, "big")
    assert values[5] == key_bytes.to_bytes(4, "big")
    assert values[9] == words(28, 0x8002) + 2 * (words(12, 0x8001) + netlink.be32(1, size))
    listed = netlink.parse_attributes(netlink.generic_attributes(element)[3])
    keys = netlink.parse_attributes(listed[1])
    assert netlink.parse_attributes(keys[1]) == {1: bytes(key_bytes)}
    assert netlink.parse_attributes(keys[10]) == {1: b"\xff" * key_bytes}
