"""`stop` and `sign-out`: they return when the process is gone, and say how it went."""

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from exeunt.clients import secrets
from exeunt.clients.paths import Paths

from .conftest import AppendEnding, Cli, StartProgram

Sleeper = subprocess.Popen[bytes]


def _leaves(process: Sleeper, append_ending: AppendEnding | None = None, **ending: Any) -> Any:
    def stop(_: dict[str, Any]) -> dict[str, str]:
        if append_ending is not None:
            append_ending(**ending)
        process.terminate()
        return {"trace": "00000000000012ab"}

    return stop


def test_stop_returns_when_the_process_is_gone(
    cli: Cli, start_program: StartProgram, sleeper: Sleeper, append_ending: AppendEnding
) -> None:
    append_ending(acknowledged=False)  # an earlier one
    program = start_program(pid=sleeper.pid, stop=_leaves(sleeper, append_ending, cause="shutting_down"))
    done = cli("stop", "--json", "--strict")
    assert sleeper.poll() is not None
    assert done.code == 0
    assert program.calls == [("stop", {"reason": "shutting_down", "now": False})]
    data = done.data
    assert data.pop("left_after_ms") > 0
    assert data == {
        "instance": "client", "pid": sleeper.pid, "reason": "shutting_down", "trace": "00000000000012ab",
        "endings": 1, "unacknowledged": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("flags", "code"), [((), 0), (("--strict",), 8)])
def test_an_unacknowledged_goodbye_matters_only_when_strict(  # noqa: PLR0917 - fixtures
    flags: tuple[str, ...],
    code: int,
    cli: Cli,
    start_program: StartProgram,
    sleeper: Sleeper,
    append_ending: AppendEnding,
) -> None:
    start_program(pid=sleeper.pid, stop=_leaves(sleeper, append_ending, acknowledged=False))
    done = cli("stop", *flags)
    assert done.code == code
    assert "1 connection ended, 1 without an acknowledged goodbye" in done.out


def test_stop_now_says_so(cli: Cli, paths: Paths, start_program: StartProgram, sleeper: Sleeper) -> None:
    paths.endings_file("client").parent.mkdir(parents=True)  # as a program that has connections does
    program = start_program(pid=sleeper.pid, stop=_leaves(sleeper))
    done = cli("stop", "--now")
    assert program.calls[0][1]["now"] is True
    assert "no connection was open" in done.out


def test_a_program_that_stays_is_a_timeout(cli: Cli, start_program: StartProgram, sleeper: Sleeper) -> None:
    start_program(pid=sleeper.pid, stop={"trace": None})
    done = cli("stop", "--timeout", "50ms", "--json")
    assert done.code == 5
    assert done.document["error"]["code"] == "timeout"
    assert "--now" in done.document["error"]["hint"]


def test_stop_without_a_program(cli: Cli) -> None:
    assert cli("stop").code == 3


def test_sign_out_stops_the_client_and_forgets_the_token(
    cli: Cli, paths: Paths, start_program: StartProgram, sleeper: Sleeper
) -> None:
    stored = secrets.store_token(paths, "secret-token")
    start_program("gateway", stop={"trace": None})
    client = start_program("client", pid=sleeper.pid, stop=_leaves(sleeper))
    done = cli("sign-out", "--json")
    assert done.code == 0
    assert sleeper.poll() is not None
    assert client.calls[-1] == ("stop", {"reason": "signed_out", "now": False})
    assert done.data["token_removed"] is True
    assert done.data["departures"][0]["reason"] == "signed_out"
    assert not stored.exists()


def test_sign_out_when_nothing_runs(cli: Cli, paths: Paths) -> None:
    stored = secrets.store_token(paths, "secret-token")
    done = cli("sign-out", "--json")
    assert (done.code, done.data) == (0, {"departures": [], "token_removed": True})
    assert not stored.exists()
    assert "there was no token" in cli("sign-out").out


def test_a_token_is_kept_while_its_client_is_still_there(
    cli: Cli, paths: Paths, start_program: StartProgram, sleeper: Sleeper
) -> None:
    stored = secrets.store_token(paths, "secret-token")
    start_program(pid=sleeper.pid, stop={"trace": None})
    assert cli("sign-out", "--timeout", "50ms").code == 5
    assert stored.exists()


def test_sign_in_stores_the_token_privately_and_tells_the_client(
    cli: Cli, paths: Paths, start_program: StartProgram, tmp_path: Path
) -> None:
    client = start_program("client", sign_in=None)
    start_program("gateway")
    done = cli("sign-in", "--portal", "ws://127.0.0.1:8080", "--token-file", str(_token_file(tmp_path)), "--json")
    assert done.code == 0
    assert done.data["instances"] == ["client"]
    assert client.calls[-1] == ("sign_in", {"portal_url": "ws://127.0.0.1:8080"})
    stored = secrets.token_path(paths)
    assert stored.read_text().strip() == "secret-token"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
    assert "secret-token" not in done.out + done.err + paths.config_file.read_text()


def test_sign_in_remembers_the_portal(cli: Cli, tmp_path: Path) -> None:
    token_file = str(_token_file(tmp_path))
    assert cli("sign-in", "--token-file", token_file).code == 2
    first = cli("sign-in", "--portal", "wss://portal.example.com", "--token-file", token_file)
    assert "exeunt client run" in first.err
    assert cli("sign-in", "--token-file", token_file, "--json").data["portal_url"] == "wss://portal.example.com"


def test_sign_in_takes_the_token_out_of_the_environment(
    cli: Cli, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setenv("EXEUNT_TOKEN", "from-the-environment")
    assert cli("sign-in", "--portal", "ws://h:1").code == 0
    assert "EXEUNT_TOKEN" not in os.environ
    assert secrets.read_token(paths) == "from-the-environment"


def test_sign_in_needs_a_token(cli: Cli) -> None:
    done = cli("sign-in", "--portal", "ws://h:1")
    assert done.code == 2
    assert "EXEUNT_TOKEN" in done.err


@pytest.mark.parametrize("url", ["portal", "ftp://h", "ws://", "ws://h:port", "http://[", ""])
def test_sign_in_refuses_what_is_no_portal(url: str, cli: Cli) -> None:
    assert cli("sign-in", "--portal", url).code == 2


def test_others_must_not_read_the_token_file(cli: Cli, tmp_path: Path) -> None:
    token_file = _token_file(tmp_path)
    token_file.chmod(0o644)
    done = cli("sign-in", "--portal", "ws://h:1", "--token-file", str(token_file), "--json")
    assert done.code == 6
    assert "chmod 600" in done.document["error"]["hint"]


def _token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("secret-token\n")
    path.chmod(0o600)
    return path
