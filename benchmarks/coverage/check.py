"""One architecture examined: does it run as it is, and is the map what it must be?"""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from benchmarks.coverage.architectures import LIBRARIES, Architecture, enliven, run, without_constants
from relprop.attribution.targets import select_output
from relprop.composites import cp_lrp, mamba_lrp
from relprop.errors import RelpropError
from relprop.trees import leaves, map_tree

CONSERVES = 1e-4
"""How much of the score may be missing where nothing may be: some libraries compute their norms in float32."""
SAME = 1e-5
"""How far two maps may differ that must be one, as a share of the largest relevance."""


@dataclass
class Row:
    """What was found; None where a check does not apply."""

    name: str
    library: str
    kind: str
    error: str = ""
    composite: str = ""
    equal: bool | None = None
    finite: bool | None = None
    residual: float | None = None
    conserves: float | None = None
    alone: float | None = None
    padding: float | None = None
    attention: float | None = None
    untouched: bool | None = None
    books: float | None = None
    time: float | None = None
    absent: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What is wrong, in words."""
        found = [self.error] if self.error else []
        found += ["forward differs"] if self.equal is False else []
        found += ["not finite"] if self.finite is False else []
        found += ["model changed"] if self.untouched is False else []
        limits = {"conserves": CONSERVES, "alone": SAME, "padding": 0.0, "attention": SAME, "books": CONSERVES}
        for name, most in limits.items():
            value = getattr(self, name)
            if value is not None and not value <= most:
                found.append(f"{name}: {value:.1e}")
        return found

    def asdict(self) -> dict[str, Any]:
        return asdict(self) | {"faults": self.faults}


class TooLong(Exception):
    """An architecture took more than its time."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def score(output: Tensor) -> Tensor:
    """One number per sample: the middle of a picture, the last step of a sequence, the first of two classes."""
    if output.ndim < 2:
        return output
    if output.ndim == 2:
        return output[:, 0]
    if output.ndim == 3:
        return output[:, -1, min(7, output.shape[-1] - 1)]
    return output[(slice(None), 0, *(n // 2 for n in output.shape[2:]))]


def examine(one: Architecture, seconds: int = 120) -> Row:
    row = Row(one.name, one.library, one.kind)
    try:
        with at_most(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _examine(one, row)
    except ModuleNotFoundError as error:  # a package is an extra, and may need others
        row.absent = error.name or one.library
    except Exception as error:
        row.error = row.error or f"{type(error).__name__}: {error}".splitlines()[0][:500]
    return row


def _examine(one: Architecture, row: Row) -> None:
    torch.manual_seed(0)
    model = one.build().eval().requires_grad_(False)
    torch.manual_seed(0)
    inputs = one.inputs()
    if one.lively:
        enliven(model, inputs, one.options)
    with torch.no_grad():
        expected = select_output(run(model, inputs, one.options), one.select)

    before = _state(model)
    with torch.no_grad():
        run(model, inputs, one.options)
    keeps = _state(model) == before
    before = _state(model)
    found = _attribute(one, model, inputs)
    row.composite = found.composite.name or repr(found.composite)
    row.equal = torch.equal(found.output, expected)
    if not row.equal:  # some of torch's kernels are others where a gradient is wanted
        row.equal = torch.equal(found.output, _with_gradients(one, model, inputs))
        row.notes.append(
            "forward equal to the model's own where a gradient is wanted, for which torch has another kernel"
        )
    row.finite = all(bool(torch.isfinite(v).all()) for _, v in leaves(found.values))
    row.residual = _share(found.residual, found.score)
    with torch.no_grad():
        again = select_output(run(model, inputs, one.options), one.select)
    row.untouched = torch.equal(again, expected) and (not keeps or _state(model) == before)
    if not keeps:
        row.notes.append("its own forward pass changes its state")
    if not any(bool(v.abs().sum() > 0) for _, v in leaves(found.values)):
        row.notes.append("all relevance is 0")
    row.time = _time(one, model, inputs, row)

    single = one
    try:
        model.double()
        inputs = map_tree(_double, inputs)
        one = replace(one, options=map_tree(_double, one.options))
        with torch.no_grad():
            answer = select_output(run(model, inputs, one.options), one.select)
        if not bool(torch.isfinite(answer).all()):
            raise RuntimeError("not finite in float64")
    except RuntimeError:  # a model that computes in float32 whatever it is given
        model.float()
        inputs = map_tree(lambda t: t.float() if t.is_floating_point() else t, inputs)
        one = single
        row.notes.append("checked in float32")
    if not one.mixes:
        row.alone = _alone(one, model, inputs)
    if isinstance(inputs, dict) and "input_ids" in inputs and len(inputs) == 1:
        row.padding = _padding(one, model, inputs, row)
    row.attention = _attention(one, model, inputs)
    if one.library not in LIBRARIES:
        row.books = _books(one, model, inputs)
    without_constants(model)
    scan = found.composite == mamba_lrp()
    found = _attribute(one, model, inputs, mamba_lrp() | cp_lrp() if scan else cp_lrp())
    row.conserves = _share(found.residual, found.score) if bool(found.score.any()) else None
    if row.conserves is None:
        row.notes.append("without its constants the score is 0")
    elif one.limit:
        row.notes.append(f"need not conserve ({row.conserves:.1e}): {one.limit}")
        row.conserves = None


def _attribute(
    one: Architecture, model: nn.Module, inputs: Any, composite: Any = "auto", **more: Any
) -> relprop.Relevance:
    return relprop.attribute(
        model, inputs, score, composite=composite, select=one.select, forward_kwargs=one.options or None, **more
    )


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _books(one: Architecture, model: nn.Module, inputs: Any) -> float | None:
    """How far the parts of the ledger are from the residual with `zero`, as a share of the largest score."""
    found = _attribute(one, model, inputs, "zero", ledger=True)
    if not bool(found.score.any()):
        return None
    kept = sum(found.ledger.values(), torch.zeros_like(found.residual, dtype=torch.float64))
    return _share(kept - found.residual, found.score)


def _with_gradients(one: Architecture, model: nn.Module, inputs: Any) -> Tensor:
    """The model's own answer while torch records a gradient."""
    live = map_tree(lambda t: t.clone().requires_grad_() if t.is_floating_point() else t, inputs)
    table = _table(model)
    if table is not None:
        table.requires_grad_(True)
    try:
        return select_output(run(model, live, one.options), one.select).detach()
    finally:
        if table is not None:
            table.requires_grad_(False)


def _table(model: nn.Module) -> Tensor | None:
    """The weight of the first lookup."""
    return next((m.weight for m in model.modules() if isinstance(m, nn.Embedding)), None)


def _share(residual: Tensor, score: Tensor) -> float:
    return float(residual.abs().max() / score.abs().max())


def _state(model: nn.Module) -> list[Any]:
    """Everything an explanation could leave behind."""
    tensors = [
        (name, t.data_ptr(), t._version, t.requires_grad, t.grad is None, sorted(vars(t)))
        for name, t in [*model.named_parameters(), *model.named_buffers()]
    ]
    modules = [
        (name, m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks), sorted(vars(m)))
        for name, m in model.named_modules()
    ]
    return [tensors, modules]


def _pick(inputs: Any, n: int) -> Any:
    return map_tree(lambda t: t[n : n + 1], inputs)


def _apart(a: Any, b: Any) -> float:
    """The largest difference of two maps, as a share of the largest relevance."""
    pairs = [(x.double(), y.double()) for (_, x), (_, y) in zip(leaves(a), leaves(b), strict=True)]
    size = max(float(x.abs().max()) for x, _ in pairs)
    return max(float((x - y).abs().max()) for x, y in pairs) / max(size, 1e-300)


def _alone(one: Architecture, model: nn.Module, inputs: Any) -> float | None:
    """How far a sample's map moves when it is alone."""
    together = _attribute(one, model, inputs)
    count = len(together)
    if count < 2:
        return None
    return max(
        _apart(_pick(together.values, n), _attribute(one, model, _pick(inputs, n), together.composite).values)
        for n in range(count)
    )


def _padding(one: Architecture, model: nn.Module, inputs: dict[str, Tensor], row: Row) -> float | None:
    """The largest relevance of a token that the mask hides and that has no part in the score."""
    ids = inputs["input_ids"]
    mask = torch.ones_like(ids)
    mask[:, -2:] = 0
    last = lambda y: y[:, -3, 7] if y.ndim == 3 and y.shape[1] == ids.shape[1] else score(y)  # noqa: E731
    other = ids.clone()
    other[:, -2:] = 33
    try:
        with torch.no_grad():
            a, b = (
                last(select_output(run(model, {"input_ids": i, "attention_mask": mask}, one.options), one.select))
                for i in (ids, other)
            )
    except (TypeError, RuntimeError, ValueError):
        return None
    if not torch.allclose(a, b, rtol=1e-6, atol=1e-6 * float(a.abs().max())):
        row.notes.append("the model itself reads what the mask hides")
        return None
    sizes = []
    for composite in ("auto", "cp_lrp"):
        values = relprop.attribute(
            model, {"input_ids": ids, "attention_mask": mask}, last, composite=composite, select=one.select,
            forward_kwargs=one.options or None,
        ).values["input_ids"]  # fmt: skip
        sizes.append(float(values[:, -2:].abs().max() / values.abs().max()))
    return max(sizes)


def _attention(one: Architecture, model: nn.Module, inputs: Any) -> float | None:
    """How far the maps of two implementations of attention are apart, over how far their outputs are."""
    change = getattr(model, "set_attn_implementation", None)
    if change is None:
        return None
    before = model.config._attn_implementation
    outputs, maps = [], []
    try:
        for implementation in ("eager", "sdpa"):
            change(implementation)
            found = [_attribute(one, model, inputs, composite) for composite in ("attnlrp", "cp_lrp")]
            outputs.append(found[0].output)
            maps.append([f.values for f in found])
    except RelpropError:
        raise
    except Exception:  # the model has one implementation only
        return None
    finally:
        change(before)
    off = float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max())
    return max(_apart(a, b) for a, b in zip(*maps, strict=True)) if off < 1e-6 else None


def _time(one: Architecture, model: nn.Module, inputs: Any, row: Row, rounds: int = 2) -> float | None:
    """Seconds of an attribution over those of the plain gradient of the same score, by what it has to learn of."""
    table = None
    if isinstance(inputs, dict) and any(not t.is_floating_point() for t in inputs.values()):
        table = _table(model)
        if table is None:
            return None

    def gradient() -> None:
        live = map_tree(lambda t: t.clone().requires_grad_() if t.is_floating_point() else t, inputs)
        wanted = [t for _, t in leaves(live) if t.is_floating_point()] + ([] if table is None else [table])
        total = score(select_output(run(model, live, one.options), one.select)).sum()
        torch.autograd.grad(total, wanted, allow_unused=True)

    ratios = []
    for _ in range(rounds + 1):
        if table is not None:
            table.requires_grad_(True)
        start = time.process_time()
        try:
            gradient()
        except Exception:
            row.notes.append("its plain gradient fails")
            return None
        middle = time.process_time()
        if table is not None:
            table.requires_grad_(False)
        resumed = time.process_time()
        _attribute(one, model, inputs)
        ratios.append((time.process_time() - resumed) / (middle - start))
    return median(ratios[1:])
