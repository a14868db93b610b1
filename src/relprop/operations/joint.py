"""The weighted layer of a recurrent cell, `z = W x + r (U h + c) + b`: one layer over input and state together.

This follows the papers on recurrent networks (Arras et al. 2017). A rule sees the contributions of `[x; h]` to one `z`,
not two halves that each conserve by themselves. `r` is the reset gate of a GRU, a constant; in other cells it is 1.

Index letters: b sample, i input, h hidden unit, j row of z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import Propagate, custom
from relprop.engine.handling import decided
from relprop.engine.notes import adopt
from relprop.engine.origins import SOURCE, ChainStep
from relprop.engine.registry import TABLE
from relprop.engine.run import Run
from relprop.numerics import own, times
from relprop.operations.linear import layer
from relprop.operations.maps import Map
from relprop.operations.secants import secant
from relprop.operations.weighted import Weighted
from relprop.rules.base import Way
from relprop.torch_private.state import without_torch_function


@dataclass
class JointParameters:
    """The parameters of the layer."""

    input: Tensor  # (j, i)
    hidden: Tensor  # (j, h)
    input_bias: Tensor | None = None
    hidden_bias: Tensor | None = None


class StackedMap(Map):
    """`y = w x`, with weight (j, i) for all samples, or (b, j, i) for each."""

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = F.linear(x, w) if w.ndim == 2 else (w @ x[..., None])[..., 0]
        return y if b is None else y + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return s @ w if w.ndim == 2 else (s[..., None, :] @ w)[..., 0, :]


STACKED = StackedMap()
_STEP = ChainStep(torch.tanh, (SOURCE,), {})


def _secants_alone(run: Run) -> bool:
    """Whether no rule names activations, and nobody looks at them."""
    sites, trace = run.sites, run.trace
    by_family = sites.asked.by_family if not sites.undecided else {}
    plain = by_family is not None and "activation" not in by_family and not sites.nz
    return plain and trace.recorder is None and sites.log is None and not sites.journal.active


def tanh(run: Run, x: Tensor, propagate: Propagate | None = None) -> Tensor:
    """`tanh(x)`, with its place, in a cell where the secants act alone."""
    if not x.requires_grad:
        return torch.tanh(x)
    run.sites.stand(TABLE[torch.tanh], 1)
    with without_torch_function():
        return custom(x, lambda: torch.tanh(x.detach()), secant_of_tanh if propagate is None else propagate)


def secant_of_tanh(x: Tensor, g: Tensor) -> Tensor:
    """`g tanh(x) / x`, with 1 for the quotient at 0."""
    if x.dtype not in (torch.float32, torch.float64) or not own(x) or torch.is_grad_enabled():
        return times(secant(_STEP, x, False), g)
    return times(x.tanh().div_(x).nan_to_num_(nan=1.0, posinf=0.0, neginf=0.0), g)


class ResetWeight(Weighted):
    """The map at one step of a GRU. Its weight differs between samples and is made on demand."""

    __slots__ = ("_parts", "_reset")

    def __init__(self, parts: JointParameters, reset: Tensor, bias: Tensor | None) -> None:
        super().__init__(STACKED, parts.hidden, None, bias, parts.hidden, parts.hidden._version)
        self._parts, self._reset = parts, reset

    @property
    def weight(self) -> Tensor:
        """`[W, r U]`, for each sample."""
        given = self._parts.input.expand(len(self._reset), -1, -1)
        return torch.cat([given, self._reset[..., None] * self._parts.hidden], -1)


class Content:
    """The layer at all steps: a single place, so that a composite's rule acts on it as on one layer.

    `secants_alone` says whether each tanh of the cell needs its secant and no more.
    """

    def __init__(self, parts: JointParameters, run: Run) -> None:
        self._parts, self._run = parts, run
        entry = TABLE[F.linear]
        self._call = Call(run, entry, F.linear, (parts.input, parts.input), {}, [parts.input])
        self._rule: Any = self._call.rule
        way = self._call.way
        self._of_output = self._rule.of_output if way is Way.FORMULA else None
        # these rules need only the layer's value: the halves keep torch's own gradients
        plain = way in (Way.DEFAULT, Way.NATIVE, Way.BLOCKED)
        self._halves = not run.sites.nz_hidden and (plain or self._of_output is not None)
        self._whole: Weighted | None = None
        self.secants_alone = _secants_alone(run)

    def from_input(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The input's part of `z` at all steps, and the input as the steps need it."""
        with without_torch_function():
            given = F.linear(x if self._halves else x.detach(), self._parts.input, self._parts.input_bias)
        return given, x

    def __call__(self, given: Tensor, x: Tensor, h: Tensor, reset: Tensor | None = None) -> Tensor:
        """`z` at one step."""
        parts = self._parts
        with without_torch_function():  # what the mode sees costs more than what is computed here
            if not (x.requires_grad or h.requires_grad):
                with torch.no_grad():
                    return self._sum(given, F.linear(h, parts.hidden, parts.hidden_bias), reset)
            if self._halves:
                z = self._by_rule(self._sum(given, F.linear(h, parts.hidden, parts.hidden_bias), reset))
                adopt(self._run, z)
                return z
        with torch.no_grad(), without_torch_function():
            value = self._sum(given, F.linear(h, parts.hidden, parts.hidden_bias), reset)
        joined = torch.cat([x, h.to(x.dtype)], -1)
        call = Call(self._run, self._call.entry, F.linear, (joined, parts.input), {}, [joined], again=self._call)
        return layer(call, joined, self._weighted(reset), lambda: value)

    def tanh(self, given: Tensor, x: Tensor, h: Tensor, reset: Tensor | None = None) -> Tensor:
        """`tanh(z)` at one step. Where nobody looks in between, the rule and the secant act in one node."""
        if not (self._halves and self.secants_alone and (x.requires_grad or h.requires_grad)):
            return torch.tanh(self(given, x, h, reset))
        parts, of_output, run = self._parts, self._of_output, self._run
        with without_torch_function():
            z = self._sum(given, F.linear(h, parts.hidden, parts.hidden_bias), reset)
            if of_output is None:
                return tanh(run, decided(self._call.way, z))
            return tanh(run, z, lambda s, g: of_output(s, secant_of_tanh(s, g)))

    @staticmethod
    def _sum(given: Tensor, from_h: Tensor, reset: Tensor | None) -> Tensor:
        return given + (from_h if reset is None else reset * from_h)

    def _by_rule(self, z: Tensor) -> Tensor:
        if self._of_output is None:
            return decided(self._call.way, z)
        return custom(z, lambda: z.detach().clone(), self._of_output)

    def _weighted(self, reset: Tensor | None) -> Weighted:
        """The map at one step."""
        if reset is not None:
            return ResetWeight(self._parts, reset, self._bias(reset))
        if self._whole is None:
            with torch.no_grad(), without_torch_function():
                whole = torch.cat([self._parts.input, self._parts.hidden], 1)
            self._whole = Weighted(STACKED, whole, None, self._bias(None), whole, whole._version)
        return self._whole

    def _bias(self, reset: Tensor | None) -> Tensor | None:
        b, c = self._parts.input_bias, self._parts.hidden_bias
        if c is None:
            return b
        with torch.no_grad(), without_torch_function():
            c = c if reset is None else reset * c
            return c if b is None else b + c
