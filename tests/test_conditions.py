"""Conditions on hidden units: definitions, identities, what results say, and errors."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference as ref
import reference_concepts as concepts
import relprop
from helpers import close_to_rounding as close
from relprop import units
from relprop.errors import CompositeError, InputError


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def convolutional(inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU6(inplace),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(inplace), nn.Linear(5, 3),
    )  # fmt: skip
    for layer in net:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.3, 0.3)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr]
    return net.double().eval()


def pictures(n: int = 3) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(n, 2, 8, 8, dtype=torch.float64)


class Branch(nn.Module):
    """`h + f(h)`, twice, written as functions."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.enter, self.leave = nn.Linear(4, 5), nn.Linear(5, 3)
        self.f, self.g = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x).relu()
        h = h + self.f(h).relu()
        h = h + self.g(h).relu()
        y: Tensor = self.leave(h)
        return y


def vectors(n: int = 3) -> Tensor:
    torch.manual_seed(4)
    return torch.randn(n, 4, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------- definitions

A, B, C = units("0")[[0, 3]], units("2")[1:4], units("0")[[3, 4]]
SETS: dict[str, tuple[Any, Any]] = {
    "one layer": (A, lambda a, b, c: a),
    "around": (~A, lambda a, b, c: 1 - a),
    "both": (A & B, lambda a, b, c: a * b),
    "both, turned": (B & A, lambda a, b, c: a * b),
    "both of a layer": (A & C, lambda a, b, c: a * c),
    "either": (A | B, lambda a, b, c: a + b - a * b),
    "either of a layer": (A | C, lambda a, b, c: a + c - a * c),
    "neither": (~(A | B), lambda a, b, c: (1 - a) * (1 - b)),
    "not both": (~(A & B), lambda a, b, c: 1 - a * b),
    "through and around": (B & ~A, lambda a, b, c: b * (1 - a)),
    "around above": (A & ~B, lambda a, b, c: a * (1 - b)),
    "around twice": (~A & ~B, lambda a, b, c: (1 - a) * (1 - b)),
    "three": ((A | ~B) & ~C, lambda a, b, c: (1 - b * (1 - a)) * (1 - c)),
    "double not": (~~A, lambda a, b, c: a),
}


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("name", SETS)
def test_a_condition_is_a_sum_over_walks(name: str, epsilon: float) -> None:
    net, x = mlp(), vectors()
    walks = concepts.walks([net[0], net[2], net[4]], x, 1, epsilon).detach()
    a, b, c = torch.zeros(5), torch.zeros(6), torch.zeros(5)
    a[[0, 3]], b[1:4], c[[3, 4]] = 1, 1, 1
    condition, indicator = SETS[name]
    chosen = indicator(a[:, None], b[None, :], c[:, None]).double()
    rules = "zero" if not epsilon else relprop.composites.epsilon(epsilon)
    R = relprop.attribute(net, x, 1, composite=rules, through=condition)
    close(R.values, (walks * chosen).sum((2, 3)))


@pytest.mark.parametrize("inplace", [True, False])
def test_z_plus_and_epsilon_through_two_layers(inplace: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 3, 3), nn.ReLU(inplace), nn.Flatten(), nn.Linear(48, 3)
    ).double()
    x = pictures(2)
    z_plus, epsilon = ref.weighted(ref.z_plus), ref.weighted(partial(ref.epsilon, epsilon=1e-6))
    passes: ref.HandDown = lambda f, x, r: ref.activation(f, x, r)  # noqa: E731
    plain = [nn.ReLU() if isinstance(m, nn.ReLU) else m for m in net]
    hand = [z_plus, passes, z_plus, passes, ref.moved, epsilon]
    low, high = torch.zeros(4, 1, 1), torch.zeros(3, 1, 1)
    low[[0, 2]], high[1] = 1, 1
    seed = lambda y: torch.eye(3)[1] * y  # noqa: E731
    expected = concepts.conditioned(list(zip(plain, hand, strict=True)), x, seed, {1: low, 3: high})
    for one, other in itertools.permutations([units("0")[[0, 2]], units("2")[1]]):
        close(relprop.attribute(net, x, 1, composite="epsilon_plus", through=one & other).values, expected.detach())


