"""What a result says of itself: inputs that are cut off, columns that are looked up, random numbers that were drawn."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import D, close
from relprop.engine import chance
from relprop.errors import RelpropWarning

W = torch.linspace(-1, 1, 8, dtype=D).reshape(4, 2)


def heard(model: Callable[..., Tensor], inputs: Any, **options: Any) -> relprop.Relevance:
    """An explanation whose warnings are its notices, one each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        R = relprop.attribute(model, inputs, 1, **options)
    ours = [w for w in caught if w.category is RelpropWarning]
    assert [str(w.message) for w in ours] == [n for n in R.notices if "independent" not in n]
    assert all(w.filename == __file__ for w in ours)
    assert all(notice in repr(R) for notice in R.notices)
    return R


def table() -> Tensor:
    torch.manual_seed(0)
    return torch.cat([torch.tensor([[2.0], [0.0], [4.0]]), torch.randn(3, 3)], 1).double()


CUT: dict[str, Callable[[Tensor], Tensor]] = {
    "cast": lambda c: F.one_hot(c.long(), 5).to(D) @ torch.ones(5, 2, dtype=D),
    "cast by to": lambda c: F.one_hot(c.to(torch.int64), 5).to(D) @ torch.ones(5, 2, dtype=D),
    "detach": lambda c: c.detach()[:, None] * W[:1],
    "data": lambda c: c.data[:, None] * W[:1],
    "rounding": lambda c: c.round()[:, None] * W[:1],
    "comparison": lambda c: (c > 1)[:, None] * W[:1],
    "sign": lambda c: c.sign()[:, None] * W[:1],
    "integer division": lambda c: (c // 2)[:, None] * W[:1],
    "rounding mode": lambda c: torch.div(c, 2, rounding_mode="floor")[:, None] * W[:1],
    "no_grad": lambda c: no_grad(c)[:, None] * W[:1],
    "numpy": lambda c: torch.from_numpy(c.detach().numpy())[:, None] * W[:1],
    "numbers": lambda c: torch.tensor(c.tolist(), dtype=D)[:, None] * W[:1],
    "one number": lambda c: torch.stack([torch.full((2,), float(one), dtype=D) for one in c]),
    "index": lambda c: torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=D)[(c > 1).long()],
    "bucketize": lambda c: torch.bucketize(c, torch.tensor([1.0, 3.0], dtype=D))[:, None] * W[:1],
    "argsort": lambda c: c.argsort()[:, None] * W[:1],
}


@torch.no_grad()
def no_grad(c: Tensor) -> Tensor:
    return c * 2


@pytest.mark.parametrize("name", CUT)
def test_a_column_that_is_cut_off_is_named(name: str) -> None:
    def model(x: Tensor) -> Tensor:
        return x[:, 1:] @ W[1:] + CUT[name](x[:, 0])

    R = heard(model, table(), composite="epsilon")
    assert not R.values[:, 0].any()
    (notice,) = [n for n in R.notices if "independent" not in n]
    assert notice.startswith("inputs[:, 0] has relevance 0")


@pytest.mark.parametrize("name", CUT)
def test_an_input_that_is_cut_off_is_named(name: str) -> None:
    R = heard(lambda x, c: x @ W + CUT[name](c), (table(), torch.tensor([2.0, 0.0, 4.0], dtype=D)), composite="epsilon")
    (notice,) = [n for n in R.notices if "independent" not in n]
    assert notice.startswith("inputs[1] has relevance 0") and not R.values[1].any()


def test_where_it_was_cut_off_is_named() -> None:
    class Rounding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.round()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin, self.inner = nn.Linear(2, 2), Rounding()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.lin(a) + self.inner(b)

    R = heard(Net().eval(), {"a": torch.randn(3, 2), "b": torch.randn(3, 2)})
    assert "inputs['b']" in R.notices[0] and "round in module 'inner'" in R.notices[0]


REACHING: dict[str, Callable[[Tensor], Tensor]] = {
    "relu by hand": lambda x: (x * (x > 0)) @ W,
    "a mask of a column": lambda x: (x @ W) * (x[:, :1] > -9),
    "straight through": lambda x: (x + (x.round() - x).detach()) @ W,
    "softmax by hand": lambda x: (x - x.detach().amax(1, keepdim=True)).exp() @ W,
    "shapes": lambda x: x[:, :4] @ W + torch.zeros_like(x[:, :2]) * x.shape[0],
    "a norm": lambda x: (x * x.square().mean(1, keepdim=True).rsqrt()) @ W,
    "a hidden comparison": lambda x: (x @ W).tanh() * ((x @ W)[:, :1] > -9),
}


