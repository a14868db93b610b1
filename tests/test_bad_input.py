"""Whatever cannot be explained is refused, with an error that says what, where, and what to do instead."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from relprop import errors
from relprop.errors import InputError, TargetError


class Written(nn.Module):
    """A network with a function in its middle, as the module `inner.step`."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.inner = nn.Module()
        self.before, self.after = nn.Linear(4, 4), nn.Linear(4, 3)
        self.inner = nn.Sequential()
        self.inner.step = Step(function)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.inner(self.before(x)))


class Step(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, h: Tensor) -> Tensor:
        return self.function(h)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4)


# ----------------------------------------------------------------------------------------------------- inputs

INPUTS: dict[str, tuple[Callable[[], object], str]] = {
    "integers": (lambda: torch.ones(2, 4, dtype=torch.int64), "int64"),
    "truth values": (lambda: torch.ones(2, 4, dtype=torch.bool), "bool"),
    "complex numbers": (lambda: torch.ones(2, 4, dtype=torch.complex64), "complex"),
    "another float": (lambda: torch.ones(2, 4, dtype=torch.float64), "float64"),
    "no sample": (lambda: torch.ones(0, 4), "empty|no sample"),
    "not a number": (lambda: torch.tensor([[1.0, float("nan"), 0.0, 0.0]]), "(?i)nan|finite"),
    "infinity": (lambda: torch.tensor([[1.0, float("inf"), 0.0, 0.0]]), "(?i)inf|finite"),
    "no tensor": (lambda: "a cat", "str"),
    "nothing": (lambda: (), "(?i)input|tensor"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(name: str, model: nn.Module) -> None:
    make, message = INPUTS[name]
    with pytest.raises(errors.RelpropError, match=message):
        relprop.attribute(model, make(), 0)


def test_inputs_of_different_lengths() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a.sum(1) + b.sum()

    with pytest.raises(errors.InputError, match=r"2.*3|3.*2"):
        relprop.attribute(Sum(), (torch.randn(2, 4), torch.randn(3, 4)))


def test_something_that_is_no_model(x: Tensor) -> None:
    with pytest.raises((errors.RelpropError, TypeError), match=r"(?i)model|callable"):
        relprop.attribute("a model", x, 0)  # pyright: ignore[reportArgumentType]


# ---------------------------------------------------------------------------------------------------- targets

# What is asked of a model with 3 classes and of 2 samples, the error, and what its message says.
TARGETS: dict[str, tuple[object, type[Exception], str]] = {
    "above the last class": (3, IndexError, "3 classes|3 outputs|0.*2"),
    "far below 0": (-4, IndexError, "-4"),
    "one of several above": ([0, 7], IndexError, "7"),
    "too many": ([0, 1, 2], errors.TargetError, "3.*2|2.*3"),
    "too few": ([0], errors.TargetError, "1.*2|2.*1"),
    "tensor of two dimensions": (torch.zeros(2, 2, dtype=torch.int64), errors.TargetError, "dim|shape"),
    "fraction": (1.5, errors.TargetError, "float|1.5"),
    "tensor of fractions": (torch.tensor([0.5, 1.0]), errors.TargetError, "float"),
    "truth value": (True, errors.TargetError, "bool|True"),
    "tuple too long": ((0, 0), errors.TargetError, "2"),
    "label without labels": ("cat", errors.TargetError, "labels"),
    "callable of the wrong shape": (lambda y: y, errors.TargetError, r"\(2, 3\)|\[2, 3\]"),
    "callable of no tensor": (lambda y: 1.0, errors.TargetError, "float"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str, model: nn.Module, x: Tensor) -> None:
    target, error, message = TARGETS[name]
    with pytest.raises(error, match=message) as caught:
        relprop.attribute(model, x, target)
    assert isinstance(caught.value, errors.TargetError)


def test_the_class_count_is_in_the_message(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(errors.TargetError, match=r"\b3\b.*class|class.*\b3\b"):
        relprop.attribute(model, x, 12)


def test_unknown_label(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(errors.TargetError, match="tiger"):
        relprop.attribute(model, x, "tiger", labels=["cat", "dog", "bird"])


@pytest.mark.parametrize(
    "seed", [torch.ones(3), torch.ones(2, 2), float("nan"), "1"], ids=["count", "shape", "nan", "text"]
)
def test_seeds(seed: Tensor | float, model: nn.Module, x: Tensor) -> None:
    with pytest.raises(errors.RelpropError, match="seed"):
        relprop.attribute(model, x, 0, seed=seed)


# ----------------------------------------------------------------------------------------------------- models


def test_a_module_that_produces_nan_is_named(x: Tensor) -> None:
    model = Written(lambda h: h / (h - h))
    with pytest.raises(errors.NonFiniteError, match=r"inner\.step"):
        relprop.attribute(model, x, 0)


def test_a_weight_that_is_nan_is_named(x: Tensor) -> None:
    model = Written(F.relu)
    model.after.weight.data[0, 0] = float("nan")
    with pytest.raises(errors.NonFiniteError, match="after"):
        relprop.attribute(model, x, 0)


SEVERED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "detach": (lambda h: h.detach(), "detach"),
    "data": (lambda h: h.data * 1, "cut by: data in"),
    "numpy": (lambda h: torch.from_numpy(h.detach().numpy()), "detach|numpy"),
    "no_grad": (lambda h: _without_grad(h), "no_grad|grad"),
    "argmax": (lambda h: F.one_hot(h.argmax(1), 4).float(), "argmax|one_hot"),
    "round": (lambda h: h.round(), "round"),
    "comparison": (lambda h: (h > 0).float(), "gt|>|comparison"),
}


@torch.no_grad()
def _without_grad(h: Tensor) -> Tensor:
    return h * 1


@pytest.mark.parametrize("name", SEVERED)
def test_a_severed_graph(name: str, x: Tensor) -> None:
    function, message = SEVERED[name]
    with pytest.raises(errors.SeveredGraphError, match=message):
        relprop.attribute(Written(function), x, 0)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: 1 / (1 + (h * h).sum(1, keepdim=True)),
        lambda h: h.std(1, keepdim=True).reciprocal(),
        lambda h: h.norm(dim=1, keepdim=True) ** -1,
    ],
    ids=["a similarity of a distance", "a statistic", "a norm"],
)
def test_a_score_that_is_made_of_a_divisor(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """No rule gives a divisor relevance. What the error advises works."""
    model = Written(lambda h: function(h).expand_as(h))
    with pytest.raises(errors.SeveredGraphError, match=r"a divisor.* composite='gradient'"):
        relprop.attribute(model, x, 0)
    assert relprop.attribute(model, x, 0, composite="gradient").values.any()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_inputs_that_are_sparse(layout: str, x: Tensor) -> None:
    """What the error advises works, for both layouts."""
    weight = torch.randn(4, 3)
    sparse = getattr(x, layout)()
    with pytest.raises(errors.InputError, match=r"inputs is sparse.*pass inputs\.to_dense\(\)"):
        relprop.attribute(lambda s: s @ weight, sparse, 0)
    values = relprop.attribute(lambda x: getattr(x, layout)() @ weight, sparse.to_dense(), 0, composite="zero").values
    torch.testing.assert_close(values, x * weight[:, 0])
    links = torch.eye(2).to_sparse()
    with pytest.raises(errors.InputError, match=r"inputs\[1\] is sparse.*forward_args"):
        relprop.attribute(lambda x, a: a @ (x @ weight), (x, links), 0)
    assert relprop.attribute(lambda x, a: a @ (x @ weight), x, 0, forward_args=(links,)).values.any()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_inputs_that_are_nested(model: nn.Module, x: Tensor) -> None:
    nested = torch.nested.nested_tensor([x[0], x[1]])
    with pytest.raises(errors.InputError, match=r"torch\.nested\.to_padded_tensor\(inputs, 0\.0\)"):
        relprop.attribute(model, nested, 0)
    padded = torch.nested.to_padded_tensor(nested, 0.0)
    torch.testing.assert_close(relprop.attribute(model, padded, 0).values, relprop.attribute(model, x, 0).values)


def test_an_index_of_several_names_its_axis(x: Tensor) -> None:
    with pytest.raises(
        errors.TargetIndexError, match=r"target \(0, 5\) is out of range: axis 2 of the output has 3 entries"
    ):
        relprop.attribute(lambda x: x[:, None, :3] * 1, x, (0, 5))


@dataclass
class Two:
    a: Tensor
    b: Tensor


def test_inputs_in_an_object_of_ones_own(model: nn.Module, x: Tensor) -> None:
    """What the error advises is what works."""
    advice = r"relprop\.attribute\(lambda a, b: model\(Two\(a=a, b=b\)\), \(given\.a, given\.b,\)\)\."
    with pytest.raises(errors.InputError, match=advice):
        relprop.attribute(lambda two: model(two.a + two.b), Two(x, x), 0)
    given = Two(x, x)
    R = relprop.attribute(lambda a, b: (lambda two: model(two.a + two.b))(Two(a=a, b=b)), (given.a, given.b), 0)
    assert len(R.values) == 2


def test_what_is_no_tensor_beside_a_tensor(model: nn.Module, x: Tensor) -> None:
    def scaled(x: Tensor, extra: Any) -> Tensor:
        y: Tensor = model(x) * (extra if isinstance(extra, float) else 1 + extra.sum())
        return y

    for extra in (2.0, torch.zeros(2, 0)):
        with pytest.raises(errors.InputError, match="forward_args or forward_kwargs"):
            relprop.attribute(scaled, (x, extra), 0)
        assert relprop.attribute(scaled, x, 0, forward_args=(extra,)).values.any()


@pytest.mark.parametrize("read", [lambda y: y.sum().item(), lambda y: y.detach().numpy(), lambda y: None, str])
def test_an_output_that_holds_no_tensor(read: Callable[[Tensor], Any], model: nn.Module, x: Tensor) -> None:
    """`select=` could pick nothing there."""
    with pytest.raises(errors.TargetError, match="Let the model return that tensor") as raised:
        relprop.attribute(lambda x: read(model(x)), x, 0)
    assert "select" not in str(raised.value)


def test_an_input_that_is_not_used() -> None:
    class First(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a.sum(1)

    a, b = torch.randn(2, 2, 4)
    values = relprop.attribute(First(), (a, b), composite="zero").values
    assert torch.equal(values[0], a)
    assert torch.equal(values[1], torch.zeros_like(b))


class Doubled(torch.autograd.Function):
    """An operation of the user's own."""

    @staticmethod
    def forward(ctx, h):
        return 2 * h

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


@pytest.mark.parametrize(
    ("function", "name"),
    [(torch.special.airy_ai, "airy_ai"), (torch.linalg.inv, "inv"), (torch.linalg.matrix_exp, "matrix_exp")],
    ids=["airy_ai", "inv", "matrix_exp"],
)
def test_an_unknown_operation(function: Callable[[Tensor], Tensor], name: str) -> None:
    model = Written(lambda h: function(h[:, :4].reshape(-1, 2, 2)).real.reshape(-1, 4))
    with pytest.raises(errors.UnsupportedOperationError, match=name) as caught:
        relprop.attribute(model, torch.randn(2, 4), 0)
    message = str(caught.value)
    assert "inner.step" in message and "register" in message and "strict" in message


def test_not_strict_takes_the_gradient_and_says_so(x: Tensor) -> None:
    model = Written(Doubled.apply)
    relevance = relprop.attribute(model, x, 0, composite="zero", strict=False)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 0].sum(), leaf)
    torch.testing.assert_close(relevance.values, x * gradient)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.BatchNorm1d(4), "BatchNorm1d"),
        (nn.Dropout(0.5), "Dropout"),
        (nn.AlphaDropout(0.5), "AlphaDropout"),
        (nn.Sequential(nn.BatchNorm1d(4)), "BatchNorm1d"),
    ],
    ids=["batch norm", "dropout", "alpha dropout", "nested"],
)
def test_layers_in_training(layer: nn.Module, name: str, x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 3)).train()
    with pytest.raises(errors.ModelStateError, match=r"eval\(\)") as caught:
        relprop.attribute(model, x, 0)
    assert "1" in str(caught.value)  # the path of the layer


