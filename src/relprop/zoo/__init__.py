"""A network with trained weights for the demonstration, the tests and a first look.

Pictures for it are read by `relprop.zoo.images`, which needs Pillow; the network needs torch only.
"""

from __future__ import annotations

from relprop.zoo.efficientnet_lite import EfficientNetLite0, efficientnet_lite0

__all__ = ["EfficientNetLite0", "efficientnet_lite0"]
