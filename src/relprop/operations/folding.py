"""Which weighted layer the next scale, shift or BatchNorm folds into: the one before it, also behind views.

Between a layer and its bias or BatchNorm, models change the layout: `conv2d(x.unsqueeze(2)).squeeze(2)`, a BatchNorm over
`h.flatten(2)`, or over the features of `linear(x).transpose(1, 2)`. A view that shows each entry once, with the layer's
channels on an axis of their own, makes another linear map of the same weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from relprop.engine.moves import fixed, moved, stay
from relprop.engine.notes import NOTE_NAME, Move, Note
from relprop.numerics import aside
from relprop.operations.layer_call import LayerCall
from relprop.operations.maps import Contraction, Convolution, Dense, Map
from relprop.operations.weighted import Weighted
from relprop.torch_private.recorded import recording


class Moved(Map):
    """A linear map whose output is seen in another layout, of this shape.

    Args:
        inner: the map.
        before: the shape of its output.
        shape: the shape as it is seen.
        axes: which axes of the output are still axes of their own: theirs as they are seen, and as they were.
        there: moves the entries.
        back: moves them back.
    """

    def __init__(
        self,
        inner: Map,
        before: torch.Size,
        shape: torch.Size,
        axes: dict[int, int],
        there: Callable[[Tensor], Tensor],
        back: Callable[[Tensor], Tensor],
    ) -> None:
        self.inner, self.before, self.shape, self.axes = inner, before, shape, axes
        self.there, self.back = there, back
        if (extent := getattr(inner, "extent", None)) is not None:
            self.extent = extent

    def forward(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        y = self.inner.forward(x, w)
        y = self.there(
            y if y.shape == self.before else y.expand(self.before)
        )  # one sample, for what is the same for all
        return y if b is None else y + b

    def transpose(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        return self.inner.transpose(self.back(s), w, x)

    def along_output(self, v: Tensor, w: Tensor) -> Tensor:
        return self.inner.along_output(v, w)

    def along_result(self, v: Tensor) -> Tensor:
        v = self.inner.along_result(v)
        return _turned(v, len(self.shape), {was: now for now, was in self.axes.items()}, len(self.before))

    def shows(self, vector: Tensor | None) -> bool:
        """Whether a factor or bias of each channel is still one: it varies only along axes that are axes of their own."""
        if vector is None:
            return True
        v = self.inner.along_result(vector)
        first = len(self.before) - v.ndim
        return all(n == 1 or first + d in self.axes.values() for d, n in enumerate(v.shape))

    def vector(self, constant: Tensor, shape: torch.Size) -> Tensor | None:
        first = len(shape) - constant.ndim
        if first < 0 or any(n > 1 and first + d not in self.axes for d, n in enumerate(constant.shape)):
            return None
        return self.inner.vector(_turned(constant, len(self.before), self.axes, len(shape)), self.before)

    def uniform(self, number: Tensor, shape: torch.Size) -> Tensor | None:
        return self.inner.uniform(number, self.before)

    def over(self, axis: int) -> bool:
        was, channels = self.axes.get(axis), self.inner.channel_axis
        if was is not None:
            return self.inner.over(was) or was - len(self.before) == channels
        # an axis of one entry has no place of its own: it may be that of a lone channel
        alone = self.shape[axis] == 1 if axis < len(self.shape) else False
        return alone and channels is not None and self.before[channels] == 1


def _turned(t: Tensor, ndim: int, axes: dict[int, int], wide: int) -> Tensor:
    """A tensor that broadcasts with `wide` axes, with its axes longer than 1 put where `axes` says, among `ndim`."""
    t = t.reshape([1] * (wide - t.ndim) + list(t.shape))
    shape = [1] * ndim
    for axis, to in axes.items():
        shape[to] = t.shape[axis]
    order = sorted(axes, key=lambda axis: axes[axis])
    return t.permute(*order, *(axis for axis in range(wide) if axis not in axes)).reshape(shape)


def layer_before(live: Tensor) -> tuple[LayerCall | None, Tensor | None]:
    """The layer that made a tensor, also behind views; and a factor, as in `Note.scaled`. None where there is none."""
    note: Note | None = getattr(live, NOTE_NAME, None)
    layer, scale = (None, None) if note is None else (note.scaled or (note.layer, None))
    if layer is None and note is not None and note.move is not None:
        return behind_views(note, live) or (None, None)
    return layer, scale


def note_scaled(note: Note, layer: LayerCall, scale: Tensor | None, factor: Tensor) -> None:
    """Notes that a tensor is the layer's output times these factors, the earlier ones among them."""
    note.scaled = layer, factor if scale is None else scale * factor


