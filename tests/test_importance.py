"""Importance over a data set: sums of single explanations, and masks that torch's own pruning takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import relprop
from relprop.errors import InputError


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Embedding(12, 8), nn.MultiheadAttention(8, 4, batch_first=True)
        self.mlp, self.head = nn.Sequential(nn.Linear(8, 10), nn.GELU(), nn.Linear(10, 8)), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head((h + self.mlp(h)).mean(1))


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(32, 5), nn.ReLU(), nn.Linear(5, 3),
    )  # fmt: skip
    made[1].running_mean.normal_()
    made[1].bias.data.normal_()
    return made.double().eval()


@pytest.fixture
def data() -> list[tuple[Tensor, int]]:
    torch.manual_seed(1)
    return [(torch.randn(2, 6, 6, dtype=torch.float64), n % 3) for n in range(11)]


def pruned(model: nn.Module, masks: dict[str, Tensor]) -> nn.Module:
    for name, mask in masks.items():
        path, _, parameter = name.rpartition(".")
        prune.custom_from_mask(model.get_submodule(path), parameter, mask)
    return model


@pytest.mark.parametrize("reduce", ["sum", "size"])
def test_channels_and_neurons_are_sums(net: nn.Sequential, data: Any, reduce: str) -> None:
    for of, paths, axes in (("channels", ["0", "3"], (2, 3)), ("neurons", ["6"], ())):
        made = relprop.importance(net, data, of=of, reduce=reduce, batch_size=4, composite="epsilon")
        assert list(made.scores) == paths and made.samples == 11  # the last layer's outputs are classes
        for path in paths:
            total = 0
            for x, label in data:
                one = relprop.attribute(net, x[None], label, layers=[path], composite="epsilon").layers[path]
                one = one.sum(axes)[0] if axes else one[0]
                total = total + (one.abs() if reduce == "size" else one)
            torch.testing.assert_close(made.scores[path], total, rtol=1e-12, atol=1e-12)
        whole = relprop.importance(net, data, of=of, reduce=reduce, batch_size=11, composite="epsilon")
        torch.testing.assert_close(whole.scores[paths[0]], made.scores[paths[0]], rtol=1e-12, atol=1e-12)
    part = relprop.importance(net, data, rows=(2, 5), composite="epsilon")
    assert part.samples == 3 and repr(part).startswith("Importance of 14 channels over 3 samples; epsilon")


def test_weights_are_sums(net: nn.Sequential, data: Any) -> None:
    made = relprop.importance(net, data, of="weights", batch_size=5, composite="epsilon", reduce="sum")
    total: dict[str, Any] = {}
    for x, label in data:
        for name, of in relprop.attribute(net, x[None], label, composite="epsilon", weights=True).weights.items():
            total[name] = total.get(name, 0) + of
    assert made.scores.keys() == total.keys() >= {"0.weight", "3.weight", "8.weight"}
    for name, of in total.items():
        torch.testing.assert_close(made.scores[name], of, rtol=1e-12, atol=1e-12)
    masks = made.mask(0.5)
    assert sum(int((m == 0).sum()) for m in masks.values()) == int(0.5 * sum(m.numel() for m in masks.values()))
    best = made.ranking(1)[0]
    assert (
        float(made.scores[best.layer][best.unit])
        == best.importance
        == max(float(s.max()) for s in made.scores.values())
    )
    some = relprop.importance(net, data, of="weights", layers=["3"], composite="epsilon")
    assert list(some.scores) == ["3.weight"]
    pruned(net, masks)
    assert torch.equal(net[3].weight, net[3].weight_orig * masks["3.weight"])


def test_a_pruned_channel_is_gone(net: nn.Sequential, data: Any) -> None:
    made = relprop.importance(net, data, composite="epsilon")
    masks = made.mask(0.4)
    assert set(masks) == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}
    gone = [unit for unit in made.ranking() if float(masks[f"{unit.layer}.bias"][unit.unit]) == 0]
    assert len(gone) == int(0.4 * 14) and max(g.importance for g in gone) <= min(
        u.importance for u in made.ranking() if u not in gone and u.importance < max(made.scores[u.layer].tolist())
    )
    pruned(net, masks)
    x = torch.stack([x for x, _ in data])
    after = {"0": net[:2](x), "3": net[:4](x)}
    for unit in gone:
        assert not after[unit.layer][:, unit.unit].any()


def test_heads(data: Any) -> None:
    torch.manual_seed(2)
    net = Attending().double().eval()
    texts = [(torch.randint(12, (5,)), n % 3) for n in range(6)]
    made = relprop.importance(net, texts, of="heads", composite="attnlrp", reduce="sum")
    total = sum(
        relprop.attribute(net, x[None], c, layers=["attention.heads"], composite="attnlrp")
        .layers["attention.heads"]
        .sum((0, 2, 3))
        for x, c in texts
    )
    torch.testing.assert_close(made.scores["attention.heads"], total, rtol=1e-12, atol=1e-12)
    ((name, mask),) = made.mask(0.25).items()
    worst = int(total.argmin())
    assert name == "attention.out_proj.weight" and mask.shape == (8, 8)
    assert not mask[:, 2 * worst : 2 * worst + 2].any() and int(mask.sum()) == 48
    neurons = relprop.importance(net, texts, of="neurons", layers="mlp.0")
    assert neurons.scores["mlp.0"].shape == (10,)


def test_masks_leave_a_unit_in_each_layer(net: nn.Sequential, data: Any) -> None:
    made = relprop.importance(net, data)
    masks = made.mask(0.99)
    assert float(masks["0.bias"].sum()) == float(masks["3.bias"].sum()) == 1
    each = made.mask(0.5, each_layer=True)
    assert float(each["0.bias"].sum()) == 3 and float(each["3.bias"].sum()) == 4
    assert all(bool(mask.all()) for mask in made.mask(0).values())


def test_transposed_convolutions() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.ConvTranspose1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)).eval()
    made = relprop.importance(net, [(torch.randn(2, 6), 0), (torch.randn(2, 6), 1)])
    masks = made.mask(0.5)
    pruned(net, masks)
    out = net[0](torch.randn(1, 2, 6))
    assert [bool(out[0, c].any()) for c in range(4)] == [bool(b) for b in masks["0.bias"]]
    assert int(masks["0.bias"].sum()) == 2


def test_useless_channels_go_first() -> None:
    """A network in which half of the channels hold nothing that the classes need."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()
    useless = [1, 2, 5, 6]
    net[4].weight.data[:, useless] *= 0.01
    data = [torch.randn(1, 8, 8) for _ in range(8)]
    masks = relprop.importance(net, data, reduce="size").mask(0.5)
    assert (masks["0.bias"] == 0).nonzero()[:, 0].tolist() == useless


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"of": "filters"}, "of must be 'channels'"),
        ({"reduce": "mean"}, "reduce must be 'sum' or 'size'"),
        ({"batch_size": 0}, "batch_size must be a positive int"),
        ({"layers": "6"}, "'6' has no channels: it is a Linear"),
        ({"layers": "nothing"}, "is not part of the model"),
        ({"of": "heads"}, "no attention ran"),
        ({"rows": (3, 3)}, "rows must be two numbers"),
    ],
)
def test_errors(net: nn.Sequential, data: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        relprop.importance(net, data, **options)


def test_errors_of_models_and_masks(net: nn.Sequential, data: Any) -> None:
    made = relprop.importance(net, data)
    for wrong in (1, -0.1, True, "half"):
        with pytest.raises(InputError, match="share must be a number from 0 to below 1"):
            made.mask(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="most must be a positive int"):
        made.ranking(0)
    with pytest.raises(InputError, match="the model has no channels"):
        relprop.importance(nn.Sequential(nn.Linear(3, 2)).eval(), [torch.randn(3)])
    with pytest.raises(InputError, match="the only layer with neurons is the last one"):
        relprop.importance(nn.Sequential(nn.Linear(3, 2)).eval(), [torch.randn(3)], of="neurons")
    with pytest.raises(InputError, match=r"needs a torch\.nn\.Module"):
        relprop.importance(lambda x: x, [torch.randn(3)])  # type: ignore[arg-type]
