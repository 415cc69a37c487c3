"""Clients that speak WireGuard and nothing else: what the portal tells gateways of them, and administrators."""

import base64
import configparser
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exeunt.actors.portal.codec import encode, portal_decoder
from exeunt.actors.portal.messages import Joined, StaticPeersChanged
from exeunt.actors.portal.static import MAX_STATIC_PEERS, Listener
from exeunt.clients import app
from exeunt.clients.portal import administration, static_administration
from exeunt.clients.portal.errors import AlreadyExists, InvalidValue, NotFound
from exeunt.clients.portal.rows import NewStaticPeer
from exeunt.clients.portal.static_administration import Wishes, new_key_pair

from .conftest import UNIX, Peer, Rig

LISTENER = Listener(public_key=b"L" * 32, port=51820, hosts=("203.0.113.1", "2001:db8::1"))


def add(rig: Rig, name: str = "router", **wishes: Any) -> NewStaticPeer:
    wishes.setdefault("public_key", new_key_pair()[1])
    made = static_administration.add(rig.admin, name, Wishes(**wishes), now_unix=UNIX)
    rig.reload()
    return made


@pytest.fixture
def gateway(rig: Rig) -> Peer:
    peer = rig.peer(rig.gateway_made)
    peer.join(listener=LISTENER)
    return peer


def test_a_gateway_is_told_at_once_whom_to_let_in_and_whom_no_more(rig: Rig, gateway: Peer) -> None:
    made = add(rig, preshared_key=b"p" * 32)
    (told,) = gateway.take(StaticPeersChanged).static_peers
    assert (told.id, told.name, told.preshared_key) == (made.peer.id, "router", b"p" * 32)
    assert (told.address_ipv4, told.address_ipv6) == ("100.64.0.3", "fd65:7865:756e::3")
    assert told.resource_ids == (rig.web.id,)
    static_administration.remove(rig.admin, "router")
    rig.reload()
    assert gateway.take(StaticPeersChanged).static_peers == ()


def test_a_gateway_that_joins_is_told_whom_it_has(rig: Rig, gateway: Peer) -> None:
    made = add(rig)
    gateway.lose()
    joined = rig.peer(rig.gateway_made).join(listener=LISTENER)
    assert [one.id for one in joined.static_peers] == [made.peer.id]


def test_only_the_gateways_that_are_named_are_told(rig: Rig, gateway: Peer) -> None:
    other = rig.peer(rig.add_gateway("gateway-2"))
    other.join(listener=LISTENER)
    with pytest.raises(InvalidValue, match="several gateways"):
        add(rig)
    made = add(rig, gateways=("gateway-2",))
    assert [one.id for one in other.take(StaticPeersChanged).static_peers] == [made.peer.id]
    assert not [one for one in gateway.take_all() if isinstance(one, StaticPeersChanged)]


def test_what_a_peer_may_use_follows_the_policies(rig: Rig, gateway: Peer) -> None:
    mail = administration.add_resource(rig.admin, "mail", "10.21.0.0/24", site=None)
    add(rig, resources=("mail",))
    assert gateway.take(StaticPeersChanged).static_peers[0].resource_ids == (mail.id,)
    administration.set_policy(rig.admin, "router", "web", allowed=True)
    rig.reload()
    assert set(gateway.take(StaticPeersChanged).static_peers[0].resource_ids) == {mail.id, rig.web.id}
    administration.revoke(rig.admin, "router:mail", now_unix=UNIX)
    rig.reload()
    assert gateway.take(StaticPeersChanged).static_peers[0].resource_ids == (rig.web.id,)


def test_what_is_behind_another_site_is_not_offered(rig: Rig, gateway: Peer) -> None:
    administration.add_site(rig.admin, "branch")
    administration.add_resource(rig.admin, "far", "10.22.0.0/24", site="branch")
    assert add(rig, site="main").peer.resources == ("web",)
    with pytest.raises(InvalidValue, match="cannot be reached through gateway-1"):
        add(rig, "other", site="main", resources=("far",))


def test_a_configuration_has_all_that_the_peer_needs(rig: Rig, gateway: Peer) -> None:
    private, public = new_key_pair()
    made = add(rig, public_key=public, private_key=private, preshared_key=b"p" * 32, persistent_keepalive_s=25)
    text = made.configuration or ""
    config = configparser.ConfigParser()
    config.read_string(text)
    assert base64.b64decode(config["Interface"]["PrivateKey"]) == private
    assert config["Interface"]["Address"] == "100.64.0.3/32, fd65:7865:756e::3/128"
    assert dict(config["Peer"]) == {
        "publickey": base64.b64encode(b"L" * 32).decode(),
        "presharedkey": base64.b64encode(b"p" * 32).decode(),
        "endpoint": "203.0.113.1:51820",
        "allowedips": "10.20.0.0/24",
        "persistentkeepalive": "25",
    }
    again = static_administration.configuration_of(rig.admin, "router").configuration or ""
    assert base64.b64encode(private).decode() not in again
    assert base64.b64encode(public).decode() in again
    assert base64.b64encode(private).decode() not in repr(made)


def test_a_second_gateway_stands_by_as_a_comment(rig: Rig, gateway: Peer) -> None:
    rig.peer(rig.add_gateway("gateway-2")).join(listener=Listener(public_key=b"M" * 32, port=9, hosts=("2001:db8::2",)))
    text = add(rig, gateways=("gateway-2", "gateway-1")).configuration or ""
    assert "\nEndpoint = [2001:db8::2]:9\n" in text
    assert "\n# Endpoint = 203.0.113.1:51820\n" in text


