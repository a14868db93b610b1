"""The model, its inputs and torch's settings are bit for bit the same afterwards, also after an error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import Struck
from networks import ResNet, normalised


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that a user, an optimiser or a checkpoint could notice."""
    state: dict[str, Any] = {}
    for path, module in model.named_modules():
        own = {key: value for key, value in vars(module).items() if not isinstance(value, dict)}
        state[path] = {
            "plain attributes": own,
            "attribute names": sorted(vars(module)),
            "dict sizes": {k: len(v) for k, v in vars(module).items() if isinstance(v, dict)},
            "class": type(module),
            "forward": type(module).forward,
        }
    for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[f"tensor {path}"] = {
            "identity": id(tensor),
            "storage": tensor.data_ptr(),
            "version": tensor._version,
            "value": tensor.detach().clone().numpy().tobytes(),
            "requires_grad": tensor.requires_grad,
            "grad": None if tensor.grad is None else tensor.grad.clone().numpy().tobytes(),
            "hooks": len(tensor._backward_hooks or ()),
            "attribute names": sorted(vars(tensor)),
        }
    state["random numbers"] = torch.get_rng_state().numpy().tobytes()
    state["grad mode"] = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    state["default dtype"] = torch.get_default_dtype()
    state["function modes"] = torch._C._len_torch_function_stack()
    return state


@pytest.fixture
def model() -> nn.Module:
    """With gradients on some parameters and others frozen, as in the middle of some training."""
    model = ResNet()
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    model.conv1.requires_grad_(False)
    model.fc.bias.grad = None
    return model


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 16, 16)


COMPOSITES = ["auto", "zero", "epsilon_plus_flat", "epsilon_alpha2_beta1", "gamma_flat", "guided_backprop"]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_model_afterwards(composite: str, model: nn.Module, x: Tensor) -> None:
    before, inputs = snapshot(model), x.clone()
    relprop.attribute(model, x, [0, 1], composite=composite, layers=["layer1"])
    assert snapshot(model) == before
    assert torch.equal(x, inputs) and x.grad is None and not x.requires_grad


class Striking(nn.Module):
    """A network in whose middle something goes wrong."""

    def __init__(self, strike: Callable[[Tensor], Tensor]):
        super().__init__()
        self.before, self.after, self.strike = nn.Linear(4, 4), nn.Linear(4, 3), strike

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.strike(self.before(x)))


def in_forward(h: Tensor) -> Tensor:
    raise Struck


def interrupted(h: Tensor) -> Tensor:
    raise KeyboardInterrupt


class StruckBack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return h.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise Struck


relprop.register(StruckBack, family="structure")


def in_backward(h: Tensor) -> Tensor:
    return F.relu(StruckBack.apply(h))


@pytest.mark.parametrize(
    ("strike", "error"),
    [(in_forward, Struck), (interrupted, KeyboardInterrupt), (in_backward, Struck)],
)
def test_the_model_after_an_error(strike: Callable[[Tensor], Tensor], error: type[BaseException]) -> None:
    model, x = Striking(strike), torch.randn(2, 4)
    before = snapshot(model)
    with pytest.raises(error):
        relprop.attribute(model, x, 0, composite="epsilon_plus")
    assert snapshot(model) == before


def test_the_model_after_an_error_in_a_predicate_of_the_user() -> None:
    def predicate(*_: Any) -> bool:
        raise Struck

    model, x = normalised(), torch.randn(2, 3, 8, 8)
    before = snapshot(model)
    composite = relprop.Composite({relprop.where(predicate): relprop.ZPlus()})
    with pytest.raises(Struck):
        relprop.attribute(model, x, 0, composite=composite)
    assert snapshot(model) == before


def test_the_model_after_an_error_in_the_target() -> None:
    def target(output: Tensor) -> Tensor:
        raise Struck

    model, x = normalised(), torch.randn(2, 3, 8, 8)
    before = snapshot(model)
    with pytest.raises(Struck):
        relprop.attribute(model, x, target)
    assert snapshot(model) == before


@pytest.mark.parametrize("composite", COMPOSITES)
def test_the_next_call_after_an_error(composite: str, model: nn.Module, x: Tensor) -> None:
    expected = relprop.attribute(model, x, 0, composite=composite).values
    with pytest.raises(relprop.errors.RelpropError):
        relprop.attribute(model, x, 99, composite=composite)
    assert torch.equal(relprop.attribute(model, x, 0, composite=composite).values, expected)


@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_grad_mode_of_the_caller(caller: Callable[[], Any], model: nn.Module, x: Tensor) -> None:
    expected = relprop.attribute(model, x, 0, composite="epsilon_plus")
    with caller():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        relevance = relprop.attribute(model, x, 0, composite="epsilon_plus")
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert torch.equal(relevance.values, expected.values)
    assert torch.equal(relevance.output, expected.output)
    assert not relevance.values.requires_grad and not relevance.output.requires_grad


def test_an_input_made_in_inference_mode(model: nn.Module, x: Tensor) -> None:
    expected = relprop.attribute(model, x, 0, composite="epsilon_plus").values
    with torch.inference_mode():
        made_there = x.clone()
    assert torch.equal(relprop.attribute(model, made_there, 0, composite="epsilon_plus").values, expected)


