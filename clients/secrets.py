"""Tokens: never an argument, never in the configuration, never left in the environment.

A token is looked for in this order: the file that a flag or the configuration names, ``EXEUNT_TOKEN``
(removed from the environment, which child processes inherit and others can read in /proc), the systemd
credential ``exeunt.token`` (systemd.exec(5), ``LoadCredential=``), and the file that ``exeunt sign-in``
wrote.
"""

import os
import stat
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from .output import fail
from .paths import Paths, ensure_private

VARIABLE: Final = "EXEUNT_TOKEN"
CREDENTIAL: Final = "exeunt.token"
TOKEN_MAX_BYTES: Final = 4096
"""Tokens are some 60 characters; a larger file is not one."""


def token_path(paths: Paths, program: str = "client") -> Path:
    """Where a program's token is stored."""
    return paths.secrets_dir / f"{program}.token"


def read_token(
    paths: Paths,
    *,
    program: str = "client",
    token_file: str | Path | None = None,
    environ: MutableMapping[str, str] | None = None,
) -> str | None:
    """The token to sign in with, or None if there is none anywhere.

    Raises:
        Failure: the named file cannot be read, is empty, or is readable by others (exit 6).
    """
    given = given_token(token_file=token_file, environ=environ)
    if given is not None:
        return given
    credentials = (os.environ if environ is None else environ).get("CREDENTIALS_DIRECTORY")
    if credentials and (Path(credentials) / CREDENTIAL).exists():
        return _read(Path(credentials) / CREDENTIAL)
    stored = token_path(paths, program)
    return _read(stored) if stored.exists() else None


def given_token(*, token_file: str | Path | None = None, environ: MutableMapping[str, str] | None = None) -> str | None:
    """The token that this command was given, by file (``-`` is stdin) or environment."""
    environ = os.environ if environ is None else environ
    from_environment = environ.pop(VARIABLE, None)
    if token_file is not None:
        return _clean(sys.stdin.readline(), "stdin") if str(token_file) == "-" else _read(Path(token_file))
    return _clean(from_environment, VARIABLE) if from_environment else None


def store_token(paths: Paths, token: str, *, program: str = "client") -> Path:
    """Keep a token for later, readable by its owner only; return where."""
    ensure_private(paths.secrets_dir)
    path = token_path(paths, program)
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
    temporary.replace(path)
    return path


def forget_token(paths: Paths, *, program: str = "client") -> bool:
    """Remove the stored token; return whether there was one."""
    path = token_path(paths, program)
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
                fail(
                    "permission",
                    f"Other users can read {path}.",
                    f"Run chmod 600 {path}, and renew the token.",
                )
            content = file.read(TOKEN_MAX_BYTES + 1)
    except FileNotFoundError:
        fail("usage", f"There is no token file {path}.")
    except IsADirectoryError:
        fail("usage", f"{path} is a directory, not a token file.")
    if len(content) > TOKEN_MAX_BYTES:
        fail("usage", f"{path} is too large for a token.")
    return _clean(content.decode("ascii", "replace"), str(path))


def _clean(text: str, source: str) -> str:
    token = text.strip()
    # The token itself must not show up in the message.
    if not token:
        fail("usage", f"The token from {source} is empty.")
    if not (token.isascii() and token.isprintable()) or " " in token:
        fail("usage", f"What {source} holds is not a token.")
    return token
