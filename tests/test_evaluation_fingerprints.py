"""Keys of finished work: what acts differently has another one, and what is the same has the same in any process."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import DeepLift, IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from networks import convolutional, mlp
from relprop.composites import named
from relprop.evaluation import DataMean, Inpainting
from relprop.evaluation.fingerprints import Fingerprints
from test_evaluation import evaluated

BESIDE = 2.0


def scaled(factor: Any) -> Any:
    return lambda inputs, targets: factor * inputs


def box(high: Tensor) -> relprop.Composite:
    return relprop.Composite({relprop.first: relprop.ZBox(torch.zeros_like(high), high)})


def nearly(entry: int) -> Tensor:
    large = torch.ones(3, 60, 60)
    large[1, 30, 30] += entry * 1e-6
    return large


class Scale:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, inputs: Tensor, targets: Any) -> Tensor:
        return self.factor * inputs


MODEL = convolutional()
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "numbers": (1, 1.0),
    "closures": (scaled(1.0), scaled(2.0)),
    "tensors in closures": (scaled(nearly(0)), scaled(nearly(1))),
    "code": (lambda inputs, targets: inputs + 1, lambda inputs, targets: inputs - 1),
    "arguments": (functools.partial(F.relu, inplace=True), functools.partial(F.relu, inplace=False)),
    "objects": (Scale(1.0), Scale(2.0)),
    "large bounds": (box(nearly(0)), box(nearly(1))),
    "bounds of many digits": (box(torch.tensor(1.0)), box(torch.tensor(1.0000001))),
    "predicates": tuple(
        relprop.Composite({relprop.where(lambda place, n=n: place.index == n): relprop.Zero()}) for n in (1, 2)
    ),
    "names of composites": ("zero", "epsilon"),
    "what captum multiplies": (IntegratedGradients(MODEL), IntegratedGradients(MODEL, multiply_by_inputs=False)),
    "what captum wraps": (NoiseTunnel(Saliency(MODEL)), NoiseTunnel(IntegratedGradients(MODEL))),
    "captum's layer": (LayerGradCam(MODEL, MODEL[0]), LayerGradCam(MODEL, MODEL[3])),
    "layers without weights": (LayerGradCam(MODEL, MODEL[1]), LayerGradCam(MODEL, MODEL[4])),
    "other models": (DeepLift(mlp(2, 6)), DeepLift(mlp(2, 6))),
    "data": (DataMean(nearly(0)), DataMean(nearly(1))),
    "inpaintings": (Inpainting(scaled(1.0)), Inpainting(scaled(2.0))),
    "keys": ({"a": 1}, {"b": 1}),
}


@pytest.mark.parametrize("what", list(DIFFERENT))
def test_what_acts_differently_has_another_fingerprint(what: str) -> None:
    one, other = DIFFERENT[what]
    prints = Fingerprints(MODEL)
    assert prints.of(one) != prints.of(other)
    assert prints.of(one) == Fingerprints(MODEL).of(one)


def test_the_same_content_has_the_same_fingerprint() -> None:
    for make in (lambda: box(nearly(1)), lambda: scaled(3.0), lambda: {"b": nearly(0), "a": {1, 2}}, lambda: Scale(1.0),
                 lambda: IntegratedGradients(MODEL), lambda: relprop.composites.gamma_box()):  # fmt: skip
        assert Fingerprints(MODEL).of(make()) == Fingerprints(MODEL).of(make())


def test_what_holds_itself_has_a_fingerprint() -> None:
    ring: list[Any] = [1]
    ring.append(ring)
    other: list[Any] = [2]
    other.append(other)
    prints = Fingerprints(None)
    assert prints.of(ring) == Fingerprints(None).of(ring) != prints.of(other)
    first: dict[str, Any] = {}
    second = {"up": first}
    first["down"] = second
    assert prints.of(first) == Fingerprints(None).of(first)
    assert prints.of([second, first]) != prints.of([first, second])


def test_what_cannot_be_read_is_never_mistaken() -> None:
    one, other = torch.Generator(), torch.Generator()
    assert Fingerprints(None).of(one) != Fingerprints(None).of(other)


def uses_a_global(inputs: Tensor, targets: Any) -> Tensor:
    return BESIDE * inputs


def test_numbers_beside_a_function_count(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Fingerprints(None).of(uses_a_global)
    monkeypatch.setitem(globals(), "BESIDE", 3.0)
    assert Fingerprints(None).of(uses_a_global) != before


def test_models_are_known_by_weights_code_and_attributes() -> None:
    class Powered(nn.Module):
        def __init__(self, power: float, table: float = 1.0) -> None:
            super().__init__()
            self.power = power
            self.register_buffer("table", torch.tensor(table), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x**self.power

    made = [
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh()), Powered(2.0), Powered(3.0),
        Powered(2.0, 4.0), nn.LeakyReLU(0.1), nn.LeakyReLU(0.2), lambda x: x, lambda x: 2 * x,
    ]  # fmt: skip
    made[1][0].load_state_dict(made[0][0].state_dict())
    found = [Fingerprints(model).model for model in made]
    assert len(set(found)) == len(found)
    assert Fingerprints(Powered(2.0)).model == found[2]


APART = """
import torch
from captum.attr import IntegratedGradients
from test_evaluation_fingerprints import Scale, box, nearly, scaled
from relprop.evaluation.fingerprints import Fingerprints
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
prints = Fingerprints(model)
print([prints.model, *map(prints.of, (scaled(nearly(1)), box(nearly(0)), Scale(2.0), IntegratedGradients(model), {"a", "b"}))])
"""


@pytest.mark.slow
def test_fingerprints_are_the_same_in_another_process() -> None:
    answers = {
        subprocess.run([sys.executable, "-c", APART], check=True, capture_output=True, cwd=Path(__file__).parent).stdout
        for _ in range(2)
    }
    assert len(answers) == 1 and answers != {b""}


# --------------------------------------------------------------------------------------------- kept work


class Tempered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, power: float = 1.0) -> Tensor:
        return self.head(x) ** power


@pytest.mark.parametrize(
    ("options", "others"),
    [
        ({"methods": [scaled(1.0)]}, {"methods": [scaled(-1.0)]}),
        (
            {"replace": Inpainting(lambda rows, gone: 0 * rows)},
            {"replace": Inpainting(lambda rows, gone: 3 + 0 * rows)},
        ),
        ({"of": lambda output: output}, {"of": lambda output: 2 * output}),
        ({"forward_kwargs": {"power": 1.0}}, {"forward_kwargs": {"power": 3.0}}),
        ({"targets": lambda output: output[:, 0]}, {"targets": lambda output: output[:, 1]}),
    ],
)
def test_kept_work_is_not_mistaken_for_other_work(
    options: dict[str, Any], others: dict[str, Any], tmp_path: Path
) -> None:
    model, x = Tempered().double().eval(), torch.randn(4, 6, dtype=torch.float64)
    evaluated(model, x, **options, folder=tmp_path)
    kept, fresh = evaluated(model, x, **others, folder=tmp_path), evaluated(model, x, **others)
    assert torch.equal(kept["abpc"], fresh["abpc"])
    assert not torch.equal(kept["abpc"], evaluated(model, x, **options)["abpc"])


def test_a_changed_default_is_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = convolutional(), torch.rand(3, 3, 8, 8)
    options: dict[str, Any] = {"methods": ["auto"], "units": "pixels"}
    before = evaluated(model, x, **options, folder=tmp_path)["abpc"]
    monkeypatch.setattr(named, "gamma_box", lambda: relprop.composites.zero())
    named._automatic.cache_clear()
    try:
        after = evaluated(model, x, **options, folder=tmp_path)["abpc"]
    finally:
        named._automatic.cache_clear()
    wanted = evaluated(model, x, methods=["zero"], units="pixels")["abpc"]
    assert torch.equal(after, wanted) and not torch.equal(after, before)
