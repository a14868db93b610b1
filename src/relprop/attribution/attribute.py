"""`relprop.attribute`: one forward pass, one backward pass per target."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from relprop.attribution.batches import in_batches
from relprop.attribution.checks import admit, arguments, check_output
from relprop.attribution.identity import Identity
from relprop.attribution.layers import catching, wanted
from relprop.attribution.result import Relevance
from relprop.attribution.targets import known_labels, scores, select_output
from relprop.attribution.trees import leaves, map_tree
from relprop.composites import Composite
from relprop.engine import Propagation, Run
from relprop.engine.checkpoint import blocks, checkpointing, recomputing
from relprop.engine.eager import original, uncompiled
from relprop.engine.ledger import Edge, Entry, Ledger, edge_of
from relprop.engine.mode import begin
from relprop.engine.tokens import track
from relprop.errors import InputError, NonFiniteError, RelpropError, SeveredGraphError, TargetError
from relprop.numerics import nonzero, wide


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
) -> Relevance:
    """Explains one score per sample: how much each entry of the inputs contributed to it.

    Args:
        model: a module, or any callable on tensors. It is not changed.
        inputs: tensors with the batch first: a tensor (`model(x)`), a tuple (`model(*x)`), a dict or a tokenizer's
            answer (`model(**x)`), or a list (`model([..])`), nested as the model takes them. Integers, such as the ids
            of tokens, get the relevance of the rows that an embedding looks up for them, summed over features;
            integers that nothing looks up, such as an attention mask, get 0.
        target: which output. An int; a list or 1-D tensor with one per sample; a tuple for outputs with more
            dimensions, or a list of tuples; a label; a callable `output -> (N,)`; a `Contrast`; None for the only
            output, else the arg-max.
        composite: the rules, or the name of a composite; "auto" picks by what the network is made of.
        layers: module paths, globs or modules whose relevance is wanted as well.
        layers_at: "output" or "input" of those layers.
        seed: the relevance to hand out, per sample: None for the score itself, a number, or a tensor of shape (N,).
        forward_args: further positional arguments of the model; they get no relevance.
        forward_kwargs: further keyword arguments.
        select: what to explain of an output that is no tensor: a key, an index, an attribute's name, or a function.
        labels: names of the classes, where the model carries none.
        multiply_by_inputs: read relevance (input times modified gradient), or the modified gradient itself. None:
            as the composite says.
        strict: whether an operation without a known propagation is an error; else its gradient is used and recorded.
        checkpoint: whether the blocks of the model keep only their inputs and compute the rest again in the backward
            pass: less memory, one more forward pass. True: the members of its module lists; or their paths, or globs.
        positions: whether position encodings that are looked up or added take relevance as well and report it (Bakish et
            al. 2025); rotary ones do not. Where a model multiplies content with positions, each takes its half then.
        batch_size: samples per forward pass, for inputs larger than memory.
        progress: show a progress bar on stderr (needs tqdm).
        ledger: record which operation absorbed how much, in `Relevance.ledger`. It costs one backward pass per sample
            and a copy of every activation.

    Returns:
        Relevance whose `values` mirror the inputs.

    Raises:
        InputError: the inputs cannot be explained.
        TargetError: the target names no score.
        CompositeError: the composite names what does not exist.
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
        batch_size=batch_size, progress=progress, ledger=ledger,
    )[0]  # fmt: skip


def attribute_each(
    model: Any,
    inputs: Any,
    targets: Sequence[Any],
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
    targets_at_once: int = 1,
) -> list[Relevance]:
    """Explains several targets per sample from one forward pass and one backward pass per target.

    Args:
        model: as in `attribute`, and so are all arguments that are not named here.
        inputs: as there.
        targets: a list of targets, each in any form that `attribute` takes.
        targets_at_once: targets that share a batched backward pass: faster where inputs are few or short, at as many
            times the memory of one. With layers, checkpoint or ledger they go one by one.

    Returns:
        One `Relevance` per target, in their order.

    Raises:
        RelpropError: as `attribute`; a `TargetError` also where there is no target.
    """
    if layers_at not in ("output", "input"):
        raise InputError(f"layers_at must be 'output' or 'input'; got {layers_at!r}.")
    if not targets:
        raise TargetError("targets is empty: give at least one.")
    if not isinstance(targets_at_once, int) or isinstance(targets_at_once, bool) or targets_at_once < 1:
        raise InputError(f"targets_at_once must be a positive int; got {targets_at_once!r}.")
    model = original(model)
    inputs, chosen = admit(model, inputs, composite)
    known = labels if labels is not None else known_labels(model)
    kwargs = dict(forward_kwargs or {})

    again = _checkpointed(model, checkpoint)

    at_once = 1 if layers is not None or again or ledger else targets_at_once

    def whole(part: Any, some: Sequence[Any], start: Any) -> list[Relevance]:
        return _explain(
            model, part, some, chosen, wanted(model, layers), layers_at, start, tuple(forward_args), kwargs, select,
            known, multiply_by_inputs, strict, again, positions, ledger, at_once,
        )  # fmt: skip

    def careful(*given: Any) -> list[Relevance]:
        try:
            return whole(*given)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
        # the model overwrites what its own gradient needs: once more, with copies of what is overwritten
        with torch.autograd.graph.allow_mutation_on_saved_tensors():
            return whole(*given)

    with torch.inference_mode(False), torch.enable_grad(), uncompiled():
        if batch_size is None:
            results = careful(inputs, targets, seed)
        else:
            results = in_batches(careful, inputs, targets, seed, batch_size, progress)
        copied = map_tree(lambda t: t.detach().clone(), inputs)
    for result in results:
        result.inputs, result.labels, result.model = copied, known, Identity.of(model)
    return results


