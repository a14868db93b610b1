"""Where the target lies, as the user says it: a mask for each sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.errors import InputError
from relprop.evaluation.subject import Subject


def truth_of(given: Any, subject: Subject, start: int, stop: int) -> Tensor | None:
    """The masks of some samples, boolean, with as many axes as the main input.

    Raises:
        InputError: they do not fit.
    """
    if given is None:
        return None
    main = subject.main
    found = torch.as_tensor(given) if hasattr(given, "__array__") and not isinstance(given, Tensor) else given
    if not isinstance(found, Tensor) or found.dtype != torch.bool:
        what = found.dtype if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"truth must be a boolean tensor that marks where the target lies; got {what}.")
    shape = tuple(found.shape)
    if found.ndim == main.ndim - 1 and main.ndim > 2:
        found = found.unsqueeze(1)
    if len(found) < stop or found.ndim != main.ndim:
        raise InputError(
            f"truth of shape {shape} does not fit inputs of {stop} samples of shape {tuple(main.shape[1:])}."
        )
    found = found[start:stop].to(main.device)
    if any(a not in (1, b) for a, b in zip(found.shape[1:], main.shape[1:], strict=True)):
        raise InputError(f"truth of shape {shape} does not fit inputs of shape {tuple(main.shape)}.")
    return found