def test_a_residual_branch() -> None:
    net, x = Branch().double(), vectors()
    h = net.enter(x).relu()
    f = net.f(h).relu()
    middle = h + f
    g = net.g(middle).relu()
    zero = ref.weighted(ref.zero)
    r = torch.zeros(3, 3, dtype=torch.float64)
    r[:, 2] = net(x)[:, 2]
    r = zero(net.leave, middle + g, r)
    of_middle, of_g = ref.residual_sum(middle, g, r)
    r = of_middle + zero(net.g, middle, of_g)
    of_h, of_f = ref.residual_sum(h, f, r)
    mask = torch.tensor([0, 1, 1, 0, 0.0]).double()
    explain = partial(relprop.attribute, net, x, 2, composite="zero")
    through = zero(net.enter, x, zero(net.f, h, of_f * mask))
    around = zero(net.enter, x, of_h + zero(net.f, h, of_f * (1 - mask)))
    close(explain(through=units("f")[[1, 2]]).values, through.detach())
    close(explain(through=~units("f")[[1, 2]]).values, around.detach())
    both = zero(net.enter, x, zero(net.f, h, ref.residual_sum(h, f, zero(net.g, middle, of_g))[1]))
    close(explain(through=units("f") & units("g")).values, both.detach())


def test_directions() -> None:
    net, x = mlp(), vectors()
    v = torch.randn(5, dtype=torch.float64)
    h = net[0](x).relu()
    z = net[2](h)
    g = z.relu()
    r = concepts.share(net[4], g, 0.0)[:, :, 1] * net(x)[:, 1:2]
    G = ref.quotient(r, z) @ net[2].weight
    unit = v / v.norm()
    R = relprop.attribute(net, x, 1, composite="zero", through=units("1", directions=v))
    # the sum over units j of h_j (v_j (v G))
    close(R.values.sum(1) + R.residual, ((h @ unit) * (G @ unit)).detach())
    rest = relprop.attribute(net, x, 1, composite="zero", through=~units("1", directions=v))
    close(R.values + rest.values, relprop.attribute(net, x, 1, composite="zero").values)
    whole = relprop.attribute(net, x, 1, composite="zero", through=units("1", directions=torch.eye(5).double()))
    close(whole.values, relprop.attribute(net, x, 1, composite="zero").values)


# ------------------------------------------------------------------------------------------------- identities

COMPOSITES = ["gamma_flat", "epsilon_plus", "epsilon_plus_flat", "zero", "gradient"]


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("layer", ["0", "1", "3", "4", "5", "8"])
def test_units_add_up_to_the_map(composite: str, layer: str) -> None:
    """Also where a BatchNorm bypasses the convolution, and before an activation in place."""
    net, x = convolutional(), pictures()
    R = relprop.attribute(net, x, 1, composite=composite, layers="*", ledger=True)
    u, count = units(layer), 5 if layer == "8" else 4
    parts = relprop.attribute_each(
        net,
        x,
        1,
        through=[*(u[i] for i in range(count)), u[[0, 2]], ~u[[0, 2]]],
        composite=composite,
        layers="*",
        ledger=True,
    )
    close(sum(part.values for part in parts[:count]), R.values)
    through, around = parts[-2:]
    assert float(through.values.abs().max()) > 1e-6
    close(through.values + around.values, R.values)
    if composite != "gradient":  # whose values are not relevance, so that there are no books
        close(through.residual + around.residual, R.residual)
        for part in parts:
            close(sum(part.ledger.values(), torch.zeros(3).double()), part.residual, atol=1e-12)
    for name, relevance in R.layers.items():
        if name and int(name) <= int(layer):
            close(through.layers[name] + around.layers[name], relevance)


def test_layers_above_the_units_report_what_arrives_there() -> None:
    net, x = convolutional(), pictures()
    R = relprop.attribute(net, x, 1, layers=["8", "3", "0"])
    part = relprop.attribute(net, x, 1, layers=["8", "3", "0"], through=units("3")[1])
    close(part.layers["8"], R.layers["8"])
    mask = torch.zeros(4, 1, 1).double()
    mask[1] = 1
    close(part.layers["3"], R.layers["3"] * mask)
    lower = [
        m.values for m in relprop.attribute_each(net, x, 1, through=[units("3")[1] & units("0")[c] for c in range(4)])
    ]
    close(sum(lower), part.values)


