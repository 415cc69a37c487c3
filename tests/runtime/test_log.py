"""Logs: whatever is logged, the line is one JSON object that begins with time, severity and message."""

import json
import logging
import re
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runtime.troupe import Fail, Player

from exeunt.runtime import log
from exeunt.runtime.log import JsonLines, rfc3339
from exeunt.runtime.node import Node

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


def line_of(message: object, *args: object, level: int = logging.INFO, **extra: Any) -> dict[str, Any]:
    record = logging.makeLogRecord({"msg": message, "args": args, "levelno": level, "name": "test", **extra})
    text = JsonLines(worker="w").format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    assert list(found)[:3] == ["time", "severity", "message"]
    assert TIME.fullmatch(found["time"])
    return found


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Log to a file, and read it back."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    root.handlers.clear()
    path = tmp_path / "l" / "n.w.log"
    log.configure(path, node="n", worker="w")

    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    yield read
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def test_a_line_has_its_facts_beside_the_sentence() -> None:
    found = line_of("A worker died", level=logging.ERROR, event="worker_died", pid=7, path=Path("/x"))
    assert (found["severity"], found["message"], found["worker"]) == ("ERROR", "A worker died", "w")
    assert (found["event"], found["pid"], found["path"]) == ("worker_died", 7, "/x")


@pytest.mark.parametrize(
    "value",
    [
        2**70,
        float("nan"),
        "\udc80",
        b"\xff",
        {"a": {1, 2}},
        {1: 2},
        object(),
        Broken(),
        [Broken()],
        ("a", None),
        1 + 2j,
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_odd_value_does_not_cost_the_line(value: object) -> None:
    found = line_of("Something odd", odd=value, fine="as it was")
    assert found["message"] == "Something odd"
    assert found["severity"] == "INFO"
    assert found["fine"] == "as it was"
    assert "odd" in found


def test_a_value_that_contains_itself_does_not_cost_the_line() -> None:
    circle: list[object] = []
    circle.append(circle)
    assert line_of("Round and round", circle=circle)["message"] == "Round and round"


@pytest.mark.parametrize("name", ["time", "severity"])
def test_a_field_cannot_replace_the_first_three(name: str) -> None:
    fields: dict[str, Any] = {name: "mine"}
    found = line_of("Hello", **fields)
    assert found[f"{name}_"] == "mine"


def test_arguments_that_do_not_fit_cost_the_arguments_only() -> None:
    assert line_of("%d bytes", "many")["message"] == "%d bytes"
    assert line_of("%d bytes", 3)["message"] == "3 bytes"
    assert line_of("two\nlines")["message"] == "two\nlines"
    assert line_of(None)["message"] == "None"
    assert line_of("\ud800")["message"] == "\\ud800"


def test_an_unnamed_level_is_named_somehow() -> None:
    assert isinstance(line_of("Hm", level=17)["severity"], str)


def test_an_exception_is_a_field() -> None:
    error = ValueError("on purpose")
    found = line_of("It failed", exc_info=(type(error), error, error.__traceback__))
    assert "ValueError: on purpose" in found["exception"]
    assert found["message"] == "It failed"


scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.binary(max_size=9))
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(scalars, scalars, max_size=3))


@settings(max_examples=1_000, deadline=None)
@given(st.text(max_size=20), values)
def test_anything_at_all_makes_a_line(message: str, value: object) -> None:
    line_of(message, value=value)


def test_nanoseconds_are_kept() -> None:
    assert rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000000000Z"


def test_the_file_is_ours_alone_and_appended_to(logged: Callable[[], list[dict[str, Any]]], tmp_path: Path) -> None:
    logging.getLogger("x").info("One", extra={"event": "one"})
    log.configure(tmp_path / "l" / "n.w.log", node="n", worker="w")
    logging.getLogger("x").warning("Two")
    logging.getLogger("x").debug("Not this one")
    assert [(line["message"], line["node"]) for line in logged()] == [("One", "n"), ("Two", "n")]
    assert stat.S_IMODE((tmp_path / "l" / "n.w.log").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "l").stat().st_mode) == 0o700
    at = datetime.fromisoformat(logged()[0]["time"][:26] + "+00:00")
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


async def test_what_an_actor_logs_names_it_and_its_trace(
    logged: Callable[[], list[dict[str, Any]]], node: Node
) -> None:
    player = Player()
    node.start(player, "p").tell(Fail("ValueError"))
    await player.until_ended()
    (line,) = logged()
    assert (line["message"], line["actor"], line["event"]) == ("An actor crashed", "n/w/p", "actor_crashed")
    assert re.fullmatch("[0-9a-f]{16}", line["trace"])
    assert line["error"] == "ValueError: on purpose"