def behind_views(note: Note, tensor: Tensor) -> tuple[LayerCall, Tensor | None] | None:
    """The layer that made what a tensor is a view of, as a layer that makes the view; and a factor, as in `Note.scaled`."""
    moves: list[Move] = []
    while note.move is not None and note.layer is None and note.scaled is None:
        moves.append(note.move)
        note = note.move.note
    layer, scale = note.scaled or (note.layer, None)
    if layer is None or type(layer.weighted) is not Weighted or layer.dtype is not tensor.dtype or recording():
        return None
    if tensor.is_nested or tensor.numel() != layer.shape.numel():  # entries were left out or repeated
        return None
    made = [move for move in reversed(moves) if move.function is not None]
    seen = _seen(layer, made)
    if seen is None:  # the first ones may undo each other
        undone = next((n for n in range(len(made), 1, -1) if stay(tuple(made[:n]))), 0)
        seen = _seen(layer, made[undone:]) if undone else None
    return None if seen is None else (seen, scale)


def _seen(layer: LayerCall, moves: Sequence[Move]) -> LayerCall | None:
    """A layer whose output is moved like this; None if entries were left out, or an input decides where they go."""
    if not moves:
        return layer
    if not isinstance(layer.weighted.linear, (Dense, Convolution, Contraction, Moved)):
        return None
    linear = _viewed(layer, moves) or _reordered(layer, moves)
    if linear is None or not (linear.shows(layer.weighted.scale) and linear.shows(layer.weighted.bias)):
        return None
    return layer.seen_as(linear, linear.shape)


def _viewed(layer: LayerCall, moves: Sequence[Move]) -> Moved | None:
    """The layer's map seen by views: its axes cut or joined, then put in another order. None if a move is something else."""
    before = layer.shape
    start = torch.empty(before, device="meta")  # whose strides tell where an axis comes from
    seen = start
    try:
        for move in moves:
            seen = move(seen)
            if seen._base is not start and seen is not start:
                return None  # it copied
    except (RuntimeError, TypeError, IndexError, NotImplementedError):
        return None
    shape, strides = seen.shape, seen.stride()
    outer_first = sorted(range(seen.ndim), key=lambda d: -strides[d])
    rest = start.numel()
    if seen.numel() != rest or rest == 0:
        return None
    for d in outer_first:
        if shape[d] > 1:
            rest //= shape[d]
            if strides[d] != rest:
                return None
    axes: dict[int, int] = {}
    for d, n in enumerate(shape):
        for axis, m in enumerate(before):
            if m == n > 1 and start.stride(axis) == strides[d]:
                axes[d] = axis
    sizes = [shape[d] for d in outer_first]
    order = [outer_first.index(d) for d in range(seen.ndim)]
    return Moved(
        layer.weighted.linear, before, shape, axes,
        lambda y: y.reshape(sizes).permute(order), lambda s: s.permute(outer_first).reshape(before),
    )  # fmt: skip


def _reordered(layer: LayerCall, moves: Sequence[Move]) -> Moved | None:
    """The layer's map with its entries in another order, each once, as behind a flip or where parts are joined again."""
    before, count = layer.shape, layer.shape.numel()
    if count == 0 or not all(map(fixed, moves)):
        return None
    with aside(), torch.no_grad():
        try:
            seen = moved(torch.arange(count).reshape(before), tuple(moves))
        except (RuntimeError, TypeError, IndexError):
            return None
        order = seen.reshape(-1)
        ordered, inverse = order.sort()
        if order.numel() != count or not torch.equal(ordered, torch.arange(count)):
            return None  # an entry was left out, or is there twice
        axes, outer = {}, count
        for axis, n in enumerate(before):
            outer //= n
            at = seen // outer % n  # where the entries were along this axis
            for d, m in enumerate(seen.shape):
                if m == n > 1 and torch.equal(
                    at, torch.arange(n).reshape([-1] + [1] * (seen.ndim - 1 - d)).expand_as(at)
                ):
                    axes[d] = axis

    def taken(t: Tensor, places: Tensor, shape: torch.Size) -> Tensor:
        return t.reshape(-1)[places.to(t.device)].reshape(shape)

    return Moved(
        layer.weighted.linear, before, seen.shape, axes,
        lambda y: taken(y, order, seen.shape), lambda s: taken(s, inverse, before),
    )  # fmt: skip
