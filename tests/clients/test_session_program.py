"""What a client or a gateway checks before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from exeunt.clients import session_program
from exeunt.clients.output import DEFAULTS, ExitCode, Failure
from exeunt.clients.paths import current
from exeunt.clients.session_program import Settings, may_change_the_network, run

SETTINGS = Settings(side="client", portal_url="ws://127.0.0.1:1", token="t", name="n", device="exeunt0")


@pytest.mark.parametrize(
    ("capabilities", "allowed"), [("0000000000000000", False), ("0000000000001000", True), ("000001ffffffffff", True)]
)
def test_the_right_to_change_the_network_is_read_from_the_kernel(
    tmp_path: Path, capabilities: str, allowed: bool
) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapPrm:\tffff\nCapEff:\t{capabilities}\n")
    assert may_change_the_network(status) is allowed


def test_where_it_cannot_be_read_the_kernel_decides(tmp_path: Path) -> None:
    assert may_change_the_network(tmp_path / "none")


def test_without_it_a_client_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_program, "may_change_the_network", lambda: False)
    with pytest.raises(Failure) as failed:
        run(SETTINGS, paths=current({"EXEUNT_HOME": str(tmp_path)}), options=DEFAULTS)
    assert failed.value.exit_code == ExitCode.PERMISSION
    assert failed.value.error.hint is not None
    assert "sudo exeunt client run" in failed.value.error.hint


def test_an_mtu_that_no_path_carries_is_refused(tmp_path: Path) -> None:
    settings = Settings(side="client", portal_url="ws://127.0.0.1:1", token="t", name="n", device="exeunt0", mtu=9000)
    with pytest.raises(Failure) as failed:
        run(settings, paths=current({"EXEUNT_HOME": str(tmp_path)}), options=DEFAULTS)
    assert failed.value.exit_code == ExitCode.CONFIG_INVALID
