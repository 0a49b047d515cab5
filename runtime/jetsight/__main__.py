"""The command line as `python -m jetsight`."""

import sys

from jetsight.cli import main

if __name__ == "__main__":
    sys.exit(main())
