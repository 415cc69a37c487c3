import importlib
import importlib.util
import subprocess
import sys
from typing import Any

import pytest

from exeunt.clients import app
from exeunt.clients.catalogue import COMMANDS, GROUPS, Command, overview
from exeunt.clients.output import ExitCode, Failure, exit_code_of

from .conftest import Cli, StartProgram

HEAVY = {
    "rich",
    "textual",
    "cyclopts",
    "msgspec",
    "psutil",
    "zmq",
    "pykka",
    "aioice",
    "pyroute2",
    "starlette",
    "uvicorn",
    "asyncio",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argv", "light"),
    [("['exeunt', '--help']", HEAVY), ("['exeunt', 'version', '--json']", HEAVY - {"cyclopts", "msgspec"})],
)
def test_imports_no_more_than_it_needs(argv: str, light: set[str]) -> None:
    code = (
        f"import sys; sys.argv = {argv}\n"
        "from exeunt.clients.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert done.stdout
    assert "exeunt.clients.__main__" in loaded
    # What the interpreter's own start loads (an editable install's finder) is not ours.
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert light & (loaded - set(bare.stdout.split())) == set()


def test_the_overview_names_every_command_and_fits_a_terminal(cli: Cli) -> None:
    shown = cli("--help")
    assert shown.code == 0
    assert shown.out == cli().out == cli("help").out == overview() + "\n"
    assert max(map(len, shown.out.splitlines())) <= 80
    for command in COMMANDS:
        assert f"  {' '.join(command.words)}" in shown.out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command.words))
def test_every_command_is_there(command: Command) -> None:
    module, _, attribute = command.import_path.partition(":")
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not part of this tree")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize(
    "words",
    [
        c.words
        for c in COMMANDS
        if c.target.split(":")[0]
        in {
            "sign_in",
            "sign_out",
            "status",
            "ping",
            "ps",
            "tree",
            "endings",
            "why",
            "logs",
            "trace",
            "stop",
            "paths",
            "version",
        }
    ],
)
def test_every_command_explains_itself(words: tuple[str, ...], cli: Cli) -> None:
    shown = cli(*words, "--help")
    assert shown.code == 0
    assert shown.out.startswith(f"Usage: exeunt {' '.join(words)}")
    assert "--timeout" in shown.out


def test_groups_are_those_of_the_table() -> None:
    assert set(GROUPS) == {command.words[0] for command in COMMANDS if len(command.words) > 1}


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (["--json", "ps"], ["ps", "--json"]),
        (["--timeout", "3s", "--color=never", "why", "x"], ["why", "x", "--timeout", "3s", "--color=never"]),
        (["--json", "why", "--", "-x"], ["why", "--json", "--", "-x"]),
        (["ps", "--json"], ["ps", "--json"]),
        (["--json"], ["--json"]),
        ([], []),
    ],
)
def test_global_options_may_come_first(given: list[str], seen: list[str]) -> None:
    assert app.globals_last(given) == seen


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["pss"], "no command pss. Did you mean ps?"),
        (["trace", "shw"], "no command trace shw. Did you mean show?"),
        (["ps", "--bogus"], "--bogus"),
        (["ps", "--timeout", "soon"], "'soon' is not a duration"),
        (["ps", "--color", "blue"], "blue"),
        (["why"], "PEER"),
        (["ping", "x", "-c", "0"], "Must be >= 1"),
        (["ps", "extra"], "extra"),
        (["--json"], "--json"),
    ],
)
def test_usage_errors(argv: list[str], words: str, cli: Cli) -> None:
    plain = cli(*argv)
    assert plain.code == 2
    assert words in plain.err
    if "--json" not in argv:
        assert plain.out == ""
    machine = cli(*argv, "--json")
    assert machine.code == 2
    assert machine.document["schema"] == "exeunt.error/1"
    assert machine.document["error"]["code"] == "usage"


def test_an_error_says_what_happened_and_what_to_run(cli: Cli) -> None:
    done = cli("ps", "--json")
    assert done.code == 3
    assert done.document["error"]["code"] == "not_running"
    assert done.document["error"]["message"] in done.err
    assert "exeunt client run" in done.document["error"]["hint"]
    assert "exeunt client run" in done.err


def _raising(error: BaseException) -> Any:
    def run(_: object) -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/run/x"), 6, "permission"),
        (RuntimeError("boom"), 1, "internal"),
        (Failure("no_such_trace", "None."), 4, "no_such_trace"),
    ],
)
def test_every_failure_takes_one_road(
    error: BaseException, code: int, word: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exeunt.clients.commands.version._version", _raising(error))
    done = cli("version", "--json")
    assert done.code == code
    assert done.document["error"]["code"] == word


def test_an_unforeseen_error_shows_its_origin_on_request(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exeunt.clients.commands.version._version", _raising(RuntimeError("boom")))
    assert "Traceback" not in cli("version").err
    assert "Traceback" in cli("version", "--verbose").err


@pytest.mark.parametrize(
    ("word", "code"),
    [("usage", 2), ("not_running", 3), ("not_connected", 3), ("no_such_peer", 4), ("no_such_actor", 4),
     ("timeout", 5), ("permission", 6), ("config_invalid", 7), ("anything", 1)],
)  # fmt: skip
def test_exit_codes(word: str, code: int) -> None:
    assert exit_code_of(word) == code


def test_a_programs_own_error_keeps_its_code(cli: Cli, start_program: StartProgram) -> None:
    from exeunt.runtime.control import ControlError

    start_program(ps=_raises(ControlError("no_such_actor", "There is no actor x.", "exeunt ps")))
    done = cli("ps", "--json")
    assert done.code == ExitCode.NOT_FOUND
    assert done.document["error"] == {"code": "no_such_actor", "message": "There is no actor x.", "hint": "exeunt ps"}


def _raises(error: Exception) -> Any:
    def answer(_: dict[str, Any]) -> None:
        raise error

    return answer


def test_an_answer_of_another_version_is_said_to_be_one(cli: Cli, start_program: StartProgram) -> None:
    start_program(ps=[{"address": 7}])
    done = cli("ps", "--json")
    assert done.code == 1
    assert done.document["error"]["code"] == "version_mismatch"


@pytest.mark.slow
def test_a_closed_pipe_is_no_error(paths: object) -> None:
    code = "import sys; from exeunt.clients.app import run; sys.exit(run(['version', '--json']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
