"""What this user may do on this host: open the TUN device, change the network, see the firewall."""

import errno
import os
from pathlib import Path
from typing import Final

from exeunt.actors.device.tun import TUN_NODE
from exeunt.actors.network.nftables import NftSocket

from ..check_contract import Rights

STATUS: Final = Path("/proc/self/status")
_CAP_NET_ADMIN: Final = 12


def examine_rights() -> Rights:
    """Try each. Changes nothing; takes milliseconds."""
    return Rights(tun=_tun(), net_admin=_net_admin(), nftables=_nftables())


def _tun() -> str | None:
    try:
        os.close(os.open(TUN_NODE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{TUN_NODE}: {os.strerror(error.errno or errno.EIO)}"
    return None


def _net_admin() -> str | None:
    """Look for CAP_NET_ADMIN (capabilities(7))."""
    try:
        lines = STATUS.read_text(encoding="ascii").splitlines()
    except OSError as error:
        return f"{STATUS} can't be read: {os.strerror(error.errno or errno.EIO)}"
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return None if effective >> _CAP_NET_ADMIN & 1 else "this user lacks CAP_NET_ADMIN"


def _nftables() -> str | None:
    try:
        with NftSocket() as nf_tables:
            nf_tables.tables()
    except Exception as error:  # noqa: BLE001 - NetworkError and OSError of several kinds: whatever it is, it is the answer
        return str(error) or type(error).__name__
    return None
