"""The console script.

Worker processes import this module again, as ``__mp_main__``, so at module level it imports nothing that
takes time.
"""

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from .app import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
