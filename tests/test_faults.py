"""Whatever goes wrong, and wherever: afterwards the model, torch and the next explanation are as if nothing had been.

A fault strikes at every operation of a call, its own arithmetic and the backward pass among them, or at a line of the
library's own code, as Ctrl-C does.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import relprop
from helpers import Struck
from program_properties import state
from text_models import build, words

HOME = str(Path(relprop.__file__).parent)


class Blocks(nn.Module):
    """Two blocks with a residual sum, written into in place; with BatchNorm and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)) for _ in range(2)
        )
        self.attention, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.embed(x)).transpose(1, 2)
        for block in self.blocks:
            h = h + block(h)
        h[:, 0].mul_(2)
        return self.head((h + self.attention(h, h, h, need_weights=False)[0]).mean(1))


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Blocks().double().eval(), torch.randn(2, 3, 5, dtype=torch.float64)


def propagated(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    with relprop.propagate("epsilon_plus", model=model, inputs=leaf):
        score = model(leaf)[:, 0].sum()
    return torch.autograd.grad(score, leaf)[0]


def values(answer: Any) -> list[Tensor]:
    """The maps of an answer of any entry."""
    if isinstance(answer, Tensor):
        return [answer]
    if isinstance(answer, (list, tuple)):
        return [t for one in answer for t in values(one)]
    return values(answer.values) if isinstance(getattr(answer, "values", None), Tensor) else []


@pytest.fixture(autouse=True)
def no_test_disturbs_another() -> Iterator[None]:
    yield
    while torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        torch._C._autograd._pop_saved_tensors_default_hooks()


Entry = Callable[[nn.Module, Tensor], Any]
ENTRIES: dict[str, Entry] = {
    "attribute": lambda m, x: relprop.attribute(m, x, 0),
    "with a flat first layer": lambda m, x: relprop.attribute(m, x, 0, composite="epsilon_plus_flat"),
    "with a ledger": lambda m, x: relprop.attribute(m, x, 0, composite="gamma_flat", ledger=True),
    "with a checkpoint": lambda m, x: relprop.attribute(m, x, 0, composite="epsilon", checkpoint=True),
    "with layers": lambda m, x: relprop.attribute(m, x, 0, composite="attnlrp", layers="*"),
    "in batches": lambda m, x: relprop.attribute(m, x, 0, composite="epsilon", batch_size=1),
    "attribute_each": lambda m, x: relprop.attribute_each(m, x, [0, 1], composite="cp_lrp", targets_at_once=2),
    "propagate": propagated,
    "survey": lambda m, x: relprop.survey(m, x),
    "LRP": lambda m, x: relprop.LRP(m).attribute(x, target=0),
    "LayerLRP": lambda m, x: relprop.LayerLRP(m, m.head).attribute(x, target=0),
}  # fmt: skip


class Bomb(TorchFunctionMode):
    """Raises at the n-th torch function of a call, be it the model's or the library's, forwards or backwards."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        super().__init__()
        self.at, self.error, self.seen = at, error, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += func is not torch._C._set_grad_enabled  # a context of torch's that ends, which nothing could mend
        if self.seen == self.at and func is not torch._C._set_grad_enabled:
            raise self.error
        return func(*args, **(kwargs or {}))


@contextmanager
def interrupted(at: int) -> Iterator[list[int]]:
    """Raises KeyboardInterrupt at the n-th line of the library that runs."""
    seen = [0]

    def trace(frame: types.FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            seen[0] += 1
            if seen[0] == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)


def modes() -> tuple[Any, ...]:
    """What torch would be left with: modes, hooks on what is saved, whether gradients are recorded."""
    return (
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch._C._autograd._top_saved_tensors_default_hooks(True),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
    )


def plain_gradient() -> Tensor:
    """A backward pass that has nothing to do with the library."""
    y = torch.linspace(-1, 1, 5, requires_grad=True)
    return torch.autograd.grad((y.tanh() * y).sum(), y)[0]


class Watched:
    """A model, its entry and all that must be the same after a fault."""

    def __init__(self, entry: Entry, model: nn.Module, x: Any) -> None:
        self.entry, self.model, self.x = entry, model, x
        self.right = values(entry(model, x))
        self.state, self.modes, self.gradient = state(model), modes(), plain_gradient()

    def call(self) -> Any:
        return self.entry(self.model, self.x)

    def unchanged(self, when: str) -> None:
        assert modes() == self.modes, f"{when}: torch is left with {modes()}"
        after = state(self.model)
        assert [name for name in after if after[name] != self.state.get(name)] == [], when
        assert torch.equal(plain_gradient(), self.gradient), when
        again = values(self.call())
        assert len(again) == len(self.right), when
        for got, wanted in zip(again, self.right, strict=True):
            assert torch.equal(got, wanted), f"{when}: the next explanation differs"


def spread(total: int, count: int) -> list[int]:
    """So many numbers from 1 to a total, first and last among them."""
    return sorted({1 + round(n * (total - 1) / (count - 1)) for n in range(count)})


def struck_everywhere(watched: Watched, count: int, error: type[BaseException]) -> None:
    watched.call()  # the first one does what is remembered from then on
    with Bomb(0, error) as counting:
        watched.call()
    struck = 0
    for at in spread(counting.seen, count):
        raised = False
        with Bomb(at, error) as bomb:
            try:
                watched.call()
            except error:
                raised = True
        # A call makes fewer where it finds alive what it shares with earlier ones, as the zeros of norms.
        assert raised == (bomb.seen >= at), f"struck at torch function {at} of {counting.seen}: the fault is lost"
        watched.unchanged(f"struck at torch function {at} of {counting.seen}")
        struck += raised
    assert struck >= count // 2


def interrupted_everywhere(watched: Watched, count: int) -> None:
    with interrupted(0) as seen:
        watched.call()
    for at in spread(seen[0], count):
        try:
            with interrupted(at):
                watched.call()
        except KeyboardInterrupt:
            pass
        watched.unchanged(f"interrupted at line {at} of {seen[0]}")


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("error", [Struck, KeyboardInterrupt])
def test_a_fault_at_an_operation(entry: str, error: type[BaseException]) -> None:
    struck_everywhere(Watched(ENTRIES[entry], *network()), 20, error)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_interrupt_in_the_library(entry: str) -> None:
    interrupted_everywhere(Watched(ENTRIES[entry], *network()), 30)


def spliced(model: nn.Module) -> relprop.Splice:
    """Four latents of a block, each a unit."""
    return relprop.Splice("blocks.1", encode=torch.relu, decode=lambda z: 0.5 * z)


def tensors_of(index: relprop.Index) -> list[Tensor]:
    return [t for of in index.layers.values() for t in (of.relevance.values, of.activation.values, of.class_sum)]


UNITS = relprop.units("blocks.0")[:, 1:3]
HIDDEN: dict[str, Entry] = {
    "through": lambda m, x: relprop.attribute_each(m, x, 0, through=[UNITS & relprop.units("embed")[2], ~UNITS]),
    "weights": lambda m, x: [t.clone() for t in relprop.attribute(m, x, 0, weights=True).weights.values()],
    "against": lambda m, x: relprop.attribute(m, x, 0, against=x.flip(0), layers=["blocks.1"]),
    "splices": lambda m, x: relprop.attribute(m, x, 0, splices=spliced(m), through=relprop.units("blocks.1.latents")),
    "graph": lambda m, x: torch.tensor([w for *_, w in relprop.graph(m, x[:1], 0, nodes=["blocks.0", "embed"]).edges]),
    "patch": lambda m, x: relprop.patch(
        m, x, x.flip(0), 0, nodes=[UNITS, relprop.units("blocks.1.latents")[:, 1]], splices=spliced(m)
    ).truth,
    "index": lambda m, x: tensors_of(relprop.index(m, [(one, 0) for one in x], layers=["blocks.0"], keep=2)),
    "similarity": lambda m, x: relprop.similarity(m, x[:1], x[1:], at="blocks.0").joint,
    "importance": lambda m, x: list(
        relprop.importance(m, [(one, 0) for one in x], of="neurons").scores.values()
    ),
}  # fmt: skip


@pytest.mark.parametrize("entry", HIDDEN)
def test_a_fault_in_what_explains_hidden_units(entry: str) -> None:
    watched = Watched(HIDDEN[entry], *network())
    assert watched.right
    struck_everywhere(watched, 8, Struck)
    interrupted_everywhere(watched, 10)


TEXT: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "explain_text": ("bert", lambda model, tokenizer: relprop.explain_text(model, tokenizer, "good film", 1)),
    "explain_generation": ("gpt2", lambda model, tokenizer: relprop.explain_generation(model, tokenizer, "good film", max_new_tokens=2)),
    "compare_text": ("bert", lambda model, tokenizer: relprop.compare_text(model, tokenizer, "good film", 1, ["epsilon", "cp_lrp"])),
}  # fmt: skip


@pytest.mark.parametrize("entry", TEXT)
@pytest.mark.parametrize("error", [Struck, KeyboardInterrupt])
def test_a_fault_in_a_text(entry: str, error: type[BaseException]) -> None:
    pytest.importorskip("transformers")
    kind, call = TEXT[entry]
    tokenizer = words()
    model = build(kind, tokenizer)
    struck_everywhere(Watched(lambda m, t: call(m, t), model, tokenizer), 12, error)


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name not in ("survey",)])
@pytest.mark.parametrize("error", [Struck, KeyboardInterrupt])
def test_a_fault_in_the_backward_pass_of_the_model(entry: str, error: type[BaseException]) -> None:
    """In a custom function of the model's, which the backward pass calls."""
    model, x = network()
    armed = [False]

    class Striking(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, t: Tensor) -> Tensor:
            return t.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            if armed[0]:
                raise error
            return gradients[0]

    relprop.register(Striking, family="structure")
    model.blocks[1].register_forward_hook(lambda module, args, output: Striking.apply(output))
    watched = Watched(ENTRIES[entry], model, x)
    armed[0] = True
    with pytest.raises(error):
        watched.call()
    armed[0] = False
    watched.unchanged("struck in the backward pass")


@pytest.mark.parametrize("error", [Struck, KeyboardInterrupt])
def test_a_fault_in_a_rule_a_target_and_a_predicate(error: type[BaseException]) -> None:
    model, x = network()
    armed = [False]

    def strike(*_: Any) -> bool:
        if armed[0]:
            raise error
        return True

    class Striking(relprop.WeightedRule):
        def propagate(self, layer: Any, g: Tensor) -> Tensor:
            strike()
            return relprop.Epsilon().propagate(layer, g)

    composites = (
        relprop.Composite({"linear": Striking()}),
        relprop.Composite({relprop.where(strike): relprop.Epsilon()}),
    )
    calls: list[Entry] = [
        lambda m, x, c=c, **more: relprop.attribute(m, x, 0, composite=c, checkpoint=True) for c in composites
    ]
    calls.append(lambda m, x: relprop.attribute(m, x, lambda output: output[:, int(not strike())], ledger=True))
    for call in calls:
        watched = Watched(call, model, x)
        armed[0] = True
        with pytest.raises(error):
            watched.call()
        armed[0] = False
        watched.unchanged("struck")