@pytest.mark.parametrize("name", REACHING)
def test_what_reaches_the_score_on_another_way_is_not_cut_off(name: str) -> None:
    assert not heard(REACHING[name], table(), composite="epsilon").notices


RNN, LSTM, GRU = (kind(4, 2, batch_first=True, dtype=D) for kind in (nn.RNN, nn.LSTM, nn.GRU))
CELL = nn.GRUCell(4, 2, dtype=D)
DIVISORS: dict[str, Callable[[Tensor], Tensor]] = {
    "RNN": lambda x: RNN(x[:, None])[0][:, 0],
    "LSTM": lambda x: LSTM(x[:, None])[0][:, 0],
    "GRU": lambda x: GRU(x[:, None])[0][:, 0],
    "a cell": lambda x: CELL(x),
    "a covariance": lambda x: torch.cov(x.T)[:1, :2],
    "a correlation": lambda x: torch.corrcoef(x.T)[:1, :2],
    "a loss": lambda x: F.huber_loss(x[:, :2], W[:1, :2].expand(3, 2), reduction="none"),
    "addmm": lambda x: torch.addmm(x[:, :2], x, W),
}


@pytest.mark.parametrize("name", DIVISORS)
def test_steps_of_an_operation_are_no_graph_breaks_of_the_model(name: str) -> None:
    """A divisor is a constant. Its own operations detach operands in their steps, which nobody wrote."""
    divided = DIVISORS[name]
    for composite in ("zero", "epsilon", "auto"):
        R = heard(lambda x: (x - x + 1)[:, :2] / (divided(x[:, :4]).abs() + 1), table(), composite=composite)
        assert not R.notices
        R = heard(lambda x: (x - x + 1)[:, :2] / (divided(x[:, :4]).abs() + 1).detach(), table(), composite=composite)
        assert "detach in the model's own forward" in R.notices[0]


ONLY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a divisor": lambda x, y: (x @ W) / (1 + y @ W),
    "a divisor of its own shape": lambda x, y: (x / y) @ W,
    "an exponent": lambda x, y: (x.abs() ** (y.abs() + 1)) @ W,
    "a norm": lambda x, y: (x @ W) / (y.norm(dim=1, keepdim=True) + 1),
    "a weight of lerp": lambda x, y: torch.lerp(x, 2 * x, y) @ W,
    "a remainder": lambda x, y: torch.fmod(x, y.abs() + 1) @ W,
    "a reciprocal": lambda x, y: (x @ W) * (y @ W).reciprocal(),
    "a root below": lambda x, y: (x @ W) * (y @ W).square().add(1).rsqrt(),
}
"""Models of which the second input acts only through what is held constant."""
SPOKEN = "inputs[1] has relevance 0 everywhere, although the score depends on it"


@pytest.mark.parametrize("composite", ["zero", "epsilon", "auto", "attnlrp"])
@pytest.mark.parametrize("name", ONLY)
def test_an_input_that_acts_only_through_a_constant_is_named(name: str, composite: str) -> None:
    inputs = table(), table().flip(0) + 0.5
    R = heard(ONLY[name], inputs, composite=composite)
    (notice,) = R.notices
    assert notice.startswith(SPOKEN) and not R.values[1].any() and R.values[0].any()
    gradients = relprop.attribute(ONLY[name], inputs, 1, composite="gradient").values  # as it advises
    assert gradients[1].any()


GATED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a sigmoid": lambda x, y: (x * y.sigmoid()) @ W,
    "an activation": lambda x, y: (x @ W) * F.silu(y @ W),
    "glu": lambda x, y: F.glu(torch.cat([x, y], 1)) @ W,
}


@pytest.mark.parametrize("name", GATED)
def test_a_gate_that_is_held_constant_is_named(name: str) -> None:
    inputs = table(), table().flip(0) + 0.5
    (notice,) = heard(GATED[name], inputs, composite="cp_lrp").notices
    assert notice.startswith(SPOKEN)
    assert not heard(GATED[name], inputs, composite="attnlrp").notices


