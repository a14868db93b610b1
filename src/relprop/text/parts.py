"""Where a transformer's blocks, heads and neurons are, and their relevance from one pass.

Relevance that enters the output projection of attention is laid out by heads, relevance that enters the last layer of
an MLP by neurons, and what enters a block is the stream of tokens. So the relevance of what *enters* these modules
tells all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from relprop.errors import InputError


@dataclass(frozen=True)
class Parts:
    """Paths of a transformer's parts, block by block.

    Attributes:
        blocks: the blocks.
        attention: the output projection of each block's attention.
        mlp: the last layer of each block's MLP.
        heads: attention heads per block; 0 where the model does not tell.
    """

    blocks: tuple[str, ...]
    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    heads: int

    @property
    def paths(self) -> list[str]:
        """All of them, to pass as `layers=` together with `layers_at="input"`."""
        return [*self.blocks, *self.attention, *self.mlp]

    def of_blocks(self, layers: dict[str, Any]) -> Tensor:
        """Relevance of each token where it enters each block, (N, L, T)."""
        return torch.stack([_stream(layers[path]).sum(-1) for path in self.blocks], 1)

    def of_heads(self, layers: dict[str, Any]) -> Tensor | None:
        """Relevance of each attention head at each token, (N, L, H, T); None where the heads are not known."""
        if not self.heads or not self.attention:
            return None
        found = [_stream(layers[path]) for path in self.attention]
        if any(r.shape[-1] % self.heads for r in found):
            return None
        return torch.stack([r.unflatten(-1, (self.heads, -1)).sum(-1).transpose(-2, -1) for r in found], 1)

    def of_neurons(self, layers: dict[str, Any]) -> list[Tensor]:
        """Relevance of each neuron of each MLP at each token, (N, T, D) per block."""
        return [_stream(layers[path]) for path in self.mlp]


def find_parts(model: nn.Module) -> Parts:
    """Finds blocks, heads and neurons: the blocks are the longest list of modules of one type.

    In each, the attention is the module named so (`attn`, `attention`, `SelfAttention`), and its output projection the
    last weighted layer in it; the MLP's last layer is the last weighted layer outside it.

    Raises:
        InputError: the model has no list of blocks.
    """
    lists = [
        (name, module) for name, module in model.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 0
        and len({type(child) for child in module}) == 1 and any(True for _ in module[0].children())
    ]  # fmt: skip
    if not lists:
        raise InputError("the model has no list of blocks (nn.ModuleList): name the layers you want, layers=[...].")
    name, blocks = max(lists, key=lambda found: len(found[1]))
    attention, mlp = [], []
    for number, block in enumerate(blocks):
        base = f"{name}.{number}"
        weighted = [path for path, m in block.named_modules() if _weighted(m)]
        inside = [path for path in weighted if any("att" in part.lower() for part in path.split("."))]
        outside = [path for path in weighted if path not in inside]
        if inside:
            attention.append(f"{base}.{inside[-1]}")
        if outside:
            mlp.append(f"{base}.{outside[-1]}")
    config = getattr(model, "config", None)
    told = [getattr(config, key, None) for key in ("num_attention_heads", "n_head", "n_heads", "num_heads")]
    heads = next((int(n) for n in told if isinstance(n, int)), 0)
    return Parts(tuple(f"{name}.{n}" for n in range(len(blocks))), tuple(attention), tuple(mlp), heads)


def _weighted(module: nn.Module) -> bool:
    """A dense layer, by whatever name: no children, and a matrix."""
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, Tensor)
        and weight.ndim == 2
        and not isinstance(module, nn.Embedding)
        and not list(module.children())
    )


def _stream(caught: Any) -> Tensor:
    """What came first of the tensors that entered: masks and angles follow."""
    return caught[0] if isinstance(caught, list) else caught
