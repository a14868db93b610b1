"""Finds a transformer's blocks, heads and neurons, and reads their relevance from one pass.

The input of an attention's output projection is ordered by heads, the input of an MLP's last layer by neurons, and the
input of a block by tokens. So the relevance of the *inputs* of these modules gives all three.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError

_INWARD = re.compile(
    r"(.*\.)?(w?[qkv]{1,3}|query|key|value|query_key_value|c_attn|in_proj)(_?(proj|lin|linear))?$", re.IGNORECASE
)
"""The names of layers that compute queries, keys and values."""


@dataclass(frozen=True)
class Parts:
    """Paths of a transformer's parts, block by block.

    Attributes:
        blocks: the blocks.
        attention: the output projection of each block's attention.
        mlp: the last layer of each block's MLP.
        heads: attention heads per block; 0 if the model does not tell.
    """

    blocks: tuple[str, ...]
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    heads: int

    @property
    def paths(self) -> list[str]:
        """All these paths, to pass as `layers=` together with `layers_at="input"`."""
        return [*self.blocks, *self.attention, *self.mlp]

    def of_blocks(self, layers: dict[str, Any], texts: int) -> Tensor:
        """Relevance of each token at the input of each block, (N, L, T)."""
        return torch.stack([_stream(layers, path, texts).sum(-1) for path in self.blocks], 1)

    def of_heads(self, layers: dict[str, Any], texts: int) -> Tensor | None:
        """Relevance of each attention head at each token, (N, L, H, T); None if the heads are not known."""
        found = [_stream(layers, path, texts, alone=True) for path in self.attention]
        if not self.heads or not found or any(r.shape[-1] % self.heads for r in found):
            return None
        return torch.stack([r.unflatten(-1, (self.heads, -1)).sum(-1).transpose(-2, -1) for r in found], 1)

    def of_neurons(self, layers: dict[str, Any], texts: int) -> list[Tensor]:
        """Relevance of each MLP neuron at each token, (N, T, D) for each block that has an MLP."""
        return [_stream(layers, path, texts, alone=True) for path in self.mlp]


def find_parts(model: nn.Module) -> Parts:
    """Finds blocks, heads and neurons. The blocks are the longest list of modules of one type.

    In each block, the attention is the module with "att" in its name (`attn`, `attention`, `SelfAttention`). Its output
    projection is its last weighted layer that is as wide as the model and does not compute queries, keys or values. The
    MLP's last layer is the last such layer outside the attention. Experts that share one weight have none.

    Raises:
        InputError: the model has no list of blocks.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"find_parts looks into a torch.nn.Module; got {type(model).__name__}.")
    lists = [
        (name, module) for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 0
        and len({type(child) for child in module}) == 1 and any(True for _ in module[0].children())
    ]  # fmt: skip
    if not lists:
        raise InputError("the model has no list of blocks (nn.ModuleList): name the layers you want, layers=[...].")
    name, blocks = max(lists, key=lambda found: len(found[1]))
    config = getattr(model, "config", None)
    attention, mlp = [], []
    for number, block in enumerate(blocks):
        dense = {path: out for path, m in block.named_modules() if (out := _width(m)) is not None}
        width = (
            getattr(config, "hidden_size", None)
            or max(Counter(dense.values()).items(), key=lambda c: c[1], default=(0,))[0]
        )
        last = {"att" in path.lower(): path for path, out in dense.items() if out == width and not _INWARD.match(path)}
        attention += [f"{name}.{number}.{last[True]}"] if True in last else []
        mlp += [f"{name}.{number}.{last[False]}"] if False in last else []
    told = [getattr(config, key, None) for key in ("num_attention_heads", "n_head", "n_heads", "num_heads")]
    heads = next((int(n) for n in told if isinstance(n, int)), 0)
    return Parts(tuple(f"{name}.{n}" for n in range(len(blocks))), tuple(attention), tuple(mlp), heads)


def _width(module: nn.Module) -> int | None:
    """The number of outputs of a dense layer of any class; None for other modules."""
    weight = getattr(module, "weight", None)
    if (
        not isinstance(weight, Tensor)
        or weight.ndim != 2
        or isinstance(module, nn.Embedding)
        or list(module.children())
    ):
        return None
    return int(getattr(module, "nf", weight.shape[0]))  # GPT-2's dense layers store their weight transposed


def _stream(layers: dict[str, Any], path: str, texts: int, alone: bool = False) -> Tensor:
    """The relevance of a module's input, (N, T, D): of its first tensor, which masks and angles follow."""
    caught = layers[path]
    several = isinstance(caught, list)
    found = (caught[0] if caught else None) if several else caught
    if isinstance(found, Tensor) and found.ndim == 2 and found.shape[0] % texts == 0:
        found = found.unflatten(0, (texts, -1))  # some models put the tokens of all texts in one row
    if (several and (alone or not caught)) or found is None or found.ndim != 3 or found.shape[0] != texts:
        raise InputError(
            f"parts: what enters {path!r} is not one tensor (texts, tokens, features); the module runs several times, or keeps "
            "another order. Ask for the layers you want by their paths, layers=[...]."
        )
    return found
