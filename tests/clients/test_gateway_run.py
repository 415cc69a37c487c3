"""How many workers a gateway has for its clients, and what their devices are called."""

import pytest

from exeunt.clients import config
from exeunt.clients.commands.gateway_run import default_workers, peer_workers
from exeunt.clients.config import GatewayConfig
from exeunt.clients.output import ExitCode, Failure, Options
from exeunt.clients.paths import Paths


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (64, 4)])
def test_by_default_one_core_is_left_to_the_kernel(cores: int, count: int) -> None:
    assert default_workers(cores) == count


def test_what_is_asked_for_is_done(paths: Paths) -> None:
    assert peer_workers(7, "exeunt-gw0") == 7
    found = config.load(GatewayConfig, "gateway", paths=paths, options=Options(), environ={"EXEUNT_WORKERS": "3"})
    assert found.workers == 3


@pytest.mark.parametrize(
    ("count", "device", "words"),
    [(0, "gw", "1 to 16"), (17, "gw", "not 17"), (2, "a-long-device1", "a-long-device1-2")],
)
def test_what_cannot_be_is_said(count: int, device: str, words: str) -> None:
    with pytest.raises(Failure, match=words) as caught:
        peer_workers(count, device)
    assert caught.value.exit_code is ExitCode.CONFIG_INVALID
