"""`exeunt paths`: every file and socket in use."""

from rich.text import Text

from ..contract import Directories
from ..instances import running
from ..output import ACCENT, DEFAULTS, Options, emit
from ..paths import Paths, current


def run(*, options: Options = DEFAULTS) -> None:
    """Show every directory and socket in use. EXEUNT_HOME=DIR puts them all below DIR.

    Args:
        options: The options that every command takes.
    """
    directories = _directories(current(), options)
    emit("exeunt.paths/1", directories, options=options, human=lambda: _render(directories))


def _directories(paths: Paths, options: Options) -> Directories:
    return Directories(
        config_dir=str(paths.config_dir),
        state_dir=str(paths.state_dir),
        log_dir=str(paths.log_dir),
        trace_dir=str(paths.trace_dir),
        run_dir=str(paths.run_dir),
        config_file=str(options.config or paths.config_file),
        sockets=[str(instance.socket) for instance in running(paths)],
    )


def _render(directories: Directories) -> Text:
    rows = [
        ("configuration", directories.config_file),
        ("secrets", f"{directories.config_dir}/secrets"),
        ("state", directories.state_dir),
        ("logs", directories.log_dir),
        ("traces", directories.trace_dir),
        ("run", directories.run_dir),
        *(("socket", socket) for socket in directories.sockets),
    ]
    # A path is for copying: it is never cut or broken, whatever the terminal's width.
    whole = Text(no_wrap=True, overflow="ignore")
    return whole.append_text(Text("\n").join(_row(name, path) for name, path in rows))


def _row(name: str, path: str) -> Text:
    return Text(f"{name:<15}", style="dim").append(path, style=f"not dim {ACCENT}")
