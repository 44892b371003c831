"""`python -m alloop`."""

from alloop.cli import main

if __name__ == "__main__":
    main()
