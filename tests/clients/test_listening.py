"""A gateway's end for plain WireGuard peers: its port, its lasting key, and by what it can be reached."""

import base64
import stat
from pathlib import Path

import pytest

from exeunt.clients import listening
from exeunt.clients.listening import KEY_FILE, lasting_key, listen
from exeunt.clients.output import Failure


@pytest.mark.parametrize(
    ("text", "port", "hosts"),
    [
        ("vpn.example:51820", 51820, ("vpn.example",)),
        ("192.0.2.1:1", 1, ("192.0.2.1",)),
        ("[2001:db8::1]:65535", 65535, ("2001:db8::1",)),
    ],
)
def test_where_it_listens(tmp_path: Path, text: str, port: int, hosts: tuple[str, ...]) -> None:
    made = listen(text, tmp_path)
    assert (made.port, made.hosts) == (port, hosts)


def test_without_a_host_its_own_addresses_are_told_those_first_that_others_may_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["10.0.0.7", "fd00::7", "2001:db8::7", "100.64.3.4", "203.0.113.7", "192.168.1.7"]

    def host_addresses(_accepts: object) -> list[str]:
        return list(own)

    monkeypatch.setattr(listening, "host_addresses", host_addresses)
    hosts = listen("51820", tmp_path).hosts
    assert hosts[:2] == ("203.0.113.7", "2001:db8::7")
    assert sorted(hosts) == sorted(own)


@pytest.mark.parametrize("text", ["", "0", "65536", "host:", "host:port", "::1:51820", "5182٠", "1.2.3.4:99999999999"])
def test_what_is_no_port(tmp_path: Path, text: str) -> None:
    with pytest.raises(Failure) as caught:
        listen(text, tmp_path)
    assert caught.value.error.code == "config_invalid"
    assert not (tmp_path / KEY_FILE).exists()


def test_the_key_stays_and_is_nobody_elses_business(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / KEY_FILE
    key = lasting_key(path)
    assert lasting_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert base64.b64decode(path.read_bytes()) == key, "as wg genkey writes it"
    assert repr(listen("51820", path.parent)) == "Listen(port=51820)"


@pytest.mark.parametrize("content", [b"", b"nonsense", base64.b64encode(b"short"), b"\xff" * 44])
def test_a_key_that_is_none_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(content)
    with pytest.raises(Failure, match=KEY_FILE):
        lasting_key(path)
    assert path.read_bytes() == content
