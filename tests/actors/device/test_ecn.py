"""Congestion marks, against the table of RFC 6040 and checksums that are computed anew."""

import pytest
from tests.actors.batch.oracle import SIX, Ip, ones_complement

from exeunt.actors.device.ecn import CE, ECT_0, ECT_1, NOT_ECT, carry_inward, ecn_of

MARKS = (NOT_ECT, ECT_1, ECT_0, CE)
TABLE: dict[int, dict[int, int | None]] = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: None},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}
"""RFC 6040 figure 4: what leaves, by inner and outer mark; None: nothing."""


def packet(version: int, mark: int, dscp: int = 0x2E) -> bytes:
    ip = Ip(traffic_class=dscp << 2 | mark) if version == 4 else SIX
    if version == 6:
        ip = Ip(version=6, source=ip.source, destination=ip.destination, traffic_class=dscp << 2 | mark)
    return ip.write(17, bytes(20))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("inner", MARKS)
@pytest.mark.parametrize("outer", MARKS)
def test_what_leaves_is_what_the_table_says(version: int, inner: int, outer: int) -> None:
    arrived = memoryview(bytearray(packet(version, inner)))
    expected = TABLE[inner][outer]
    assert carry_inward(arrived, outer) is (expected is not None)
    if expected is not None:
        assert bytes(arrived) == packet(version, expected), "nothing but the mark and its checksum changes"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mark", MARKS)
def test_the_mark_is_read_wherever_the_version_has_it(version: int, mark: int) -> None:
    assert ecn_of(memoryview(packet(version, mark))) == mark


def test_a_header_checksum_stays_right_whatever_the_header_is() -> None:
    for identification in range(0, 0x10000, 251):
        ip = Ip(traffic_class=ECT_0, identification=identification, ttl=identification % 255 + 1)
        arrived = memoryview(bytearray(ip.write(6, bytes(20))))
        assert carry_inward(arrived, CE)
        assert ones_complement(bytes(arrived[:20])) == 0xFFFF
