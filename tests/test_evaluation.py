"""`relprop.evaluate`: what it promises of any metric, and flipping against its definition."""

from __future__ import annotations

import copy
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, IntegratedGradients
from torch import Tensor, nn

import reference_evaluation as reference
import relprop
from networks import convolutional, mlp
from relprop.errors import InputError, ModelStateError, NonFiniteError, TargetError
from relprop.evaluation import (
    Blur,
    Conditional,
    ConstantToken,
    ConstantValue,
    DataMean,
    Delete,
    Flipping,
    Inpainting,
    Marginal,
    NoisyLinear,
    SampleMean,
    Unattended,
)
from relprop.evaluation.imputation import impute


def linear(features: int = 6, classes: int = 3) -> nn.Linear:
    return nn.Linear(features, classes).double().eval()


def tables(samples: int = 4, features: int = 6) -> Tensor:
    return torch.randn(samples, features, dtype=torch.float64)


def evaluated(model: Any, x: Any, targets: Any = 0, methods: Any = ("zero",), **options: Any) -> Any:
    return relprop.evaluate(model, x, targets, methods, **{"free": (), "replace": 0.0, **options})


# --------------------------------------------------------------------------------------------- flipping


def test_abpc_of_a_linear_model_is_known() -> None:
    model, x = linear(), tables()
    found = evaluated(model, x, metrics=Flipping(steps=6))["abpc"][0]
    known = [reference.abpc_of_linear(row * model.weight[0].detach()) for row in x]
    torch.testing.assert_close(found, torch.tensor(known, dtype=torch.float64), rtol=0, atol=1e-10)


def test_the_best_order_of_a_linear_model_is_that_of_its_contributions() -> None:
    model, x = linear(), tables(1)
    orders = torch.tensor(list(itertools.permutations(range(6))), dtype=torch.float64)
    maps = {str(n): order[None] for n, order in enumerate(orders)}
    found = evaluated(model, x, methods={"own": "zero", **maps}, metrics=Flipping(steps=6))["abpc"][:, 0]
    assert float(found[0]) >= float(found.max()) - 1e-12
    assert abs(float(found[1:].mean())) < 1e-10  # orders and their reverses cancel


def test_curves_are_those_of_the_definition() -> None:
    model, x = mlp(3, 6).double(), tables(3)
    maps = torch.randn(3, 6, dtype=torch.float64)
    data = torch.randn(5, 6, dtype=torch.float64)
    E = evaluated(model, x, targets=2, methods=[maps], replace=DataMean(data), metrics=Flipping(steps=6))
    most, least = E.find("morf")[0], E.find("lerf")[0]
    for n in range(3):
        order = maps[n].argsort(descending=True).tolist()

        def score(row: Tensor) -> float:
            return model(row[None])[0, 2].item()

        down = reference.flipped(score, x[n], data.mean(0), order)
        up = reference.flipped(score, x[n], data.mean(0), order[::-1])
        torch.testing.assert_close(most.curve[0, n], torch.tensor(down, dtype=torch.float64), rtol=0, atol=1e-10)
        torch.testing.assert_close(least.curve[0, n], torch.tensor(up, dtype=torch.float64), rtol=0, atol=1e-10)
        assert abs(float(most.values[0, n]) - reference.area(down)) < 1e-10
        assert abs(float(E["abpc"][0, n]) - reference.abpc(score, x[n], data.mean(0), maps[n])) < 1e-10
        normalised = float(E["abpc"][0, n]) / (down[0] - down[-1])
        assert abs(float(E["abpc_normalised"][0, n]) - normalised) < 1e-10


@pytest.mark.parametrize("steps", [2, 3, 7, 10])
def test_the_reversed_order_gives_the_negative_to_the_last_bit(steps: int) -> None:
    x, maps = torch.rand(5, 3, 8, 8), torch.randn(5, 3, 8, 8)
    E = evaluated(
        convolutional(),
        x,
        methods=[maps, -maps],
        metrics=Flipping(steps=steps),
        replace=["mean", Blur()],
        units="pixels",
    )
    for column in E.find("abpc"):
        assert torch.equal(column.values[0], -column.values[1])
        assert bool(column.values[0].abs().max() > 0)


