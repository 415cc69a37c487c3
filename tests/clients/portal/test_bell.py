"""The bell: who has changed the database is noticed at once, and without it soon."""

import asyncio
import contextlib
import os
import random
import stat
from pathlib import Path

import pytest

from exeunt.clients.portal import administration, io
from exeunt.clients.portal.bell import Bell, ring
from exeunt.clients.portal.directory import Directory
from exeunt.clients.portal.store import Store

from .conftest import UNIX


class Heard:
    """What somebody at the door has heard."""

    def __init__(self, bell: Bell) -> None:
        self.times = 0
        self._once = asyncio.Event()
        bell.listen(self._on_ring)

    def _on_ring(self) -> None:
        self.times += 1
        self._once.set()

    async def once(self) -> None:
        async with asyncio.timeout(5):
            await self._once.wait()


async def test_who_rings_is_heard_and_many_at_once_are_one(tmp_path: Path) -> None:
    database = tmp_path / "portal.db"
    with contextlib.closing(Bell(database)) as bell:
        heard = Heard(bell)
        assert all(ring(database) for _ in range(3))
        await heard.once()
        assert heard.times == 1
        assert stat.S_IMODE((tmp_path / "portal.db-bell").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == []


async def test_a_bell_that_nobody_answers_is_full_and_that_is_no_error(tmp_path: Path) -> None:
    database = tmp_path / "portal.db"
    with contextlib.closing(Bell(database)):
        filling = os.open(tmp_path / "portal.db-bell", os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(filling, bytes(65_536)):
                pass
        os.close(filling)
        assert ring(database)


async def test_without_a_portal_nobody_is_told(tmp_path: Path) -> None:
    assert not ring(tmp_path / "portal.db")


async def test_a_killed_portals_bell_is_silent_and_serves_the_next(tmp_path: Path) -> None:
    database = tmp_path / "portal.db"
    os.mkfifo(tmp_path / "portal.db-bell", 0o600)
    assert not ring(database)
    with contextlib.closing(Bell(database)) as bell:
        heard = Heard(bell)
        assert ring(database)
        await heard.once()


@pytest.mark.parametrize("kind", ["file", "link"])
async def test_what_is_no_bell_is_left_alone(kind: str, tmp_path: Path) -> None:
    precious = tmp_path / "portal.db-bell"
    if kind == "file":
        precious.write_text("precious")
    else:
        (tmp_path / "other").write_text("precious")
        precious.symlink_to(tmp_path / "other")
    with contextlib.closing(Bell(tmp_path / "portal.db")) as bell:
        bell.listen(lambda: None)
        assert not ring(tmp_path / "portal.db")
    assert precious.read_text() == "precious"


async def test_a_store_rings_if_it_has_changed_something(tmp_path: Path) -> None:
    database = tmp_path / "portal.db"
    with contextlib.closing(Store(database)) as store:
        administration.initialize(store, database, UNIX)
    with contextlib.closing(Bell(database)) as bell:
        heard = Heard(bell)
        with contextlib.closing(Store(database)) as store:
            store.directory()
        with contextlib.closing(Store(database)) as store:
            administration.revoke(store, "client-1", now_unix=UNIX)
        await heard.once()
        assert heard.times == 1


@pytest.mark.parametrize("rings", [True, False])
async def test_a_portal_looks_when_it_is_rung_and_else_by_itself(
    rings: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "portal.db"
    monkeypatch.setattr(io, "POLL_INTERVAL_S", 3600 if rings else 0.01)
    with contextlib.closing(Store(database)) as store:
        administration.initialize(store, database, UNIX)
    portal = io.PortalIO(Store(database), rng=random.Random(1), bell=Bell(database) if rings else None)
    seen = asyncio.Event()

    def handle_directory(_directory: Directory, _now: float) -> None:
        seen.set()

    monkeypatch.setattr(portal._machine, "handle_directory", handle_directory)  # pyright: ignore[reportPrivateUsage]
    portal.start()
    try:
        with contextlib.closing(Store(database)) as store:
            administration.add_site(store, "another")
        async with asyncio.timeout(5):
            await seen.wait()
    finally:
        portal.close()
