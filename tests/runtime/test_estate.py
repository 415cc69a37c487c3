"""Deposits over a real socket: taken from workers only, said through their own sockets, let go of in time."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.runtime.conftest import until

from exeunt.runtime import estate as estate_module
from exeunt.runtime.deposits import Deposits
from exeunt.runtime.errors import ActorDead
from exeunt.runtime.estate import Estate, Estates
from exeunt.runtime.last_words import REPEATS_AT_S, OpenChannel, Told, Words, encode
from exeunt.runtime.messages import LastWords

ME = os.getpid()


class Confidants:
    """Actors that can be told something; `answer` is set once they have taken note, or fails as they would."""

    def __init__(self) -> None:
        self.told: list[tuple[str, LastWords]] = []
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(self, to: str, words: LastWords) -> asyncio.Future[None]:
        self.told.append((to, words))
        return self.answer


@pytest.fixture
async def confidants() -> Confidants:
    return Confidants()


async def nobody(_to: str, _words: LastWords) -> None:
    raise ActorDead("nobody is there")


@pytest.fixture
async def estates(tmp_path: Path, confidants: Confidants) -> AsyncIterator[Estates]:
    estates = Estates(tmp_path / "s.1w", lambda pid: "w" if pid == ME else None, confidants.tell)
    yield estates
    estates.close()
    assert not estates.path.exists()


@pytest.fixture
async def deposits(estates: Estates) -> AsyncIterator[Deposits]:
    deposits = Deposits(estates.path)
    yield deposits
    deposits.close()


class Ear:
    """A UDP socket of somebody who listens, and one to speak through."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, wildcard: bool = False) -> None:
        loopback, any_ = ("127.0.0.1", "0.0.0.0") if family == socket.AF_INET else ("::1", "::")
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind((loopback, 0))
        self.socket.setblocking(False)
        self.address: tuple[str, int] = self.socket.getsockname()[:2]
        self.mouth = socket.socket(family, socket.SOCK_DGRAM)
        self.mouth.bind((any_ if wildcard else loopback, 0))
        self.port: int = self.mouth.getsockname()[1]

    def heard(self) -> list[tuple[bytes, str, int]]:
        found: list[tuple[bytes, str, int]] = []
        while True:
            try:
                data, (host, port, *_) = self.socket.recvfrom(2048)
            except BlockingIOError:
                return found
            found.append((data, host, port))

    def close(self) -> None:
        self.socket.close()
        self.mouth.close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    ear.close()


def mine(estates: Estates) -> Estate:
    estate = estates.of(ME)
    assert estate is not None
    return estate


def raw(estates: Estates) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(estates.path))
    return connection


