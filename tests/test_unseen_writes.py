"""Writes that autograd does not see: into what carries relevance they are refused, into anything else they are the model's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

import relprop
from helpers import InPlace
from relprop.errors import UnsupportedOperationError

torch.manual_seed(0)
A, C = (torch.randn(4, 4, dtype=torch.float64) for _ in range(2))
X = torch.randn(3, 4, dtype=torch.float64)
NEW = torch.randn(3, 4, dtype=torch.float64)


def zeroed(h: Tensor) -> None:
    h[:, 0] = 0.0


def increased(h: Tensor) -> None:
    h += 1.0


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "__setitem__": zeroed,
    "add_": increased,
    "clamp_": lambda h: h.clamp_(0, 1),
    "relu": lambda h: F.relu(h, inplace=True),
    "zero_": lambda h: h[:, 0].zero_(),
    "fill_": lambda h: h.T.split(2)[1].fill_(2.0),
    "copy_": lambda h: h.copy_(NEW),
    "mul": lambda h: torch.mul(h, 2, out=h),
    "mul_": lambda h: torch.ops.aten.mul_(h, 2.0),
    "_foreach_mul_": lambda h: torch._foreach_mul_([h], 2.0),
}
PAST: dict[str, Callable[[Tensor, Callable[[Tensor], Any]], Any]] = {
    "no_grad": lambda h, write: torch.no_grad()(write)(h),
    "inference_mode": lambda h, write: torch.inference_mode()(write)(h),
    "detach": lambda h, write: write(h.detach()),
    "data": lambda h, write: write(h.data),
}
MADE: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: F.linear(x, A),
    "relu": lambda x: F.relu(x @ A),
    "view": lambda x: (x @ A)[:, :],
    "input": lambda x: x,
}


class Net(nn.Module):
    """Writes into a hidden tensor, in a module with a name."""

    def __init__(self, made: Callable[[Tensor], Tensor], write: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = Layer(made, write)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layer(x)
        return (h * 2) @ C


class Layer(nn.Module):
    def __init__(self, made: Callable[[Tensor], Tensor], write: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.made, self.write = made, write

    def forward(self, x: Tensor) -> Tensor:
        h = self.made(x)
        self.write(h)
        return h


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("past", PAST)
@pytest.mark.parametrize("name", WRITES)
def test_a_write_that_autograd_does_not_see_is_refused(name: str, past: str, made: str) -> None:
    """With the operation that wrote and the module in which it did."""
    model = Net(MADE[made], lambda h: PAST[past](h, WRITES[name]))
    with pytest.raises(UnsupportedOperationError, match=rf"{name} in module 'layer' writes into .* shape \(3, 4\)"):
        relprop.attribute(model, X, 1)


@pytest.mark.parametrize("options", [{"ledger": True}, {"layers": "*"}, {"checkpoint": ["layer"]}, {"strict": False}])
def test_no_option_lets_such_a_write_pass(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedOperationError, match="clamp_ in module 'layer' writes into"):
        relprop.attribute(Net(MADE["linear"], lambda h: h.data.clamp_(0, 1)), X, 1, **options)


def test_the_model_s_output_may_not_be_written_into_either() -> None:
    def model(x: Tensor) -> Tensor:
        y = x @ A
        with torch.no_grad():
            y.clamp_(0, 1)
        return y

    with pytest.raises(UnsupportedOperationError, match="clamp_ in the model's own forward writes into"):
        relprop.attribute(model, X, 1)


def test_a_followed_write_does_not_hide_one_that_is_not() -> None:
    def model(x: Tensor) -> Tensor:
        h = x @ A
        view = h[:, :2]
        h.detach().mul_(2)
        view.add_(1)
        return h @ C

    with pytest.raises(UnsupportedOperationError, match="mul_ in the model's own forward writes into"):
        relprop.attribute(model, X, 1)


def test_the_advice() -> None:
    """What the error says to write instead is explained, and is the model that was meant."""
    with pytest.raises(UnsupportedOperationError) as refusal:
        relprop.attribute(Net(MADE["linear"], lambda h: h.data.clamp_(0, 1)), X, 1)
    lines = ("h = h.clamp(0, 1)", "h = torch.where(mask, h, 0.0)", "h.detach().clone()")
    assert all(line in str(refusal.value) for line in lines)
    mask = NEW > 0
    results = {}
    for line in lines[:2]:

        def model(x: Tensor, line: str = line) -> Tensor:
            names = {"h": F.linear(x, A), "mask": mask, "torch": torch}
            exec(line, names)
            return names["h"] @ C  # type: ignore[operator, no-any-return]

        results[line] = relprop.attribute(model, X, 1, composite="zero").values
    h = X @ A.T
    torch.testing.assert_close(results[lines[0]], X * ((h.clamp(0, 1) / h * C[:, 1]) @ A))
    torch.testing.assert_close(results[lines[1]], X * ((mask * C[:, 1]) @ A))


class Tripled(InPlace):
    """Registered here."""


class TripledElsewhere(Tripled):
    """The same, by no torch operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        x.detach().numpy()[:] *= 3
        return x


