"""One explanation: a forward pass inside the mode, a backward pass per target, and what is read off them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.checks import (
    arguments,
    check_labels,
    check_lengths,
    check_output,
    check_relevance,
    misshapen,
    unequal,
)  # fmt: skip
from relprop.attribution.layers import catching
from relprop.attribution.result import Relevance
from relprop.attribution.targets import scores, select_output
from relprop.attribution.trees import leaves, map_tree
from relprop.composites import Composite
from relprop.engine import Propagation, Run
from relprop.engine.checkpoint import checkpointing, recomputing
from relprop.engine.ledger import Edge, Entry, Ledger, edge_of
from relprop.engine.notes import begin, note_of
from relprop.engine.tokens import track
from relprop.errors import InputError, RelpropError, SeveredGraphError, TargetError
from relprop.numerics import known, nonzero, wide


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


def explain(model: Any, inputs: Any, targets: Sequence[Any], seed: Any, how: Options) -> list[Relevance]:
    """One `Relevance` per target, without what does not depend on the pass: the inputs' copy, labels and the model."""
    try:
        return _explain(model, inputs, targets, seed, how)
    except RuntimeError as error:
        if not any(how in str(error) for how in ("modified by an inplace operation", "has been modified inplace")):
            raise
    # the model overwrites what its own gradient needs: once more, with copies of what is overwritten
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        return _explain(model, inputs, targets, seed, how, copying=True)


def _explain(
    model: Any, inputs: Any, targets: Sequence[Any], seed: Any, how: Options, copying: bool = False
) -> list[Relevance]:
    run = Run(how.composite, model, strict=how.strict, ledger=how.ledger)
    run.positions = how.positions
    run.samples = next((len(t) for _, t in leaves(inputs) if isinstance(t, Tensor) and t.ndim), 1)
    numbers = itertools.count()
    starts: list[tuple[int, Tensor]] = []

    def start(t: Tensor) -> Tensor:
        number = next(numbers)
        t = t.clone() if t.is_inference() else t.detach()
        if not t.is_floating_point():
            run.ids = True
            return track(t, run, number)
        leaf = t.requires_grad_()
        starts.append((number, leaf))
        return begin(run, leaf)

    live = map_tree(start, inputs)
    nz_input = how.composite is not None and run.nz
    positional, named = arguments(live, how.args, how.kwargs)
    watched = catching(how.layers, how.layers_at, run)
    run.own_from, run.asking, run.copying = 0, False, copying
    with checkpointing(how.checkpointed, run), watched as caught, Propagation(run):
        try:
            raw = model(*positional, **named)
        except (RuntimeError, ValueError, IndexError) as error:
            if isinstance(error, RelpropError):
                raise
            if why := _suspect(run, model, inputs, error):
                raise InputError(f"{why} The model itself raised: {error}") from error
            raise
        output = select_output(raw, how.select)
        if how.named:
            check_labels(how.labels, output)
        found = [scores(output, target, how.labels) for target in targets]
        # what a custom function returned is met by an operation at the latest here
        found = [(s.view_as(s) if s.requires_grad and note_of(s) is None else s, target) for s, target in found]
    run.own_from = None
    for score, _ in found:
        check_lengths(inputs, score)
    plain = map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, inputs)
    check_output(model, raw, inputs, *arguments(plain, how.args, how.kwargs))
    if run.ids and not starts and not run.lookups:
        raise InputError(_unread(inputs))
    catches = [catch for some in caught.values() for catch in some]
    carriers = [*(leaf for _, leaf in starts), *(lookup.rows for lookup in run.lookups)]
    tensors = [*carriers, *(leaf for _, leaf in run.sinks)]
    edges = [c.edge for c in catches if c.edge is not None]
    if not all(score.requires_grad for score, _ in found):
        raise SeveredGraphError(_severed(run))
    backward = _backward(run, [score for score, _ in found], seed, [*tensors, *edges], how.at_once)
    results = []
    for number, (score, target) in enumerate(found):
        _check_batch(score, inputs, output)
        edge = edge_of(score)
        score = score.reshape(-1)
        handed = handed_out(score, seed)
        entries = _entries(run, tensors, score, edge, handed, _start(score, handed, seed))
        gradients = next(backward)
        if run._composite is None or number == 0:
            run.unmatched()
        if all(g is None for g in gradients[: len(carriers)]):
            raise SeveredGraphError(_severed(run))
        reads = run.composite.multiply_by_inputs if how.multiply is None else how.multiply
        read = [_read(x, g, reads, nz_input or run.nz_first) for x, g in zip(tensors, gradients, strict=False)]
        values = _per_input(run, inputs, [number for number, _ in starts], read[: len(carriers)], score)
        check_relevance(values, inputs)
        rest = iter(gradients[len(tensors) :])
        per_catch = {id(c): c.read(next(rest) if c.edge is not None else None) for c in catches}
        layers = {name: [per_catch[id(c)] for c in some] for name, some in caught.items()}
        received = sum((_per_sample(v, score.shape[0]) for v in values), torch.zeros_like(handed, dtype=torch.float64))
        taken = iter(values)
        results.append(
            Relevance(
                values=map_tree(lambda _: next(taken), inputs),  # noqa: B023 (called at once)
                output=map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, output),
                score=score.detach(),
                target=target,
                composite=run.composite,
                residual=(handed.double() - received).to(handed.dtype),
                layers={name: some[0] if len(some) == 1 else some for name, some in layers.items()},
                rules=run.rules,
                unknown=dict(run.unknown),
                positions=_of_positions(run, read[len(carriers) :]),
                ledger=Ledger(entries),
            )
        )
    return results


