"""`exeunt version`: what is installed."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from ..contract import Version
from ..output import DEFAULTS, Options, emit

LIBRARIES = ("aioice", "cryptography", "msgspec", "pykka", "pyroute2", "pyzmq", "uvloop", "websockets")
"""Those whose version matters in a report of a fault."""


def run(*, options: Options = DEFAULTS) -> None:
    """Show the versions of exeunt, Python and the libraries that matter.

    Args:
        options: The options that every command takes.
    """
    found = Version(
        version=version("exeunt"),
        python=platform.python_version(),
        platform=f"{sys.platform} {platform.release()} {platform.machine()}",
        libraries={name: number for name in LIBRARIES if (number := _version(name)) is not None},
    )
    emit("exeunt.version/1", found, options=options, human=lambda: _text(found))


def _text(found: Version) -> str:
    libraries = "\n".join(f"  {name:<13} {number}" for name, number in found.libraries.items())
    return f"exeunt {found.version}, Python {found.python}, {found.platform}\n{libraries}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
