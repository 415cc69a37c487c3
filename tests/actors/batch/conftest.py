"""Every kernel that exists, so that each test holds for all of them."""

import importlib
import importlib.util

import pytest

from exeunt.actors.batch import Kernel
from exeunt.actors.batch.pure import PureKernel


def native() -> Kernel | None:
    """The kernel in C, where it is built."""
    if importlib.util.find_spec("exeunt.actors.batch.native") is None:
        return None
    kernel: Kernel | None = importlib.import_module("exeunt.actors.batch.native").load()
    return kernel


def kernels() -> dict[str, Kernel]:
    found: dict[str, Kernel] = {"pure": PureKernel(), "pure-alone": PureKernel(with_numpy=False)}
    compiled = native()
    return found if compiled is None else {**found, "native": compiled}


KERNELS = kernels()


@pytest.fixture(scope="session", params=list(KERNELS))
def kernel(request: pytest.FixtureRequest) -> Kernel:
    name: str = request.param
    return KERNELS[name]


@pytest.fixture(scope="session")
def reference() -> Kernel:
    """The plainest one."""
    return KERNELS["pure-alone"]