def test_an_attention_that_is_held_constant_is_named_too() -> None:
    def model(q: Tensor, k: Tensor) -> Tensor:
        return (q @ q.mT).softmax(-1) @ k @ W

    x = torch.randn(2, 3, 4, dtype=D)
    target = lambda y: y.sum((1, 2))  # noqa: E731
    with pytest.warns(RelpropWarning, match=r"inputs\[0\] has relevance 0 everywhere"):
        R = relprop.attribute(model, (x, x.flip(0)), target, composite="cp_lrp")
    assert not R.values[0].any() and R.values[1].any()
    assert not relprop.attribute(model, (x, x.flip(0)), target, composite="attnlrp").notices


WITHOUT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "not read": lambda x, y: x @ W,
    "without effect": lambda x, y: x @ W + 0 * (y @ W),
    "for another score": lambda x, y: torch.stack([(x / (1 + y)) @ W[:, 0], x @ W[:, 0]], 1),
    "behind a dead relu": lambda x, y: x @ W + (y.abs() @ W.abs() + 1).neg().relu(),
    "of zeros": lambda x, y: (x + y) @ W,
    "with relevance": lambda x, y: (x * y) @ W,
}


@pytest.mark.parametrize("name", WITHOUT)
def test_an_input_on_which_the_score_does_not_depend_is_not_named(name: str) -> None:
    inputs = table(), torch.zeros(3, 4, dtype=D) if name == "of zeros" else table().flip(0) + 0.5
    assert not any("everywhere" in n for n in heard(WITHOUT[name], inputs, composite="zero").notices)


def test_it_is_looked_at_only_where_an_input_got_nothing() -> None:
    ran = [0]

    def model(x: Tensor, y: Tensor) -> Tensor:
        ran[0] += 1
        return (x @ W) * (1 + y @ W) if ran[0] < 3 else (x @ W) / (1 + y @ W)

    inputs = table(), table().flip(0)
    relprop.attribute(model, inputs, 1, composite="zero")
    relprop.attribute(model, inputs, 1, composite="zero")
    assert ran[0] == 2
    ran[0] = 3
    relprop.attribute(lambda x: model(x - x, x - x), inputs[0], 1, composite="zero")  # nothing arrives at all
    assert ran[0] == 4
    ran[0] = 2
    state = torch.get_rng_state()
    with pytest.warns(RelpropWarning, match="everywhere"):
        results = relprop.attribute_each(model, inputs, [0, 1, [0, 1, 1]], composite="zero")
    assert ran[0] == 5  # itself, and twice more for all targets
    assert all(SPOKEN in R.notices[0] for R in results)
    assert torch.equal(torch.get_rng_state(), state)