def test_functional_dropout_in_training(x: Tensor) -> None:
    with pytest.raises(errors.ModelStateError, match=r"(?i)dropout"):
        relprop.attribute(Written(lambda h: F.dropout(h, 0.5, training=True)).eval(), x, 0)


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("where", ["whole", "inner"])
def test_torchscript(how: str, where: str, model: nn.Module, x: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates both
        scripted = torch.jit.script(model) if how == "script" else torch.jit.trace(model, x)
    whole = scripted if where == "whole" else nn.Sequential(scripted, nn.ReLU())
    with pytest.raises((errors.ModelStateError, errors.UnsupportedOperationError), match=r"(?i)torchscript"):
        relprop.attribute(whole, x, 0)


@pytest.mark.parametrize(
    "function",
    [
        lambda h: torch.add(h, 1, out=torch.empty(2, 4)),
        lambda h: torch.tanh(h, out=torch.empty(2, 4)),
        lambda h: torch.matmul(h, torch.eye(4), out=torch.empty(2, 4)),
    ],
    ids=["add", "tanh", "matmul"],
)
def test_out(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    with pytest.raises(errors.UnsupportedOperationError, match="out="):
        relprop.attribute(Written(function), x, 0)


# --------------------------------------------------------------------------------------- rules and composites


def test_a_path_that_matches_nothing(model: nn.Module, x: Tensor) -> None:
    composite = relprop.Composite({relprop.path("haed.*"): relprop.ZPlus()})
    with pytest.raises(errors.CompositeError, match=r"haed\.\*"):
        relprop.attribute(model, x, 0, composite=composite)


def test_a_name_that_no_composite_has(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(errors.CompositeError, match="epsilon_plus"):
        relprop.attribute(model, x, 0, composite="epsilon_puls")


@pytest.mark.parametrize(
    "composite",
    [
        relprop.Composite({"max_pool": relprop.Gamma()}),
        relprop.Composite({"linear": relprop.Proportional()}),
        relprop.Composite({"linear": relprop.GuidedBackprop()}),
        relprop.Composite({"activation": relprop.AlphaBeta()}),
    ],
    ids=["gamma for a max pool", "proportional for a layer", "guided for a layer", "alpha-beta for a relu"],
)
def test_a_rule_that_cannot_apply(composite: relprop.Composite, x: Tensor) -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 3)
    )
    with pytest.raises(errors.RuleError, match=r"Gamma|Proportional|GuidedBackprop|AlphaBeta"):
        relprop.attribute(model, x, 0, composite=composite)


def test_pass_needs_one_shape(model: nn.Module, x: Tensor) -> None:
    composite = relprop.Composite({"linear": relprop.Pass()})
    with pytest.raises(errors.RuleError, match="Pass"):
        relprop.attribute(model, x, 0, composite=composite)


def test_bounds_that_do_not_fit(model: nn.Module, x: Tensor) -> None:
    composite = relprop.Composite({relprop.first: relprop.ZBox(torch.zeros(5), torch.ones(5))})
    with pytest.raises(errors.RuleError, match=r"ZBox|low|bounds"):
        relprop.attribute(model, x, 0, composite=composite)


@pytest.mark.parametrize(
    "make",
    [
        lambda: relprop.Epsilon(-1.0),
        lambda: relprop.Epsilon(float("nan")),
        lambda: relprop.Gamma(-0.1),
        lambda: relprop.AlphaBeta(2.0, 2.0),
        lambda: relprop.AlphaBeta(0.5, -0.5),
        lambda: relprop.ZBox(1.0, -1.0),
        lambda: relprop.BetaSmooth(0.0),
        lambda: relprop.Proportional(-1.0),
    ],
)
def test_numbers_that_no_rule_has(make: Callable[[], object]) -> None:
    with pytest.raises(errors.RuleError):
        make()


@pytest.mark.parametrize(
    ("key", "value"),
    [("convolution", relprop.Zero()), (3, relprop.Zero()), ("conv", "zero"), (int, relprop.Zero())],
    ids=["no family", "no place", "no rule", "no module type"],
)
def test_entries_that_make_no_composite(key: object, value: object) -> None:
    with pytest.raises((errors.CompositeError, errors.RuleError)):
        relprop.Composite({key: value})  # pyright: ignore[reportArgumentType]


def test_errors_are_what_one_would_catch() -> None:
    for error, builtin in (
        (errors.InputError, ValueError),
        (errors.TargetError, ValueError),
        (errors.UnsupportedOperationError, NotImplementedError),
        (errors.ModelStateError, RuntimeError),
        (errors.RuleError, ValueError),
        (errors.CompositeError, ValueError),
        (errors.NonFiniteError, ArithmeticError),
        (errors.SeveredGraphError, RuntimeError),
    ):
        assert issubclass(error, builtin) and issubclass(error, errors.RelpropError)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_batch_sizes(batch_size: object, model: nn.Module, x: Tensor) -> None:
    with pytest.raises((errors.RelpropError, TypeError), match="batch_size"):
        relprop.attribute(model, x, 0, batch_size=batch_size)  # pyright: ignore[reportArgumentType]


def test_a_layer_that_does_not_exist(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(errors.RelpropError, match="layer9"):
        relprop.attribute(model, x, 0, layers=["layer9"])


def scripted(h: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it: a FutureWarning since 2.14
        return torch.jit.trace(lambda h: h * torch.sigmoid(h), torch.ones(2, 4))(h)


UNSEEN: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a scripted function": (lambda x: scripted(x * 2).sum(1), "TorchScript"),
    "vmap": (lambda x: torch.vmap(torch.tanh)(x).sum(1), "torch.func"),
    "vmap over something else": (lambda x: torch.vmap(lambda row: x * row)(torch.ones(3, 4)).sum((0, 2)), "torch.func"),
    "a gradient of its own": (
        lambda x: torch.autograd.grad(x.pow(3).sum(), x, create_graph=True)[0].sum(1),
        "takes a gradient of what carries relevance",
    ),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_the_engine_cannot_see_is_refused(name: str, x: Tensor) -> None:
    function, said = UNSEEN[name]
    with pytest.raises(relprop.errors.UnsupportedOperationError, match=said):
        relprop.attribute(function, x)


def test_a_transform_is_refused_where_everything_is_taken_in(x: Tensor) -> None:
    live = x.clone().requires_grad_()
    with relprop.propagate("epsilon"), pytest.raises(errors.UnsupportedOperationError, match=r"torch\.func"):
        torch.vmap(lambda row: live * row)(torch.ones(3, 4)).sum()


def test_an_output_without_a_batch_axis(x: Tensor) -> None:
    with pytest.raises(relprop.errors.TargetError, match="first axis is not the batch"):
        relprop.attribute(lambda x: torch.cat([x, x, x]).sum(1), x)


def test_float16_has_no_room_for_relevance_of_zeros(x: Tensor) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).half().eval()
    with pytest.raises(relprop.errors.RuleError, match=r"float16.*bfloat16"):
        relprop.attribute(model, x.half(), 0, composite=relprop.Composite({"linear": relprop.Flat()}))


def test_a_loss_is_not_told_to_register(x: Tensor) -> None:
    with pytest.raises(relprop.errors.UnsupportedOperationError, match="it is a loss") as raised:
        relprop.attribute(lambda x: F.multilabel_margin_loss(x, torch.zeros(2, 4).long(), reduction="none"), x)
    assert "register" not in str(raised.value)


def test_a_layer_that_is_no_path(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(errors.InputError, match="layers must be module paths, globs or modules; got 3"):
        relprop.attribute(model, x, 0, layers=[3])
    with pytest.raises(errors.InputError, match="checkpoint: 'nope' is not part of the model"):
        relprop.attribute(model, x, 0, checkpoint="nope")


def test_what_is_nearly_a_composite(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(errors.CompositeError, match=r"Write Composite\(\{\.\.\.\}\) around it"):
        relprop.attribute(model, x, 0, composite={"conv": relprop.Gamma()})  # pyright: ignore[reportArgumentType]
    with pytest.raises(errors.CompositeError, match="Say where it acts"):
        relprop.attribute(model, x, 0, composite=relprop.Gamma())  # pyright: ignore[reportArgumentType]


def test_targets_of_numpy(model: nn.Module, x: Tensor) -> None:
    numpy = pytest.importorskip("numpy")
    wanted = relprop.attribute(model, x, [0, 1]).values
    assert torch.equal(relprop.attribute(model, x, numpy.array([0, 1])).values, wanted)
    with pytest.raises(errors.TargetError, match="integers"):
        relprop.attribute(model, x, numpy.array([0.0, 1.0]))


@pytest.mark.parametrize("labels", [["cat"], ["cat", "dog", "cow", "hen"]])
@pytest.mark.parametrize("target", [0, "cat"])
def test_names_that_do_not_fit_the_classes(labels: list[str], target: object, model: nn.Module, x: Tensor) -> None:
    with pytest.raises(TargetError, match=f"labels has {len(labels)} names, but the model has 3 classes"):
        relprop.attribute(model, x, target, labels=labels)


def test_names_of_a_model_need_not_fit(model: nn.Module, x: Tensor) -> None:
    """Such as those that a configuration comes with: nobody said that they name these outputs."""
    model.labels = ["cat"]  # type: ignore[assignment]
    assert relprop.attribute(model, x, 0).score.shape == (2,)


@pytest.mark.parametrize(
    ("shape", "fix"),
    [
        ((3, 8, 8), r"inputs has shape \(3, 8, 8\), .* takes 4 axes, \(N, 3, ...\)\. Is .* Then pass inputs\[None\]"),
        ((8, 8), r"the model itself does not take inputs of shape \(8, 8\)\."),
        ((5, 8, 8), r"takes 4 axes, \(N, 3, ...\)\. The model itself"),
        ((2, 8, 8, 3), r"Are the channels last\? Then pass inputs.movedim\(-1, 1\)"),
        ((2, 4, 8, 8), r"the model itself does not take inputs of shape \(2, 4, 8, 8\)\."),
    ],
)
def test_a_shape_that_the_model_refuses(shape: tuple[int, ...], fix: str) -> None:
    """What torch said is kept; where the first convolution tells what was meant, so do we."""
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    with pytest.raises(InputError) as caught:
        relprop.attribute(conv, torch.randn(shape), 0)
    said = str(caught.value)
    assert re.search(fix, said) and "The model itself raised: " in said
    assert str(caught.value.__cause__) in said


def test_a_single_sample_without_its_axis(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(TargetError, match=r"give them an axis for it: inputs\[None\]"):
        relprop.attribute(model, x[0], 0)


def test_ids_beyond_the_table() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 3)).eval()
    with pytest.raises(InputError, match=r"inputs up to 7.*itself raised: index out of range"):
        relprop.attribute(model, torch.tensor([[1, 7]]), 0)


def test_what_is_nearly_a_tensor(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(InputError, match=r"of type ndarray.*torch.as_tensor\(inputs\) makes one"):
        relprop.attribute(model, x.numpy(), 0)
    with pytest.raises(InputError, match=r"inputs\['ids'\]\[0\] is of type int.*return_tensors='pt'"):
        relprop.attribute(model, {"ids": [1, 2]}, 0)


def test_a_path_that_is_not_there_lists_those_that_are() -> None:
    few = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with pytest.raises(InputError, match=r"layers: 'x' is not part of the model\. Modules: 0, 1$"):
        relprop.attribute(few, torch.ones(2, 3), 0, layers="x")
    with pytest.raises(InputError, match=r"checkpoint: 'x' is not part of the model\. It has no parts\.$"):
        relprop.attribute(nn.Linear(3, 2), torch.ones(2, 3), 0, checkpoint="x")
    many = nn.Sequential(*(nn.Linear(3, 3) for _ in range(14)))
    with pytest.raises(InputError, match=r"Modules: 0, .*, 11, \.\.\.$"):
        relprop.attribute(many, torch.ones(2, 3), 0, layers="x")


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (lambda x, g: None, "a rule returned None: its method returns G at the input"),
        (lambda x, g: g[:, :1], r"another shape than its input: got \[2, 1.*Its method returns G at the input"),
    ],
)
@pytest.mark.parametrize("family", ["linear", "max_pool", "activation"])
def test_a_rule_that_returns_no_g(returned: Any, said: str, family: str) -> None:
    class OfLinear(relprop.WeightedRule):
        def propagate(self, layer: Any, g: Tensor) -> Tensor:
            return returned(layer.x, g)

    class OfOthers(relprop.rules.Rule):
        def max_pool(self, x: Tensor, y: Tensor, g: Tensor, windows: Any) -> Tensor:
            return returned(x, g)

        def activation(self, x: Tensor, output: Any, g: Tensor, gradient: Any) -> Tensor:
            return returned(x, g)

    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.MaxPool1d(2), nn.Linear(3, 2)).eval()
    rule = OfLinear() if family == "linear" else OfOthers()
    with pytest.raises(errors.RuleError, match=said):
        relprop.attribute(net, torch.randn(2, 4), 0, composite=relprop.Composite({family: rule}))


def test_a_rule_without_a_method(model: nn.Module, x: Tensor) -> None:
    class Misspelt(relprop.rules.Rule):
        families = frozenset({"max_pool"})

        def maxpool(self, x: Tensor, y: Tensor, g: Tensor, windows: Any) -> Tensor:
            return g

    with pytest.raises(
        errors.RuleError, match=r"acts on nothing: it defines none of the methods propagate, .*max_pool"
    ):
        relprop.attribute(model, x, 0, composite=relprop.Composite({"max_pool": Misspelt()}))


def test_a_rule_for_weighted_layers_without_their_method(model: nn.Module, x: Tensor) -> None:
    class NamesTooMuch(relprop.rules.Rule):
        families = frozenset({"linear", "conv"})

        def activation(self, x: Tensor, output: Any, g: Tensor, gradient: Any) -> Tensor:
            return g

    composite = relprop.Composite({"linear": NamesTooMuch(), "conv": NamesTooMuch()})
    with pytest.raises(errors.RuleError, match="it has no formula for weighted layers"):
        relprop.attribute(model, x, 0, composite=composite)
