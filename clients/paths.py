"""Where exeunt keeps things, as a pure function of the environment and the user.

Three answers, in this order: below ``EXEUNT_HOME`` when it is set, so that two programs with different
homes never meet; the system's directories for root; the XDG directories (``platformdirs``) for anybody else.

A Unix socket's path may be 107 bytes long (``sun_path`` in unix(7) is 108 with its terminating NUL), and a
deep ``EXEUNT_HOME`` easily uses that up. Where it would not fit, the run directory moves to
``/tmp/exeunt-UID-HASH``, HASH being that of the directory it stands for: every program with the same home
still finds the same one. It is only used when it is ours and closed to others (`ensure_private` refuses
anything else), because anybody may create names in ``/tmp``.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOCKET_PATH_MAX_BYTES = 107
"""sun_path of unix(7), without the NUL."""

SOCKET_NAME_MAX_BYTES = 48
"""What a run directory leaves free for ``/INSTANCE/SOCKET`` below it."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The five directories of one home. None of them need exist yet: `ensure_private` creates."""

    config_dir: Path
    """What people write: ``config.toml``, and ``secrets/``."""
    state_dir: Path
    """What must survive a restart: one directory an instance, with its ``endings.jsonl``."""
    log_dir: Path
    """``*.log``, one JSON object a line."""
    trace_dir: Path
    """The workers' flight recorders, ``INSTANCE.WORKER.EPOCH.ring``."""
    run_dir: Path
    """What lives as long as a program: one directory an instance, with ``pid`` and ``control.sock``."""

    @property
    def config_file(self) -> Path:
        """The configuration that is read when ``--config`` names no other."""
        return self.config_dir / "config.toml"

    @property
    def secrets_dir(self) -> Path:
        """Tokens and keys; 0700, the files in it 0600."""
        return self.config_dir / "secrets"

    def instance_run_dir(self, instance: str) -> Path:
        """The directory with the instance's sockets and its pid file."""
        return self.run_dir / instance

    def control_socket(self, instance: str) -> Path:
        """The Unix stream socket on which a running instance answers commands."""
        return self.run_dir / instance / "control.sock"

    def side_door(self, instance: str) -> Path:
        """The socket at which a running instance shows its stacks while its loop is blocked."""
        return self.run_dir / instance / "side.sock"

    def pid_file(self, instance: str) -> Path:
        """The decimal process id of a running instance's supervisor."""
        return self.run_dir / instance / "pid"

    def endings_file(self, instance: str) -> Path:
        """The record of an instance's ended connections, JSON Lines."""
        return self.state_dir / instance / "endings.jsonl"


def current(environ: Mapping[str, str] | None = None, euid: int | None = None) -> Paths:
    """The directories for this environment and user (by default, the process's own)."""
    environ = os.environ if environ is None else environ
    euid = os.geteuid() if euid is None else euid
    home = environ.get("EXEUNT_HOME")
    if home:
        paths = _below(Path(home).expanduser().absolute())
    elif euid == 0:
        paths = Paths(
            config_dir=Path("/etc/exeunt"),
            state_dir=Path("/var/lib/exeunt"),
            log_dir=Path("/var/log/exeunt"),
            trace_dir=Path("/var/lib/exeunt/trace"),
            run_dir=Path("/run/exeunt"),
        )
    else:
        paths = _of_user(environ, euid)
    return Paths(
        config_dir=paths.config_dir,
        state_dir=paths.state_dir,
        log_dir=paths.log_dir,
        trace_dir=paths.trace_dir,
        run_dir=_short_enough(paths.run_dir, euid),
    )


def ensure_private(directory: Path) -> Path:
    """Create `directory` (and its parents) as 0700 and return it.

    Raises:
        PermissionError: it exists, and is no directory, is somebody else's, or others may write to it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{directory} is not a directory")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to another user (uid {found.st_uid})")
    if found.st_mode & 0o022:
        raise PermissionError(f"{directory} can be written to by other users")
    return directory


def is_instance_name(name: str) -> bool:
    """Whether `name` may be a directory's name: short, lower case, no separator, not hidden."""
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    return 0 < len(name) <= 24 and set(name) <= allowed and name[0].isalnum()


def _below(home: Path) -> Paths:
    return Paths(
        config_dir=home / "config",
        state_dir=home / "state",
        log_dir=home / "log",
        trace_dir=home / "trace",
        run_dir=home / "run",
    )


def _of_user(environ: Mapping[str, str], euid: int) -> Paths:
    # Imported here: only this branch needs it, and commands should start fast.
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("exeunt", appauthor=False)
    return Paths(
        config_dir=dirs.user_config_path,
        state_dir=dirs.user_state_path,
        log_dir=dirs.user_log_path,
        trace_dir=dirs.user_state_path / "trace",
        run_dir=_runtime_dir(environ, euid),
    )


def _runtime_dir(environ: Mapping[str, str], euid: int) -> Path:
    # Not every session has the variable (cron, su), and platformdirs warns on the terminal where it is missing.
    for candidate in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{euid}"):
        if candidate.startswith("/") and Path(candidate).is_dir():
            return Path(candidate) / "exeunt"
    return Path("/tmp") / f"exeunt-{euid}"  # noqa: S108 - as in _short_enough


def _short_enough(run_dir: Path, euid: int) -> Path:
    encoded = os.fsencode(run_dir)
    if len(encoded) + SOCKET_NAME_MAX_BYTES <= SOCKET_PATH_MAX_BYTES:
        return run_dir
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    return Path("/tmp") / f"exeunt-{euid}-{digest}"  # noqa: S108 - ensure_private refuses a directory that is not ours