class Mixed(nn.Module):
    """A table: a column of classes, looked up, and columns of numbers."""

    def __init__(self, ids: Callable[[Tensor], Tensor], column: int = 0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.kinds, self.head = nn.Embedding(9, 3), nn.Linear(6, 2)
        self.ids, self.column = ids, column

    def forward(self, x: Tensor) -> Tensor:
        rest = torch.cat([x[:, : self.column], x[:, self.column + 1 :]], 1)
        return self.head(torch.cat([self.kinds(self.ids(x[:, self.column])), rest], 1).tanh())


IDS: dict[str, Callable[[Tensor], Tensor]] = {
    "long": lambda c: c.long(),
    "int": lambda c: c.int(),
    "to": lambda c: c.to(torch.int64),
    "type": lambda c: c.type(torch.LongTensor),
    "rounded": lambda c: c.round().long(),
    "clamped": lambda c: c.long().clamp(0, 8),
    "scaled": lambda c: (c * 2).long(),
    "moved": lambda c: c.flip(0).long().flip(0),
    "detached": lambda c: c.detach().long(),
    "divided": lambda c: (c // 2).long(),
}


@pytest.mark.parametrize("column", [0, 2])
@pytest.mark.parametrize("name", IDS)
def test_a_column_that_is_looked_up_gets_the_relevance_of_its_rows(name: str, column: int) -> None:
    model = Mixed(IDS[name], column).double().eval()
    x = table()
    x[:, [0, column]] = x[:, [column, 0]]
    ids = IDS[name](x[:, column])
    rest = torch.cat([x[:, :column], x[:, column + 1 :]], 1)

    def apart(ids: Tensor, rest: Tensor) -> Tensor:
        return model.head(torch.cat([model.kinds(ids), rest], 1).tanh())

    expected = relprop.attribute(apart, (ids, rest), 1, composite="epsilon", ledger=True)
    R = heard(model, x, composite="epsilon", ledger=True)
    close(R.values[:, column], expected.values[0].to(D))
    close(torch.cat([R.values[:, :column], R.values[:, column + 1 :]], 1), expected.values[1])
    close(R.residual, expected.residual)
    assert not R.notices


@pytest.mark.parametrize("ids", [lambda c: c.argsort(), lambda c: no_grad(c).flip(0).long()])
def test_what_may_stand_for_another_entry_is_not_looked_up(ids: Callable[[Tensor], Tensor]) -> None:
    """An order has the shape of what it orders: its entries are of no one place."""
    R = heard(Mixed(ids).double().eval(), table(), composite="epsilon")
    assert not R.values[:, 0].any() and R.notices


def test_several_columns_looked_up_at_once() -> None:
    torch.manual_seed(2)
    kinds, head = nn.Embedding(9, 3).double(), nn.Linear(8, 2).double()
    x = torch.cat([torch.randint(9, (4, 2)).double(), torch.randn(4, 2, dtype=D)], 1)

    def apart(ids: Tensor, rest: Tensor) -> Tensor:
        return head(torch.cat([kinds(ids).flatten(1), rest], 1))

    expected = relprop.attribute(apart, (x[:, :2].long(), x[:, 2:]), 1, composite="epsilon")
    R = heard(lambda x: apart(x[:, :2].long(), x[:, 2:]), x, composite="epsilon")
    close(R.values, torch.cat([expected.values[0].to(D), expected.values[1]], 1))


DRAWING: dict[str, Callable[[Tensor], Tensor]] = {
    "randn": lambda x: x @ W + torch.randn(2, dtype=D),
    "like": lambda x: (x + torch.randn_like(x)) @ W,
    "bernoulli": lambda x: (x * torch.bernoulli(torch.full_like(x, 0.5))) @ W,
    "in place": lambda x: (x * torch.empty(4, dtype=D).uniform_()) @ W,
    "python": lambda x: (x * random.random()) @ W,
    "numpy": lambda x: (x * np.random.rand()) @ W,
    "permuted": lambda x: (x * torch.randperm(4)) @ W,
}


def where_the_generators_stand() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
        np.random.get_state()[2],
    ]


@pytest.mark.parametrize("name", DRAWING)
def test_a_model_that_draws_says_so(name: str) -> None:
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    R = heard(DRAWING[name], table(), composite="epsilon")
    assert [n for n in R.notices if "draws random numbers" in n]
    after = where_the_generators_stand()
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    DRAWING[name](table())
    assert where_the_generators_stand() == after  # as one forward pass leaves them


def test_the_spare_normal_number_of_python_shows() -> None:
    """`random.gauss` draws two numbers at a time, and the next call takes the second."""
    random.seed(3), random.gauss(0, 1)
    before = chance.standing([])
    assert not chance.drawn_from(before, chance.standing([]))
    random.gauss(0, 1)
    assert chance.drawn_from(before, chance.standing([]))


def test_a_generator_of_the_models_own() -> None:
    generator = torch.Generator()
    drawing = heard(lambda x: (x + torch.randn(x.shape, generator=generator, dtype=D)) @ W, table())
    assert "draws random numbers" in drawing.notices[0]
    fixed = heard(lambda x: (x + torch.randn(x.shape, generator=generator.manual_seed(1), dtype=D)) @ W, table())
    assert not fixed.notices


STILL: dict[str, Callable[[Tensor], Tensor]] = {
    "seeded": lambda x: seeded(x) @ W,
    "drawn and thrown away": lambda x: x @ W + 0 * torch.randn(2, dtype=D),
}


def seeded(x: Tensor) -> Tensor:
    torch.manual_seed(4)
    return x * torch.rand(4, dtype=D)


@pytest.mark.parametrize("name", STILL)
def test_what_gives_the_same_again_is_one_function(name: str) -> None:
    assert not heard(STILL[name], table()).notices


def test_a_checkpointed_block_draws_the_same_again() -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.lin(x) * torch.rand(4, dtype=D)

    torch.manual_seed(5)
    model = nn.Sequential(*(nn.Sequential(Noisy(), nn.Tanh()) for _ in range(3))).double().eval()
    maps = []
    for again in (False, True):
        torch.manual_seed(6)
        maps.append(heard(model, table(), checkpoint=again).values)
    close(maps[1], maps[0])


def test_the_advice_for_a_model_that_draws() -> None:
    maps = []
    for _ in range(2):
        torch.manual_seed(7)
        maps.append(heard(DRAWING["like"], table()).values)
    close(maps[0], maps[1])


def test_notices_go_where_the_result_goes(tmp_path: Path) -> None:
    R = heard(lambda x: x[:, 1:] @ W[1:] + CUT["rounding"](x[:, 0]), table(), batch_size=2)
    assert len(R.notices) == 1 and R[1].notices == R.notices
    pytest.importorskip("safetensors")
    R.save(tmp_path / "run")
    assert relprop.load(tmp_path / "run").notices == R.notices


def test_relevance_that_grew_beyond_what_was_handed_out_is_said() -> None:
    """A score of 1 - 1 has no share to give of a relevance that the caller hands to it."""
    x, w = torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    with pytest.warns(RelpropWarning, match=r"relevance grew to .*composite='epsilon'"):
        found = relprop.attribute(lambda x: x @ w.T, x, 0, composite="zero", seed=1.0)
    assert any("relevance grew" in notice for notice in found.notices)
    assert not relprop.attribute(lambda x: x @ w.T, x, 0, composite="zero").notices
    near = torch.tensor([[1.0, -1.0 + 1e-15]], dtype=torch.float64)
    assert not relprop.attribute(lambda x: x @ w.T, near, 0, composite="zero").notices  # large, and right


def test_results_of_texts_say_it_too() -> None:
    pytest.importorskip("transformers")
    from text_models import build, words

    tokenizer = words()
    for kind, call in (
        ("bert", lambda model: relprop.explain_text(model, tokenizer, "good film", 1)),
        ("gpt2", lambda model: relprop.explain_generation(model, tokenizer, "good film", max_new_tokens=2)),
    ):
        model = build(kind, tokenizer)
        assert call(model).notices == []
        model.get_input_embeddings().register_forward_hook(lambda m, args, out: out + 0.1 * torch.randn_like(out))
        with pytest.warns(RelpropWarning, match="draws random numbers"):
            found = call(model)
        assert "draws random numbers" in found.notices[0] and found.notices[0] in str(found)


def test_a_column_that_is_an_index_after_a_step_of_its_own() -> None:
    """Of which entries an operand is made cannot be seen through a rule; of a table, the columns without a gradient count."""
    table = torch.arange(20.0).reshape(5, 4)
    x = torch.tensor([[0.3, -0.2, 0.5, -1.0], [0.1, 0.4, 0.2, 3.0]])

    def model(x: Tensor) -> Tensor:
        return torch.cat([x[:, :3], table[x[:, 3].abs().long()]], 1).sum(1, keepdim=True)

    with pytest.warns(RelpropWarning, match=r"inputs\[:, \[?3\]?\] has relevance 0.*long"):
        found = relprop.attribute(model, x, 0)
    assert len(found.notices) == 1


class Looping(nn.Module):
    """Runs its layers once for each sample, as detectors do that take lists of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 3, 2), nn.ReLU())
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(self.features(picture[None]).mean((2, 3))) for picture in x])


def test_a_first_layer_that_runs_for_each_sample() -> None:
    model, x = Looping().to(D).eval(), torch.rand(3, 1, 5, 5, dtype=D)
    with pytest.warns(RelpropWarning, match=r"'features.0' is the first weighted layer and ran 3 times"):
        R = relprop.attribute(model, x, 1, composite="gamma_flat")
    advice = R.notices[0].rpartition("path: ")[2].removesuffix(".")
    composite = eval(advice, {"relprop": relprop, "composite": relprop.composites.gamma_flat()})
    R = heard(model, x, composite=composite)
    assert not R.notices
    close(R.values, torch.cat([relprop.attribute(model, one[None], 1, composite="gamma_flat").values for one in x]))
    assert not heard(model, x, composite="epsilon").notices  # one rule for all runs
