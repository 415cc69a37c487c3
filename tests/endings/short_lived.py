"""`exeunt portal run` with authorizations that last some seconds, which its command line does not offer."""

from __future__ import annotations

from functools import partial
from typing import Final
from unittest.mock import patch

LIFETIME_S: Final = 3.0


def main() -> None:
    from exeunt.clients.__main__ import main as command_line
    from exeunt.clients.portal.app import PortalConfig

    config = partial(PortalConfig, authorization_lifetime_s=LIFETIME_S)
    with patch("exeunt.clients.commands.portal_run.PortalConfig", config):
        command_line()


if __name__ == "__main__":
    main()
