"""How every `exeunt admin` command comes to the portal's store, and to the secrets that it is given in files."""

import contextlib
import sqlite3
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..output import fail
from ..portal.errors import AlreadyExists, NotFound, PortalError
from ..portal.store import Store

Database = Annotated[
    Path | None, Parameter(help="The portal's SQLite file; by default portal.db in the state directory.")
]
OfSite = Annotated[str | None, Parameter(help="May be left out where there is only one site.")]


@contextlib.contextmanager
def open_store(database: Path | None, *, create: bool = False) -> Generator[tuple[Store, Path]]:
    """The portal's store; what goes wrong on it becomes a failure of the command."""
    from .portal_run import default_database

    path = database or default_database()
    if not create and not path.exists():
        fail("no_such_portal", f"There is no portal's database at {path}.", "Make one with: exeunt admin init")
    try:
        with contextlib.closing(Store(path)) as store:
            yield store, path
    except PortalError as error:
        fail(_code_of(error), str(error), error.hint)
    except (sqlite3.Error, FileNotFoundError, IsADirectoryError) as error:
        fail("database_failed", f"The portal's database at {path} cannot be used: {error}.")


def _code_of(error: PortalError) -> str:
    match error:
        case AlreadyExists():
            return "already_exists"
        case NotFound():
            return "no_such_thing"
        case _:
            return "invalid_value"


def first_line(path: Path, what: str) -> str:
    """The first line of a file that holds a secret."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        fail("config_invalid", f"The {what} cannot be read: {error}.")
