"""No call leaves a tensor, a node of the graph, a hook or a context behind, nor keeps the model: also after an error.

A node of autograd's graph holds tensors that Python's garbage collector cannot see, so nodes are marked: the mark dies
with the node.
"""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
import text_models
from helpers import Mark, Struck, only_what_is_new, propagated
from relprop.captum import LRP, LayerLRP

PACKAGE = os.path.dirname(relprop.__file__)


class Tap(nn.Module):
    """Hands on what it gets, and marks it and the node that made it."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(weakref.ref(x))
        if x.grad_fn is not None:
            mark = x.grad_fn.metadata["mark of the tests"] = Mark()
            self.seen.append(weakref.ref(mark))
        return x


class Block(nn.Module):
    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.conv, self.norm, self.tap = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), Tap(seen)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.tap(self.norm(self.conv(x)).relu_())


class Net(nn.Module):
    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(2, 4, 3), nn.ModuleList(Block(seen) for _ in range(3))
        self.pool, self.head, self.tap = nn.MaxPool2d(2), nn.Linear(36, 5), Tap(seen)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tap(torch.nn.functional.silu(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.tap(self.pool(x).flatten(1)))


class Reader(nn.Module):
    """Ids, positions and an attention."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 8), nn.Embedding(6, 8)
        self.attend, self.tap, self.head = nn.MultiheadAttention(8, 2, batch_first=True), Tap(seen), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.tap(x + self.attend(x, x, x)[0])[:, -1])


def pictures() -> Tensor:
    return torch.rand(2, 2, 8, 8)


def ids() -> Tensor:
    return torch.arange(12).reshape(2, 6)


def read(model: nn.Module, **options: Any) -> Any:
    return relprop.attribute(model, ids(), 1, **options)


def seen_by(model: nn.Module, **options: Any) -> Any:
    return relprop.attribute(model, pictures(), [0, 1], **options)


CALLS: dict[str, tuple[type[nn.Module], Callable[[Any], Any]]] = {
    "attribute": (Net, seen_by),
    "rules": (Net, lambda m: seen_by(m, composite="epsilon_alpha2_beta1_flat")),
    "one number": (Net, lambda m: relprop.attribute(m, pictures(), lambda y: y[0, 1])),
    "ledger": (Net, lambda m: seen_by(m, ledger=True)),
    "layers": (Net, lambda m: seen_by(m, layers="*", composite="epsilon_plus")),
    "inputs of layers": (Net, lambda m: seen_by(m, layers="*", layers_at="input", composite="gamma_flat")),
    "ledger and layers": (Net, lambda m: seen_by(m, ledger=True, layers="*")),
    "checkpoint": (Net, lambda m: seen_by(m, checkpoint=True)),
    "checkpoint, ledger and layers": (Net, lambda m: seen_by(m, checkpoint=True, ledger=True, layers="blocks.?")),
    "batches": (Net, lambda m: seen_by(m, batch_size=1, ledger=True)),
    "targets": (Net, lambda m: relprop.attribute_each(m, pictures(), [0, 1, relprop.Contrast(1, 2)], ledger=True)),
    "targets at once": (Net, lambda m: relprop.attribute_each(m, pictures(), [0, 1], targets_at_once=2)),
    "propagate": (Net, lambda model: propagated(model, pictures())),
    "survey": (Net, lambda m: relprop.survey(m, pictures())),
    "LRP": (Net, lambda m: LRP(m).attribute(pictures(), 1)),
    "LayerLRP": (Net, lambda m: LayerLRP(m, m.blocks[1]).attribute(pictures(), 1)),
    "all layers of LayerLRP": (Net, lambda m: LayerLRP(m, None).attribute(pictures(), 1)),
    "through": (Net, lambda m: seen_by(m, through=relprop.units("blocks.1.conv")[1] & ~relprop.units("stem")[2])),
    "through, ledger and layers": (
        Net,
        lambda m: seen_by(m, through=[relprop.units("blocks.1.conv")[n] for n in (0, 1)], ledger=True, layers="*"),
    ),
    "against": (Net, lambda m: seen_by(m, against=pictures() * 0.5, layers="blocks.?")),
    "weights": (Net, lambda m: seen_by(m, weights=True)),
    "graph": (Net, lambda m: relprop.graph(m, pictures()[:1], 1, nodes=["stem", "blocks.1.conv"], keep=4)),
    "similarity": (Net, lambda m: relprop.similarity(m, pictures()[:1], pictures()[1:])),
    "patch": (Net, lambda m: relprop.patch(m, pictures(), pictures() * 0.5, 1, nodes=[relprop.units("stem")[1]])),
    "through a head": (Reader, lambda m: read(m, through=relprop.units("attend.heads")[0])),
    "ids": (Reader, read),
    "heads": (Reader, lambda m: read(m, layers="attend.heads", ledger=True)),
    "positions": (Reader, lambda m: read(m, positions=True, ledger=True)),
}


