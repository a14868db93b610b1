"""Concepts and circuits as their papers write them: walks, conditions, edges. Dense, in float64.

Index letters: b sample, i input, j and k hidden units of the first and second layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import reference as ref
from reference import HandDown, Layer


def share(layer: Layer, x: Tensor, epsilon: float) -> Tensor:
    """The part of each output's relevance that each input gets: `S[b, i, j] = x_i w_ij / (z_j + eps sgn z_j)`."""
    w, bias = ref.affine(layer, x.shape[1:])
    c = ref.contributions(x, w)
    z = c.sum(1) + bias
    return ref.quotient(c, (z + epsilon * ref.sign(z))[:, None, :].expand_as(c))


def walks(layers: Sequence[Layer], x: Tensor, target: int, epsilon: float = 0.0) -> Tensor:
    """The relevance of every walk through two hidden layers with relus, (b, i, j, k): GNN-LRP's for a plain network."""
    first, second, last = layers
    h = first(x).relu()
    g = second(h).relu()
    score = last(g)[:, target]
    ends = share(last, g, epsilon)[:, :, target] * score[:, None]
    return torch.einsum("bij,bjk,bk->bijk", share(first, x, epsilon), share(second, h, epsilon), ends)


def conditioned(
    steps: Sequence[tuple[Layer, HandDown]], x: Tensor, seed: Callable[[Tensor], Tensor], masks: dict[int, Tensor]
) -> Tensor:
    """CRP, equation (6) of Achtibat et al. 2023: relevance of units outside `masks[n]` is set to 0 after step n."""
    inputs = [x]
    for layer, _ in steps:
        inputs.append(layer(inputs[-1]))
    r = seed(inputs[-1])
    for n in reversed(range(len(steps))):
        if n in masks:
            r = r * masks[n]
        layer, hand_down = steps[n]
        r = hand_down(layer, inputs[n], r)
    return r


def relp_of_gated(net: Any, x: Tensor, target: int) -> dict[str, Tensor]:
    """The coefficients of RelP for `out(x + down(silu(gate(n)) * up(n)))` with `n = RMSNorm(x)`, written out.

    Norm: its denominator is constant. Activation: `f(a) / a`. Product: half to each factor. Layers: their transpose.
    """
    scale = net.norm.weight / (x.square().mean(1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
    n = x * scale
    a, b = net.gate(n), net.up(n)
    at_sum = net.out.weight[target].expand(len(x), -1)
    at_product = at_sum @ net.down.weight
    at_gate = at_product * b / 2 * (torch.sigmoid(a))
    at_up = at_product * (a * torch.sigmoid(a)) / 2
    at_norm = at_gate @ net.gate.weight + at_up @ net.up.weight
    return {"x": at_sum + at_norm * scale, "norm": at_norm, "gate": at_gate, "up": at_up}


def spliced(h: Tensor, g: Tensor, sae: Any, error: str) -> dict[str, Tensor]:
    """Relevance of a spliced autoencoder `relu(W (h - c) + b)`, `D^T z + c` from `g` at its output, for LRP-0.

    What goes on to h: through the encoder `w_ki z_k G_k` to each entry h_i, and the error's, entry by entry, or nothing.
    """
    z = torch.relu((h - sae.c) @ sae.W.T + sae.b)
    e = h - z @ sae.D - sae.c
    at_latents = g @ sae.D.T
    latents = z * at_latents
    through = h * ((at_latents * (z > 0)) @ sae.W)
    return {
        "latents": latents,
        "error": e * g,
        "bias": sae.c * g,
        "below": through + (e * g if error == "pass" else 0.0),
    }
