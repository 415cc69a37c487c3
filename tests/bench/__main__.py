"""`make bench`: measures the runtime beside its peers, kernels, with root the tunnel; writes `build/bench/*.json`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

BUILD = Path("build/bench")


def bench_runtime(arguments: argparse.Namespace) -> None:
    from . import page, runtime, targets

    report, left_out = runtime.run(arguments.rounds or 5, arguments.only, arguments.patience)
    report.show()
    _tell(left_out)
    targets.show(report.figures)
    if arguments.page:
        print(page.tables(report.figures))
    print(f"written to {report.write(BUILD)}")


def bench_tunnel(arguments: argparse.Namespace) -> None:
    if os.geteuid() != 0:
        print("The tunnel is not measured: that needs root.")
        return
    from . import targets
    from .tunnel import chart, table
    from .tunnel.run import Wishes, run
    from .tunnel.targets import TARGETS

    wishes = Wishes(
        rounds=arguments.rounds or Wishes.rounds,
        seconds=arguments.seconds,
        only=arguments.only,
        figures=arguments.figures,
        mtu=arguments.mtu,
        profiles=arguments.profile,
        scaling=arguments.scaling,
    )
    report, left_out = run(wishes, arguments.patience)
    print(table.text(report.figures))
    _tell(left_out)
    targets.show(report.figures, TARGETS)
    if arguments.page:
        print(table.markdown(report.figures))
    print(f"written to {report.write(BUILD)}")
    if drawing := chart.draw(report.figures):
        path = BUILD / "tunnel.svg"
        path.write_text(drawing)
        print(f"drawn to {path}")
    if any(subject.startswith("exeunt") for subject in left_out):
        sys.exit(1)  # ours is not left out


def _tell(left_out: dict[str, str]) -> None:
    for subject, why in left_out.items():
        print(f"{subject} is left out: {why}")


def bench_kernel(rounds: int) -> None:
    from . import kernel

    report = kernel.run(rounds)
    report.show()
    print(f"written to {report.write(BUILD)}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.bench")
    parser.add_argument("what", choices=["runtime", "tunnel", "kernel"])
    parser.add_argument("--rounds", type=int, help="5, of the tunnel 3")
    parser.add_argument("--only", nargs="*", default=[], help="subjects (exeunt) or modules (cases.far)")
    parser.add_argument("--patience", type=float, default=120, help="seconds to wait for quiet moments, in all")
    parser.add_argument("--page", action="store_true", help="print the tables of docs/performance.md, too")
    tunnel = parser.add_argument_group("of the tunnel")
    tunnel.add_argument("--figures", nargs="*", default=[], help="only these figures (udp_pps) or measures (tcp1)")
    tunnel.add_argument("--seconds", type=float, default=1.5, help="of each measurement of a rate")
    tunnel.add_argument("--scaling", action="store_true", help="measure how cost grows, too: seven minutes more")
    tunnel.add_argument("--mtu", type=int, help="of every tunnel; by default each has its own")
    tunnel.add_argument("--profile", type=Path, metavar="DIR", help="write profiles of our workers")
    arguments = parser.parse_args()
    if arguments.what == "runtime":
        bench_runtime(arguments)
    elif arguments.what == "kernel":
        bench_kernel(arguments.rounds or 5)
    else:
        bench_tunnel(arguments)


if __name__ == "__main__":
    main()
