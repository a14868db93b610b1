"""The start of the command `relprop`: an interruption while it loads ends it without a traceback.

It is not a part of the package, because importing any part of it loads torch, which takes a second or more.
"""

import signal


def main() -> None:
    """Runs the command."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from relprop.cli import main as run

    run(lambda: signal.signal(signal.SIGINT, before))
