"""The state of one forward pass and its backward passes, in parts with one subject each."""

from __future__ import annotations

import sys
from typing import Any

from torch import Tensor

from relprop.composites.composite import Composite
from relprop.composites.places import Place
from relprop.engine.applied import Applications
from relprop.engine.chance import Chance
from relprop.engine.inputs import Inputs
from relprop.engine.members import Members
from relprop.engine.model_gradients import ModelGradients
from relprop.engine.model_view import ModelView
from relprop.engine.recorder import Recorder
from relprop.engine.registry import Entry
from relprop.engine.sites import Sites
from relprop.engine.trace import Trace
from relprop.engine.writes import Writes
from relprop.errors import UnsupportedOperationError
from relprop.torch_private.recorded import recording
from relprop.torch_private.saved import says_overwritten


class Run:
    """One forward pass and its backward passes.

    Args:
        composite: the rules; None to choose them at the end of the forward pass ("auto").
        model: the model, for module paths; None for a plain function.
        members: what the model is made of, where that is known.
        strict: whether an unknown operation is an error (else its native gradient is used and recorded).
        recorder: records what each operation absorbs.
        observed: whether each operation, its place and unknown operations are logged.
        inputs: where relevance starts and ends; empty by default.
        gradients: which gradients are the model's own; none by default.
        writes: which tensors were written into; keeps no copies by default.
        weights: collects the relevance of parameters (`operations.parameters`); None unless asked for.

    Attributes:
        model: the model's paths, the module now running, the model's own tensors.
        sites: which call stands where, and which rule acts there.
        inputs: where relevance starts and ends.
        functions: calls of custom autograd functions.
        gradients: gradients that the model takes itself.
        writes: which tensors were written into.
        trace: what is reported of the run afterwards.
        chance: the generators that the model draws from.
        final: whether the current backward pass is the last one, so that memory can be freed on the way.
    """

    def __init__(
        self,
        composite: Composite | None,
        model: Any = None,
        *,
        members: Members | None = None,
        strict: bool = True,
        recorder: Recorder | None = None,
        observed: bool = False,
        inputs: Inputs | None = None,
        gradients: ModelGradients | None = None,
        writes: Writes | None = None,
        weights: Any = None,
    ) -> None:
        self.model = ModelView(model, members)
        self.sites = Sites(composite, self.model, observed)
        self.inputs = inputs or Inputs()
        self.functions = Applications()
        self.gradients = gradients or ModelGradients()
        self.writes = writes or Writes()
        self.trace = Trace(self.model, strict, recorder, observed)
        self.chance = Chance()
        self.final = False
        self.weights = weights

    def where(self) -> str:
        """The module now running, for messages."""
        return self.model.where()

    def sink(self, constant: Tensor) -> Tensor:
        """A position encoding that reports the relevance that ends in it."""
        return self.inputs.sink(constant, self.model.path())

    def refuse(self, entry: Entry, what: str, shapes: str) -> UnsupportedOperationError:
        """The error for an operation that cannot be explained."""
        module, paths = self.model.here()
        place = Place(entry.family, entry.function, module, paths)
        return UnsupportedOperationError(f"{place}, given {shapes}: {what}")

    def begin_pass(self, samples: int, final: bool) -> None:
        """Sets, before a backward pass, the number of its samples and whether it is the last one."""
        self.final = final
        if self.trace.recorder is not None:
            self.trace.recorder.begin_pass(samples, self.sites.nz_first)

    def close(self) -> None:
        """Releases the graph, which holds this run: the garbage collector cannot see a cycle through its nodes."""
        if self.writes.rewritten and not recording():
            self.writes.abandon(failed=says_overwritten(sys.exc_info()[1]))
        self.functions = Applications()
        self.inputs.close()
        self.writes.close()
        self.trace.close()
