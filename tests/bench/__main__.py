"""`make bench`: measures the runtime, and with root the tunnel; prints tables, writes `build/bench/*.json`."""

from __future__ import annotations

import os
from pathlib import Path

from . import runtime, tunnel

BUILD = Path("build/bench")


def main() -> None:
    reports = [runtime.run()]
    if os.geteuid() == 0:
        reports.append(tunnel.run())
    else:
        print("The tunnel is not measured: that needs root.")
    for report in reports:
        report.show()
        print(f"written to {report.write(BUILD)}")


if __name__ == "__main__":
    main()
