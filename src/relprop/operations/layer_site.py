"""The site of a weighted layer: what happens to relevance there, in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from relprop.engine.call import Call
from relprop.engine.run import Run
from relprop.errors import RuleError
from relprop.numerics import own
from relprop.operations.parameters import weigh
from relprop.operations.saved_output import MISSING, Output, SavedOutput
from relprop.operations.signs import never_negative
from relprop.rules import WeightedRule, Zero
from relprop.rules.base import UNDECIDED, Way

Observer = Callable[[Tensor], None]
ADRIFT = "samples adrift"
"""The property of a network in which a rule has to know along which axis of a layer samples lie, and nothing shows it."""


class LayerSite:
    """Which rule acts on a layer, who observes it, and in which portions its backward pass is computed.

    A layer and what is folded into it have one site.

    Attributes:
        run: the run of the call.
        place: where the layer stands.
        nz: whether exact zeros carry relevance.
        nonnegative: whether the input is known to have no negative entry, for rules that ask.
        probes: who is told the layer's relevance.
        followers: who is shown the output of each map that the layer is folded into: relevance passes there, not here.
        samples: how many samples there are; 0 where nobody counted them.
        adrift: whether an operation before it did not show that samples stay apart, so that they may lie along any axis.
    """

    __slots__ = ("_rule", "adrift", "followers", "nonnegative", "nz", "place", "probes", "run", "samples")

    def __init__(self, call: Call, x: Tensor) -> None:
        assert call.place is not None  # weighted families always have a place
        self.run: Run = call.run
        self.place, self._rule, self.nz = call.place, call.rule, self.run.sites.nz_hidden
        self.probes: tuple[Observer, ...] = ()
        self.followers: tuple[Observer, ...] = ()
        inputs = self.run.inputs
        self.samples = inputs.samples
        self.adrift = inputs.mixing and inputs.samples > 1
        if self.nz and x.dtype is torch.float16:
            raise RuleError(
                f"{self.place}: a rule that gives relevance to exact zeros acts on a hidden layer, and float16 has no room "
                "for what stands in for a zero. Use bfloat16 or float32 (model.float()), or put the rule on the first "
                "layer only."
            )
        self.nonnegative: bool = getattr(self._rule, "reads_signs", True) and never_negative(x)

    def probe(self, report: Observer) -> None:
        """Adds one who is told the layer's relevance."""
        self.probes += (report,)

    def follow(self, show: Observer) -> None:
        """Adds one who is shown the outputs of what the layer is folded into."""
        self.followers += (show,)

    def release_probes(self) -> None:
        """Lets go of those who are told the relevance."""
        self.probes = ()

    def release_followers(self) -> None:
        """Lets go of those who are shown outputs."""
        self.followers = ()

    def propagate(self, weighted: Any, saved: SavedOutput, x: Tensor, g: Tensor) -> Tensor:
        """`G` at a layer's input, from `G` at its output, by the rule that acts here."""
        if weighted.overwritten:
            raise RuntimeError(f"the weight of {self.place} has been modified inplace")
        rule: Any = self.run.sites.decide(self.place) if self._rule is UNDECIDED else self._rule
        way = Way.DEFAULT if rule is None else rule.way
        if way is Way.BLOCKED:
            return torch.zeros_like(x)
        # LRP-0 is torch's gradient, unless zeros carry relevance
        native = way is Way.NATIVE or (way is Way.DEFAULT and (not self.nz or weighted.opaque))
        rule = None if native else Zero() if rule is None else rule
        if rule is not None and self.place.family not in rule.formulas:
            raise RuleError(f"{rule!r} cannot act on {self.place}: it has no formula for weighted layers.")
        if self.adrift and rule is not None and rule.per_sample:
            self.run.sites.trait(ADRIFT)
        weights = self.run.weights
        weighs = weights is not None and weights.active and not weighted.opaque
        if rule is None and not (self.probes or self.nz or weighs):
            return weighted.view(self, x, MISSING, {}).transpose(g)
        whole = rule is None or rule.whole_output
        output = saved.take(g, whole, self.run.final)
        separable = rule is not None and rule.separable and not (weighs or self.probes)
        separable = separable and not (rule.per_sample and self.samples != len(x))
        if separable and weighted.large(x, g) and x.device.type == "cpu" and own(g):
            found = self._in_portions(rule, weighted, x, g, output, whole)
            if found is not None:
                return found
        view = weighted.view(self, x, output, {})
        for probe in self.probes:
            probe(view.relevance(g).to(g.dtype))
        if rule is None and self.nz:  # relevance at an exact zero has no share in any input
            g = g * (view.z != 0)
        if weighs:
            return weigh(weights, self, weighted, x, g, view, rule)
        return view.transpose(g) if rule is None else rule.propagate(view, g)

    def _in_portions(
        self, rule: WeightedRule, weighted: Any, x: Tensor, g: Tensor, output: Output, whole: bool
    ) -> Tensor | None:
        """`G` at the input, some outputs or some samples at a time; None where that would save no memory."""
        if not whole and (rows := weighted.portions_of_outputs(x)):
            found = torch.zeros_like(x)
            for some in rows:
                view = weighted.rows(some).view(self, x, output.part((..., some)), {})
                found += rule.propagate(view, g[..., some])
            return found
        if samples := weighted.portions_of_samples(x, g):
            found = torch.empty_like(x)
            memo: dict[str, Tensor] = {}
            for some in samples:
                view = weighted.view(self, x[some], output.part(some), memo)
                found[some] = rule.propagate(view, g[some])
            return found
        return None
