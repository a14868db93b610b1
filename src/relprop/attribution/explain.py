"""One explanation: a forward pass inside the mode, a backward pass per target, and what is read off them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.books import Bookkeeper, asks
from relprop.attribution.checks import (
    arguments,
    check_labels,
    check_lengths,
    check_output,
    check_relevance,
    unequal,
)  # fmt: skip
from relprop.attribution.layers import Catch, catching
from relprop.attribution.mistaken import misshapen
from relprop.attribution.notices import EXCHANGED, drawn, exploded, unreached
from relprop.attribution.targets import scores, select_output
from relprop.composites import Composite
from relprop.engine import Propagation, Run
from relprop.engine.chance import moved, state
from relprop.engine.checkpoint import checkpointing, recomputing
from relprop.engine.notes import begin, note_of
from relprop.engine.overwritten import check_exposed
from relprop.engine.recorder import Overwritten, Recorder, edge_of
from relprop.engine.replay import outside
from relprop.engine.tokens import track
from relprop.engine.undo import Undo
from relprop.errors import InputError, RelpropError, RuleError, SeveredGraphError, TargetError
from relprop.numerics import known, nonzero, wide
from relprop.results.relevance import Relevance
from relprop.torch_private.recorded import recording
from relprop.trees import leaves, map_tree


@dataclass(frozen=True)
class Options:
    """How to explain, checked at the door.

    Attributes:
        composite: the rules, None for "auto".
        layers: the modules whose relevance is wanted as well, by path.
        layers_at: "output" or "input" of those.
        args: further positional arguments of the model.
        kwargs: further keyword arguments.
        select: what to explain of an output that is no tensor.
        labels: names of the classes.
        named: whether the caller gave them, so that they must fit.
        multiply: whether to read relevance or the modified gradient; None as the composite says.
        strict: whether an unknown operation is an error.
        checkpointed: the modules that are computed again, by path.
        positions: whether position encodings report the relevance that ends in them.
        ledger: whether to record what each operation absorbs.
        at_once: how many targets share a backward pass.
        exchanged: whether rows of the inputs are known to exchange relevance (see `attribution.books`).
    """

    composite: Composite | None
    layers: dict[str, nn.Module] = field(default_factory=dict)
    layers_at: str = "output"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    select: Any = None
    labels: Sequence[str] | None = None
    named: bool = False
    multiply: bool | None = None
    strict: bool = True
    checkpointed: dict[str, nn.Module] = field(default_factory=dict)
    positions: bool = False
    ledger: bool = False
    at_once: int = 1
    exchanged: bool = False


def explain(model: Any, inputs: Any, targets: Sequence[Any], seed: Any, how: Options) -> list[Relevance]:
    """One `Relevance` per target, without what does not depend on the pass: the inputs' copy, labels and the model."""
    try:
        return _explain(model, inputs, targets, seed, how)
    except Overwritten:
        pass
    except RuntimeError as error:
        if not any(how in str(error) for how in ("modified by an inplace operation", "has been modified inplace")):
            raise
    # the model overwrites what its own gradient or a ledger needs: once more, with copies of what is overwritten
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        return _explain(model, inputs, targets, seed, how, copied=True)


def _explain(
    model: Any, inputs: Any, targets: Sequence[Any], seed: Any, how: Options, copied: bool = False
) -> list[Relevance]:
    run = Run(how.composite, model, strict=how.strict, recorder=Recorder(copied) if how.ledger else None)
    run.writes.copying = copied
    run.inputs.positions = how.positions
    caught: dict[str, list[Catch]] = {name: [] for name in how.layers}

    def close() -> None:
        for catch in itertools.chain(*caught.values()):
            catch.close()
        if not recording():
            run.writes.abandon()
        run.close()

    with Undo() as undo:
        undo.later(close)
        with outside():
            return _explained(run, caught, model, inputs, targets, seed, how)


