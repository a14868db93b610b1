"""What is read off the gradients of a backward pass: relevance of inputs, position encodings and layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from relprop.attribution.books import Gradients
from relprop.attribution.forward import Answer, ForwardJob, severed
from relprop.attribution.layers import Catch
from relprop.engine import Run
from relprop.errors import RuleError
from relprop.numerics import known, nonzero, wide
from relprop.trees import leaves


class Reader:
    """Reads relevance off gradients. They come in the order carriers, position encodings, layers.

    Attributes:
        carriers: the tensors in which the relevance of the inputs ends: inputs, and rows that their ids looked up.
        ends: all tensors in which relevance ends: the carriers and the position encodings.
        catches: the tensors that passed the layers whose relevance is wanted.
        multiplies: whether to read value times gradient, or the gradient alone.
        nz: whether exact zeros of the inputs carry relevance.
    """

    def __init__(self, job: ForwardJob, answer: Answer) -> None:
        run, multiplies = job.run, job.plan.settings.multiply_by_inputs
        self._run, self._inputs, self._caught = run, job.inputs, job.caught
        self.carriers = [*(leaf for _, leaf in run.inputs.starts), *(lookup.rows for lookup in run.inputs.lookups)]
        self.ends = [*self.carriers, *(leaf for _, leaf in run.inputs.sinks)]
        self.catches: list[Catch] = [catch for some in job.caught.values() for catch in some]
        self.multiplies = run.sites.composite.multiply_by_inputs if multiplies is None else multiplies
        self.nz = answer.nz or run.sites.nz_first

    @property
    def numbers(self) -> list[int]:
        """The numbers, in the flattened inputs, of those that are leaves."""
        return [number for number, _ in self._run.inputs.starts]

    @property
    def wanted(self) -> list[Any]:
        """The tensors and edges whose gradients are read, in order."""
        return [*self.ends, *(catch.edge for catch in self.catches if catch.edge is not None)]

    def check(self, gradients: Gradients) -> None:
        """Refuses gradients that tell nothing.

        Raises:
            SeveredGraphError: none of the inputs has one.
            RuleError: the modified gradient is wanted, and the composite's relevance is not a multiple of the input.
        """
        if all(g is None for g in gradients[: len(self.carriers)]):
            raise severed(self._run)
        if self.nz and not self.multiplies and any(known((x.detach() == 0).any(), True) for x in self.carriers):
            raise RuleError(_no_multiplier(self._run))

    def inputs(self, gradients: Gradients, score: Tensor) -> list[Tensor]:
        """Relevance of each input. That of integers is added up from the rows that they looked up."""
        read = [self._read(x, g) for x, g in zip(self.carriers, gradients, strict=False)]
        of_floats = dict(zip(self.numbers, read, strict=False))
        of_ids = self._of_ids(read[len(of_floats) :])
        values = []
        for number, (_, t) in enumerate(leaves(self._inputs)):
            found = of_ids.get(number)
            if number in of_floats:  # a column of it may also be ids
                value = of_floats[number]
                values.append(value if found is None else value + found.reshape(t.shape).to(value.dtype))
            else:
                values.append(wide(score.detach()).new_zeros(t.shape) if found is None else found.reshape(t.shape))
        return values

    def _of_ids(self, read: list[Tensor]) -> dict[int, Tensor]:
        """Relevance of each entry of ids, by the number of their input: the sum over the rows that it looked up."""
        found: dict[int, Tensor] = {}
        for lookup, relevance in zip(self._run.inputs.lookups, read, strict=True):
            number = lookup.positions.input
            if number not in found:
                found[number] = wide(relevance).new_zeros(leaves(self._inputs)[number][1].numel())
            lookup.gather(relevance, found[number])
        return found

    def positions(self, gradients: Gradients) -> dict[str, Tensor]:
        """Relevance of position encodings, summed over features, and over all uses of an encoding."""
        found: dict[str, Tensor] = {}
        some = gradients[len(self.carriers) : len(self.ends)]
        for (name, leaf), g in zip(self._run.inputs.sinks, some, strict=True):
            total = wide(self._read(leaf, g).detach()).sum(-1)
            found[name] = found[name] + total if name in found and found[name].shape == total.shape else total
        return found

    def layers(self, gradients: Gradients) -> dict[str, Any]:
        """Relevance of the layers by path: a tensor, or a list for a layer that ran several times."""
        rest = iter(gradients[len(self.ends) :])
        read = {id(c): c.read(next(rest) if c.edge is not None else None) for c in self.catches}
        found = {name: [read[id(c)] for c in some] for name, some in self._caught.items()}
        return {name: some[0] if len(some) == 1 else some for name, some in found.items()}

    def _read(self, x: Tensor, g: Tensor | None) -> Tensor:
        if g is None:
            return torch.zeros_like(x)
        if not self.multiplies:
            return g
        return (nonzero(x) if self.nz else x.detach()) * g


def _no_multiplier(run: Run) -> str:
    composite = run.sites.composite
    unlike = next(f"{rule!r} at '{key}'" for key, rule in composite.entries if not rule.proportional)
    return (
        f"multiply_by_inputs=False asks for the factor between input and relevance, and composite {composite.name!r} has "
        f"{unlike}, which gives relevance to inputs of 0 as well: there is none. Read the relevance itself, or take rules that "
        "are proportional to the input, such as composite='epsilon_plus'."
    )
