"""What is said about measurements: verdicts, sentences, and what to do; and the page that it makes."""

from typing import Any

import pytest

from exeunt.clients.check.discovery import Dependence
from exeunt.clients.check.judgement import EXAMINATIONS, SEVERITY, judge
from exeunt.clients.check.measurement import nat_name
from exeunt.clients.check_contract import (
    Check,
    Clock,
    DataPath,
    Finding,
    Measured,
    Nat,
    PathMtu,
    PortalReach,
    RelayReach,
    Rights,
)
from exeunt.clients.output import DEFAULTS, show
from exeunt.clients.views.check import MARKS, render

GOOD = Measured(
    rights=Rights(),
    relays=[
        RelayReach(relay="relay.example:3478", transport="udp", address="192.0.2.1", rtt_ms=12.0),
        RelayReach(relay="relay.example:3478", transport="udp", address="2001:db8::1", rtt_ms=14.0),
        RelayReach(relay="relay.example:443", transport="tls", address="192.0.2.1", rtt_ms=13.0, connect_ms=40.0),
    ],
    nats=[
        Nat(
            family=4,
            name="port_restricted",
            mapping="endpoint_independent",
            filtering="address_and_port_dependent",
            translated=True,
            public_address="198.51.100.2",
            found_by="rfc5780",
        ),
    ],
    public_addresses=["198.51.100.2", "2001:db8:2::2"],
    ipv6_address="2001:db8:2::2",
    path_mtus=[PathMtu(relay="relay.example:3478", family=4, packet_bytes=1500)],
    portal=PortalReach(url="wss://portal.example", connect_ms=20.0, answer_ms=10.0),
    clock=Clock(source="the portal's HTTP Date", offset_ms=-300.0, error_ms=1010.0),
    data_path=DataPath(kernel="native", why="libcrypto 3.0.22"),
)


def changed(**changes: Any) -> Measured:
    values = {name: getattr(GOOD, name) for name in GOOD.__struct_fields__}
    return Measured(**values | changes)


def finding(examination: str, **changes: Any) -> Finding:
    (found,) = [each for each in judge(changed(**changes), 1.0).findings if each.examination == examination]
    return found


def unreached(transport: Any = "udp", *, announced: bool = True, host: str = "192.0.2.1") -> RelayReach:
    return RelayReach(
        relay="relay.example:3478", transport=transport, address=host, announced=announced, reason="no answer"
    )


def reached(transport: Any = "udp", *, announced: bool = True) -> RelayReach:
    return RelayReach(
        relay="relay.example:3478", transport=transport, address="192.0.2.1", announced=announced, rtt_ms=12.0
    )


def test_where_all_is_well_nothing_else_is_said() -> None:
    check = judge(GOOD, 1234.0)
    assert check.verdict == "ok"
    assert {each.verdict for each in check.findings} == {"ok"}
    assert all(each.hint is None for each in check.findings)


def test_where_nothing_is_known_nothing_is_claimed() -> None:
    check = judge(Measured(rights=Rights()), 1.0)
    assert check.verdict == "unknown"
    assert {each.verdict for each in check.findings if each.examination in ("udp", "nat", "relays", "portal")} == {
        "unknown"
    }


@pytest.mark.parametrize(
    ("relays", "verdict", "says"),
    [
        ([reached()], "ok", "after 12 ms"),
        ([unreached(), reached("tcp")], "warning", "does by TCP"),
        ([unreached(), reached("tcp", announced=False)], "problem", "does by TCP"),
        ([unreached(), unreached("tcp")], "problem", "No relay answers by UDP"),
        ([], "unknown", "No relay is known"),
    ],
)
def test_udp(relays: list[RelayReach], verdict: str, says: str) -> None:
    found = finding("udp", relays=relays)
    assert found.verdict == verdict
    assert says in found.sentence
    assert (found.hint is None) == (verdict == "ok")


@pytest.mark.parametrize(
    ("translated", "mapping", "filtering", "name", "verdict"),
    [
        (False, "endpoint_independent", "endpoint_independent", "open", "ok"),
        (False, "endpoint_independent", "address_and_port_dependent", "firewall", "ok"),
        (False, None, None, "no_nat", "ok"),
        (True, "endpoint_independent", "endpoint_independent", "full_cone", "ok"),
        (True, "endpoint_independent", "address_dependent", "address_restricted", "ok"),
        (True, "endpoint_independent", "address_and_port_dependent", "port_restricted", "ok"),
        (True, "endpoint_independent", None, "cone", "ok"),
        (True, "address_dependent", "endpoint_independent", "symmetric", "warning"),
        (True, "address_and_port_dependent", None, "symmetric", "warning"),
        (True, None, None, "unknown", "unknown"),
    ],
)
def test_every_nat_has_a_name_and_a_verdict(
    translated: bool, mapping: str | None, filtering: str | None, name: str, verdict: str
) -> None:
    found = nat_name(
        translated=translated,
        mapping=Dependence(mapping) if mapping else None,
        filtering=Dependence(filtering) if filtering else None,
    )
    assert found == name
    nat = Nat(family=4, name=found, translated=translated, public_address="198.51.100.2", found_by="rfc5780")
    assert finding("nat", nats=[nat]).verdict == verdict


