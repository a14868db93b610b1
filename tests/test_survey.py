"""What `survey` says of a network is what happens when it is explained."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

import relprop
from networks import ResNet
from relprop.errors import CompositeError, InputError, ModelStateError


@pytest.mark.parametrize("composite", ["auto", "epsilon_plus_flat", "zero", "gradient"])
def test_it_names_the_rules_that_act(composite: str) -> None:
    model = ResNet().eval()
    x = torch.randn(1, 3, 16, 16)
    found = relprop.survey(model, x, composite)
    R = relprop.attribute(model, x, 0, composite=composite)

    def acting(places: list) -> Counter:
        """What happened inside the model; reading off the target is an operation, too."""
        return Counter((p.name, p.paths, repr(rule)) for p, rule in places if rule is not None and p.paths)

    assert found.composite == R.composite
    assert acting(found.places) == acting(R.rules)
    assert not found.unknown and found.shape == tuple(R.output.shape)


def test_first_and_last_are_known() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    composite = relprop.Composite(
        {relprop.first: relprop.Flat(), relprop.last: relprop.Zero(), "linear": relprop.ZPlus()}
    )
    rows = relprop.survey(model, torch.randn(1, 3), composite).rows()
    assert rows == [
        ("linear", "linear", "Flat()", 1, "0"),
        ("relu", "activation", "default", 2, "1 ... 3"),
        ("linear", "linear", "ZPlus()", 1, "2"),
        ("linear", "linear", "Zero()", 1, "4"),
    ]


def test_a_norm_that_acts_with_its_convolution_is_merged() -> None:
    """As an operation of its own it would need a rule; so would one that stands before its convolution."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.BatchNorm2d(2)).eval()
    x = torch.randn(1, 1, 6, 6)
    assert [row[2:] for row in relprop.survey(model, x, "epsilon").rows() if row[0] == "batch_norm"] == [
        ("merged", 1, "1"),
        ("default", 1, "3"),
    ]
    R = relprop.attribute(model, x, lambda y: y.sum((1, 2, 3)), composite="epsilon")
    lines = [line.split() for line in R.table().splitlines() if line.startswith("batch_norm")]
    assert [line[-1] for line in lines] == ["merged", "default"]
    own = relprop.survey(model, x, relprop.Composite({"batch_norm": relprop.Epsilon()}))
    assert all("Epsilon" in row[2] for row in own.rows() if row[0] == "batch_norm")


def test_a_norm_written_by_hand_is_merged_too() -> None:
    conv, shift = nn.Conv1d(1, 2, 3), nn.Parameter(torch.randn(2, 1))
    found = relprop.survey(lambda x: conv(x) + shift, torch.randn(1, 1, 6), "epsilon")
    assert [row[:3] for row in found.rows()][1:] == [("add", "sum", "merged")]


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4), nn.Embedding(5, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head((self.words(ids) + self.places(torch.arange(ids.shape[1]))).mean(1))


def test_lookups_of_ids_are_listed_first() -> None:
    """Those of positions are constants: no id of the input names their rows."""
    found = relprop.survey(Reader().eval(), torch.tensor([[1, 2, 3]]))
    assert found.rows()[0] == ("embedding", "lookup", "its ids receive the relevance", 1, "words")
    assert sum(row[1] == "lookup" for row in found.rows()) == 1
    bag = nn.EmbeddingBag(5, 3, mode="sum")
    assert relprop.survey(bag, torch.tensor([[1, 2]])).lookups == [("embedding_bag", "")]
    table = torch.randn(5, 3)
    assert relprop.survey(lambda ids: table[ids].sum(1), torch.tensor([[1, 2]])).lookups == [("getitem", "")]


class Odd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x) if hasattr(self, "never") else torch.linalg.matrix_exp(x)


def test_unknown_operations_are_listed_not_raised() -> None:
    model = nn.Sequential(Odd(), Odd(), nn.Flatten())
    found = relprop.survey(model, torch.randn(1, 3, 3))
    assert [(each.operation, each.where, each.shapes) for each in found.unknown] == [
        ("linalg_matrix_exp", "module '0'", "(1, 3, 3)"),
        ("linalg_matrix_exp", "module '1'", "(1, 3, 3)"),
    ]
    assert "unknown: linalg_matrix_exp in module '0'" in str(found)


def test_what_needs_no_rule_is_counted() -> None:
    found = relprop.survey(lambda x: x.reshape(1, -1).flip(1), torch.randn(1, 2, 2))
    assert found.free == {("reshape", "structure"): 1, ("flip", "structure"): 1}


def test_the_table_is_text() -> None:
    text = str(relprop.survey(nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU()), torch.randn(1, 1, 8)))
    assert text.splitlines()[0] == "composite 'gamma'"
    assert text.splitlines()[1].split() == ["operation", "family", "rule", "calls", "modules"]


def test_bad_input_is_answered() -> None:
    with pytest.raises(InputError, match="module or a callable"):
        relprop.survey(3, torch.ones(1))
    with pytest.raises(InputError, match="NaN"):
        relprop.survey(nn.ReLU(), torch.full((1,), torch.nan))
    with pytest.raises(CompositeError, match="no composite"):
        relprop.survey(nn.ReLU(), torch.ones(1), "nothing")
    with pytest.raises(ModelStateError, match="training mode"):
        relprop.survey(nn.Sequential(nn.BatchNorm1d(3)).train(), torch.randn(2, 3))


def test_several_inputs_and_arguments() -> None:
    found = relprop.survey(
        lambda a, b, scale: (a * b).sum() * scale, (torch.ones(2), torch.ones(2)), forward_kwargs={"scale": 2.0}
    )
    assert [place.family for place, _ in found.places][:2] == ["product", "sum"]


def test_the_model_is_left_as_it_was() -> None:
    model = ResNet().eval()
    before = {name: (id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()}
    relprop.survey(model, torch.randn(1, 3, 16, 16))
    assert {name: (id(p), p.requires_grad, p.grad) for name, p in model.named_parameters()} == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_it_shows_its_table_and_not_its_parts() -> None:
    found = relprop.survey(nn.Sequential(nn.Linear(3, 2)), torch.randn(1, 3))
    assert repr(found) == str(found) and repr(found).startswith("composite 'epsilon'")


def test_the_output_of_a_model_that_answers_with_names() -> None:
    class Named(nn.Linear):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"logits": super().forward(x)}

    assert relprop.survey(Named(3, 2), torch.randn(1, 3)).shape == (1, 2)
