"""Each metric where its value is known, in float64 to 1e-10, and on what it has no meaning for."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

import reference_evaluation as reference
import relprop
from networks import convolutional, mlp
from relprop.errors import InputError
from relprop.evaluation import (
    Complexity,
    ConstantValue,
    Erasure,
    Infidelity,
    Localisation,
    NormalisedFlipping,
    Randomisation,
    Reliability,
    SensitivityN,
    SoftErasure,
    Stability,
)
from relprop.evaluation.looking import gini
from relprop.evaluation.paired_statistics import pearson, ranks, spearman
from relprop.evaluation.randomising import entropy, layers_of, randomise

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}


def linear(features: int = 6) -> nn.Linear:
    return nn.Linear(features, 3).double().eval()


def tables(samples: int = 4, features: int = 6) -> Tensor:
    return torch.randn(samples, features, dtype=torch.float64)


def evaluated(model: Any, x: Any, metric: Any, methods: Any = ("zero",), targets: Any = 0, **options: Any) -> Any:
    return relprop.evaluate(model, x, targets, methods, metrics=metric, **{"free": (), "replace": 0.0, **options})


# --------------------------------------------------------------------------------------------- sizes


def test_sensitivity_n_of_a_linear_model_is_1() -> None:
    found = evaluated(linear(), tables(), SensitivityN(draws=16))
    torch.testing.assert_close(found["sensitivity_n"], torch.ones(1, 4).double(), **EXACT)
    assert float(evaluated(linear(), tables(), SensitivityN(), [torch.randn(4, 6)])["sensitivity_n"].max()) < 0.999


def test_infidelity_of_a_linear_model_is_0_whatever_the_scale() -> None:
    model, x = linear(), tables()
    R = relprop.attribute(model, x, 0, composite="zero").values
    found = evaluated(model, x, "infidelity", {"own": "zero", "scaled": 17 * R, "zeros": 0 * R})
    torch.testing.assert_close(found["infidelity"][:2], torch.zeros(2, 4).double(), **EXACT)
    torch.testing.assert_close(found["infidelity_relative"][2], torch.ones(4).double(), **EXACT)


def test_infidelity_is_that_of_a_loop() -> None:
    model, x, maps = mlp(2, 6).double(), tables(1), tables(1)
    metric = Infidelity(draws=10)
    found = float(evaluated(model, x, metric, [maps])["infidelity"][0, 0])
    from relprop.evaluation.sizes import _subsets

    pairs = []
    for gone in _subsets(_work(model, x, maps), "infidelity", 10, None)[0]:
        drop = (model(x)[0, 0] - model(torch.where(gone, 0.0, x))[0, 0]).item()
        pairs.append((maps[0, gone].sum().item(), drop))
    scale = sum(a * b for a, b in pairs) / sum(a * a for a, _ in pairs)
    assert abs(found - sum((scale * a - b) ** 2 for a, b in pairs) / 10) < 1e-10


def _work(model: nn.Module, x: Tensor, maps: Tensor) -> Any:
    from relprop.evaluation.memory import BatchSize
    from relprop.evaluation.metric import SampleWork
    from relprop.evaluation.subject import subject
    from relprop.evaluation.units import units_of

    made = subject(model, x, 0)
    made.measure(BatchSize(8))
    units = units_of(None, x, x, made.path)
    return SampleWork(made, units, [], [maps], units.gather(maps)[None], [ConstantValue(0.0)], None, 0, BatchSize(8))


# --------------------------------------------------------------------------------------------- erasing


def test_comprehensiveness_and_sufficiency_of_a_linear_model() -> None:
    model, x = linear(10), tables(3, 10)
    found = evaluated(model, x, Erasure(shares=(0.1, 0.3)))
    for n in range(3):
        c = (x[n] * model.weight[0].detach()).sort(descending=True).values
        lost = (c[:1].sum() + c[:3].sum()) / 2
        kept = (c[1:].sum() + c[3:].sum()) / 2
        torch.testing.assert_close(found["comprehensiveness"][0, n], lost, **EXACT)
        torch.testing.assert_close(found["sufficiency"][0, n], kept, **EXACT)


def test_soft_erasure_with_certain_relevance() -> None:
    """Relevance 1 is dropped for certain, relevance 0 kept for certain: no chance is left."""
    model, x = linear(4), tables(2, 4)
    maps = torch.tensor([[1.0, 0.0, 1.0, 0.0]]).double().expand(2, 4)
    found = evaluated(model, x, SoftErasure(draws=3), [maps])
    c = x * model.weight[0].detach()
    torch.testing.assert_close(found["soft_comprehensiveness"][0], c[:, [0, 2]].sum(1), **EXACT)
    torch.testing.assert_close(found["soft_sufficiency"][0], c[:, [1, 3]].sum(1), **EXACT)


def test_soft_erasure_on_average() -> None:
    model, x = linear(4), tables(1, 4)
    maps = torch.tensor([[0.0, 0.25, 0.5, 1.0]]).double()
    found = evaluated(model, x, SoftErasure(draws=20_000), [maps])
    expected = (x * model.weight[0].detach() * maps).sum()
    assert abs(float(found["soft_comprehensiveness"][0, 0]) - float(expected)) < 0.03


# --------------------------------------------------------------------------------------------- between the best and the worst


def test_naopc_is_exact_over_all_orders() -> None:
    model, x = mlp(3, 5).double(), tables(3, 5)
    maps = tables(3, 5)
    found = evaluated(model, x, NormalisedFlipping(), [maps])["naopc"][0]
    for n in range(3):

        def score(row: Tensor) -> float:
            return model(row[None])[0, 0].item()

        def over(order: Any, n: int = n) -> float:
            curve = reference.flipped(score, x[n], torch.zeros(5).double(), order)
            return sum(curve[0] - value for value in curve[1:]) / 5

        every = [over(order) for order in itertools.permutations(range(5))]
        own = over(maps[n].argsort(descending=True).tolist())
        assert abs(float(found[n]) - (own - min(every)) / (max(every) - min(every))) < 1e-10


def test_naopc_of_a_linear_model_is_1_and_0() -> None:
    model, x = linear(12), tables(2, 12)  # more than are compared exactly: the search finds them here
    c = x * model.weight[0].detach()
    found = evaluated(model, x, NormalisedFlipping(), {"best": c, "worst": -c})["naopc"]
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double(), **EXACT)
    with pytest.raises(InputError, match="takes very many passes"):
        evaluated(linear(70), tables(1, 70), "naopc")


# --------------------------------------------------------------------------------------------- moving inputs


def test_max_sensitivity_of_a_linear_model_is_reached_at_a_corner() -> None:
    model, x = linear(), tables()
    found = evaluated(model, x, Stability(radius=0.1, draws=6))
    bound = 0.1 * model.weight[0].detach().norm()
    torch.testing.assert_close(found["max_sensitivity"], bound.expand(1, 4), **EXACT)
    assert bool((found["average_sensitivity"] < bound).all())
    only = evaluated(model, x, Stability(radius=0.1, draws=1))  # a single draw is a corner
    torch.testing.assert_close(only["average_sensitivity"], bound.expand(1, 4), **EXACT)


def test_relative_stability_of_a_linear_model() -> None:
    """`R = w x`: entry by entry, map and input change by the same share."""
    model, x = linear(), tables()
    found = evaluated(model, x, Stability(radius=1e-3))
    assert bool(((found["input_stability"] - 1).abs() < 1e-6)[~found["input_stability"].isnan()].all())


def test_a_map_that_ignores_the_input_is_stable() -> None:
    found = evaluated(linear(), tables(), "stability", [lambda x, t: torch.ones_like(x)])
    assert float(found["max_sensitivity"].abs().max()) == 0


# --------------------------------------------------------------------------------------------- randomised weights


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
def test_a_map_that_ignores_the_model_is_the_same_at_every_layer(order: str) -> None:
    model, x = mlp(3, 6).double(), tables()
    found = evaluated(model, x, Randomisation(order=order), ["input", "zero"])
    column = found.columns[0]
    torch.testing.assert_close(column.curve[0], torch.ones(4, 3).double(), **EXACT)
    assert column.curve.shape[2] == len(layers_of(model))
    assert float(column.values[1].max()) < 0.99


def test_of_a_linear_model_it_is_the_correlation_of_the_weights() -> None:
    model, x = linear(8), torch.ones(1, 8).double()
    found = evaluated(model, x, Randomisation(similarity="pearson"), seed=5)
    again = nn.Linear(8, 3).double()
    again.load_state_dict(model.state_dict())
    randomise(again, "", 5)
    known = reference.correlation(model.weight[0].tolist(), again.weight[0].tolist())
    assert abs(float(found.columns[0].values[0, 0]) - known) < 1e-10


def test_every_layer_has_a_seed_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4))
    before = [p.clone() for p in model.parameters()]
    for name in layers_of(model):
        randomise(model, name, 0)
    assert not torch.equal(model[0].weight, model[1].weight)
    assert all(not torch.equal(a, b) for a, b in zip(before[:4], list(model.parameters())[:4], strict=True))
    assert float(model[2].weight.detach().std()) > 0  # those of a norm are not reset to 1


def test_a_function_is_tied_to_its_model_and_said_so() -> None:
    model, x = mlp(2, 6).double(), tables()
    found = evaluated(model, x, "randomisation", [lambda inputs, targets: inputs, IntegratedGradients(model)])
    assert bool(found.columns[0].values[0].isnan().all())
    assert not bool(found.columns[0].values[1].isnan().any())
    assert any("tied to its model" in said for said in found.warnings())


def test_entropy_rises_where_weights_are_noise_and_smoothing_runs() -> None:
    model, x = convolutional(), torch.rand(2, 3, 8, 8)
    found = evaluated(model, x, [Randomisation(), Randomisation(smooth=3)], units=("patches", 2))
    assert [c.score for c in found.columns] == ["mprt", "emprt", "smprt", "esmprt"]
    assert not bool(found.columns[1].values.isnan().any())


# --------------------------------------------------------------------------------------------- places


def test_localisation_where_it_is_known() -> None:
    model, x = convolutional(), torch.rand(3, 3, 8, 8)
    truth = torch.zeros(3, 8, 8, dtype=torch.bool)
    truth[0, 2:5, 1:6] = True
    truth[1, 7, 7] = True
    constant, indicator = torch.ones(3, 1, 8, 8), truth[:, None].double()
    found = evaluated(model, x, Localisation(), {"constant": constant, "indicator": indicator}, truth=truth)
    share = torch.tensor([15 / 64, 1 / 64]).double()
    for score in ("pointing", "mass", "rank"):
        torch.testing.assert_close(found[score][0, :2], share, **EXACT)
        torch.testing.assert_close(found[score][1, :2], torch.ones(2).double(), **EXACT)
        assert bool(found[score][:, 2].isnan().all())
    torch.testing.assert_close(found["chance"][0, :2], share, **EXACT)
    with pytest.raises(InputError, match="needs truth"):
        evaluated(model, x, "localisation")


def test_mass_counts_positive_relevance_and_rank_the_largest() -> None:
    model, x = linear(4), tables(1, 4)
    maps = torch.tensor([[3.0, -5.0, 1.0, 2.0]]).double()
    truth = torch.tensor([[True, True, False, False]])
    found = evaluated(model, x, Localisation(), [maps], truth=truth)
    assert (found["mass"].item(), found["rank"].item(), found["pointing"].item()) == (0.5, 0.5, 1.0)


# --------------------------------------------------------------------------------------------- looking at maps


def test_entropy_and_gini_where_they_are_known() -> None:
    flat, spike = torch.ones(10).double(), torch.zeros(10).double()
    spike[3] = -2
    torch.testing.assert_close(
        entropy(torch.stack([flat, spike])), torch.tensor([math.log(10), 0.0], dtype=torch.float64), **EXACT
    )
    torch.testing.assert_close(
        gini(torch.stack([flat, spike.abs()])), torch.tensor([0.0, 0.9], dtype=torch.float64), **EXACT
    )
    assert bool(entropy(0 * flat).isnan()) and bool(gini(0 * flat).isnan())
    for _ in range(5):
        values = torch.randn(7).double()
        assert abs(float(entropy(values)) - reference.entropy(values.tolist())) < 1e-10
        assert abs(float(gini(values.abs())) - reference.gini(values.tolist())) < 1e-10


def test_complexity_of_units() -> None:
    maps = torch.tensor([[1.0, 0.5, 1e-4, 0.0, 0.0, -0.02]]).double()
    found = evaluated(linear(), tables(1), Complexity(share=0.01), [maps])
    assert found["effective_complexity"].item() == 3


def test_class_contrast_of_a_linear_model() -> None:
    model, x = linear(), torch.ones(2, 6).double()
    found = evaluated(model, x, "class_contrast", ["zero", "input"], targets=[0, 1])
    outputs = model(x).detach()
    for n, own in enumerate((0, 1)):
        other = int(outputs[n].scatter(0, torch.tensor(own), -math.inf).argmax())
        known = float(spearman(model.weight[own].detach(), model.weight[other].detach()))
        assert abs(float(found["class_correlation"][0, n]) - known) < 1e-10
        assert abs(float(found["class_correlation_of_gradients"][0, n]) - known) < 1e-10
    torch.testing.assert_close(found["class_correlation"][1].isnan(), torch.tensor([True, True]))  # a constant map


def test_conservation_where_it_is_known() -> None:
    model, x = mlp(3, 6, bias=True).double(), tables()
    torch.nn.init.normal_(model[0].bias)
    given = relprop.evaluate.method(IntegratedGradients(model), n_steps=400)
    found = evaluated(model, x, "conservation", {"own": "zero", "ig": given})
    R = relprop.attribute(model, x, 0, composite="zero")
    torch.testing.assert_close(found["missing"][0], R.residual / R.score, **EXACT)
    assert float(found["unexplained"][0].max()) < 1e-10
    assert float(found["incompleteness"][1].max()) < 0.05
    assert bool(found["incompleteness"][0].isnan().all())
    with pytest.raises(InputError, match="leave of="):
        evaluated(model, x, "conservation", of="probability")


# --------------------------------------------------------------------------------------------- replacements themselves


def test_reliability_is_the_area_of_the_definition() -> None:
    model, x = mlp(2, 6).double(), tables(3)
    metric = Reliability(steps=6, draws=2)
    found = evaluated(model, x, metric, ["zero", "input"], replace=[0.0, 0.5], of="probability")
    for column, value in zip(found.find("r_oms"), (0.0, 0.5), strict=True):
        assert torch.equal(column.values[0], column.values[1]) and column.better == 0
        for n in range(3):
            places = metric._orders(_work(model, x, x), n)
            curves = []
            for order in places.argsort(1).tolist():
                score = lambda row: model(row[None]).softmax(1)[0, 0].item()  # noqa: E731
                curves.append(reference.flipped(score, x[n], torch.full((6,), value).double(), order)[1:])
            mean = [sum(points) / 2 for points in zip(*curves, strict=True)]
            assert abs(float(column.values[0, n]) - reference.area(mean)) < 1e-10


def test_reliability_where_it_is_known() -> None:
    """A replacement that puts back what was there keeps the probability; a model that ignores its input has but one."""
    model, x = mlp(2, 6).double(), tables(3)
    same = evaluated(model, x, "reliability", replace=lambda rows, gone: rows, of="probability")
    torch.testing.assert_close(same["r_oms"][0], model(x).softmax(1)[:, 0].detach(), **EXACT)
    one = nn.Linear(6, 3).double()
    torch.nn.init.zeros_(one.weight)
    alike = evaluated(one, x, "reliability", of="probability", replace=[0.0, 3.0])
    torch.testing.assert_close(alike["r_oms"][0], one(x).softmax(1)[:, 0].detach(), **EXACT)
    with pytest.raises(InputError, match="of='probability'"):
        evaluated(model, x, "reliability")


# --------------------------------------------------------------------------------------------- several at once


def test_metrics_share_rows_and_do_not_change_each_other() -> None:
    model, x = convolutional().double(), torch.rand(3, 3, 8, 8).double()
    names = ["flipping", "sensitivity_n", "infidelity", "erasure", "soft_erasure", "stability", "randomisation",
             "complexity", "class_contrast", "conservation"]  # fmt: skip
    options: dict[str, Any] = {"methods": ["zero", "gamma_flat"], "replace": ["mean", "blur"], "units": ("patches", 2)}
    together = evaluated(model, x, names, **options)
    for name in names:
        alone = evaluated(model, x, name, **options, batch_size=2)
        mine = [c for c in together.columns if c.metric == name]
        for a, b in zip(mine, alone.columns, strict=True):
            torch.testing.assert_close(a.values, b.values, rtol=1e-8, atol=1e-9, equal_nan=True)


def test_ids_are_refused_where_numbers_are_needed() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 2)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            return self.head((self.table(input_ids) * attention_mask[..., None]).mean(1))

    x = {"input_ids": torch.randint(9, (2, 5)), "attention_mask": torch.ones(2, 5, dtype=torch.long)}
    for name in ("soft_erasure", "stability"):
        with pytest.raises(InputError, match="inputs_embeds"):
            evaluated(
                Words().eval(), x, name, replace=None if name == "stability" else relprop.evaluation.ConstantToken(0)
            )


# --------------------------------------------------------------------------------------------- ranks


def test_ranks_and_correlations() -> None:
    scipy = pytest.importorskip("scipy.stats")
    a, b = torch.randint(4, (5, 9)).double(), torch.randn(5, 9).double()
    for n in range(5):
        assert ranks(a[n]).tolist() == scipy.rankdata(a[n].numpy()).tolist()
        assert abs(float(spearman(a[n], b[n])) - scipy.spearmanr(a[n].numpy(), b[n].numpy()).statistic) < 1e-12
        assert abs(float(pearson(a[n], b[n])) - reference.correlation(a[n].tolist(), b[n].tolist())) < 1e-12
    assert bool(pearson(torch.ones(4), torch.randn(4)).isnan())
