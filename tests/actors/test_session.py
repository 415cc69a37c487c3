"""A session of real processes that ends without its workers: nothing of it stays on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from exeunt.actors.session import Session, SessionConfig
from exeunt.runtime import Directories

pytestmark = pytest.mark.timeout(30)


async def test_a_forced_end_leaves_no_file_to_be_handed_anything(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("none")
    config = SessionConfig(
        side="gateway",
        instance="forced",
        portal_url="ws://127.0.0.1:9",  # discard: nobody is there
        token_file=tmp_path / "token",
        name="forced",
        external_id="forced",
        directories=Directories(ipc=tmp_path / "ipc", logs=tmp_path / "log", traces=tmp_path / "trace"),
        endings_file=tmp_path / "endings.jsonl",
        peer_workers=2,
        manages_device=False,
    )
    session, _events = await Session.connect(config)
    waiting = [tmp_path / "ipc" / f"peers-{number}.device" for number in (1, 2)]
    async with asyncio.timeout(20):
        while not all(path.exists() for path in waiting):
            await session.describe()
    session.force()
    await session.ended()
    assert [path.name for path in (tmp_path / "ipc").iterdir()] == []


@pytest.mark.parametrize(("side", "count"), [("client", 2), ("gateway", 0), ("gateway", 17)])
async def test_there_cannot_be_any_number_of_workers(side: str, count: int, tmp_path: Path) -> None:
    config = SessionConfig(
        side=side,
        instance="many",
        portal_url="ws://127.0.0.1:9",
        token_file=tmp_path / "token",
        name="many",
        external_id="many",
        directories=Directories(ipc=tmp_path / "ipc", logs=tmp_path / "log", traces=tmp_path / "trace"),
        endings_file=tmp_path / "endings.jsonl",
        peer_workers=count,
    )
    with pytest.raises(ValueError, match=f"cannot have {count} workers"):
        await Session.connect(config)
