"""`python -m relprop` runs the command `relprop`."""

from relprop.cli import main

main()
