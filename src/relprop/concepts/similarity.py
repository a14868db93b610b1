"""Joint relevance of two inputs for the similarity of their embeddings (BiLRP)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.attention import SDPBackend, sdpa_kernel

from relprop.attribution.conditions import Units
from relprop.attribution.opened import Opened, opened
from relprop.attribution.points import modules_of, named
from relprop.attribution.settings import Settings
from relprop.attribution.splices import Splice, parts_of, splices_of
from relprop.composites import Composite
from relprop.concepts.groups import Group
from relprop.engine.eager import step_by_step
from relprop.errors import InputError, TargetError
from relprop.results.files.drawings import save_drawing
from relprop.signatures import public
from relprop.trees import batch_of, leaves

GRID = 14
"""The most patches along each side of a picture."""


@dataclass(frozen=True)
class Similarity:
    """Joint relevance of the parts of two inputs.

    Attributes:
        joint: (A, B): how much each pair of parts contributed to the score.
        score: the dot product or the cosine of the embeddings.
        names: the names of the parts of both inputs.
        shapes: how the parts of each input are arranged: (tokens,) or (rows, columns) of patches.
        composite: the name of the composite.
        pictures: both inputs where they are pictures, (C, H, W).
    """

    joint: Tensor
    score: float
    names: tuple[list[str], list[str]] = field(default=([], []))
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    composite: str = ""
    pictures: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    @property
    def residual(self) -> float:
        """The part of the score that no pair received: what biases and other constants absorbed."""
        return self.score - float(self.joint.sum())

    @property
    def a(self) -> Tensor:
        """The relevance of each part of the first input, (A,)."""
        return self.joint.sum(1)

    @property
    def b(self) -> Tensor:
        """The relevance of each part of the second input, (B,)."""
        return self.joint.sum(0)

    def pairs(self, most: int = 10) -> list[tuple[str, str, float]]:
        """The pairs with the largest sizes, by name."""
        flat = self.joint.flatten()
        best = flat.abs().argsort(descending=True, stable=True)[:most].tolist()
        width = self.joint.shape[1]
        return [(self.names[0][n // width], self.names[1][n % width], float(flat[n])) for n in best]

    def drawing(self, most: int = 40) -> Any:
        """Both inputs as rows, or as pictures, with lines between the strongest pairs."""
        from relprop.rendering.drawing import framed, titled
        from relprop.rendering.image import picture_of
        from relprop.rendering.pairs import draw, on_pictures

        lines = [f"sum of pairs {float(self.joint.sum()):.4g}, residual {self.residual:.4g}; {self.composite}"]
        if self.pictures is None:
            drawn = draw(self.joint.tolist(), *self.names, most)
        else:
            one, other = (picture_of(x)[0] for x in self.pictures)
            grids: Any = self.shapes
            drawn = on_pictures(self.joint.tolist(), (one, other), grids, most)
        return framed(titled(drawn, f"similarity {self.score:.4g}", lines=lines))

    def show(self) -> None:
        """Opens a picture of it."""
        self.drawing().to_image(2.0).show()

    @public(".save")
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the drawing as `.svg`, `.png` or `.pdf`.

        Raises:
            InputError: the suffix is none of these.
        """
        save_drawing(self.drawing(), path, "a similarity is")

    def __repr__(self) -> str:
        rows = "\n".join(f"  {one!r} and {other!r}: {value:+.4f}" for one, other, value in self.pairs(5))
        return f"similarity {self.score:.4g}, residual {self.residual:.4g}; {self.composite}\n{rows}"


