"""The value computed while a model is explained is the model's own, bit for bit: `model(x)` under `torch.no_grad()`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import relprop
from relprop.errors import UnsupportedOperationError

COMPOSITES = ["gradient", "zero", "epsilon", "epsilon_plus", "auto"]


def total(output: Tensor) -> Tensor:
    return output.sum()


def fresh(make: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    return make()


def same(make: Callable[[], Any], x: Tensor, composite: str) -> None:
    """The model's output with its own parameters, without gradients, and, where torch gives the same, with them."""
    with torch.no_grad():
        expected = fresh(make)(x.clone())
    found = relprop.attribute(fresh(make), x, total, composite=composite)
    assert torch.equal(found.output, expected)


LIN, BARE = nn.Linear(32, 64), nn.Linear(32, 64, bias=False)
ROWS, VECTOR, TABLE = nn.Parameter(torch.randn(5, 17)), nn.Parameter(torch.randn(17)), torch.randn(3, 17, 17)
STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "linear of a slice": lambda x: LIN(x[:, :1]),
    "linear of a transpose": lambda x: LIN(x.transpose(0, 1)),
    "without a bias": lambda x: BARE(x.transpose(0, 1)),
    "named arguments": lambda x: F.linear(input=x.transpose(0, 1), weight=LIN.weight, bias=LIN.bias),
    "a view of the weight": lambda x: x.transpose(0, 1) @ LIN.weight.t(),
    "rows of the weight": lambda x: F.linear(x.transpose(0, 1), LIN.weight[3:50]),
    "a matrix in front": lambda x: ROWS @ x,
    "a matrix in front of a transpose": lambda x: LIN.weight.t() @ LIN(x).transpose(1, 2),
    "a vector in front": lambda x: VECTOR @ x,
    "a vector behind": lambda x: x.transpose(1, 2) @ VECTOR,
    "a constant in front": lambda x: TABLE.transpose(1, 2) @ LIN(x[0]),
    "two that carry relevance": lambda x: x.transpose(0, 1) @ (x[0, :2].T.tanh() @ x[1, :2]),
    "a frozen weight": lambda x: F.linear(x.transpose(0, 1), LIN.weight.detach(), LIN.bias),
    "a largest of neighbours": lambda x: F.max_pool1d(x.transpose(1, 2), 2, 1).unflatten(1, (2, 16)).sum(2),
    "a largest of neighbours, normalised": lambda x: F.batch_norm(
        F.max_pool1d(x.transpose(1, 2), 2, 1).unflatten(1, (2, 16)),
        TABLE[0, 0, :2],
        TABLE[0, 1, :2].abs() + 0.1,
        TABLE[1, 0, :2],
        TABLE[1, 1, :2],
    ),
    "a nuclear norm": lambda x: torch.linalg.matrix_norm(x, "nuc"),
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("name", STRIDED)
def test_operands_that_do_not_lie_in_order(name: str, composite: str) -> None:
    same(lambda: STRIDED[name], torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(1)), composite)


def test_one_row_of_any_stride() -> None:
    """Torch calls it contiguous, and takes another kernel for it all the same if the weight requires a gradient."""
    generator, other_numbers = torch.Generator().manual_seed(1), False
    for inner, outer in ((10, 3), (12, 5), (32, 64), (33, 7)):
        w = nn.Parameter(torch.randn(outer, inner, generator=generator, dtype=torch.float64))
        for _ in range(4):
            x = torch.randn(1, inner, 1, generator=generator, dtype=torch.float64)
            row = torch.cat([x[:, ::2], x[:, 1::2]], 1).transpose(1, 2)  # (1, 1, inner), with strides (inner, 1, 1)
            other_numbers |= not torch.equal(F.linear(row, w), F.linear(row, w.detach()))
            for model in (lambda t, w=w: F.linear(t, w), lambda t, w=w: t @ w.t()):
                with torch.no_grad():
                    wanted = model(row)
                found = relprop.attribute(
                    lambda t, m=model: m(t.transpose(1, 2)), row.transpose(1, 2), total, composite="epsilon"
                )  # type: ignore[misc]
                assert torch.equal(found.output, wanted)
    if not other_numbers:  # as on torch 2.14.1
        pytest.skip("this torch takes one kernel for both")