def test_the_gateways_keepalive_is_for_peers_that_it_calls(rig: Rig, gateway: Peer) -> None:
    add(rig, persistent_keepalive_s=25)
    add(rig, "called", persistent_keepalive_s=25, endpoint="198.51.100.7:51820")
    told = gateway.take_all()[-1]
    assert isinstance(told, StaticPeersChanged)
    assert [(one.endpoint, one.persistent_keepalive_s) for one in told.static_peers] == [
        ("", None),
        ("198.51.100.7:51820", 25),
    ]


def test_mistakes_make_nothing(rig: Rig, gateway: Peer) -> None:
    _, public = new_key_pair()
    add(rig, public_key=public)
    with pytest.raises(AlreadyExists, match="this key"):
        add(rig, "again", public_key=public)
    with pytest.raises(InvalidValue, match="gateway's own"):
        add(rig, "mirror", public_key=LISTENER.public_key)
    with pytest.raises(InvalidValue):
        add(rig, "eager", persistent_keepalive_s=0)
    with pytest.raises(InvalidValue):
        add(rig, "nowhere", endpoint="198.51.100.7")
    rig.add_gateway("deaf")
    with pytest.raises(InvalidValue, match="does not listen"):
        add(rig, "unheard", gateways=("deaf",))
    with pytest.raises(NotFound):
        static_administration.remove(rig.admin, "client-1")
    assert [one.name for one in static_administration.listed(rig.admin)] == ["router"]


@pytest.mark.parametrize("text", ["", "short", "A" * 44, base64.b64encode(bytes(32)).decode(), "é" * 44])
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(InvalidValue):
        static_administration.read_public_key(text)


def test_a_static_peer_is_no_client_with_a_token(rig: Rig, gateway: Peer) -> None:
    add(rig)
    assert [one.name for one in administration.peers(rig.admin, "client")] == ["client-1"]
    for attempt in (administration.renew_token, administration.revoke):
        with pytest.raises(InvalidValue, match="no token"):
            attempt(rig.admin, "router", now_unix=UNIX)


def test_a_gateway_that_listens_no_more_is_offered_no_more(rig: Rig, gateway: Peer) -> None:
    gateway.lose()
    rig.peer(rig.gateway_made).join()
    with pytest.raises(InvalidValue, match="does not listen"):
        add(rig)


def test_the_longest_list_fits_into_a_frame(rig: Rig, gateway: Peer) -> None:
    for number in range(100):
        administration.add_resource(rig.admin, f"r{number}", f"10.30.{number}.0/24", site=None)
    for number in range(MAX_STATIC_PEERS):
        made = Wishes(public_key=number.to_bytes(32, "big"), preshared_key=b"p" * 32)
        static_administration.add(rig.admin, f"peer-{number}", made, now_unix=UNIX)
    with pytest.raises(InvalidValue, match=f"{MAX_STATIC_PEERS} WireGuard peers"):
        add(rig, "one-too-many")
    rig.reload()
    told = rig.peer(rig.gateway_made).join(listener=LISTENER)
    assert len(told.static_peers) == MAX_STATIC_PEERS
    decoded = portal_decoder(2**20).decode(encode(told)).message
    assert isinstance(decoded, Joined)
    assert decoded == told


# --- as a person or a script uses it ---


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setenv("EXEUNT_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    rig = Rig(tmp_path / "portal.db")
    rig.peer(rig.gateway_made).join(listener=LISTENER)
    rig.store.close()
    rig.admin.close()

    def run(*words: str) -> Any:
        code = app.run(["admin", "peer", *words, "--database", str(rig.path)])
        return code, capsys.readouterr().out

    return run


def test_a_peer_is_added_listed_and_removed(admin: Callable[..., Any], tmp_path: Path) -> None:
    _, public = new_key_pair()
    key = base64.b64encode(public).decode()
    preshared = tmp_path / "psk"
    preshared.write_text(base64.b64encode(b"q" * 32).decode() + "\n")
    code, text = admin("add", "router", "--wireguard", key, "--preshared-key-file", str(preshared))
    assert code == 0
    assert "Endpoint = 203.0.113.1:51820" in text
    assert f"PresharedKey = {base64.b64encode(b'q' * 32).decode()}" in text
    code, text = admin("list", "--json")
    (row,) = json.loads(text)["data"]
    assert (row["name"], row["public_key"], row["resources"]) == ("router", key, ["web"])
    assert "router" in admin("list")[1]
    assert admin("remove", "router")[0] == 0
    assert json.loads(admin("list", "--json")[1])["data"] == []
    assert admin("remove", "router")[0] == 4


def test_a_configuration_goes_into_a_file_of_its_own(admin: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "wg0.conf"
    code, text = admin("add", "phone", "--generate", "--output", str(file), "--json")
    assert code == 0
    assert json.loads(text)["data"]["configuration"] is None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    config = configparser.ConfigParser()
    config.read_string(file.read_text())
    assert config["Interface"]["PrivateKey"] not in text
    assert admin("add", "other", "--generate", "--output", str(file))[0] == 1
    assert "other" not in admin("list")[1]
    unwritten = tmp_path / "unwritten.conf"
    assert admin("add", "phone", "--generate", "--output", str(unwritten))[0] == 1
    assert not unwritten.exists()


def test_a_key_is_given_or_made_and_not_both(admin: Callable[..., Any]) -> None:
    key = base64.b64encode(new_key_pair()[1]).decode()
    assert admin("add", "router")[0] == 2
    assert admin("add", "router", "--wireguard", key, "--generate")[0] == 2