def test_an_input_that_requires_grad(model: nn.Module, x: Tensor) -> None:
    expected = relprop.attribute(model, x, 0, composite="epsilon_plus").values
    leaf = x.clone().requires_grad_()
    leaf.grad = torch.ones_like(leaf)
    for given in (leaf, leaf * 1):
        assert torch.equal(relprop.attribute(model, given, 0, composite="epsilon_plus").values, expected)
        assert given.requires_grad
    assert torch.equal(leaf.grad, torch.ones_like(leaf))


def test_a_model_that_writes_into_its_input() -> None:
    class Overwriting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x, inplace=True).sum(1)

    x = torch.randn(3, 4)
    inputs = x.clone()
    relevance = relprop.attribute(Overwriting(), x, composite="zero")
    assert torch.equal(x, inputs)
    assert torch.equal(relevance.values, inputs.clamp(min=0))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_frozen_parameters(composite: str, model: nn.Module, x: Tensor) -> None:
    expected = relprop.attribute(model, x, 0, composite=composite).values
    model.requires_grad_(False)
    assert torch.equal(relprop.attribute(model, x, 0, composite=composite).values, expected)


def test_the_hooks_of_the_user_see_what_they_always_see(model: nn.Module, x: Tensor) -> None:
    seen: list[Tensor] = []
    handle = model.layer1.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    model(x)
    relprop.attribute(model, x, 0, composite="epsilon_plus")
    handle.remove()
    assert len(seen) == 2 and torch.equal(*seen)


@pytest.mark.parametrize("pair", [("zero", "epsilon_plus_flat"), ("gamma_flat", "epsilon_alpha2_beta1")])
def test_two_threads_and_plain_inference(pair: tuple[str, str], model: nn.Module, x: Tensor) -> None:
    expected = {name: relprop.attribute(model, x, 0, composite=name).values for name in pair}
    with torch.no_grad():
        output = model(x)
    start = threading.Barrier(3)

    def explain(name: str) -> bool:
        start.wait()
        return all(torch.equal(relprop.attribute(model, x, 0, composite=name).values, expected[name]) for _ in range(5))

    def infer() -> bool:
        start.wait()
        with torch.no_grad():
            return all(torch.equal(model(x), output) for _ in range(20))

    with ThreadPoolExecutor(3) as pool:
        results = [*(pool.submit(explain, name) for name in pair), pool.submit(infer)]
        assert all(result.result() for result in results)


def test_training_flags_stay() -> None:
    """Training without batch norm or dropout is nothing to object to, and goes on as before."""
    training_model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).train()
    x = torch.randn(2, 4)
    before = snapshot(training_model)
    relprop.attribute(training_model, x, 0, composite="epsilon_plus")
    assert snapshot(training_model) == before
    assert all(module.training for module in training_model.modules())


def test_the_engine_alone_leaves_nothing_behind(model: nn.Module, x: Tensor) -> None:
    before = snapshot(model)
    leaf = x.clone().requires_grad_()
    with relprop.propagate("epsilon_plus", model=model, inputs=leaf):
        score = model(leaf)[:, 0].sum()
    (gradient,) = torch.autograd.grad(score, leaf)
    assert snapshot(model) == before
    expected = relprop.attribute(model, x, 0, composite="epsilon_plus").values
    assert torch.equal((leaf * gradient).detach(), expected)


def test_the_model_after_an_error_in_a_rule_of_the_user(model: nn.Module, x: Tensor) -> None:
    class Faulty(relprop.WeightedRule):
        def propagate(self, layer: Any, g: Tensor) -> Tensor:
            raise ZeroDivisionError("in the backward pass")

    before = snapshot(model)
    with pytest.raises(ZeroDivisionError):
        relprop.attribute(model, x, 0, composite=relprop.Composite({"conv": Faulty(), "linear": Faulty()}))
    assert snapshot(model) == before


def test_a_model_that_overwrites_what_its_gradient_needs() -> None:
    """Torch alone refuses to differentiate it; we keep copies."""
    torch.manual_seed(0)
    first, last = nn.Linear(4, 8).double(), nn.Linear(8, 3).double()

    def overwriting(x: Tensor) -> Tensor:
        h = first(x)
        h[:, 4:].relu_().mul_(2)
        return last(h)

    def plain(x: Tensor) -> Tensor:
        h = first(x)
        return last(torch.cat([h[:, :4], h[:, 4:].relu() * 2], 1))

    x = torch.randn(3, 4).double()
    for composite in ("zero", "epsilon_plus", relprop.Composite({"linear": relprop.Gamma()})):
        wanted = relprop.attribute(plain, x, 0, composite=composite).values
        torch.testing.assert_close(relprop.attribute(overwriting, x, 0, composite=composite).values, wanted)


def test_the_gradient_may_be_taken_inside_the_block() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double(), torch.randn(3, 4).double()
    wanted = relprop.attribute(model, x, 1, composite="epsilon").values
    x.requires_grad_()
    with relprop.propagate("epsilon", model=model, inputs=x):
        score = model(x)[:, 1].sum()
        (g,) = torch.autograd.grad(score, x, retain_graph=True)
    torch.testing.assert_close(x.detach() * g, wanted)
