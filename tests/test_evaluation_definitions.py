"""Metrics that draw random numbers or weights, against loops over the same draws, in float64 to 1e-10."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference_evaluation as reference
import relprop
from networks import convolutional, mlp
from relprop.evaluation import Infidelity, Randomisation, SensitivityN, SoftErasure, Stability
from relprop.evaluation.randomising import layers_of, randomise
from relprop.evaluation.sizes import _subsets
from test_evaluation_metrics import _work, evaluated, linear, tables


def score_of(model: nn.Module) -> Any:
    return lambda row: model(row[None])[0, 0].item()


def wide() -> nn.Module:
    """Wide enough that no map is 0 everywhere."""
    sizes = [(6, 24), (24, 24), (24, 3)]
    layers = [layer for i, o in sizes for layer in (nn.Linear(i, o, bias=False), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double().eval()


def gradient_times_input(model: nn.Module, x: Tensor) -> Tensor:
    """LRP-0 of a network of linear layers and relus without biases."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x[None])[0, 0], x)
    return (gradient * x).detach()


def test_sensitivity_n_is_that_of_a_loop() -> None:
    model, x, maps = mlp(3, 8).double(), tables(3, 8), tables(3, 8)
    metric = SensitivityN(shares=(0.25, 0.5), draws=12)
    found = evaluated(model, x, metric, [maps])["sensitivity_n"][0]
    work = _work(model, x, maps)
    subsets = [_subsets(work, metric.name, metric.draws, share) for share in metric.shares]
    for n in range(3):
        known = [reference.sensitivity_n(score_of(model), x[n], maps[n], some[n].tolist()) for some in subsets]
        assert abs(float(found[n]) - sum(known) / 2) < 1e-10


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_sensitivity_and_stability_are_those_of_a_loop(kind: str) -> None:
    model, x = (linear(), tables()) if kind == "linear" else (mlp(3, 6).double(), tables())
    metric = Stability(radius=0.05, draws=6)
    if kind == "linear":
        nn.init.zeros_(model.bias)
    found = evaluated(model, x, metric)
    work = _work(model, x, torch.zeros_like(x))
    for n in range(len(x)):
        known = reference.stability(
            lambda row: gradient_times_input(model, row), lambda row: model(row[None])[0].detach(), x[n], metric._near(work, n)
        )  # fmt: skip
        for score, value in known.items():
            assert abs(float(found[score][0, n]) - value) < 1e-10 * max(1.0, value), score
        assert known["average_sensitivity"] < known["max_sensitivity"]


def test_inputs_of_another_class_do_not_count_for_relative_stability() -> None:
    model = nn.Linear(2, 2, bias=False).double()
    model.weight.data = torch.eye(2).double()
    x = torch.tensor([[1.0, 0.9]]).double()
    metric = Stability(radius=1.0, draws=40)
    found = evaluated(model, x, metric)
    near = metric._near(_work(model, x, x), 0)
    assert bool((near[:, 0] < near[:, 1]).any())
    same = near[near[:, 0] >= near[:, 1]]
    by_input = ((x - same)[:, 0] / x[:, 0]).abs() / ((x - same) / x).norm(dim=1)
    assert abs(float(found["input_stability"][0, 0]) - float(by_input.max())) < 1e-10


@pytest.mark.parametrize("complement", [False, True])
def test_soft_erasure_is_that_of_a_loop(complement: bool) -> None:
    model, x, maps = mlp(2, 6).double(), tables(3), tables(3)
    metric = SoftErasure(draws=7)
    found = evaluated(model, x, metric, [maps])["soft_sufficiency" if complement else "soft_comprehensiveness"][0]
    work = _work(model, x, maps)
    for n in range(3):
        noise = metric._noise(work, n).double().tolist()
        known = reference.soft_removal(score_of(model), x[n], maps[n], noise, complement)
        assert abs(float(found[n]) - known) < 1e-10


