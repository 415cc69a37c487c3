"""What the documentation shows about the runtime works, word for word."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exeunt.clients.paths import current

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "runtime.md").read_text()
EXAMPLES = ROOT / "docs" / "examples"

pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    return found


def run(cwd: Path, *argv: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, *argv],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr  # what is logged of crashes and restarts may be there
    return done.stdout


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A directory with the files that the guide has one save."""
    for block in blocks("python"):
        named = re.match(r"# ([\w.]+)\n", block)
        assert named is not None, "each block begins with the name of the file that it is"
        (tmp_path / named[1]).write_text(block)
    return tmp_path


def command(start: str) -> str:
    """The program of the one `python -c '…'` in the guide's prose that begins so."""
    programs: list[str] = re.findall(r"`python -c '([^']*)'`", GUIDE)
    (found,) = [one for one in programs if one == start]
    return found


@pytest.mark.parametrize("arguments", ["", '"inline"'])
def test_the_guides_program_prints_what_the_guide_says(guide: Path, arguments: str) -> None:
    program = command(f"import asyncio, words; asyncio.run(words.main({arguments}))")
    assert run(guide, "-c", program) == blocks("text")[0]


@pytest.mark.parametrize("arguments", ["", '"inline"'])
def test_the_guides_nested_supervisor_does_what_the_guide_says(guide: Path, arguments: str) -> None:
    command("import asyncio, nested; asyncio.run(nested.main())")
    printed = run(guide, "-c", f"import asyncio, nested; asyncio.run(nested.main({arguments}))")
    assert printed in blocks("text")


def test_the_guides_program_leaves_a_trace(guide: Path) -> None:
    run(guide, "-c", "import asyncio, words; asyncio.run(words.main())")
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert commands[:2] == ["export EXEUNT_HOME=$PWD", "exeunt trace list"]
    listed = run(guide, "-m", "exeunt.clients", "trace", "list", "-n", "100", EXEUNT_HOME=str(guide))
    (number, *_) = next(line for line in listed.splitlines() if "Text" in line).split()
    shown = run(guide, "-m", "exeunt.clients", "trace", "show", number, EXEUNT_HOME=str(guide))
    assert "Text" in shown
    assert "Words" in shown
    assert list((guide / "ipc").iterdir()) == []


def test_the_guides_program_can_export_its_trace(guide: Path) -> None:
    run(guide, "-c", "import asyncio, words; asyncio.run(words.main('inline'))")
    run(guide, "export_trace.py")
    names = {event["name"] for event in json.loads((guide / "trace.json").read_text())["traceEvents"]}
    assert {"Text", "Words", "mailbox counter", "restart"} <= names


def test_the_guides_kettle_pours_as_the_guide_says(guide: Path) -> None:
    assert run(guide, "kettle.py") in blocks("text")


def test_the_guides_test_passes(guide: Path) -> None:
    assert run(guide, "test_words.py") == blocks("text")[1]


@pytest.mark.parametrize("engine", ["processes", "inline"])
def test_the_crawler_finds_everything_and_survives_a_broken_page(engine: str) -> None:
    said = run(ROOT, str(EXAMPLES / "crawler.py"), "--engine", engine).splitlines()
    assert [line.split(maxsplit=1) for line in said[:-1]] == [
        ["/", "Home"],
        ["/a", "A"],
        ["/b", "B"],
        ["/c", "C"],
        ["/broken", "failed: ValueError"],
        ["/missing", "failed: HTTPError"],
    ]
    restarted = re.findall(r"'fetcher-[12]': (\d)", said[-1])
    assert sum(map(int, restarted)) >= 1  # the last of the two may have been on its way when everybody left


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'exeunt[ray]'")
def test_the_cluster_goes_on_without_a_node() -> None:
    said = run(ROOT, str(EXAMPLES / "ray_cluster.py")).splitlines()
    assert [line for line in said if line.startswith(("first", "second", "restarts", "Outcome"))] == [
        "first act: 127.0.0.3 127.0.0.3",
        "second act: 127.0.0.4 127.0.0.4",
        "restarts: {'s1': 1, 's2': 1, 'tosca': 1, 'mario': 1}",
        "Outcome(failed=False, reason='shutdown', leftovers=())",
    ]


def test_the_guides_served_program_can_be_inspected(guide: Path) -> None:
    with subprocess.Popen([sys.executable, "serve_words.py"], cwd=guide, stderr=subprocess.PIPE) as program:
        try:
            # The last thing that is opened; the test's directory may be too long for a socket's path.
            socket = current({"EXEUNT_HOME": str(guide)}).side_door("words")
            while not socket.exists():
                assert program.poll() is None
            listed = run(guide, "-m", "exeunt.clients", "ps", EXEUNT_HOME=str(guide))
            assert "w2/splitter" in listed
            stopped = run(guide, "-m", "exeunt.clients", "stop", EXEUNT_HOME=str(guide))
            assert re.fullmatch(r"words left after \d+ ms\.\n", stopped)
        finally:
            program.kill()
    assert program.returncode == 0
    assert not socket.parent.parent.exists()