def _explain(
    model: Any, inputs: Any, targets: Sequence[Any], composite: Composite | None, modules: dict[str, nn.Module],
    layers_at: str, seed: Any, args: tuple, kwargs: dict, select: Any, labels: Any, multiply: bool | None, strict: bool,
    again: dict[str, nn.Module], positions: bool, ledger: bool, at_once: int,
) -> list[Relevance]:  # fmt: skip
    run = Run(composite, model, strict=strict, ledger=ledger)
    run.positions = positions
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
    nz_input = composite is not None and run.nz
    positional, named = arguments(live, args, kwargs)
    with checkpointing(again, run), catching(modules, layers_at, run) as caught, Propagation(run):
        try:
            raw = model(*positional, **named)
        except RuntimeError as error:
            if run.ids and not run.lookups and not isinstance(error, RelpropError):
                raise InputError(f"{_unread(inputs)} The model itself raised: {error}") from error
            raise
        output = select_output(raw, select)
        found = [scores(output, target, labels) for target in targets]
    plain = map_tree(lambda t: t.detach() if isinstance(t, Tensor) else t, inputs)
    check_output(model, raw, inputs, *arguments(plain, args, kwargs))
    if run.ids and not starts and not run.lookups:
        raise InputError(_unread(inputs))
    catches = [catch for some in caught.values() for catch in some]
    carriers = [*(leaf for _, leaf in starts), *(lookup.rows for lookup in run.lookups)]
    tensors = [*carriers, *(leaf for _, leaf in run.sinks)]
    edges = [c.edge for c in catches if c.edge is not None]
    if not all(score.requires_grad for score, _ in found):
        raise SeveredGraphError(_severed(run))
    backward = _backward(run, [score for score, _ in found], seed, [*tensors, *edges], at_once)
    results = []
    for number, (score, target) in enumerate(found):
        _check_batch(score, inputs, output)
        edge = edge_of(score)
        score = score.reshape(-1)
        handed = _handed(score, seed)
        entries = _entries(run, tensors, score, edge, handed, _start(score, handed, seed))
        gradients = next(backward)
        if run._composite is None or number == 0:
            run.unmatched()
        if all(g is None for g in gradients[: len(carriers)]):
            raise SeveredGraphError(_severed(run))
        reads = run.composite.multiply_by_inputs if multiply is None else multiply
        read = [_read(x, g, reads, nz_input or run.nz_first) for x, g in zip(tensors, gradients, strict=False)]
        values = _per_input(run, inputs, [number for number, _ in starts], read[: len(carriers)], score)
        _check_finite(values, inputs)
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
        starts = [_start(score, _handed(score, seed), seed) for score in some]
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


def _checkpointed(model: Any, checkpoint: bool | Sequence[str]) -> dict[str, nn.Module]:
    """The blocks that are computed again."""
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


def _check_batch(score: Tensor, inputs: Any, output: Any) -> None:
    """Refuses scores that are not one per sample."""
    sizes = {t.shape[0] for _, t in leaves(inputs) if isinstance(t, Tensor) and t.ndim}
    if score.ndim == 1 and sizes and score.shape[0] not in sizes:
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


def _unread(inputs: Any) -> str:
    dtypes = ", ".join(f"{path} ({t.dtype})" for path, t in leaves(inputs) if not t.is_floating_point())
    return (
        f"integers cannot carry relevance unless an embedding looks them up, and none did: {dtypes}. "
        "Convert them to floating point, or pass them in forward_args or forward_kwargs."
    )


def _handed(score: Tensor, seed: Any) -> Tensor:
    """The relevance to hand out, per sample."""
    if seed is None:
        return score.detach()
    try:
        handed = torch.as_tensor(seed, dtype=score.dtype, device=score.device)
    except (TypeError, ValueError, RuntimeError):
        raise TargetError(f"seed must be a number, or a tensor with one per sample; got {seed!r}.") from None
    if not bool(torch.isfinite(handed).all()):
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


def _check_finite(values: list[Tensor], inputs: Any) -> None:
    for (path, _), value in zip(leaves(inputs), values, strict=True):
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteError(
                f"the relevance of {path} holds NaN or infinite values (dtype {value.dtype}). A denominator vanished or "
                "overflowed: use a rule with a stabiliser, such as composite='epsilon', or a wider dtype."
            )


def _severed(run: Run) -> str:
    where = f" The graph was cut by: {'; '.join(dict.fromkeys(list(run.severed)[-3:]))}." if run.severed else ""
    return (
        "the score does not depend on the inputs: nothing can be attributed."
        + where
        + " Remove the detach, no_grad or "
        "conversion, or explain the part of the model behind it."
    )
