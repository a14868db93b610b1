"""`python -m relprop.cli` runs the command `relprop`."""

from relprop.cli import main

main()
