"""A page where anyone can ask EfficientNet-Lite0 why. Copy this folder, and put your own network in the place of MODEL."""

import os

from relprop.web import server
from relprop.web.guard import Rules
from relprop.web.limits import Limits
from relprop.web.page_subject import subject_of

MODEL = "efficientnet_lite0"  # or a torch.nn.Module in eval mode

LIMITS = Limits(waiting=20, seconds=60)
# Where this runs as a Space, its visitors ask for it under this name, and see it inside of a page of the hub.
NAME = os.environ.get("SPACE_HOST", "")
RULES = Rules(LIMITS, names=[NAME] if NAME else [], addresses=True, around=["https://huggingface.co"] if NAME else [])


def main() -> None:
    """Serves the page at the port that a Space listens to."""
    blocks = server.made([("efficientnet_lite0", lambda: subject_of(MODEL))], LIMITS)
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    running, place, address = server.served(blocks, host="0.0.0.0", port=port, rules=RULES)
    print(address, flush=True)
    running.run(sockets=[place])


if __name__ == "__main__":
    main()
