"""Weighted layers: linear, bilinear, convolutions. The rule acts in the backward pass; the forward is torch's own.

The forward pass computes and stores nothing extra for a rule. The input is saved, as torch saves it, and the output is
remembered through the relu that follows (`Kept`), so memory stays that of a gradient.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from string import ascii_letters
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.functions import custom, scaled
from relprop.engine.notes import Note
from relprop.engine.run import Run
from relprop.engine.tensor_attributes import NOTE
from relprop.engine.tensors import is_live
from relprop.errors import RuleError
from relprop.numerics import own
from relprop.operations.layer_view import LayerView
from relprop.operations.maps import Contraction, Convolution, Dense
from relprop.operations.parameters import weigh
from relprop.operations.patches import embeds_patches
from relprop.operations.saved_output import Kept, Output
from relprop.operations.signs import never_negative
from relprop.operations.steps import by_steps
from relprop.rules import Rule, WeightedRule, Zero
from relprop.rules.base import UNDECIDED, Way

PART = 4 * 2**20
"""The most entries that a CPU processes at once: with more, page faults cost more than arithmetic."""


class Weighted:
    """What a weighted layer's output remembers: how it was made, so that a BatchNorm can be folded into it."""

    def __init__(self, call: Call, x: Tensor, linear: Any, weight: Tensor, bias: Tensor | None) -> None:
        self.run: Run = call.run
        assert call.place is not None  # weighted families always have a place
        self.place, self.rule = call.place, call.rule
        self.nz = call.zeros_carry_hidden
        if self.nz and x.dtype is torch.float16:
            raise RuleError(
                f"{self.place}: a rule that gives relevance to exact zeros acts on a hidden layer, and float16 has no room "
                "for what stands in for a zero. Use bfloat16 or float32 (model.float()), or put the rule on the first "
                "layer only."
            )
        self.linear, self.plain = linear, weight.clone() if call.copies_are_kept else weight
        self._weight_version = self.plain._version
        self.source = weight
        self.positive = getattr(call.rule, "reads_signs", True) and never_negative(x)
        self._x, self._version = weakref.ref(x), x._version  # the output's note holds it, so the graph need not
        self.bias: Tensor | None = bias
        self.scale: Tensor | None = None
        self.shape, self.dtype = torch.Size(), x.dtype
        self.readers = 0
        self.rectifiers = 0
        self.output: weakref.ref[Tensor] | None = None
        self.kept: Kept | None = None
        self.probes: list[Callable[[Tensor], None]] = []
        self.followers: list[Callable[[Tensor], None]] = []
        """Who is shown the output of each map into which this layer is merged: relevance passes there, not here."""

    def apply(self, compute: Callable[[], Tensor]) -> Tensor:
        x = self._x()
        assert x is not None  # the output that was folded is alive, and its note holds it
        y = custom(x, compute, self.propagate)
        self.shape, self.dtype = y.shape, y.dtype
        journal = self.run.sites.journal
        if not (journal.active and journal.inside()):  # a checkpoint keeps nothing
            self.kept = Kept(y)
        self.output = weakref.ref(y)
        note = Note(self.run)
        note.layer, note.input = self, x
        NOTE.put(y, note)
        for follow in self.followers:
            follow(y)
        return y

    def read(self) -> None:
        """Counts an operation that reads the output."""
        self.readers += 1

    def stands_for(self, output: Tensor) -> None:
        """Notes the tensor that now stands for the output."""
        self.output = weakref.ref(output)

    def probe(self, report: Callable[[Tensor], None]) -> None:
        """Reports the layer's relevance, also where another layer is folded into it. The report is a reader."""
        self.probes.append(report)
        self.readers += 1

    def release_probes(self) -> None:
        """Reports no more."""
        self.probes.clear()

    def merged(self, scale: Tensor | None, shift: Tensor | None) -> Weighted:
        """This layer followed by a scale and a shift per output channel, as one linear map."""
        twin = copy.copy(self)
        if scale is not None:
            twin.scale = scale if self.scale is None else self.scale * scale
            twin.bias = None if self.bias is None else self.bias * scale
        if shift is not None:
            twin.bias = shift if twin.bias is None else twin.bias + shift
        twin.kept = None
        twin.readers = twin.rectifiers = 0
        return twin

    def seen_as(self, linear: Any, shape: torch.Size) -> Weighted:
        """This layer with another map of the same weight, whose output has this shape."""
        twin = copy.copy(self)
        twin.linear, twin.shape = linear, shape
        return twin

    @property
    def weight(self) -> Tensor:
        """The weight with folded scales. It is made on demand, so that no copy outlives its use."""
        return self.plain if self.scale is None else self.plain * self.linear.along_output(self.scale, self.plain)

    @property
    def merges(self) -> bool:
        """Whether the next operation can be folded into this layer: its input still has the same numbers."""
        x = self._x()
        return x is not None and x._version == self._version

    def vector(self, constant: Tensor) -> Tensor | None:
        """A constant that holds one number per channel of the output, as a vector over channels; None if it does not."""
        found: Tensor | None = self.linear.vector(constant, self.shape) if self.merges else None
        return found

    def alone(self) -> bool:
        """Whether relus are the output's only readers, now and later. Its relevance is 0 where theirs is."""
        return self.readers == self.rectifiers and (self.output is None or self.output() is None)

    def preserve(self, copy: Tensor | None = None) -> None:
        """Saves the output before it is overwritten: takes `copy`, if that is a copy of it, else makes one."""
        kept = self.kept
        if kept is not None and kept.value is not None:
            held = copy if copy is not None and kept.complete else kept.value.clone()
            kept.hold(held, rectified=kept.rectified, whole=kept.complete)

    def rectify(self, y: Tensor, inplace: bool, whole: bool = False) -> None:
        """Notes that a relu made `y` of the output, which equals it where relevance can arrive.

        With `whole`, `y` is the output itself, and the relu has a cap.
        """
        self.rectifiers += 1
        if inplace:
            self.output = None
        if self.kept is not None:
            self.kept.hold(y, rectified=True, whole=whole)

    def propagate(self, x: Tensor, g: Tensor) -> Tensor:
        if self.plain._version != self._weight_version:
            raise RuntimeError(f"the weight of {self.place} has been modified inplace")
        rule: Rule | None = self.run.sites.decide(self.place) if self.rule is UNDECIDED else self.rule
        way = Way.DEFAULT if rule is None else rule.way
        if way is Way.BLOCKED:
            return torch.zeros_like(x)
        if self.run.weights is not None and self.run.weights.active:
            plain = way is Way.NATIVE or (way is Way.DEFAULT and not self.nz)
            return self._weighed(x, g, None if plain else self.weighted_rule(rule or Zero()))
        if way is Way.NATIVE or (way is Way.DEFAULT and not self.nz):
            return self._native(x, g)
        rule = self.weighted_rule(rule or Zero())
        output = self._kept(g, rule.whole_output)
        memo: dict[str, Tensor] = {}
        whole = self.probes or not rule.separable or not own(g) or x.device.type != "cpu"
        if not whole and self._heavy(x) and not rule.whole_output:
            return self._by_output(x, g, output, rule)
        if whole or not self._wide(x, g):
            view = LayerView(self, x, output, memo)
            self._report(view, g)
            return rule.propagate(view, g)
        out = torch.empty_like(x)
        parts = -(-max(x.numel(), g.numel()) // PART)
        for rows in torch.arange(len(x)).tensor_split(min(parts, len(x))):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            view = LayerView(self, x[part], output.part(part), memo)
            out[part] = rule.propagate(view, g[part])
        return out

    def _weighed(self, x: Tensor, g: Tensor, rule: Any) -> Tensor:
        """`G` at the input, while the relevance of the weight is taken as well. `rule` is None for LRP-0."""
        view = LayerView(self, x, self._kept(g, rule is None or rule.whole_output), {})
        self._report(view, g)
        if rule is None and self.nz:
            g = g * (view.z != 0)
        return weigh(self.run.weights, self, x, g, view, rule)

    def weighted_rule(self, rule: Any) -> WeightedRule:
        """The rule, which must have a formula for weighted layers."""
        if self.place.family not in rule.formulas:
            raise RuleError(f"{rule!r} cannot act on {self.place}: it has no formula for weighted layers.")
        return rule

    def _native(self, x: Tensor, g: Tensor) -> Tensor:
        """LRP-0, which is torch's gradient."""
        view = LayerView(self, x, self._kept(g, whole=True) if self.probes or self.nz else Output(), {})
        self._report(view, g)
        if self.nz:  # relevance at an exact zero has no share in any input
            g = g * (view.z != 0)
        return view.transpose(g)

    def _kept(self, g: Tensor, whole: bool) -> Output:
        """The saved output, if there is one."""
        kept = self.kept
        if kept is None or torch.is_grad_enabled():
            return Output()
        kept.alone = self.alone()
        if self.run.final:  # the graph is not used again: free the memory as autograd does
            self.kept = None
        return kept.read(g, whole)

    def _report(self, view: LayerView, g: Tensor) -> None:
        for probe in self.probes:
            probe(view.relevance(g).to(g.dtype))

    def _by_output(self, x: Tensor, g: Tensor, output: Output, rule: WeightedRule) -> Tensor:
        """Processes a dense layer some outputs at a time, so that a modified copy of the whole weight never exists."""
        out = torch.zeros_like(x)
        per = max(1, PART // self.plain.shape[1])
        for start in range(0, self.plain.shape[0], per):
            rows = slice(start, start + per)
            some = copy.copy(self)
            some.plain = self.plain[rows]
            some.scale = None if self.scale is None else self.scale[rows]
            some.bias = None if self.bias is None else self.bias[rows]
            view = LayerView(some, x, output.part((..., rows)), {})
            out += rule.propagate(view, g[..., rows])
        return out

    def _heavy(self, x: Tensor) -> bool:
        """Whether a dense layer's memory is mostly its weight."""
        return isinstance(self.linear, Dense) and self.plain.numel() > max(PART, 8 * x.numel())

    def _wide(self, x: Tensor, g: Tensor) -> bool:
        """Whether the batch is so large that processing its samples in parts saves memory."""
        wide = isinstance(self.linear, Convolution) and x.ndim == self.plain.ndim and len(x) > 1
        return wide and max(x.numel(), g.numel()) > PART


def weighted(
    call: Call, x: Tensor, linear: Any, weight: Tensor, bias: Tensor | None, scale: Tensor | None = None
) -> Tensor:
    """A weighted layer with a constant weight: native for LRP-0, else remembered for its rule."""
    call.keeps_zeros()  # its rules deal with them
    if call.native:
        return call()
    if call.undecided and call.place is not None and call.place.first and embeds_patches(x, linear):
        call.trait("patches")
    if scale is None:
        return Weighted(call, x, linear, weight, bias).apply(lambda: call())
    return Weighted(call, x, linear, weight, None).merged(scale, bias).apply(lambda: call())


def two_live(call: Call, a: Tensor, b: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """A product of two operands that both carry relevance: half each."""
    return call(scaled(a, 0.5), scaled(b, 0.5), *rest, **kwargs)


def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if is_live(weight):
        return two_live(call, input, weight, bias) if is_live(input) else call()
    if bias is not None and bias.requires_grad:
        return with_live_bias(call, input, weight, bias) if is_live(input) else call()
    if call.native:
        call.keeps_zeros()
        return call()
    if weight.ndim == 1 and is_live(input):
        axes = ascii_letters[: input.ndim]
        return weighted(call, input, Contraction(axes, axes[-1], axes[:-1]), weight, bias)
    return weighted(call, input, Dense(), weight, bias) if is_live(input) else call()


def with_live_bias(call: Call, input: Tensor, weight: Tensor, bias: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
    """A layer whose bias carries relevance, too: a sum of two."""
    axes = 1 if call.entry.function is F.linear else weight.ndim - 1

    def steps(*args: Any, **options: Any) -> Tensor:
        y = call.function(input, weight, None, *rest, **kwargs)
        return y + bias.reshape(bias.shape + (1,) * (axes - 1))

    call.relocate("sum")
    call.keeps_zeros()
    result: Tensor = by_steps(steps)(call, *call.args, **call.kwargs)
    return result
