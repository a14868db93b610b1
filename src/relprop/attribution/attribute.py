"""`relprop.attribute` and `relprop.attribute_each`: one forward pass, and one backward pass per target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from relprop.attribution.against import check_against
from relprop.attribution.batches import in_batches, one_by_one
from relprop.attribution.checks import admit, check_flags, check_further
from relprop.attribution.conditions import Condition, words
from relprop.attribution.explain import SamplesLost, explain
from relprop.attribution.mistaken import REFUSALS, WatchedLayers, batched, refuses
from relprop.attribution.notices import warn
from relprop.attribution.settings import Plan, Settings
from relprop.attribution.splices import Splice, parts_of, splices_of
from relprop.attribution.table_inputs import as_table
from relprop.attribution.targets import several
from relprop.attribution.through import Conditions, paired
from relprop.composites import Composite
from relprop.engine.eager import step_by_step, uncompiled
from relprop.engine.members import members
from relprop.engine.traced import refuse_traced
from relprop.errors import InputError, RelpropError, TargetError
from relprop.results.grouping import check_groups
from relprop.results.identity import Identity
from relprop.results.relevance import Relevance
from relprop.results.remembered import recalled
from relprop.signatures import public
from relprop.torch_private.compiled import original
from relprop.trees import leaves, map_tree


@step_by_step
@public("relprop.attribute", {"targets": "Several targets are relprop.attribute_each(model, inputs, targets)."})
def attribute(
    model: Any,
    inputs: Any,
    target: Any = None,
    *,
    composite: Composite | str = "auto",
    layers: Any = None,
    layers_at: str = "output",
    seed: float | Tensor | None = None,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
    select: Any = None,
    labels: Sequence[str] | None = None,
    multiply_by_inputs: bool | None = None,
    strict: bool = True,
    checkpoint: bool | Sequence[str] = False,
    positions: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
    ledger: bool = False,
    through: Condition | Sequence[Condition | None] | None = None,
    against: Any = None,
    weights: bool = False,
    groups: Any = None,
    splices: Splice | Sequence[Splice] | None = None,
) -> Relevance:
    """Explains one score per sample: how much each entry of the inputs contributed to it.

    Args:
        model: a module, or any callable on tensors. It is not changed.
        inputs: tensors with the batch first: a tensor (`model(x)`), a tuple (`model(*x)`), a dict or a tokenizer's
            answer (`model(**x)`), or a list (`model([..])`), nested as the model takes them. Integers, such as the ids
            of tokens, get the relevance of the rows that an embedding looks up for them, summed over features;
            integers that nothing looks up, such as an attention mask, get 0. A data frame, or a dict of columns (lists,
            arrays), is a table of numbers; the result keeps the names of its columns.
        target: which output. An int; a list or 1-D tensor with one per sample; a tuple for outputs with more
            dimensions, or a list of tuples; a label; a callable `output -> (N,)`; a `Contrast`; None for the only
            output, else the arg-max.
        composite: the rules, or the name of a composite; "auto" chooses by what the network is made of.
        layers: module paths, globs or modules whose relevance you want as well. The path of an attention followed by
            `.heads` names its heads, of shape (N, heads, T, features).
        layers_at: "output" or "input" of those layers.
        seed: the relevance to start from, per sample: None for the score itself, a number, or a tensor of shape (N,).
        forward_args: further positional arguments of the model; they get no relevance.
        forward_kwargs: further keyword arguments.
        select: what to explain of an output that is not a tensor: a key, an index, an attribute's name, or a function.
        labels: names of the classes, where the model carries none.
        multiply_by_inputs: whether to read relevance (input times modified gradient), or the modified gradient itself.
            None: as the composite says.
        strict: whether an operation without a known propagation is an error. If not, its gradient is used, and the
            result lists the operation.
        checkpoint: whether the blocks of the model keep only their inputs and compute the rest again in the backward
            pass. That takes less memory and one more forward pass. True takes the members of the model's module lists;
            a list of paths or globs names other blocks.
        positions: whether position encodings also take relevance and report it (Bakish et al. 2025). This holds for
            encodings that are looked up or added, not for rotary ones. Where a model multiplies content by positions,
            each of the two then takes half.
        batch_size: samples per forward pass, for inputs larger than memory.
        progress: whether to show a progress bar on stderr (needs tqdm).
        ledger: whether to record in `Relevance.ledger` which operation absorbed how much. This keeps the results of all
            operations until the backward pass. Where rows of the inputs exchange relevance, each row takes a backward
            pass of its own.
        through: the hidden units that relevance must pass, as a condition made by `units`; or a list with one condition
            per sample. What goes around them is left out, and the residual is the relevance that passed the units less
            what reached the inputs. `layers` above the units report what arrives there from the score.
        against: other inputs of the same shape, such as a corrupted text. Then `values` and `layers` hold
            `(a_against - a) G`, an estimate of how the score changes if `a` is replaced by its value for the other
            inputs (relevance patching, Jafari et al. 2025); `effect` is the true change of the score if all inputs
            are replaced. composite="auto" is then "relp"; "gradient" is attribution patching.
        weights: whether `Relevance.weights` holds the relevance that went through each entry of each weight, summed over
            samples and positions.
        groups: what to add up: superpixels, groups of features or masks, as in `Relevance.grouped`. Then `values` has a
            column per group, (N, G), and `names` their names. It is for models with one input.
        splices: autoencoders or transcoders in layers, `relprop.Splice`, whose latents are then units, for `layers` and
            `through`.

    Returns:
        Relevance whose `values` have the structure of the inputs.

    Raises:
        InputError: the inputs cannot be explained.
        TargetError: the target does not name one score per sample.
        CompositeError: the composite names something that does not exist.
        RuleError: a rule cannot act where the composite puts it.
        ModelStateError: the model is in training mode, or is TorchScript.
        UnsupportedOperationError: the model calls an operation without a known propagation.
        NonFiniteError: the output or the relevance is NaN or infinite.
        SeveredGraphError: the score does not depend on the inputs.

    References:
        Bach et al. 2015, "On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
        propagation", PLoS ONE 10(7).
    """
    return attribute_each(
        model, inputs, [target], composite=composite, layers=layers, layers_at=layers_at, seed=seed,
        forward_args=forward_args, forward_kwargs=forward_kwargs, select=select, labels=labels,
        multiply_by_inputs=multiply_by_inputs, strict=strict, checkpoint=checkpoint, positions=positions,
        batch_size=batch_size, progress=progress, ledger=ledger, through=None if through is None else [through],
        against=against, weights=weights, groups=groups, splices=splices,
    )[0]  # fmt: skip


@step_by_step
@public("relprop.attribute_each", {"target": "It takes a list of them, targets=[...]."})
def attribute_each(
    model: Any,
    inputs: Any,
    targets: Any,
    *,
    composite: Composite | str = "auto",
    layers: Any = None,
    layers_at: str = "output",
    seed: float | Tensor | None = None,
    forward_args: Sequence[Any] = (),
    forward_kwargs: dict[str, Any] | None = None,
    select: Any = None,
    labels: Sequence[str] | None = None,
    multiply_by_inputs: bool | None = None,
    strict: bool = True,
    checkpoint: bool | Sequence[str] = False,
    positions: bool = False,
    batch_size: int | None = None,
    progress: bool = False,
    ledger: bool = False,
    through: Sequence[Any] | None = None,
    against: Any = None,
    weights: bool = False,
    groups: Any = None,
    splices: Splice | Sequence[Splice] | None = None,
    targets_at_once: int = 1,
) -> list[Relevance]:
    """Explains several targets per sample from one forward pass and one backward pass per target.

    Args:
        model: as in `attribute`, like all arguments that are not listed here.
        inputs: as in `attribute`.
        targets: a list of targets, each in any form that `attribute` takes.
        through: a list of conditions, one per result, each in any form that `attribute` takes. They share one forward pass,
            and the backward passes above their layers. With it, `targets` may be a single target; a list must have one
            target per condition.
        targets_at_once: how many targets share a batched backward pass. That is faster where inputs are few or short,
            and takes that many times the memory. With layers, checkpoint, ledger or through, each target has its own pass.

    Returns:
        One `Relevance` per target or condition, in their order.

    Raises:
        RelpropError: as in `attribute`. A `TargetError` also where the list of targets is empty.
    """
    settings = Settings(
        composite=composite, layers=layers, layers_at=layers_at, select=select, labels=labels,
        multiply_by_inputs=multiply_by_inputs, strict=strict, checkpoint=checkpoint, positions=positions, ledger=ledger,
    )  # fmt: skip
    each = None
    if through is not None:
        targets, each = paired(targets, through)
    targets = several(targets)
    if not isinstance(targets_at_once, int) or isinstance(targets_at_once, bool) or targets_at_once < 1:
        raise InputError(f"targets_at_once must be a positive int; got {targets_at_once!r}.")
    check_flags(progress=progress, weights=weights)
    check_further(forward_args, forward_kwargs)
    model = original(model)
    refuse_traced(leaf for _, leaf in leaves(inputs))
    inputs, names = as_table(model, inputs)
    inputs, pictures, affine = recalled(inputs)
    if groups is not None:
        check_groups(inputs, groups, names)
    if against is not None:
        composite = "relp" if isinstance(composite, str) and composite == "auto" else composite
    own = members(model)
    inputs, chosen = admit(model, inputs, composite, own=own, later=True)
    against = _admitted(model, inputs, against, chosen, settings, through, weights)
    spliced = splices_of(model, splices)
    made = None if each is None else Conditions.of(model, each, parts_of(spliced))
    plan = Plan.of(
        model, settings, chosen, 1 if weights else targets_at_once, spliced, args=tuple(forward_args),
        kwargs=dict(forward_kwargs or {}), against=against, weights=weights, members=own, through=made,
    )  # fmt: skip

    def whole(part: Any, some: Sequence[Any], start: Any, rows: Any = None) -> list[Relevance]:
        return _explained(model, part, some, start, plan if rows is None else plan.part(*rows))

    with torch.inference_mode(False), torch.enable_grad(), uncompiled():
        with _advised(model, inputs, plan) as watched:
            if batch_size is None:
                results = whole(inputs, targets, seed)
            else:
                results = in_batches(whole, inputs, targets, seed, batch_size, progress)
        for result in results:
            watched.check(result.score)
        copied = map_tree(lambda t: t.detach().clone(), inputs)
    warn(notice for result in results for notice in result.notices)
    about: dict[str, Any] = {
        "labels": plan.labels, "model": Identity.of(model, own), "names": names, "pictures": pictures, "affine": affine,
    }  # fmt: skip
    said = [None] * len(results) if plan.through is None else [words(one) for _, one in plan.through.each]
    found = zip(results, said, strict=True)
    results = [replace(result, inputs=copied, through=through, **about) for result, through in found]
    return results if groups is None else [result.grouped(groups) for result in results]


def _explained(model: Any, inputs: Any, targets: Sequence[Any], seed: Any, plan: Plan) -> list[Relevance]:
    """The results of all samples at once; one by one where a rule has to know where samples lie, and nothing shows it."""
    try:
        return explain(model, inputs, targets, seed, plan)
    except SamplesLost as lost:
        together = lost.results

    def alone(sample: Any, of_it: Sequence[Any], start: Any, rows: tuple[slice, int]) -> list[Relevance]:
        return explain(model, sample, of_it, start, plan.part(*rows))

    return one_by_one(alone, inputs, targets, seed, together, (plan.args, plan.kwargs))


def _admitted(
    model: Any, inputs: Any, against: Any, composite: Composite | None, settings: Settings, through: Any, weights: bool
) -> Any:
    """The other inputs as plain containers, after checks; None without."""
    for name, other in (("through", through), ("against", against)):
        if weights and other is not None:
            raise InputError(f"weights=True and {name}= exclude each other.")
    if against is None:
        return None
    against, _ = admit(model, against, "relp", name="against")
    check_against(inputs, against)
    for name, given in (("through", through), ("ledger", settings.ledger), ("positions", settings.positions)):
        if given:
            raise InputError(
                f"against= and {name}= exclude each other: a difference of activations is not a part of the score."
            )
    for key, rule in composite.entries if composite is not None else ():
        if not getattr(rule, "proportional", True):
            raise InputError(
                f"composite {composite.name!r} has {rule!r} at '{key}', which gives relevance to inputs of 0 as well, so there "  # type: ignore[union-attr]
                "is no factor to multiply a difference by. With against=, take composite='relp', 'cp_lrp' or 'gradient'."
            )
    return against


@contextmanager
def _advised(model: Any, inputs: Any, plan: Plan) -> Iterator[WatchedLayers]:
    """While this lasts, an error that the model raises becomes one that says what is wrong with the inputs, where we can tell."""
    with batched(model, inputs, plan.members) as watched:
        try:
            yield watched
        except TargetError as error:
            why = watched.lone or watched.timed
            if why and "first axis is not the batch" in error.message:
                raise TargetError(f"{error.message} {why[0].upper()}{why[1:]}") from error
            raise
        except REFUSALS as error:
            if watched.lone and not isinstance(error, RelpropError):
                raise InputError(watched.lone) from error
            if why := refuses(model, inputs, *plan.arguments(inputs), error):
                raise InputError(why) from error
            raise
