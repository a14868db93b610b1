"""One call of an operation, and how its rule or its handler answers it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from relprop.composites.places import Place
from relprop.engine.integer_inputs import Lookup, positions_of
from relprop.engine.messages import called, refuse_training, shapes
from relprop.engine.notes import Note, begin, noted, renew
from relprop.engine.registry import Entry
from relprop.engine.replay import replaying
from relprop.engine.run import Run
from relprop.engine.tensor_attributes import NOTE, PARAMETER
from relprop.errors import ModelStateError, UnsupportedOperationError
from relprop.rules.base import Way
from relprop.torch_private.compiled import skipped
from relprop.torch_private.recorded import recording


class Into(NamedTuple):
    """A tensor that the model overwrites, and the operation that does it."""

    target: Tensor
    write: Callable[[], object]


class Call:
    """One call of an operation, as its handler sees it. `call()` runs the operation itself.

    Attributes:
        entry: the operation's entry in the register.
        function: the operation itself, as it was called.
        args: its positional operands; parameters of the model are constants here.
        kwargs: its named operands and options.
        live: the operands that carry relevance.
        inplace: whether the handler must write into the first operand.
        zeros: set by a handler that has already dealt with the relevance of exact zeros.
        place: where the call stands in the model; None for an operation that only moves or selects.
        rule: the rule at that place; None for the default.
        run: the whole run. Handlers need only the methods below.
    """

    __slots__ = ("args", "entry", "function", "inplace", "kwargs", "live", "place", "rule", "run", "zeros")
    place: Place | None
    rule: Any

    def __init__(
        self, run: Run, entry: Entry, function: Callable[..., Any], args: tuple, kwargs: dict, live: list[Tensor],
        inplace: bool = False, again: Call | None = None,
    ):  # fmt: skip
        self.inplace = inplace
        self.zeros = False
        self.run = run
        self.entry = entry
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.live = live
        self.place, self.rule = run.sites.stand(entry, len(live)) if again is None else (again.place, again.rule)

    @property
    def into(self) -> Into | None:
        """Where the result may be written, if the first operand is a copy of a tensor that is overwritten."""
        return None

    @property
    def way(self) -> Way:
        """How the rule treats any operation."""
        return Way.DEFAULT if self.rule is None else self.rule.way

    @property
    def formula(self) -> Any:
        """The rule, if it has a formula for this family; else None."""
        rule, place = self.rule, self.place
        return rule if rule is not None and place is not None and place.family in rule.formulas else None

    @skipped
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the operation on these arguments, or on its own if none are given."""
        if args or kwargs:
            return self.function(*args, **kwargs)
        return self.function(*self.args, **self.kwargs)

    def natively(self) -> Any:
        """The operation's own result, with torch's gradient. What exact zeros carry needs nothing more."""
        self.zeros = True
        return self.function(*self.args, **self.kwargs)

    def keeps_zeros(self) -> None:
        """Says that the handler has dealt with the relevance of exact zeros."""
        self.zeros = True

    def becomes(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Makes this the call of another function that computes the same."""
        self.function, self.args, self.kwargs = function, args, kwargs

    def settle(self, result: Any) -> Any:
        """The result, with the numbers that the model's own call gives, where its kernel is another one.

        For some operations torch chooses the kernel by which operands require a gradient. In the model, parameters do;
        while it is explained, live tensors do.
        """
        if not isinstance(result, Tensor) or recording():
            return result
        with torch.no_grad():
            value = self.function(*map(self.own, self.args), **{k: self.own(a) for k, a in self.kwargs.items()})
        if result.stride() != value.stride():  # sums in another order would round otherwise
            arranged = torch.empty_strided(value.shape, value.stride(), dtype=result.dtype).copy_(result)
            NOTE.put(arranged, NOTE.of(result))
            return arranged
        result.data.copy_(value)
        return result

    def own(self, operand: Any) -> Any:
        """An operand as the model has it: the parameter itself, or a live tensor detached."""
        if not isinstance(operand, Tensor):
            return operand
        if operand.requires_grad:
            return operand if self.run.gradients.asking else operand.detach()
        parameter = PARAMETER.of(operand)
        if parameter is None and operand._base is not None:  # a view asks for what its parameter asks for
            parameter = PARAMETER.of(operand._base)
        if parameter is None or parameter.untyped_storage().data_ptr() != operand.untyped_storage().data_ptr():
            return operand  # not a parameter, or its numbers were replaced since
        with torch.no_grad():
            return parameter.as_strided(operand.shape, operand.stride(), operand.storage_offset())

    def where(self) -> str:
        """The module now running, for messages."""
        return self.run.where()

    def training(self, what: str) -> ModelStateError:
        """The error for an operation that draws random numbers or changes statistics, as in training mode."""
        return refuse_training(what, self.run)

    def trait(self, name: str) -> None:
        """Notes a property of the network, by which "auto" chooses a composite."""
        self.run.sites.trait(name)

    @property
    def undecided(self) -> bool:
        """Whether "auto" has yet to choose a composite."""
        return self.run.sites.undecided

    @property
    def zeros_carry(self) -> bool:
        """Whether exact zeros may carry relevance at this place. Those of complex tensors do not, but for moved entries."""
        sites = self.run.sites
        if not sites.asked.nz_first and sites.journal.latest is None:
            return False
        return sites.nz and not any(t.is_complex() for t in self.live)

    @property
    def zeros_carry_hidden(self) -> bool:
        """Whether exact zeros may carry relevance at hidden layers."""
        return self.run.sites.nz_hidden

    @property
    def zeros_carry_first(self) -> Callable[[], bool]:
        """A function that tells the backward pass whether exact zeros of the inputs carry relevance."""
        sites = self.run.sites  # not the call, which would keep its operands alive
        return lambda: sites.nz_first

    @property
    def native(self) -> bool:
        """Whether torch's own gradient is all that a weighted layer needs here: its rule is LRP-0, and nobody asks for more."""
        rule, run = self.rule, self.run
        return (rule is None or rule.way is Way.DEFAULT) and run.weights is None and not run.sites.asked.nz_hidden

    @property
    def weighs(self) -> bool:
        """Whether parameters report the relevance that went through them."""
        return self.run.weights is not None

    @property
    def deferred(self) -> Callable[[], Any]:
        """A function that gives the backward pass the rule at this place, once the forward pass has ended."""
        sites, place = self.run.sites, self.place
        assert place is not None  # a call with a rule has a place
        return lambda: sites.decide(place)

    @property
    def copies_are_kept(self) -> bool:
        """Whether the model overwrites values that a rule still needs."""
        return self.run.writes.copying

    def is_model_constant(self, constant: Tensor) -> bool:
        """Whether a constant is made of the model's own tensors alone, and so is the same for all samples."""
        return self.run.model.belongs(constant)

    def is_weight(self, constant: Tensor) -> bool:
        """Whether a constant may be the weight of a layer: it is the model's, and not computed from the inputs.

        What a target multiplies the output by is not a weight: it says how much relevance each output starts with.
        """
        model = self.run.model
        return model.weighs(constant) and (not model.ended or replaying())

    def note(self, live: Tensor) -> Note:
        """What the engine remembers of a live tensor."""
        return noted(self.run, live)

    def renew(self, live: Tensor) -> Note:
        """A new, empty note on a live tensor."""
        return renew(self.run, live)

    def give(self, live: Tensor, role: str, value: Any) -> None:
        """Notes that a live tensor has a role."""
        noted(self.run, live).give(role, value)

    @property
    def samples(self) -> int:
        """How many samples the inputs have; 1 where nobody counted them."""
        return self.run.inputs.samples or 1

    def keeping_samples(self) -> AbstractContextManager[None]:
        """A context for steps of an operation that is known to keep samples apart, along whatever axis they lie.

        A ledger reads the rows of each step, so it must know where the samples lie.
        """
        return nullcontext() if self.run.trace.recorder is not None else self.run.inputs.keeping()

    @property
    def reports_positions(self) -> bool:
        """Whether position encodings report the relevance that ends in them."""
        return self.run.inputs.positions

    def position_leaf(self, constant: Tensor) -> Tensor:
        """A position encoding that reports the relevance that ends in it."""
        return begin(self.run, self.run.sink(constant))

    def positions_of(self, ids: Any) -> Any:
        """Where the entries of a tensor of ids come from; None if they do not come from an input."""
        return positions_of(ids, self.run)

    def look_up(self, positions: Any, rows: Tensor) -> Tensor:
        """The rows of a table that an input's ids name. They start to carry relevance."""
        leaf = rows.detach().requires_grad_()
        if not replaying():
            self.trait("lookup")
            name = called(self.function).strip("_")
            self.run.inputs.lookups.append(Lookup(positions, leaf, name, self.run.model.path()))
        return begin(self.run, leaf)

    def cut(self, name: str, how: str, operand: Tensor) -> None:
        """Notes that relevance does not follow an operand."""
        self.run.trace.cut(name, how, operand, operand)

    def absorbs(self, step: Tensor) -> None:
        """Records a step within the operation from which other operations may start, so that the ledger knows it."""
        recorder = self.run.trace.recorder
        if recorder is not None and not replaying():
            recorder.record(self.entry.family, called(self.function).strip("_"), self.where(), step)

    def followed(self, function: Any) -> bool:
        """Whether the steps of a custom function were checked in this run."""
        return function in self.run.functions.followed

    def follows(self, function: Any) -> None:
        """Notes that the steps of a custom function give the function's own result."""
        self.run.functions.followed.add(function)

    def attended(self, heads: Tensor, arranged: Callable[[Tensor], Tensor] | None = None) -> None:
        """Shows the outputs of the heads of an attention, (N, heads, T, features), to whoever asked for them."""
        self.run.trace.attended(heads, arranged)

    def stepped(self, name: str) -> Callable[[Tensor], None] | None:
        """What shows a state of a recurrent layer to whoever asked for it; None if nobody did."""
        see = self.run.trace.stepped(name)
        if see is None:
            return None

        def show(state: Tensor) -> None:
            self.absorbs(state)
            see(state)

        return show

    def unattended(self) -> AbstractContextManager[bool]:
        """A context in which the outputs of heads are not shown. Its value is whether anybody asked for them."""
        return self.run.trace.unattended()

    def relocate(self, family: str) -> None:
        """Moves the call to another family, after its handler has looked at the operands."""
        if self.place is not None:
            if self.place.family == family:
                return
            self.run.sites.forget(self.place)
        self.place = self.run.sites.locate(self.entry, family)
        self.rule = self.run.sites.rule(self.place)

    def error(self, what: str) -> UnsupportedOperationError:
        return self.run.refuse(self.entry, what, shapes(self.args))
