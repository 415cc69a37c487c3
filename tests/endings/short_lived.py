"""`exeunt portal run` with authorizations that last some seconds: the portal offers that to programs, not on its command line."""

from __future__ import annotations

import functools
import sys
from typing import Final

LIFETIME_S: Final = 3.0


def main() -> None:
    from exeunt.clients import __main__
    from exeunt.clients.commands import portal_run
    from exeunt.clients.portal.app import PortalConfig

    config = functools.partial(PortalConfig, authorization_lifetime_s=LIFETIME_S)
    portal_run.PortalConfig = config  # type: ignore[misc, assignment]
    __main__.main()


if __name__ == "__main__":
    sys.exit(main())