def test_conditions_together_are_those_alone() -> None:
    net, x = convolutional(), pictures()
    a, b = units("0")[1], units("3")[[1, 3]]
    conditions = [a, b, a & b, ~a, a | b, None]
    for condition, R in zip(conditions, relprop.attribute_each(net, x, 1, through=conditions), strict=True):
        alone = relprop.attribute(net, x, 1, through=condition)
        assert torch.equal(R.values, alone.values) and torch.equal(R.residual, alone.residual)
    assert torch.equal(
        relprop.attribute(net, x, 1, through=a & b).values, relprop.attribute(net, x, 1, through=b & a).values
    )
    close(
        relprop.attribute(net, x, 1, through=None).values, relprop.attribute_each(net, x, 1, through=[None])[0].values
    )


def test_one_condition_per_sample() -> None:
    net, x = convolutional(), pictures(4)
    a, b = units("0")[1], units("3")[[1, 3]]
    each = [a, b, a & b, ~a & b]
    R = relprop.attribute(net, x, [0, 1, 2, 0], through=each)
    for n, condition in enumerate(each):
        alone = relprop.attribute(net, x[n : n + 1], [0, 1, 2, 0][n], through=condition)
        close(R[n].values, alone.values)
        close(R[n].residual, alone.residual, atol=1e-12)
        assert R[n].through == [str(condition)]
    same = relprop.attribute(net, x, 1, through=[units("0")[n] for n in range(4)])
    rows = relprop.attribute(net, x, 1, through=units("0", mask=torch.eye(4)[:, :, None, None]))
    close(same.values, rows.values)
    parts = relprop.attribute(net, x, 1, through=[units("0")[n] for n in range(4)], batch_size=3)
    close(parts.values, same.values)
    assert parts.through == same.through
    parts = relprop.attribute(net, x, 1, through=units("0", mask=torch.eye(4)[:, :, None, None]), batch_size=3)
    close(parts.values, rows.values)


def test_targets_and_conditions_pair() -> None:
    net, x = convolutional(), pictures()
    a, b = units("0")[1], units("3")[2]
    first, second = relprop.attribute_each(net, x, [relprop.Contrast(0, 1), 2], through=[a, b])
    close(first.values, sum(s * relprop.attribute(net, x, t, through=a).values for t, s in ((0, 1), (1, -1))))
    close(second.values, relprop.attribute(net, x, 2, through=b).values)
    half = relprop.attribute(net, x, 2, through=b, seed=0.5)
    whole = relprop.attribute(net, x, 2, through=b)
    close(half.values, whole.values * (0.5 / whole.score)[:, None, None, None])


