"""The laboratory as fixtures. Everything here needs root."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exeunt.clients.lab import Delays, Lab, NatKind

BuildLab = Callable[..., Lab]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and skip it where it cannot work."""
    here = Path(__file__).parent
    why = None
    if os.geteuid() != 0:
        why = "needs root: network namespaces and firewall rules"
    elif not Path("/dev/net/tun").exists():
        why = "needs /dev/net/tun"
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.root)
            if why is not None:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def build_lab() -> Iterator[BuildLab]:
    """Builds laboratories, which are taken down after the test."""
    labs: list[Lab] = []

    def build(
        client_nat: NatKind | str = NatKind.PORT_RESTRICTED,
        gateway_nat: NatKind | str = NatKind.NONE,
        *,
        delays: Delays | None = None,
    ) -> Lab:
        labs.append(Lab(client_nat=client_nat, gateway_nat=gateway_nat, delays=delays))
        return labs[-1]

    yield build
    for lab in labs:
        lab.close()
