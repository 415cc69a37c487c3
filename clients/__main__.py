"""The console script.

Worker processes import this module again, as ``__mp_main__``, so at module level it imports nothing that
takes time.
"""

import logging
import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from .app import run

    argv = sys.argv[1:]
    code = run(argv)
    if argv[1:2] != ["run"]:
        sys.exit(code)
    # A program in the foreground has closed everything by name. Taking the interpreter down object by object would add
    # a tenth of a second to its leave, for nothing that anybody could see.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
