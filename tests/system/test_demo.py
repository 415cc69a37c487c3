"""The demo as a person runs it: it ends well, and however it ends, nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from exeunt.actors.network import leftovers
from exeunt.clients.demo.home import sweep

DEMO = [sys.executable, "-m", "exeunt.clients", "demo"]


@pytest.fixture(autouse=True)
def own_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Temporary files go where no other test's demo has any."""
    with tempfile.TemporaryDirectory(prefix="demo-") as place:
        Path(place).chmod(0o755)  # one of them runs for another user
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield


def homes() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("exeunt-demo-*"))


def start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*DEMO, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def family(demo: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """Wait until the demo has so many processes below it; return them."""
    deadline = time.monotonic() + 30
    while len(found := psutil.Process(demo.pid).children(recursive=True)) < count:
        assert time.monotonic() < deadline
        assert demo.poll() is None
        time.sleep(0.02)
    return found


def assert_all_gone(processes: list[psutil.Process], *, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while left := [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def test_it_tells_what_it_did_as_a_document() -> None:
    done = subprocess.run([*DEMO, "--json"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "exeunt.demo/1"
    data = document["data"]
    assert data["sha256_ok"]
    assert data["drained"]
    assert data["leftovers"] == {}
    assert data["download_bytes"] >= 10_000_000
    assert data["path"] == "direct"
    assert len(data["workers"]) == 3
    assert {(one["side"], one["cause"], one["acknowledged"]) for one in data["endings"]} == {
        ("client", "signed_out", True),
        ("gateway", "signed_out", True),
    }


@pytest.mark.parametrize("scene", ["gateway-upgrade", "access-revoked", "worker-killed"])
def test_each_scene_comes_off(scene: str) -> None:
    done = subprocess.run([*DEMO, "--scene", scene], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing is left" in done.stdout
    assert "network_lost" not in done.stdout


def test_an_unknown_scene_is_a_usage_error() -> None:
    done = subprocess.run([*DEMO, "--scene", "nonsense"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals) -> None:
    before, host = homes(), set(leftovers())
    demo = start("--megabytes", "1000")
    below = family(demo, 12)
    if number == signal.SIGINT:
        os.killpg(demo.pid, number)  # as a terminal does: everybody in the foreground gets it
    else:
        demo.send_signal(number)
    _, talk = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert talk == "exeunt: Interrupted.\n"
    assert_all_gone(below, limit_s=1)
    assert homes() <= before
    assert set(leftovers()) <= host


def test_a_home_that_is_removed_meanwhile_is_no_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def glob(_place: Path, _pattern: str) -> Iterator[Path]:
        yield tmp_path / "exeunt-demo-1-gone"

    monkeypatch.setattr(Path, "glob", glob)
    assert sweep() == []


def test_a_killed_demo_takes_everybody_with_it_and_the_next_one_cleans_up() -> None:
    before, host = homes(), set(leftovers())
    demo = start("--megabytes", "1000")
    below = family(demo, 12)
    demo.kill()
    demo.communicate(timeout=20)
    assert_all_gone(below, limit_s=8)
    assert set(leftovers()) <= host
    assert homes() - before, "its home is still there: nobody was left to remove it"
    subprocess.run([*DEMO, "--json"], capture_output=True, check=True, timeout=60)
    assert homes() <= before


NOBODY = 65534


def python_for_nobody() -> list[str] | None:
    """A Python that an unprivileged user may run, with our packages: the one that runs this test, else the system's."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", "import zmq, msgspec"],
                check=True,
                user=NOBODY,
                group=NOBODY,
                env=nobodys_environ("/tmp"),
                cwd="/",
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return [python, "-m", "exeunt.clients", "demo"]
    return None


def nobodys_environ(home: str) -> dict[str, str]:
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    tree = Path(__file__).parents[2] / ".pkg"
    return {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home, "PYTHONPATH": f"{tree}:{packages}"}


def test_it_runs_for_a_user_who_is_not_root() -> None:
    if Path("/dev/net/tun").stat().st_mode & 0o006 != 0o006:
        pytest.skip("needs /dev/net/tun to be open to users (chmod 666)")
    demo = python_for_nobody()
    if demo is None:
        pytest.skip("needs a Python 3.11 that an unprivileged user may run")
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, NOBODY, NOBODY)
        done = subprocess.run(
            [*demo, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env=nobodys_environ(home),
            cwd=home,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["data"]["leftovers"] == {}
