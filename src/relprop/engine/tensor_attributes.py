"""The attributes that the engine sets on tensors. No other file names them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Mark:
    """One attribute that the engine sets on tensors. It lives as long as the tensor."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = f"_relprop_{name}"

    def of(self, tensor: Tensor, otherwise: Any = None) -> Any:
        """Its value on a tensor; `otherwise` if it is not set."""
        return getattr(tensor, self.name, otherwise)

    def put(self, tensor: Tensor, value: Any) -> None:
        """Sets it."""
        setattr(tensor, self.name, value)


NOTE = Mark("note")
"""The note of a live tensor (`engine.notes`)."""
POSITIONS = Mark("positions")
"""Where the entries of a tensor of ids come from (`engine.integer_inputs`)."""
PARAMETER = Mark("parameter")
"""The parameter that a constant stands for."""
STAND_IN = Mark("stand_in")
"""Another tensor with the same numbers, which operations use in its place."""
MET = Mark("met")
"""A weak reference to the node with which the result of a custom function was met."""
WRITTEN = Mark("written")
"""On an argument that a custom function writes into: a mark that its node also has, and its earlier note."""
ELSEWHERE = Mark("elsewhere")
"""That the samples do not lie along the tensor's first axis (`engine.rows`)."""
SIGN = Mark("sign")
"""Of which live tensor a mask names the entries above a number, or those below (`engine.sign_masks`)."""
SEEN = Mark("seen")
"""The version counters up to which all writes were seen (`engine.overwritten`)."""