def _backward(
    run: Run, scores: list[Tensor], seed: Any, tensors: list[Any], at_once: int
) -> Iterator[Sequence[Tensor | None]]:
    """The gradients of each score in turn; a pass gives those of `at_once` scores."""
    for first in range(0, len(scores), at_once):
        some = [score.reshape(-1) for score in scores[first : first + at_once]]
        starts = [_start(score, handed_out(score, seed), seed) for score in some]
        run.final = first + at_once >= len(scores)
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
    for (name, _), relevance in zip(run.sinks, read, strict=True):
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


def _entries(run: Run, tensors: list[Tensor], score: Tensor, edge: Edge, handed: Tensor, start: Tensor) -> list[Entry]:
    """What each operation absorbed of each sample's relevance: a backward pass for each."""
    if run.recorder is None:
        return []
    kept = []
    for n in range(score.shape[0]):
        alone = torch.zeros_like(start)
        alone[n] = start[n]
        with recomputing(run):
            torch.autograd.grad(score, tensors, alone, retain_graph=True, allow_unused=True)
        kept.append(run.recorder.close(edge, float(handed[n])))
    columns = torch.tensor(kept, dtype=torch.float64).T
    return [Entry(e.family, e.name, e.where, row) for e, row in zip(run.recorder.entries, columns, strict=True)]


def _per_input(run: Run, inputs: Any, numbers: list[int], read: list[Tensor], score: Tensor) -> list[Tensor]:
    """Relevance in the shapes of the inputs: as read for floating point ones, gathered per id for integers."""
    of_floats = dict(zip(numbers, read, strict=False))
    of_ids: dict[int, Tensor] = {}
    for lookup, relevance in zip(run.lookups, read[len(numbers) :], strict=True):
        number = lookup.positions.input
        if number not in of_ids:
            count = leaves(inputs)[number][1].numel()
            of_ids[number] = wide(relevance).new_zeros(count)
        lookup.gather(relevance, of_ids[number])
    values = []
    for number, (_, t) in enumerate(leaves(inputs)):
        if number in of_floats:
            values.append(of_floats[number])
        else:
            found = of_ids.get(number)
            values.append(wide(score.detach()).new_zeros(t.shape) if found is None else found.reshape(t.shape))
    return values


def _suspect(run: Run, model: Any, inputs: Any, error: Exception) -> str:
    """What is likely wrong with inputs that the model itself refused; "" if we cannot tell."""
    if run.ids and isinstance(error, IndexError):
        most = {path: int(t.max()) for path, t in leaves(inputs) if not t.is_floating_point()}
        said = ", ".join(f"{path} up to {number}" for path, number in most.items())
        return f"an id may lie beyond the table it is looked up in: {said}. Do the tokenizer and the model belong together?"
    if run.ids and not run.lookups and isinstance(error, RuntimeError):
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
        return g.detach()
    return ((nonzero(x) if nz else x) * g).detach()


def _per_sample(value: Tensor, count: int) -> Tensor:
    value = value.double() if value.device.type != "mps" else value
    return (
        value.flatten(1).sum(1)
        if value.ndim > 1 and value.shape[0] == count
        else (value if value.ndim == 1 and value.shape[0] == count else value.sum().expand(count) / count)
    )


def _severed(run: Run) -> str:
    where = f" The graph was cut by: {'; '.join(dict.fromkeys(list(run.severed)[-3:]))}." if run.severed else ""
    return (
        "the score does not depend on the inputs: nothing can be attributed."
        + where
        + " Remove the detach, no_grad or "
        "conversion, or explain the part of the model behind it."
    )
