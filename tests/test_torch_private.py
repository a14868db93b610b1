"""Each private part of torch by itself, so that a new torch shows what it changed."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

import relprop
from relprop.engine.eager import uncompiled
from relprop.engine.replay import replaying
from relprop.errors import UnsupportedOperationError
from relprop.torch_private import (
    autograd_graph,
    calls,
    compiled,
    finding,
    flex,
    modules,
    names,
    recorded,
    saved,
    state,
    weak,
)

TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


# --- parts


def test_a_part_that_is_missing_is_told_of_where_it_is_needed() -> None:
    assert finding.part("_C._no_such_thing") is None
    assert finding.part("_C._no_such_thing", 3) == 3
    assert finding.part("nn.Module") is nn.Module
    error = finding.lacking("_C._no_such_thing", "this feature")
    assert "torch._C._no_such_thing, which this feature needs" in str(error)
    assert torch.__version__ in str(error)


def test_running_looks_through_the_stack() -> None:
    assert finding.running("_pytest")
    assert not finding.running("_pyt")


def test_outside() -> None:
    """Of this very file, called from pytest's."""
    assert finding.outside(__name__.split(".")[0]) >= 2
    assert finding.outside("relprop") == 1


# --- state


def test_transforms_active() -> None:
    seen = []

    def inside(x: Tensor) -> Tensor:
        seen.append((state.transforms_active(), state._transforms_on_the_stack()))
        return x.sin()

    torch.func.vmap(inside)(torch.ones(2))
    torch.func.grad(lambda x: inside(x).sum())(torch.ones(2))
    inside(torch.ones(2))
    assert seen == [(True, True), (True, True), (False, False)]


def test_graph_task() -> None:
    seen = []

    def inside(g: Tensor) -> None:
        seen.append((replaying(), state._backward_on_the_stack() != -1))

    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(inside)
    y.sum().backward()
    inside(x)
    assert seen == [(True, True), (False, False)]


def test_saved_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def block(x: Tensor) -> Tensor:
        seen.append(state.saved_elsewhere())
        return x.sin()

    x = torch.ones(2, requires_grad=True)
    assert not state.saved_elsewhere()
    checkpoint(block, x, use_reentrant=False)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        assert state.saved_elsewhere()
    monkeypatch.setattr(state, "_top_hooks", None)
    checkpoint(block, x, use_reentrant=False)
    block(x)
    assert seen == [True, True, False]


def test_checkpoints_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    state.needs_saved_elsewhere()
    monkeypatch.setattr(state, "_top_hooks", None)
    with pytest.raises(UnsupportedOperationError, match="which checkpoint=True needs"):
        relprop.attribute(deep(), torch.randn(2, 4), 0, checkpoint=True)


def deep() -> nn.Module:
    block = lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU())  # noqa: E731
    return nn.Sequential(block(), block()).eval()