def test_some_of_these_are_other_numbers_in_another_kernel() -> None:
    """Else the test above could not fail."""
    x = torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(1)).transpose(0, 1)
    with torch.no_grad():
        assert not torch.equal(LIN(x), F.linear(x, LIN.weight.detach(), LIN.bias.detach()))


class Attention(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(32, 4, batch_first=batch_first)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("batch_first", [True, False])
def test_torchs_attention(batch_first: bool, composite: str) -> None:
    """Its own steps: the fused kernel that it takes without gradients gives other last digits."""
    x = torch.randn(2, 17, 32)
    model = fresh(lambda: Attention(batch_first).eval())
    assert torch.equal(relprop.attribute(model, x, total, composite=composite).output, model(x))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_a_gradient_that_the_caller_asks_for(composite: str) -> None:
    """In `propagate` the caller's tensors ask for a gradient, so that torch takes the kernels for such."""
    x = torch.randn(2, 17, 32).requires_grad_()
    for name, model in STRIDED.items():
        with relprop.propagate(composite, inputs=x):
            found = model(x)
        if "weight" in name or "linear" in name:
            assert torch.equal(found, model(x)), name


class Masked(nn.Linear):
    def __init__(self, write: Callable[[nn.Linear], Any]) -> None:
        super().__init__(3, 3)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        self.write(self)
        return super().forward(x)


def assigned(layer: nn.Linear) -> None:
    layer.weight.data = layer.weight.data.tril()


def copied(layer: nn.Linear) -> None:
    layer.weight.data.copy_(layer.weight.tril())


def without_gradients(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.copy_(layer.weight.tril())


def through_detach(layer: nn.Linear) -> None:
    layer.weight.detach().tril_()


def by_index(layer: nn.Linear) -> None:
    layer.weight.data[0, 1:] = 0


def new_parameter(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.tril())


def initialised(layer: nn.Linear) -> None:
    nn.init.constant_(layer.weight, 0.5)


def by_set(layer: nn.Linear) -> None:
    with torch.no_grad():
        layer.weight.set_(layer.weight.detach().tril())


def clipped(layer: nn.Linear) -> None:
    layer.weight.data.clamp_(-0.1, 0.1)


def cast(layer: nn.Linear) -> None:
    layer.half().double()


WRITES = [
    assigned,
    copied,
    without_gradients,
    through_detach,
    by_index,
    new_parameter,
    initialised,
    by_set,
    clipped,
    cast,
]


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("write", WRITES, ids=lambda f: f.__name__)
def test_a_parameter_written_in_the_forward(write: Callable[[nn.Linear], Any], composite: str) -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    same(lambda: Masked(write).double().eval(), x, composite)
    model = fresh(lambda: Masked(write).double().eval())
    found = relprop.attribute(model, x, 1, composite=composite, multiply_by_inputs=True)
    if composite in ("gradient", "zero"):
        torch.testing.assert_close(found.values, x * model.weight[1].detach())


class Doubled(nn.Linear):
    """Its weight changes between two uses, unseen by autograd."""

    def forward(self, x: Tensor) -> Tensor:
        first = super().forward(x)
        self.weight.data.mul_(2)
        return first + 3 * super().forward(x)


@pytest.mark.parametrize("composite", ["gradient", "zero", relprop.composites.epsilon(1e-13)])
def test_a_weight_that_changes_between_two_uses(composite: Any) -> None:
    """`W x + 6 W x`: each use has the weight that it had then."""
    x = torch.randn(2, 3, dtype=torch.float64)
    model = Doubled(3, 3, bias=False).double().eval()
    found = relprop.attribute(model, x, 1, composite=composite, multiply_by_inputs=True)
    torch.testing.assert_close(found.values, x * 7 * model.weight[1].detach() / 2)
    torch.testing.assert_close(found.values.sum(1), found.output[:, 1])


def test_numbers_given_to_what_carries_relevance_past_autograd_are_refused() -> None:
    def model(x: Tensor) -> Tensor:
        y = x * 2
        y.data = y.data.clamp(0)
        return y.sum(1)

    with pytest.raises(UnsupportedOperationError, match=r"Give the variable the new tensor instead"):
        relprop.attribute(model, torch.randn(2, 3))

    def advised(x: Tensor) -> Tensor:
        y = x * 2
        y = y.clamp(0)
        return y.sum(1)

    x = torch.randn(2, 3)
    torch.testing.assert_close(relprop.attribute(advised, x, composite="zero").values, (2 * x).clamp(0))


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.LazyLinear(4), nn.LazyConv1d(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)[:, None]).flatten(1)


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("composite", COMPOSITES)
def test_lazy_modules(composite: str) -> None:
    same(lambda: Lazy().eval(), torch.randn(2, 5), composite)


class Made(nn.Module):
    """A layer that is made at the first call, and brought to the input's dtype."""

    def __init__(self, bring: Callable[[nn.Linear, Tensor], Any]) -> None:
        super().__init__()
        self.bring = bring
        self.layer: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if self.layer is None:
            torch.manual_seed(3)
            self.layer = nn.Linear(x.shape[1], 3)
            self.bring(self.layer, x)
        return self.layer(x)


BRINGS: dict[str, Callable[[nn.Linear, Tensor], Any]] = {
    "to(tensor)": lambda m, x: m.to(x),
    "to(dtype)": lambda m, x: m.to(x.dtype),
    "to(device, dtype)": lambda m, x: m.to(x.device, x.dtype),
    "to(dtype=)": lambda m, x: m.to(dtype=x.dtype),
    "type": lambda m, x: m.type(x.dtype),
    "double": lambda m, x: m.double(),
    "double().cpu()": lambda m, x: m.double().cpu(),
    "channels_last": lambda m, x: m.double().to(memory_format=torch.channels_last),
    "frozen": lambda m, x: m.double().requires_grad_(False),
    "load_state_dict": lambda m, x: m.double().load_state_dict({"weight": torch.ones(3, 5), "bias": torch.ones(3)}),
    "assign=True": lambda m, x: m.double().load_state_dict({k: v + 1 for k, v in m.state_dict().items()}, assign=True),
    "to_empty": lambda m, x: nn.init.ones_(m.double().to_empty(device="cpu").bias) + nn.init.ones_(m.weight).sum(),
    "weight_norm": lambda m, x: parametrizations.weight_norm(m.double()),
    "spectral_norm": lambda m, x: parametrizations.spectral_norm(m.double()).eval(),
    "orthogonal": lambda m, x: parametrizations.orthogonal(m.double()),
    "vector_to_parameters": lambda m, x: nn.utils.vector_to_parameters(x.new_ones(18), m.double().parameters()),
}


@pytest.mark.parametrize("composite", ["zero", "epsilon_plus"])
@pytest.mark.parametrize("bring", BRINGS)
def test_a_layer_made_in_the_forward(bring: str, composite: str) -> None:
    same(lambda: Made(BRINGS[bring]).eval(), torch.randn(2, 5, dtype=torch.float64), composite)


def test_the_model_that_is_explained_keeps_what_it_wrote() -> None:
    x = torch.randn(2, 3, dtype=torch.float64)
    model = fresh(lambda: Masked(assigned).double().eval())
    right = copy.deepcopy(model)
    right(x)
    relprop.attribute(model, x, 0)
    assert torch.equal(model.weight, right.weight)


def test_a_recurrent_layer_on_a_transposed_input_has_its_own_bits() -> None:
    """Torch multiplies by another kernel where the weights require a gradient, as the model's do."""
    for make in (nn.RNN, nn.LSTM, nn.GRU):
        rnn = make(8, 3, batch_first=True).double().eval()
        for seed in range(3):
            x = torch.randn(4, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).transpose(1, 2)
            with torch.no_grad():
                wanted = rnn(x)[0]
            found = relprop.attribute(lambda x, rnn=rnn: rnn(x)[0], x, lambda y: y.flatten(1).sum(1)).output
            assert torch.equal(found, wanted)