class Twice(nn.Module):
    """A cell that runs three times, of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.cell, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        h = a + b
        for _ in range(3):
            h = self.cell(h).relu()
        y: Tensor = self.out(h)
        return y


def test_a_layer_that_runs_several_times() -> None:
    net, a, b = Twice().double(), vectors(), vectors(3) * 0.5
    R = relprop.attribute(net, (a, b), 1, composite="zero")
    for run in (0, 1, -1):
        parts = relprop.attribute_each(
            net, (a, b), 1, composite="zero", through=[units("cell", run=run)[i] for i in range(4)]
        )
        for k in (0, 1):
            close(sum(part.values[k] for part in parts), R.values[k])
    both = units("cell", run=0)[1] & units("cell", run=2)[3]
    assert "in run 2" in str(both)
    relprop.attribute(net, (a, b), 1, composite="zero", through=both)
    with pytest.raises(InputError, match=r"ran 3 times. Say which run"):
        relprop.attribute(net, (a, b), 1, through=units("cell")[1])
    with pytest.raises(InputError, match="there is no run 3"):
        relprop.attribute(net, (a, b), 1, through=units("cell", run=3)[1])


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.rnn, self.out = kind(3, 5, batch_first=True), nn.Linear(5, 2)  # type: ignore[call-arg]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.rnn(x)[0][:, -1])
        return y


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind: type[nn.Module]) -> None:
    net, x = Recurrent(kind).double(), torch.randn(2, 4, 3, dtype=torch.float64)
    R = relprop.attribute(net, x, 1)
    parts = relprop.attribute_each(net, x, 1, through=[units("rnn")[-1, i] for i in range(5)])
    close(sum(part.values for part in parts), R.values)
    assert float(relprop.attribute(net, x, 1, through=units("rnn")[0]).values.abs().sum()) == 0
    with pytest.raises(InputError, match="part= names the one that is used"):
        relprop.attribute(net, x, 1, through=units("rnn", part=1, mask=torch.ones(5)))


class Attending(nn.Module):
    def __init__(self, own: bool) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.own = own
        self.table, self.attention = nn.Embedding(9, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.q, self.out = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.table(ids)
        if self.own:
            h = h + self.attention(h, h, h, need_weights=False)[0]
        else:
            q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.q(h).chunk(3, -1))
            h = h + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y: Tensor = self.out(h)
        return y[:, -1]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
def test_heads_and_ids(own: bool, composite: str) -> None:
    net, ids = Attending(own).double(), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    path = "attention.heads" if own else "heads"
    heads = units(path)
    explain = partial(relprop.attribute_each, net, ids, 1, composite=composite)
    one, other, both, around, token = explain(through=[heads[0], heads[1], heads, ~heads, heads[1, 3]])
    R = relprop.attribute(net, ids, 1, composite=composite, layers=path)
    close(one.values + other.values, both.values)
    close(both.values + around.values, R.values)
    close(token.values.sum(1) + token.residual, R.layers[path][:, 1, 3].sum(1))
    close(one.values.sum(1) + one.residual, R.layers[path][:, 0].flatten(1).sum(1))


@pytest.mark.parametrize("checkpoint", [True, ["0", "3"]])
def test_checkpointed_blocks(checkpoint: Any) -> None:
    net = nn.Sequential(convolutional()[:3], convolutional()[3:6], nn.Flatten(), nn.Linear(64, 3)).double().eval()
    inner = nn.Sequential(nn.Sequential(net[0], net[1]), net[2], net[3])
    x = pictures()
    named = [units("0.0.0")[1], units("0.1.3")[[0, 2]] & units("0.0.1")[1], ~units("0.1.4")[2]]
    chosen = checkpoint if checkpoint is True else ["0.0", "0.1"]
    plain = relprop.attribute_each(inner, x, 1, through=named)
    again = relprop.attribute_each(inner, x, 1, through=named, checkpoint=chosen)
    for a, b in zip(plain, again, strict=True):
        close(a.values, b.values)
        assert float(a.values.abs().max()) > 0


def test_rows_that_exchange_relevance() -> None:
    """The books follow each score into all rows, as without conditions."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x).relu()
            y: Tensor = self.b(h + h.flip(0))
            return y

    torch.manual_seed(0)
    net, x = Mixed().double(), vectors()
    one, rest = relprop.attribute_each(
        net, x, 1, through=[units("a")[[1, 2]], ~units("a")[[1, 2]]], ledger=True, composite="zero"
    )
    R = relprop.attribute(net, x, 1, composite="zero", ledger=True)
    close(one.values + rest.values, R.values)
    close(one.residual + rest.residual, R.residual)
    close(sum(one.ledger.values()), one.residual)


# ------------------------------------------------------------------------------------------------- results


