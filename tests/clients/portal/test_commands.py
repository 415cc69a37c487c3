"""`exeunt admin` and `exeunt portal run` as a person or a script uses them."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exeunt.clients import app

RunJson = Callable[..., tuple[int, Any]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXEUNT_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.fixture
def admin(home: Path, capsys: pytest.CaptureFixture[str]) -> RunJson:
    """Runs one `exeunt admin … --json`: its exit code, and what it answered."""

    def run(*words: str) -> tuple[int, Any]:
        code = app.run(["admin", *words, "--json"])
        document = json.loads(capsys.readouterr().out)
        return code, document.get("data", document.get("error"))

    return run


def test_init_makes_what_is_needed_once(admin: RunJson, home: Path) -> None:
    code, made = admin("init")
    assert code == 0
    assert made["site"] == "main"
    assert made["gateway"]["token"].startswith("gateway.")
    assert made["client"]["token"].startswith("client.")
    assert made["database"] == str(home / "state" / "portal.db")
    code, error = admin("init")
    assert (code, error["code"]) == (1, "already_exists")


def test_without_a_database_commands_say_what_to_run(admin: RunJson) -> None:
    code, error = admin("client", "list")
    assert (code, error["code"], error["hint"]) == (4, "no_such_portal", "Make one with: exeunt admin init")


def test_an_administrators_day(admin: RunJson, home: Path) -> None:
    secret = home / "secret"
    secret.write_text("a shared secret of ours\nand a comment\n")
    database = ("--database", str(home / "other.db"))
    assert admin("init", *database)[0] == 0
    assert admin("site", "add", "branch", *database)[1]["name"] == "branch"
    assert admin("gateway", "add", "g2", "--site", "branch", *database)[1]["site"] == "branch"
    assert admin("client", "add", "bob", *database)[1]["address_ipv4"] == "100.64.0.4"
    assert admin("token", "add", "bob", *database)[1]["name"] == "bob"
    added = admin("resource", "add", "mail", "10.21.0.0/24", "--site", "branch", "--for", "bob", *database)[1]
    assert added["clients"] == ["bob"]
    assert admin("policy", "allow", "client-1", "mail", *database)[0] == 0
    assert admin("policy", "deny", "bob", "mail", *database)[0] == 0
    assert admin("resource", "list", *database)[1][0]["clients"] == ["client-1"]
    assert len(admin("policy", "list", *database)[1]) == 2
    assert admin("relay", "add", "192.0.2.1:3478", "--secret-file", str(secret), *database)[1]["port"] == 3478
    assert "shared" not in json.dumps(admin("relay", "list", *database)[1])
    assert admin("relay", "remove", "192.0.2.1:3478", *database)[0] == 0
    assert [row["name"] for row in admin("gateway", "list", *database)[1]] == ["gateway-1", "g2"]
    assert [row["name"] for row in admin("site", "list", *database)[1]] == ["branch", "main"]
    assert admin("revoke", "bob", *database)[1] == {"peer": "bob", "resource": None, "tokens": 2}
    assert admin("revoke", "client-1:mail", *database)[1]["resource"] == "mail"
    assert [t["revoked_at"] is None for t in admin("token", "list", *database)[1]] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert admin("resource", "remove", "mail", *database)[0] == 0
    assert admin("sessions", *database)[1] == {"running": False, "present": [], "connections": [], "events": []}


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("revoke", "nobody"), 4, "no_such_thing"),
        (("client", "add", "client-1"), 1, "already_exists"),
        (("resource", "add", "r", "10.0.0.1/8"), 1, "invalid_value"),
        (("relay", "add", "h:1", "--secret-file", "/nonexistent"), 7, "config_invalid"),
        (("resource", "add"), 2, "usage"),
    ],
)
def test_mistakes_are_told_apart(admin: RunJson, words: tuple[str, ...], code: int, error: str) -> None:
    admin("init")
    assert (admin(*words)[0], admin(*words)[1]["code"]) == (code, error)


def test_what_is_no_database_is_left_alone(admin: RunJson, home: Path) -> None:
    (home / "text.db").write_text("This is not a database, and must not become one. " * 100)
    code, error = admin("init", "--database", str(home / "text.db"))
    assert (code, error["code"]) == (1, "database_failed")
    assert (home / "text.db").read_text().startswith("This is not")


def test_a_person_sees_tables_and_whole_tokens(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["init"], ["resource", "add", "web", "10.20.0.0/24"]):
        assert app.run(["admin", *words]) == 0
    made = capsys.readouterr().out
    (token,) = [line for line in made.splitlines() if line.startswith("client.")]
    assert len(token) == len("client.") + 12 + 1 + 43
    for kind in ("site", "gateway", "client", "resource", "relay", "policy", "token", "peer"):
        assert app.run(["admin", kind, "list"]) == 0
    assert app.run(["admin", "sessions", "--events"]) == 0
    listed = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in listed.splitlines()) <= 80
    assert "10.20.0.0/24" in listed
    assert token not in listed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_portal_runs_until_it_is_told_to_leave(home: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "exeunt.clients", "portal", "run", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("The portal is ready at http://127.0.0.1:"), line
        with urllib.request.urlopen(f"{line.split()[-1]}/healthz", timeout=5) as answer:
            assert answer.status == 200
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read().endswith("The portal has left.\n")
    assert (home / "state" / "portal.db").exists()


@pytest.mark.parametrize("listen", ["8080", "localhost:8080", "127.0.0.1:", "127.0.0.1:99999", "::1:80"])
def test_where_a_portal_cannot_listen(home: Path, capsys: pytest.CaptureFixture[str], listen: str) -> None:
    assert app.run(["portal", "run", "--listen", listen]) == 2
    assert "is not an address with a port" in capsys.readouterr().err