@step_by_step
@public("relprop.similarity")
def similarity(
    model: Any,
    a: Any,
    b: Any,
    *,
    embed: Callable[[Any], Tensor] | None = None,
    cosine: bool = False,
    composite: Composite | str = "auto",
    tokens: tuple[Sequence[str], Sequence[str]] | None = None,
    at: str | Units | None = None,
    at_once: int = 32,
    forward_kwargs: tuple[dict[str, Any], dict[str, Any]] | dict[str, Any] | None = None,
    splices: Splice | Sequence[Splice] | None = None,
) -> Similarity:
    """Joint relevance of two inputs for the dot product, or the cosine, of their embeddings.

    `R_ij = sum over dimensions m of R_i(phi_m(a)) R_j(phi_m(b))`: each dimension of each embedding is explained. That takes
    one batched backward pass for each dimension, or through the backward pass for each part of the input, whichever is
    less. Without biases the pairs sum to the score.

    Args:
        model: a module, or any callable.
        a: one sample, with the axis of samples.
        b: another.
        embed: gives the embedding, (1, d), from what the model returns; by default the output itself.
        cosine: whether to explain the cosine. Both norms are constants then.
        composite: the rules.
        tokens: names of the parts of both inputs.
        at: hidden units that are the parts in place of those of the inputs, as nodes of `relprop.graph`: a path makes a part
            of each entry of the first axis, `units("blocks.3").each(1)` of each feature, over all tokens.
        at_once: how many dimensions or parts share a backward pass.
        forward_kwargs: further keyword arguments of the model, or a pair of them for both inputs.
        splices: autoencoders or transcoders in layers, whose latents may be the parts.

    Returns:
        A `Similarity`. Ids and series have a part for each position, pictures patches on a grid of at most 14 by 14.

    Raises:
        InputError: an input is several samples, several tensors carry relevance, or `at` is off the way to the embedding.
        TargetError: the embeddings are not of shape (1, d), or differ in d.
        RelpropError: as in `attribute`.

    References:
        Eberle et al. 2020, "Building and interpreting deep similarity models"; Vasileiou and Eberle 2024 for texts.
    """
    if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
        raise InputError(f"at_once must be a positive int; got {at_once!r}.")
    kwargs = forward_kwargs if isinstance(forward_kwargs, tuple) else (forward_kwargs, forward_kwargs)
    spliced = splices_of(model, splices)
    if at is not None and not isinstance(at, (str, Units)):
        raise InputError(f"at is the path of a layer or units of one, relprop.units('blocks.3').each(1); got {at!r}.")
    place: Any = None if at is None else named(model, Units(at) if isinstance(at, str) else at, parts_of(spliced))
    if place is not None and tokens is not None:
        raise InputError("tokens are names of the inputs' parts; with at=, the parts are hidden units.")
    ask = partial(_side, model, embed=embed, composite=composite, at_once=at_once, at=place, splices=spliced)
    (one, first, shape, _, said), (other, second, shape_, rules, said_) = (
        ask(x, kwargs=more) for x, more in zip((a, b), kwargs, strict=True)
    )
    if len(one) != len(other):
        raise TargetError(f"the embeddings have {len(one)} and {len(other)} dimensions.")
    norms = float(one.norm() * other.norm()) if cosine else 1.0
    if norms == 0:
        raise TargetError("an embedding is 0, so there is no cosine.")
    given = tokens if tokens is not None else (said, said_)
    names = _names(shape, given[0]), _names(shape_, given[1])
    pictures = (a[0].detach(), b[0].detach()) if at is None and all(_is_picture(x) for x in (a, b)) else None
    joint = first.T @ second / norms
    return Similarity(joint, float(one @ other) / norms, names, (shape, shape_), rules, pictures)


def _is_picture(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] in (1, 3)


def _side(
    model: Any, x: Any, *, embed: Any, composite: Any, at_once: int, kwargs: Any, at: Any, splices: Any
) -> tuple[Tensor, Tensor, tuple[int, ...], str, list[str] | None]:
    """The embedding of one input, (d,), the relevance of its parts for each dimension, (d, parts), their shape and names."""
    if batch_of(x) != 1:
        raise InputError(
            f"a similarity is of two samples; got a batch of {batch_of(x)}. Take one at a time, inputs[:1]."
        )
    kept: list[Tensor] = []

    def total(output: Any) -> Tensor:
        found = output if embed is None else embed(output)
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 1:
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise TargetError(
                f"an embedding has the shape (1, d); got {got}. Pass embed=, which picks it from the output."
            )
        kept.append(found)
        return found.sum(1)

    # the fused attention kernels have no second derivative
    modules = {} if at is None else modules_of(model, [at], parts_of(splices))
    with sdpa_kernel([SDPBackend.MATH]), opened(
        model, x, total, Settings(composite=composite), modules, forward_kwargs=kwargs, splices=splices
    ) as state:  # fmt: skip
        embedding, rules = kept[0], state.run.sites.composite.name
        state.run.begin_pass(1, False)
        if at is not None:
            found = _by_units(state, embedding, at, at_once)
            return embedding[0].detach().double(), *found[:2], rules, found[2]
        chosen = _explained(state.inputs)
        shape = tuple(_parts(leaves(state.inputs)[chosen][1].double()).shape)
        rows = _by_parts(state, embedding, chosen, at_once) if 2 * math.prod(shape) < embedding.shape[1] else None
        rows = _by_dimensions(state, embedding, chosen, at_once) if rows is None else rows
        return embedding[0].detach().double(), rows.detach().double(), shape, rules, None


