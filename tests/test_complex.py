"""Complex numbers inside a network: Fourier transforms, the modulus, complex layers. A complex number is two real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference as ref
import relprop
from relprop.errors import InputError, TargetError, UnsupportedOperationError
from test_whole_networks import RULES, close

F64 = torch.float64
C128 = torch.complex128


def spectrum(x: Tensor) -> Tensor:
    return torch.fft.rfft(x)


def randn(*shape: int, dtype: torch.dtype = C128) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


class Layer(nn.Module):
    """One complex layer, in the form that is named, between a Fourier transform and a modulus."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        channels = {"conv1d": 2, "conv1d in groups": 4, "transposed conv1d": 2, "fourier layer": 2}.get(form, 1)
        self.channels = channels
        if form == "linear":
            self.inner: Any = nn.Linear(5, 4, dtype=C128)
        elif form == "conv1d":
            self.inner = nn.Conv1d(2, 3, 3, padding=1, stride=2, dtype=C128)
        elif form == "conv1d in groups":
            self.inner = nn.Conv1d(4, 6, 2, groups=2, dtype=C128)
        elif form == "transposed conv1d":
            self.inner = nn.ConvTranspose1d(2, 3, 2, dtype=C128)
        else:
            shape = {"fourier layer": (2, 3, 5), "matmul": (5, 4), "matmul from the left": (4, 5), "mv": (4, 5)}[form]
            self.inner = nn.Parameter(randn(*shape))
        self.double()

    def apply_to(self, z: Tensor) -> Tensor:
        w = self.inner
        if self.form == "fourier layer":
            return torch.einsum("bik,iok->bok", z, w)
        if self.form == "matmul":
            return z @ w
        if self.form == "matmul from the left":
            return (w @ z[..., None])[..., 0]
        return self.inner(z)

    def before(self, x: Tensor) -> Tensor:
        """The layer's input, the same numbers on each of its channels, scaled apart."""
        z = spectrum(x)
        if self.channels > 1:
            z = z[:, None] * torch.arange(1, self.channels + 1, dtype=F64)[:, None]
        return z

    def forward(self, x: Tensor) -> Tensor:
        return self.apply_to(self.before(x)).abs().flatten(1)


def dense(layer: Layer, x: Tensor, rule: ref.Rule, target: int) -> Tensor:
    """Relevance of the modulus `target`, by the rule on the real layer that the complex one is."""
    z = layer.before(x)
    parts = torch.view_as_real(z)
    y = torch.view_as_real(layer.apply_to(z))
    score = torch.zeros_like(y[..., 0]).flatten(1)
    modulus = y.pow(2).sum(-1).sqrt()
    score[:, target] = modulus.flatten(1)[:, target]
    arrives = y.pow(2) / modulus.pow(2)[..., None] * score.reshape(modulus.shape)[..., None]

    def real(v: Tensor) -> Tensor:
        return torch.view_as_real(layer.apply_to(torch.view_as_complex(v.contiguous())))

    found = ref.weighted(rule)(real, parts, arrives)
    g = torch.where(parts == 0, 0.0, found / parts)  # a zero that no input made keeps what it gets
    leaf = x.clone().requires_grad_()
    (back,) = torch.autograd.grad(torch.view_as_real(layer.before(leaf)), leaf, g)
    return x * back


