"""Whether samples stay apart through each operation, each in its own rows along the first axis.

Results are read per sample, which is right only if no sample's score sends relevance to another's rows. If the
arguments of every operation show this, no measurement is needed. Otherwise the backward pass is measured.

Samples are apart in a tensor if their number divides the length of its first axis, with the first sample's rows first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from relprop.engine.registry import Entry
from relprop.engine.tensor_attributes import ELSEWHERE

Test = Callable[[tuple, dict, list[Tensor], Tensor], bool]


def apart(samples: int, entry: Entry | None, args: tuple, kwargs: dict, live: list[Tensor], result: Any) -> bool:
    """Whether an operation shows that it keeps apart the samples of its live operands."""
    if any(ELSEWHERE.of(t) for t in live):
        return False
    results = [r for r in _live(result) if not ELSEWHERE.of(r)]
    if entry is None or any(r.ndim == 0 or r.shape[0] % samples for r in results):
        return False
    test = _alike if entry.family == "activation" else _TESTS.get(_name(entry.function))
    return test is not None and all(test(args, kwargs, live, r) for r in results)


def _name(function: Any) -> str:
    name = getattr(function, "__name__", "")
    if name == "__get__":  # the getter of a property, such as x.mT
        name = getattr(function.__self__, "__name__", "")
    return name.strip("_")


def _live(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.requires_grad:
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _live(item)


def _alike(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """Entry by entry, or along axes other than the first: all live operands have the result's first axis."""
    return all(t.ndim == result.ndim and t.shape[0] == result.shape[0] for t in live)


