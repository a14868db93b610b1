"""The rules as their papers write them: dense, in float64, sums over contributions; no line is the library's.

Index letters: b sample, i unit of the input, j unit of the output.

    x[b, i]  what went into the layer          r[b, j]  the relevance that arrives at its output
    w[i, j]  how it weighs every input         R[b, i]  the relevance that a rule hands down to its input
    bias[j]

A layer's `w` and `bias` are read off the layer itself, from its value and its Jacobian at 0, so that a
convolution, grouped, strided, dilated, padded or transposed, is no different from a matrix.
`c[b, i, j] = x[b, i] w[i, j]` is a contribution, `z[b, j]` their sum with the bias. Anything by 0 is 0,
and the sign of 0 is +1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Layer = Callable[[Tensor], Tensor]
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
HandDown = Callable[[Layer, Tensor, Tensor], Tensor]


# ------------------------------------------------------------------------------------------------- arithmetic


def quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """a / d, and 0 where d is 0."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))


def sign(z: Tensor) -> Tensor:
    """+1 for z >= 0, otherwise -1."""
    return torch.where(z >= 0, 1.0, -1.0).to(z)


def positive(t: Tensor) -> Tensor:
    """(t)+"""
    return t.clamp(min=0)


def negative(t: Tensor) -> Tensor:
    """(t)-"""
    return t.clamp(max=0)


def contributions(x: Tensor, w: Tensor) -> Tensor:
    """c[b, i, j] = x[b, i] w[i, j]"""
    return x[:, :, None] * w[None, :, :]


def shares(c: Tensor, denominator: Tensor, r: Tensor) -> Tensor:
    """R[b, i] = sum_j c[b, i, j] r[b, j] / denominator[b, j]"""
    return (c * quotient(r, denominator)[:, None, :]).sum(2)


# -------------------------------------------------------------------------------------------- weighted layers


def affine(layer: Layer, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """w[i, j] and bias[j] of a layer that is affine in one sample of this shape."""
    origin = torch.zeros(1, *shape, dtype=torch.float64)
    bias = layer(origin).detach().flatten()
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x).flatten(), origin)
    return jacobian.reshape(len(bias), -1).T, bias


