"""Talking to the service manager."""

import socket
from pathlib import Path

import pytest

from exeunt.clients.notify import notify


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_state_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_abstract: bool) -> None:
    path = str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path if is_abstract else path)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + path if is_abstract else path)
        assert notify("READY=1")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("path", ["/nowhere/at/all", "relative"])
def test_a_deaf_service_manager_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    assert not notify("READY=1")
