"""One check of one method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Check:
    """One check of one method.

    Attributes:
        name: what is checked.
        method: the method.
        passed: whether it passed; None if it was left out.
        value: the number that was judged; NaN if it was left out.
        limit: what it must reach, or must not.
        said: the number in words, or why the check was left out.
        map: the relevance of the first sample as a picture (H, W) or a row (1, U); None if there is none.
        truth: what it should have lain on, in the same shape; None if that is not known.
    """

    name: str
    method: str
    passed: bool | None
    value: float
    limit: float
    said: str
    map: Tensor | None = None
    truth: Tensor | None = None
