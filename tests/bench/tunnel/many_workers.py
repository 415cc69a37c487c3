"""`exeunt gateway run` with as many workers for its peers as EXEUNT_BENCH_WORKERS says."""

from __future__ import annotations

import os
from functools import partial
from unittest.mock import patch

VARIABLE = "EXEUNT_BENCH_WORKERS"


def main() -> None:
    from exeunt.actors.session import SessionConfig
    from exeunt.clients.__main__ import main as command_line

    config = partial(SessionConfig, peer_workers=int(os.environ[VARIABLE]))
    with patch("exeunt.clients.session_program.SessionConfig", config):
        command_line()


if __name__ == "__main__":
    main()
