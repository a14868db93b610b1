"""The hash of a model's weights, which tells which network a stored result is about."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn


def weights_sha256(model: Any) -> str | None:
    """SHA-256 over names, dtypes, shapes and bytes of the state. None for a function, or if weights are elsewhere."""
    if not isinstance(model, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if type(tensor) not in (Tensor, nn.Parameter) or tensor.is_meta:  # others may hold only a part, as a DTensor
            return None
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
