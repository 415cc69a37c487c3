import os
import stat
from pathlib import Path

import pytest

from exeunt.clients.paths import SOCKET_PATH_MAX_BYTES, current, ensure_private, is_instance_name


def test_a_home_holds_everything() -> None:
    paths = current({"EXEUNT_HOME": "/srv/one"}, 1000)
    assert paths.config_file == Path("/srv/one/config/config.toml")
    assert paths.endings_file("client") == Path("/srv/one/state/client/endings.jsonl")
    assert paths.control_socket("client") == Path("/srv/one/run/client/control.sock")
    assert {paths.log_dir.parent, paths.trace_dir.parent, paths.state_dir.parent} == {Path("/srv/one")}


def test_a_home_beats_being_root() -> None:
    assert current({"EXEUNT_HOME": "/srv/one"}, 0).state_dir == Path("/srv/one/state")


def test_root_uses_the_systems_directories() -> None:
    paths = current({}, 0)
    assert paths.config_dir == Path("/etc/exeunt")
    assert paths.control_socket("gateway") == Path("/run/exeunt/gateway/control.sock")


def test_a_user_has_directories_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/home/ada/.config")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ada/.local/state")
    paths = current({}, 4_000_000)
    assert paths.run_dir == Path("/tmp/exeunt-4000000")
    assert paths.config_dir == Path("/home/ada/.config/exeunt")
    assert paths.trace_dir == Path("/home/ada/.local/state/exeunt/trace")


def test_a_session_has_a_runtime_directory() -> None:
    assert current({"XDG_RUNTIME_DIR": "/tmp"}, 4_000_000).run_dir == Path("/tmp/exeunt")
    assert current({"XDG_RUNTIME_DIR": "tmp"}, 4_000_000).run_dir == Path("/tmp/exeunt-4000000")


def test_a_relative_home_does_not_depend_on_later_directory_changes() -> None:
    assert current({"EXEUNT_HOME": "here"}, 1000).config_dir.is_absolute()


def test_sockets_fit_however_deep_the_home_is() -> None:
    deep = {"EXEUNT_HOME": "/" + "deep/" * 40}
    paths = current(deep, 1000)
    longest = paths.instance_run_dir("x" * 24) / ("s" * 22)
    assert len(os.fsencode(longest)) <= SOCKET_PATH_MAX_BYTES
    assert paths.run_dir == current(deep, 1000).run_dir
    assert paths.run_dir != current({"EXEUNT_HOME": "/" + "deep/" * 41}, 1000).run_dir
    assert paths.state_dir.parts[1] == "deep"


def test_private_directories_are_closed_to_others(tmp_path: Path) -> None:
    made = ensure_private(tmp_path / "a" / "b")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert ensure_private(made) == made


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(PermissionError, match="written to by other users"):
        ensure_private(tmp_path / "open")


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(PermissionError, match="not a directory"):
        ensure_private(tmp_path / "link")


def test_somebody_elses_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    uid = tmp_path.stat().st_uid
    monkeypatch.setattr("exeunt.clients.paths.os.geteuid", lambda: uid + 1)
    with pytest.raises(PermissionError, match="another user"):
        ensure_private(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["client", "gateway-2", "a.b"])
def test_instance_names(name: str) -> None:
    assert is_instance_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "A", "-x", "x" * 25, "é"])
def test_names_that_are_no_instances(name: str) -> None:
    assert not is_instance_name(name)