def left_behind(module: nn.Module) -> list[str]:
    """What a call may have forgotten to undo."""
    found = []
    if torch._C._len_torch_function_stack():
        found.append("a function mode")
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        found.append("hooks on saved tensors")
    if not torch.is_grad_enabled() or not torch.autograd.is_multithreading_enabled():
        found.append("a setting of autograd")
    for name, part in module.named_modules():
        if part._forward_hooks or part._forward_pre_hooks or part._forward_hooks_always_called:
            found.append(f"a hook on '{name}'")
    return found


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


@pytest.fixture(autouse=True)
def _nothing_before() -> Iterator[None]:
    with only_what_is_new():
        yield


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_nothing(name: str) -> None:
    kind, call = CALLS[name]
    seen: list[Any] = []
    model = kind(seen).eval()
    for _ in range(2):
        call(model)
    before = tensors()
    for _ in range(5):
        call(model)
    assert tensors() <= before
    assert seen and not [ref for ref in seen if ref() is not None]
    assert not left_behind(model)


@pytest.mark.parametrize("name", CALLS)
def test_a_result_does_not_keep_the_model(name: str) -> None:
    kind, call = CALLS[name]
    seen: list[Any] = []
    model = kind(seen).eval()
    result, reference = call(model), weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None and result is not None
    assert not [ref for ref in seen if ref() is not None]


def _less_its_activation(x: Tensor) -> Tensor:
    h = x * 2
    return h.sub_(h.sigmoid())


def _less_what_was_made_of_a_difference(x: Tensor) -> Tensor:
    h = x * 2
    return h.sub_((h - h).tanh())


def _softmax_in_place(x: Tensor) -> Tensor:
    h = x * 2
    return h.sub_(h.logsumexp(-1, keepdim=True)).exp_()


def _sums_of_exponentials(x: Tensor) -> Tensor:
    return x.clone().exp_().cumsum_(1)


def _through_a_layer(x: Tensor) -> Tensor:
    h = x * 2
    return h.copy_(torch.nn.functional.linear(h, torch.eye(3)).tanh())


def _through_a_view(x: Tensor) -> Tensor:
    h = x * 2
    h[:, 0] *= h.exp()[:, 1]
    return h


def _twice_less_its_size(x: Tensor) -> Tensor:
    h = x * 2
    first = h / (h.abs() + 1)
    h += h.abs() * -0.5
    return first / (h.abs() + 1)


def _a_view_less_its_order(x: Tensor) -> Tensor:
    h = (x * 2)[None].flatten(1)
    h -= h.gather(-1, h.argsort(-1))
    return h.reshape(x.shape)


def _less_what_was_made_of_its_view(x: Tensor) -> Tensor:
    h = x * 2
    h += torch.cat([torch.log1p(h[:, :1]), h[:, 1:]], 1)
    return h


def _a_layer_of_a_part(x: Tensor) -> Tensor:
    h = x * 2
    part = h[:, 1:] + torch.tensor([0.1, 0.3])
    part[:, torch.tensor([True, False])] = torch.nn.functional.linear(part, torch.eye(2))[:, :1]
    return torch.cat([h, part], 1)


def _a_part_by_its_neighbour(x: Tensor) -> Tensor:
    h = torch.nn.functional.silu(x)
    h[:, 1:] = torch.nn.functional.silu(h[:, :2])
    return h


OVERWRITING = [
    _less_its_activation, _less_what_was_made_of_a_difference, _softmax_in_place, _sums_of_exponentials,
    _through_a_layer, _through_a_view, _twice_less_its_size, _a_view_less_its_order, _less_what_was_made_of_its_view,
    _a_layer_of_a_part, _a_part_by_its_neighbour,
]  # fmt: skip


@pytest.mark.parametrize("ledger", [False, True])
@pytest.mark.parametrize("composite", ["zero", "gamma_flat", "cp_lrp", "auto"])
@pytest.mark.parametrize("model", OVERWRITING)
def test_what_is_written_into_with_what_was_made_of_it(
    model: Callable[[Tensor], Tensor], composite: str, ledger: bool
) -> None:
    """The graph leads back to itself there, which neither torch nor the garbage collector sees."""
    x = torch.rand(2, 3)
    relprop.attribute(model, x, 0, composite=composite, ledger=ledger)
    before = tensors()
    for _ in range(3):
        relprop.attribute(model, x, 0, composite=composite, ledger=ledger)
    assert tensors() <= before