FORMS = [
    "linear", "conv1d", "conv1d in groups", "transposed conv1d", "fourier layer", "matmul", "matmul from the left",
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("form", FORMS)
def test_a_complex_layer_is_a_real_layer_of_both_parts(form: str, rule: str) -> None:
    ours, naive = RULES[rule]
    layer, x = Layer(form).eval(), torch.randn(2, 8, dtype=F64)
    R = relprop.attribute(layer, x, 1, composite=relprop.Composite({"conv": ours, "linear": ours}))
    assert torch.equal(R.output, layer(x).detach())
    close(R.values, dense(layer, x, naive, 1).detach())


# ------------------------------------------------------------------------------- functions of complex numbers

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "abs squared": lambda z: z.abs() ** 2,
    "square": torch.square,
    "power": lambda z: z**3,
    "times itself": lambda z: z * z,
    "times its conjugate": lambda z: z * z.conj(),
    "times its modulus": lambda z: z * z.abs(),
    "phase": lambda z: z / z.abs(),
    "sgn": torch.sgn,
    "tanh": torch.tanh,
    "sinh": torch.sinh,
    "sin": torch.sin,
    "conj": torch.conj,
    "turned": lambda z: z * torch.exp(torch.tensor(0.7j, dtype=C128)),
    "sum": lambda z: z.sum(1, keepdim=True),
    "norm": lambda z: torch.linalg.vector_norm(z, dim=1, keepdim=True),
    "correlation": lambda z: z * z.roll(1, 1).conj(),
    "both": lambda z: torch.cat([z, z * z], 1),
    "parts": lambda z: torch.complex(torch.relu(z.real), torch.relu(z.imag)),
    "back and forth": lambda z: torch.fft.rfft(torch.relu(torch.fft.irfft(z, n=8))),
}
HEADS: dict[str, Callable[[Tensor], Tensor]] = {
    "real": lambda z: z.real,
    "both parts": lambda z: torch.view_as_real(z + 0j).flatten(1),
    "modulus": lambda z: torch.sqrt(z.real**2 + z.imag**2) if z.is_complex() else z,
}


@pytest.mark.parametrize("composite", ["zero", "epsilon_plus_flat", "gamma_box", "auto", "attnlrp"])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_zero_at_zero_hands_all_relevance_on(name: str, head: str, composite: str) -> None:
    weight = torch.randn(3, 32, dtype=F64)

    def model(x: Tensor) -> Tensor:
        y = HEADS[head](FUNCTIONS[name](spectrum(x)))
        return F.linear(y, weight[:, : y.shape[1]])

    x = torch.randn(2, 8, dtype=F64)
    R = relprop.attribute(model, x, 1, composite=composite, ledger=True)
    close(sum(R.ledger.values(), torch.zeros(2, dtype=F64)), R.residual)
    close(R.values.sum(1) + R.residual, R.score)
    zeros = (
        head == "both parts" or name == "parts"
    )  # zeros that no zero of an input made keep what a flat rule gives them
    if composite in ("zero", "attnlrp") or not zeros:
        kept = {"auto": 0.1, "attnlrp": 0.1, "gamma_box": 1e-4}.get(composite, 1e-7)
        assert (R.residual.abs() <= kept * R.score.abs().clamp(min=1)).all()


MODULI: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "parts": lambda z: torch.sqrt(z.real**2 + z.imag**2),
    "view": lambda z: torch.view_as_real(z).pow(2).sum(-1).sqrt(),
    "norm": lambda z: torch.linalg.vector_norm(torch.view_as_real(z), dim=-1),
    "conjugate": lambda z: (z * z.conj()).real.sqrt(),
    "hypot": lambda z: torch.hypot(z.real, z.imag),
    "power": lambda z: (torch.square(z.imag) + z.real * z.real) ** 0.5,
    "pow": lambda z: torch.pow(torch.real(z.conj() * z), 0.5),
    "stack": lambda z: torch.stack([z.real, z.imag]).square().sum(0).sqrt(),
    "squares, turned": lambda z: (z.real**2 + z.imag**2).transpose(-1, -2).sqrt().transpose(-1, -2),
    "mean": lambda z: (2 * torch.view_as_real(z).square().mean(-1)).sqrt(),
    "root in place": lambda z: (z.real**2 + z.imag**2).sqrt_(),
    "sum in place": lambda z: (z.real**2).add_(z.imag**2).sqrt(),
    "absolute": lambda z: abs(z),
}
USES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "as it is": lambda m, h: m,
    "behind a shift": lambda m, h: F.softplus(m - 0.7),
    "behind a factor": lambda m, h: F.silu(2 * m + 0.1),
    "as a factor": lambda m, h: m * h,
    "of an activation": lambda m, h: m * h.tanh(),
    "a sigmoid of it": lambda m, h: m.sigmoid() * h.tanh(),
    "a sigmoid of it and another": lambda m, h: (m - 0.3).sigmoid() * h.sigmoid(),
    "an activation of it": lambda m, h: (m - 1).tanh() * h.sigmoid(),
    "below": lambda m, h: h / (1 + m),
    "with its own activation": lambda m, h: m * m.sigmoid(),
}
"""What a network does with a modulus m beside other numbers h."""


