"""Custom autograd functions: followed step by step where they can be, registered by one line where not, never guessed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

import relprop
from helpers import InPlace, close
from relprop.composites import epsilon
from relprop.errors import RuleError, UnsupportedOperationError
from relprop.rules import Gamma
from relprop.torch_private import custom

COMPOSITES = ["zero", "epsilon", "gamma_flat", "epsilon_plus", "attnlrp", "cp_lrp", "gradient"]
W, B, HEAD = torch.randn(5, 4).double(), torch.randn(5).double(), torch.randn(3, 5).double()


@pytest.fixture(params=["forward"] if custom.APPLY is None else ["apply", "forward"], autouse=True)
def stack(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where arguments are read: up to torch 2.13 from the frame of `apply`, since 2.14 from that of the forward."""
    if request.param == "forward":
        monkeypatch.setattr(custom, "APPLY", None)


def through_numpy(compute: Callable[..., Any], *tensors: Tensor) -> Tensor:
    """What an extension does: numbers go out and come back, and nobody sees how."""
    return torch.from_numpy(compute(*(t.detach().numpy() for t in tensors)))


class Cubic(Function):
    """Made of torch operations; its own backward pass is no use."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(scale * x)

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        raise AssertionError("this function's own backward pass is not wanted")


class CubicInTwo(Function):
    """The same with `setup_context`, a default and two results."""

    @staticmethod
    def forward(x: Tensor, scale: float = 1.7) -> tuple[Tensor, Tensor]:
        return x * torch.sigmoid(scale * x), x @ x.new_ones(x.shape[-1], 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        raise AssertionError("this function's own backward pass is not wanted")


def cubic(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.7 * x)


@pytest.mark.parametrize("composite", ["zero", "epsilon", "gamma_flat", "epsilon_plus", "attnlrp", "cp_lrp"])
@pytest.mark.parametrize("one", [lambda h: Cubic.apply(h, 1.7), lambda h: CubicInTwo.apply(h)[0]])
def test_visible_steps_are_followed(composite: str, one: Callable[[Tensor], Tensor]) -> None:
    """A function nobody registered is what its forward does."""
    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: F.linear(one(F.linear(x, W, B)), HEAD), x, 1, composite=composite)
    expected = relprop.attribute(lambda x: F.linear(cubic(F.linear(x, W, B)), HEAD), x, 1, composite=composite)
    close(found.values, expected.values)
    assert torch.equal(found.output, expected.output)


def test_every_result_of_a_function() -> None:
    x = torch.randn(2, 4).double()

    def model(x: Tensor, split: Callable[[Tensor], Any]) -> Tensor:
        a, b = split(F.linear(x, W))
        return F.linear(a, HEAD) + b

    found = relprop.attribute(lambda x: model(x, CubicInTwo.apply), x, 1, composite="zero").values
    plain = lambda h: (cubic(h), h.sum(-1, keepdim=True))  # noqa: E731
    close(found, relprop.attribute(lambda x: model(x, plain), x, 1, composite="zero").values)


def test_one_function_after_another() -> None:
    """With no operation between them, both are met."""
    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: F.linear(Cubic.apply(Cubic.apply(x @ W.T, 1.7), 1.7), HEAD), x, 1)
    close(found.values, relprop.attribute(lambda x: F.linear(cubic(cubic(x @ W.T)), HEAD), x, 1).values)


class Doubled(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return through_numpy(lambda x: 2 * x, x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * g


relprop.register(Doubled.apply, family="structure")


def test_a_function_whose_own_backward_is_right() -> None:
    """Also where it follows one whose is not."""
    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: Doubled.apply(Cubic.apply(Doubled.apply(x), 1.7)) @ W.T, x, 1, composite="zero")
    close(found.values, relprop.attribute(lambda x: 2 * cubic(2 * x) @ W.T, x, 1, composite="zero").values)


class Softened(Function):
    """`tanh(x) + 1/2`, elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return through_numpy(lambda x: numpy.asarray(numpy.tanh(x) + 0.5), x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g * (1 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class Powered(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(x.contiguous())
        ctx.p = p
        return through_numpy(lambda x: numpy.asarray(abs(x) ** p), x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return g * ctx.p * x.abs() ** (ctx.p - 1) * x.sign(), None


relprop.register(Softened, Powered, family="activation")


def test_an_activation_takes_the_secant() -> None:
    """`R = f(x) - f(0)`, entry by entry, also where x is 0, or the function has a parameter."""
    x = torch.randn(2, 6).double()
    x[0, 0] = 0.0
    # an operation has to meet the result: a slice of everything
    found = relprop.attribute(lambda x: Softened.apply(x)[:, :], x, lambda y: y.sum(1))
    close(found.values, torch.tanh(x))
    found = relprop.attribute(lambda x: Powered.apply(x, 1.5)[:, :], x, lambda y: y.sum(1))
    close(found.values, x.abs() ** 1.5)


@pytest.mark.parametrize("composite", ["gamma_flat", "guided_backprop", "epsilon_plus_flat"])
def test_an_activation_meets_its_rules(composite: str) -> None:
    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: F.linear(Softened.apply(F.linear(x, W, B)), HEAD), x, 1, composite=composite)
    plain = lambda x: F.linear(torch.tanh(F.linear(x, W, B)) + 0.5, HEAD)  # noqa: E731
    close(found.values, relprop.attribute(plain, x, 1, composite=composite).values)


class Packed(Function):
    """A matrix product whose weight is packed as bytes, as quantised layers have it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
        ctx.weight = unpacked(packed, scale)
        y = through_numpy(lambda x, w: x @ w.T, x.contiguous(), ctx.weight)
        return y if bias is None else y + bias

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        return g @ ctx.weight, None, None, None


class Readable(Packed):
    """The same, with a weight that can be read."""


def unpacked(packed: Tensor, scale: float) -> Tensor:
    return packed.double() * scale


relprop.register(Packed, family="linear")
relprop.register(Readable, family="linear", weight=lambda x, w, scale, bias=None: (unpacked(w, scale), bias))
BYTES, SCALE = torch.randint(-128, 127, (5, 4), dtype=torch.int8), 0.01
PLAIN = unpacked(BYTES, SCALE)


class Quantised(nn.Module):
    def __init__(self, function: Any, bias: Tensor | None = None, after: Tensor | None = None) -> None:
        super().__init__()
        self.function, self.bias, self.after = function, bias, after

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function.apply(x, BYTES, SCALE, self.bias) if self.function else F.linear(x, PLAIN, self.bias)
        return y if self.after is None else y + self.after


def net(*given: Any) -> nn.Module:
    last = nn.Linear(5, 3, dtype=torch.float64)
    last.weight.data = HEAD
    last.bias.data.zero_()
    return nn.Sequential(Quantised(*given), nn.ReLU(), last).eval()


@pytest.mark.parametrize("bias", [(None, None), (B, None), (None, B), (B, 2 * B)])
def test_epsilon_needs_no_weight(bias: tuple) -> None:
    """`R_i = x_i sum_j w_ij R_j / (z_j + eps sgn z_j)`: against the definition, and against a layer torch knows."""
    x = torch.randn(3, 4).double()
    eps = 0.05
    found = relprop.attribute(net(Packed, *bias), x, 1, composite=epsilon(eps)).values
    z = x @ PLAIN.T + sum(b for b in bias if b is not None)
    hidden = z.relu()
    out = hidden @ HEAD[1]
    stable = lambda t: t + eps * torch.where(t < 0, -1.0, 1.0).double()  # noqa: E731
    r_hidden = hidden * HEAD[1] * (out / stable(out))[:, None]
    close(found, x * ((r_hidden / stable(z)) @ PLAIN))
    for composite in ("zero", "attnlrp", "epsilon", epsilon(0.1, relative=True)):
        here = relprop.attribute(net(Packed, *bias), x, 1, composite=composite)
        there = relprop.attribute(net(None, *bias), x, 1, composite=composite)
        close(here.values, there.values)
        assert torch.equal(here.output, net(Packed, *bias)(x))


@pytest.mark.parametrize("bias", [(None, None), (B, None), (None, B), (B, 2 * B)])
@pytest.mark.parametrize("composite", ["gamma_flat", "epsilon_plus_flat", "deep_taylor", "excitation_backprop"])
def test_rules_that_need_the_weight(composite: str, bias: tuple) -> None:
    x = torch.randn(3, 4).double()
    found = relprop.attribute(net(Readable, *bias), x, 1, composite=composite).values
    close(found, relprop.attribute(net(None, *bias), x, 1, composite=composite).values)


@torch.library.custom_op("relprop_tests::packed", mutates_args=())
def packed_operator(x: Tensor, w: Tensor, scale: float) -> Tensor:
    return x @ (w.double() * scale).T


def _kept(ctx: Any, inputs: tuple, output: Tensor) -> None:
    _, ctx.w, ctx.scale = inputs


packed_operator.register_autograd(lambda ctx, g: (g @ unpacked(ctx.w, ctx.scale), None, None), setup_context=_kept)
PACKED = torch.ops.relprop_tests.packed
relprop.register(PACKED, family="linear", weight=lambda x, w, scale: unpacked(w, scale))


@pytest.mark.parametrize("composite", ["epsilon", "gamma_flat", "epsilon_plus_flat"])
@pytest.mark.parametrize(
    "form",
    [
        lambda x: PACKED(x, BYTES, SCALE),
        lambda x: PACKED(x, BYTES, scale=SCALE),
        lambda x: PACKED(w=BYTES, x=x, scale=SCALE),
    ],
)
def test_an_operator_whose_operands_are_named(form: Any, composite: str) -> None:
    x = torch.randn(3, 4).double()
    found, wanted = (
        relprop.attribute(lambda x, f=f: f(x) + B, x, 1, composite=composite).values  # type: ignore[misc]
        for f in (form, lambda x: F.linear(x, PLAIN))
    )
    close(found, wanted)


def test_a_weight_that_is_not_told() -> None:
    x = torch.randn(3, 4).double()
    with pytest.raises(RuleError, match=r"Packed keeps it to itself.*weight="):
        relprop.attribute(net(Packed), x, 1, composite=relprop.Composite({"linear": Gamma(0.2)}))

    class Wrong(Packed):
        pass

    relprop.register(Wrong, family="linear", weight=lambda x, w, scale, bias=None: unpacked(w, scale).T)
    with pytest.raises(RuleError, match=r"shape \(5, in\); got \(4, 5\)"):
        relprop.attribute(net(Wrong), x, 1, composite="gamma_flat")


def test_layers_checkpoints_ledgers_and_several_targets() -> None:
    """All that other layers do."""
    x = torch.randn(3, 4).double()
    model, plain = net(Packed, B), net(None, B)
    expected = relprop.attribute(plain, x, 1, composite="epsilon", layers="0")
    found = relprop.attribute(model, x, 1, composite="epsilon", layers="0", ledger=True)
    close(found.layers["0"], expected.layers["0"])
    close(sum(found.ledger.values()), found.residual)
    close(relprop.attribute(model, x, 1, composite="epsilon", checkpoint=["0"]).values, expected.values)
    both = relprop.attribute_each(model, x, [0, 1], composite="epsilon", targets_at_once=2)
    close(both[1].values, expected.values)
    live = x.clone().requires_grad_()
    with relprop.propagate("epsilon", model=model, inputs=live):
        score = model(live)[:, 1].sum()
    g = torch.autograd.grad(score, live, create_graph=True)[0]
    close((live * g).detach(), expected.values)


def test_layers_see_a_function_s_result() -> None:
    """A module that returns what a function made: no operation has met it yet."""

    class Bend(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = Cubic.apply(x, 1.7)
            return y

    model = nn.Sequential(nn.Linear(4, 5), Bend(), nn.Linear(5, 3)).double().eval()
    x = torch.randn(2, 4).double()
    found = relprop.attribute(model, x, 1, composite="zero", layers="1", checkpoint=["0", "1"])
    last = model[2]
    assert isinstance(last, nn.Linear)
    close(found.layers["1"], cubic(model[0](x)).detach() * last.weight[1].detach())


def test_a_result_that_is_written_into() -> None:
    x = torch.randn(2, 4).double()

    def model(x: Tensor) -> Tensor:
        y = Packed.apply(x, BYTES, SCALE, None)
        y *= 2.0
        y += B
        return F.linear(torch.relu_(y), HEAD)

    plain = lambda x: F.linear(F.relu(2 * (x @ PLAIN.T) + B), HEAD)  # noqa: E731
    close(
        relprop.attribute(model, x, 1, composite="epsilon").values,
        relprop.attribute(plain, x, 1, composite="epsilon").values,
    )


class Rounded(Function):
    """A straight-through estimator: its forward hands nothing on, its backward all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g


class Written(Function):
    """A kernel that writes into what an operation made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clone()
        y.detach().numpy()[:] *= 3
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * g


class Added(Function):
    """A kernel's result, added by an operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x + torch.from_numpy(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return 3 * g


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (Rounded, "no step of its forward hands relevance"),
        (Written, "not a torch operation"),
        (Added, "not a torch operation"),
        (InPlace, "writes into its argument"),
    ],
)
def test_what_cannot_be_followed_is_refused(function: type[Function], why: str) -> None:
    """With the lines that would make it known; with `strict=False` its own backward pass acts."""
    x = torch.randn(2, 4).double()
    model = lambda x: F.linear(function.apply(x @ W.T), HEAD)  # noqa: E731
    name = function.__name__
    with pytest.raises(UnsupportedOperationError, match=f"{name}, a custom autograd.Function.*{why}") as caught:
        relprop.attribute(model, x, 1, composite="zero")
    for family in ("structure",) if function is InPlace else ("activation", "linear", "structure"):
        assert f'family="{family}"' in str(caught.value)
    found = relprop.attribute(model, x, 1, composite="zero", strict=False)
    assert found.unknown == {name: 1}
    close(found.values, x * (HEAD[1] @ W) * (1 if function is Rounded else 3))


def test_registrations_that_make_no_sense() -> None:
    class Mine(Function):
        pass

    with pytest.raises(ValueError, match="weight= is for family"):
        relprop.register(Mine, family="activation", weight=lambda x: x)
    with pytest.raises(ValueError, match="no default handler"):
        relprop.register(Mine, family="norm")
    relprop.register(Mine, family="structure")
    with pytest.raises(ValueError, match="registered already"):
        relprop.register(Mine.apply, family="structure")


def test_compiled_calls() -> None:
    """Visible steps are recorded; what a registered function computes elsewhere would be frozen, and is refused."""
    x, other = torch.randn(2, 2, 4).double()
    visible = relprop.compile(lambda x: F.linear(Cubic.apply(x @ W.T, 1.7), HEAD), composite="zero", backend="eager")
    for given in (x, other):
        expected = relprop.attribute(lambda x: F.linear(cubic(x @ W.T), HEAD), given, 1, composite="zero")
        close(visible(given, 1).values, expected.values)
    with pytest.raises(UnsupportedOperationError, match=r"Readable.*relprop\.attribute"):
        relprop.compile(net(Readable, B), composite="gamma_flat", backend="eager")(x, 1)


def test_bitsandbytes() -> None:
    """Its four-bit layers, by one line, against layers with the weights they stand for."""
    quantised = pytest.importorskip("bitsandbytes")
    function = quantised.autograd._functions.MatMul4Bit
    read = quantised.functional.dequantize_4bit
    relprop.register(function, family="linear", weight=lambda x, w, out, bias, state: (read(w, state), bias))
    packed, plain = nn.Sequential(), nn.Sequential()
    for size in ((64, 128), (128, 10)):
        layer = quantised.nn.Linear4bit(*size, quant_type="nf4", compute_dtype=torch.float32)
        layer = layer.to("cpu")
        twin = nn.Linear(*size)
        twin.weight.data = read(layer.weight.data, layer.weight.quant_state).float()
        twin.bias.data = layer.bias.data.clone()
        packed.extend([layer, nn.GELU()])
        plain.extend([twin, nn.GELU()])
    x = torch.randn(3, 64)
    for composite in ("attnlrp", "epsilon", "gamma_flat"):
        found = relprop.attribute(packed.eval(), x, 1, composite=composite)
        expected = relprop.attribute(plain.eval(), x, 1, composite=composite)
        torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- views, modules inside, hooks on gradients


class Reversed(Function):
    """A layer that turns the gradient round: a view forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return -g


class Turned(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.detach().t()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return 7 * g.t()


@pytest.mark.parametrize("composite", ["zero", "epsilon", "epsilon_plus"])
@pytest.mark.parametrize(
    "one", [lambda h: Reversed.apply(h), lambda h: Turned.apply(h).t(), lambda h: Turned.apply(h.t())]
)
def test_a_function_that_returns_a_view(one: Callable[[Tensor], Tensor], composite: str) -> None:
    """Its forward counts: the identity."""
    x = torch.randn(2, 4).double()
    found = relprop.attribute(lambda x: F.linear(one(F.linear(x, W, B)).relu(), HEAD), x, 1, composite=composite)
    expected = relprop.attribute(lambda x: F.linear(F.linear(x, W, B).relu(), HEAD), x, 1, composite=composite)
    close(found.values, expected.values)
    assert torch.equal(found.output, expected.output)


@pytest.mark.parametrize("last", [Reversed, Cubic])
def test_a_result_that_no_operation_meets(last: type[Function]) -> None:
    """The score itself comes out of the function, whose own backward pass is not asked."""
    x = torch.randn(2, 4).double()
    further = (1.7,) if last is Cubic else ()
    found = relprop.attribute(lambda x: last.apply(x @ W.T, *further)[:, 0], x, composite="zero").values
    alone = relprop.attribute(lambda x: last.apply((x @ W.T)[:, 0], *further), x, composite="zero").values
    close(found, alone)
    if last is Reversed:
        close(alone, x * W[0])


class Put(Function):
    """Writes past autograd's count of changes, as solvers of differential equations do."""

    @staticmethod
    def forward(ctx: Any, scratch: Tensor, value: Tensor, index: int) -> Tensor:
        ctx.index = index
        scratch.data[index] = value
        return scratch

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        return g, g[ctx.index], None


def gathered(x: Tensor, put: type[Function]) -> Tensor:
    s = torch.zeros(3, *x.shape, dtype=x.dtype)
    for i in range(3):
        s = put.apply(s.view_as(s), x * (i + 1), i)
    return s.sum((0, 2))


def test_a_function_that_writes_past_autograd() -> None:
    class Registered(Put):  # one of its own, for what is registered stays so
        pass

    x = torch.randn(2, 4).double()
    model = partial(gathered, put=Registered)
    with pytest.raises(UnsupportedOperationError, match="returns a view, and it writes into its argument") as refusal:
        relprop.attribute(model, x, composite="zero")
    line = 'family="structure" if its own backward pass is right as it is'
    assert line in str(refusal.value)
    relprop.register(Registered, family="structure")
    found = relprop.attribute(model, x, composite="zero")
    close(found.values, 6 * x)
    assert torch.equal(found.output, model(x))


class Reversible(Function):
    """A block that keeps nothing: it runs modules, without gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: nn.Module, g: nn.Module) -> Tensor:
        with torch.no_grad():
            a, b = x.detach().chunk(2, 1)
            a = a + f(b)
            b = b + g(a)
            y = torch.cat([a, b], 1)
        ctx.y = y.detach()
        return y

    @staticmethod
    def backward(ctx: Any, *g: Any) -> Any:
        raise AssertionError("this function's own backward pass is not wanted")


@pytest.mark.filterwarnings("ignore:.*is the first weighted layer and ran")
@pytest.mark.parametrize("composite", ["zero", "epsilon", "gamma_flat", "epsilon_plus"])
def test_a_reversible_block(composite: str) -> None:
    f, g = (nn.Sequential(nn.Linear(2, 2), nn.Tanh()).double() for _ in range(2))
    x = torch.randn(3, 4).double()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.g = f, g

        def forward(self, x: Tensor) -> Tensor:
            return Reversible.apply(Reversible.apply(x, self.f, self.g), self.f, self.g)

    def plain(x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        for _ in range(2):
            a = a + f(b)
            b = b + g(a)
        return torch.cat([a, b], 1)

    found = relprop.attribute(Net().eval(), x, 1, composite=composite)
    expected = relprop.attribute(plain, x, 1, composite=composite)
    close(found.values, expected.values)
    assert torch.equal(found.output, expected.output)


class Adjoint(Function):
    """Euler's method, differentiated by the equation that runs back in time."""

    @staticmethod
    def forward(ctx: Any, field: nn.Module, steps: int, y: Tensor, *parameters: Tensor) -> Tensor:
        ctx.field, ctx.steps = field, steps
        with torch.no_grad():
            for _ in range(steps):
                y = y + field(y) / steps
        ctx.save_for_backward(y, *parameters)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        y, *parameters = ctx.saved_tensors
        for _ in range(ctx.steps):
            with torch.enable_grad():
                y = y.detach().requires_grad_()
                f = ctx.field(y)
            y_back, *_ = torch.autograd.grad(f, (y, *parameters), g)
            y, g = y - f.detach() / ctx.steps, g + y_back / ctx.steps
        return (None, None, g, *([None] * len(parameters)))


@pytest.mark.filterwarnings("ignore:.*is the first weighted layer and ran")
def test_an_adjoint_of_a_differential_equation() -> None:
    """Followed step by step, as if the equation was solved without one; registered, its own backward pass acts."""

    class Registered(Adjoint):  # one of its own, for what is registered stays so
        pass

    field = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).double()
    x = torch.randn(2, 4).double()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.field = field

        def forward(self, x: Tensor) -> Tensor:
            return Registered.apply(self.field, 3, x, *self.field.parameters())

    def plain(x: Tensor) -> Tensor:
        for _ in range(3):
            x = x + field(x) / 3
        return x

    for composite in ("zero", "epsilon", "gamma_flat"):
        found = relprop.attribute(Net().eval(), x, 1, composite=composite)
        close(found.values, relprop.attribute(plain, x, 1, composite=composite).values)
        assert torch.equal(found.output, plain(x))
    relprop.register(Registered, family="structure")
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(Net()(leaf)[:, 1].sum(), leaf)
    for composite in ("zero", "epsilon"):
        close(relprop.attribute(Net().eval(), x, 1, composite=composite).values, x * g)
