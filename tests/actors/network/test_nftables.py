"""nf_tables of the real kernel, in a namespace, read back through netlink and (where it is installed) by nft."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from exeunt.actors.network import FirewallRefused, PermissionDenied
from exeunt.actors.network import nft_expressions as nft
from exeunt.actors.network.nft_expressions import Family, State, Verdict
from exeunt.actors.network.nftables import Chain, Hook, NftSocket, Range, Set, TableFlag, Transaction
from exeunt.clients.lab import Namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="changing nf_tables needs root"),
]


@pytest.fixture
def inside() -> Iterator[Namespace]:
    with Namespace("nft") as namespace:
        yield namespace


@pytest.fixture
def sockets(inside: Namespace) -> Iterator[tuple[NftSocket, NftSocket]]:
    """Two sockets into the same namespace; a socket stays where it was made."""
    one, other = inside.run(lambda: (NftSocket(), NftSocket()))
    with one, other:
        yield one, other


def a_table(flag: TableFlag = TableFlag.NONE, name: str = "t") -> Transaction:
    change = Transaction(Family.INET, name)
    change.add_table(flag)
    return change


def names(socket: NftSocket) -> list[str]:
    return [table.name for table in socket.tables()]


def test_an_owned_table_is_its_sockets_alone_and_goes_with_it(sockets: tuple[NftSocket, NftSocket]) -> None:
    owner, other = sockets
    owner.commit(a_table(TableFlag.OWNER))
    (table,) = other.tables()
    assert (table.name, table.owner, table.family) == ("t", owner.port, Family.INET)
    with pytest.raises(PermissionDenied):
        other.commit(a_table())
    owner.close()
    assert other.tables() == []


def test_a_refused_transaction_changes_nothing_and_the_socket_stays_usable(
    sockets: tuple[NftSocket, NftSocket],
) -> None:
    socket, _ = sockets
    change = a_table()
    change.add_rule("no-such-chain", nft.verdict(Verdict.DROP))
    change.add_rule("no-such-chain-either", nft.verdict(Verdict.DROP))
    with pytest.raises(FirewallRefused) as caught:
        socket.commit(change)
    assert caught.value.errno == errno.ENOENT
    assert socket.tables() == []
    socket.commit(a_table())
    with pytest.raises(FirewallRefused) as caught:
        socket.commit(a_table())
    assert caught.value.errno == errno.EEXIST
    removal = Transaction(Family.INET, "t")
    removal.delete_table()
    socket.commit(removal)
    assert socket.tables() == []


def test_many_changes_are_one_transaction(sockets: tuple[NftSocket, NftSocket]) -> None:
    """More messages than acknowledgements would fit the socket's buffer."""
    socket, _ = sockets
    change = a_table()
    change.add_set(Set("s", (4, 4), (7, 7)))
    pairs = [ip_address("100.96.0.1").packed + number.to_bytes(4, "big") for number in range(1000)]
    change.add_elements("s", [Range(pair, pair) for pair in pairs])
    socket.commit(change)
    removal = Transaction(Family.INET, "t")
    removal.delete_elements("s", [Range(pair, pair) for pair in pairs])
    socket.commit(removal)
    with pytest.raises(FirewallRefused) as caught:
        socket.commit(removal)
    assert caught.value.errno == errno.ENOENT


def test_an_element_twice_is_refused(sockets: tuple[NftSocket, NftSocket]) -> None:
    socket, _ = sockets
    change = a_table()
    change.add_set(Set("s", (4, 4), (7, 7)))
    change.add_elements("s", [Range(bytes(8), bytes(8))] * 2)
    with pytest.raises(FirewallRefused) as caught:
        socket.commit(change)
    assert caught.value.errno == errno.EEXIST


def test_without_the_privilege_the_error_says_so() -> None:
    code = (
        "from exeunt.actors.network import PermissionDenied\n"
        "from exeunt.actors.network.nftables import *\n"
        "from exeunt.actors.network.nft_expressions import Family\n"
        "import os; os.setuid(65534)\n"
        "change = Transaction(Family.INET, 't'); change.add_table()\n"
        "try: NftSocket().commit(change)\n"
        "except PermissionDenied as error: print(error.hint)\n"
    )
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "CAP_NET_ADMIN" in done.stdout


@pytest.mark.skipif(shutil.which("nft") is None, reason="reading the rules back as text needs nft")
def test_nft_reads_what_was_written(inside: Namespace, sockets: tuple[NftSocket, NftSocket]) -> None:
    change = Transaction(Family.IPV4, "t")
    change.add_table()
    change.add_set(Set("seen", (4,), (7,), 30_000))
    change.add_chain(Chain("pre", Hook.PREROUTING, -100, kind="nat"))
    change.add_chain(Chain("forward", Hook.FORWARD, 0, policy=Verdict.DROP))
    change.add_chain(Chain("post", Hook.POSTROUTING, 100, kind="nat"))
    known = (nft.source_address(4), nft.in_set("seen"))
    inwards = nft.translate_destination(ip_address("10.1.0.2"))
    change.add_rule("pre", *nft.came_in_by("wan"), *nft.is_protocol(nft.UDP), *known, *inwards)
    change.add_rule("forward", *nft.leaves_by("wan"), nft.destination_address(4), nft.remember("seen", 30_000))
    change.add_rule("forward", *nft.in_state(State.ESTABLISHED | State.RELATED), nft.verdict(Verdict.ACCEPT))
    change.add_rule("forward", *nft.is_reply(), *nft.was_redirected(), nft.verdict(Verdict.ACCEPT))
    change.add_rule("forward", *nft.by_chance(20), nft.counter(), nft.verdict(Verdict.DROP))
    change.add_rule("post", *nft.leaves_by("lan", negate=True), nft.masquerade(random_ports=True))
    sockets[0].commit(change)
    listing = inside.popen(["nft", "list", "table", "ip", "t"], stdout=subprocess.PIPE, text=True).communicate()[0]
    lines = [line.strip() for line in listing.splitlines()]
    for expected in (
        "flags dynamic,timeout",
        "timeout 30s",
        "type filter hook forward priority filter; policy drop;",
        "type nat hook prerouting priority dstnat; policy accept;",
        'iifname "wan" meta l4proto udp ip saddr @seen dnat to 10.1.0.2',
        'oifname "wan" update @seen { ip daddr timeout 30s }',
        "ct state established,related accept",
        "ct direction reply ct status dnat accept",
        "numgen random mod 10000 < 2000 counter packets 0 bytes 0 drop",
        'oifname != "lan" masquerade fully-random',
    ):
        assert expected in lines
    as_json = inside.popen(["nft", "-j", "list", "ruleset"], stdout=subprocess.PIPE, text=True).communicate()[0]
    assert json.loads(as_json)["nftables"]