def _explained(
    run: Run, caught: dict[str, list[Catch]], model: Any, inputs: Any, targets: Sequence[Any], seed: Any, how: Options
) -> list[Relevance]:
    found = [t for _, t in leaves(inputs) if isinstance(t, Tensor)]
    run.inputs.samples = next((len(t) for t in found if t.ndim), 1)
    run.inputs.mixing = any(not t.ndim or len(t) != run.inputs.samples for t in found)
    numbers = itertools.count()
    starts = run.inputs.starts
    before = None if recording() else state(devices := {t.device for t in found})

    def start(t: Tensor) -> Tensor:
        number = next(numbers)
        t = t.clone() if t.is_inference() else t.detach()
        if not t.is_floating_point():
            run.inputs.ids = True
            return track(t, run, number)
        leaf = t.requires_grad_()
        starts.append((number, leaf))
        return begin(run, leaf)

    live = map_tree(start, inputs)
    nz_input = how.composite is not None and run.sites.nz
    positional, named = arguments(live, how.args, how.kwargs)
    watched = catching(caught, how.layers, how.layers_at, run)
    run.gradients.own_from, run.gradients.asking = 0, False
    with checkpointing(how.checkpointed, run), watched, Propagation(run):
        try:
            run.gradients.calling = True
            raw = model(*positional, **named)
            run.gradients.calling = False
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, RelpropError):
                raise
            if why := _suspect(run, model, inputs, error):
                raise InputError(f"{why} The model itself raised: {error}") from error
            raise
        output = select_output(raw, how.select)
        if how.named:
            check_labels(how.labels, output)
        asked = [scores(output, target, how.labels) for target in targets]
        # what a custom function returned is met by an operation at the latest here
        asked = [(s.view_as(s) if s.requires_grad and note_of(s) is None else s, target) for s, target in asked]
    check_exposed(run)
    run.sites.settle()
    run.gradients.own_from = None
    for score, _ in asked:
        check_lengths(inputs, score)
    plain = map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, inputs)
    notices: list[str] = []
    if before is not None and (run.chance.generators or moved(before, state(devices))):
        args, kwargs = arguments(plain, how.args, how.kwargs)
        notices += drawn(lambda: select_output(model(*args, **kwargs), how.select), output, run, devices)
    check_output(model, raw, inputs, *arguments(plain, how.args, how.kwargs))
    if run.inputs.ids and not starts and not run.inputs.lookups:
        raise InputError(_unread(inputs))
    catches = [catch for some in caught.values() for catch in some]
    carriers = [*(leaf for _, leaf in starts), *(lookup.rows for lookup in run.inputs.lookups)]
    tensors = [*carriers, *(leaf for _, leaf in run.inputs.sinks)]
    edges = [c.edge for c in catches if c.edge is not None]
    if not all(score.requires_grad for score, _ in asked):
        raise SeveredGraphError(_severed(run))
    leads = [score for score, _ in asked], [leaf for _, leaf in starts]
    cuts = run.trace.cuts.entries(*leads, run.sites.checkpointed) if before is not None else []
    if run.trace.recorder is not None:
        run.trace.recorder.forget()
    backward = _backward(run, [score for score, _ in asked], seed, [*tensors, *edges], how)
    results = []
    for number, (score, target) in enumerate(asked):
        _check_batch(score, inputs, output)
        edge = edge_of(score)
        score = score.reshape(-1)
        handed = handed_out(score, seed)
        gradients = next(backward)
        if number == 0:
            run.sites.unmatched()
        if all(g is None for g in gradients[: len(carriers)]):
            raise SeveredGraphError(_severed(run))
        reads = run.sites.composite.multiply_by_inputs if how.multiply is None else how.multiply
        nz = nz_input or run.sites.nz_first
        if nz and not reads and any(known((x.detach() == 0).any(), True) for x in carriers):
            raise RuleError(_no_multiplier(run))

        def read(gradients: Sequence[Tensor | None], reads: bool = reads, nz: bool = nz, score: Tensor = score) -> Any:
            some = [_read(x, g, reads, nz) for x, g in zip(carriers, gradients, strict=False)]
            return _per_input(run, inputs, [number for number, _ in starts], some, score)

        values = [v.detach() for v in read(gradients)]
        check_relevance(values, inputs)
        sunk = [_read(x, g, reads, nz).detach() for x, g in zip(tensors, gradients, strict=False)][len(carriers) :]
        rest = iter(gradients[len(tensors) :])
        per_catch = {id(c): c.read(next(rest) if c.edge is not None else None) for c in catches}
        layers = {name: [per_catch[id(c)] for c in some] for name, some in caught.items()}
        keeper = Bookkeeper(run, score, edge, handed, _start(score, handed, seed), tensors, read, how.exchanged)
        books = keeper.books(values)
        cut_off = unreached(inputs, [number for number, _ in starts], cuts, gradients, values)
        grown = exploded(values, handed) if reads and not recording() else []
        said = [*cut_off, *notices, *grown, *([EXCHANGED] if books.exchanged else [])]
        taken = iter(values)
        results.append(
            Relevance(
                values=map_tree(lambda _: next(taken), inputs),  # noqa: B023 (called at once)
                output=map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, output),
                score=score.detach(),
                target=target,
                composite=run.sites.composite,
                residual=(handed.double() - books.received.to(handed.device)).to(handed.dtype),
                layers={name: some[0] if len(some) == 1 else some for name, some in layers.items()},
                rules=run.sites.rules,
                unknown=dict(run.trace.unknown),
                positions=_of_positions(run, sunk),
                ledger=books.ledger,
                notices=said,
            )
        )
    return results


