"""How to explain: `Settings` holds what a caller sets, and `Plan` what that means for one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from relprop.attribution.checks import arguments, check_flags, check_names
from relprop.attribution.layers import wanted
from relprop.attribution.splices import Splice, parts_of
from relprop.attribution.targets import known_labels
from relprop.attribution.through import Conditions
from relprop.composites import Composite
from relprop.engine.checkpoint import blocks
from relprop.engine.members import Members
from relprop.errors import InputError
from relprop.trees import map_tree


@dataclass(frozen=True)
class Settings:
    """What a caller sets. `attribute`, `attribute_each` and `compile` have the same defaults; a test compares them.

    Attributes:
        composite: the rules, or the name of a composite.
        layers: module paths, globs or modules whose relevance is wanted as well.
        layers_at: "output" or "input" of those layers.
        select: what to explain of an output that is not a tensor.
        labels: names of the classes, if the caller gives them.
        multiply_by_inputs: whether to read relevance or the modified gradient; None: as the composite says.
        strict: whether an unknown operation is an error.
        checkpoint: which blocks are computed again in the backward pass: none, all, or those of these paths.
        positions: whether position encodings report the relevance that ends in them.
        ledger: whether to record what each operation absorbs.

    Raises:
        InputError: a setting has a value that it cannot have.
        TargetError: the labels are not a list of names.
    """

    composite: Composite | str = "auto"
    layers: Any = None
    layers_at: str = "output"
    select: Any = None
    labels: Sequence[str] | None = None
    multiply_by_inputs: bool | None = None
    strict: bool = True
    checkpoint: bool | Sequence[str] = False
    positions: bool = False
    ledger: bool = False

    def __post_init__(self) -> None:
        if self.layers_at not in ("output", "input"):
            raise InputError(f"layers_at must be 'output' or 'input'; got {self.layers_at!r}.")
        check_flags(strict=self.strict, positions=self.positions, ledger=self.ledger)
        if self.multiply_by_inputs is not None:
            check_flags(multiply_by_inputs=self.multiply_by_inputs)
        check_names(self.labels)


@dataclass(frozen=True)
class Plan:
    """The settings as they apply to one model: names have become rules and modules.

    Attributes:
        settings: what the caller set.
        composite: the rules, None for "auto".
        layers: the modules whose relevance is wanted as well, by path.
        checkpointed: the modules that are computed again in the backward pass, by path.
        labels: names of the classes: those of the caller, else those of the model.
        args: further positional arguments of the model.
        kwargs: further keyword arguments.
        at_once: how many targets share a backward pass.
        weights: whether parameters report the relevance that went through them.
        through: the conditions, one per result; None for a result per target.
        against: other inputs, whose activations are compared; None without.
        members: what the model is made of, where that is known: it holds for one call.
        splices: splices by the paths of their layers.
        exchanged: whether rows of the inputs are known to exchange relevance (see `attribution.books`).
    """

    settings: Settings
    composite: Composite | None
    layers: dict[str, Any] = field(default_factory=dict)
    checkpointed: dict[str, nn.Module] = field(default_factory=dict)
    labels: Sequence[str] | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    at_once: int = 1
    exchanged: bool = False
    weights: bool = False
    through: Conditions | None = None
    against: Any = None
    members: Members | None = None
    splices: dict[str, Splice] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: Any,
        settings: Settings,
        composite: Composite | None,
        at_once: int = 1,
        splices: dict[str, Splice] | None = None,
        **others: Any,
    ) -> Plan:
        """The plan for a model, with other attributes as they are given.

        Raises:
            InputError: the model has no such layers, or no blocks.
        """
        checkpointed = _checkpointed(model, settings.checkpoint)
        alone = settings.layers is not None or settings.ledger or bool(checkpointed)
        return cls(
            settings,
            composite,
            layers=wanted(model, settings.layers, parts=parts_of(splices or {})),
            checkpointed=checkpointed,
            labels=settings.labels if settings.labels is not None else known_labels(model),
            at_once=1 if alone else at_once,
            splices=splices or {},
            **others,
        )

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None, **others: Any) -> Plan:
        """The plan with further arguments of the model, and with other changes."""
        return replace(self, args=tuple(args), kwargs=dict(kwargs or {}), **others)

    def watching(self, through: Conditions) -> Plan:
        """The plan with conditions."""
        return replace(self, through=through)

    def part(self, rows: slice, count: int) -> Plan:
        """The plan for some of `count` samples."""
        through = None if self.through is None else self.through.part(rows, count)
        return replace(
            self, through=through, against=map_tree(lambda t: t[rows] if hasattr(t, "ndim") else t, self.against)
        )

    def arguments(self, inputs: Any) -> tuple[tuple, dict]:
        """The inputs and the further arguments, as the model takes them."""
        return arguments(inputs, self.args, self.kwargs)


def _checkpointed(model: Any, checkpoint: bool | Sequence[str]) -> dict[str, nn.Module]:
    """The modules that are computed again, by path."""
    if checkpoint is False:
        return {}
    found: dict[str, nn.Module] = {}
    if checkpoint is not True:
        named = wanted(model, checkpoint, "checkpoint")
        found = {name: m for name, m in named.items() if not any(name.startswith(f"{outer}.") for outer in named)}
    elif isinstance(model, nn.Module):
        found = blocks(model)
    if not found:
        raise InputError(
            "checkpoint=True finds no blocks: no module list of the model has several members that are made of modules. "
            "Name them by path: checkpoint=['encoder.*']."
        )
    return found
