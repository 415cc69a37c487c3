"""A program whose supervisor a test kills: prints its workers' pids, then waits."""

import asyncio
import json
import sys
from pathlib import Path

from exeunt.runtime import ChildSpec, Directories, Supervisor, WorkerSpec


async def main(home: Path) -> None:
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
    )
    await supervisor.start()
    print(json.dumps([process.pid for process in supervisor.processes.values()]), flush=True)
    await supervisor.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