def _backward(
    run: Run, scores: list[Tensor], seed: Any, tensors: list[Any], how: Options
) -> Iterator[Sequence[Tensor | None]]:
    """The gradients of each score in turn; a pass gives those of `at_once` scores."""
    at_once = how.at_once
    for first in range(0, len(scores), at_once):
        some = [score.reshape(-1) for score in scores[first : first + at_once]]
        starts = [_start(score, handed_out(score, seed), seed) for score in some]
        run.final = first + at_once >= len(scores) and not any(asks(run, len(score), how.exchanged) for score in some)
        if run.trace.recorder is not None:
            run.trace.recorder.samples, run.trace.recorder.apart, run.trace.recorder.nz = (
                len(some[0]),
                True,
                run.sites.nz_first,
            )
        if len(some) > 1:  # row j of the batch starts from score j alone
            starts = [torch.stack([g * float(i == j) for j in range(len(some))]) for i, g in enumerate(starts)]
        with recomputing(run):
            found = torch.autograd.grad(
                some, tensors, starts, retain_graph=not run.final, allow_unused=True, is_grads_batched=len(some) > 1
            )
        yield from ([g if g is None or len(some) == 1 else g[j] for g in found] for j in range(len(some)))


def _of_positions(run: Run, read: list[Tensor]) -> dict[str, Tensor]:
    """Relevance of position encodings, summed over features; an encoding used several times adds up."""
    found: dict[str, Tensor] = {}
    for (name, _), relevance in zip(run.inputs.sinks, read, strict=True):
        total = wide(relevance).sum(-1)
        found[name] = found[name] + total if name in found and found[name].shape == total.shape else total
    return found


def _check_batch(score: Tensor, inputs: Any, output: Any) -> None:
    """Refuses scores that are not one per sample."""
    sizes = {t.shape[0] for _, t in leaves(inputs) if isinstance(t, Tensor) and t.ndim}
    if score.ndim == 1 and sizes and score.shape[0] not in sizes and not (len(sizes) > 1 and score.shape[0] == 1):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise TargetError(
            f"the output of shape {shape} gives {score.shape[0]} scores for a batch of {max(sizes)} samples: its first axis "
            "is not the batch. Pick one score per sample with a callable target, or a single number with "
            "target=lambda output: output[i, j]."
        )


