"""`make bench`: measures the runtime beside its peers, kernels, with root the tunnel; writes `build/bench/*.json`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

BUILD = Path("build/bench")


def bench_runtime(rounds: int, only: list[str], patience_s: float, *, as_page: bool) -> None:
    from . import page, runtime, targets

    report, left_out = runtime.run(rounds, only, patience_s)
    report.show()
    for subject, why in left_out.items():
        print(f"{subject} is left out: {why}")
    targets.show(report.figures)
    if as_page:
        print(page.tables(report.figures))
    print(f"written to {report.write(BUILD)}")


def bench_tunnel() -> None:
    if os.geteuid() != 0:
        print("The tunnel is not measured: that needs root.")
        return
    from . import tunnel

    report = tunnel.run()
    report.show()
    print(f"written to {report.write(BUILD)}")


def bench_kernel(rounds: int) -> None:
    from . import kernel

    report = kernel.run(rounds)
    report.show()
    print(f"written to {report.write(BUILD)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("what", choices=["runtime", "tunnel", "kernel"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="subjects (exeunt) or modules (cases.far)")
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for quiet moments, in all")
    parser.add_argument("--page", action="store_true", help="print the tables of docs/performance.md, too")
    arguments = parser.parse_args()
    if arguments.what == "runtime":
        bench_runtime(arguments.rounds, arguments.only, arguments.patience, as_page=arguments.page)
    elif arguments.what == "kernel":
        bench_kernel(arguments.rounds)
    else:
        bench_tunnel()


if __name__ == "__main__":
    main()
