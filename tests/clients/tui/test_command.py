"""`exeunt top` where there is no screen to draw on."""

from typing import Any

from ..conftest import Cli, StartProgram

HANDLED = iter(range(0, 10_000, 5))


def ps(_args: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"address": "client/w1/a", "kind": "A", "state": "running", "worker": "w1", "pid": 7, "mailbox": 2,
         "handled_total": next(HANDLED), "restarts": 0, "since_s": 1.0, "cpu_percent": None, "rss_bytes": None},
    ]  # fmt: skip


def test_one_frame(cli: Cli, start_program: StartProgram) -> None:
    program = start_program(ps=ps)
    program.publish({"type": "GaveUp", "of": "client", "child": "w1"})
    shown = cli("top", "--once", "--every", "100ms")
    assert shown.code == 0, shown.err
    head, numbers, _, columns, actor, *_ = shown.out.splitlines()
    assert head.startswith("exeunt 0.1.0   client   ● running")
    assert "msg/s   queued 2" in numbers
    assert columns.split()[:4] == ["ACTOR", "WORKER", "STATE", "MSG/S"]
    assert actor.split()[:4] == ["a", "w1", "●", "running"]
    assert "GaveUp" in shown.out
    assert "\x1b" not in shown.out


def test_a_screen_needs_a_terminal(cli: Cli, start_program: StartProgram) -> None:
    start_program(ps=ps)
    shown = cli("top")
    assert (shown.code, shown.out) == (2, "")
    assert "exeunt top --once" in shown.err


def test_what_it_does_not_do(cli: Cli) -> None:
    assert cli("top", "--json").document["error"]["code"] == "usage"
    assert cli("top", "--once", "--every", "1ms").code == 2
    assert cli("top", "--once").code == 3
