"""`python -m relprop` runs the command `relprop`."""

from relprop.cli import main

if __name__ == "__main__":
    main()
