import os
import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exeunt.clients import config, secrets
from exeunt.clients.config import ClientConfig, with_value
from exeunt.clients.output import ExitCode, Failure, Options
from exeunt.clients.paths import Paths


def _load(paths: Paths, environ: dict[str, str], options: Options | None = None, **flags: object) -> ClientConfig:
    options = options or Options()
    return config.load(ClientConfig, "client", paths=paths, options=options, environ=environ, flags=flags)


def _write(paths: Paths, text: str) -> Path:
    paths.config_dir.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text(text)
    return paths.config_file


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(paths: Paths) -> None:
    assert _load(paths, {}).mtu == 1400
    _write(paths, "[client]\nmtu = 2\n[gateway]\nanything = true\n")
    assert _load(paths, {}).mtu == 2
    assert _load(paths, {"EXEUNT_MTU": "3"}).mtu == 3
    assert _load(paths, {"EXEUNT_MTU": "3"}, mtu=4).mtu == 4
    assert _load(paths, {"EXEUNT_MTU": ""}, mtu=None).mtu == 2


def test_config_names_another_file(paths: Paths, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[client]\nportal_url = "ws://other:1"\n')
    assert _load(paths, {}, Options(config=other)).portal_url == "ws://other:1"
    with pytest.raises(Failure, match="There is no configuration file"):
        _load(paths, {}, Options(config=tmp_path / "absent.toml"))


@pytest.mark.parametrize(
    ("text", "environ", "words"),
    [
        ("[client]\nmtu = 'many'", {}, "mtu"),
        ("[client]\nworker = 1", {}, "unknown field `worker`"),
        ("client = 1", {}, "must be a table"),
        ("[client", {}, "not valid TOML"),
        ("", {"EXEUNT_MTU": "many"}, "environment"),
    ],
)
def test_what_is_invalid_is_named(text: str, environ: dict[str, str], words: str, paths: Paths) -> None:
    _write(paths, text)
    with pytest.raises(Failure) as caught:
        _load(paths, environ)
    assert caught.value.exit_code is ExitCode.CONFIG_INVALID
    assert words in str(caught.value)


def test_storing_a_value_keeps_the_rest(paths: Paths) -> None:
    before = (
        '# mine\n[client]\n# which\nportal_url = "ws://old:1"\nmtu = 2 # two\n\n[gateway]\nportal_url = "ws://g:1"\n'
    )
    _write(paths, before)
    paths.config_dir.chmod(0o700)
    config.store(paths.config_file, "client", "portal_url", "ws://new:1")
    assert paths.config_file.read_text() == before.replace("ws://old:1", "ws://new:1")
    assert stat.S_IMODE(paths.config_file.stat().st_mode) == 0o600


TABLES = st.dictionaries(
    st.sampled_from(["client", "gateway", "portal"]),
    st.dictionaries(st.sampled_from(["portal_url", "mtu", "portal_url_2"]), st.integers(), max_size=3),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(TABLES, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_stored_value_is_read_back_and_nothing_else_changes(tables: dict[str, dict[str, int]], value: str) -> None:
    text = "\n".join(
        line for name, values in tables.items() for line in (f"[{name}]", *(f"{k} = {v}" for k, v in values.items()))
    )
    found = tomllib.loads(with_value(text, "client", "portal_url", value))
    expected = {**tables, "client": {**tables.get("client", {}), "portal_url": value}}
    assert found == expected


def test_the_order_in_which_a_token_is_looked_for(paths: Paths, tmp_path: Path) -> None:
    assert secrets.read_token(paths, environ={}) is None
    secrets.store_token(paths, "stored")
    assert secrets.read_token(paths, environ={}) == "stored"
    (tmp_path / "exeunt.token").write_text("credential")
    (tmp_path / "exeunt.token").chmod(0o400)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert secrets.read_token(paths, environ=environ) == "credential"
    environ["EXEUNT_TOKEN"] = "variable"
    assert secrets.read_token(paths, environ=environ) == "variable"
    assert "EXEUNT_TOKEN" not in environ
    environ["EXEUNT_TOKEN"] = "variable"
    assert secrets.read_token(paths, environ=environ, token_file=tmp_path / "exeunt.token") == "credential"
    assert "EXEUNT_TOKEN" not in environ


def test_programs_have_tokens_of_their_own(paths: Paths) -> None:
    secrets.store_token(paths, "c")
    secrets.store_token(paths, "g", program="gateway")
    assert secrets.read_token(paths, program="gateway", environ={}) == "g"
    assert secrets.forget_token(paths)
    assert not secrets.forget_token(paths)
    assert secrets.read_token(paths, program="gateway", environ={}) == "g"


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\x1bb", "é", "x" * 5000])
def test_what_is_no_token_is_refused_without_being_shown(content: str, paths: Paths, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(Failure) as caught:
        secrets.read_token(paths, token_file=path, environ={})
    assert caught.value.exit_code is ExitCode.USAGE
    assert not content.strip() or content not in str(caught.value)


def test_a_pipe_may_hand_over_the_token(paths: Paths) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"piped\n")
    os.close(writing)
    assert secrets.read_token(paths, token_file=f"/dev/fd/{reading}", environ={}) == "piped"
    os.close(reading)
