"""What networks are made of, each block in the ways in which people write it: graphs, gates, attention, norms, patches.

They are drawn beside the single operations of `program_operations`, with `try_programs.py --blocks`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from program_draws import Drawn, Operation, Shape, anything, at_least, axis, deep, nothing, number


def edges(random: Random, s: Shape) -> Drawn:
    """The edges of a graph whose nodes are the first axis: at least one leads to each node."""
    nodes = s[0]
    pairs = [(random.randrange(nodes), to) for to in range(nodes)]
    pairs += [(random.randrange(nodes), random.randrange(nodes)) for _ in range(random.randint(0, 3))]
    random.shuffle(pairs)
    senders, receivers = zip(*pairs, strict=True)
    into = [[a for a, b in pairs if b == to] for to in range(nodes)]
    degree = tuple(float(len(each)) for each in into)
    return {
        "nodes": nodes,
        "from_": senders,
        "to": receivers,
        "into": str(into),
        "degree": degree,
        "ones": (1,) * (len(s) - 1),
    }, {}


def scored_edges(random: Random, s: Shape) -> Drawn:
    return edges(random, s)[0], {"p": ("weight", s[-1:]), "q": ("weight", s[-1:])}


def halves(random: Random, s: Shape) -> Drawn:
    return {"i": s[0] // 2}, {}


def two_layers(random: Random, s: Shape) -> Drawn:
    h, o = random.randint(2, 3), random.randint(1, 3)
    return {"i": s[-1], "h": h, "o": o}, {
        "w": ("weight", (h, s[-1])),
        "u": ("weight", (h, s[-1])),
        "v": ("weight", (o, h)),
    }


def square(random: Random, s: Shape) -> Drawn:
    return {"i": s[-1]}, {"w": ("weight", (s[-1], s[-1])), "v": ("any", s[-1:])}


def squeezed(random: Random, s: Shape) -> Drawn:
    return {"i": s[0], "space": tuple(range(2, len(s) + 1)), "ones": (1,) * (len(s) - 1)}, {
        "w": ("weight", (s[0], s[0])), "v": ("any", s[:1]),
    }  # fmt: skip


def groups(random: Random, s: Shape) -> Drawn:
    parts = random.choice([n for n in range(1, s[0] + 1) if s[0] % n == 0 and math.prod(s) > n])
    settings = {"i": s[0], "parts": parts, "eps": 0.05, "tail": s[1:], "ones": (1,) * (len(s) - 1)}
    return settings, {"g": ("any", s[:1]), "v": ("any", s[:1])}


def heads(random: Random, s: Shape) -> Drawn:
    f = s[1]
    return {"f": f, "d": f // 2, "root": (f // 2) ** 0.5}, {
        "w": ("weight", (3 * f, f)), "p": ("any", (3 * f,)), "u": ("weight", (f, f)), "v": ("any", (f,)),
    }  # fmt: skip


def projections(random: Random, s: Shape) -> Drawn:
    d = random.randint(2, 3)
    return {"root": d**0.5, "size": s[0]}, {name: ("weight", (s[1], d)) for name in "qkv"}


def pooled(random: Random, s: Shape) -> Drawn:
    return {}, {"w": ("weight", s[-1:])}


def grouped_filters(random: Random, s: Shape) -> Drawn:
    parts, dilation = random.choice((1, s[0])), random.choice((1, 2))
    o = parts * random.randint(1, 2)
    settings = {"i": s[0], "o": o, "parts": parts, "each": s[0] // parts, "dilation": dilation}
    return settings, {"w": ("weight", (o, s[0] // parts, 2)), "v": ("any", (o,))}


def patches(random: Random, s: Shape) -> Drawn:
    o = random.randint(1, 3)
    settings = {"i": s[0], "o": o, "rows": s[1] // 2, "columns": s[2] // 2, "size": s[0] * 4}
    return settings, {"w": ("weight", (o, s[0], 2, 2)), "v": ("any", (o,))}


def sequence_patches(random: Random, s: Shape) -> Drawn:
    o = random.randint(1, 3)
    return {"i": s[0], "o": o, "count": s[1] // 2, "size": s[0] * 2}, {
        "w": ("weight", (o, s[0], 2)),
        "v": ("any", (o,)),
    }


def bilinear(random: Random, a: Shape, b: Shape) -> Drawn:
    o = random.randint(1, 3)
    return {"i": a[-1], "o": o}, {"w": ("weight", (o, a[-1], b[-1])), "v": ("any", (o,))}


def gated(random: Random, a: Shape, b: Shape) -> Drawn:
    return {}, {"w": ("weight", (a[-1], a[-1])), "v": ("any", a[-1:])}


def directions(random: Random, s: Shape) -> Drawn:
    return {"i": s[-1], "o": 2}, {"w": ("weight", (2, s[-1])), "g": ("any", (2, 1)), "v": ("any", (2,))}


def turned(random: Random, s: Shape) -> Drawn:
    return {"half": s[-1] // 2}, {"p": ("any", (s[-1] // 2,))}


def gates(count: int) -> Callable[[Random, Shape], Drawn]:
    def draw(random: Random, s: Shape) -> Drawn:
        h = random.randint(1, 2)
        shapes = {"u": (count * h, s[1]), "w": (count * h, h), "p": (count * h,), "q": (count * h,)}
        return {"i": s[1], "h": h}, {name: ("weight", shape) for name, shape in shapes.items()}

    return draw


def decays(random: Random, s: Shape) -> Drawn:
    return {"size": s[0]}, {"w": ("weight", (s[1], s[1])), "v": ("any", s[1:])}


def graph(s: Shape) -> bool:
    return len(s) == 2 and s[0] > 1


def image(s: Shape) -> bool:
    return len(s) == 3 and s[1] > 1 and s[2] > 1


def several(s: Shape) -> bool:
    return len(s) > 1 and math.prod(s) > 1


def even(s: Shape) -> bool:
    return s[0] % 2 == 0


def alike_rows(a: Shape, b: Shape) -> bool:
    return a == b and len(a) < 3


# -------------------------------------------------------------------------------------------- linear

LINEAR_BLOCKS: dict[str, Operation] = {
    "sum of neighbours": Operation(
        1,
        graph,
        edges,
        (
            "{y} = torch.zeros_like({a}).index_add(1, torch.tensor({to}), {a}[:, {from_}])",
            "{y} = torch.zeros_like({a})\n{y}.index_add_(1, torch.tensor({to}), {a}[:, torch.tensor({from_})])",
            "i{n} = torch.tensor({to})[None, :, None].expand(len({a}), -1, {a}.shape[2])\n{y} = torch.zeros_like({a}).scatter_add(1, i{n}, {a}.index_select(1, torch.tensor({from_})))",
            "i{n} = torch.tensor({to}).view(1, -1, 1).expand(len({a}), -1, {a}.shape[2])\n{y} = {a}.new_zeros({a}.shape).scatter_reduce(1, i{n}, {a}[:, {from_}], 'sum')",
            "{y} = torch.stack([sum({a}[:, i] for i in each) for each in {into}], 1)",
            "{y} = torch.stack([{a}[:, each].sum(1) for each in {into}], dim=1)",
        ),
    ),
    "mean of neighbours": Operation(
        1,
        graph,
        edges,
        (
            "{y} = torch.zeros_like({a}).index_add(1, torch.tensor({to}), {a}[:, {from_}]) / {a}.new_tensor({degree})[:, None]",
            "i{n} = torch.tensor({to})[None, :, None].expand(len({a}), -1, {a}.shape[2])\n{y} = torch.zeros_like({a}).scatter_reduce(1, i{n}, {a}[:, {from_}], 'mean', include_self=False)",
            "{y} = torch.stack([{a}[:, each].mean(1) for each in {into}], 1)",
            "c{n} = torch.zeros({nodes}).double().scatter_add(0, torch.tensor({to}), torch.ones(len({to})).double())\n{y} = torch.zeros_like({a}).index_add(1, torch.tensor({to}), {a}[:, {from_}]) / c{n}.clamp(min=1).unsqueeze(-1)",
            "{y} = torch.zeros_like({a}).index_add(1, torch.tensor({to}), {a}[:, {from_}] / {a}.new_tensor({degree})[list({to})][:, None])",
        ),
    ),
    "largest of neighbours": Operation(
        1,
        graph,
        edges,
        (
            "{y} = torch.stack([{a}[:, each].amax(1) for each in {into}], 1)",
            "i{n} = torch.tensor({to})[None, :, None].expand(len({a}), -1, {a}.shape[2])\n{y} = torch.zeros_like({a}).scatter_reduce(1, i{n}, {a}[:, {from_}], 'amax', include_self=False)",
            "{y} = torch.stack([torch.stack([{a}[:, i] for i in each]).amax(0) for each in {into}], 1)",
        ),
    ),
    "pixel shuffle": Operation(
        1,
        lambda s: len(s) == 3 and s[0] % 4 == 0 and s[1] * s[2] < 9,
        nothing,
        (
            "{y} = F.pixel_shuffle({a}, 2)",
            "@self.f{n} = nn.PixelShuffle(2)\n{y} = self.f{n}({a})",
            "{y} = {a}.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)",
        ),
    ),
    "grouped filters": Operation(
        1,
        lambda s: len(s) == 2 and s[1] > 2,
        grouped_filters,
        (
            "{y} = F.conv1d({a}, {w}, {v}, dilation={dilation}, groups={parts})",
            "@self.f{n} = given(nn.Conv1d({i}, {o}, 2, dilation={dilation}, groups={parts}), weight={w}, bias={v})\n{y} = self.f{n}({a})",
            "{y} = F.conv1d({a}, {w}, None, 1, 0, {dilation}, {parts}) + {v}[None, :, None]",
            "{y} = F.conv2d({a}[:, :, None], {w}[:, :, None], {v}, dilation=(1, {dilation}), groups={parts})[:, :, 0]",
        ),
    ),
    "patches of an image": Operation(
        1,
        lambda s: len(s) == 3 and s[1] % 2 == 0 and s[2] % 2 == 0,
        patches,
        (
            "{y} = F.conv2d({a}, {w}, {v}, stride=2)",
            "@self.f{n} = given(nn.Conv2d({i}, {o}, 2, 2), weight={w}, bias={v})\n{y} = self.f{n}({a})",
            "{y} = F.linear(F.unfold({a}, 2, stride=2).mT, {w}.flatten(1), {v}).mT.unflatten(2, ({rows}, {columns}))",
            "p{n} = {a}.unflatten(3, ({columns}, 2)).unflatten(2, ({rows}, 2)).permute(0, 2, 4, 1, 3, 5).flatten(3)\n{y} = F.linear(p{n}, {w}.reshape({o}, -1), {v}).permute(0, 3, 1, 2)",
            "{y} = torch.einsum('ncijkl,ockl->noij', {a}.unfold(2, 2, 2).unfold(3, 2, 2), {w}) + {v}[:, None, None]",
            "{y} = (F.unfold({a}, 2, stride=2).transpose(1, 2) @ {w}.view({o}, -1).t() + {v}).transpose(1, 2).reshape(len({a}), {o}, {rows}, {columns})",
        ),
    ),
    "patches of a sequence": Operation(
        1,
        lambda s: len(s) == 2 and s[1] % 2 == 0,
        sequence_patches,
        (
            "{y} = F.conv1d({a}, {w}, {v}, stride=2)",
            "{y} = F.linear({a}.unfold(2, 2, 2).transpose(1, 2).flatten(2), {w}.flatten(1), {v}).mT",
            "{y} = F.linear({a}.unflatten(2, ({count}, 2)).permute(0, 2, 1, 3).reshape(len({a}), {count}, {size}), {w}.reshape({o}, {size}), {v}).transpose(1, 2)",
            "{y} = torch.einsum('nclk,ock->nol', {a}.unfold(2, 2, 2), {w}) + {v}[:, None]",
        ),
    ),
    "weight norm": Operation(
        1,
        lambda s: len(s) < 3,
        directions,
        (
            "{y} = F.linear({a}, {g} * {w} / {w}.norm(dim=1, keepdim=True), {v})",
            "{y} = F.linear({a}, torch._weight_norm({w}, {g}, 0), {v})",
            "{y} = {a} @ ({g} * F.normalize({w}, dim=1)).T + {v}",
            "{y} = F.linear({a}, {w} * ({g} / torch.linalg.vector_norm({w}, dim=1, keepdim=True))) + {v}",
        ),
    ),
    "turn in pairs": Operation(
        1,
        lambda s: s[-1] % 2 == 0,
        turned,
        (
            "c{n}, s{n} = torch.cat([{p}, {p}]).cos(), torch.cat([{p}, {p}]).sin()\n{y} = {a} * c{n} + torch.cat([-{a}[..., {half}:], {a}[..., :{half}]], -1) * s{n}",
            "l{n}, r{n} = {a}.chunk(2, -1)\n{y} = torch.cat([l{n} * {p}.cos() - r{n} * {p}.sin(), r{n} * {p}.cos() + l{n} * {p}.sin()], -1)",
            "z{n} = torch.complex(*{a}.split({half}, -1)) * torch.polar(torch.ones_like({p}), {p})\n{y} = torch.cat([z{n}.real, z{n}.imag], -1)",
            "z{n} = torch.view_as_complex(torch.stack({a}.chunk(2, -1), -1)) * torch.exp(1j * {p})\n{y} = torch.cat(torch.view_as_real(z{n}).unbind(-1), -1)",
        ),
    ),
    "average of an image": Operation(
        1,
        image,
        nothing,
        ("{y} = {a}.mean((2, 3))", "{y} = F.adaptive_avg_pool2d({a}, 1).flatten(1)", "@self.f{n} = nn.AdaptiveAvgPool2d((1, 1))\n{y} = self.f{n}({a})[:, :, 0, 0]", "{y} = {a}.flatten(2).mean(-1)", "{y} = F.avg_pool2d({a}, {a}.shape[2:]).squeeze((2, 3))"),
    ),
    "largest of windows": Operation(
        1,
        image,
        nothing,
        ("{y} = F.max_pool2d({a}, 2, 1)", "@self.f{n} = nn.MaxPool2d(2, 1)\n{y} = self.f{n}({a})", "{y} = {a}.unfold(2, 2, 1).unfold(3, 2, 1).flatten(4).amax(-1)"),
    ),
    "residual": Operation(
        1,
        lambda s: len(s) < 3,
        square,
        (
            "{y} = {a} + F.linear({a}, {w}, {v}).relu()",
            "{y} = F.relu({a} @ {w}.T + {v}) + {a}",
            "f{n} = F.linear({a}, {w}, {v})\nf{n}.relu_()\nf{n} += {a}\n{y} = f{n}",
            "{y} = {a}.clone()\n{y} += F.linear({y}, {w}, {v}).clamp(min=0)",
        ),
    ),
}  # fmt: skip

# ------------------------------------------------------------------------------- products, gates, norms

OTHER_BLOCKS: dict[str, Operation] = {
    "graph attention": Operation(
        1,
        graph,
        scored_edges,
        (
            "y{n}, f{n}, t{n} = [], {a} @ {p}, {a} @ {q}\nfor r{n}, each{n} in enumerate({into}):\n    s{n} = F.leaky_relu(f{n}[:, each{n}] + t{n}[:, [r{n}]], 0.2)\n    y{n}.append(torch.einsum('ne,nef->nf', s{n}.softmax(1), {a}[:, each{n}]))\n{y} = torch.stack(y{n}, 1)",
            "e{n} = F.leaky_relu(({a} @ {p})[:, {from_}] + ({a} @ {q})[:, {to}], 0.2).exp()\nd{n} = torch.zeros_like({a}[:, :, 0]).index_add(1, torch.tensor({to}), e{n})\n{y} = torch.zeros_like({a}).index_add(1, torch.tensor({to}), (e{n} / d{n}[:, {to}])[..., None] * {a}[:, {from_}])",
            "s{n} = F.leaky_relu(({a} @ {p})[:, {from_}] + ({a} @ {q})[:, {to}], 0.2)\ni{n} = torch.tensor({to}).expand_as(s{n})\nm{n} = torch.zeros_like({a}[:, :, 0]).scatter_reduce(1, i{n}, s{n}, 'amax', include_self=False)\ne{n} = (s{n} - m{n}.gather(1, i{n})).exp()\nd{n} = torch.zeros_like(m{n}).scatter_add_(1, i{n}, e{n}).gather(1, i{n})\n{y} = torch.zeros_like({a}).index_add(1, torch.tensor({to}), (e{n} / d{n}).unsqueeze(-1) * {a}[:, {from_}])",
        ),
        False,
    ),
    "gated halves": Operation(
        1,
        even,
        halves,
        (
            "{y} = F.glu({a}, 1)",
            "@self.f{n} = nn.GLU(1)\n{y} = self.f{n}({a})",
            "l{n}, r{n} = {a}.chunk(2, 1)\n{y} = l{n} * r{n}.sigmoid()",
            "{y} = torch.sigmoid({a}[:, {i}:]) * {a}[:, :{i}]",
            "l{n}, r{n} = {a}.split({i}, dim=1)\n{y} = l{n} / (1 + (-r{n}).exp())",
        ),
        False,
    ),
    "gated layer": Operation(
        1,
        lambda s: len(s) < 3,
        two_layers,
        (
            "{y} = F.linear(F.silu(F.linear({a}, {w})) * F.linear({a}, {u}), {v})",
            "g{n} = {a} @ {w}.t()\n{y} = (g{n} * torch.sigmoid(g{n}) * ({a} @ {u}.t())) @ {v}.t()",
            "f{n} = F.silu(F.linear({a}, {w}), inplace=True)\nf{n} *= F.linear({a}, {u})\n{y} = F.linear(f{n}, {v})",
        ),
        False,
    ),
    "squeeze and excite": Operation(
        1,
        at_least(2),
        squeezed,
        (
            "{y} = {a} * F.linear({a}.flatten(2).mean(2), {w}, {v}).sigmoid().reshape(len({a}), -1, *{ones})",
            "s{n} = {a}.mean({space}, keepdim=True).flatten(1)\n{y} = {a} * torch.sigmoid(s{n} @ {w}.T + {v}).view(len({a}), {i}, *{ones})",
            "s{n} = F.adaptive_avg_pool1d({a}.flatten(2), 1)[..., 0]\n{y} = {a}.mul(F.linear(s{n}, {w}, {v}).sigmoid_().reshape(-1, {i}, *{ones}).expand_as({a}))",
        ),
        False,
    ),
    "gated sum": Operation(
        2,
        alike_rows,
        gated,
        (
            "z{n} = F.linear({a}, {w}, {v}).sigmoid()\n{y} = z{n} * {b} + (1 - z{n}) * {a}",
            "z{n} = torch.sigmoid({a} @ {w}.t() + {v})\n{y} = {b} * z{n} + {a} * (1.0 - z{n})",
            "z{n} = F.linear({a}, {w}, {v}).sigmoid()\n{y} = torch.mul(z{n}, {b}).add((-z{n} + 1) * {a})",
        ),
        False,
    ),
    "group norm": Operation(
        1,
        several,
        groups,
        (
            "{y} = F.group_norm({a}, {parts}, {g}, {v}, {eps})",
            "@self.f{n} = given(nn.GroupNorm({parts}, {i}, {eps}), weight={g}, bias={v})\n{y} = self.f{n}({a})",
            "r{n} = {a}.reshape(len({a}), {parts}, -1)\nc{n} = r{n} - r{n}.mean(-1, keepdim=True)\n{y} = (c{n} / (c{n}.square().mean(-1, keepdim=True) + {eps}).sqrt()).reshape({a}.shape) * {g}.reshape(-1, *{ones}) + {v}.reshape(-1, *{ones})",
            "r{n} = {a}.reshape(len({a}), {parts}, -1)\n{y} = F.layer_norm(r{n}, r{n}.shape[-1:], eps={eps}).view_as({a}) * {g}.view(1, -1, *{ones}) + {v}.view(1, -1, *{ones})",
        ),
        False,
    ),
    "instance norm": Operation(
        1,
        several,
        groups,
        (
            "{y} = F.instance_norm({a}.flatten(2), weight={g}, bias={v}, eps={eps}).view_as({a}) if {a}[0, 0].numel() > 1 else {v}.reshape(-1, *{ones}) + 0 * {a}",
            "f{n} = {a}.flatten(2)\n{y} = (((f{n} - f{n}.mean(2, keepdim=True)) * (f{n}.var(2, correction=0, keepdim=True) + {eps}).rsqrt()) * {g}[:, None] + {v}[:, None]).reshape({a}.shape) if {a}[0, 0].numel() > 1 else {v}.reshape(-1, *{ones}) + 0 * {a}",
        ),
        False,
    ),
    "causal attention": Operation(
        1,
        deep(2),
        projections,
        (
            "{y} = F.scaled_dot_product_attention({a} @ {q}, {a} @ {k}, {a} @ {v}, is_causal=True)",
            "m{n} = torch.ones({size}, {size}).tril().bool()\n{y} = F.scaled_dot_product_attention({a} @ {q}, {a} @ {k}, {a} @ {v}, attn_mask=m{n})",
            "m{n} = torch.ones({size}, {size}).triu(1).bool()\n{y} = (({a} @ {q}) @ ({a} @ {k}).mT / {root}).masked_fill(m{n}, -torch.inf).softmax(-1) @ ({a} @ {v})",
            "m{n} = torch.full(({size}, {size}), -torch.inf).triu(1)\n{y} = torch.softmax(({a} @ {q} / {root}) @ ({a} @ {k}).mT + m{n}, -1) @ ({a} @ {v})",
            "m{n} = torch.tril(torch.ones({size}, {size})).double()\ne{n} = (({a} @ {q}) @ ({a} @ {k}).transpose(1, 2) / {root}).exp() * m{n}\n{y} = (e{n} / e{n}.sum(-1, keepdim=True)) @ ({a} @ {v})",
            "s{n} = torch.bmm({a} @ {q}, ({a} @ {k}).mT).div({root})\ns{n}[:, torch.ones({size}, {size}).triu(1).bool()] = -1e9\n{y} = s{n}.softmax(-1).bmm({a} @ {v})",
            "q{n}, k{n}, v{n} = {a} @ {q}, {a} @ {k}, {a} @ {v}\n{y} = torch.cat([F.scaled_dot_product_attention(q{n}[:, t : t + 1], k{n}[:, : t + 1], v{n}[:, : t + 1]) for t in range({size})], 1)",
        ),
        False,
    ),
    "several heads": Operation(
        1,
        lambda s: len(s) == 2 and s[1] % 2 == 0,
        heads,
        (
            "q{n}, k{n}, v{n} = (t.unflatten(2, (2, {d})).transpose(1, 2) for t in F.linear({a}, {w}, {p}).chunk(3, -1))\n{y} = F.linear(F.scaled_dot_product_attention(q{n}, k{n}, v{n}).transpose(1, 2).flatten(2), {u}, {v})",
            "q{n}, k{n}, v{n} = F.linear({a}, {w}, {p}).unflatten(2, (3, 2, {d})).permute(2, 0, 3, 1, 4)\n{y} = F.linear(((q{n} @ k{n}.mT / {root}).softmax(-1) @ v{n}).transpose(1, 2).reshape({a}.shape), {u}, {v})",
            "@self.f{n} = nn.MultiheadAttention({f}, 2, batch_first=True).double()\n@given(self.f{n}, in_proj_weight={w}, in_proj_bias={p}), given(self.f{n}.out_proj, weight={u}, bias={v})\n{y} = self.f{n}({a}, {a}, {a}, need_weights=False)[0]",
            "@self.f{n} = nn.MultiheadAttention({f}, 2, batch_first=True).double()\n@given(self.f{n}, in_proj_weight={w}, in_proj_bias={p}), given(self.f{n}.out_proj, weight={u}, bias={v})\n{y} = self.f{n}({a}, {a}, {a})[0]",
            "q{n}, k{n}, v{n} = (t.unflatten(2, (2, {d})) for t in ({a} @ {w}.T + {p}).split({f}, -1))\ns{n} = torch.einsum('nthd,nshd->nhts', q{n}, k{n}) / {root}\n{y} = torch.einsum('nhts,nshd->nthd', s{n}.softmax(-1), v{n}).flatten(2) @ {u}.T + {v}",
        ),
        False,
    ),
    "log of a sum of exponentials": Operation(
        1,
        lambda s: len(s) > 1 and min(s) > 1,
        axis,
        ("{y} = {a}.logsumexp({d})", "{y} = torch.logsumexp({a}, {d})", "{y} = {a}.exp().sum({d}).log()", "m{n} = {a}.amax({d}, keepdim=True)\n{y} = (({a} - m{n}).exp().sum({d}, keepdim=True).log() + m{n}).squeeze({d})", "m{n} = {a}.detach().amax({d}, keepdim=True)\n{y} = ({a} - m{n}).exp().sum({d}).log() + m{n}.squeeze({d})"),
        False,
    ),
    "pooling by attention": Operation(
        1,
        deep(2),
        pooled,
        (
            "{y} = torch.einsum('nt,ntf->nf', ({a} @ {w}).softmax(1), {a})",
            "{y} = (({a} @ {w}).softmax(1).unsqueeze(-1) * {a}).sum(1)",
            "{y} = (F.linear({a}, {w}[None]).softmax(1) * {a}).sum(dim=1)",
            "{y} = torch.bmm(F.softmax({a} @ {w}, dim=1)[:, None], {a})[:, 0]",
            "e{n} = ({a} @ {w}).exp()[..., None]\n{y} = (e{n} * {a}).sum(1) / e{n}.sum(1)",
        ),
        False,
    ),
    "bilinear": Operation(
        2,
        alike_rows,
        bilinear,
        (
            "{y} = F.bilinear({a}, {b}, {w}, {v})",
            "@self.f{n} = given(nn.Bilinear({i}, {i}, {o}), weight={w}, bias={v})\n{y} = self.f{n}({a}, {b})",
            "{y} = torch.einsum('n...i,oij,n...j->n...o', {a}, {w}, {b}) + {v}",
        ),
        False,
    ),
    "product along an axis": Operation(1, at_least(2), axis, ("{y} = {a}.prod({d})", "{y} = torch.prod({a}, {d})", "{y} = {a}.cumprod({d}).select({d}, -1)"), False),
    "length": Operation(1, at_least(2), nothing, ("{y} = ({a}.square().sum(-1) + 0.01).sqrt()", "{y} = (({a} * {a}).sum(-1) + 0.01) ** 0.5", "{y} = ({a}.pow(2).sum(dim=-1) + 0.01).pow(0.5)"), False),
    "cosine": Operation(
        2,
        lambda a, b: a == b and len(a) > 1,
        nothing,
        ("{y} = ({a} * {b}).sum(-1) / ({a}.norm(dim=-1) * {b}.norm(dim=-1) + 0.1)", "{y} = torch.einsum('n...f,n...f->n...', {a}, {b}) / (torch.linalg.vector_norm({a}, dim=-1) * torch.linalg.vector_norm({b}, dim=-1) + 0.1)"),
        False,
    ),
    "outer product": Operation(
        2,
        lambda a, b: len(a) == len(b) == 1,
        nothing,
        ("{y} = {a}[:, :, None] * {b}[:, None]", "{y} = torch.einsum('ni,nj->nij', {a}, {b})", "{y} = {a}.unsqueeze(2) @ {b}.unsqueeze(1)", "{y} = torch.bmm({a}[..., None], {b}[:, None, :])"),
        False,
    ),
    "power": Operation(1, anything, number(1.5, 3.0), ("{y} = ({a}.abs() + 0.1) ** {k}", "{y} = torch.pow({a}.abs() + 0.1, {k})", "{y} = ({a}.abs() + 0.1).pow({k})"), False),
    "softmax over the first axis": Operation(
        1,
        at_least(2),
        nothing,
        (
            "{y} = {a}.softmax(1)",
            "{y} = {a}.transpose(1, -1).softmax(-1).transpose(1, -1)",
            "@self.f{n} = nn.Softmax(dim=1)\n{y} = self.f{n}({a})",
            "e{n} = {a}.exp()\n{y} = e{n} / e{n}.sum(dim=1, keepdim=True)",
            "e{n} = ({a} - {a}.amax(1, keepdim=True)).exp_()\n{y} = e{n}.div_(e{n}.sum(1, keepdim=True))",
            "{y} = torch.stack({a}.unbind(1), -1).softmax(-1).movedim(-1, 1)",
        ),
        False,
    ),
    "gru": Operation(
        1,
        deep(2),
        gates(3),
        (
            "@self.f{n} = given(nn.GRU({i}, {h}, batch_first=True), weight_ih_l0={u}, weight_hh_l0={w}, bias_ih_l0={p}, bias_hh_l0={q})\n{y} = self.f{n}({a})[0]",
            "@self.f{n} = given(nn.GRUCell({i}, {h}), weight_ih={u}, weight_hh={w}, bias_ih={p}, bias_hh={q})\nl{n}, s{n} = {a}.new_zeros(len({a}), {h}), []\nfor i{n} in range({a}.shape[1]):\n    l{n} = self.f{n}({a}[:, i{n}], l{n})\n    s{n}.append(l{n})\n{y} = torch.stack(s{n}, 1)",
        ),
        False,
    ),
    "lstm": Operation(
        1,
        deep(2),
        gates(4),
        (
            "@self.f{n} = given(nn.LSTM({i}, {h}, batch_first=True), weight_ih_l0={u}, weight_hh_l0={w}, bias_ih_l0={p}, bias_hh_l0={q})\n{y} = self.f{n}({a})[0]",
            "@self.f{n} = given(nn.LSTMCell({i}, {h}), weight_ih={u}, weight_hh={w}, bias_ih={p}, bias_hh={q})\nl{n} = c{n} = {a}.new_zeros(len({a}), {h})\ns{n} = []\nfor i{n} in range({a}.shape[1]):\n    l{n}, c{n} = self.f{n}({a}[:, i{n}], (l{n}, c{n}))\n    s{n}.append(l{n})\n{y} = torch.stack(s{n}, 1)",
        ),
        False,
    ),
    "selective scan": Operation(
        1,
        deep(2),
        decays,
        (
            "g{n}, l{n}, s{n} = F.linear({a}, {w}, {v}).sigmoid(), torch.zeros_like({a}[:, 0]), []\nfor i{n} in range({size}):\n    l{n} = g{n}[:, i{n}] * l{n} + {a}[:, i{n}]\n    s{n}.append(l{n})\n{y} = torch.stack(s{n}, 1)",
            "g{n}, s{n} = torch.sigmoid({a} @ {w}.t() + {v}), torch.zeros_like({a}[:, 0])\n{y} = torch.empty_like({a})\nfor i{n}, x{n} in enumerate({a}.unbind(1)):\n    s{n} = x{n} + s{n} * g{n}[:, i{n}]\n    {y}[:, i{n}] = s{n}",
            "g{n}, s{n} = F.linear({a}, {w}, {v}).sigmoid().unbind(1), [torch.zeros_like({a}[:, 0])]\nfor i{n} in range({size}):\n    s{n}.append(torch.addcmul({a}[:, i{n}], g{n}[i{n}], s{n}[-1]))\n{y} = torch.stack(s{n}[1:], dim=1)",
        ),
        False,
    ),
}  # fmt: skip

BLOCKS: dict[str, Operation] = {**LINEAR_BLOCKS, **OTHER_BLOCKS}