relprop.register(Tripled, TripledElsewhere, family="structure")


class Statistics(nn.Module):
    """Counts what it sees, in buffers, and keeps what came before, as a cache."""

    mean: Tensor
    cache: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))
        self.register_buffer("cache", torch.zeros(2, 3, 4, dtype=torch.float64))

    def forward(self, h: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * h.mean(0))
            self.cache[0].copy_(h)
            self.cache[1, :, 0] = h[:, 0]
        self.mean.data.clamp_(-1, 1)
        return h


def copied(h: Tensor) -> Tensor:
    shown = h.detach().clone()
    shown[:, 0] = 0.0
    shown.data.clamp_(0, 1)
    return h


def made_anew(h: Tensor) -> Tensor:
    with torch.no_grad():
        size = h.abs().mean()
        size.clamp_(0, 1)
    return h


def written_before(h: Tensor) -> Tensor:
    buffer = torch.ones(3, 4, dtype=torch.float64)
    view = buffer[:, :2]
    buffer.data.mul_(2)
    view.zero_()
    buffer.copy_(h)
    view.mul_(1.0)
    return buffer


@pytest.mark.parametrize(
    "step",
    [Statistics(), copied, made_anew, written_before],
    ids=lambda step: getattr(step, "__name__", type(step).__name__),
)
def test_what_is_no_matter_of_relevance_may_be_written_into(step: Callable[[Tensor], Tensor]) -> None:
    found = relprop.attribute(lambda x: step(x @ A).tanh() @ C, X, 1, composite="zero").values
    torch.testing.assert_close(found, relprop.attribute(lambda x: (x @ A).tanh() @ C, X, 1, composite="zero").values)


@pytest.mark.parametrize("function", [Tripled, TripledElsewhere])
def test_a_custom_function_may_write_into_its_argument(function: type[Function]) -> None:
    def model(x: Tensor) -> Tensor:
        h = x @ A
        function.apply(h)
        return h.tanh() @ C

    found = relprop.attribute(model, X, 1, composite="zero").values
    plain = relprop.attribute(lambda x: (x @ A * 3).tanh() @ C, X, 1, composite="zero").values
    torch.testing.assert_close(found, plain)