class Spectrogram(nn.Module):
    """A network on a spectrogram, whose modulus is written in one of several ways."""

    def __init__(self, modulus: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.modulus, self.window = modulus, torch.hann_window(16, dtype=F64)
        self.conv, self.head = nn.Conv2d(1, 4, 3, dtype=F64), nn.Linear(4, 3, dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.stft(x, 16, window=self.window, return_complex=True)
        return self.head(self.conv(self.modulus(z)[:, None]).relu().mean((2, 3)))


@pytest.mark.parametrize("composite", ["zero", "epsilon", "epsilon_plus_flat", "gamma_box", "auto"])
@pytest.mark.parametrize("name", MODULI)
def test_a_modulus_has_one_map_in_every_spelling(name: str, composite: str) -> None:
    maps = []
    for modulus in (torch.abs, MODULI[name]):
        torch.manual_seed(1)
        model, x = Spectrogram(modulus).eval(), torch.randn(2, 64, dtype=F64)
        maps.append(relprop.attribute(model, x, 1, composite=composite))
    close(maps[0].values, maps[1].values)
    close(maps[0].values.sum(1) + maps[0].residual, maps[0].score)


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "attnlrp", "gamma_flat"])
@pytest.mark.parametrize("name", MODULI)
def test_whatever_is_done_with_a_modulus(name: str, composite: str) -> None:
    x = torch.randn(2, 3, 8, dtype=F64)
    for use, then in USES.items():
        one, other = (
            relprop.attribute(lambda x, f=f, then=then: then(f(spectrum(x)), x[..., :5]).flatten(1), x, 4, composite=composite)  # type: ignore[misc]
            for f in (torch.abs, MODULI[name])
        )  # fmt: skip
        close(other.values, one.values, msg=lambda m, use=use: f"{use}: {m}")  # type: ignore[misc]


PHASES: dict[str, Callable[[Tensor], Tensor]] = {
    "a quotient": lambda z: z / z.abs(),
    "sgn": torch.sgn,
    "method": lambda z: z.sgn(),
    "in place": lambda z: (z + 0).sgn_(),
    "a product": lambda z: z * (1 / z.abs()),
    "polar": lambda z: torch.complex(z.real / torch.hypot(z.real, z.imag), z.imag / torch.hypot(z.real, z.imag)),
}


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "gamma_flat", "auto"])
@pytest.mark.parametrize("name", PHASES)
def test_a_phase_has_one_map_in_every_spelling(name: str, composite: str) -> None:
    x, w = torch.randn(2, 8, dtype=F64), torch.randn(3, 5, dtype=C128)
    one, other = (
        relprop.attribute(lambda x, f=f: torch.view_as_real(F.linear(f(spectrum(x)), w)).flatten(1), x, 3, composite=composite)  # type: ignore[misc]
        for f in (PHASES["a quotient"], PHASES[name])
    )  # fmt: skip
    close(other.values, one.values)
    close(other.score, one.score)
    assert not other.notices


def test_the_sgn_of_real_numbers_is_a_cut_and_of_zero_is_zero() -> None:
    with pytest.warns(relprop.errors.RelpropWarning, match=r"inputs\[1\] has relevance 0.*sgn in"):
        relprop.attribute(lambda a, b: a + b.sgn(), torch.randn(2, 2, 3, dtype=F64).unbind(), 0)
    x = torch.zeros(1, 4, dtype=F64)
    x[0, 0] = 1.0
    R = relprop.attribute(lambda x: torch.fft.ifft(torch.sgn(torch.fft.fft(x * 0 + x))).real, x, 0, composite="zero")
    assert torch.isfinite(R.values).all()


