"""Test actors without processes, sleeps or chance.

    FakeClock         time that is moved by hand, or jumps when everybody waits (`FakeClock.run`)
    MemoryNetwork     the workers of a program as nodes on one loop, joined by memory
    Faults            drop, delay, duplicate, part: what a network may do to messages
    Probe             an actor that a test speaks through, and that checks what it is told
    wait_until_idle   return when nobody has anything to do

The `inline` engine (`exeunt.runtime.engine`) runs a whole supervised program the same way.
"""

from .clock import FakeClock
from .faults import Fault, Faults
from .idle import wait_until_idle
from .network import MemoryNetwork
from .probe import Probe

__all__ = ["FakeClock", "Fault", "Faults", "MemoryNetwork", "Probe", "wait_until_idle"]
