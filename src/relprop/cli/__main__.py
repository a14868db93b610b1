"""`python -m relprop.cli` is `relprop`."""

from relprop.cli import main

main()
