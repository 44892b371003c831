"""`python -m alloop`."""

import sys

from alloop.cli import main

if __name__ == "__main__":
    sys.exit(main())