def zero(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    """R_i = sum_j c_ij r_j / z_j"""
    return epsilon(x, w, bias, r, epsilon=0.0)


def epsilon(x: Tensor, w: Tensor, bias: Tensor, r: Tensor, *, epsilon: float = 1e-6, relative: bool = False) -> Tensor:
    """R_i = sum_j c_ij r_j / (z_j + e sgn z_j); relative: e times the standard deviation of z over the
    sample.
    """
    c = contributions(x, w)
    z = c.sum(1) + bias
    scale = z.std(1, unbiased=False, keepdim=True) if relative else torch.ones_like(z)
    return shares(c, z + epsilon * scale * sign(z), r)


def gamma(x: Tensor, w: Tensor, bias: Tensor, r: Tensor, *, gamma: float = 0.25) -> Tensor:
    """Contributions, and the bias, that have the sign of z_j count 1 + g times."""
    c = contributions(x, w)
    z = c.sum(1) + bias
    handed_down = torch.zeros_like(x)
    for part, chosen in ((positive, z >= 0), (negative, z < 0)):
        favoured = c + gamma * part(c)
        denominator = favoured.sum(1) + bias + gamma * part(bias)
        handed_down += shares(favoured, denominator, torch.where(chosen, r, 0.0))
    return handed_down


def alpha_beta(x: Tensor, w: Tensor, bias: Tensor, r: Tensor, *, alpha: float = 2.0, beta: float = 1.0) -> Tensor:
    """R_i = sum_j (a c_ij+ / P_j - b c_ij- / N_j) r_j, with P_j and N_j the sums of either sign, the bias
    among them.
    """
    c = contributions(x, w)
    of_positive = shares(positive(c), positive(c).sum(1) + positive(bias), r)
    of_negative = shares(negative(c), negative(c).sum(1) + negative(bias), r)
    return alpha * of_positive - beta * of_negative


def z_plus(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    """R_i = sum_j c_ij+ / P_j r_j"""
    return alpha_beta(x, w, bias, r, alpha=1.0, beta=0.0)


def w_square(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    """R_i = sum_j w_ij^2 / sum_i w_ij^2 r_j"""
    c = (w**2).expand(len(x), -1, -1)
    return shares(c, c.sum(1), r)


def flat(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    """R_i = sum_j 1 / n_j r_j over the n_j inputs that j sees (a random weight is never 0 where there is a
    connection).
    """
    return w_square(x, (w != 0).to(w), bias, r)


def z_box(
    x: Tensor,
    w: Tensor,
    bias: Tensor,
    r: Tensor,
    *,
    low: float | Tensor,
    high: float | Tensor,
    epsilon: float = 1e-6,
) -> Tensor:
    """c_ij = x_i w_ij - l_i w_ij+ - h_i w_ij-, the denominator their sum, stabilised, without the bias."""
    low = torch.as_tensor(low, dtype=x.dtype).expand_as(x)
    high = torch.as_tensor(high, dtype=x.dtype).expand_as(x)
    c = contributions(x, w) - contributions(low, positive(w)) - contributions(high, negative(w))
    denominator = c.sum(1)
    return shares(c, denominator + epsilon * sign(denominator), r)


def z_box_of_the_sample(
    x: Tensor, w: Tensor, bias: Tensor, r: Tensor, *, channels: int, epsilon: float = 1e-6
) -> Tensor:
    """`z_box` between the smallest and the largest value of each channel of each sample. What would be shared out by
    contributions that are all 0 is shared equally.
    """
    parts = x.unflatten(1, (channels, -1))
    low, high = (bound.expand_as(parts).flatten(1) for bound in (parts.amin(2, True), parts.amax(2, True)))
    c = contributions(x - low, positive(w)) + contributions(x - high, negative(w))
    empty = (c == 0).all(1)
    return z_box(x, w, bias, r, low=low, high=high, epsilon=epsilon) + flat(x, w, bias, torch.where(empty, r, 0.0))


def zero_bias(rule: Rule) -> Rule:
    """The rule of a layer whose bias is 0, for relevance that is what it is."""

    def without_bias(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
        return rule(x, w, torch.zeros_like(bias), r)

    return without_bias


def passes(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    """R_i = r_i"""
    return r


def block(x: Tensor, w: Tensor, bias: Tensor, r: Tensor) -> Tensor:
    """R_i = 0"""
    return torch.zeros_like(x)


def weighted(rule: Rule) -> HandDown:
    """One weighted layer and its rule, in the layer's own shapes."""

    def hand_down(layer: Layer, x: Tensor, r: Tensor) -> Tensor:
        w, bias = affine(layer, x.shape[1:])
        return rule(x.flatten(1), w, bias, r.flatten(1)).reshape(x.shape)

    return hand_down


def transposed(layer: Layer, x: Tensor, g: Tensor) -> Tensor:
    """g_i = sum_j w_ij g_j: the gradient of a layer that is affine in its input."""
    w, _ = affine(layer, x.shape[1:])
    return (g.flatten(1) @ w.T).reshape(x.shape)


# ----------------------------------------------------------------------------- everything that weighs nothing


def activation(f: Layer, x: Tensor, r: Tensor) -> Tensor:
    """R = (f(x) - f(0)) / f(x) r: what f(0) adds is a bias; a unit that is 0 because f(0) is 0 passes on
    what it received.
    """
    at_zero = f(torch.zeros_like(x))
    return torch.where(at_zero == 0, r, quotient((f(x) - at_zero) * r, f(x)))


def bounds(x: Tensor, low: float = -torch.inf, high: float = torch.inf) -> Tensor:
    """What is left of x between bounds, `y / x`; nothing where a bound between 0 and x has taken its place."""
    y = x.clamp(low, high)
    replaced = (x <= low) & (low > 0) | (x >= high) & (high < 0)
    return torch.where(replaced, 0.0, torch.where(x == 0, float(low < 0 < high), quotient(y, x)))


def secant(f: Layer, x: Tensor) -> Tensor:
    """(f(x) - f(0)) / x, and f'(0) at x = 0: by what an elementwise function multiplies the modified
    gradient.
    """
    origin = torch.zeros_like(x, requires_grad=True)
    (slope,) = torch.autograd.grad(f(origin).sum(), origin)
    return torch.where(x == 0, slope, quotient(f(x) - f(torch.zeros_like(x)), x)).detach()


def product(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Half of a product's relevance to either factor (of one shape)."""
    return r / 2, r / 2


def quotient_of_two(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """All of a quotient's relevance to the dividend: the divisor is a constant."""
    return r, torch.zeros_like(b)


def residual_sum(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """a / (a + b) and b / (a + b), sign included."""
    return quotient(a * r, a + b), quotient(b * r, a + b)


def normalisation(x: Tensor, runs: int, *, centred: bool, eps: float) -> Layer:
    """The linear map that is left of a norm once 1/std is a constant, for x[b, i] whose i fall into equal
    runs.
    """

    def off_mean(t: Tensor) -> Tensor:
        t = t.reshape(len(t), runs, -1)
        return t - t.mean(2, keepdim=True) if centred else t

    rstd = (off_mean(x).square().mean(2, keepdim=True) + eps).rsqrt()
    return lambda t: (off_mean(t) * rstd).reshape(t.shape)


def windows(pool: Layer, shape: Sequence[int]) -> Tensor:
    """seen[i, j]: whether unit j of a pool looks at unit i (a pool shows a lone 1 among zeros wherever it
    sees it).
    """
    n = torch.Size(shape).numel()
    return pool(torch.eye(n, dtype=torch.float64).reshape(n, *shape)).flatten(1) > 0


def winner_takes_all(pool: Layer, x: Tensor, r: Tensor) -> Tensor:
    """All of a window's relevance to its largest unit, the first of equals."""
    seen = windows(pool, x.shape[1:])
    masked = torch.where(seen, x.flatten(1)[:, :, None], -torch.inf)
    first_largest = nn.functional.one_hot(masked.argmax(1), masked.shape[1]).transpose(1, 2)
    return (first_largest * r.flatten(1)[:, None, :]).sum(2).reshape(x.shape)


def proportional(pool: Layer, x: Tensor, r: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """R_i = sum_j x_i / (S_j + e sgn S_j) r_j, with S_j the sum over the window."""
    c = contributions(x.flatten(1), windows(pool, x.shape[1:]).to(x))
    total = c.sum(1)
    return shares(c, total + epsilon * sign(total), r.flatten(1)).reshape(x.shape)


def by_softmax(pool: Layer, x: Tensor, r: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Of max pooling: R_i = sum_j softmax of x / t over window j at i, times R_j."""
    seen = windows(pool, x.shape[1:])
    weight = (x.flatten(1)[:, :, None] / temperature).masked_fill(~seen, -torch.inf).softmax(1)
    return (weight * r.flatten(1)[:, None]).sum(2).reshape(x.shape)


def the_two_largest(pool: Layer, x: Tensor, r: Tensor) -> Tensor:
    """Of max pooling: half of R_j to each of the two largest entries of window j."""
    seen = windows(pool, x.shape[1:])
    held = x.flatten(1)[:, :, None].masked_fill(~seen, -torch.inf)
    weight = torch.zeros_like(held).scatter(1, held.topk(2, 1).indices, 0.5)
    return (weight * r.flatten(1)[:, None]).sum(2).reshape(x.shape)


def average_pool(pool: Layer, x: Tensor, r: Tensor) -> Tensor:
    """R_i = sum_j x_i / S_j r_j; a window of nothing but dead units passes on what it received in equal
    parts.
    """
    seen = windows(pool, x.shape[1:]).to(x)
    c = contributions(x.flatten(1), seen)
    dead = (c == 0).all(1)[:, None, :]
    c = torch.where(dead, seen, c)
    return shares(c, c.sum(1), r.flatten(1)).reshape(x.shape)


# --------------------------------------------------------------------------------------------- whole networks


def moved(layer: Layer, x: Tensor, r: Tensor) -> Tensor:
    """Through a reshape, relevance moves with the numbers."""
    return r.reshape(x.shape)


def propagate(steps: Sequence[tuple[Layer, HandDown]], x: Tensor, seed: Layer) -> Tensor:
    """Layer by layer through a sequence of layers and how each hands down; `seed` is the relevance of the
    last output.
    """
    inputs = [x]
    for layer, _ in steps:
        inputs.append(layer(inputs[-1]).detach())
    r = seed(inputs.pop())
    for (layer, hand_down), x in zip(reversed(steps), reversed(inputs), strict=True):
        r = hand_down(layer, x, r)
    return r
