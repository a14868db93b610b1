"""Where relevance starts and ends: the inputs, ids and the rows they look up, position encodings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor

from relprop.engine.integer_inputs import Lookup


class Inputs:
    """The inputs of a run.

    The constructor takes `live` as tensors; its other arguments are the attributes of the same name.

    Attributes:
        adopt: whether live tensors from outside the run count as inputs (they are constants otherwise).
        live: the inputs that carry relevance, by identity.
        starts: the same inputs, with their number among all inputs.
        ids: whether there are tensors of ids, whose positions are tracked.
        lookups: the rows of tables that ids named, where relevance also ends.
        positions: whether position encodings report the relevance that ends in them.
        sinks: the encodings that report, with the path of the module that added them.
        samples: how many samples there are along the first axis of the inputs; 0 where nobody counted them.
        mixing: whether an operation may mix samples: it did not show that it keeps them apart.
        sure: whether what runs now are steps of an operation that is known to keep them apart.
    """

    def __init__(
        self,
        *,
        adopt: bool = False,
        live: Iterable[Tensor] = (),
        ids: bool = False,
        positions: bool = False,
        samples: int = 0,
        mixing: bool = False,
    ) -> None:
        self.adopt = adopt
        self.live = {id(t) for t in live}
        self.starts: list[tuple[int, Tensor]] = []
        self.ids = ids
        self.lookups: list[Lookup] = []
        self.positions = positions
        self.sinks: list[tuple[str, Tensor]] = []
        self.samples = samples
        self.mixing = mixing
        self.sure = False

    def found_ids(self) -> None:
        """Notes that a tensor may hold ids, whose positions are tracked from now on."""
        self.ids = True

    def mix(self) -> None:
        """Notes that an operation may mix samples."""
        self.mixing = True

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """A context for the steps of an operation that is known to keep samples apart, along whatever axis."""
        before, self.sure = self.sure, True
        try:
            yield
        finally:
            self.sure = before

    def sink(self, constant: Tensor, path: str) -> Tensor:
        """A position encoding that reports the relevance that ends in it."""
        leaf = constant.detach().requires_grad_()
        self.sinks.append((path, leaf))
        return leaf

    def is_sink(self, tensor: Tensor) -> bool:
        """Whether a tensor is the position encoding most recently made to report."""
        return bool(self.sinks) and self.sinks[-1][1] is tensor

    def close(self) -> None:
        """Releases all tensors."""
        self.lookups.clear()
        self.sinks.clear()
        self.starts.clear()