class Passing(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_function_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert state.function_modes() == []
    with Passing() as mode:
        assert state.function_modes()[-1] is mode
    monkeypatch.setattr(state, "part", lambda path, otherwise=None: otherwise)
    with pytest.raises(UnsupportedOperationError, match="checkpointed part"):
        state.function_modes()


def test_without_torch_function() -> None:
    x = torch.ones(2)
    with Passing() as mode:
        with state.without_torch_function():
            torch.sin(x)
        torch.cos(x)
    assert mode.seen == ["cos"]


# --- graph


def test_tensors_inside_of_transforms() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    seen = []

    def inside(row: Tensor) -> Tensor:
        seen.append(
            (
                autograd_graph.wrapped(row),
                autograd_graph.innermost(row).shape,
                autograd_graph.innermost(row).requires_grad,
                autograd_graph.batched(row),
            )
        )
        return row.sin()

    torch.func.vmap(inside)(x)
    inside(x)
    assert seen == [(True, (2, 3), True, True), (False, (2, 3), True, False)]


def test_batched_gradients() -> None:
    seen = []

    class Looked(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
            seen.append(autograd_graph.batched(g))
            return g

    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Looked.apply(x), x, torch.eye(3), is_grads_batched=True)
    torch.autograd.grad(Looked.apply(x).sum(), x)
    assert seen == [True, False]


def test_nodes() -> None:
    class Mine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

    x = torch.ones(2, requires_grad=True)
    y = Mine.apply(x)
    assert autograd_graph.function_of(y.grad_fn) is Mine
    assert autograd_graph.function_of((x * 2).grad_fn) is None
    assert autograd_graph.function_of(None) is None
    assert autograd_graph.leaf_of(y.grad_fn.next_functions[0][0]) is x
    assert autograd_graph.leaf_of(y.grad_fn) is None
    z = x * 2
    autograd_graph.notes_on(z.grad_fn)["kept"] = 1
    assert autograd_graph.notes_on(z.grad_fn) == {"kept": 1}  # another object of Python each time, the same node
    assert not autograd_graph.written_as_view(z.grad_fn)
    z[0].mul_(3)
    assert autograd_graph.written_as_view(z.grad_fn)


# --- calls


class Telling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        self.told = calls.running_module()
        return x


def test_running_module(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(Telling())
    for _ in range(2):
        model(torch.ones(1))
        assert model[0].told is model[0]
        assert calls.running_module() is None
        monkeypatch.setattr(calls, "MODULE_CALL", None)  # then by methods called forward
    assert calls.code_of(len) is None


def test_applied() -> None:
    class Three(torch.autograd.Function):
        @staticmethod
        def forward(x: Tensor, factor: float) -> Tensor:
            return x * factor

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
            ctx.factor = inputs[1]

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Any:
            return g * ctx.factor, None

    x = torch.ones(2, requires_grad=True)
    y = calls.applied(Three, x, 3.0)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.full((2,), 3.0))


def test_unfolded() -> None:
    q = torch.randn(3, 2, 4)
    weights = torch.randn(12, 4), torch.randn(12), None, None, False, 0.0, torch.randn(4, 4), torch.randn(4)
    with Passing() as whole:
        expected = F.multi_head_attention_forward(q, q, q, 4, 2, *weights)[0]
    with Passing() as steps:
        found = calls.unfolded(F.multi_head_attention_forward)(q, q, q, 4, 2, *weights)[0]
    assert torch.equal(found, expected)
    assert whole.seen[0] == "multi_head_attention_forward"
    assert "linear" in steps.seen and "multi_head_attention_forward" not in steps.seen
    with pytest.raises(UnsupportedOperationError, match="exp in Python"):
        calls.unfolded(torch.exp)(q)


# --- names


def test_names() -> None:
    assert any(hasattr(space, "gelu") for space in names.SPACES)
    assert any(hasattr(space, "relu") for space in names.SPACES)
    assert all(map(callable, names.STATE)) and names.STATE
    assert names.BACKWARD_HOOKS is not None
    assert names.aten_name(torch.ops.aten.relu) == "relu"
    assert names.aten_name(torch.ops.aten.relu.default) == "relu"
    assert names.aten_name(torch.relu) is None
    assert names.registered(torch.ops.aten.relu) and names.registered(torch.ops.aten.relu.default)
    assert not names.registered(torch.relu)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this build of torch has no torch.distributed")
@pytest.mark.parametrize("name", names.LINEAR_FUNCTIONS)
def test_functions_around_sharded_modules(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    function = getattr(pytest.importorskip(module), attribute, None)
    if function is None and TORCH < (2, 13):
        pytest.skip(f"{attribute} is newer than torch {torch.__version__}")
    assert function is not None
    assert issubclass(function, torch.autograd.Function)


# --- compiled


def test_original() -> None:
    model = nn.Linear(2, 2)
    assert compiled.original(torch.compile(model, backend="eager")) is model
    assert compiled.original(model) is model

    def function(x: Tensor) -> Tensor:
        return x

    assert compiled.original(torch.compile(function, backend="eager")) is function


def test_skipped_and_within_compiled() -> None:
    """A skipped function runs as it is written, with all that it calls; its caller is compiled."""
    seen, graphs = [], []

    def below(x: Tensor) -> Tensor:
        return x.exp()

    @compiled.skipped
    def look(x: Tensor) -> Tensor:
        seen.append((torch.compiler.is_dynamo_compiling(), compiled.within_compiled()))
        return below(x)

    @torch.compiler.disable(recursive=False)
    def beside(x: Tensor) -> Tensor:
        seen.append((torch.compiler.is_dynamo_compiling(), compiled.within_compiled()))
        return x

    def function(x: Tensor) -> Tensor:
        return look(beside(x.sin())).cos()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append([node.target for node in graph.graph.nodes if node.op == "call_method"])
        return graph

    torch.testing.assert_close(torch.compile(function, backend=backend)(torch.ones(2)), function(torch.ones(2)))
    assert seen == [(False, True), (False, False), (False, False), (False, False)]
    assert graphs == [["sin"], ["cos"]]
    assert compiled.compiler_loaded()
    with uncompiled():
        assert not compiled.within_compiled()


def test_breaks_forbidden() -> None:
    seen = []

    @compiled.constant_when_traced
    def look() -> bool:
        seen.append(compiled.breaks_forbidden())
        return False

    assert not compiled.breaks_forbidden()
    for whole in (True, False):
        torch._dynamo.reset()
        torch.compile(lambda x: x if look() else x.sin(), backend="eager", fullgraph=whole)(torch.ones(2))
        assert set(seen) == {whole}
        seen.clear()
    assert issubclass(compiled.unsupported(), RuntimeError)
    assert compiled.unsupported() is not RuntimeError


# --- recorded


def test_strong() -> None:
    """A tensor that only the graph held, met through a weak reference, outlives the graph."""
    x = torch.ones(3, requires_grad=True)
    h = x * 2
    reference = weakref.ref(h)
    y = h * h
    del h
    found = weak.strong(reference)
    assert found is not None
    del y
    assert found.tolist() == [2.0, 2.0, 2.0] and found._base is None and found.grad_fn is not None
    del found
    assert weak.strong(reference) is None


def test_what_is_saved_is_copied_before_it_is_overwritten() -> None:
    """By every way to write, and although memory is used again at once."""

    def whole(w: Tensor) -> None:
        w.mul_(1000.0)

    def by_a_view(w: Tensor) -> None:
        w[1:] = 7.0

    def several(w: Tensor) -> None:
        torch._foreach_mul_([w], 3.0)

    def given(w: Tensor) -> None:
        torch.exp(w, out=w)

    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    scores = []
    with saved.copied_before_writes():
        for k in range(40):
            w = torch.full((2,), float(k), dtype=torch.float64)
            scores.append((x * w).sum() + (x * w).exp().sum() * 0.0)
            (whole, by_a_view, several, given)[k % 4](w)
            del w
        slopes = [torch.autograd.grad(score, x, retain_graph=True)[0] for score in scores]
    assert [g.tolist() for g in slopes] == [[float(k), float(k)] for k in range(40)]
    with pytest.raises(AssertionError, match="outside of the context"):  # which holds nothing any more
        torch.autograd.grad(scores[1], x)


class _Logarithm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.log1p()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        return g / (1 + ctx.saved_tensors[0])


@pytest.mark.parametrize("function", [torch.log1p, _Logarithm.apply])
def test_a_failed_pass_lets_go_of_what_was_saved(function: Callable[[Tensor], Tensor]) -> None:
    """Without it, the graph of such a failure stays on 2.13; on 2.9 torch lets go by itself."""

    def fail(letting_go: bool) -> weakref.ref[Tensor]:
        x = torch.rand(2, 3, requires_grad=True)
        h = x * 2
        h.add_(function(h[:, :1]))
        with pytest.raises(RuntimeError) as error:
            h.sum().backward()
        assert saved.says_overwritten(error.value) and not saved.says_overwritten(RuntimeError("another"))
        assert not saved.says_overwritten(None) and not saved.says_overwritten(ValueError(str(error.value)))
        if letting_go:
            node = h.grad_fn
            h.detach_()
            torch.autograd.graph.increment_version(h)
            saved.let_go_of_saved([node, None])
            saved.let_go_of_saved([node])  # a second time it finds nothing
        return weakref.ref(x)

    found = fail(True), fail(False)
    gc.collect()
    assert found[0]() is None
    if torch.__version__.startswith("2.13"):  # where this no longer holds, it is needed no more
        assert found[1]() is not None


def test_recorded() -> None:
    seen = []

    def inside(x: Tensor) -> list[Tensor]:
        seen.append(recorded.recording())
        y = x.sin()
        with recorded.unrecorded():
            seen.append(recorded.recording())
            torch.ones(2).exp()
        return [y]

    made = recorded.recorded(inside, (torch.ones(2),))
    assert seen == [True, False] and not recorded.recording()
    operations = [str(node.target) for node in made.graph.nodes if node.op == "call_function"]
    assert operations == ["aten.sin.default"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_traced_by_jit() -> None:
    seen = []

    def inside(x: Tensor) -> Tensor:
        seen.append(recorded.traced_by_jit())
        return x.sin()

    torch.jit.trace(inside, (torch.ones(2),), check_trace=False)
    assert seen == [True] and not recorded.traced_by_jit()


def test_what_reads_the_numbers() -> None:
    with pytest.raises(RuntimeError) as caught:
        recorded.recorded(lambda x: [x * x.sum().item()], (torch.ones(2),))
    assert recorded.looked_at(caught.value)
    assert not recorded.looked_at(RuntimeError("something else"))


def test_shapes_that_depend_on_numbers() -> None:
    for call, depends in ((lambda x: [x.sin()], False), (lambda x: [x.nonzero()], True)):
        made = recorded.recorded(call, (torch.ones(2),))
        found = recorded.shape_that_depends_on_numbers(made, (torch.ones(2),))
        assert ("nonzero" in str(found)) is depends


def test_announced() -> None:
    with recorded.announced():
        assert torch.compiler.is_compiling()
    assert not torch.compiler.is_compiling()


def test_compile_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_dispatch_mode", None)
    with pytest.raises(UnsupportedOperationError, match=r"which relprop\.compile needs"):
        relprop.compile(nn.Linear(2, 2).eval())(torch.ones(1, 2), 0)
    relprop.attribute(nn.Linear(2, 2).eval(), torch.ones(1, 2), 0)


# --- flex attention


def test_flex_operator_and_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    assert flex.flex_operator() is not None
    mask = create_block_mask(lambda b, h, t, s: t >= s, 1, 1, 4, 4, device="cpu")
    index = [torch.arange(n) for n in (1, 1, 4, 4)]
    allowed = flex.flex_mask(mask.mask_mod, index, ())
    assert allowed is not None and torch.equal(allowed.reshape(4, 4), torch.ones(4, 4).tril().bool())
    whole = create_block_mask(torch.nn.attention.flex_attention.noop_mask, 1, 1, 4, 4, device="cpu")
    assert flex.flex_mask(whole.mask_mod, index, ()) is None

    class Reading(Passing):
        def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
            if func == Tensor.requires_grad.__get__:  # type: ignore[attr-defined]
                seen.append(self.answer())
            return super().__torch_function__(func, types, args, kwargs)

        def answer(self) -> bool:
            return flex.read_by_flex_attention()

    seen: list[bool] = []
    q = torch.randn(1, 1, 4, 4)
    with warnings.catch_warnings(), uncompiled(), Reading(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        flex_attention(q, q, q)
        assert any(seen) or TORCH < (2, 13)  # an older one does not ask
        seen.clear()
        assert not q.requires_grad
        assert seen == [False]
    monkeypatch.setitem(sys.modules, "torch._higher_order_ops.flex_attention", None)
    assert flex.flex_operator() is None


# --- modules


def test_state_of() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))

    def changed() -> bool:
        nonlocal before
        same, before = before, modules.state_of(model.modules())
        return same != before

    before = modules.state_of(model.modules())
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert not changed()
    handle = model[0].register_forward_hook(lambda *_: None)
    assert changed()
    handle.remove()
    assert changed()
    model.register_forward_pre_hook(lambda *_: None)
    assert changed()
    model[0].weight = nn.Parameter(torch.ones(2, 2))
    assert changed()
    model[1].running_mean = torch.ones(2)
    assert changed()
    model.eval()
    assert changed()
    model.double()
    assert changed() and not changed()


def test_copied() -> None:
    model = nn.BatchNorm1d(2).eval()
    weight = torch.full((2,), 3.0)
    copy = modules.copied(model, nn.BatchNorm1d, {"weight": weight})
    assert type(copy) is nn.BatchNorm1d and not copy.training
    assert torch.equal(copy.weight, weight) and torch.equal(copy.bias, model.bias)
    held = {t.data_ptr() for t in (*model.parameters(), *model.buffers(), weight)}
    assert not held & {t.data_ptr() for t in (*copy.parameters(), *copy.buffers())}


def test_the_function_of_full_backward_hooks() -> None:
    module = nn.Linear(2, 2)
    module.register_full_backward_hook(lambda *a: None)
    node = module(torch.ones(1, 2, requires_grad=True)).grad_fn
    assert node is not None
    assert getattr(type(node), "_forward_cls", None) is names.HOOK_FUNCTION


def test_gradients_are_switched_off_by_a_function_that_a_mode_sees() -> None:
    seen = []

    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Mode(), torch.no_grad():
        pass
    assert names.SET_GRAD_ENABLED in seen


@pytest.mark.parametrize("name", ["SET_GRAD_ENABLED", "NESTED_TO_PADDED", "GET_GRAD", "SET_REQUIRES_GRAD"])
def test_a_name_by_which_a_mode_sees_it_is_there(name: str) -> None:
    assert callable(getattr(names, name))
