"""A rule that reads each sample as a whole: its samples may lie along any axis of a layer, folded or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-12)
D = torch.float64
N, T, C = 4, 6, 5
RELATIVE = relprop.Epsilon(0.3, relative=True)
RULES = {
    "relative": relprop.Composite({"linear": RELATIVE}),
    "relative, without biases": relprop.Composite({"linear": relprop.ZeroBias(RELATIVE)}),
    "auto": "auto",
}


def network(layout: Callable[[nn.Linear, Tensor], Tensor]) -> nn.Module:
    """Linear, relu, mean over time, linear, for x (N, T, C); `layout` applies the first layer in a layout of its own."""
    torch.manual_seed(1)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(C, 4, dtype=D), nn.Linear(4, 3, dtype=D)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(layout(self.layer, x)).mean(1))

    return Network().eval()


LAYOUTS: dict[str, Callable[[nn.Linear, Tensor], Tensor]] = {
    "samples first": lambda layer, x: layer(x),
    "time first": lambda layer, x: layer(x.transpose(0, 1)).transpose(0, 1),
    "time first, permuted": lambda layer, x: layer(x.permute(1, 0, 2)).permute(1, 0, 2),
    "samples last": lambda layer, x: (layer.weight @ x.movedim(0, -1)).movedim(-1, 0) + layer.bias,
    "folded, samples first": lambda layer, x: layer(x.flatten(0, 1)).unflatten(0, (-1, T)),
    "folded, time first": lambda layer, x: layer(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (T, -1)).transpose(0, 1),
    "turned by hand": lambda layer, x: torch.stack([layer(x[:, t]) for t in range(T)], 1)[:, list(range(T))],
}
EQUAL = [name for name in LAYOUTS if name not in ("samples last", "turned by hand")]
"""The layouts in which one layer sees all of a sample, with its bias."""


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_sample_alone_is_a_sample_among_others(name: str, rule: str) -> None:
    model, x = network(LAYOUTS[name]), torch.randn(N, T, C, dtype=D)
    R = relprop.attribute(model, x, 1, composite=RULES[rule])
    each = [relprop.attribute(model, one[None], 1, composite=RULES[rule]) for one in x]
    close(R.values, torch.cat([one.values for one in each]))
    close(R.residual, torch.cat([one.residual for one in each]))
    assert torch.equal(R.output, model(x).detach())  # of all samples together, to the last bit
    assert not R.notices


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", EQUAL)
def test_one_layer_has_one_map_in_every_layout(name: str, rule: str) -> None:
    x = torch.randn(N, T, C, dtype=D)
    maps = [relprop.attribute(network(LAYOUTS[n]), x, 1, composite=RULES[rule]) for n in ("samples first", name)]
    close(maps[0].values, maps[1].values)


def test_several_targets_and_a_ledger_come_along() -> None:
    model, x = network(LAYOUTS["time first"]), torch.randn(N, T, C, dtype=D)
    options: dict[str, Any] = {"composite": RULES["relative"], "ledger": True, "layers": "layer"}
    found = relprop.attribute_each(model, x, [0, torch.tensor([0, 1, 2, 0])], **options)
    for target, R in zip((0, [0, 1, 2, 0]), found, strict=True):
        alone = [
            relprop.attribute(model, x[n : n + 1], target if isinstance(target, int) else target[n], **options)
            for n in range(N)
        ]
        close(R.values, torch.cat([one.values for one in alone]))
        close(sum(R.ledger.values(), torch.zeros(N, dtype=D)), R.residual)


@pytest.mark.parametrize(
    "why",
    ["forward_args or forward_kwargs hold a tensor with a row for each sample", "the model raises for one sample"],
)
def test_what_cannot_be_taken_apart_is_said(why: str) -> None:
    inner, x = network(LAYOUTS["time first"]), torch.randn(N, T, C, dtype=D)

    def masked(x: Tensor, mask: Tensor) -> Tensor:
        return inner(x * mask[:, None, None])

    def fixed(x: Tensor) -> Tensor:
        return inner(x.reshape(N, T, C))

    model, kwargs = (masked, {"mask": torch.ones(N, dtype=D)}) if "kwargs" in why else (fixed, {})
    with pytest.warns(relprop.errors.RelpropWarning, match="along which axis"):
        R = relprop.attribute(model, x, 1, composite=RULES["relative"], forward_kwargs=kwargs)
    (said,) = R.notices
    assert why in said and "in a call of its own" in said
    absolute = relprop.attribute(model, x, 1, composite="epsilon", forward_kwargs=kwargs)  # as advised
    assert not absolute.notices


def test_rows_that_exchange_relevance_are_not_taken_apart() -> None:
    layer, x = nn.Linear(C, 3, dtype=D), torch.randn(N, C, dtype=D)
    neighbours = torch.rand(N, N, dtype=D)
    R = relprop.attribute(lambda x: layer(neighbours @ x), x, 1, composite=RULES["relative"])
    assert "not independent samples" in R.notices[0]


def test_one_sample_with_experts_of_its_own_does_not_speak_for_the_others() -> None:
    """Its map is the same alone and among others; those that share an expert must not get the deviation of single tokens."""
    first, second, third = (nn.Linear(C, 4, dtype=D) for _ in range(3))
    head = nn.Linear(4, 3, dtype=D)

    def model(x: Tensor) -> Tensor:
        found = x.new_zeros(*x.shape[:2], 4)
        choice = x[..., 0].detach().round()
        for n, expert in enumerate((first, second, third)):
            found[choice == n] = expert(x[choice == n])
        return head(torch.relu(found).mean(1))

    x = torch.randn(3, 2, C, dtype=D)
    x[..., 0] = torch.tensor([[0.0, 1.0], [2.0, 2.0], [2.0, 2.0]])
    R = relprop.attribute(model, x, 1, composite=RULES["relative"])
    close(
        R.values, torch.cat([relprop.attribute(model, one[None], 1, composite=RULES["relative"]).values for one in x])
    )


def test_targets_with_and_without_the_final_softmax_come_along() -> None:
    inner, x = network(LAYOUTS["time first"]), torch.randn(N, T, C, dtype=D)

    def model(x: Tensor) -> Tensor:
        return inner(x).softmax(-1)

    targets = [relprop.Logit(1), 2, relprop.Logit(0)]
    found = relprop.attribute_each(model, x, targets, composite=RULES["relative"])
    assert len(found) == 3
    for target, R in zip(targets, found, strict=True):
        alone = [relprop.attribute(model, one[None], target, composite=RULES["relative"]).values for one in x]
        close(R.values, torch.cat(alone))
