"""Calls that are made in another way than by the operation itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from relprop.engine.call import Call, Into


class Copied(Call):
    """A call on a copy of a tensor that the model overwrites."""

    __slots__ = ("_into",)

    def __init__(self, *args: Any, into: Into | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._into = into

    @property
    def into(self) -> Into | None:
        return self._into


class FinishedCall(Call):
    """A call of a custom autograd function that has returned. `call()` is its result, with its own backward pass."""

    __slots__ = ("value",)

    def __init__(self, *args: Any, value: Tensor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.value = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs) if args or kwargs else self.value
