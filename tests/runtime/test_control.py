"""The control socket: requests, errors, events, garbage."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.conftest import until

from exeunt.runtime import ActorDead, AskTimeout, Refused
from exeunt.runtime.control import (
    MAX_LINE_BYTES,
    ControlClient,
    ControlError,
    ControlServer,
    ControlTaken,
    ControlUnavailable,
)


class Program:
    """The commands of a program, for tests."""

    async def echo(self, args: dict[str, Any]) -> Any:
        return args

    async def fail(self, args: dict[str, Any]) -> Any:
        errors: dict[str, Exception] = {
            "control": ControlError("no_such_peer", "nobody of that name", "exeunt ps lists them"),
            "refused": Refused("not_now", "ask me tomorrow"),
            "timeout": AskTimeout("too slow"),
            "dead": ActorDead("gone"),
            "usage": KeyError("peer"),
            "bug": ZeroDivisionError("oops"),
        }
        raise errors[args["how"]]

    async def surrogate(self, _args: dict[str, Any]) -> Any:
        return "\udc80"

    async def hang(self, _args: dict[str, Any]) -> Any:
        await asyncio.Event().wait()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlServer]:
    program = Program()
    commands = {name: getattr(program, name) for name in ("echo", "fail", "surrogate", "hang")}
    server = ControlServer(tmp_path / "run" / "control.sock", commands)
    await server.start()
    yield server
    await server.close()


async def ask(server: ControlServer, command: str, timeout_s: float = 10.0, **args: Any) -> Any:
    def blocking() -> Any:
        with ControlClient(server.path) as client:
            return client.request(command, args, timeout_s)

    return await asyncio.to_thread(blocking)


def request_line(id_: int, command: str, complete: bool) -> bytes:
    args: dict[str, Any] | None = {} if complete else None
    return json.dumps({"id": id_, "command": command, "args": args}).encode()


async def lines(server: ControlServer, *sent: bytes) -> list[dict[str, Any]]:
    """Send lines, hang up, and return all answers."""
    reader, writer = await asyncio.open_unix_connection(server.path, limit=MAX_LINE_BYTES)
    writer.write(b"".join(line + b"\n" for line in sent))
    writer.write_eof()
    data = await reader.read()
    writer.close()
    return [msgspec.json.decode(line) for line in data.splitlines()]


async def test_a_command_gets_its_data(server: ControlServer) -> None:
    assert await ask(server, "echo", a=[1, {"b": None}]) == {"a": [1, {"b": None}]}


async def test_one_connection_carries_many_requests_in_order(server: ControlServer) -> None:
    requests = [msgspec.json.encode({"id": n, "command": "echo", "args": {"n": n}}) for n in range(200)]
    answers = await lines(server, *requests)
    assert [(one["id"], one["ok"], one["data"]["n"]) for one in answers] == [(n, True, n) for n in range(200)]


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("control", "no_such_peer"),
        ("refused", "not_now"),
        ("timeout", "timeout"),
        ("dead", "unavailable"),
        ("usage", "usage"),
        ("bug", "failed"),
    ],
)
async def test_an_error_has_a_code(server: ControlServer, how: str, code: str) -> None:
    with pytest.raises(ControlError) as error:
        await ask(server, "fail", how=how)
    assert error.value.code == code
    assert error.value.hint == ("exeunt ps lists them" if how == "control" else None)


async def test_an_unknown_command_is_named(server: ControlServer) -> None:
    with pytest.raises(ControlError, match="no such command: dance") as error:
        await ask(server, "dance")
    assert error.value.code == "usage"


async def test_an_answer_that_json_cannot_carry_is_an_error(server: ControlServer) -> None:
    with pytest.raises(ControlError, match="cannot be written as JSON"):
        await ask(server, "surrogate")
    assert await ask(server, "echo", a=1) == {"a": 1}


@pytest.mark.parametrize(
    "line",
    [b"", b"hello", b"{}", b"[]", b'{"id":"x","command":"echo"}', b'{"id":1,"command":"echo","args":[]}', b"\xff\xfe"],
)
async def test_a_malformed_line_is_answered_and_the_next_one_served(server: ControlServer, line: bytes) -> None:
    bad, good = await lines(server, line, b'{"id":2,"command":"echo"}')
    assert (bad["ok"], bad["error"]["code"]) == (False, "usage")
    assert good == {"id": 2, "ok": True, "data": {}}


async def test_a_line_nested_too_deep_is_answered(server: ControlServer) -> None:
    deep = b'{"id":1,"command":"echo","args":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}}"
    bad, good = await lines(server, deep, b'{"id":2,"command":"echo"}')
    assert bad["error"]["code"] == "usage"
    assert good["ok"]


async def test_a_line_without_end_ends_the_connection_only(server: ControlServer) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    try:
        writer.write(b"x" * (MAX_LINE_BYTES + 100_000))
        await writer.drain()
        assert await reader.read() == b""
    except ConnectionError:
        pass
    writer.close()
    assert await ask(server, "echo", a=1) == {"a": 1}


@pytest.mark.slow
async def test_garbage_lines_are_answered_each(server: ControlServer) -> None:
    garbage = st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=20).map(lambda tail: b'{"id":1,"command":' + tail),
        st.builds(request_line, st.integers(), st.sampled_from(["echo", "fail", "x"]), st.booleans()),
    )
    collected: list[bytes] = []

    @settings(max_examples=3_000, deadline=None)
    @given(garbage)
    def collect(line: bytes) -> None:
        collected.append(line.replace(b"\n", b" ").replace(b"subscribe", b"_"))

    collect()
    answers = await lines(server, *collected)
    assert len(answers) == len(collected) >= 1_000
    assert all(answer["ok"] is True or answer["error"]["code"] for answer in answers)
    assert await ask(server, "echo", a=1) == {"a": 1}


async def test_a_subscriber_gets_events_until_the_program_leaves(server: ControlServer) -> None:
    seen: list[int] = []

    def subscribe() -> None:
        with ControlClient(server.path) as client:
            seen.extend(event["n"] for event in client.events())

    subscriber = asyncio.create_task(asyncio.to_thread(subscribe))
    await until(lambda: server.subscribers == 1)
    server.publish({"n": 0})
    server.publish({"n": 1})
    await until(lambda: seen == [0, 1])
    await server.close()
    await subscriber
    assert seen == [0, 1]


async def test_a_subscriber_that_hangs_up_is_forgotten(server: ControlServer) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(b'{"id":1,"command":"subscribe"}\n')
    assert b"subscribed" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    await until(lambda: not server._connections)  # pyright: ignore[reportPrivateUsage]
    assert not server._subscribers  # pyright: ignore[reportPrivateUsage]
    server.publish({"n": 1})


async def test_what_a_slow_subscriber_misses_costs_no_memory(server: ControlServer) -> None:
    reader, writer = await asyncio.open_unix_connection(server.path)
    writer.write(b'{"id":1,"command":"subscribe"}\n')
    await reader.readline()
    await until(lambda: server._subscribers)  # pyright: ignore[reportPrivateUsage]
    for n in range(5_000):
        server.publish({"n": n})
    (queue,) = server._subscribers  # pyright: ignore[reportPrivateUsage]
    assert queue.qsize() == 1_000
    writer.close()


async def test_the_socket_is_ours_alone_and_removed_at_the_end(server: ControlServer) -> None:
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700
    await server.close()
    assert not server.path.exists()
    with pytest.raises(ControlUnavailable, match="nothing answers"):
        ControlClient(server.path)


async def test_a_dead_predecessors_socket_is_replaced_and_a_living_ones_is_not(
    server: ControlServer, tmp_path: Path
) -> None:
    second = ControlServer(server.path, {})
    with pytest.raises(ControlTaken):
        await second.start()
    await second.close()
    assert await ask(server, "echo", a=1) == {"a": 1}
    stale = tmp_path / "run" / "stale.sock"
    stale.write_text("")
    third = ControlServer(stale, {})
    await third.start()
    await third.close()


async def test_a_request_times_out(server: ControlServer) -> None:
    with pytest.raises(TimeoutError):
        await ask(server, "hang", timeout_s=0.01)


async def test_a_client_learns_that_the_program_left(server: ControlServer) -> None:
    waiting = asyncio.create_task(ask(server, "hang"))
    await until(lambda: server._connections)  # pyright: ignore[reportPrivateUsage]
    await server.close()
    with pytest.raises(ControlUnavailable):
        await waiting


@pytest.mark.parametrize("path", ["missing.sock", "a" * 120, "directory"])
def test_nothing_there_is_unavailable(tmp_path: Path, path: str) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(ControlUnavailable, match="nothing answers"):
        ControlClient(tmp_path / path)