def _per_input(run: Run, inputs: Any, numbers: list[int], read: list[Tensor], score: Tensor) -> list[Tensor]:
    """Relevance in the shapes of the inputs: as read for floating point ones, gathered per id for integers."""
    of_floats = dict(zip(numbers, read, strict=False))
    of_ids: dict[int, Tensor] = {}
    for lookup, relevance in zip(run.inputs.lookups, read[len(numbers) :], strict=True):
        number = lookup.positions.input
        if number not in of_ids:
            count = leaves(inputs)[number][1].numel()
            of_ids[number] = wide(relevance).new_zeros(count)
        lookup.gather(relevance, of_ids[number])
    values = []
    for number, (_, t) in enumerate(leaves(inputs)):
        found = of_ids.get(number)
        if number in of_floats:  # a column of which may be looked up
            value = of_floats[number]
            values.append(value if found is None else value + found.reshape(t.shape).to(value.dtype))
        else:
            values.append(wide(score.detach()).new_zeros(t.shape) if found is None else found.reshape(t.shape))
    return values


def _suspect(run: Run, model: Any, inputs: Any, error: Exception) -> str:
    """What is likely wrong with inputs that the model itself refused; "" if we cannot tell."""
    if run.inputs.ids and isinstance(error, IndexError):
        most = {path: int(t.max()) for path, t in leaves(inputs) if not t.is_floating_point()}
        said = ", ".join(f"{path} up to {number}" for path, number in most.items())
        return f"an id may lie beyond the table it is looked up in: {said}. Do the tokenizer and the model belong together?"
    if run.inputs.ids and not run.inputs.lookups and isinstance(error, RuntimeError):
        return _unread(inputs)
    return misshapen(model, inputs) or unequal(inputs)


def _unread(inputs: Any) -> str:
    dtypes = ", ".join(f"{path} ({t.dtype})" for path, t in leaves(inputs) if not t.is_floating_point())
    return (
        f"integers cannot carry relevance unless an embedding looks them up, and none did: {dtypes}. "
        "Convert them to floating point, or pass them in forward_args or forward_kwargs."
    )


def handed_out(score: Tensor, seed: Any) -> Tensor:
    """The relevance to hand out, per sample."""
    if seed is None:
        return score.detach()
    try:
        handed = torch.as_tensor(seed, dtype=score.dtype, device=score.device)
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(f"seed must be a number, or a tensor with one per sample; got {seed!r}.") from None
    if not known(torch.isfinite(handed).all(), True):
        raise TargetError(f"seed must be finite; got {seed!r}.")
    if handed.ndim > 1 or (handed.ndim == 1 and handed.shape[0] != score.shape[0]):
        raise TargetError(
            f"seed must be a number or one per sample, shape ({score.shape[0]},); got {tuple(handed.shape)}."
        )
    return handed.expand_as(score).clone()


def _start(score: Tensor, handed: Tensor, seed: Any) -> Tensor:
    """`G` at the score: `R / score`."""
    if seed is None:
        return torch.ones_like(score)
    return handed / nonzero(score.detach())


def _read(x: Tensor, g: Tensor | None, multiply: bool, nz: bool) -> Tensor:
    if g is None:
        return torch.zeros_like(x)
    if not multiply:
        return g
    return (nonzero(x) if nz else x.detach()) * g


def _severed(run: Run) -> str:
    where = (
        f" The graph was cut by: {'; '.join(dict.fromkeys(list(run.trace.severed)[-3:]))}." if run.trace.severed else ""
    )
    return (
        "the score does not depend on the inputs: nothing can be attributed."
        + where
        + " Remove the detach, no_grad or "
        "conversion, or explain the part of the model behind it."
    )


def _no_multiplier(run: Run) -> str:
    unlike = next(f"{rule!r} at '{key}'" for key, rule in run.sites.composite.entries if not rule.proportional)
    return (
        f"multiply_by_inputs=False asks for the factor between input and relevance, and composite {run.sites.composite.name!r} has "
        f"{unlike}, which gives relevance to inputs of 0 as well: there is none. Read the relevance itself, or take rules that "
        "are proportional to the input, such as composite='epsilon_plus'."
    )