def _moved(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """The same entries in the same order, in another shape."""
    return not isinstance(args[1] if len(args) > 1 else kwargs.get("dtype"), torch.dtype)


def _dims(position: int, *names: str) -> Callable[[tuple, dict], list[int] | None]:
    """Reads the axes that an operation acts on: its arguments from `position` on, or one with these names."""

    def read(args: tuple, kwargs: dict) -> list[int] | None:
        given: Any = [a for a in args[position:]] or [kwargs[n] for n in names if kwargs.get(n) is not None]
        given = list(given[0]) if given and isinstance(given[0], (tuple, list)) else given
        found = [d for d in given if isinstance(d, int) and not isinstance(d, bool)]
        return found or None

    return read


def _off_first(position: int, *names: str, count: int = 1, default: int | None = None) -> Test:
    """Acts along axes other than the first. `count` arguments from `position` on name axes; 0 means all."""
    read = _dims(position, *names)

    def test(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
        dims = read(args, kwargs)
        if dims is None:
            dims = None if default is None else [default]
        elif count:
            nested = len(args) > position and isinstance(args[position], (tuple, list))
            dims = dims if nested or position >= len(args) else dims[:count]
        if dims is None:
            return False
        return all(t.shape[0] == result.shape[0] and all(d % t.ndim != 0 for d in dims) for t in live)

    return test


def _joined(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
    return isinstance(dim, int) and dim % result.ndim != 0 and all(t.shape[0] == result.shape[0] for t in live)


def _permuted(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    given: Any = args[1:] or [kwargs.get("dims", (None,))]
    given = given[0] if isinstance(given[0], (tuple, list)) else given
    return bool(given) and isinstance(given[0], int) and given[0] % live[0].ndim == 0


def _picked(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """`t[key]`, and `t[key] = value`."""
    target, key = args[0], args[1]
    if len(args) == 2 and _one_of_each(key, target.shape[0]):
        return True
    if not _keeps_first(key, target.ndim):
        return False
    if len(args) < 3:
        return True
    value = args[2]
    if not (isinstance(value, Tensor) and value.requires_grad):
        return True
    place = target.detach()[key]
    return value.ndim == place.ndim and value.shape[0] == place.shape[0] == target.shape[0]


def _one_of_each(key: Any, count: int) -> bool:
    """Whether an index picks one entry of each row: `t[torch.arange(N), classes]`."""
    lists = isinstance(key, tuple) and all(isinstance(k, Tensor) and k.shape == (count,) for k in key)
    return lists and torch.equal(key[0], torch.arange(count, device=key[0].device))


def _keeps_first(key: Any, ndim: int) -> bool:
    """Whether an index leaves the first axis whole and in place."""
    keys = key if isinstance(key, tuple) else (key,)
    if not keys:
        return False
    one = keys[0]
    whole = isinstance(one, slice) and one == slice(None)
    if one is Ellipsis:
        whole = sum(k is not None and k is not Ellipsis for k in keys) < ndim
    lists = sum(not isinstance(k, (int, slice, type(None), type(Ellipsis))) for k in keys)
    numbers = sum(isinstance(k, int) for k in keys)
    return whole and (
        lists == 0 or lists + numbers == 1
    )  # several lists that are not adjacent move their axis to the front


def _product(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """`a @ b`: the first axis is a batch, or the rows of a."""
    operands = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    a, b = operands[0], operands[1]
    if (a.requires_grad and a.ndim < 2) or (b.requires_grad and b.ndim < 3):
        return False
    ndim = result.ndim + (b.ndim == 1)
    return all(t.ndim == ndim and t.shape[0] == result.shape[0] for t in live)


def _weighted(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """A layer whose input alone is live, and has an axis of samples."""
    x, weight = args[0] if args else kwargs["input"], args[1] if len(args) > 1 else kwargs["weight"]
    axes = weight.ndim if weight.ndim > 2 else 2
    return len(live) == 1 and live[0] is x and x.ndim >= axes and x.shape[0] == result.shape[0]


def _affine(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """`addmm`, whose first operand is a layer's bias."""
    return len(live) == 1 and live[0] is args[1] and result.shape[0] == live[0].shape[0]


def _pooled(dims: int) -> Test:
    def test(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
        return _alike(args, kwargs, live, result) and result.ndim == dims + 2

    return test


def _normalised(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """A layer norm or similar, over the last axes, given by their sizes."""
    over: Any = args[1] if len(args) > 1 else kwargs.get("normalized_shape")
    return (
        isinstance(over, (tuple, list, torch.Size)) and len(over) < result.ndim and _alike(args, kwargs, live, result)
    )


def _with_axes(least: int) -> Test:
    def test(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
        return result.ndim >= least and _alike(args, kwargs, live, result)

    return test


def _recurrent(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """A recurrent layer over sequences with the samples first. Its last states have them second, and are marked so."""
    return batch_first(args) and result.shape[0] == args[0].shape[0]


def batch_first(args: tuple) -> bool:
    """Whether a recurrent layer with these arguments takes dense sequences with the samples first."""
    packed = isinstance(args[1], Tensor) and not args[1].is_floating_point()
    return not packed and args[0].ndim == 3 and args[-1] is True


def _summed(args: tuple, kwargs: dict, live: list[Tensor], result: Tensor) -> bool:
    """An einsum whose live operands and result all begin with the same letter."""
    equation = args[0]
    if not isinstance(equation, str) or "->" not in equation:
        return False
    left, right = equation.replace(" ", "").split("->")
    operands = args[1] if len(args) == 2 and isinstance(args[1], (tuple, list)) else args[1:]
    terms = left.split(",")
    if len(terms) != len(operands) or not right[:1].isalpha():
        return False
    return all(term[:1] == right[0] for term, t in zip(terms, operands, strict=True) if t.requires_grad)


def _table() -> dict[str, Test]:
    """The tests of operations, by name."""
    found: dict[str, Test] = {}

    def put(test: Test, names: str) -> None:
        found.update(dict.fromkeys(names.split(), test))

    put(
        _alike,
        "add sub subtract rsub mul multiply div divide true_divide neg negative pow square sqrt rsqrt reciprocal exp lerp "
        "addcmul addcdiv maximum minimum fmax fmin where masked_fill clone contiguous to type type_as float double half "
        "bfloat16 cpu cuda dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout positive fill zero copy "
        "expand expand_as repeat pad constant_pad_nd interpolate upsample clamp clip remainder fmod batch_norm conj "
        "masked_scatter prelu",
    )
    put(_moved, "reshape view flatten unflatten squeeze unsqueeze reshape_as view_as ravel")
    put(_permuted, "permute")
    put(_off_first(1, "dim0", "dim1", "axis0", "axis1", count=2), "transpose swapaxes swapdims")
    put(_with_axes(3), "mT mH group_norm local_response_norm instance_norm")
    put(
        _off_first(1, "dim", "axis"),
        "sum mean amax amin max min median softmax log_softmax softmin logsumexp var std nansum cumsum cumprod prod "
        "select narrow index_select gather unbind index_add index_copy scatter scatter_add index_fill logcumsumexp",
    )
    put(_off_first(1, "dims", count=0), "flip")
    put(_off_first(2, "dim"), "norm take_along_dim")
    put(_off_first(2, "dim", "axis", default=0), "chunk split tensor_split split_with_sizes")
    put(_off_first(2, "dim", default=-1), "topk")
    put(_off_first(2, "dims", count=0), "roll")
    put(_off_first(1, "dim", default=-1), "glu sort")
    put(_off_first(2, "dim", default=1), "normalize cosine_similarity")
    put(_joined, "cat concat concatenate stack")
    put(_picked, "__getitem__ getitem __setitem__ setitem")
    put(_product, "matmul mm")
    put(_with_axes(3), "bmm scaled_dot_product_attention")
    put(_weighted, "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
    put(_affine, "addmm")
    put(_normalised, "layer_norm rms_norm")
    put(_summed, "einsum")
    put(_recurrent, "lstm gru rnn_tanh rnn_relu")
    for dims in (1, 2, 3):
        put(
            _pooled(dims),
            f"max_pool{dims}d max_pool{dims}d_with_indices avg_pool{dims}d adaptive_avg_pool{dims}d "
            f"adaptive_max_pool{dims}d adaptive_max_pool{dims}d_with_indices lp_pool{dims}d",
        )
    put(_pooled(2), "pixel_shuffle pixel_unshuffle")
    return found


_TESTS = _table()