def test_random_orders_have_mean_0() -> None:
    model, x = mlp(2, 6).double(), tables(40)
    maps = {str(n): torch.randn(40, 6) for n in range(50)}
    values = evaluated(model, x, methods=maps)["abpc"].mean(1)
    assert abs(float(values.mean())) < 4 * float(values.std()) / 50**0.5


def test_units_of_equal_relevance_come_in_the_same_random_order_for_all_methods() -> None:
    x = torch.rand(3, 3, 8, 8)
    flat = torch.ones(3, 3, 8, 8)
    E = evaluated(convolutional(), x, methods={"a": flat, "b": 2 * flat})
    assert torch.equal(E["abpc"][0], E["abpc"][1])


@pytest.mark.parametrize("of", ["logit", "probability", "log_probability", "log_odds"])
@pytest.mark.parametrize("targets", [1, [0, 1, 2, 1], relprop.Contrast(0, 2), None])
def test_scores_are_read_off_the_output(of: str, targets: Any) -> None:
    model, x = mlp(2, 6).double(), tables()
    E = evaluated(model, x, targets, methods=[torch.randn(4, 6)], of=of)
    logits = model(x).detach()
    read = {
        "logit": logits,
        "probability": logits.softmax(1),
        "log_probability": logits.log_softmax(1),
        "log_odds": torch.logit(logits.softmax(1)),
    }[of]
    rows = torch.arange(4)
    if targets is None:
        wanted = read[rows, logits.argmax(1)]
    elif isinstance(targets, relprop.Contrast):
        wanted = read[:, 0] - read[:, 2]
    else:
        wanted = read[rows, torch.tensor(targets).expand(4)]
    torch.testing.assert_close(E.score, wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(E.find("morf")[0].curve[0, :, 0], wanted, rtol=0, atol=1e-10)


def test_a_target_of_the_callers_own() -> None:
    model, x = mlp(2, 6).double(), tables()
    E = evaluated(model, x, lambda output: output[:, 0] * output[:, 1])
    torch.testing.assert_close(E.score, (model(x)[:, 0] * model(x)[:, 1]).detach(), rtol=0, atol=1e-10)


def test_an_output_of_one_number_is_a_yes_or_no() -> None:
    model, x = nn.Sequential(nn.Linear(6, 1), nn.Flatten(0)).double().eval(), tables()
    E = evaluated(model, x, None, of="probability")
    torch.testing.assert_close(E.score, model(x).sigmoid().detach(), rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------- replacements


def changed(replacement: Any, x: Tensor, gone: Tensor) -> Tensor:
    return replacement(x, gone, torch.Generator().manual_seed(1))


def test_an_affine_picture_is_imputed_exactly() -> None:
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="ij")
    x = torch.stack([1 + 2 * rows - 3 * columns, rows + columns]).double()[None].repeat(3, 1, 1, 1)
    gone = torch.zeros(3, 1, 12, 10, dtype=torch.bool)
    gone[0, :, 2:9, 3:7] = True
    gone[1, :, 1:-1, 1:-1] = True
    gone[2, :, 5, 5] = True
    torch.testing.assert_close(changed(NoisyLinear(noise=0.0), x, gone), x, rtol=0, atol=1e-10)


def test_imputation_is_that_of_a_dense_solver() -> None:
    x = torch.randn(4, 2, 7, 6, dtype=torch.float64)
    gone = torch.rand(4, 1, 7, 6) < 0.6
    found = impute(x, gone)
    for n, c in itertools.product(range(4), range(2)):
        torch.testing.assert_close(found[n, c], reference.imputed(x[n, c], gone[n, 0]), rtol=0, atol=1e-10)


def test_a_picture_of_which_nothing_is_left_becomes_its_mean() -> None:
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    found = impute(x, torch.ones(2, 1, 6, 6, dtype=torch.bool))
    torch.testing.assert_close(found, x.mean((2, 3), keepdim=True).expand_as(x), rtol=0, atol=1e-12)


def test_noise_has_its_size_and_is_the_samples_own() -> None:
    x, gone = torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    gone[..., ::2] = True
    noise = changed(NoisyLinear(noise=0.1), x, gone)[gone.expand(1, 3, 64, 64)]
    assert abs(float(noise.std()) - 0.1) < 0.005
    assert not bool(changed(NoisyLinear(noise=0.1), x, gone)[~gone.expand(1, 3, 64, 64)].any())


def test_means_blurs_and_constants() -> None:
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    gone = torch.rand(2, 1, 8, 8) < 0.5
    everything = torch.ones_like(gone)
    mean = changed(SampleMean(), x, gone)
    torch.testing.assert_close(mean, torch.where(gone, x.mean((2, 3), keepdim=True), x))
    assert torch.equal(changed(ConstantValue(0.5), x, gone), torch.where(gone, 0.5, x))
    flat = torch.full_like(x, 0.3)
    torch.testing.assert_close(changed(Blur(2.0), flat, everything), flat)
    blurred = changed(Blur(2.0), x, everything)
    assert float(blurred.std()) < 0.5 * float(x.std())
    line = torch.exp(-0.5 * (torch.arange(-6.0, 7).double() / 2) ** 2)
    spike = torch.zeros(1, 1, 21, dtype=torch.float64)
    spike[..., 10] = 1
    torch.testing.assert_close(changed(Blur(2.0), spike, torch.ones_like(spike).bool())[0, 0, 4:17], line / line.sum())


def test_other_samples_at_the_same_place() -> None:
    data, x = torch.randn(7, 5), torch.randn(2, 5)
    gone = torch.tensor([[True, False, True, False, False]]).expand(2, 5)
    found = changed(Marginal(data), x, gone)
    assert torch.equal(found[~gone], x[~gone])
    assert all(any(torch.equal(row[[0, 2]], other[[0, 2]]) for other in data) for row in found)
    own = changed(Marginal(torch.stack([x[0], data[0]])), x[:1], gone[:1])
    assert torch.equal(own[0, [0, 2]], data[0, [0, 2]])  # never the sample itself


def test_the_nearest_samples_in_what_is_left() -> None:
    data = torch.randn(9, 5, dtype=torch.float64)
    x = torch.cat([data[:1], torch.randn(1, 5, dtype=torch.float64)])
    gone = torch.tensor([[True, False, True, False, False]]).expand(2, 5)
    found = changed(Conditional(data, nearest=2), x, gone)
    for n in range(2):
        distances = ((data - x[n])[:, [1, 3, 4]] ** 2).sum(1)
        if n == 0:
            distances[0] = float("inf")  # the sample itself
        near = distances.topk(2, largest=False).indices
        torch.testing.assert_close(found[n, [0, 2]], data[near].mean(0)[[0, 2]], rtol=0, atol=1e-10)


def test_a_function_of_the_callers() -> None:
    x, gone = torch.randn(2, 5), torch.rand(2, 5) < 0.5
    assert torch.equal(changed(Inpainting(lambda rows, away: rows + away), x, gone), torch.where(gone, x + 1, x))
    with pytest.raises(InputError, match="must return rows of shape"):
        changed(Inpainting(lambda rows, away: rows[:1]), x, gone)


class Words(nn.Module):
    """The mean of what is looked up, over the tokens that are attended to; position does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask[..., None].to(self.head.weight.dtype)
        return self.head((self.table(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1))


def texts() -> dict[str, Tensor]:
    ids = torch.randint(3, 20, (4, 7))
    mask = torch.ones(4, 7, dtype=torch.long)
    mask[1, 5:], mask[3, 4:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def test_tokens_are_deleted_or_hidden() -> None:
    model, x = Words().double().eval(), texts()
    E = evaluated(
        model, x, replace=[Delete(pad=1), Delete(pad=1, side="left"), ConstantToken(2)], metrics=Flipping(steps=7)
    )
    right, left, _ = (each.curve for each in E.find("morf"))
    torch.testing.assert_close(right, left, rtol=0, atol=1e-12)  # this model does not see positions
    ids, relevance = x["input_ids"][1, :5], E.relevance[0, 1, :5]
    assert float(E.relevance[0, 1, 5:].abs().sum()) == 0  # padding is not a unit
    kept = ids[relevance.argsort(descending=True)[3:].sort().values]
    scored = model(kept[None], torch.ones(1, len(kept)))[0, 0].item()
    # Five tokens in seven points: that with three removed is point 4 (4 * 5 / 7 = 2.9).
    assert abs(float(right[0, 1, 4]) - scored) < 1e-10
    only_pad = model(torch.tensor([[1]]), torch.ones(1, 1))[0, 0].item()
    assert abs(float(right[0, 1, -1]) - only_pad) < 1e-10
    with pytest.raises(InputError, match="hides every token"):
        evaluated(model, x, replace=Unattended())


def test_tokens_move_up_and_padding_follows() -> None:
    subject, units = rows_of(Words().eval(), texts())
    gone = torch.zeros(1, 7, dtype=torch.bool)
    gone[0, [1, 3]] = True
    rows = Delete(pad=1).rows(subject, units, torch.tensor([0]), gone, torch.zeros(1, 7))
    ids = subject.main[0]
    assert rows["input_ids"].tolist()[0] == [*ids[[0, 2, 4, 5, 6]].tolist(), 1, 1]
    assert rows["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 0, 0]]
    rows = Delete(pad=1, side="left").rows(subject, units, torch.tensor([0]), gone, torch.zeros(1, 7))
    assert rows["input_ids"].tolist()[0] == [1, 1, *ids[[0, 2, 4, 5, 6]].tolist()]
    assert rows["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1]]


def rows_of(model: nn.Module, inputs: Any, units: Any = None) -> Any:
    from relprop.evaluation.memory import BatchSize
    from relprop.evaluation.subject import subject
    from relprop.evaluation.units import units_of

    made = subject(model, inputs, 0)
    made.measure(BatchSize(8))
    return made, units_of(units, made.main, inputs, made.path)


# --------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("units", "count"),
    [
        ("pixels", 64),
        (("patches", 4), 4),
        (("patches", 3), 9),
        ("entries", 192),
        (torch.arange(64).reshape(8, 8) % 5, 5),
    ],
)
def test_units_of_pictures(units: Any, count: int) -> None:
    x, maps = torch.rand(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    E = evaluated(convolutional(), x, methods=[maps], units=units)
    assert E.relevance.shape == (1, 2, count)
    torch.testing.assert_close(E.relevance.double().sum(2)[0], maps.double().sum((1, 2, 3)))
    if isinstance(units, Tensor):
        wanted = torch.stack([maps.sum(1)[:, units == n].sum(1) for n in range(5)], 1)
        torch.testing.assert_close(E.relevance[0], wanted)


def test_units_of_series_tables_and_samples() -> None:
    series = nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)).eval()
    assert evaluated(series, torch.randn(2, 2, 10)).relevance.shape[2] == 10
    assert evaluated(series, torch.randn(2, 2, 10), units=("steps", 4)).relevance.shape[2] == 3
    model = linear()
    assert evaluated(model, tables(), units=[[0, 1], [2, 5]]).relevance.shape[2] == 2
    own = torch.tensor([[0, 0, 1, 1, 2, 2], [5, 5, 5, 9, 9, -1]])
    E = evaluated(model, tables(2), units=own, metrics=Flipping(steps=3))
    assert E.relevance.shape[2] == 3
    assert float(E.relevance[0, 1, 2]) == 0  # the second sample has two units


def test_a_unit_that_is_never_removed_stays() -> None:
    model, x = linear(), tables(2)
    units = torch.tensor([0, 1, -1, -1, 2, 3])
    E = evaluated(model, x, units=units[None], metrics=Flipping(steps=4))
    left = torch.zeros_like(x)
    left[:, 2:4] = x[:, 2:4]
    torch.testing.assert_close(E.find("morf")[0].curve[0, :, -1], model(left)[:, 0].detach(), rtol=0, atol=1e-12)


# --------------------------------------------------------------------------------------------- methods


def test_methods_in_every_form() -> None:
    model, x = convolutional(), torch.rand(4, 3, 8, 8)
    R = relprop.attribute(model, x, 0, composite="zero")

    class Shap:
        def shap_values(self, array: Any) -> Any:
            assert isinstance(array, np.ndarray)
            return np.stack([R.values.numpy()] * 5, -1)

    methods = {
        "name": "zero",
        "composite": relprop.composites.zero(),
        "function": lambda inputs, targets: relprop.attribute(model, inputs, targets, composite="zero").values,
        "captum": relprop.evaluate.attributor(model, "zero"),
        "result": R,
        "map": R.values,
        "array": R.values.numpy(),
        "explainer": Shap(),
    }
    E = evaluated(model, x, 0, methods)
    assert E.methods == list(methods)
    for row in range(1, len(methods)):
        torch.testing.assert_close(E["abpc"][row], E["abpc"][0])
    assert E.cost["name"].passes == E.cost["function"].passes == E.cost["captum"].passes == 2
    assert E.cost["map"].passes == 0


def test_any_composite_has_captums_interface() -> None:
    model, x = convolutional(), torch.rand(3, 3, 8, 8)
    given = relprop.evaluate.attributor(model, "epsilon_plus")
    classes = torch.tensor([0, 1, 2])
    maps = given.attribute(x, target=classes)
    assert torch.equal(maps, relprop.attribute(model, x, classes, composite="epsilon_plus").values)


def test_shap_on_tables_is_found_by_its_class_axis() -> None:
    """An explainer answers with a list of arrays, one per class, or with one array that has classes last."""
    model, x = linear(), tables()
    R = torch.stack([relprop.attribute(model, x, c, composite="zero").values for c in range(3)])

    class Old:
        def shap_values(self, array: Any) -> Any:
            return [one.numpy() for one in R]

    class New:
        def shap_values(self, array: Any) -> Any:
            return R.permute(1, 2, 0).numpy()

    targets = [2, 0, 1, 2]
    E = evaluated(model, x, targets, {"zero": "zero", "old": Old(), "new": New()})
    torch.testing.assert_close(E["abpc"][1:], E["abpc"][:1].expand(2, -1))


def test_passes_are_counted() -> None:
    model, x = convolutional(), torch.rand(4, 3, 8, 8)
    given = relprop.evaluate.method(IntegratedGradients(model), n_steps=7)
    E = evaluated(model, x, [0, 1, 2, 3], [given, "zero"])
    assert (E.cost["IntegratedGradients"].forwards, E.cost["IntegratedGradients"].backwards) == (7, 7)
    assert (E.cost["zero"].forwards, E.cost["zero"].backwards) == (1, 1)


def test_integrated_gradients_here_are_captums() -> None:
    model, x = convolutional().double(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
    given = IntegratedGradients(model)
    maps = given.attribute(x, target=torch.tensor([0, 1, 2]), n_steps=9)
    E = evaluated(model, x, [0, 1, 2], [relprop.evaluate.method(given, n_steps=9), maps])
    torch.testing.assert_close(E["abpc"][0], E["abpc"][1], rtol=0, atol=1e-10)


def test_model_free_maps_are_always_beside() -> None:
    E = relprop.evaluate(convolutional(), torch.rand(2, 3, 8, 8), 0, ["zero"])
    assert E.free == ["random", "input", "centre", "edges"]
    assert len(E.find("abpc")) == 2  # two replacements
    assert relprop.evaluate(linear(), tables(), 0).free == ["random", "input"]


@pytest.mark.parametrize("shape", [(3, 3, 8, 9), (3, 2, 8, 8), (3, 8, 9)])
def test_a_map_that_does_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"'mine' gave a map of shape \(3, .*for inputs of shape \(3, 3, 8, 8\)"):
        relprop.evaluate(convolutional(), torch.rand(3, 3, 8, 8), 0, {"mine": torch.rand(shape)})


def test_a_map_without_channels() -> None:
    model, x = convolutional(), torch.rand(2, 3, 8, 8)
    maps = torch.randn(2, 8, 8)
    E = evaluated(model, x, methods=[maps, maps[:, None]])
    assert torch.equal(E["abpc"][0], E["abpc"][1])


# --------------------------------------------------------------------------------------------- the stream


@pytest.mark.parametrize("methods", [["auto", "zero"], None])
def test_results_do_not_depend_on_the_batch_size(methods: Any) -> None:
    model, x = convolutional().double(), torch.rand(5, 3, 8, 8, dtype=torch.float64)
    if methods is None:
        methods = [relprop.evaluate.method(GradientShap(model), baselines=torch.zeros(2, 3, 8, 8).double())]
    found = [
        relprop.evaluate(model, x, None, methods, batch_size=size, replace=["mean", "blur", "road"])
        for size in (1, 7, 64)
    ]
    for other in found[1:]:
        for a, b in zip(found[0].columns, other.columns, strict=True):
            torch.testing.assert_close(a.values, b.values, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_a_sample_gets_the_same_alone_or_among_others() -> None:
    model, x = convolutional().double(), torch.rand(9, 3, 8, 8, dtype=torch.float64)
    methods = ["zero", relprop.evaluate.method(GradientShap(model), baselines=torch.zeros(2, 3, 8, 8).double())]
    whole = relprop.evaluate(model, x, 1, methods, replace="road")
    alone = relprop.evaluate(model, x[7:8], 1, methods, replace="road")
    for a, b in zip(whole.columns, alone.columns, strict=True):
        torch.testing.assert_close(a.values[:, 7:8], b.values, rtol=1e-9, atol=1e-9, equal_nan=True)


class Counting(nn.Module):
    """Counts the rows it is given."""

    def __init__(self, model: nn.Module, fail_at: int | None = None) -> None:
        super().__init__()
        self.model, self.rows, self.calls = model, [0], [0]
        self.fail_at = [fail_at]  # a list: where it fails is not what it is

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            self.calls[0] += 1
            self.rows[0] += len(x)
            if self.fail_at[0] is not None and self.calls[0] > self.fail_at[0]:
                raise KeyboardInterrupt
        return self.model(x)


def test_equal_orders_and_the_ends_of_curves_run_once() -> None:
    model, x = Counting(convolutional()), torch.rand(3, 3, 8, 8)
    maps = torch.randn(3, 3, 8, 8)
    model.rows[0] = 0
    evaluated(model, x, methods={"a": maps, "b": maps * 2, "c": -maps}, metrics=Flipping(steps=4), units=("patches", 2))
    # The samples as they are; then both ends, and three points of two orders. The whole sample is an end.
    assert model.rows[0] == 3 + 3 * (2 + 2 * 3)


class Never(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_memory_that_runs_out_halves_the_batch() -> None:
    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x.flatten(1)[:, :3] * x.flatten(1)[:, 3:6]

    x, maps = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    few = evaluated(Small(), torch.cat([x] * 3), methods=[torch.cat([maps] * 3)], batch_size=40)
    calm = evaluated(Small(), x, methods=[maps], batch_size=2)
    assert torch.equal(few["abpc"][:, :3], calm["abpc"])
    assert bool(few["abpc"].any())
    with pytest.raises(torch.OutOfMemoryError):
        evaluated(nn.Sequential(Small(), Never()), x, methods=[maps], batch_size=2)


def test_an_iterable_of_batches() -> None:
    model, x = convolutional().double(), torch.rand(7, 3, 8, 8, dtype=torch.float64)
    classes = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    whole = relprop.evaluate(model, x, classes, ["zero"], replace="mean")
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, classes), batch_size=3)
    parts = relprop.evaluate(model, loader, methods=["zero"], replace="mean")
    for a, b in zip(whole.columns, parts.columns, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=1e-9, atol=1e-9)
    assert parts.find("morf")[0].curve.shape == whole.find("morf")[0].curve.shape


def test_large_inputs_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from relprop.evaluation import batches

    model, x = convolutional().double(), torch.rand(7, 3, 8, 8, dtype=torch.float64)
    maps, units = torch.randn(7, 3, 8, 8), torch.randint(0, 4, (7, 8, 8))
    options: dict[str, Any] = {"methods": ["zero", maps], "replace": "mean", "units": units}
    whole = relprop.evaluate(model, x, None, **options)
    monkeypatch.setattr(batches, "_ENTRIES", 2 * 192)
    parts = relprop.evaluate(model, x, None, **options)
    for a, b in zip(whole.columns, parts.columns, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=1e-9, atol=1e-9)


# --------------------------------------------------------------------------------------------- resuming


def test_a_second_call_does_nothing_again(tmp_path: Path) -> None:
    model, x = Counting(convolutional()), torch.rand(3, 3, 8, 8)
    first = evaluated(model, x, methods=["zero"], folder=tmp_path)
    done = model.rows[0]
    again = evaluated(model, x, methods=["zero"], folder=tmp_path)
    assert model.rows[0] - done == 3  # the samples as they are
    assert again.cost == first.cost
    for a, b in zip(first.columns, again.columns, strict=True):
        assert torch.equal(a.values, b.values)
    evaluated(model, x, methods=["zero", "gamma_flat"], folder=tmp_path)
    assert model.rows[0] - done > 6


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    inner, x = convolutional(), torch.rand(4, 3, 8, 8)
    options: dict[str, Any] = {"methods": ["zero", "gamma_flat"], "replace": ["mean", "road"], "batch_size": 8}
    calm = Counting(inner)
    undisturbed = evaluated(calm, x, **options)
    with pytest.raises(KeyboardInterrupt):
        evaluated(Counting(inner, fail_at=6), x, **options, folder=tmp_path)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"scores": ["torn')
    rest = Counting(inner)
    resumed = evaluated(rest, x, **options, folder=tmp_path)
    # One call measures the samples; five batches were done before the interrupt.
    assert rest.calls[0] == calm.calls[0] - 5
    for a, b in zip(undisturbed.columns, resumed.columns, strict=True):
        assert torch.equal(a.values, b.values)


def test_other_weights_are_other_work(tmp_path: Path) -> None:
    model, x = convolutional(), torch.rand(3, 3, 8, 8)
    before = evaluated(model, x, methods=["zero"], folder=tmp_path)["abpc"]
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert not torch.equal(evaluated(model, x, methods=["zero"], folder=tmp_path)["abpc"], before)


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text(json.dumps({"format": 1}) + "\nnonsense\n")
    with pytest.raises(InputError, match="line 2"):
        evaluated(linear(), tables(), folder=tmp_path)
    (tmp_path / "journal.jsonl").write_text(json.dumps({"format": 99}) + "\n")
    with pytest.raises(InputError, match="another version"):
        evaluated(linear(), tables(), folder=tmp_path)


def test_two_evaluations_do_not_write_to_one_folder(tmp_path: Path) -> None:
    model, x = linear(), tables()

    def inside(inputs: Tensor, targets: Any) -> Tensor:
        with pytest.raises(InputError, match=rf"another evaluation writes to .* \(process {os.getpid()}\): wait until"):
            evaluated(model, x, folder=tmp_path)
        return torch.zeros_like(inputs)

    evaluated(model, x, methods=[inside], folder=tmp_path)
    evaluated(model, x, folder=tmp_path)  # the folder is free again


KILLED = """
import os, signal, sys
import torch
import relprop

def ended(inputs, targets):
    os.kill(os.getpid(), signal.SIGKILL)

relprop.evaluate(torch.nn.Linear(6, 3).eval(), torch.ones(4, 6), 0, [ended], replace=0.0, free=(), folder=sys.argv[1])
"""


def test_the_lock_of_a_killed_run_is_gone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL and (tmp_path / "journal.lock").exists()
    evaluated(linear(), tables(), folder=tmp_path)


def test_a_folder_without_locks_is_used_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from relprop.evaluation import locking

    def refuse(file: Any) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(locking, "_hold", refuse)
    evaluated(linear(), tables(), folder=tmp_path)
    assert (tmp_path / "journal.jsonl").stat().st_size


# --------------------------------------------------------------------------------------------- nothing is left behind


def state(model: nn.Module) -> Any:
    return [
        copy.deepcopy(model.state_dict()),
        [list(vars(module)) for module in model.modules()],
        [[dict(v) for k, v in vars(module).items() if "hooks" in k] for module in model.modules()],
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [module.training for module in model.modules()],
    ]


def same_state(a: Any, b: Any) -> bool:
    weights = all(torch.equal(a[0][name], b[0][name]) for name in a[0])
    return weights and a[1:] == b[1:]


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_the_model_and_the_random_state_are_as_before(error: Any) -> None:
    model, x = convolutional(), torch.rand(3, 3, 8, 8)

    def bad(inputs: Tensor, targets: Any) -> Tensor:
        model[0].register_forward_hook(lambda *args: None)
        model[1].left_behind = torch.zeros(3)
        model.train()
        model[3].weight.requires_grad_(False)
        model(inputs).sum().backward()
        torch.randn(3), np.random.rand()
        if error is not None:
            raise error("stop")
        return torch.randn_like(inputs)

    before, chance, numbers = state(model), torch.get_rng_state(), np.random.get_state()[1].copy()
    if error is None:
        evaluated(model, x, methods=[bad])
    else:
        with pytest.raises(error):
            evaluated(model, x, methods=[bad])
    assert same_state(before, state(model))
    assert torch.equal(chance, torch.get_rng_state())
    assert (np.random.get_state()[1] == numbers).all()


def test_a_method_that_writes_to_the_model_is_an_error() -> None:
    model, x = convolutional(), torch.rand(3, 3, 8, 8)

    def bad(inputs: Tensor, targets: Any) -> Tensor:
        with torch.no_grad():
            model[0].bias.add_(1)
        return torch.zeros_like(inputs)

    with pytest.raises(ModelStateError, match=r"wrote to '0.bias'"):
        evaluated(model, x, methods=[bad])


# --------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"methods": ["zeroo"]}, "no composite named"),
        ({"methods": [3]}, "a method is"),
        ({"methods": []}, "methods is empty"),
        ({"methods": [torch.zeros(3, 6)]}, "holds maps of 3 samples"),
        ({"methods": [lambda x, t: x[:, :2]]}, "must have one entry for each"),
        ({"methods": [lambda x, t: "map"]}, "gave no map"),
        ({"metrics": "flippin"}, "there is no metric"),
        ({"metrics": Flipping(steps=0)}, "steps must be an int"),
        ({"metrics": ["flipping", "flipping"]}, "a metric twice"),
        ({"replace": "white"}, "a replacement is"),
        ({"replace": [0, 0.0]}, "a replacement twice"),
        ({"replace": Blur()}, "needs pictures or series"),
        ({"replace": NoisyLinear()}, "needs pictures"),
        ({"replace": ConstantToken(3)}, "is for texts"),
        ({"replace": DataMean(torch.zeros(2, 5))}, "samples of shape"),
        ({"units": "pixel"}, "there are no units"),
        ({"units": "pixels"}, "needs pictures"),
        ({"units": [[0, 0]]}, "at most one group"),
        ({"units": torch.zeros(6)}, "integers"),
        ({"units": torch.zeros(5, dtype=torch.long)}, "do not fit"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": 0.5}, "seed"),
        ({"of": "odds"}, "of must be"),
        ({"truth": torch.zeros(4, 6)}, "boolean"),
    ],
)
def test_bad_input_is_one_clear_error(options: dict[str, Any], said: str) -> None:
    with pytest.raises(relprop.errors.RelpropError, match=said) as caught:
        evaluated(linear(), tables(), **options)
    assert str(caught.value).startswith("relprop.evaluate: ")


def test_an_array_is_no_iterable_of_batches() -> None:
    for call in (relprop.evaluate, relprop.search):
        with pytest.raises(InputError, match=r"got ndarray. torch.as_tensor\(inputs\) makes one"):
            call(linear(), tables().numpy(), [0, 1, 0, 1])


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="map of sample 2"):
        evaluated(linear(), tables(), methods=[lambda x, t: torch.where(torch.arange(4)[:, None] == 2, torch.nan, x)])

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2] / x[:, 2:4]

    with pytest.raises(NonFiniteError, match="replaced is NaN"):
        evaluated(Odd(), tables())


def test_targets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(TargetError):
        evaluated(linear(), tables(), 3)
    with pytest.raises(TargetError, match="takes classes"):
        evaluated(linear(), tables(), relprop.Contrast(0, 1), [IntegratedGradients(linear())])
