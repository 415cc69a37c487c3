"""Whole agents on real sockets: loopback, a small TURN server in this process, and coturn if it is installed."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any, Literal
from unittest.mock import Mock

import pytest
from tests.actors.ice.sides import (
    MakePair,
    Side,
    assert_carries,
    assert_carries_trains,
    config_for,
    connect,
    new_credentials,
    turn,
)

from exeunt.actors.grid import COARSE_S
from exeunt.actors.ice import (
    IceServer,
    NeverConnected,
    reflexive,
)
from exeunt.actors.ice.candidate import parse_candidate
from exeunt.actors.ice.early import MAX_GENERATIONS, MAX_HELD
from exeunt.actors.ice.machine import IceMachine
from exeunt.actors.ice.reflexive import ReflexiveQueries
from exeunt.runtime.wakeups import wakeups_of


async def test_two_agents_on_loopback(make_pair: MakePair) -> None:
    a, b = make_pair()
    ours, theirs = await connect(a, b)
    assert (ours.kind, ours.local_type, ours.remote_type) == ("direct", "host", "host")
    assert ours.local == theirs.remote
    assert ours.remote == theirs.local
    assert a.paths == [ours]
    assert b.paths == [theirs]
    assert a.candidates[-1] == ""
    assert all(" typ host" in line for line in a.candidates[:-1])
    await assert_carries(a, b)


async def test_a_wake_up_has_the_name_of_what_the_machine_waits_for(
    turn_server: Any, make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflexive, "QUERY_INTERVALS_S", (0.01, 0.01, 0.01))
    turn_server.is_mute = True
    a, _ = make_pair(for_a={"servers": (IceServer("stun", *turn_server.address),)})
    async with asyncio.timeout(5.0):
        await a.agent.gather()
    counts = wakeups_of(asyncio.get_running_loop()).counts
    assert counts["timer:STUN server query"] == 3


async def test_a_client_whose_check_was_answered_does_not_wake_up_to_repeat_it(make_pair: MakePair) -> None:
    a, b = make_pair()
    await connect(a, b)
    session = a.agent._current  # pyright: ignore[reportPrivateUsage]
    assert session._machine.is_controlling  # pyright: ignore[reportPrivateUsage]
    before = session.last_alive
    session.hint(urgent=True)
    async with asyncio.timeout(5.0):
        while session.last_alive == before:  # noqa: ASYNC110 - real sockets between them
            await asyncio.sleep(0)
    due = session._due()  # pyright: ignore[reportPrivateUsage]
    assert due is not None
    assert session._timer_at == due[0]  # pyright: ignore[reportPrivateUsage]


async def test_first_byte_cookie_and_length_tell_stun_from_data(make_pair: MakePair) -> None:
    a, b = make_pair()
    await connect(a, b)
    looks_like_stun = b"\x01\x00\x00\x00\x21\x12\xa4\x42" + bytes(12)
    data = [b"", b"\x00", b"\x01\x00\x00\x00" + bytes(144), looks_like_stun[:19], looks_like_stun + b"\xff"]
    for datagram in (*data, looks_like_stun[:-1] + b"\xff"):
        a.agent.send(datagram)
    a.agent.send(b"last")
    received: list[bytes] = []
    async with asyncio.timeout(2.0):
        while b"last" not in received:
            received.append(await b.datagrams.get())
    assert received == [*data, b"last"]
    assert b.agent.counters["answer_for_nobody"] == 1


@pytest.mark.parametrize("relayed", [(), ("a",), ("a", "b")])
async def test_who_is_given_data_can_ask_where_it_came_from(
    turn_server: Any, make_pair: MakePair, relayed: tuple[str, ...]
) -> None:
    over_relay = {"relay_only": True, "servers": (turn(turn_server.address),)}
    a, b = make_pair(**{f"for_{side}": over_relay for side in relayed})
    ours, theirs = await connect(a, b)
    await assert_carries(a, b)
    assert (a.sources, b.sources) == ({ours.remote}, {theirs.remote})
    assert a.agent.arrived_from is None


async def test_who_only_answers_tells_that_the_peer_is_not_heard_before_it_is_lost(make_pair: MakePair) -> None:
    a, b = make_pair(consent_interval_s=0.25, lost_after_s=1.0)
    await connect(a, b)
    assert b.agent.watches
    assert not a.agent.watches  # it asks
    await a.agent.close(0.3)
    async with asyncio.timeout(5.0):
        await b.losses.get()
    assert b.quiet > 0
    assert not b.agent.watches


async def test_through_one_relay_and_released_at_the_end(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(for_a={"relay_only": True, "servers": (turn(turn_server.address),)})
    ours, theirs = await connect(a, b)
    assert (ours.kind, ours.local_type) == (theirs.kind, theirs.remote_type) == ("relay", "relay")
    assert ours.local == theirs.remote
    assert [line for line in a.candidates if " typ host" in line or "srflx" in line] == []
    assert "raddr 0.0.0.0 rport 9" in a.candidates[0]
    await assert_carries(a, b)
    assert len(turn_server.allocations) == 1
    await a.agent.close(2.0)
    assert turn_server.allocations == {}
    assert ("REFRESH", 0) in turn_server.requests
    binds = [name for name, _ in turn_server.requests if name == "CHANNEL_BIND"]
    assert len(binds) == len({b.candidates[0]})


async def test_both_relayed(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(relay_only=True, servers=(turn(turn_server.address),))
    ours, theirs = await connect(a, b)
    assert (ours.local, ours.remote) == (theirs.remote, theirs.local)
    await assert_carries(a, b)


async def test_direct_is_preferred_over_a_relay(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(servers=(turn(turn_server.address),))
    ours, theirs = await connect(a, b)
    assert ours.kind == theirs.kind == "direct"
    assert (ours.local, ours.remote) == (theirs.remote, theirs.local)


async def test_a_stun_server_is_asked_and_a_redundant_answer_not_offered(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(servers=(IceServer("stun", *turn_server.address),))
    await connect(a, b)
    assert [name for name, _ in turn_server.requests] == ["BINDING", "BINDING"]
    assert len(a.candidates) == 2  # on loopback nothing translates: the host candidate, and the end


@pytest.mark.slow
async def test_gathering_stops_waiting_at_the_cap_and_connecting_does_not_wait(
    turn_server: Any, make_pair: MakePair
) -> None:
    turn_server.is_mute = True
    a, b = make_pair(servers=(turn(turn_server.address), IceServer("stun", *turn_server.address)), gather_cap_s=0.3)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    gathering = asyncio.gather(a.agent.gather(), b.agent.gather())
    await asyncio.gather(a.agent.connect(5.0), b.agent.connect(5.0))
    assert loop.time() - started_at < 0.25
    await gathering
    assert 0.29 < loop.time() - started_at < 0.6
    assert "" not in a.candidates  # the servers may still answer


@pytest.mark.slow
async def test_close_with_a_dead_relay_keeps_its_deadline(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(relay_only=True, servers=(turn(turn_server.address),))
    await connect(a, b)
    turn_server.is_mute = True
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await a.agent.close(0.3)
    assert loop.time() - started_at < 0.5
    assert a.agent.counters["relay_not_released"] == 1
    await b.agent.close(0.1)


async def test_wrong_relay_password_is_counted_not_fatal(turn_server: Any, make_pair: MakePair) -> None:
    a, b = make_pair(servers=(turn(turn_server.address, password="wrong"),))
    await connect(a, b)
    assert a.agent.counters["relay_not_allocated"] == 1


@pytest.mark.slow
async def test_a_silent_peer_is_lost_once(make_pair: MakePair) -> None:
    a, b = make_pair(lost_after_s=0.9, consent_interval_s=0.2)
    await connect(a, b)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await b.agent.close(1.0)
    async with asyncio.timeout(3.0):
        lost = await a.losses.get()
    assert lost.reason == "no_answer"
    assert lost.last_seen_s_ago == pytest.approx(0.9, abs=0.3)
    assert loop.time() - started_at == pytest.approx(0.8, abs=0.4)
    assert a.agent.path is None
    with pytest.raises(NeverConnected):
        await a.agent.connect(1.0)
    a.agent.send(b"nowhere")
    assert a.agent.counters["send_without_path"] == 1
    assert b.losses.empty()
    assert a.losses.empty()


@pytest.mark.slow
async def test_connect_ends_at_its_timeout_and_says_what_was_missing(make_pair: MakePair) -> None:
    a, _ = make_pair()
    await a.agent.gather()
    with pytest.raises(NeverConnected) as caught:
        await a.agent.connect(0.3)
    assert caught.value.reason == "timed_out"
    assert "1 local addresses" in caught.value.detail


async def test_close_while_connecting(make_pair: MakePair) -> None:
    a, _ = make_pair()
    connecting = asyncio.create_task(a.agent.connect(30.0))
    await asyncio.sleep(0)
    await a.agent.close(1.0)
    with pytest.raises(NeverConnected) as caught:
        await connecting
    assert caught.value.reason == "closed"
    await a.agent.close(1.0)
    with pytest.raises(NeverConnected):
        await a.agent.connect(1.0)


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "1 1 udp 1 host.example 5 typ host",
        "1 1 udp 1 203.0.113.1 0 typ host",
        "1 1 udp 1 203.0.113.1 99999 typ host",
        "1 2 udp 1 203.0.113.1 5 typ host",
        "1 1 tcp 1 203.0.113.1 5 typ host",
        "1 1 udp 1 224.0.0.1 5 typ host",
        "1 1 udp 1 0.0.0.0 5 typ host",
        "1 1 udp 1 fe80::1%lo 5 typ host",
        "1 1 udp \u0661 203.0.113.1 5 typ host",
        "1 1 udp 1 203.0.113.1 5 typ " + "host" * 200,
    ],
)
async def test_a_malformed_candidate_is_counted(make_pair: MakePair, line: str) -> None:
    a, _ = make_pair()
    a.agent.add_remote_candidate(line)
    assert a.agent.counters["malformed_candidate"] == 1


async def test_restart_moves_to_new_credentials_without_losing_a_datagram(make_pair: MakePair) -> None:
    a, b = make_pair()
    before, _ = await connect(a, b)
    ours, theirs = new_credentials()
    sent = 0
    restarting = asyncio.gather(a.agent.restart(ours, 5.0, 1), b.agent.restart(theirs, 5.0, 1))
    while not restarting.done():
        a.agent.send(sent.to_bytes(4, "big") + b"x")
        sent += 1
        await asyncio.sleep(0)
    after, after_b = restarting.result()
    assert after.local == before.local  # the sockets stay, and what a NAT knows of them
    assert (after.local, after.remote) == (after_b.remote, after_b.local)
    assert a.agent.path == after
    assert a.paths[0] == before
    assert len(a.paths) == 2
    await assert_carries_after(a, b, sent)
    assert a.losses.empty()


async def assert_carries_after(a: Side, b: Side, sent: int) -> None:
    a.agent.send(b"last")
    got: list[bytes] = []
    async with asyncio.timeout(2.0):
        while b"last" not in got:
            got.append(await b.datagrams.get())
    assert {int.from_bytes(data[:4], "big") for data in got[:-1]} == set(range(sent))


async def test_a_restart_takes_the_addresses_that_the_host_has_then(make_pair: MakePair) -> None:
    offered = {"127.0.0.1"}
    a, b = make_pair(host_filter=offered.__contains__)
    before, _ = await connect(a, b)
    offered.clear()
    offered.add("::1")
    ours, theirs = new_credentials()
    after, _ = await asyncio.gather(a.agent.restart(ours, 5.0, 1), b.agent.restart(theirs, 5.0, 1))
    assert (before.local[0], after.local[0]) == ("127.0.0.1", "::1")
    await assert_carries(a, b)


@pytest.mark.parametrize("lives", [True, False])
async def test_a_restart_knows_how_a_server_saw_the_sockets_even_if_it_has_died(
    lives: bool, turn_server: Any, make_pair: MakePair
) -> None:
    turn_server.mapped = ("203.0.113.7", 7000)
    a, b = make_pair(for_a={"servers": (IceServer("stun", *turn_server.address),)})
    await connect(a, b)
    assert reflexive_of(a) == [turn_server.mapped]
    if lives:
        turn_server.mapped = ("203.0.113.7", 7001)
    else:
        turn_server.is_mute = True
    ours, theirs = new_credentials()
    for generation in (1, 2):
        a.candidates.clear()
        ours, theirs = new_credentials()
        await asyncio.gather(a.agent.restart(ours, 5.0, generation), b.agent.restart(theirs, 5.0, generation))
        seen_at = reflexive_of(a)
        assert seen_at[0] == ("203.0.113.7", 7000) or generation == 2
    assert seen_at == [turn_server.mapped]  # and not what a NAT that has moved made of them once


@pytest.mark.parametrize("is_relay_late", [True, False])
async def test_where_only_a_relay_has_answered_our_own_port_is_offered_at_the_nat(
    is_relay_late: bool, turn_server: Any, make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflexive, "QUERY_INTERVALS_S", (0.05, 0.05, 0.05, 0.05, 0.3, 9.0))
    turn_server.mapped, turn_server.is_unseeing = ("203.0.113.7", 7000), True
    turn_server.delay_s = 0.15 if is_relay_late else 0.0
    a, b = make_pair(for_a={"servers": (turn(turn_server.address),)})
    await connect(a, b)
    own_port = next(parse_candidate(line) for line in a.candidates if " typ host" in line).address[1]
    assert reflexive_of(a) == [("203.0.113.7", own_port)]
    ours, theirs = new_credentials()
    turn_server.is_mute = True
    a.candidates.clear()
    await asyncio.gather(a.agent.restart(ours, 5.0, 1), b.agent.restart(theirs, 5.0, 1))
    assert reflexive_of(a) == [("203.0.113.7", own_port)]


async def test_nothing_is_guessed_where_a_server_has_told(turn_server: Any, make_pair: MakePair) -> None:
    turn_server.mapped = ("203.0.113.7", 7000)
    a, b = make_pair(for_a={"servers": (turn(turn_server.address),)})
    await connect(a, b)
    assert reflexive_of(a) == [("203.0.113.7", 7000)]


def reflexive_of(side: Side) -> list[tuple[str, int]]:
    candidates = [parse_candidate(line) for line in side.candidates if line]
    return [candidate.address for candidate in candidates if candidate.type == "srflx"]


async def test_candidates_of_a_restart_that_is_not_known_yet_are_held(make_pair: MakePair) -> None:
    a, b = make_pair()
    await connect(a, b)
    ours, theirs = new_credentials()
    b.peer = None  # nothing of b is told later: what a needs comes before its restart
    restarting = asyncio.create_task(b.agent.restart(theirs, 5.0, 3))
    for _ in range(5):
        await asyncio.sleep(0)
    assert b.candidates[2:][-1] == ""
    for line in b.candidates[2:]:
        a.agent.add_remote_candidate(line, 3)
    a.agent.add_remote_candidate(b.candidates[0], 2)
    path, _ = await asyncio.gather(a.agent.restart(ours, 5.0, 3), restarting)
    assert path.remote_type == "host"
    a.agent.add_remote_candidate(b.candidates[0], 0)
    assert a.agent.counters["candidate_of_past_generation"] == 1
    with pytest.raises(ValueError, match="generation"):
        await a.agent.restart(ours, 5.0, 3)


async def test_candidates_of_generations_to_come_are_held_in_bounds(make_pair: MakePair) -> None:
    a, _ = make_pair()
    for generation in range(1, 20):
        for port in range(1, 100):
            a.agent.add_remote_candidate(f"1 1 udp 1 203.0.113.1 {port} typ host", generation)
    assert a.agent.counters["early_candidate_over_limit"] == 19 * 99 - MAX_GENERATIONS * MAX_HELD


async def test_close_during_a_restart_ends_both(make_pair: MakePair) -> None:
    a, b = make_pair()
    await connect(a, b)
    ours, _ = new_credentials()
    restarting = asyncio.create_task(a.agent.restart(ours, 30.0, 1))
    await asyncio.sleep(0)
    await a.agent.close(1.0)
    with pytest.raises(NeverConnected) as caught:
        await restarting
    assert caught.value.reason == "closed"
    with pytest.raises(NeverConnected):
        await a.agent.restart(ours, 1.0, 1)


@pytest.mark.slow
async def test_a_restart_that_fails_leaves_the_old_path(make_pair: MakePair) -> None:
    a, b = make_pair()
    path, _ = await connect(a, b)
    ours, _ = new_credentials()
    with pytest.raises(NeverConnected):
        await a.agent.restart(ours, 0.3, 1)
    assert a.agent.path == path
    await assert_carries(a, b)


@pytest.mark.slow
async def test_a_loss_during_a_restart_is_told_when_the_restart_has_failed(make_pair: MakePair) -> None:
    a, b = make_pair(lost_after_s=0.4, consent_interval_s=0.1)
    await connect(a, b)
    await b.agent.close(1.0)
    ours, _ = new_credentials()
    with pytest.raises(NeverConnected):
        await a.agent.restart(ours, 0.9, 1)
    assert a.losses.qsize() == 1


def test_configuration_is_checked() -> None:
    ours, _ = new_credentials()
    with pytest.raises(ValueError, match="22 to 256"):
        replace(ours, local_password="short")
    with pytest.raises(ValueError, match="4 to 256"):
        replace(ours, remote_username="no spaces allowed")
    with pytest.raises(ValueError, match="needs allow_relay"):
        config_for(ours, relay_only=True, allow_relay=False)
    assert ours.local_password not in repr(config_for(ours))
    assert "secret" not in repr(turn(("127.0.0.1", 1)))


@pytest.fixture
async def coturn(tmp_path: FilePath) -> AsyncIterator[tuple[str, int]]:
    binary = shutil.which("turnserver")
    if binary is None:
        pytest.skip("coturn (turnserver) is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = [
        f"listening-port={port}",
        "listening-ip=127.0.0.1",
        "relay-ip=127.0.0.1",
        "lt-cred-mech",
        "user=exeunt:secret",
        "realm=test",
        "no-cli",
        "no-tls",
        "no-dtls",
        "allow-loopback-peers",
        "log-file=stdout",
        f"pidfile={tmp_path}/pid",
        f"userdb={tmp_path}/db",
    ]
    (tmp_path / "turn.conf").write_text("\n".join(options) + "\n")
    process = await asyncio.create_subprocess_exec(
        binary,
        "-c",
        str(tmp_path / "turn.conf"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(10.0):
            await _answers_tcp(port)
        yield "127.0.0.1", port
    finally:
        process.kill()
        await process.wait()


async def _answers_tcp(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            await writer.wait_closed()
            return


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_through_coturn(coturn: tuple[str, int], make_pair: MakePair, transport: Literal["udp", "tcp"]) -> None:
    server = IceServer("turn", *coturn, transport=transport, username="exeunt", password="secret")
    a, b = make_pair(relay_only=True, servers=(server,))
    ours, theirs = await connect(a, b)
    assert ours.kind == "relay"
    assert (ours.local, ours.remote) == (theirs.remote, theirs.local)
    await assert_carries(a, b)
    await assert_carries_trains(a, b, count=16)  # its sockets have small buffers
    await a.agent.close(2.0)
    assert a.agent.counters["relay_not_released"] == 0


async def test_what_icmp_says_of_the_path_is_counted(make_pair: MakePair) -> None:
    a, b = make_pair()
    path, _ = await connect(a, b)
    await b.agent.close(1.0)
    async with asyncio.timeout(2.0):
        while not a.agent.counters["path_refused"]:
            a.agent.send(b"anybody?")
            await asyncio.sleep(0.01)
    a.agent.take_unreachable(path.remote, refused=False)
    a.agent.take_unreachable(("127.0.0.1", 9), refused=False)  # a candidate that is not in use
    assert a.agent.counters["path_unreachable"] == 1
    assert a.losses.empty()


@pytest.mark.parametrize("role", ["controlling", "controlled"])
async def test_a_session_that_is_woken_too_early_sleeps_on(
    role: str, make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = make_pair()
    await connect(a, b)
    side = a if role == "controlling" else b
    session = side.agent._current  # pyright: ignore[reportPrivateUsage]
    looked = Mock()
    monkeypatch.setattr(IceMachine, "handle_timeout", looked)
    due = session._now() + 5.1  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(IceMachine, "poll_timeout", Mock(return_value=(due, "later")))
    monkeypatch.setattr(ReflexiveQueries, "poll_timeout", Mock(return_value=None))
    session._wake()  # pyright: ignore[reportPrivateUsage]
    set_to = session._timer_at  # pyright: ignore[reportPrivateUsage]
    looked.assert_not_called()
    assert set_to == due if role == "controlling" else due - COARSE_S < set_to <= due
    monkeypatch.setattr(IceMachine, "poll_timeout", Mock(return_value=(due - 6.0, "now")))
    session._wake()  # pyright: ignore[reportPrivateUsage]
    looked.assert_called_once()