def test_results_say_their_condition(tmp_path: Path) -> None:
    net, x = convolutional(), pictures()
    condition = units("3")[[1, 3]] & ~units("0")[2]
    R = relprop.attribute(net, x, 1, through=condition, layers=["0"])
    said = "through units 1, 3 of 3 and around unit 2 of 0"
    assert R.through == said and said in repr(R) and R[1].through == said
    assert said in R.to_html() and said in R.subject(0)
    R.save(tmp_path / "run")
    assert relprop.load(tmp_path / "run").through == said
    R.save(tmp_path / "run.json")
    assert said in (tmp_path / "run.json").read_text()
    relprop.report([R], tmp_path / "page.html")
    assert said in (tmp_path / "page.html").read_text()
    each = relprop.attribute(net, x, 1, through=[units("0")[n] for n in range(3)])
    each.save(tmp_path / "each")
    assert relprop.load(tmp_path / "each").through == [f"through unit {n} of 0" for n in range(3)]
    assert relprop.attribute(net, x, 1).through is None


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (units("a"), "through a"),
        (units("a", at="input")[-1, 700], "through units [-1, 700] of the input of a"),
        (units("a")[42, 7:9, :], "through units [42, 7:9, :] of a"),
        (units("a")[::2], "through units ::2 of a"),
        (units("a")[list(range(20))], "through units 0, 1, 2, 3, 4, 5, ... (20 in all) of a"),
        (units("a", run=2)[3], "through unit 3 of a in run 2"),
        (units("a", mask=torch.ones(3)), "through units of a by a mask"),
        (units("a", directions=torch.ones(2, 3)), "through 2 directions of a"),
        (~units("a")[3] | units("b", part=1), "around unit 3 of a or through tensor 1 of b"),
        ((units("a")[1] | units("b")[2]) & units("c"), "(through unit 1 of a or through unit 2 of b) and through c"),
        (~(units("a")[1] & units("b")[2]), "not (through unit 1 of a and through unit 2 of b)"),
        (units(nn.Linear(1, 1))[0], "through unit 0 of Linear"),
    ],
)
def test_conditions_in_words(condition: relprop.Condition, said: str) -> None:
    assert str(condition) == said


def test_modules_name_layers() -> None:
    net, x = convolutional(), pictures()
    a, b = (relprop.attribute(net, x, 1, through=units(layer)[1]) for layer in (net[3], "3"))
    assert torch.equal(a.values, b.values) and a.through == b.through


def test_masks() -> None:
    net, x = convolutional(), pictures()
    chosen = torch.tensor([False, True, False, True])
    by_list = relprop.attribute(net, x, 1, through=units("3")[[1, 3]])
    for other in (units("3")[chosen], units("3", mask=chosen[:, None, None]), units("3")[1::2], units("3")[[-1, -3]],
                  units("3")[torch.tensor([1, 3])], units("3")[range(1, 4, 2)], units("3")[[1, 3], ...]):  # fmt: skip
        close(relprop.attribute(net, x, 1, through=other).values, by_list.values)
    weights = units("3", mask=torch.full((4, 1, 1), 0.5))
    close(2 * relprop.attribute(net, x, 1, through=weights).values, relprop.attribute(net, x, 1).values)


# ------------------------------------------------------------------------------------------------- errors

BAD: list[tuple[Any, str]] = [
    (units("nope")[1], "'nope' is not part of the model"),
    (units("3")[7], "there is no unit 7 along axis 0 of one sample, which has 4, 0 to 3"),
    (units("3")[-5], "there is no unit -5"),
    (units("3")[0, ..., 9], "there is no unit 9 along axis 2"),
    (units("3")[[]], "the list is empty"),
    (units("3")[4:], "selects no unit"),
    (units("3")[torch.zeros(4, dtype=torch.bool)], "selects no unit"),
    (units("3")[torch.tensor([True, False])], r"the booleans have shape \(2,\)"),
    (units("3")[[True, False]], "2 booleans for 4 units"),
    (units("3")[1, 2, 3, 4], "4 indices, but the layer gives"),
    (units("3")["a"], "units are numbers, slices"),
    (units("3")[1.5], "units are numbers, slices"),
    (units("3", mask=torch.ones(5)), r"the mask has shape \(5,\)"),
    (units("3", mask=torch.ones(2, 4, 4, 4)), r"the mask has shape \(2, 4, 4, 4\)"),
    (units("3", mask=torch.zeros(4, 1, 1)), "the mask is 0 everywhere"),
    (units("3", directions=torch.ones(3)), "none has that length"),
    (units("3", directions=torch.ones(4)), "say which, axis="),
    (units("3", directions=torch.zeros(4), axis=0), "the directions are 0"),
    (units("3", part=1), "has 1 floating-point tensors there"),
    (units("*")[1], "is a pattern"),
    (units("3")[1] & units("3")[2], "exclude each other"),
    ([units("3")[1]], "1 conditions for a batch of 3"),
    ([], "through is an empty list"),
    ("3", "through must be a condition"),
    ([[units("3")[1]]] * 3, "through must be a condition"),
]


@pytest.mark.parametrize(("through", "said"), BAD)
def test_errors(through: Any, said: str) -> None:
    net, x = convolutional(), pictures()
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    with pytest.raises(InputError, match=said):
        relprop.attribute(net, x, 1, through=through)
    assert before == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]


