"""A cable with wireguard-go at its far end.

`EXEUNT_WIREGUARD_GO` names further binaries of it to test against, separated by colons.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.interop.wireguard.cable import Cable

BINARIES = ["wireguard-go", *filter(None, os.environ.get("EXEUNT_WIREGUARD_GO", "").split(":"))]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and skip it where it cannot work."""
    here = Path(__file__).parent
    why = None
    if os.geteuid() != 0:
        why = "needs root: network namespaces and TUN devices"
    elif not Path("/dev/net/tun").exists():
        why = "needs /dev/net/tun"
    elif not all(shutil.which(tool) for tool in ("wireguard-go", "wg")):
        why = "wireguard-go or wg is not installed"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.slow)
            if why is not None:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(params=BINARIES, ids=lambda path: Path(path).name)
async def cable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cable]:
    """A cable with wireguard-go at its far end."""
    cable = Cable(request.param, tmp_path)
    try:
        yield cable
    finally:
        cable.close()
