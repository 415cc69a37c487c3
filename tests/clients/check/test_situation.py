"""Where the portal and the relays that are examined come from."""

from pathlib import Path
from typing import Any

import pytest

from exeunt.clients.check.situation import MAX_RELAYS, Place, parse_place, parse_places, with_guesses
from exeunt.clients.paths import Paths

from ..conftest import Cli, StartProgram


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("relay.example", Place("relay.example", 3478)),
        ("relay.example:443", Place("relay.example", 443)),
        ("tcp:relay.example:80", Place("relay.example", 80, "tcp")),
        ("tls:192.0.2.1", Place("192.0.2.1", 5349, "tls")),
        ("[2001:db8::1]", Place("2001:db8::1", 3478)),
        ("udp:[2001:db8::1]:1", Place("2001:db8::1", 1)),
    ],
)
def test_relays_are_read(text: str, place: Place) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "a:b", "a:0", "a:65536", "sctp:a:1", "2001:db8::1", "[relay]:1", "http://a", "a b"]
)
def test_what_is_no_relay_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"relay|port|address"):
        parse_place(text)


def test_several_stand_in_one_text() -> None:
    assert parse_places(["a:1, b:2", "c"]) == (Place("a", 1), Place("b", 2), Place("c", 3478))


def test_transports_that_nobody_announced_are_tried_too() -> None:
    guessed = with_guesses([Place("a", 3478), Place("a", 443, "tls"), Place("b", 80, "tcp")])
    assert guessed == (
        Place("a", 3478),
        Place("a", 443, "tls"),
        Place("b", 80, "tcp"),
        Place("a", 3478, "tcp", announced=False),
    )
    assert len(with_guesses([Place(f"host-{number}", 1) for number in range(100)])) == 3 * MAX_RELAYS


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The situations that were examined; instead of the network, nothing is measured."""
    from exeunt.clients.check import measurement
    from exeunt.clients.check_contract import Measured, Rights

    situations: list[Any] = []

    async def measure(situation: Any) -> Measured:
        situations.append(situation)
        return Measured(rights=Rights(), instance=situation.instance)

    monkeypatch.setattr(measurement, "measure", measure)
    return situations


def announced(situation: Any) -> list[Place]:
    return [place for place in situation.relays if place.announced]


def test_the_running_program_tells_its_relays(cli: Cli, start_program: StartProgram, examined: list[Any]) -> None:
    start_program("portal", status={})
    start_program("client", status={"relays": [{"host": "192.0.2.1", "port": 3478, "transport": "tls", "id": "r"}]})
    assert cli("check", "--json", "--instance", "client").code == 0
    assert announced(examined[0]) == [Place("192.0.2.1", 3478, "tls")]
    assert examined[0].instance == "client"


def test_the_command_line_comes_before_the_program_and_the_file(
    cli: Cli, start_program: StartProgram, paths: Paths, examined: list[Any]
) -> None:
    config(
        paths, '[client]\nportal_url = "ws://127.0.0.1:1"\nmtu = 1300\n[check]\nrelays = ["filed:1", "tcp:filed:2"]\n'
    )
    assert cli("check", "--json").code == 0
    assert announced(examined[0]) == [Place("filed", 1), Place("filed", 2, "tcp")]
    assert (examined[0].portal_url, examined[0].tunnel_mtu_bytes, examined[0].instance) == (
        "ws://127.0.0.1:1",
        1300,
        None,
    )
    start_program("client", status={"relays": [{"host": "told", "port": 3}]})
    assert cli("check", "--json").code == 0
    assert announced(examined[1]) == [Place("told", 3)]
    assert cli("check", "--json", "--relay", "given:4", "--portal", "wss://other").code == 0
    assert announced(examined[2]) == [Place("given", 4)]
    assert examined[2].portal_url == "wss://other"


def test_relays_may_come_from_the_environment(cli: Cli, monkeypatch: pytest.MonkeyPatch, examined: list[Any]) -> None:
    monkeypatch.setenv("EXEUNT_RELAYS", "one:1 two:2")
    assert cli("check", "--json").code == 0
    assert announced(examined[0]) == [Place("one", 1), Place("two", 2)]


def test_a_program_of_another_version_is_no_obstacle(
    cli: Cli, start_program: StartProgram, examined: list[Any]
) -> None:
    start_program("client", status={"relays": "all of them"})
    assert cli("check", "--json").code == 0
    assert examined[0].relays == ()


def test_mistakes_are_told_by_where_they_are(cli: Cli, paths: Paths) -> None:
    assert cli("check", "--relay", "a:b:c").code == 2
    config(paths, '[check]\nrelays = ["a:b:c"]\n')
    assert cli("check").code == 7


def config(paths: Paths, text: str) -> Path:
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text(text)
    return paths.config_file


def test_a_problem_is_an_exit_code(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from exeunt.clients.check import measurement
    from exeunt.clients.check_contract import Measured, Rights

    async def measure(_situation: Any) -> Measured:
        return Measured(rights=Rights(tun="there is none"))

    monkeypatch.setattr(measurement, "measure", measure)
    done = cli("check", "--json")
    assert done.code == 1
    assert done.document["schema"] == "exeunt.check/1"
    assert done.data["verdict"] == "problem"
