"""What the engine writes on tensors. No other file names these attributes."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Mark:
    """One attribute that the engine gives to tensors; it goes with the tensor."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = f"_relprop_{name}"

    def of(self, tensor: Tensor, otherwise: Any = None) -> Any:
        """What stands there; `otherwise` where nothing does."""
        return getattr(tensor, self.name, otherwise)

    def put(self, tensor: Tensor, value: Any) -> None:
        """Writes it."""
        setattr(tensor, self.name, value)


NOTE = Mark("note")
"""The note of a live tensor (`engine.notes`)."""
POSITIONS = Mark("positions")
"""Where the entries of a tensor of ids come from (`engine.tokens`)."""
PARAMETER = Mark("parameter")
"""The parameter that a constant stands for."""
STAND_IN = Mark("stand_in")
"""Another tensor with the same numbers, which operations take in its place."""
MET = Mark("met")
"""The node, weakly, by which the result of a custom function was met."""
WRITTEN = Mark("written")
"""Of an argument that a custom function writes into: a mark that its node has as well, and the note from before."""
SEEN = Mark("seen")
"""The counts of changes up to which all writes were seen (`engine.overwritten`)."""