async def test_words_leave_from_the_dead_ones_own_port_again_and_again(
    estates: Estates, deposits: Deposits, ear: Ear
) -> None:
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    ear.mouth.close()  # as the kernel does for a process that dies
    assert estates.ended(ME, "w") == 1
    assert ear.heard() == [(b"bye", "127.0.0.1", ear.port)]  # at once, before anything else happens
    await estates.until_silent()
    assert ear.heard() == [(b"bye", "127.0.0.1", ear.port)] * (len(REPEATS_AT_S) - 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as successor:
        successor.bind(("127.0.0.1", ear.port))  # the duplicate is gone


@pytest.mark.parametrize(
    ("family", "source"), [(socket.AF_INET, "127.0.0.5"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"]
)
async def test_a_socket_bound_to_no_address_speaks_from_the_one_that_is_said(
    estates: Estates, deposits: Deposits, family: socket.AddressFamily, source: str
) -> None:
    ear = Ear(family, wildcard=True)
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address, source=source)
    estates.ended(ME, "w")
    assert ear.heard() == [(b"bye", source, ear.port)]
    ear.close()


async def test_a_connected_stream_hears_them_once(estates: Estates, deposits: Deposits) -> None:
    ours, theirs = socket.socketpair()
    deposits.put("a", ours.fileno(), b"bye")
    ours.close()
    estates.ended(ME, "w")
    await estates.until_silent()
    assert theirs.recv(64) == b"bye"
    assert theirs.recv(64) == b""  # the last duplicate is closed
    theirs.close()


async def test_a_stream_that_takes_nothing_holds_nobody_up(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(bytes(65536))
    ours.setblocking(True)  # the mode of a socket is shared by its duplicates
    deposits.put("a", ours.fileno(), b"bye")
    deposits.put("b", ear.mouth.fileno(), b"bye", destination=ear.address)
    await until(lambda: estates.of(ME) is not None and len(mine(estates).register.words) == 2)
    estate = mine(estates)
    estates.ended(ME, "w")
    assert len(ear.heard()) == 1
    assert estate.unsaid_total == 1
    ours.close()
    theirs.close()


async def test_words_are_replaced_and_withdrawn_in_order(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    for key, payload in (("a", b"1"), ("b", b"2"), ("a", b"3"), ("c", b"4")):
        deposits.put(key, ear.mouth.fileno(), payload, destination=ear.address)
    deposits.withdraw("b")
    deposits.withdraw("unknown")
    assert estates.ended(ME, "w") == 2
    assert [data for data, *_ in ear.heard()] == [b"3", b"4"]


async def test_who_ends_in_an_orderly_way_is_not_spoken_for(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    deposits.withdraw_all()
    deposits.close()
    assert estates.ended(ME, "w") == 0
    await estates.until_silent()
    assert ear.heard() == []


async def test_one_duplicate_serves_all_words_through_a_socket_and_goes_with_the_last(
    estates: Estates, deposits: Deposits, ear: Ear
) -> None:
    for key in "abc":
        deposits.put(key, ear.mouth.fileno(), b"x", destination=ear.address)
    await until(lambda: estates.of(ME) is not None and len(mine(estates).register.words) == 3)
    assert len(mine(estates).channels) == 1
    other = Ear()
    deposits.put("a", other.mouth.fileno(), b"x", destination=ear.address)
    await until(lambda: len(mine(estates).channels) == 2)
    deposits.put("a", ear.mouth.fileno(), b"x", destination=ear.address)
    await until(lambda: len(mine(estates).channels) == 1)
    for key in "abc":
        deposits.withdraw(key)
    await until(lambda: not mine(estates).channels)
    other.close()


async def test_deposits_wait_for_a_supervisor_that_is_busy(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    """The loop that reads is this one, so nothing is read while this deposits more than the kernel holds."""
    for number in range(2000):
        deposits.put(str(number), ear.mouth.fileno(), b"x" * 200, destination=ear.address)
    for number in range(1000):
        deposits.withdraw(str(number))
    deposits.put("last", ear.mouth.fileno(), b"last", destination=ear.address)
    await until(lambda: estates.of(ME) is not None and "last" in mine(estates).register.words)
    assert len(mine(estates).register.words) == 1001
    assert estates.malformed_total == 0


async def test_strangers_are_not_let_in(tmp_path: Path) -> None:
    estates = Estates(tmp_path / "s.2w", lambda _pid: None, nobody)
    with raw(estates) as stranger:
        await until(lambda: estates.strangers_total)
        assert stranger.recv(16) == b""
    assert estates.ended(ME + 1, "w") == 0
    estates.close()


async def test_who_dies_without_having_read_what_it_inherits_is_heard(estates: Estates, ear: Ear) -> None:
    """The kernel then gives an error before it gives what lies in the socket."""
    estates.pass_on(ME, "w")  # nothing; but from now on a successor is expected
    successor = Deposits(estates.path)
    waiting = asyncio.ensure_future(estates.until_here(ME, asyncio.Event()))
    await asyncio.wait_for(waiting, 5)
    mine(estates).inherit(None)
    successor.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    successor.close()
    assert estates.ended(ME, "w") == 1
    assert len(ear.heard()) == 1


async def test_a_worker_is_let_in_once(estates: Estates, deposits: Deposits) -> None:
    with raw(estates):
        await until(lambda: estates.strangers_total)
    assert deposits.is_kept


@pytest.mark.parametrize("worker", [None, "w"])
async def test_who_died_before_it_was_let_in_is_heard(tmp_path: Path, ear: Ear, worker: str | None) -> None:
    """Its process is not among the living any more when its connection is taken, or still is."""
    estates = Estates(tmp_path / "s.3w", lambda _pid: worker, nobody)
    deposits = Deposits(estates.path)
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    deposits.close()
    if worker is not None:
        await until(lambda: estates.of(ME) is not None)
    assert estates.ended(ME, "w") == 1
    assert len(ear.heard()) == 1
    deposits.close()
    estates.close()


Send = Callable[[socket.socket], None]


def sending(message: bytes) -> Send:
    def send(connection: socket.socket) -> None:
        connection.send(message)

    return send


def sending_files(count: int, message: bytes) -> Send:
    def send(connection: socket.socket) -> None:
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
        socket.send_fds(connection, [message], files)
        for file in files:
            os.close(file)

    return send


def sending_a_socket(message: bytes) -> Send:
    def send(connection: socket.socket) -> None:
        socket.send_fds(connection, [message], [connection.fileno()])

    return send


OPEN = encode(OpenChannel(channel="1"))
A_NAME = Words(key="a", channel="1", payload=b"x", destination=("localhost", 53))
TOO_LONG = Words(key="a", channel="1", payload=bytes(4096))


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(sending(b"\xc1nonsense"), id="nonsense"),
        pytest.param(sending(OPEN), id="no socket"),
        pytest.param(sending(encode(TOO_LONG)), id="too long"),
        pytest.param(sending(encode(A_NAME)), id="a name"),
        pytest.param(sending_files(1, OPEN), id="a file"),
        pytest.param(sending_files(2, OPEN), id="two"),
        pytest.param(sending_files(20, OPEN), id="more than are taken"),
        pytest.param(sending_a_socket(b"?"), id="nonsense with a socket"),
    ],
)
async def test_what_makes_no_sense_is_counted_and_costs_nothing(estates: Estates, send: Send) -> None:
    with raw(estates) as connection:
        await until(lambda: estates.of(ME) is not None)
        before = len(os.listdir("/proc/self/fd"))
        send(connection)
        await until(lambda: estates.malformed_total == 1)
        assert len(os.listdir("/proc/self/fd")) == before
        connection.send(encode(Words(key="b", channel="1", payload=b"x")))
        await until(lambda: "b" in mine(estates).register.words)  # it is still listened to


async def test_a_worker_may_have_so_many_sockets_here(
    estates: Estates, deposits: Deposits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estate_module, "MAX_CHANNELS", 2)
    ears = [Ear() for _ in range(3)]
    for ear in ears:
        deposits.put(str(ear.port), ear.mouth.fileno(), b"bye", destination=ear.address)
    assert estates.ended(ME, "w") == 3
    assert [len(ear.heard()) for ear in ears] == [1, 1, 0]
    for ear in ears:
        ear.close()


async def test_without_a_supervisor_nothing_is_kept_and_nothing_fails(ear: Ear) -> None:
    deposits = Deposits()
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    deposits.withdraw("a")
    deposits.withdraw_all()
    assert not deposits.is_kept


async def test_a_supervisor_that_dies_is_not_spoken_to_any_more(tmp_path: Path, ear: Ear) -> None:
    estates = Estates(tmp_path / "s.4w", lambda _pid: "w", nobody)
    deposits = Deposits(estates.path)
    await until(lambda: estates.of(ME) is not None)
    estates.close()
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    assert not deposits.is_kept
    deposits.put("b", ear.mouth.fileno(), b"bye", destination=ear.address)
    deposits.withdraw("a")


async def test_an_actor_is_told_what_cannot_be_sent(
    estates: Estates, deposits: Deposits, confidants: Confidants
) -> None:
    """At once, in one message, with the words that each key had last; and waited for when everything ends."""
    deposits.put("a", None, b"", told=Told("n/control/link", b"outdated"))
    deposits.put("a", None, b"", told=Told("n/control/link", b"one"))
    deposits.put("b", None, b"", told=Told("n/control/link", b"two"))
    deposits.put("c", None, b"", told=Told("n/other/link", b"three"))
    deposits.put("d", None, b"", told=Told("n/other/link", b"four"))
    deposits.withdraw("d")
    await until(lambda: estates.of(ME) is not None and set(mine(estates).register.words) == {"a", "b", "c"})
    assert estates.confidants() == {"control", "other"}
    assert estates.ended(ME, "w") == 3
    assert confidants.told == [
        ("n/control/link", LastWords("w", {"a": b"one", "b": b"two"})),
        ("n/other/link", LastWords("w", {"c": b"three"})),
    ]
    silent = asyncio.ensure_future(estates.until_silent())
    told = asyncio.ensure_future(estates.until_told())
    await asyncio.wait([silent], timeout=REPEATS_AT_S[-1] * 2)
    assert not silent.done()
    assert not told.done()
    confidants.answer.set_result(None)
    await silent
    await told
    assert len(confidants.told) == 2


async def test_who_would_be_told_is_known_before_the_loop_has_read_it(estates: Estates, deposits: Deposits) -> None:
    deposits.put("a", None, b"", told=Told("n/control/link", b"one"))
    assert estates.confidants() == {"control"}


async def test_an_actor_that_is_not_there_holds_nobody_up(
    estates: Estates, deposits: Deposits, confidants: Confidants, ear: Ear
) -> None:
    """What goes through a socket goes, and what somebody is told besides is told him."""
    confidants.answer.set_exception(ActorDead("nobody is there"))
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address, told=Told("n/control/link", b"told"))
    estates.ended(ME, "w")
    assert ear.heard() == [(b"bye", "127.0.0.1", ear.port)]
    assert confidants.told == [("n/control/link", LastWords("w", {"a": b"told"}))]
    await estates.until_silent()
    await estates.until_told()


async def test_words_may_lose_their_socket_and_find_another(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    deposits.put("a", None, b"", told=Told("n/control/link", b"told"))
    await until(lambda: estates.of(ME) is not None and not mine(estates).channels)
    deposits.put("a", ear.mouth.fileno(), b"again", destination=ear.address)
    deposits.withdraw_all()
    deposits.put("a", None, b"", told=Told("n/control/link", b"told"))
    deposits.withdraw_all()
    await until(lambda: estates.of(ME) is not None and not mine(estates).register.words)
    assert estates.ended(ME, "w") == 0
    assert ear.heard() == []


async def test_an_address_of_another_family_is_not_spoken_to(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=("::1", 9), source="::1")
    deposits.put("b", ear.mouth.fileno(), b"bye", destination=ear.address)
    await until(lambda: estates.of(ME) is not None and len(mine(estates).register.words) == 2)
    estate = mine(estates)
    estates.ended(ME, "w")
    assert len(ear.heard()) == 1
    assert estate.unsaid_total == 1


def test_the_kernels_word_for_a_process_is_what_we_take_it_for() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    credentials = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    assert struct.unpack("=iII", credentials) == (ME, os.geteuid(), os.getegid())
    one.close()
    other.close()


async def test_closing_ends_what_is_being_said(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    estates.ended(ME, "w")
    estates.close()
    await asyncio.wait_for(estates.until_silent(), 1)
    assert len(ear.heard()) == 1


async def test_what_was_passed_on_is_waited_for_until_it_is_taken_or_given_up(
    estates: Estates, deposits: Deposits, ear: Ear
) -> None:
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    deposits.bequeath("a", b"state", [ear.mouth.fileno()])
    deposits.close()
    estates.pass_on(ME, "w")
    waiting = asyncio.ensure_future(estates.until_taken("w"))
    successor = Deposits(estates.path)
    await asyncio.wait_for(successor.until_inherited(), 5)
    bequest = successor.inherit("a")
    assert bequest is not None
    assert bequest.document == b"state"
    with socket.socket(fileno=bequest.descriptors[0]) as heirloom:
        assert heirloom.getsockname()[1] == ear.port
    assert not waiting.done()
    successor.taken("a")
    await asyncio.wait_for(waiting, 5)
    assert ear.heard() == []
    assert not estates.has_passed_on("w")
    await estates.until_taken("w")
    successor.close()


async def test_what_is_given_up_is_said_and_waited_for_no_more(estates: Estates, deposits: Deposits, ear: Ear) -> None:
    deposits.put("a", ear.mouth.fileno(), b"bye", destination=ear.address)
    deposits.bequeath("a", b"state")
    deposits.close()
    estates.pass_on(ME, "w")
    waiting = asyncio.ensure_future(estates.until_taken("w"))
    await asyncio.sleep(0)
    assert estates.give_up("w") == 1
    await asyncio.wait_for(waiting, 5)
    assert len(ear.heard()) == 1
