"""Configuration: a flag, else the environment, else the file, else the default.

The file is TOML with one table for each program (``[client]``, ``[gateway]``, …); a program describes
its table by a frozen struct whose fields have defaults. A field ``portal_url`` is also the variable
``EXEUNT_PORTAL_URL``. Secrets are no configuration: see `exeunt.clients.secrets`.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from .output import Options, fail
from .paths import Paths, ensure_private

T = TypeVar("T", bound=msgspec.Struct)


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[client]``."""

    portal_url: str | None = None
    """``ws://HOST:PORT`` or ``wss://…``; what ``exeunt sign-in --portal`` stored."""
    token_file: str | None = None
    """Read the token from here, not from where ``sign-in`` keeps it."""
    log_level: str = "INFO"
    """The least severity that is logged."""
    mtu: int = 1400
    """Of the tunnel's device, 1280 to 1400 bytes. Where a path takes less, that is found out and kept to."""


class GatewayConfig(ClientConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[gateway]``: as the client's, and more."""

    workers: int | None = None
    """Processes that clients are spread over; by default as many as the machine's cores are good for."""
    listen: str | None = None
    """UDP port for peers that speak plain WireGuard (``51820``), or HOST:PORT with the host by which they reach it."""


class CheckConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``[check]``."""

    relays: str | tuple[str, ...] = ()
    """What ``exeunt check`` tries where no program runs that knows relays: ``["HOST:PORT", "tls:HOST:PORT"]``."""


def load(
    type_: type[T],
    table: str,
    *,
    paths: Paths,
    options: Options,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> T:
    """The effective configuration of one program.

    Args:
        type_: the struct that describes the table.
        table: the table's name in the file.
        paths: names the file, unless ``--config`` does.
        options: the command's.
        environ: by default, the process's own.
        flags: the program's own flags by field; those that are None were not given.

    Raises:
        Failure: ``config_invalid`` (exit 7), naming the file and the key or the variable.
    """
    path = options.config or paths.config_file
    values: dict[str, Any] = dict(_table(path, table, must_exist=options.config is not None))
    _check(type_, values, f"{path}, [{table}]")
    overlay = _from_environment(type_, os.environ if environ is None else environ)
    _check(type_, overlay, "the environment (EXEUNT_…)")
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    return _check(type_, values | overlay | given, "the options given")


def store(path: Path, table: str, key: str, value: str) -> None:
    """Set one value in the file, keeping everything else in it, comments too. The file becomes 0600."""
    ensure_private(path.parent)
    before = path.read_text() if path.exists() else ""
    after = with_value(before, table, key, value)
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(after)
    temporary.replace(path)


def with_value(text: str, table: str, key: str, value: str) -> str:
    """The TOML document `text` with ``key = "value"`` in ``[table]``."""
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    quoted = msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
    assignment = f"{key} = {quoted}"
    lines = text.rstrip("\n").split("\n") if text else []
    header = next((n for n, line in enumerate(lines) if re.fullmatch(rf"\s*\[{table}\]\s*(#.*)?", line)), None)
    if header is None:
        gap = [""] if lines else []
        return "\n".join([*lines, *gap, f"[{table}]", assignment]) + "\n"
    end = next((n for n in range(header + 1, len(lines)) if lines[n].lstrip().startswith("[")), len(lines))
    for number in range(header + 1, end):
        if re.match(rf"\s*{key}\s*=", lines[number]):
            lines[number] = assignment
            break
    else:
        lines.insert(header + 1, assignment)
    return "\n".join(lines) + "\n"


def _table(path: Path, table: str, *, must_exist: bool) -> Mapping[str, Any]:
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if must_exist:
            fail("config_invalid", f"There is no configuration file {path}.")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fail("config_invalid", f"{path} is not valid TOML: {error}.")
    values = document.get(table, {})
    if not isinstance(values, dict):
        fail("config_invalid", f"{path}: [{table}] must be a table.")
    return msgspec.convert(values, dict[str, Any])


def _from_environment(type_: type[T], environ: Mapping[str, str]) -> dict[str, Any]:
    names = {field.name: f"EXEUNT_{field.name.upper()}" for field in msgspec.structs.fields(type_)}
    return {field: environ[name] for field, name in names.items() if environ.get(name)}


def _check(type_: type[T], values: Mapping[str, Any], where: str) -> T:
    try:
        # Not strict: an environment variable's number arrives as text.
        return msgspec.convert(values, type_, strict=False)
    except msgspec.ValidationError as error:
        return fail("config_invalid", f"Invalid configuration in {where}: {error}.")