class Around(nn.Module):
    """A function between two layers that have names."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.first, self.last = function, nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x).sigmoid())[:, :3])


@pytest.mark.parametrize("entry", ["survey", "against", "patch", "graph"])
def test_what_is_written_into_in_other_calls(entry: str) -> None:
    """Some of them run forward alone, or keep the graph for several passes; some refuse what is overwritten."""
    x = torch.rand(1, 3)
    calls: dict[str, Callable[[nn.Module], Any]] = {
        "survey": lambda m: relprop.survey(m, x),
        "against": lambda m: relprop.attribute(m, x, 0, against=x * 0.5, composite="epsilon"),
        "patch": lambda m: relprop.patch(m, x, x * 0.5, 0, nodes=[relprop.units("first")[1]]),
        "graph": lambda m: relprop.graph(m, x, 0, nodes=["first", "last"], composite="epsilon"),
    }
    networks = [Around(function).eval() for function in OVERWRITING]

    def call() -> None:
        for network in networks:
            with suppress(relprop.errors.RelpropError, RuntimeError):
                calls[entry](network)

    call()
    before = tensors()
    for _ in range(3):
        call()
    assert tensors() <= before


def sites() -> dict[str, Callable[[Callable[[], None]], dict[str, Any]]]:
    """Where something of the user's goes wrong: in the target, in a matcher, in a rule, in a hook of the backward pass."""

    def target(strike: Callable[[], None]) -> dict[str, Any]:
        return {"target": lambda output: strike() or output[:, 0]}

    def matcher(strike: Callable[[], None]) -> dict[str, Any]:
        return {"composite": relprop.Composite({relprop.where(lambda place: strike() or False): relprop.ZPlus()})}

    def rule(strike: Callable[[], None]) -> dict[str, Any]:
        class Striking(relprop.WeightedRule):
            def propagate(self, layer: Any, g: Tensor) -> Tensor:
                strike()
                return g

        return {"composite": relprop.Composite({"conv": Striking()})}

    def backward(strike: Callable[[], None]) -> dict[str, Any]:
        def target(output: Tensor) -> Tensor:
            output.register_hook(lambda g: strike())
            return output[:, 0]

        return {"target": target}

    return {"target": target, "matcher": matcher, "rule": rule, "backward pass": backward}


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "ledger": {"ledger": True},
    "layers": {"layers": "*"},
    "checkpoint": {"checkpoint": True},
    "all": {"ledger": True, "layers": "blocks.?", "checkpoint": True},
}


@pytest.mark.parametrize("error", [Struck, KeyboardInterrupt])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("site", sites())
def test_after_an_error_of_the_users_code(site: str, options: str, error: type[BaseException]) -> None:
    def strike() -> None:
        raise error

    seen: list[Any] = []
    model = Net(seen).eval()
    expected = relprop.attribute(model, torch.ones(2, 2, 8, 8), 0).values
    reference = weakref.ref(model)
    with pytest.raises(error):
        relprop.attribute(model, pictures(), **{"target": 0, **OPTIONS[options], **sites()[site](strike)})
    _as_before(model, seen, expected)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("error", [Struck, KeyboardInterrupt])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("where", ["stem", "blocks.1", "blocks.1.norm", "head"])
def test_after_an_error_in_the_model(where: str, options: str, error: type[BaseException]) -> None:
    seen: list[Any] = []
    model = Net(seen).eval()
    expected = relprop.attribute(model, torch.ones(2, 2, 8, 8), 0).values
    module = model.get_submodule(where)

    def struck(x: Tensor) -> Tensor:
        raise error

    module.forward = struck
    with pytest.raises(error):
        seen_by(model, **OPTIONS[options])
    del module.forward
    _as_before(model, seen, expected)


def _as_before(model: nn.Module, seen: list[Any], expected: Tensor) -> None:
    gc.collect()
    assert not left_behind(model)
    assert not [ref for ref in seen if ref() is not None]
    y = torch.rand(3, requires_grad=True)
    (y * y).sum().backward()
    assert torch.equal(relprop.attribute(model, torch.ones(2, 2, 8, 8), 0).values, expected)


class Interruption:
    """Interrupts the n-th call of a function of relprop, but for those that undo what was done."""

    UNDOING = frozenset({"close", "_leave", "__exit__"})

    def __init__(self, number: int) -> None:
        self.left, self.where = number, ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(PACKAGE) or code.co_name in self.UNDOING:
            return
        if code.co_flags & inspect.CO_GENERATOR:  # it may be called to end, where Python lets nothing be raised
            return
        self.left -= 1
        if self.left == 0:
            self.where = f"{code.co_filename}:{code.co_name}"
            raise KeyboardInterrupt(self.where)


