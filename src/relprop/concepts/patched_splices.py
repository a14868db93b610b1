"""Interventions on what a splice makes of a layer's output: its latents, its error, its reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.splices import SpliceCalls
from relprop.engine.tensors import exchanged

Change = Callable[[str, Tensor], Tensor]
"""Gives the new value of a splice's tensor, by its name; or the tensor itself."""


class PatchedSplice(SpliceCalls):
    """One run of a layer whose splice is watched or changed.

    The layer's output `h` stands for `decode(z) + e`. With other latents `z'` it is `h + decode(z') - decode(z)`, so that
    without a change it stays `h`, bit for bit.
    """

    def output(self, given: Any, out: Any, names: Mapping[str, str], change: Change) -> Any:
        """What the layer returns. `names` has, for each wanted tensor of the splice, the name by which `change` knows it."""
        h, read = self.tensors(given, out)
        latents, numbers = self.encoded(read)
        rebuilt = self.decoded(latents, numbers, read, h)
        made = {"latents": latents, "reconstruction": rebuilt, "error": h - rebuilt}
        total = h
        for kind, name in names.items():
            new = change(name, made[kind])
            if new is made[kind]:
                continue
            if kind == "latents":
                every = None if numbers is None else torch.arange(new.shape[-1], device=new.device).expand_as(new)
                new, old = (self.decoded(z, every, read, h) for z in (new, latents))
            else:
                old = made[kind]
            total = total + (new - old)
        return out if total is h else exchanged(out, h, total)
