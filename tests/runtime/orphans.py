"""A program whose supervisor a test kills: prints its workers' pids, then waits. On a Ray cluster, if one is named."""

import asyncio
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from exeunt.runtime import ChildSpec, Directories, Supervisor, WorkerSpec


async def main(home: Path, cluster: str = "") -> None:
    if cluster:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        ray: Any = importlib.import_module("ray")
        ray.init(address=cluster, _node_ip_address="127.0.0.2", log_to_driver=False, logging_level="error")
    supervisor = Supervisor(
        "o",
        workers=[WorkerSpec(name="w1"), WorkerSpec(name="w2")],
        children=[
            ChildSpec(
                id="c",
                worker="w1",
                start="tests.runtime.troupe:Chronicler",
                args={"file": str(home / "chronicle"), "name": "c"},
            ),
            ChildSpec(id="s", worker="w2", start="tests.runtime.troupe:Stubborn"),
        ],
        messages=["tests.runtime.troupe:MESSAGES"],
        directories=Directories(ipc=home / "i", logs=home / "l", traces=home / "t"),
        engine="ray" if cluster else "processes",
    )
    await supervisor.start()
    print(json.dumps([process.pid for process in supervisor.processes.values()]), flush=True)
    await supervisor.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
