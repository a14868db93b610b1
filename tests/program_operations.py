"""What random programs are made of: operations of torch, each in the ways in which people write it.

`program_draws.Operation` says how a spelling is written. What is made of several of them is in `program_blocks`.
"""

from __future__ import annotations

from program_blocks import BLOCKS
from program_draws import (
    Operation,
    alike,
    anything,
    at_least,
    attention,
    axis,
    constant,
    deep,
    dense,
    filters,
    norm,
    nothing,
    number,
    recurrent,
    rows,
    slices,
    statistics,
)  # fmt: skip


def calls(
    name: str, arguments: str = "", *, module: str = "", inplace: bool = True, torch: bool = True
) -> tuple[str, ...]:
    """The ways to call a function of one tensor that is a method, too."""
    some = [f"{{y}} = {{a}}.{name}({arguments})"]
    if torch:
        some.append(f"{{y}} = torch.{name}({', '.join(filter(None, ('{a}', arguments)))})")
    if inplace:
        some.append(f"{{t}}.{name}_({arguments})")
    if module:
        some.append(f"@self.f{{n}} = nn.{module}\n{{y}} = self.f{{n}}({{a}})")
    return tuple(some)


# ---------------------------------------------------------------------------- moved, copied, cast

MOVES: dict[str, Operation] = {
    "copy": Operation(
        1,
        anything,
        nothing,
        (
            "{y} = {a}.clone()",
            "{y} = {a}[:]",
            "{y} = {a}[...]",
            "{y} = {a}.view_as({a})",
            "{y} = {a}.view({a}.shape)",
            "{y} = {a}[None][0]",
            "{y} = {a}.unsqueeze(1).squeeze(1)",
            "{y} = {a} * 1",
            "{y} = {a} + 0",
            "{y} = {a}.contiguous()",
            "{y} = {a}.to({a}.dtype)",
            "{y} = {a}.type_as({a})",
            "{y} = {a}.flip(1).flip(1)",
            "{y} = F.dropout({a}, 0.5, training=False)",
            "@self.f{n} = nn.Identity()\n{y} = self.f{n}({a})",
            "{y} = torch.zeros_like({a})\n{y}.copy_({a})",
            "{y} = torch.empty_like({a})\n{y}[:] = {a}",
        ),
        aliases=True,
    ),
    "swap": Operation(
        1,
        at_least(2),
        nothing,
        (
            "{y} = {a}.transpose(1, 2)",
            "{y} = {a}.swapaxes(2, 1)",
            "{y} = torch.transpose({a}, 1, 2)",
            "{y} = {a}.movedim(1, 2)",
            "{y} = torch.stack({a}.unbind(1), 2)",
            "{y} = torch.einsum('nab...->nba...', {a})",
        ),
        aliases=True,
    ),
    "flatten": Operation(
        1,
        at_least(2),
        nothing,
        (
            "{y} = {a}.flatten(1)",
            "{y} = {a}.reshape(len({a}), -1)",
            "{y} = {a}.contiguous().view(len({a}), -1)",
            "{y} = torch.flatten({a}, start_dim=1)",
            "@self.f{n} = nn.Flatten()\n{y} = self.f{n}({a})",
        ),
        aliases=True,
    ),
    "fold": Operation(
        1,
        lambda s: len(s) < 3 and s[0] in (4, 6, 8, 9),
        lambda random, s: ({"k": 3 if s[0] in (6, 9) else 2, "rest": s[0] // (3 if s[0] in (6, 9) else 2), "tail": s[1:]}, {}),
        (
            "{y} = {a}.unflatten(1, ({k}, {rest}))",
            "{y} = {a}.reshape(-1, {k}, {rest}, *{tail})",
            "{y} = torch.stack({a}.chunk({k}, 1), 1)",
            "{y} = torch.stack({a}.split({rest}, 1), dim=1)",
        ),
        aliases=True,
    ),
    "flip": Operation(1, anything, axis, ("{y} = {a}.flip({d})", "{y} = torch.flip({a}, ({d},))")),
    "roll": Operation(
        1,
        anything,
        axis,
        ("{y} = {a}.roll(1, {d})", "{y} = torch.roll({a}, 1, {d})", "{y} = torch.cat([{a}.narrow({d}, {size} - 1, 1), {a}.narrow({d}, 0, {size} - 1)], {d})"),
    ),
    "pick": Operation(
        1,
        anything,
        rows,
        (
            "{y} = {a}[:, list({picked})]",
            "{y} = {a}.index_select(1, torch.tensor({picked}))",
            "{y} = torch.index_select({a}, 1, torch.tensor({picked}))",
            "{y} = torch.stack([{a}[:, i] for i in {picked}], 1)",
            "{y} = {a}.gather(1, torch.tensor({picked}).reshape(1, -1, *{ones}).expand(len({a}), -1, *{tail}))",
            "{y} = torch.cat([{a}.narrow(1, i, 1) for i in {picked}], 1)",
        ),
    ),
    "slice": Operation(
        1,
        lambda s: s[0] > 1,
        slices,
        ("{y} = {a}[:, {i}:]", "{y} = {a}.narrow(1, {i}, {rest})", "{y} = {a}.split([{i}, {rest}], 1)[1]", "{y} = torch.tensor_split({a}, ({i},), 1)[1]"),
        aliases=True,
    ),
    "repeat": Operation(
        1,
        lambda s: len(s) < 3,
        nothing,
        (
            "{y} = torch.cat([{a}, {a}], 1)",
            "{y} = {a}.repeat(1, 2, *[1] * ({a}.ndim - 2))",
            "{y} = torch.hstack([{a}] * 2)",
            "{y} = {a}[:, None].expand(-1, 2, *{a}.shape[1:]).flatten(1, 2).contiguous()",
        ),
    ),
    "pad": Operation(
        1,
        lambda s: s[-1] < 5,
        nothing,
        (
            "{y} = F.pad({a}, (1, 0))",
            "{y} = torch.cat([torch.zeros_like({a}[..., :1]), {a}], -1)",
            "@self.f{n} = nn.ConstantPad1d((1, 0), 0.0)\n{y} = self.f{n}({a})",
            "{y} = {a}.new_zeros(*{a}.shape[:-1], {a}.shape[-1] + 1)\n{y}[..., 1:] = {a}",
        ),
    ),
    "float32": Operation(1, anything, nothing, ("{y} = {a}.float().double()", "{y} = {a}.to(torch.float32).to(torch.float64)", "{y} = {a}.type(torch.float32).type_as({a})"), digits=6),
    "bfloat16": Operation(1, anything, nothing, ("{y} = {a}.bfloat16().double()", "{y} = {a}.to(torch.bfloat16).to({a})"), digits=2),
}  # fmt: skip

# --------------------------------------------------------------------------------- linear, and picks

LINEAR: dict[str, Operation] = {
    "negate": Operation(
        1,
        anything,
        nothing,
        ("{y} = -{a}", "{y} = {a}.neg()", "{y} = torch.negative({a})", "{y} = {a} * -1", "{y} = 0 - {a}", "{t}.neg_()", "{y} = torch.rsub({a}, 0)"),
    ),
    "scale": Operation(
        1,
        anything,
        number(2.0, 0.5, -0.25),
        ("{y} = {a} * {k}", "{y} = {k} * {a}", "{y} = {a}.mul({k})", "{y} = torch.mul({a}, {k})", "{y} = {a} / (1 / {k})", "{t}.mul_({k})", "{t} *= {k}", "{t} /= 1 / {k}", "{y} = {a}.div(1 / {k})"),
    ),
    "shift": Operation(
        1,
        anything,
        number(0.3, -0.7),
        ("{y} = {a} + {k}", "{y} = {k} + {a}", "{y} = {a}.add({k})", "{y} = torch.add({a}, {k} / 2, alpha=2)", "{y} = {a} - (-{k})", "{t} += {k}", "{t}.add_({k})", "{t}.sub_(-{k})"),
    ),
    "scale by a row": Operation(
        1,
        anything,
        constant("last"),
        ("{y} = {a} * {c}", "{y} = {c} * {a}", "{y} = torch.mul({a}, {c})", "{t}.mul_({c})", "{t} *= {c}", "{y} = {a} * {c}.expand_as({a})"),
    ),
    "scale by channel": Operation(1, anything, constant("channel"), ("{y} = {a} * {c}", "{y} = {c} * {a}", "{t}.mul_({c})", "{y} = {a} / (1 / {c})")),
    "shift by a row": Operation(
        1,
        anything,
        constant("last"),
        ("{y} = {a} + {c}", "{y} = {c} + {a}", "{y} = {a} - (-{c})", "{t} += {c}", "{t}.add_({c})", "{y} = torch.add({a}, {c} / 2, alpha=2)"),
    ),
    "shift by channel": Operation(1, anything, constant("channel"), ("{y} = {a} + {c}", "{y} = {c} + {a}", "{t} += {c}", "{y} = {a} - (0 - {c})")),
    "shift by an image": Operation(1, anything, constant("whole"), ("{y} = {a} + {c}", "{y} = {c} + {a}", "{t} += {c}", "{t}.add_({c})")),
    "mask": Operation(
        1,
        anything,
        constant("whole", "mask"),
        (
            "{y} = torch.where({c}, {a}, 0.0)",
            "{y} = {a}.masked_fill(~{c}, 0.0)",
            "{t}.masked_fill_(~{c}, 0.0)",
            "{t}[:, ~{c}] = 0.0",
            "{y} = torch.where(~{c}, torch.zeros_like({a}), {a})",
            "{y} = {a}.where({c}, torch.zeros(()).to({a}))",
        ),
    ),
    "total": Operation(1, at_least(2), axis, ("{y} = {a}.sum({d})", "{y} = torch.sum({a}, {d})", "{y} = {a}.sum(dim=({d},))", "{y} = {a}.mean({d}) * {size}")),
    "mean": Operation(1, at_least(2), axis, ("{y} = {a}.mean({d})", "{y} = torch.mean({a}, dim={d})", "{y} = {a}.sum({d}) / {size}", "{y} = {a}.mean({d}, keepdim=True).squeeze({d})")),
    "centre": Operation(1, anything, nothing, ("{y} = {a} - {a}.mean(-1, keepdim=True)", "{y} = {a} - {a}.sum(-1, keepdim=True) / {a}.shape[-1]", "{y} = torch.sub({a}, {a}.mean(dim=-1)[..., None])")),
    "cumsum": Operation(1, anything, axis, ("{y} = {a}.cumsum({d})", "{y} = torch.cumsum({a}, {d})", "{t}.cumsum_({d})")),
    "differences": Operation(1, lambda s: s[-1] > 1, nothing, ("{y} = {a}.diff()", "{y} = {a}[..., 1:] - {a}[..., :-1]", "{y} = torch.sub({a}[..., 1:], {a}[..., :-1])")),
    "average pool": Operation(1, lambda s: len(s) == 2 and s[1] % 2 == 0, nothing, ("{y} = F.avg_pool1d({a}, 2)", "@self.f{n} = nn.AvgPool1d(2)\n{y} = self.f{n}({a})", "{y} = F.adaptive_avg_pool1d({a}, {a}.shape[2] // 2)")),
    "upsample": Operation(1, lambda s: len(s) == 2 and s[1] < 4, nothing, ("{y} = F.interpolate({a}, scale_factor=2)", "{y} = {a}.repeat_interleave(2, 2)", "@self.f{n} = nn.Upsample(scale_factor=2)\n{y} = self.f{n}({a})")),
    "relu": Operation(
        1,
        anything,
        nothing,
        (
            *calls("relu", module="ReLU()"),
            "{y} = F.relu({a})",
            "{t} = F.relu({t}, inplace=True)",
            "@self.f{n} = nn.ReLU(inplace=True)\n{t} = self.f{n}({t})",
            "{y} = {a}.clamp(min=0)",
            "{y} = {a}.clamp_min(0)",
            "{y} = torch.clamp({a}, 0)",
            "{t}.clamp_(min=0)",
            "{t}.clamp_min_(0.0)",
            "{y} = F.threshold({a}, 0, 0)",
            "@self.f{n} = nn.Threshold(0, 0)\n{y} = self.f{n}({a})",
            "{y} = torch.maximum({a}, torch.zeros_like({a}))",
            "{y} = torch.maximum({a}, torch.zeros(()).to({a}))",
            "{y} = torch.where({a} >= 0, {a}, 0.0)",
            "{y} = {a} * ({a} >= 0)",
            "{y} = {a}.masked_fill({a} < 0, 0)",
            "{t}[{t} < 0] = 0.0",
        ),
    ),
    "leaky relu": Operation(
        1,
        anything,
        nothing,
        (
            "{y} = F.leaky_relu({a}, 0.1)",
            "@self.f{n} = nn.LeakyReLU(0.1)\n{y} = self.f{n}({a})",
            "{t} = F.leaky_relu({t}, 0.1, inplace=True)",
            "{y} = torch.where({a} > 0, {a}, 0.1 * {a})",
            "{y} = torch.maximum({a}, 0.1 * {a})",
            "{y} = F.prelu({a}, {a}.new_tensor([0.1]))",
        ),
    ),
    "size": Operation(1, anything, nothing, (*calls("abs"), "{y} = torch.where({a} < 0, -{a}, {a})", "{y} = torch.maximum({a}, -{a})", "{y} = abs({a})")),
    "largest": Operation(1, at_least(2), axis, ("{y} = {a}.max({d}).values", "{y} = torch.max({a}, {d})[0]", "{y} = {a}.amax({d})", "{y} = {a}.topk(1, {d}).values.squeeze({d})", "{y} = {a}.sort({d}).values.select({d}, -1)")),
    "sort": Operation(1, anything, axis, ("{y} = {a}.sort({d}).values", "{y} = torch.sort({a}, dim={d})[0]", "{y} = {a}.gather({d}, {a}.argsort({d}))")),
    "max pool": Operation(1, lambda s: len(s) == 2 and s[1] > 1, nothing, ("{y} = F.max_pool1d({a}, 2, 1)", "@self.f{n} = nn.MaxPool1d(2, stride=1)\n{y} = self.f{n}({a})", "{y} = {a}.unfold(2, 2, 1).max(-1).values", "{y} = torch.maximum({a}[:, :, :-1], {a}[:, :, 1:])")),
    "write into a slice": Operation(
        1,
        lambda s: s[0] > 1,
        slices,
        (
            "{y} = torch.cat([{a}[:, :{i}] * {k}, {a}[:, {i}:]], 1)",
            "{t}[:, :{i}] *= {k}",
            "{t}[:, :{i}].mul_({k})",
            "{y} = {a}.clone()\nv{n} = {y}[:, :{i}]\nv{n} *= {k}",
            "{y} = torch.empty_like({a})\n{y}[:, {i}:] = {a}[:, {i}:]\n{y}[:, :{i}] = {a}[:, :{i}] * {k}",
            "{y} = {a}.clone()\n{y}[:, :{i}] = {a}[:, :{i}] * {k}",
        ),
    ),
    "relu of a slice": Operation(
        1,
        lambda s: s[0] > 1,
        slices,
        (
            "{y} = torch.cat([{a}[:, :{i}].relu(), {a}[:, {i}:]], 1)",
            "{t}[:, :{i}].relu_()",
            "{y} = {a}.clone()\nF.relu({y}[:, :{i}], inplace=True)",
            "{y} = {a}.clone()\n{y}[:, :{i}] = {a}[:, :{i}].clamp(min=0)",
        ),
    ),
    "spectrum": Operation(
        1,
        lambda s: s[-1] > 1,
        nothing,
        (
            "{y} = torch.fft.fft({a}).abs()",
            "{y} = torch.view_as_real(torch.fft.fft({a})).norm(dim=-1)",
            "z{n} = torch.fft.fft({a})\n{y} = (z{n}.real ** 2 + z{n}.imag ** 2).sqrt()",
            "z{n} = torch.fft.fft({a})\n{y} = (z{n} * z{n}.conj()).real.sqrt()",
        ),
        exact=False,  # the gradient of a root of 0 is NaN
    ),
    "filter": Operation(
        1,
        lambda s: s[-1] > 1,
        constant("last"),
        (
            "{y} = torch.fft.ifft(torch.fft.fft({a}) * {c}).real",
            "z{n} = torch.fft.fft({a})\n{y} = torch.view_as_real(torch.fft.ifft(torch.complex(z{n}.real * {c}, z{n}.imag * {c})))[..., 0]",
        ),
    ),
    "add": Operation(
        2,
        alike,
        nothing,
        ("{y} = {a} + {b}", "{y} = torch.add({a}, {b})", "{y} = {b}.add({a})", "{t} += {b}", "{t}.add_({b})", "{y} = sum([{a}, {b}])", "{y} = torch.stack([{a}, {b}]).sum(0)", "{y} = {a} - (-{b})"),
    ),
    "add scaled": Operation(2, alike, number(2.0, -0.5), ("{y} = {a} + {k} * {b}", "{y} = torch.add({a}, {b}, alpha={k})", "{t}.add_({b}, alpha={k})", "{t} += {b} * {k}", "{y} = {a}.sub({b}, alpha=-({k}))")),
    "subtract": Operation(2, alike, nothing, ("{y} = {a} - {b}", "{y} = torch.sub({a}, {b})", "{t} -= {b}", "{t}.sub_({b})", "{y} = torch.rsub({b}, {a})", "{y} = -{b} + {a}")),
    "maximum": Operation(2, alike, nothing, ("{y} = torch.maximum({a}, {b})", "{y} = torch.where({a} > {b}, {a}, {b})", "{y} = torch.stack([{a}, {b}]).max(0).values", "{y} = torch.max({a}, {b})", "{y} = -torch.minimum(-{a}, -{b})")),
    "choose": Operation(2, alike, constant("whole", "mask"), ("{y} = torch.where({c}, {a}, {b})", "{y} = {a}.where({c}, {b})", "{t}[:, ~{c}] = {b}[:, ~{c}]")),
    "cat": Operation(
        2,
        lambda a, b: len(a) == len(b) and a[1:] == b[1:] and a[0] + b[0] < 9,
        lambda random, a, b: ({"i": a[0], "all": a[0] + b[0], "tail": a[1:]}, {}),
        (
            "{y} = torch.cat([{a}, {b}], 1)",
            "{y} = torch.hstack(({a}, {b}))",
            "{y} = {a}.new_zeros(len({a}), {all}, *{tail})\n{y}[:, :{i}] = {a}\n{y}[:, {i}:] = {b}",
            "{y} = {a}.new_empty(len({a}), {all}, *{tail})\n{y}[:, :{i}].copy_({a})\n{y}[:, {i}:].copy_({b})",
            "{y} = torch.concat(({a}, {b}), dim=1)",
        ),
    ),
}  # fmt: skip

# ------------------------------------------------------------------------------------- with weights

WEIGHTED: dict[str, Operation] = {
    "linear": Operation(
        1,
        lambda s: len(s) < 3,
        dense,
        (
            "{y} = F.linear({a}, {w}, {v})",
            "@self.f{n} = given(nn.Linear({i}, {o}), weight={w}, bias={v})\n{y} = self.f{n}({a})",
            "{y} = {a} @ {w}.t() + {v}",
            "{y} = {a}.matmul({w}.T) + {v}",
            "{y} = {v} + torch.matmul({a}, {w}.transpose(0, 1))",
            "{y} = torch.einsum('n...f,of->n...o', {a}, {w}) + {v}",
            "{y} = F.linear({a}, {w})\n{y} += {v}",
            "{y} = F.linear(input={a}, weight={w}, bias={v})",
            "{y} = torch.addmm({v}, {a}, {w}.t()) if {a}.ndim == 2 else F.linear({a}, {w}, {v})",
            "{y} = F.linear({a}.contiguous(), {w}, bias=None).add({v})",
            "{y} = F.linear({a}.transpose(0, 1), {w}, {v}).transpose(0, 1) if {a}.ndim == 3 else F.linear({a}, {w}, {v})",
            "{y} = F.linear({a}.flatten(0, -2), {w}, {v}).unflatten(0, {a}.shape[:-1])",
        ),
    ),
    "linear without bias": Operation(
        1,
        lambda s: len(s) < 3,
        dense,
        (
            "{y} = F.linear({a}, {w})",
            "@self.f{n} = given(nn.Linear({i}, {o}, bias=False), weight={w})\n{y} = self.f{n}({a})",
            "{y} = {a} @ {w}.t()",
            "{y} = torch.matmul({a}, {w}.mT)",
            "{y} = torch.einsum('of,n...f->n...o', {w}, {a})",
            "{y} = {a}.mm({w}.t()) if {a}.ndim == 2 else {a} @ {w}.t()",
        ),
    ),
    "conv1d": Operation(
        1,
        lambda s: len(s) == 2 and s[1] > 1,
        filters(1),
        (
            "{y} = F.conv1d({a}, {w}, {v}, stride={s}, padding={p})",
            "@self.f{n} = given(nn.Conv1d({i}, {o}, {k}, {s}, {p}), weight={w}, bias={v})\n{y} = self.f{n}({a})",
            "{y} = torch.conv1d({a}, {w}, None, {s}, {p}) + {v}[:, None]",
            "{y} = F.conv1d({a}, {w}, stride={s}, padding={p})\n{y} += {v}.reshape(1, -1, 1)",
            "{y} = F.conv2d({a}.unsqueeze(2), {w}.unsqueeze(2), {v}, (1, {s}), (0, {p})).squeeze(2)",
        ),
    ),
    "conv2d": Operation(
        1,
        lambda s: len(s) == 3 and min(s[1:]) > 1,
        filters(2),
        (
            "{y} = F.conv2d({a}, {w}, {v}, stride={s}, padding={p})",
            "@self.f{n} = given(nn.Conv2d({i}, {o}, {k}, {s}, {p}), weight={w}, bias={v})\n{y} = self.f{n}({a})",
            "{y} = torch.conv2d({a}, {w}, None, {s}, {p}) + {v}[:, None, None]",
        ),
    ),
    "turned conv1d": Operation(
        1,
        deep(2),
        filters(1, turned=True),
        (
            "{y} = F.conv_transpose1d({a}, {w}, {v}, stride={s})",
            "@self.f{n} = given(nn.ConvTranspose1d({i}, {o}, {k}, {s}), weight={w}, bias={v})\n{y} = self.f{n}({a})",
            "{y} = F.conv_transpose1d({a}, {w}, stride={s}) + {v}[:, None]",
        ),
    ),
    "batch norm": Operation(
        1,
        anything,
        statistics,
        (
            "{y} = F.batch_norm({a}, {m}, {var}, {g}, {v})",
            "@self.f{n} = given(nn.BatchNorm1d({i}), running_mean={m}, running_var={var}, weight={g}, bias={v})\n{y} = self.f{n}({a}.flatten(2)).reshape({a}.shape) if {a}.ndim > 3 else self.f{n}({a})",
            "{y} = torch.batch_norm({a}, {g}, {v}, {m}, {var}, False, 0.1, 1e-5, False)",
            "{y} = ({a} - {m}.reshape(-1, *{ones})) * ({var}.reshape(-1, *{ones}) + 1e-5).rsqrt() * {g}.reshape(-1, *{ones}) + {v}.reshape(-1, *{ones})",
            "{y} = ({a} - {m}.reshape(-1, *{ones})) / ({var} + 1e-5).sqrt().reshape(-1, *{ones}) * {g}.reshape(-1, *{ones}) + {v}.reshape(-1, *{ones})",
        ),
    ),
    "heads": Operation(
        1,
        deep(2),
        lambda random, s: ({}, {"w": ("weight", (2, s[1], 2))}),
        ("{y} = torch.einsum('ntf,hfd->nhtd', {a}, {w})", "{y} = torch.einsum('hfd,ntf->nhtd', {w}, {a})", "{y} = torch.einsum('n t f, h f d -> n h t d', [{a}, {w}])"),
    ),
}  # fmt: skip

# ------------------------------------------------------------------------------------------- smooth

SMOOTH: dict[str, Operation] = {
    "sigmoid": Operation(
        1,
        anything,
        nothing,
        (
            *calls("sigmoid", module="Sigmoid()"),
            "{y} = F.sigmoid({a})",
            "{y} = torch.special.expit({a})",
            "{y} = 1 / (1 + (-{a}).exp())",
            "{y} = (1 + torch.exp(-{a})).reciprocal()",
            "{y} = 1 - (-{a}).sigmoid()",
            "{y} = 0.5 * (1 + torch.tanh({a} / 2))",
            "e{n} = {a}.exp()\n{y} = e{n} / (1 + e{n})",
        ),
        False,
    ),
    "tanh": Operation(1, anything, nothing, (*calls("tanh", module="Tanh()"), "{y} = 2 * torch.sigmoid(2 * {a}) - 1", "e{n} = (2 * {a}).exp()\n{y} = (e{n} - 1) / (e{n} + 1)", "{y} = F.tanh({a})"), False),
    "silu": Operation(
        1,
        anything,
        nothing,
        (
            "{y} = F.silu({a})",
            "@self.f{n} = nn.SiLU()\n{y} = self.f{n}({a})",
            "{t} = F.silu({t}, inplace=True)",
            "{y} = {a} * torch.sigmoid({a})",
            "{y} = {a}.sigmoid() * {a}",
            "{y} = {a} / (1 + torch.exp(-{a}))",
            "s{n} = torch.sigmoid({a})\n{y} = s{n}.mul_({a})",
            "{y} = {a} * torch.sigmoid({a}.clone())",
            "{y} = {a}.view({a}.shape) * torch.sigmoid({a})",
        ),
        False,
    ),
    "gelu": Operation(
        1,
        anything,
        nothing,
        (
            "{y} = F.gelu({a})",
            "@self.f{n} = nn.GELU()\n{y} = self.f{n}({a})",
            "{y} = 0.5 * {a} * (1 + torch.erf({a} / 2**0.5))",
            "{y} = {a} * 0.5 * (1.0 + ({a} * 0.5**0.5).erf())",
            "{y} = {a} * torch.special.ndtr({a})",
            "{y} = 0.5 * {a} * torch.erfc(-{a} / 2**0.5)",
        ),
        False,
    ),
    "gelu by tanh": Operation(
        1,
        anything,
        nothing,
        (
            "{y} = F.gelu({a}, approximate='tanh')",
            "{y} = 0.5 * {a} * (1 + torch.tanh((2 / torch.pi) ** 0.5 * ({a} + 0.044715 * {a}**3)))",
            "{y} = 0.5 * {a} * (1 + torch.tanh((2 / torch.pi) ** 0.5 * ({a} + 0.044715 * {a} * {a} * {a})))",
            "{y} = {a} * torch.sigmoid(2 * (2 / torch.pi) ** 0.5 * ({a} + 0.044715 * torch.pow({a}, 3)))",
        ),
        False,
    ),
    "softplus": Operation(
        1,
        anything,
        nothing,
        ("{y} = F.softplus({a})", "@self.f{n} = nn.Softplus()\n{y} = self.f{n}({a})", "{y} = (1 + {a}.exp()).log()", "{y} = {a}.exp().log1p()", "{y} = -F.logsigmoid(-{a})"),
        False,
    ),
    "mish": Operation(1, anything, nothing, ("{y} = F.mish({a})", "{y} = {a} * F.softplus({a}).tanh()", "{y} = {a} * torch.tanh(torch.log1p({a}.exp()))"), False),
    "elu": Operation(1, anything, nothing, ("{y} = F.elu({a})", "{t} = F.elu({t}, inplace=True)", "@self.f{n} = nn.ELU()\n{y} = self.f{n}({a})", "{y} = F.celu({a})"), False),
    "hard sigmoid": Operation(1, anything, nothing, ("{y} = F.hardsigmoid({a})", "{y} = F.relu6({a} + 3) / 6", "{y} = ({a} / 6 + 0.5).clamp(0, 1)"), False),
    "hard swish": Operation(1, anything, nothing, ("{y} = F.hardswish({a})", "{y} = {a} * F.hardsigmoid({a})", "{y} = {a} * F.relu6({a} + 3) / 6"), False),
    "square": Operation(1, anything, nothing, ("{y} = {a} ** 2", "{y} = {a} * {a}", "{y} = {a}.square()", "{y} = {a}.pow(2)", "{y} = torch.square({a})", "{t}.square_()", "{t}.pow_(2)", "{y} = torch.pow({a}, 2)", "{y} = {a}.clone() * {a}"), False),
    "exp": Operation(1, anything, nothing, (*calls("exp"), "{y} = torch.pow(torch.e, {a})"), False),
    "sine": Operation(1, anything, nothing, calls("sin"), False),
    "clip": Operation(
        1,
        anything,
        nothing,
        ("{y} = {a}.clamp(-0.5, 0.5)", "{y} = F.hardtanh({a}, -0.5, 0.5)", "{y} = torch.clip({a}, min=-0.5, max=0.5)", "{t}.clamp_(-0.5, 0.5)", "{y} = {a}.clamp_max(0.5).clamp_min(-0.5)", "@self.f{n} = nn.Hardtanh(-0.5, 0.5)\n{y} = self.f{n}({a})"),
        False,
    ),
    "capped relu": Operation(
        1,
        anything,
        nothing,
        ("{y} = {a}.clamp(0, 0.7)", "{y} = F.hardtanh({a}, 0, 0.7)", "{t} = F.hardtanh({t}, 0, 0.7, inplace=True)", "{t}.clamp_(0, 0.7)", "{y} = {a}.relu().clamp_max(0.7)", "{y} = F.relu6({a} * (6 / 0.7)) * (0.7 / 6)"),
        False,
    ),
    "softmax": Operation(
        1,
        anything,
        nothing,
        (
            "{y} = {a}.softmax(-1)",
            "{y} = F.softmax({a}, dim=-1)",
            "@self.f{n} = nn.Softmax(-1)\n{y} = self.f{n}({a})",
            "{y} = torch.softmax(input={a}, dim=-1)",
            "e{n} = {a}.exp()\n{y} = e{n} / e{n}.sum(-1, keepdim=True)",
            "e{n} = ({a} - {a}.amax(-1, keepdim=True)).exp()\n{y} = e{n} / e{n}.sum(-1, keepdim=True)",
            "e{n} = ({a} - {a}.detach().max(-1, keepdim=True).values).exp()\n{y} = e{n} / e{n}.sum(-1, keepdim=True)",
            "e{n} = torch.exp({a})\n{y} = e{n} / torch.sum(e{n}, dim=-1)[..., None]",
            "{y} = ({a} - {a}.logsumexp(-1, keepdim=True)).exp()",
            "{y} = {a}.log_softmax(-1).exp()",
            "e{n} = {a}.exp()\ne{n} /= e{n}.sum(-1, keepdim=True)\n{y} = e{n}",
        ),
        False,
    ),
    "log softmax": Operation(1, anything, nothing, ("{y} = {a}.log_softmax(-1)", "{y} = F.log_softmax({a}, -1)", "{y} = {a} - {a}.logsumexp(-1, keepdim=True)", "@self.f{n} = nn.LogSoftmax(-1)\n{y} = self.f{n}({a})"), False),
    "multiply": Operation(
        2,
        alike,
        nothing,
        ("{y} = {a} * {b}", "{y} = torch.mul({a}, {b})", "{t} *= {b}", "{t}.mul_({b})", "{y} = {b}.multiply({a})", "{y} = torch.einsum('n...,n...->n...', {a}, {b})", "{y} = torch.addcmul(torch.zeros(()).to({a}), {a}, {b})"),
        False,
    ),
    "divide": Operation(
        2,
        alike,
        nothing,
        ("{y} = {a} / ({b}.abs() + 1)", "{y} = torch.div({a}, 1 + {b}.abs())", "{t} /= {b}.abs() + 1", "{y} = {a}.true_divide({b}.abs() + 1)", "{t}.div_(1 + torch.abs({b}))"),
        False,
    ),
    "matrix product": Operation(
        2,
        lambda a, b: len(a) == len(b) == 2 and a[1] == b[1],
        nothing,
        ("{y} = {a} @ {b}.mT", "{y} = torch.matmul({a}, {b}.transpose(1, 2))", "{y} = torch.bmm({a}, {b}.transpose(-1, -2))", "{y} = torch.einsum('ntd,nsd->nts', {a}, {b})", "{y} = {a}.matmul({b}.mT)"),
        False,
    ),
    "attention": Operation(
        1,
        deep(2),
        attention,
        (
            "{y} = F.scaled_dot_product_attention({a} @ {q}, {a} @ {k}, {a} @ {v})",
            "{y} = (({a} @ {q}) @ ({a} @ {k}).mT / {root}).softmax(-1) @ ({a} @ {v})",
            "{y} = torch.softmax(({a} @ {q} / {root}) @ ({a} @ {k}).mT, -1) @ ({a} @ {v})",
            "s{n} = torch.bmm({a} @ {q}, ({a} @ {k}).transpose(1, 2)) / {root}\n{y} = torch.bmm(F.softmax(s{n}, -1), {a} @ {v})",
            "e{n} = torch.exp(torch.einsum('ntd,nsd->nts', {a} @ {q}, {a} @ {k}) / {root})\n{y} = torch.einsum('nts,nsd->ntd', e{n} / e{n}.sum(-1, keepdim=True), {a} @ {v})",
        ),
        False,
    ),
    "layer norm": Operation(
        1,
        lambda s: s[-1] > 1,
        norm,
        (
            "{y} = F.layer_norm({a}, ({i},), {g}, {v}, {eps})",
            "@self.f{n} = given(nn.LayerNorm({i}, {eps}), weight={g}, bias={v})\n{y} = self.f{n}({a})",
            "c{n} = {a} - {a}.mean(-1, keepdim=True)\n{y} = c{n} / (c{n}.pow(2).mean(-1, keepdim=True) + {eps}).sqrt() * {g} + {v}",
            "c{n} = {a} - {a}.mean(-1, keepdim=True)\n{y} = c{n} * torch.rsqrt({a}.var(-1, correction=0, keepdim=True) + {eps}) * {g} + {v}",
            "m{n} = {a}.mean(-1, keepdim=True)\n{y} = {g} * ({a} - m{n}) / torch.sqrt((({a} - m{n}) ** 2).mean(-1, keepdim=True) + {eps}) + {v}",
            "s{n} = torch.var_mean({a}, -1, correction=0, keepdim=True)\n{y} = ({a} - s{n}[1]) * (s{n}[0] + {eps}) ** -0.5 * {g} + {v}",
            "m{n} = {a}.mean(-1, keepdim=True)\n{y} = ({a} - m{n}) * ({a}.square().mean(-1, keepdim=True) - m{n} * m{n} + {eps}).rsqrt() * {g} + {v}",
        ),
        False,
    ),
    "rms norm": Operation(
        1,
        anything,
        norm,
        (
            "{y} = F.rms_norm({a}, ({i},), {g}, {eps})",
            "@self.f{n} = given(nn.RMSNorm({i}, {eps}), weight={g})\n{y} = self.f{n}({a})",
            "{y} = {a} * torch.rsqrt({a}.pow(2).mean(-1, keepdim=True) + {eps}) * {g}",
            "{y} = {g} * ({a} / (({a} * {a}).mean(-1, keepdim=True) + {eps}).sqrt())",
            "{y} = {a} / torch.sqrt({a}.square().sum(-1, keepdim=True) / {i} + {eps}) * {g}",
        ),
        False,
    ),
    "normalise": Operation(
        1,
        lambda s: s[-1] > 1,
        nothing,
        ("{y} = {a} / ({a}.norm(dim=-1, keepdim=True) + 0.1)", "{y} = {a} / (torch.linalg.vector_norm({a}, dim=-1, keepdim=True) + 0.1)", "{t} /= {t}.norm(dim=-1, keepdim=True) + 0.1"),
        False,
    ),
}  # fmt: skip

RECURRENT: dict[str, Operation] = {
    "recurrent": Operation(
        1,
        deep(2),
        recurrent,
        (
            "@self.f{n} = given(nn.RNN({i}, {h}, batch_first=True), weight_ih_l0={u}, weight_hh_l0={w}, bias_ih_l0={p}, bias_hh_l0={q})\n{y} = self.f{n}({a})[0]",
            "h{n}, s{n} = {a}.new_zeros(len({a}), {h}), []\nfor i{n} in range({a}.shape[1]):\n    h{n} = F.linear(torch.cat([{a}[:, i{n}], h{n}], 1), torch.cat([{u}, {w}], 1), {p} + {q}).tanh()\n    s{n}.append(h{n})\n{y} = torch.stack(s{n}, 1)",
        ),
        False,
    ),
}  # fmt: skip

SINGLE: dict[str, Operation] = {**MOVES, **LINEAR, **WEIGHTED, **SMOOTH, **RECURRENT}
TABLE: dict[str, Operation] = {**SINGLE, **BLOCKS}
EXACT = tuple(name for name, operation in TABLE.items() if operation.exact)
