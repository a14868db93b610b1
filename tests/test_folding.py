"""A bias, a scale or a BatchNorm belongs to the layer before it, also where a view lies between them.

The whole is one affine map; each rule is compared with its definition on that map.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference as ref
import relprop
from helpers import weighed_by

close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-10)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def normed(channels: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(channels).double().eval()
    norm.running_mean, norm.running_var = drawn(channels), drawn(channels).square() + 0.5
    norm.weight, norm.bias = nn.Parameter(drawn(channels)), nn.Parameter(drawn(channels))
    return norm


W2, W1, W = drawn(3, 2, 2, 2), drawn(3, 2, 2), drawn(3, 4)
BIAS, NORM = drawn(3), normed(3)
ROW = nn.Parameter(BIAS.clone())


def of_two(h: Tensor) -> Tensor:
    """A BatchNorm of two channels, whatever axes lie behind them."""
    norm = normed(2)
    return F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def written_into(x: Tensor) -> Tensor:
    h = F.conv2d(x, W2).flatten(2)
    h += BIAS[:, None]
    return h


def in_parts(h: Tensor, write: Callable[[Tensor, Any, Tensor], Any]) -> Tensor:
    y = torch.empty_like(h)
    for at in ((slice(None), slice(1, None)), (slice(None), slice(0, 1))):
        write(y, at, h[at])
    return y


def steps_written(x: Tensor) -> Tensor:
    h = F.linear(x, W)
    y = h.new_zeros(len(h), 3, 5)
    for n in range(5):
        y[..., n] = h[:, n]
    return y + BIAS[:, None]


FOLDED: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "flattened": (lambda x: NORM(F.conv2d(x, W2).flatten(2)), (2, 2, 3, 4)),
    "a view": (lambda x: NORM(F.conv2d(x, W2).view(len(x), 3, -1)), (2, 2, 3, 4)),
    "squeezed": (lambda x: F.conv2d(x.unsqueeze(2), W1.unsqueeze(2)).squeeze(2) + BIAS[:, None], (2, 2, 3)),
    "squeezed, and a norm": (lambda x: NORM(F.conv2d(x.unsqueeze(2), W1.unsqueeze(2)).squeeze(2)), (2, 2, 3)),
    "features turned to channels": (lambda x: NORM(F.linear(x, W).transpose(1, 2)).transpose(1, 2), (2, 5, 4)),
    "channels turned to features": (lambda x: F.conv1d(x, W1).transpose(1, 2) * BIAS + BIAS, (2, 2, 4)),
    "tokens of an image": (lambda x: F.conv2d(x, W2).flatten(2).mT + BIAS, (2, 2, 3, 4)),
    "rows as samples": (lambda x: NORM(F.linear(x, W).flatten(0, 1)).unflatten(0, (len(x), -1)), (2, 5, 4)),
    "heads, flattened": (lambda x: normed(2)(torch.einsum("ntf,hfd->nhtd", x, drawn(2, 4, 3)).flatten(2)), (2, 5, 4)),
    "heads, turned": (
        lambda x: (
            (torch.einsum("ntf,hfd->nhtd", x, drawn(2, 4, 3)) + drawn(2, 1, 3)).transpose(1, 2) * drawn(2, 1) + BIAS
        ),
        (2, 5, 4),
    ),
    "heads, joined": (lambda x: (x[:, None] @ drawn(2, 4, 3)).transpose(1, 2) + drawn(2, 3), (2, 5, 4)),
    "one channel, squeezed": (lambda x: normed(1)(F.conv2d(x.unsqueeze(2), W1[:1].unsqueeze(2)).squeeze(2)), (2, 2, 3)),
    "one channel and a number": (lambda x: F.conv1d(x, W1[:1]) * BIAS[1:2] + BIAS[:1], (2, 2, 3)),
    "one channel and a number, squeezed": (
        lambda x: F.conv2d(x.unsqueeze(2), W1[:1].unsqueeze(2)).squeeze(2) * BIAS[1:2] + BIAS[:1],
        (2, 2, 3),
    ),
    "one channel, flattened": (lambda x: normed(1)(F.conv2d(x, W2[:1]).flatten(2)), (2, 2, 3, 4)),
    "one channel and one entry": (lambda x: normed(1)(F.conv2d(x, W2[:1]).flatten(2)), (2, 2, 2, 2)),
    "one feature, and a norm": (lambda x: normed(1)(F.linear(x, W[:1])), (2, 1, 4)),
    "one feature of one step, and a norm": (lambda x: normed(1)(F.linear(x, W[:1])[:, :1]), (2, 1, 4)),
    "one product, and a norm": (lambda x: normed(1)(torch.einsum("ntf,cf->ntc", x, W[:1])), (2, 1, 4)),
    "scaled, and a norm": (lambda x: NORM(F.conv1d(x, W1) * BIAS[:, None]), (2, 2, 4)),
    "scaled behind a view, and a norm": (lambda x: NORM(F.conv2d(x, W2).flatten(2) * BIAS[:, None]), (2, 2, 3, 4)),
    "heads, scaled, and a norm": (lambda x: of_two(torch.einsum("ntf,hfd->nhtd", x, drawn(2, 4, 3)) * BIAS), (2, 5, 4)),
    "heads, a bias of each, and a norm": (
        lambda x: of_two(torch.einsum("ntf,hfd->nhtd", x, drawn(2, 4, 3)) * -0.25 + drawn(2, 1, 1)),
        (2, 5, 4),
    ),
    "a norm, a scale and a bias": (lambda x: NORM(F.conv1d(x, W1)) * BIAS[:, None] + BIAS[:, None], (2, 2, 4)),
    "a norm of a norm": (lambda x: NORM(NORM(F.conv2d(x, W2).flatten(2))), (2, 2, 3, 4)),
    "scaled and shifted twice": (lambda x: (F.linear(x, W) * BIAS + BIAS) * (BIAS + 2) - BIAS, (2, 4)),
    "scaled, then copied": (lambda x: (F.linear(x, W) * BIAS).clone() + BIAS, (2, 4)),
    "scaled, then seen": (lambda x: (F.linear(x, W) * BIAS).unsqueeze(1) + BIAS, (2, 4)),
    "seen twice": (lambda x: (F.linear(x, W).unsqueeze(1) * BIAS).squeeze(1) + BIAS, (2, 4)),
    "written into the view": (written_into, (2, 2, 3, 4)),
    "flipped twice": (lambda x: F.linear(x, W).flip(-1).flip(-1) + BIAS, (2, 5, 4)),
    "rolled there and back": (lambda x: NORM(F.conv1d(x, W1).roll(1, 1).roll(-1, 1)), (2, 2, 4)),
    "picked in order": (lambda x: F.linear(x, W)[..., [2, 0, 1]][..., [1, 2, 0]] * BIAS + BIAS, (2, 5, 4)),
    "flipped, then turned": (lambda x: F.linear(x, W).flip(1).flip(1).mT + BIAS[:, None], (2, 5, 4)),
    "cut and stacked": (lambda x: torch.stack(F.conv1d(x, W1).unbind(1), 2) * BIAS + BIAS, (2, 2, 4)),
    "cut and joined": (lambda x: torch.cat(F.linear(x, W).split(2, 1), 1) * BIAS + BIAS, (2, 5, 4)),
    "joined in another order": (lambda x: NORM(torch.cat(F.conv1d(x, W1).tensor_split(2, 2)[::-1], 2)), (2, 2, 4)),
    "joined with nothing": (lambda x: (lambda h: NORM(torch.cat([h, h[:, :0]], 1)))(F.conv1d(x, W1)), (2, 2, 4)),
    "parts joined with nothing": (
        lambda x: (lambda h: NORM(torch.cat([h[:, 1:1], h[:, :3]], 1).flip(2)))(F.conv1d(x, W1)),
        (2, 2, 4),
    ),
    "columns": (lambda x: torch.hstack([h[:, None] for h in F.linear(x, W).unbind(1)]) + BIAS, (2, 5, 4)),
    "cut after a scale": (lambda x: torch.cat((F.linear(x, W) * BIAS).chunk(2, 1), 1) + BIAS, (2, 5, 4)),
    "flipped over steps": (lambda x: F.linear(x, W).flip(1) * BIAS + BIAS, (2, 5, 4)),
    "rolled over steps": (lambda x: NORM(F.conv1d(x, W1).roll(1, 2)), (2, 2, 4)),
    "steps picked": (lambda x: F.linear(x, W)[:, [3, 1, 4, 0, 2]] + BIAS, (2, 5, 4)),
    "a quarter turn": (lambda x: torch.rot90(F.conv2d(x, W2), 1, (2, 3)) + BIAS[:, None, None], (2, 2, 3, 4)),
    "written part by part": (lambda x: NORM(in_parts(F.conv1d(x, W1), torch.Tensor.__setitem__)), (2, 2, 4)),
    "copied part by part": (
        lambda x: in_parts(F.linear(x, W), lambda y, at, part: y[at].copy_(part)) * BIAS + BIAS,
        (2, 5, 4),
    ),
    "written step by step": (steps_written, (2, 5, 4)),
    "plus nothing": (lambda x: NORM(0 + F.conv1d(x, W1) + 0), (2, 2, 4)),
    "minus nothing": (lambda x: (F.linear(x, W) - 0.0).sub(0) * BIAS + BIAS, (2, 5, 4)),
    "nothing minus it": (lambda x: (0 - F.linear(x, W)) + BIAS, (2, 5, 4)),
    "nothing minus it, reversed": (lambda x: NORM(torch.rsub(F.conv1d(x, W1), 0)), (2, 2, 4)),
    "nothing and twice it": (lambda x: torch.add(0, F.linear(x, W), alpha=2) + BIAS, (2, 5, 4)),
    "nothing added in place": (lambda x: F.linear(x, W).add_(0).mul_(BIAS).add_(BIAS), (2, 5, 4)),
    "turned in place": (lambda x: F.linear(x, W).neg_() + BIAS, (2, 5, 4)),
    "turned in place, and a norm": (lambda x: NORM(F.conv2d(x, W2).neg_().flatten(2)), (2, 2, 3, 4)),
    "turned in place behind a view": (lambda x: F.linear(x, W).flatten(1).neg_().add_(BIAS), (2, 4)),
    "scaled and turned in place": (lambda x: F.linear(x, W).mul_(BIAS).neg_().deg2rad_() + BIAS, (2, 5, 4)),
    "a sum of one": (lambda x: sum([F.linear(x, W)]) + BIAS, (2, 5, 4)),
    "a row as wide": (lambda x: (lambda h: h * ROW.expand_as(h) + ROW.type_as(h))(F.linear(x, W)), (2, 5, 4)),
    "a row as wide, one sample": (lambda x: (lambda h: h * ROW.expand_as(h) + ROW)(F.linear(x, W)), (1, 4)),
    "one sample": (lambda x: NORM(F.conv2d(x, W2).flatten(2)), (1, 2, 3, 4)),
}
RULES: dict[str, tuple[relprop.WeightedRule, ref.Rule]] = {
    "epsilon": (relprop.Epsilon(0.1), partial(ref.epsilon, epsilon=0.1)),
    "gamma": (relprop.Gamma(0.5), partial(ref.gamma, gamma=0.5)),
    "z+": (relprop.ZPlus(), ref.z_plus),
    "w2": (relprop.WSquare(), ref.w_square),
    "flat": (relprop.Flat(), ref.flat),
    "z-box": (relprop.ZBox(-4.0, 4.0), partial(ref.z_box, low=-4.0, high=4.0)),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FOLDED)
def test_equals_the_definition_of_the_whole(form: str, rule: str) -> None:
    f, shape = FOLDED[form]
    x, (ours, naive) = drawn(*shape), RULES[rule]
    x[x.abs() < 0.3] = 0.0
    y = f(x).detach()
    r = drawn(*y.shape)
    rules = relprop.Composite({"linear": ours, "conv": ours})
    R = relprop.attribute(f, x, weighed_by(r), composite=rules, ledger=True)
    assert torch.equal(R.output, y)
    close(R.values, ref.weighted(naive)(f, x, y * r))
    close(R.values.flatten(1).sum(1) + R.residual, R.score)


NOT_FOLDED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "another axis": (lambda x: F.linear(x, W), lambda h: h + drawn(5)[:, None]),
    "channels and positions joined": (lambda x: F.conv1d(x.mT, drawn(3, 4, 1)), lambda h: h.flatten(1) + drawn(15)),
    "flipped": (lambda x: F.linear(x, W).flip(-1), lambda h: h + BIAS),
    "twice": (lambda x: F.linear(x, W), lambda h: torch.cat([h, h], 1) + BIAS * drawn(10)[:, None]),
    "one step instead of another": (lambda x: F.linear(x, W), lambda h: h[:, [0, 1, 2, 3, 3]] + BIAS * drawn(5)[:, None]),
    "channels in another order": (lambda x: F.linear(x, W), lambda h: torch.cat(h.split(1, 2)[::-1], 2) + BIAS),
    "written, but for a step": (
        lambda x: F.linear(x, W),
        lambda h: (lambda y: [y[:, :4].copy_(h[:, :4]), y + BIAS][1])(torch.zeros_like(h)),
    ),
    "steps written over": (
        lambda x: F.linear(x, W),
        lambda h: (lambda y: [y.__setitem__((slice(None), 0), h[:, 1]), y * BIAS.abs() + drawn(5)[:, None]][1])(h * 1),
    ),
    "a bias of features, which are joined with steps": (
        lambda x: torch.einsum("ntf,hfd->nhtd", x, drawn(2, 4, 3)) * BIAS + BIAS,
        lambda h: of_two(h.flatten(2)),
    ),
    "a norm over steps": (lambda x: F.linear(x, W), lambda h: normed(5)(h)),
    "a part": (lambda x: F.linear(x, W), lambda h: torch.cat([h[..., :2] + BIAS[:2], h[..., 2:]], -1)),
}  # fmt: skip


@pytest.mark.parametrize("form", NOT_FOLDED)
def test_what_is_no_bias_of_the_layer_stays_apart(form: str) -> None:
    layer, after = NOT_FOLDED[form]
    x = drawn(2, 5, 4)
    h = layer(x)
    y = after(h).detach()
    r = drawn(*y.shape)
    rules = relprop.Composite({"linear": relprop.Gamma(0.5), "conv": relprop.Gamma(0.5)})
    R = relprop.attribute(lambda x: after(layer(x)), x, weighed_by(r), composite=rules)
    slope = torch.autograd.functional.jacobian(lambda h: (after(h) * r).sum(), h)
    close(R.values, ref.weighted(partial(ref.gamma, gamma=0.5))(layer, x, slope * h))


def test_the_relevance_of_weights_and_of_layers_behind_a_view() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 3).double(), normed(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.layer(x).transpose(1, 2)).relu().sum(2)

    net, x = Net().eval(), drawn(2, 5, 4)
    R = relprop.attribute(
        net, x, 1, composite=relprop.Composite({"linear": relprop.ZPlus()}), weights=True, layers=["layer"]
    )
    close(R.weights["layer.weight"].sum(0), R.values.sum((0, 1)))
    close(R.layers["layer"].flatten(1).sum(1), R.score)


def test_a_pooling_before_a_layer_makes_no_patches() -> None:
    """Windows of which the largest is picked are a max pooling, however that is written."""
    layer = nn.Linear(3, 2).double()
    forms: list[Callable[[Tensor], Tensor]] = [
        lambda x: layer(F.max_pool1d(x, 2, 1)).sum(1),
        lambda x: layer(x.unfold(2, 2, 1).max(-1).values).sum(1),
    ]
    one, other = (relprop.attribute(f, drawn(2, 2, 4), 1).values for f in forms)
    close(one, other)


def test_states_of_a_recurrent_network_are_activations() -> None:
    """A product with them has the gate of the steps written out."""
    rnn, x = nn.RNN(2, 3, batch_first=True).double(), drawn(2, 4, 2)

    def stepwise(x: Tensor) -> Tensor:
        h, states = x.new_zeros(len(x), 3), []
        whole = torch.cat([rnn.weight_ih_l0, rnn.weight_hh_l0], 1)
        for t in range(x.shape[1]):
            h = F.linear(torch.cat([x[:, t], h], 1), whole, rnn.bias_ih_l0 + rnn.bias_hh_l0).tanh()
            states.append(h)
        return torch.stack(states, 1)

    layer = nn.Linear(2, 3).double()
    for composite in ("cp_lrp", "attnlrp"):
        one, other = (
            relprop.attribute(lambda x, h=h: (layer(x) * h(x)).sum(1), x, 1, composite=composite).values
            for h in (lambda x: rnn(x)[0], stepwise)
        )
        close(one, other)


def test_own_bounds_of_a_convolution_behind_a_view() -> None:
    """`ZBox()` takes the bounds of each channel, also where a norm lies behind a view."""
    x = drawn(2, 2, 3, 4)
    composite = relprop.Composite({relprop.first: relprop.ZBox()})

    def plain(x: Tensor) -> Tensor:
        return F.batch_norm(F.conv2d(x, W2), NORM.running_mean, NORM.running_var, NORM.weight, NORM.bias).flatten(2)

    one, other = (
        relprop.attribute(f, x, (0, 1), composite=composite)
        for f in (plain, lambda x: NORM(F.conv2d(x, W2).flatten(2)))
    )
    close(other.values, one.values)


class ScaledAndShifted(nn.Module):
    """`c (w x) + b`, with `c` and `b` in the shape that `spread` gives them."""

    def __init__(self, spread: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.spread = spread
        self.w, self.c, self.b = nn.Parameter(W.clone()), nn.Parameter(BIAS.clone()), nn.Parameter(drawn(1, 3)[0])

    def forward(self, x: Tensor) -> Tensor:
        h = F.linear(x, self.w)
        return h * self.spread(self.c, h) + self.spread(self.b, h)


SPREAD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expand_as": lambda c, h: c.expand_as(h),
    "expand": lambda c, h: c.expand(h.shape),
    "broadcast_to": lambda c, h: torch.broadcast_to(c, h.shape),
    "broadcast_tensors": lambda c, h: torch.broadcast_tensors(c, h)[0],
    "repeat": lambda c, h: c.repeat(len(h), 1),
    "stack": lambda c, h: torch.stack([c] * len(h)),
    "type_as": lambda c, h: c.type_as(h).expand(len(h), -1),
    "to": lambda c, h: c.to(h).expand(len(h), -1),
    "times ones": lambda c, h: c * torch.ones_like(h),
    "plus zeros": lambda c, h: c + h.new_zeros(h.shape),
    "times a number everywhere": lambda c, h: 2 * c * torch.full_like(h, 0.5),
    "a new tensor": lambda c, h: torch.empty_like(h).copy_(c),
    "an empty tensor, by rows": lambda c, h: torch.zeros(h.shape, dtype=h.dtype).index_fill_(0, torch.arange(len(h)), 0.0) + c,
    "outer": lambda c, h: torch.outer(torch.ones(len(h), dtype=h.dtype), c),
    "matmul": lambda c, h: torch.ones(len(h), 1, dtype=h.dtype) @ c[None],
    "einsum": lambda c, h: torch.einsum("c,n->nc", c, h.new_ones(len(h))),
    "where": lambda c, h: torch.where(torch.ones_like(h, dtype=torch.bool), c, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("composite", ["gamma_box", "zero_bias", "epsilon_plus", "auto"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("form", SPREAD)
def test_a_scale_and_a_bias_spread_over_the_samples_are_the_layers(form: str, samples: int, composite: str) -> None:
    x = drawn(samples, 4)
    plain, spread = (
        relprop.attribute(ScaledAndShifted(how).eval(), x, 0, composite=composite).values
        for how in (lambda c, h: c, SPREAD[form])
    )
    close(spread, plain)


def chosen_by_number(h: Tensor) -> Tensor:
    mask = torch.zeros_like(h)
    for n in range(len(h)):
        mask[n, int(h[n].argmax())] = 1.0
    return mask


def filled_by_number(h: Tensor) -> Tensor:
    return torch.full_like(h, float(h.detach().abs().max())) / h.detach().abs().max() * chosen_by_number(h)


def largest(h: Tensor, reads: Callable[[Tensor, Tensor], bool]) -> Tensor:
    """1 at the largest entry of each row, which `reads` finds by telling Python whether two live numbers agree."""
    mask = torch.zeros_like(h)
    for n in range(len(h)):
        for channel in range(h.shape[1]):
            if reads(h[n, channel], h[n].max()):
                mask[n, channel] = 1.0
    return mask


TOLD: dict[str, Callable[[Tensor, Tensor], bool]] = {
    "a live number": lambda a, b: float(a) == float(b),
    "its item": lambda a, b: a.item() == b.item(),
    "a list": lambda a, b: a.tolist() == b.tolist(),
    "an array": lambda a, b: bool(a.detach().numpy() == b.detach().numpy()),
    "an array without a copy": lambda a, b: bool(np.from_dlpack(a.detach()) == np.from_dlpack(b.detach())),
    "torch.equal": lambda a, b: torch.equal(a, b),
    "Tensor.equal": lambda a, b: a.equal(b),
    "allclose": lambda a, b: torch.allclose(a, b),
    "a comparison": lambda a, b: bool(a == b),
}
MASKS = {name: partial(largest, reads=reads) for name, reads in TOLD.items()}


@pytest.mark.filterwarnings("ignore::relprop.errors.RelpropWarning")  # the mask is cut off from the inputs
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
@pytest.mark.parametrize(
    "of_data", [chosen_by_number, filled_by_number, *(pytest.param(m, id=n) for n, m in MASKS.items())]
)
@pytest.mark.parametrize("composite", ["gamma_box", "zero_bias"])
def test_a_mask_that_the_inputs_choose_is_no_scale_of_the_layer(
    of_data: Callable[[Tensor], Tensor], composite: str
) -> None:
    x = drawn(1, 4)
    target = int(F.linear(x, W).argmax())
    found, plain = (
        relprop.attribute(
            lambda x, m=m: F.linear(x, W) * m(F.linear(x, W)) + BIAS, x, target, composite=composite
        ).values
        for m in (of_data, lambda h: F.one_hot(h.argmax(1), 3).to(h))
    )
    close(found, plain)


OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda w: w,
    "sign": torch.sign,
    "rounded": lambda w: (w * 3).round() / 3,
    "of one sign": lambda w: w * (w > 0),
    "chosen by its size": lambda w: w * (w.abs() >= w.abs().flatten().topk(6)[0][-1]),
    "detached": lambda w: w.detach(),
    "data": lambda w: w.data,
    "times ones": lambda w: w * torch.ones_like(w),
    "where": lambda w: torch.where(w > 0, w, 0.1 * w),
    "a straight-through estimator": lambda w: w + (w.round() - w).detach(),
    "normalised by a number": lambda w: w * w.max().item(),
    "sorted": lambda w: w[:, w[0].argsort()],
    "integers": lambda w: (w * 10).to(torch.int8).to(w.dtype) / 10,
    "softmax": lambda w: w.softmax(1),
}


class Owned(nn.Module):
    """A layer, then a scale and a bias of one row, which `make` makes of the model's own numbers."""

    def __init__(self, kind: str, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make = (lambda w: w) if kind == "given" else make
        numbers = make(drawn(2, 3)) if kind == "given" else drawn(2, 3)
        if kind == "parameter":
            self.numbers = nn.Parameter(numbers)
        elif kind == "list":
            self.held = [numbers]
        elif kind == "attribute":
            self.numbers = numbers
        else:
            self.register_buffer("numbers", numbers)

    def forward(self, x: Tensor) -> Tensor:
        made = self.make(self.held[0] if hasattr(self, "held") else self.numbers)
        return F.linear(x, W) * made[:1] + made[1:]


@pytest.mark.parametrize("composite", ["gamma_box", "zero_bias", "epsilon_plus", "auto"])
@pytest.mark.parametrize("kind", ["parameter", "buffer", "attribute", "list"])
@pytest.mark.parametrize("form", OWN)
def test_numbers_made_of_the_models_own_are_the_models_own(form: str, kind: str, composite: str) -> None:
    x = drawn(1, 4)
    made, given = (
        relprop.attribute(Owned(k, OWN[form]).eval(), x, 0, composite=composite).values for k in (kind, "given")
    )
    close(made, given)


def test_what_a_function_closes_over_is_its_own() -> None:
    x = drawn(2, 4)
    for composite in ("gamma_box", "zero_bias", "auto"):
        open_, module = (
            relprop.attribute(model, x, 0, composite=composite).values
            for model in (lambda x: F.linear(x, W) * BIAS[None] + BIAS[None], Both().eval())
        )
        close(open_, module)


NUMBER: dict[str, Callable[[Tensor], Tensor]] = {
    "a number": lambda h: h * -2.0,
    "a quotient": lambda h: h / -0.5,
    "a tensor": lambda h: h * torch.tensor(-2.0, dtype=h.dtype),
    "one entry": lambda h: torch.tensor([-2.0], dtype=h.dtype) * h,
    "a row of one entry": lambda h: h * torch.full((1,) * h.ndim, -2.0, dtype=h.dtype),
    "a tensor that was expanded": lambda h: h * torch.tensor(-2.0, dtype=h.dtype).expand_as(h),
    "one entry that was expanded": lambda h: h * torch.tensor([-2.0], dtype=h.dtype).expand(h.shape),
    "a quotient by one entry that was expanded": lambda h: h / torch.tensor([[-0.5]], dtype=h.dtype).expand_as(h),
    "in place": lambda h: h.mul_(-2.0),
    "twice": lambda h: h * 2.0 * -1.0,
    "turned": lambda h: -(h * 2.0),
}


@pytest.mark.parametrize("composite", ["gamma_box", "zero_bias", "epsilon_alpha2_beta1", "epsilon", "auto"])
@pytest.mark.parametrize("layer", ["dense", "conv", "einsum", "view", "norm"])
@pytest.mark.parametrize("form", NUMBER)
def test_a_number_between_a_layer_and_its_bias_is_the_layers(form: str, layer: str, composite: str) -> None:
    x = drawn(2, 4) if layer == "dense" else drawn(2, 2, 3, 4) if layer != "einsum" else drawn(2, 5, 4)
    steps: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
        "dense": lambda scaled, x: scaled(F.linear(x, W)) + BIAS,
        "conv": lambda scaled, x: scaled(F.conv2d(x, W2)) + BIAS[:, None, None],
        "einsum": lambda scaled, x: scaled(torch.einsum("ntf,cf->ntc", x, W)) + BIAS,
        "view": lambda scaled, x: scaled(F.conv2d(x, W2).flatten(2)) + BIAS[:, None],
        "norm": lambda scaled, x: NORM(scaled(F.conv2d(x, W2)).flatten(2)),
    }

    def explained(scaled: Callable[[Tensor], Tensor]) -> Tensor:
        model = lambda x: steps[layer](scaled, x).flatten(1)  # noqa: E731
        return relprop.attribute(model, x, 0, composite=composite).values

    rows = {
        "dense": BIAS,
        "einsum": BIAS,
        "conv": BIAS[:, None, None],
        "norm": BIAS[:, None, None],
        "view": BIAS[:, None],
    }
    close(explained(NUMBER[form]), explained(lambda h: h * torch.full_like(rows[layer], -2.0)))