@pytest.mark.parametrize(
    ("family", "packet_bytes", "tunnel_mtu_bytes", "verdict", "hint"),
    [
        (4, 1500, 1280, "ok", None),
        (4, 1344, 1280, "ok", None),
        (4, 1340, 1280, "warning", "Find the link"),
        (6, 1344, 1280, "warning", "Find the link"),
        (6, 1364, 1280, "ok", None),
        (4, 1440, 1400, "ok", None),
        (4, 1464, 1400, "ok", None),
        (4, 1340, 1400, "warning", "Find the link"),
    ],
)
def test_mtu(family: Any, packet_bytes: int, tunnel_mtu_bytes: int, verdict: str, hint: str | None) -> None:
    mtu = PathMtu(relay="relay.example:3478", family=family, packet_bytes=packet_bytes)
    found = finding("mtu", path_mtus=[mtu], tunnel_mtu_bytes=tunnel_mtu_bytes)
    assert found.verdict == verdict
    assert (hint or "") in (found.hint or "")


@pytest.mark.parametrize(
    ("offset_ms", "verdict", "says"),
    [
        (-300.0, "ok", "agrees"),
        (3_000.0, "ok", "1.99 s off"),
        (60_000.0, "warning", "1m 0s ahead of"),
        (-60_000.0, "warning", "1m 0s behind"),
        (-7_200_000.0, "problem", "2h 0m behind"),
    ],
)
def test_clock(offset_ms: float, verdict: str, says: str) -> None:
    found = finding("clock", clock=Clock(source="the portal's HTTP Date", offset_ms=offset_ms, error_ms=1010.0))
    assert found.verdict == verdict
    assert says in found.sentence
    assert "1.01 s" in found.sentence, "the error is said too"


def test_ipv6() -> None:
    over_v6 = unreached(host="2001:db8::1")
    assert finding("ipv6").verdict == "ok"
    assert finding("ipv6", relays=[reached()], ipv6_address=None).verdict == "ok"
    assert finding("ipv6", relays=[reached()]).verdict == "unknown"
    assert finding("ipv6", relays=[reached(), over_v6]).verdict == "warning"


def test_relays() -> None:
    assert finding("relays", relays=[reached(), unreached("tls")]).verdict == "warning"
    assert finding("relays", relays=[unreached()]).verdict == "problem"
    assert finding("relays", relays=[reached(), unreached("tls", announced=False)]).verdict == "ok", "only a guess"


def test_portal() -> None:
    broken = PortalReach(url="wss://portal.example", reason="refused")
    assert finding("portal", portal=broken).verdict == "problem"
    assert "refused" in finding("portal", portal=broken).sentence
    assert finding("portal", portal=None).verdict == "unknown"


def test_rights() -> None:
    none = Rights(tun="/dev/net/tun: no such file", net_admin="this user lacks CAP_NET_ADMIN", nftables="not permitted")
    verdicts = {each.examination: each.verdict for each in judge(changed(rights=none), 1.0).findings}
    assert verdicts | {"tun": "problem", "rights": "problem", "nftables": "unknown"} == verdicts
    running = {each.examination: each.verdict for each in judge(changed(rights=none, instance="client"), 1.0).findings}
    assert running | {"tun": "ok", "rights": "ok"} == running, "the program that runs has its own rights"
    assert finding("nftables", rights=Rights(nftables="no such protocol")).verdict == "warning"


def test_the_worst_decides() -> None:
    assert judge(changed(portal=PortalReach(url="x", reason="refused")), 1.0).verdict == "problem"
    assert judge(changed(portal=None), 1.0).verdict == "unknown"
    assert set(SEVERITY) == set(MARKS)


def test_whatever_is_no_good_comes_with_a_hint() -> None:
    """A verdict that asks for something to be done says what."""
    bad = changed(
        relays=[unreached(), unreached("tcp")],
        nats=[],
        public_addresses=[],
        path_mtus=[],
        portal=PortalReach(url="x", reason="refused"),
        clock=Clock(source="x", offset_ms=1e9, error_ms=1.0),
        rights=Rights(tun="no", net_admin="no", nftables="no"),
    )
    for each in judge(bad, 1.0).findings:
        assert each.hint or each.verdict in ("ok", "unknown"), each
    assert len(judge(bad, 1.0).findings) == len(EXAMINATIONS) - 1, "there is no second NAT"


def test_the_data_path_is_named_and_never_a_problem() -> None:
    assert "(libcrypto 3.0.22)" in finding("data_path").sentence
    pure = finding("data_path", data_path=DataPath(kernel="pure", why="it has not been built"))
    assert pure.verdict == "ok"
    assert "pure Python: it has not been built." in pure.sentence
    assert pure.hint


def page(check: Check, capsys: pytest.CaptureFixture[str]) -> list[str]:
    show(render(check), DEFAULTS)
    return capsys.readouterr().out.splitlines()


def test_the_page_fits_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = page(judge(GOOD, 1234.0), capsys)
    assert max(len(line.rstrip()) for line in lines) <= 80
    text = "\n".join(lines)
    assert "A port-restricted NAT" in text
    assert "All is well." in text
    assert "relay.example:443   TLS  192.0.2.1" in text


def test_the_page_shows_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    broken = PortalReach(url="wss://portal.example/\x1b[31m", reason="refused")
    lines = page(judge(changed(portal=broken, relays=[unreached()]), 1.0), capsys)
    text = "\n".join(lines)
    assert "→  Permit UDP" in text
    assert "✖" in text
    assert "\x1b" not in text
    assert "3 problems." in text