class Shifted(Function):
    """Shifts its argument in place, and does not say so: what pytorch-tabnet's sparsemax does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x -= x.amax(1, keepdim=True)
        result = (x + 1.0).clamp(min=0)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g * (ctx.saved_tensors[0] > 0)


class ShiftedAside(Shifted):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Shifted.forward(ctx, x.clone())


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("composite", ["zero", "epsilon", "epsilon_plus", "gamma_flat", "auto"])
def test_a_custom_function_that_writes_and_does_not_say_so(composite: str) -> None:
    """Refused with the line that helps, and the layer below is explained by what it returned, not by what it became."""

    def model(function: type[Function]) -> Callable[[Tensor], Tensor]:
        return lambda x: function.apply(F.linear(x, A)) @ C

    with pytest.raises(UnsupportedOperationError, match=r"Shifted.*writes into its argument") as caught:
        relprop.attribute(model(Shifted), X, 1, composite=composite)
    assert 'relprop.register(Shifted, family="structure")' in str(caught.value)
    relprop.register(Shifted, ShiftedAside, family="structure")
    found = relprop.attribute(model(Shifted), X, 1, composite=composite)
    aside = relprop.attribute(model(ShiftedAside), X, 1, composite=composite)
    assert torch.equal(found.values, aside.values) and torch.equal(found.output, aside.output)
    relprop.register(Shifted, family="activation", replace=True)
    with pytest.raises(UnsupportedOperationError, match='Register it with family="structure", replace=True'):
        relprop.attribute(model(Shifted), X, 1, composite=composite)


def test_a_custom_function_may_write_into_a_view() -> None:
    def model(x: Tensor) -> Tensor:
        h = x @ A
        Tripled.apply(h[:, :2])
        return h.tanh() @ C

    found = relprop.attribute(model, X, 1, composite="zero").values
    plain = lambda x: torch.cat([x @ A[:, :2] * 3, x @ A[:, 2:]], 1).tanh() @ C  # noqa: E731
    torch.testing.assert_close(found, relprop.attribute(plain, X, 1, composite="zero").values)


def test_a_write_after_a_custom_function_is_refused() -> None:
    def model(x: Tensor) -> Tensor:
        h = x @ A
        Tripled.apply(h)
        y = h.tanh()
        h.detach().mul_(2)
        return (h + y) @ C

    with pytest.raises(UnsupportedOperationError, match="mul_ in the model's own forward writes into"):
        relprop.attribute(model, X, 1)


def test_what_nobody_reads_any_more_may_be_written_into() -> None:
    def model(x: Tensor) -> Tensor:
        h = x @ A
        y = h @ C
        h.detach().zero_()
        return y

    torch.testing.assert_close(relprop.attribute(model, X, 1, composite="zero").values, X * (A @ C[:, 1]))


def by_array(h: Tensor) -> None:
    h.detach().numpy()[:, 0] = 0.0


def by_a_view_of_data(h: Tensor) -> None:
    h.data.reshape(-1).numpy()[0] = 5.0


def by_conversion(h: Tensor) -> None:
    numpy.asarray(h.detach())[:] *= 2.0


def by_dlpack(h: Tensor) -> None:
    torch.utils.dlpack.from_dlpack(h.detach()).zero_()


@pytest.mark.parametrize("write", [by_array, by_a_view_of_data, by_conversion, by_dlpack])
@pytest.mark.parametrize("made", MADE)
def test_writes_from_outside_torch_are_refused(made: str, write: Callable[[Tensor], Any]) -> None:
    net = Net(MADE[made], write)
    with pytest.raises(UnsupportedOperationError, match=r"module 'layer' into a tensor that carries relevance"):
        relprop.attribute(net, X.clone(), 0, composite="zero")
    leaf = X.clone().requires_grad_()
    with pytest.raises(UnsupportedOperationError, match=r"into a tensor that carries relevance"):  # noqa: SIM117
        with relprop.propagate("zero", model=net, inputs=leaf):
            net(leaf)


@pytest.mark.parametrize("made", MADE)
def test_arrays_may_be_read_and_constants_written(made: str) -> None:
    def read(h: Tensor) -> None:
        assert numpy.isfinite(h.detach().numpy()).all()
        mask = (h > 0).double()
        mask.numpy()[0] = 0.0

    found = relprop.attribute(Net(MADE[made], read), X, 0, composite="zero")
    plain = relprop.attribute(Net(MADE[made], lambda h: None), X, 0, composite="zero")
    assert torch.equal(found.values, plain.values)