@pytest.mark.parametrize("options", ["ledger", "layers", "all"])
def test_after_an_interrupt_anywhere(options: str) -> None:
    seen: list[Any] = []
    model = Net(seen).eval()
    expected = relprop.attribute(model, torch.ones(2, 2, 8, 8), 0).values
    counting = Interruption(-1)
    sys.settrace(counting)
    try:
        seen_by(model, **OPTIONS[options])
    finally:
        sys.settrace(None)
    calls = -1 - counting.left
    assert calls > 300
    met = set()
    for number in range(1, calls, calls // 25):
        strike = Interruption(number)
        sys.settrace(strike)
        try:
            seen_by(model, **OPTIONS[options])
        except KeyboardInterrupt:
            met.add(strike.where)
        finally:
            sys.settrace(None)
        _as_before(model, seen, expected)
    assert len(met) > 8


GROWTH = """
import resource, sys, torch
from torch import nn
import relprop
from relprop.captum import LayerLRP
torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
x = torch.rand(2, 3, 128, 128)  # each hidden tensor has 2 MB
call = {calls}[sys.argv[1]]
for _ in range(4):
    call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(20):
    call()
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown // (1024 if sys.platform == "darwin" else 1))
"""
GROWING = {
    "ledger": "lambda: relprop.attribute(model, x, 0, ledger=True)",
    "layers": "lambda: relprop.attribute(model, x, 0, layers='*', composite='epsilon_plus')",
    "LayerLRP": "lambda: LayerLRP(model, None).attribute(x, 1)",
    "each": "lambda: relprop.attribute_each(model, x, [0, 1], ledger=True, layers='3')",
}


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize("name", GROWING)
def test_the_memory_of_the_process_does_not_grow(name: str) -> None:
    """20 calls with some 20 MB of hidden tensors each: one call that stays behind in five would show."""
    script = GROWTH.replace("{calls}", "{" + ", ".join(f"{k!r}: {v}" for k, v in GROWING.items()) + "}")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60 * 1024  # KiB


def test_a_compiled_call_goes_with_its_model() -> None:
    seen: list[Any] = []
    model = Net(seen).eval()
    compiled = relprop.compile(model, backend="eager")
    compiled(pictures(), 1)
    compiled(pictures(), 2)
    gc.collect()
    assert not [ref for ref in seen if ref() is not None]
    reference = weakref.ref(model)
    del model, compiled
    torch._dynamo.reset()  # torch keeps what it compiled
    gc.collect()
    assert reference() is None


def _goes_with_its_model(models: list[Any], call: Callable[[Any], Any]) -> None:
    """Calls leave nothing, and a result of theirs does not keep the model, which is taken out of its list."""
    call(models[0])
    before = tensors()
    for _ in range(3):
        call(models[0])
    assert tensors() <= before
    kept, reference = call(models[0]), weakref.ref(models.pop())
    gc.collect()
    assert reference() is None and kept is not None


@pytest.mark.parametrize("options", [{}, {"ledger": True}, {"layers": "*"}])
def test_texts(options: dict[str, Any]) -> None:
    pytest.importorskip("transformers")
    tokenizer = text_models.words()
    model = [text_models.build("bert", tokenizer)]

    _goes_with_its_model(model, lambda m: relprop.explain_text(m, tokenizer, "a film was good", 1, **options))


def test_compared_texts() -> None:
    pytest.importorskip("transformers")
    tokenizer = text_models.words()
    model = [text_models.build("bert", tokenizer)]

    _goes_with_its_model(
        model, lambda m: relprop.compare_text(m, tokenizer, "a film was good", 1, ["epsilon", "cp_lrp"])
    )


def test_generated_texts() -> None:
    pytest.importorskip("transformers")
    tokenizer = text_models.letters()
    model = [text_models.build("llama", tokenizer)]

    _goes_with_its_model(
        model, lambda m: relprop.explain_generation(m, tokenizer, "the capital", max_new_tokens=3, ledger=True)
    )


@pytest.mark.parametrize("options", ["all", "inputs of layers"])
def test_threads_end_with_nothing(options: str) -> None:
    """None disturbs another that begins or ends meanwhile: an error in a thread is one of the test."""
    seen: list[Any] = []
    model = Net(seen).eval()
    some = {**OPTIONS, "inputs of layers": {"layers": "*", "layers_at": "input"}}[options]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=seen_by, args=(model,), kwargs=some) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    gc.collect()
    assert not left_behind(model)
    assert not [ref for ref in seen if ref() is not None]
