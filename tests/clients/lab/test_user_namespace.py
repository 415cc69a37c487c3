"""The laboratory of somebody who is not root, in a user namespace."""

import os
import subprocess
import sys
import threading

import pytest

from exeunt.clients.lab import LabUnavailable, enter_user_namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else (uid 65534) needs root"),
]

# Becomes nobody. On a machine that keeps Python or the TUN device from others, it first shows itself a
# file system, in a mount namespace that nobody else sees, where they are not kept.
BECOME_NOBODY = """
import ctypes, os, sys
from exeunt.clients.lab.kernel import CLONE_NEWNS, unshare

MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
libc = ctypes.CDLL(None, use_errno=True)

def mount(source, target, kind, flags):
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")

unshare(CLONE_NEWNS)
mount("none", "/", "none", MS_REC | MS_PRIVATE)
mount("tmpfs", "/mnt", "tmpfs", 0)
os.mknod("/mnt/tun", 0o20666, os.makedev(10, 200))
os.chmod("/mnt/tun", int(sys.argv[1], 8))
mount("/mnt/tun", "/dev/net/tun", "none", MS_BIND)
home = "/" + sys.base_prefix.split("/")[1]
if not os.stat(home).st_mode & 1:
    os.makedirs("/mnt/python")
    mount(sys.base_prefix, "/mnt/python", "none", MS_BIND)
    mount("tmpfs", home, "tmpfs", 0)
    os.chmod(home, 0o755)
    os.makedirs(sys.base_prefix)
    mount("/mnt/python", sys.base_prefix, "none", MS_BIND)
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[2]])
"""

LABORATORY = """
import os, socket
from exeunt.actors.network import HostNetwork, leftovers
from exeunt.clients.lab import Delays, Impairment, Lab, LabUnavailable, enter_user_namespace

assert os.getuid() == 65534
try:
    enter_user_namespace()
except LabUnavailable as error:
    raise SystemExit(f"{error}; {error.hint}")
assert os.getuid() == 0

def gateway():
    with HostNetwork("gateway") as network:
        network.open_device("exeunt0", ["100.96.0.1/32", "fd00:2021::1/128"], 1280)
        network.add_route("100.96.0.0/11", "exeunt0")
        network.enable_forwarding(["exeunt0"], sources=["100.96.0.0/11", "fd00:2021::/64"], masquerade=True)
        network.allow("100.96.0.5", "10.20.0.0/24")
        assert len(leftovers()) == 3
    assert leftovers() == []

def udp(address):
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.settimeout(5)
    bound.bind((address, 4000))
    return bound

with Lab(gateways=2, client_nat="symmetric", gateway_nat="address_restricted") as lab:
    lab.gateways[0].run(gateway)
    with lab.client.run(lambda: udp("10.1.0.2")) as client, lab.internet.run(lambda: udp("192.0.2.1")) as place:
        client.sendto(b"hello", place.getsockname())
        assert place.recvfrom(100)[1][0] == "198.51.100.2"
    lab.lose(lab.client_site, 20)
    lab.cut(lab.gateway_site)
    child = lab.client.popen(["true"])
    assert child.wait() == 0
with Lab(client_nat="dual_stack", delays=Delays(edge_ms=1)) as lab:
    lab.impair(lab.client_site, Impairment(delay_ms=2))
    lab.rebind(lab.client_site)
    with lab.client.run(lambda: udp("10.1.0.2")) as client, lab.relay.run(lambda: udp("192.0.2.1")) as place:
        client.sendto(b"hello", place.getsockname())
        assert place.recvfrom(100)[1][0] == "198.51.100.2"
print("all is well")
"""


def as_nobody(code: str, tun_mode: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", BECOME_NOBODY, tun_mode, code], capture_output=True, text=True, check=False, cwd="/"
    )
    if "does not let an unprivileged user" in done.stderr or "allows no more user namespaces" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


@pytest.mark.slow
def test_nobody_can_have_a_laboratory() -> None:
    done = as_nobody(LABORATORY, "666")
    assert (done.stdout, done.stderr) == ("all is well\n", "")


@pytest.mark.slow
def test_a_tun_device_that_is_kept_from_us_is_told_with_a_way_out() -> None:
    done = as_nobody(LABORATORY, "600")
    assert "may not open /dev/net/tun" in done.stderr
    assert "chmod 666" in done.stderr


def test_a_process_of_several_threads_is_refused() -> None:
    leave = threading.Event()
    other = threading.Thread(target=leave.wait)
    other.start()
    try:
        with pytest.raises(LabUnavailable, match="one thread") as caught:
            enter_user_namespace()
        assert "root" in caught.value.hint
    finally:
        leave.set()
        other.join()