LENGTHS: dict[str, list[Callable[[Tensor], Tensor]]] = {
    "norm": [
        lambda x: x.norm(dim=-1, keepdim=True),
        lambda x: x.square().sum(-1, keepdim=True).sqrt(),
        lambda x: (x * x).sum(-1, keepdim=True) ** 0.5,
        lambda x: x.pow(2).sum(-1).sqrt().unsqueeze(-1),
        lambda x: (x.shape[-1] * x.square().mean(-1, keepdim=True)).sqrt(),
    ],
    "deviation": [
        lambda x: x.std(-1, keepdim=True),
        lambda x: x.var(-1, keepdim=True).sqrt(),
    ],
    "absolute value": [
        torch.abs,
        lambda x: x.square().sqrt(),
        lambda x: (x * x) ** 0.5,
        lambda x: x.pow(2).flip(-1).sqrt().flip(-1),
        lambda x: torch.cat([x[:, :2] ** 2, x[:, 2:] ** 2], -1).sqrt(),
    ],
    "of two": [
        lambda x: torch.hypot(x, x.flip(-1)),
        lambda x: (x**2 + x.flip(-1) ** 2).sqrt(),
        lambda x: torch.complex(x, x.flip(-1)).abs(),
    ],
}


@pytest.mark.parametrize("composite", ["zero", "cp_lrp", "gamma_flat"])
@pytest.mark.parametrize("name", LENGTHS)
def test_a_length_is_one_however_it_is_written(name: str, composite: str) -> None:
    x = torch.randn(2, 4, dtype=F64)
    first, *others = LENGTHS[name]
    for use, then in USES.items():
        if use == "with its own activation" or (use == "below" and composite == "gamma_flat"):
            continue
        for other in others:
            maps = [
                relprop.attribute(
                    lambda x, f=f, then=then: then(f(x), x).expand(2, 4), x, 1, composite=composite
                ).values  # type: ignore[misc]
                for f in (first, other)
            ]
            close(maps[1], maps[0], msg=lambda m, use=use: f"{use}: {m}")  # type: ignore[misc]


def test_a_root_of_a_difference_of_squares_is_no_length() -> None:
    """`sqrt(1 - x ** 2)` is a function of x, and `sqrt(a ** 2 - b ** 2)` one of the difference."""
    x = torch.rand(2, 4, dtype=F64) / 2
    for root in (lambda x: (1 - x**2).sqrt(), lambda x: (-(x**2) + 1).sqrt(), lambda x: (1 - x * x) ** 0.5):
        h = root(x).softmax(-1) * 0 + F.softplus(root(x) - 0.2)
        want = h - F.softplus(torch.tensor(0.8, dtype=F64))
        got = relprop.attribute(lambda x, f=root: F.softplus(f(x) - 0.2).sum(1), x, composite="zero").values  # type: ignore[misc]
        close(got, want)
    a, b = torch.rand(2, 4, dtype=F64) + 1, torch.rand(2, 4, dtype=F64)
    for difference in (lambda a, b: a**2 - b**2, lambda a, b: (a**2).sub_(b**2), lambda a, b: -(b**2) + a**2):
        of_a, of_b = relprop.attribute(
            lambda a, b, f=difference: F.softplus(f(a, b).sqrt() - 0.2).sum(1),
            (a, b),
            composite="zero",  # type: ignore[misc]
        ).values
        d = a**2 - b**2
        slope = (F.softplus(d.sqrt() - 0.2) - F.softplus(torch.tensor(-0.2, dtype=F64))) / d
        close(of_a, slope * a**2)
        close(of_b, -slope * b**2)


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "gamma_flat", "gamma_box", "auto"])
def test_silence_keeps_its_relevance_out_of_the_sound(composite: str) -> None:
    model, x = Spectrogram(torch.abs).eval(), torch.randn(1, 96, dtype=F64)
    x[:, 40:] = 0  # frames that are exactly silent, to which a flat rule gives relevance
    R = relprop.attribute(model, x, 1, composite=composite, ledger=True)
    assert R.values.abs().max() < 100 * R.score.abs().max()
    close(R.values.sum(1) + R.residual, R.score)
    close(sum(R.ledger.values(), torch.zeros(1, dtype=F64)), R.residual)


# -------------------------------------------------------------------------------------- what else is asked of them


