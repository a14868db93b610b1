"""Whole networks, and their relevance by the definitions of `reference`: dense, layer by layer, none of it the library's.

Each network names its weighted layers in order; `relevance` takes the rule of each (by its name) and what arrives at the
output. A layer and the BatchNorm behind it are one affine map, as they are in the library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

import reference as ref
from networks import settle

Rules = Mapping[str, ref.Rule]


class Network(nn.Module):
    """A network that knows the shape of one sample, and its weighted layers in the order of their calls."""

    shape: tuple[int, ...]
    weighted: tuple[str, ...]
    convolutions: tuple[str, ...] = ()

    def relevance(self, x: Tensor, rules: Rules, r: Tensor) -> Tensor:
        raise NotImplementedError


Slope = Callable[[Tensor, Tensor], Tensor]
"""From the input of a relu and the gradient at its output to the gradient at its input."""


class Dense(Network):
    """Three layers with relus between, and as wide as the input, so that each can hand on one to one."""

    shape, weighted = (5,), ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(5, 5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu())

    def relevance(self, x: Tensor, rules: Rules, r: Tensor) -> Tensor:
        inputs = x, self.a(x).relu(), self.b(self.a(x).relu()).relu()
        for name, made in zip("cba", reversed(inputs), strict=True):
            r = ref.weighted(rules[name])(getattr(self, name), made, r)  # a relu passes on what it receives
        return r

    def gradient(self, x: Tensor, slope: Slope, g: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(a.relu())
        g = slope(b, ref.transposed(self.c, b, g))
        g = slope(a, ref.transposed(self.b, a, g))
        return ref.transposed(self.a, x, g)


class Convolutional(Network):
    """Convolutions with BatchNorms, a maximum and an average pool, a dense layer."""

    shape, weighted = (2, 8, 8), ("conv1", "conv2", "head")
    convolutions = weighted[:2]

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.max_pool, self.average_pool = nn.MaxPool2d(2), nn.AvgPool2d(2)
        settle(self)

    def forward(self, x: Tensor) -> Tensor:
        h = self.max_pool(self.bn1(self.conv1(x)).relu())
        return self.head(self.average_pool(self.bn2(self.conv2(h)).relu()).flatten(1))

    def relevance(self, x: Tensor, rules: Rules, r: Tensor, pooled: ref.HandDown = ref.winner_takes_all) -> Tensor:
        block1 = nn.Sequential(self.conv1, self.bn1)
        block2 = nn.Sequential(self.conv2, self.bn2)
        a = block1(x).relu()
        b = self.max_pool(a)
        c = block2(b).relu()
        d = self.average_pool(c)
        r = ref.weighted(rules["head"])(self.head, d.flatten(1), r).reshape(d.shape)
        r = ref.average_pool(self.average_pool, c, r)
        r = ref.weighted(rules["conv2"])(block2, b, r)
        r = pooled(self.max_pool, a, r)
        return ref.weighted(rules["conv1"])(block1, x, r)

    def gradient(self, x: Tensor, slope: Slope, g: Tensor) -> Tensor:
        block1, block2 = nn.Sequential(self.conv1, self.bn1), nn.Sequential(self.conv2, self.bn2)
        a = block1(x)
        b = self.max_pool(a.relu())
        c = block2(b)
        g = ref.transposed(self.head, self.average_pool(c).flatten(1), g).reshape(len(x), 4, 1, 1)
        g = slope(c, ref.transposed(self.average_pool, c, g))
        g = ref.transposed(block2, b, g)
        g = slope(a, ref.winner_takes_all(self.max_pool, a.relu(), g))  # of a maximum, the gradient goes there as well
        return ref.transposed(block1, x, g)


class Residual(Network):
    """A block whose branch is added to what went in."""

    shape, weighted = (4,), ("stem", "inner", "outer", "head")

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer, self.head = (nn.Linear(4, o) for o in (4, 4, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        return self.head((h + self.outer(self.inner(h).relu())).relu())

    def relevance(self, x: Tensor, rules: Rules, r: Tensor) -> Tensor:
        h = self.stem(x).relu()
        i = self.inner(h).relu()
        o = self.outer(i)
        r = ref.weighted(rules["head"])(self.head, (h + o).relu(), r)
        past, through = ref.residual_sum(h, o, r)
        through = ref.weighted(rules["outer"])(self.outer, i, through)
        through = ref.weighted(rules["inner"])(self.inner, h, through)
        return ref.weighted(rules["stem"])(self.stem, x, past + through)

    def gradient(self, x: Tensor, slope: Slope, g: Tensor) -> Tensor:
        s = self.stem(x)
        i = self.inner(s.relu())
        summed = s.relu() + self.outer(i.relu())
        g = slope(summed, ref.transposed(self.head, summed, g))
        through = slope(i, ref.transposed(self.outer, i, g))
        g = slope(s, g + ref.transposed(self.inner, s, through))
        return ref.transposed(self.stem, x, g)


class Attention(Network):
    """One head over tokens, whose output is added to what went in; a mean over tokens, a dense layer.

    With `constant`, the weights of the attention carry nothing (CP-LRP); else softmax and products as in AttnLRP, the
    softmax's Jacobian as if the scores were divided by `temperature`.
    """

    shape, weighted = (3, 4), ("q", "k", "v", "head")

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).mT / 2).softmax(-1)
        return self.head((x + weights @ self.v(x)).mean(1))

    def relevance(self, x: Tensor, rules: Rules, r: Tensor, constant: bool = False, temperature: float = 1.0) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        scores = q @ k.mT / 2  # n t s
        weights = scores.softmax(-1)
        o = weights @ v
        r = ref.weighted(rules["head"])(self.head, (x + o).mean(1), r)
        h = x + o
        r = ref.quotient(h * r[:, None], h.sum(1, keepdim=True))  # a mean shares like a sum
        past, r = ref.residual_sum(x, o, r)
        parts = ref.quotient(weights[..., None] * v[:, None] * r[:, :, None], o[:, :, None])  # n t s d
        if constant:
            return past + ref.weighted(rules["v"])(self.v, x, parts.sum(1))
        of_v, of_weights = parts.sum(1) / 2, parts.sum(3) / 2
        g, softer = ref.quotient(of_weights, weights), (scores / temperature).softmax(-1)
        of_scores = scores * softer * (g - (softer * g).sum(2, keepdim=True))
        parts = ref.quotient((q[:, :, None] * k[:, None] / 2) * of_scores[..., None], scores[..., None])
        of_q, of_k = parts.sum(2) / 2, parts.sum(1) / 2
        down = {"q": of_q, "k": of_k, "v": of_v}
        return past + sum(ref.weighted(rules[name])(getattr(self, name), x, part) for name, part in down.items())


class Gated(Network):
    """What one layer says, a relu behind it, times what the sigmoid of another lets through; a dense layer."""

    shape, weighted = (5,), ("content", "gate", "head")

    def __init__(self) -> None:
        super().__init__()
        self.content, self.gate, self.head = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.content(x).relu() * self.gate(x).sigmoid())

    def relevance(
        self,
        x: Tensor,
        rules: Rules,
        r: Tensor,
        shares: tuple[float, float] = (0.5, 0.5),
        sigmoid: ref.HandDown = ref.activation,
    ) -> Tensor:
        """`shares` are those of the content and of the gate; `sigmoid` says what becomes of the gate's."""
        content, gate = self.content(x).relu(), self.gate(x)
        r = ref.weighted(rules["head"])(self.head, content * gate.sigmoid(), r)
        of_content = ref.weighted(rules["content"])(self.content, x, shares[0] * r)
        of_gate = sigmoid(torch.sigmoid, gate, shares[1] * r)
        return of_content + ref.weighted(rules["gate"])(self.gate, x, of_gate)


NETWORKS = {kind.__name__.lower(): kind for kind in (Dense, Convolutional, Residual, Attention, Gated)}


def inputs(network: Network, samples: int = 3) -> Tensor:
    """Samples with units that are exactly 0, and one corner that is 0 in all."""
    x = torch.randn(samples, *network.shape, dtype=torch.float64)
    x[torch.rand(x.shape) < 0.3] = 0.0
    x[..., 0] = 0.0
    return x