@pytest.mark.parametrize("order", ["top_down", "bottom_up"])
@pytest.mark.parametrize("smooth", [1, 3])
def test_randomisation_is_that_of_a_loop(order: str, smooth: int) -> None:
    model, x = wide(), tables(2)
    metric = Randomisation(order=order, smooth=smooth, similarity="pearson")
    mprt, emprt = evaluated(model, x, metric, seed=3).columns
    by_rank = evaluated(model, x, Randomisation(order=order, smooth=smooth), seed=3).columns[0]
    names = layers_of(model)[:: -1 if order == "top_down" else 1]
    stages = [copy.deepcopy(model)]
    for name in names:
        stages.append(copy.deepcopy(stages[-1]))
        randomise(stages[-1], name, 3)
    work = _work(model, x, x)
    work.seed = 3
    for n in range(2):
        rows = [x[n]] if smooth == 1 else [metric._noisy(work, n, draw) for draw in range(smooth)]
        maps = [(sum(gradient_times_input(stage, row) for row in rows) / smooth).tolist() for stage in stages]
        alike, rise = reference.randomised(maps, reference.correlation)
        ranked, _ = reference.randomised(maps, reference.rank_correlation)
        assert abs(float(mprt.values[0, n]) - alike) < 1e-10
        assert abs(float(by_rank.values[0, n]) - ranked) < 1e-10
        assert abs(float(emprt.values[0, n]) - rise) < 1e-10


def test_entropy_of_a_map_that_ignores_the_model_does_not_rise() -> None:
    found = evaluated(mlp(3, 6).double(), tables(), "randomisation", ["input"])
    assert float(found["emprt"].abs().max()) < 1e-10


class Proportional:
    """What integrated gradients of a linear model are, times a factor."""

    def __init__(self, model: nn.Linear, factor: float) -> None:
        self.weight, self.factor = model.weight.detach(), factor

    def attribute(self, inputs: Tensor, target: Tensor, baselines: Tensor) -> Tensor:
        return self.factor * self.weight[target] * (inputs - baselines)


def test_completeness_where_it_is_known() -> None:
    model, x, baseline = linear(), tables(), tables(1)
    methods = {str(f): relprop.evaluate.method(Proportional(model, f), baselines=baseline) for f in (1.0, 1.5, 0.0)}
    found = evaluated(model, x, "conservation", methods, targets=[0, 1, 2, 0])["incompleteness"]
    known = torch.tensor([0.0, 0.5, 1.0]).double()[:, None].expand(3, 4)
    torch.testing.assert_close(found, known, rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------------- batch sizes

METRICS = ("flipping", "naopc", "sensitivity_n", "infidelity", "erasure", "soft_erasure", "stability", "randomisation",
           "complexity", "class_contrast", "conservation", "localisation")  # fmt: skip


def test_no_metric_depends_on_the_batch_size() -> None:
    model, x = convolutional().double(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
    truth = torch.zeros(3, 8, 8, dtype=torch.bool)
    truth[:, 2:5, 2:5] = True
    options: dict[str, Any] = {"replace": ["mean", "road"], "units": ("patches", 4), "truth": truth}
    found = [
        evaluated(model, x, [*METRICS, Infidelity(draws=9)], ["auto", "zero"], **options, batch_size=size)
        for size in (1, 7, 64)
    ]
    assert {column.metric for column in found[0].columns} == set(METRICS)
    for other in found[1:]:
        for a, b in zip(found[0].columns, other.columns, strict=True):
            torch.testing.assert_close(a.values, b.values, rtol=1e-9, atol=1e-10, equal_nan=True)
    probable = [
        evaluated(model, x, "reliability", of="probability", replace="road", units=("patches", 4), batch_size=size)
        for size in (1, 7, 64)
    ]
    for each in probable[1:]:
        torch.testing.assert_close(each["r_oms"], probable[0]["r_oms"], rtol=0, atol=1e-10)