def test_errors_of_several_conditions() -> None:
    net, x = convolutional(), pictures()
    with pytest.raises(InputError, match="takes a list of conditions"):
        relprop.attribute_each(net, x, 1, through=units("3")[1])
    with pytest.raises(InputError, match="2 targets and 3 conditions"):
        relprop.attribute_each(net, x, [0, 1], through=[units("3")[i] for i in range(3)])


def test_parallel_layers_have_no_common_path() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.unused = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            y: Tensor = self.c(self.a(x).relu() + self.b(x).relu())
            return y

    net, x = Parallel().double(), vectors()
    with pytest.raises(InputError, match=r"no path passes both: .* lie side by side"):
        relprop.attribute(net, x, 1, through=units("a")[1] & units("b")[1])
    with pytest.raises(InputError, match="does not lie on the way"):
        relprop.attribute(net, x, 1, through=units("unused")[1])
    either = relprop.attribute(net, x, 1, through=units("a") | units("b"), composite="zero")
    close(either.values, relprop.attribute(net, x, 1, composite="zero").values)


@pytest.mark.parametrize("composite", ["guided_backprop", "deconvnet"])
def test_rules_that_are_not_linear(composite: str) -> None:
    with pytest.raises(CompositeError, match="not linear in the relevance"):
        relprop.attribute(convolutional(), pictures(), 1, composite=composite, through=units("3")[1])


def test_bad_values() -> None:
    for call, said in (
        (lambda: units(3), "path of a layer or its module"),
        (lambda: units("a", at="middle"), "at must be 'output' or 'input'"),
        (lambda: units("a", run=1.5), "run must be an int"),
        (lambda: units("a", mask=[1]), "mask must be a tensor"),
        (lambda: units("a", mask=torch.tensor([float("nan")])), "real, finite"),
        (lambda: units("a", mask=torch.ones(2), directions=torch.ones(2)), "exclude each other"),
        (lambda: units("a", directions=torch.ones(2, 2, 2)), "finite floating-point vectors"),
        (lambda: units("a")[1][2], "already names its units"),
        (lambda: units("a") & 3, "& joins two conditions"),
        (lambda: units("a") | "b", "| joins two conditions"),
        (lambda: units("a") and units("b"), "neither true nor false"),
        (lambda: relprop.attribute(lambda x: x, vectors(), 1, through=units("a")), "plain function"),
        (lambda: relprop.attribute(mlp(), vectors(), 1, through=units("0", directions=torch.ones(5)) & units("0")[1]), "directions cannot be joined"),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            call()  # type: ignore[no-untyped-call]
        assert said in str(caught.value)


def test_the_score_and_the_model_stay_as_they_are() -> None:
    net, x = convolutional(), pictures()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    R = relprop.attribute(net, x, 1, through=units("0")[1] & ~units("3")[1])
    assert torch.equal(R.score, net(x)[:, 1]) and torch.equal(R.output, net(x))
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


# ------------------------------------------------------------------------------------------------- batched passes

ACTIVATIONS = [nn.ReLU(), nn.ReLU(True), nn.ReLU6(), nn.GELU(), nn.Sigmoid(), nn.Softplus(), nn.Hardswish()]


@pytest.mark.parametrize("act", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("composite", sorted(set(relprop.composites.NAMES) - {"epsilon_gamma_box"}))
def test_batched_backward_passes(composite: str, norm: bool, act: nn.Module) -> None:
    torch.manual_seed(0)
    between = nn.BatchNorm2d(4) if norm else nn.Identity()
    net = nn.Sequential(nn.Conv2d(2, 4, 3), between, act, nn.Conv2d(4, 4, 3), between, act, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)).double().eval()  # fmt: skip
    x = pictures(2).requires_grad_()
    with relprop.propagate(composite, model=net):
        y = net(x)
    seeds = torch.randn(3, *y.shape, dtype=torch.float64)
    (together,) = torch.autograd.grad(y, x, seeds, is_grads_batched=True, retain_graph=True)
    alone = torch.stack([torch.autograd.grad(y, x, seed, retain_graph=True)[0] for seed in seeds])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
