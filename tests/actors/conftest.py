"""Event loops on a stage of fakes."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# So that the tests share the modules of fakes beside them.
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.actors.stage import Stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Four workers in one process, joined by memory; everybody but the event loop is played."""
    stage = Stage(tmp_path)
    yield stage
    await stage.close()