@pytest.mark.parametrize("composite", ["gamma_box", "zero_bias", "epsilon_plus", "auto"])
@pytest.mark.parametrize(("channels", "shape"), [(1, ()), (1, (1,)), (3, ()), (3, (1,)), (3, (3,))])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("act", [torch.mul, torch.add, torch.sub, torch.div, lambda h, c: c - h])
def test_a_constant_that_was_expanded_is_the_constant(
    act: Callable[[Tensor, Tensor], Tensor], samples: int, channels: int, shape: tuple[int, ...], composite: str
) -> None:
    x, w, c, norm = drawn(samples, 4), drawn(channels, 4), drawn(*shape), normed(channels)

    def explained(spread: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        def model(x: Tensor) -> Tensor:
            h = F.linear(x, w)
            h = act(h, spread(c, h))
            return torch.relu(norm(h)) * torch.sigmoid(h)

        return relprop.attribute(model, x, 0, composite=composite).values

    for spread in (SPREAD["expand_as"], SPREAD["broadcast_tensors"]):
        close(explained(spread), explained(lambda c, h: c))


@pytest.mark.parametrize("composite", ["gamma_box", "zero_bias", "epsilon_plus", "auto"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_scale_of_channels_that_was_expanded_is_the_scale(
    samples: int, shape: tuple[int, ...], composite: str
) -> None:
    x, c, norm = drawn(samples, 2, 3, 3), nn.Parameter(drawn(*shape)), normed(3)

    def explained(spread: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        def model(x: Tensor) -> Tensor:
            h = F.conv2d(x, W2)
            h = h * spread(c, h)
            whitened = F.batch_norm(h, norm.running_mean, norm.running_var, norm.weight, norm.bias)
            return (whitened.tanh() * h.sigmoid()).flatten(1)

        return relprop.attribute(model, x, 0, composite=composite).values

    plain = explained(lambda c, h: c)
    assert plain.abs().max() > 1e-3
    close(explained(SPREAD["expand_as"]), plain)


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("both", BIAS.clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, W) * self.both + self.both


@pytest.mark.parametrize("composite", ["gamma_box", "zero_bias"])
def test_an_argument_is_no_scale_of_the_layer(composite: str) -> None:
    """A mask for each sample: alone, a sample has the map that it has among others."""
    x = drawn(2, 4)
    forms: list[tuple[Tensor, Callable[[Tensor], Tensor]]] = [
        (drawn(2, 3).abs(), lambda m: m),
        (drawn(2, 1).abs(), lambda m: m.expand(-1, 3)),
        (drawn(2), lambda m: m[:, None].expand(-1, 3)),
    ]
    for mask, form in forms:
        together, alone = (
            relprop.attribute(
                lambda x, m, f=form: F.linear(x, W) * f(m) + BIAS,
                x[:n],
                0,
                composite=composite,
                forward_args=(mask[:n],),
            ).values
            for n in (2, 1)
        )
        close(together[:1], alone)