def _by_units(state: Opened, embedding: Tensor, at: Units, at_once: int) -> tuple[Tensor, tuple[int, ...], list[str]]:
    """The relevance of hidden units for each dimension, (d, units), how they are arranged, and their names."""
    point = state.watch.point(at)
    if not point.edges:
        raise InputError(f"{at.said}: the layer does not lie on the way from the inputs to the embedding.")
    group = Group(at, point, state.watch.layers[at.path, at.at])
    rows: list[Tensor] = []
    edges = [GradientEdge(*edge) for edge, _ in point.edges]
    for seeds in torch.eye(embedding.shape[1], dtype=embedding.dtype, device=embedding.device)[:, None].split(at_once):
        found = _batched(embedding, edges, seeds)
        for n in range(len(seeds)):
            relevance = point.relevance([None if g is None else g[n] for g in found])
            if relevance is None:
                raise InputError(f"{at.said}: the layer does not lie on the way from the inputs to the embedding.")
            rows.append(group.sums(relevance.detach().double()))
    return torch.stack(rows), group.shape or (1,), [group.name(n) for n in range(group.count)]


def _by_parts(state: Opened, embedding: Tensor, chosen: int, at_once: int) -> Tensor | None:
    """The relevance of the parts for each dimension, (d, parts), from one pass for each part; None if that fails.

    With linear rules the relevance p of the parts is linear in what is handed to the embedding: `p = J u`. The row of J
    that belongs to a part is the gradient of its relevance by u, through the backward pass itself.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(embedding.shape, generator=generator).to(embedding).requires_grad_()
    try:
        found = torch.autograd.grad(embedding, state.reader.ends, start, create_graph=True, allow_unused=True)
        parts = _parts(state.reader.inputs(found, state.start.score)[chosen]).flatten()

        def row(one: Tensor) -> Tensor:
            return torch.autograd.grad(parts, start, one, retain_graph=True)[0][0]

        eye = torch.eye(len(parts), dtype=parts.dtype, device=parts.device)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            rows = torch.cat([torch.func.vmap(row)(some) for some in eye.split(at_once)])
    except RuntimeError:  # an operation without a second derivative, or without a rule for batches
        return None
    said, meant = rows.double() @ start[0].detach().double(), parts.detach().double()
    if not bool(((said - meant).abs() <= 1e-3 * meant.abs().max()).all()):
        return None  # a rule that is not linear, or a backward pass that hides from autograd
    return rows.T


def _by_dimensions(state: Opened, embedding: Tensor, chosen: int, at_once: int) -> Tensor:
    """The same, from one pass for each dimension."""
    rows: list[Tensor] = []
    size = embedding.shape[1]
    for start in range(0, size, at_once):
        seeds = torch.eye(size, dtype=embedding.dtype, device=embedding.device)[start : start + at_once, None]
        found = _batched(embedding, state.reader.ends, seeds)
        for n in range(len(seeds)):
            values = state.reader.inputs([None if g is None else g[n] for g in found], state.start.score)
            rows.append(_parts(values[chosen].detach()).flatten())
    return torch.stack(rows)


def _batched(embedding: Tensor, ends: Sequence[Any], seeds: Tensor) -> list[Tensor | None]:
    """`G` where relevance ends, for each seed. `torch.func.vmap` multiplies matrices faster than `is_grads_batched`."""
    answered: list[bool] = []

    def run(seed: Tensor) -> tuple[Tensor, ...]:
        found = torch.autograd.grad(embedding, ends, seed, retain_graph=True, allow_unused=True)
        answered[:] = [g is not None for g in found]
        return tuple(g for g in found if g is not None)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # an operation runs row by row
        given = iter(torch.func.vmap(run)(seeds))
    return [next(given) if there else None for there in answered]


def _explained(inputs: Any) -> int:
    """Which of the inputs is explained: ids or the only floating-point tensor; masks have no relevance."""
    found = [(path, t) for path, t in leaves(inputs) if isinstance(t, Tensor)]
    floats = [n for n, (_, t) in enumerate(found) if t.is_floating_point()]
    named = [n for n, (path, _) in enumerate(found) if "ids" in path and "type" not in path]
    chosen = floats or named or [0]
    if len(chosen) > 1:
        raise InputError(
            "a similarity explains one input; got several that carry relevance. Pass the others in forward_kwargs."
        )
    return chosen[0]


def _parts(t: Tensor) -> Tensor:
    """What belongs to each part of an input: a position, or a patch of a picture."""
    if t.ndim == 4:
        sizes = [n // math.ceil(n / GRID) if n % math.ceil(n / GRID) == 0 else math.gcd(n, GRID) for n in t.shape[2:]]
        summed = t[0].sum(0)
        return summed.reshape(sizes[0], summed.shape[0] // sizes[0], sizes[1], summed.shape[1] // sizes[1]).sum((1, 3))
    return t[0].sum(-1) if t.ndim == 3 else t[0]


def _names(shape: tuple[int, ...], given: Sequence[str] | None) -> list[str]:
    count = math.prod(shape)
    if given is not None:
        if len(given) != count:
            raise InputError(f"tokens has {len(given)} names for {count} parts of an input.")
        return list(given)
    if len(shape) == 2:
        return [f"({n // shape[1]}, {n % shape[1]})" for n in range(count)]
    return [str(n) for n in range(count)]
