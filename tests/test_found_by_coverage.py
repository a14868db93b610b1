"""Faults that the catalogue of architectures brought to light, each as small as it gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
from helpers import close


def total(y: Tensor) -> Tensor:
    weight = torch.linspace(-1, 2, y[0].numel(), dtype=y.dtype).reshape(y.shape[1:])
    return (y * weight).flatten(1).sum(1)


def test_items_written_by_index() -> None:
    """`y[rows, columns] = x` into a fresh tensor, as Longformer collects its global keys."""
    rows, columns = torch.tensor([0, 0, 1, 1]), torch.tensor([2, 0, 1, 2])

    def written(x: Tensor) -> Tensor:
        y = x.new_zeros(2, 3)
        y[rows, columns] = x[rows, columns]
        return torch.einsum("ij,ij->i", x, y)

    x = torch.randn(2, 3).double()
    mask = torch.zeros(2, 3).double()
    mask[rows, columns] = 1
    close(relprop.attribute(written, x).values, x * x * mask)


@pytest.mark.parametrize("composite", ["auto", "epsilon", "gamma_flat"])
def test_writing_into_what_a_layer_returned(composite: str) -> None:
    """Of operands whose layout does not suit it, torch's linear map makes a view; what is written into it is followed."""
    layer = nn.Linear(3, 3).double().eval()

    def model(x: Tensor, inplace: bool) -> Tensor:
        first = x.new_zeros(1, len(x), 3)
        first[0] = x[:, 0]
        y = layer(first)
        if inplace:
            y /= 2.0
        else:
            y = y / 2.0
        return y.transpose(0, 1)

    x = torch.randn(2, 4, 3).double()
    there, beside = (
        relprop.attribute(lambda x, i=i: model(x, i), x, total, composite=composite).values for i in (True, False)
    )
    close(there, beside)


def test_standardised_weights() -> None:
    """A batch norm of a weight, as in normaliser-free networks, does not concern the batch."""
    weight = torch.randn(4, 3, 2, 2).double()

    def standard() -> Tensor:
        return F.batch_norm(weight.reshape(1, 4, -1), None, None, training=True, momentum=0.0).reshape_as(weight)

    x = torch.randn(2, 3, 5, 5).double()
    with torch.no_grad():
        fixed = standard()
    found = relprop.attribute(lambda x: F.conv2d(x, standard()), x, total, composite="gamma_flat")
    close(found.values, relprop.attribute(lambda x: F.conv2d(x, fixed), x, total, composite="gamma_flat").values)


def test_a_norm_whose_gradient_comes_transposed() -> None:
    """Torch's own gradient is wrong here for a batch of one: a sample alone is the sample in a batch."""
    norm = nn.BatchNorm2d(8).double().eval()
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.weight.data = torch.rand(8).double() + 0.5
    model = lambda x: norm(x).reshape(-1, 8, 9).transpose(-1, -2)  # noqa: E731
    x = torch.randn(2, 8, 3, 3).double()
    together = relprop.attribute(model, x, total, composite="zero").values
    for n in range(2):
        close(relprop.attribute(model, x[n : n + 1], total, composite="zero").values[0], together[n])


@pytest.mark.parametrize("composite", ["epsilon", "gamma_flat", "epsilon_plus"])
def test_a_constant_repeated_per_sample(composite: str) -> None:
    """A class token is expanded to the batch: to what it is added, it is the same for one sample as for two."""
    layer = nn.Linear(3, 5).double().eval()
    token = torch.randn(1, 1, 5).double()
    model = lambda x: token.expand(len(x), -1, -1) + layer(x)  # noqa: E731
    x = torch.randn(2, 1, 3).double()
    together = relprop.attribute(model, x, total, composite=composite).values
    for n in range(2):
        close(relprop.attribute(model, x[n : n + 1], total, composite=composite).values[0], together[n])


def written_in(gate: Tensor) -> Tensor:
    gate = gate + 0
    gate /= gate.sum(1, keepdim=True) + 1e-20
    return gate


@pytest.mark.parametrize(
    "move",
    [
        lambda g: g.view(2, 2, 3).flatten(1),
        lambda g: g[:, torch.tensor([3, 1, 2, 0, 5, 4])],
        lambda g: g.gather(1, torch.arange(6).flip(0).expand(2, 6)),
        lambda g: g.expand_as(torch.ones(2, 6)),
        lambda g: g.double().contiguous().to(g.dtype),
        lambda g: g * 2.5,
        lambda g: g / g.sum(1, keepdim=True) * 2.5,
        lambda g: g.flip(1).mul(2.5).unsqueeze(0)[0],
        written_in,
    ],
)
def test_a_gate_that_is_moved_is_a_gate(move: Callable[[Tensor], Tensor]) -> None:
    """Viewed, gathered, cast, normalised: the share of a gate does not depend on what was done to it on the way."""
    weight = torch.randn(6, 6).double()
    x = torch.randn(2, 6).double()
    found = relprop.attribute(lambda x: x * move(torch.sigmoid(x @ weight)), x, total, composite="cp_lrp")
    close(found.residual, torch.zeros(2).double())
    close(found.values, x * move(torch.sigmoid(x @ weight)) * torch.linspace(-1, 2, 6, dtype=torch.float64))


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this torch has no grouped matrix product")
def test_a_bias_after_grouped_experts() -> None:
    """A shift per channel after a grouped product cannot merge with it: each expert would need its own."""
    weight, bias = torch.randn(2, 8, 8), torch.randn(8)
    offsets = torch.tensor([1, 2], dtype=torch.int32)
    x = torch.randn(2, 8)
    found = relprop.attribute(lambda x: F.grouped_mm(x, weight, offs=offsets) + bias, x, total, composite="attnlrp")
    expected = torch.einsum("ri,rij,j->ri", x, weight, torch.linspace(-1, 2, 8))
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=1e-5)


def test_positions_counted_from_a_mask() -> None:
    """Positions are the model's own, also where it counts them by a mask that is an input."""
    table, positions = torch.randn(9, 3).double(), torch.randn(5, 3).double()

    def model(ids: Tensor, mask: Tensor) -> Tensor:
        return F.embedding(ids, table) + F.embedding(mask.cumsum(1), positions)

    ids = torch.tensor([[3, 8, 1], [5, 5, 2]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    found = relprop.attribute(model, (ids, mask), total, composite="attnlrp").values
    weight = torch.linspace(-1, 2, 9, dtype=torch.float64).reshape(3, 3)
    close(found[0], (table[ids] * weight).sum(2))
    assert found[1].abs().sum() == 0


def test_auto_and_the_scan_that_it_finds() -> None:
    """What `auto` finds out on the way holds for all that follows: Mamba-2 by name and by `auto` are one map."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Mamba2Config(
        vocab_size=50, hidden_size=24, num_hidden_layers=2, state_size=4, num_heads=6, head_dim=8, n_groups=2, chunk_size=4
    )  # fmt: skip
    model = transformers.Mamba2ForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    ids = torch.tensor([[5, 17, 3, 42, 8, 23, 31]])
    found = relprop.attribute(model, ids, (-1, 7))
    assert found.composite.name == "mamba_lrp"
    named = relprop.attribute(model, ids, (-1, 7), composite="mamba_lrp").values
    torch.testing.assert_close(found.values, named, rtol=1e-4, atol=1e-5)
