"""A network with trained weights, for the demonstration, the tests and a first look.

`relprop.zoo.images` reads pictures for it, and needs Pillow. The network needs only torch.
"""

from __future__ import annotations

from relprop.zoo.efficientnet_lite import EfficientNetLite0, efficientnet_lite0

__all__ = ["EfficientNetLite0", "efficientnet_lite0"]