class Network(nn.Module):
    """A complex layer, a modulus and a real layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 4, bias=False, dtype=C128), nn.Linear(4, 3, bias=False, dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(spectrum(x)).abs())


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus"])
def test_layers_report_the_relevance_of_both_parts(composite: str) -> None:
    R = relprop.attribute(Network().eval(), torch.randn(2, 8, dtype=F64), 1, composite=composite, layers="layer")
    found = R.layers["layer"]
    assert found.dtype is F64 and found.shape == (2, 4)
    torch.testing.assert_close(found.sum(1), R.score, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("composite", ["zero", "epsilon_plus"])
def test_weights_report_what_went_through_each_complex_entry(composite: str) -> None:
    model = Network().eval()
    with torch.no_grad():
        model.head.weight.copy_(torch.eye(3, 4))
    R = relprop.attribute(model, torch.randn(2, 8, dtype=F64), 1, composite=composite, weights=True)
    found = R.weights["layer.weight"]
    assert found.dtype is F64 and found.shape == (4, 5)
    assert not found[[0, 2, 3]].any()
    close(found.sum(), R.values.sum())


def test_units_of_complex_numbers_are_refused_with_what_to_name() -> None:
    model, x = Network().eval(), torch.randn(2, 8, dtype=F64)
    for call in (
        lambda: relprop.attribute(model, x, 1, through=relprop.units("layer")[[0]]),
        lambda: relprop.attribute(model, x[:1], 1, against=x[1:], layers="layer"),
        lambda: relprop.graph(model, x[:1], 1, nodes=["layer"]),
        lambda: relprop.index(model, x, layers=["layer"]),
    ):
        with pytest.raises(InputError, match=r"'layer' is complex.*before or after it"):
            call()
    assert relprop.attribute(model, x, 1, layers="layer").layers["layer"].shape == (2, 4)  # as advised
    relprop.attribute(model, x, 1, through=relprop.units("head")[[1]])


def test_a_complex_score_is_refused_with_what_to_write() -> None:
    x = torch.randn(2, 8, dtype=F64)
    for target in (1, None, [0, 1]):
        with pytest.raises(TargetError, match=r"complex.*output\.flatten\(1\)\[:, 0\]\.abs\(\)"):
            relprop.attribute(spectrum, x, target)
    with pytest.raises(TargetError, match=r"real numbers; got torch\.complex128"):
        relprop.attribute(spectrum, x, lambda output: output[:, 0])
    R = relprop.attribute(spectrum, x, lambda output: output.flatten(1)[:, 0].abs(), composite="zero")
    close(R.values.sum(1), R.score)


def test_a_rule_for_activations_is_refused_on_complex_numbers_and_the_advice_works() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(torch.tanh(spectrum(x)).real)

    x = torch.randn(2, 8, dtype=F64)
    with pytest.raises(
        UnsupportedOperationError, match=r"view_as_real.*relprop\.operation\(\.\.\.\): relprop\.Native\(\)"
    ):
        relprop.attribute(model, x, 1, composite=relprop.Composite({"activation": relprop.GuidedBackprop()}))
    excepted = relprop.Composite({relprop.operation(torch.tanh): relprop.Native()}) | relprop.Composite(
        {"activation": relprop.GuidedBackprop()}
    )
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    close(relprop.attribute(model, x, 1, composite=excepted).values, x * gradient)


def test_a_fourier_operator_that_writes_into_its_spectrum() -> None:
    weight, lift, head = randn(3, 3, 4) / 3, torch.randn(3, 1, dtype=F64), torch.randn(2, 3, dtype=F64)

    def model(x: Tensor, inplace: bool) -> Tensor:
        z = spectrum(F.linear(x[..., None], lift).mT)
        mixed = torch.einsum("bik,iok->bok", z[..., :4], weight)
        if inplace:
            out = torch.zeros_like(z)
            out[..., :4] = mixed
        else:
            out = F.pad(mixed, (0, z.shape[-1] - 4))
        return F.linear(torch.relu(torch.fft.irfft(out, n=x.shape[-1])).mean(-1), head)

    x = torch.randn(2, 8, dtype=F64)
    for composite in ("zero", "epsilon", "epsilon_plus", "gamma_flat", "auto"):
        one, other = (relprop.attribute(lambda v, i=i: model(v, i), x, 1, composite=composite) for i in (True, False))
        close(one.values, other.values)
        close(one.values.sum(1) + one.residual, one.score)
