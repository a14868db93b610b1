"""Selective scans are known by what they compute, whatever their parts are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import relprop
import sequences
from helpers import close


class Renamed(nn.Module):
    """`sequences.Mamba` with other names, and other spellings of the same arithmetic."""

    def __init__(self, block: sequences.Mamba, einsum: bool) -> None:
        super().__init__()
        self.enter, self.mixer, self.choose = block.in_proj, block.conv1d, block.x_proj
        self.grow, self.leave, self.skip = block.dt_proj, block.out_proj, block.D
        self.rates, self.n, self.r, self.einsum = block.A_log, block.states, block.rank, einsum

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        u, gate = torch.chunk(self.enter(x), 2, dim=2)
        u = F.silu(self.mixer(u.mT)[..., :steps].mT)
        raw, b, c = torch.split(self.choose(u), (self.r, self.n, self.n), dim=-1)
        pace = F.softplus(self.grow(raw)).clamp(min=1e-4)
        rates = -self.rates.exp()
        if self.einsum:
            decay = torch.exp(torch.einsum("bti,in->btin", pace, rates))
            enters = torch.einsum("bti,btn,bti->btin", pace, b, u)
        else:
            decay = (pace.unsqueeze(3) * rates).exp_()
            enters = (pace * u).unsqueeze(3) * b.unsqueeze(2)
        h, seen = u.new_zeros(len(u), u.shape[2], self.n), []
        for t in range(steps):
            h = torch.addcmul(enters[:, t], decay[:, t], h) if t and not self.einsum else decay[:, t] * h + enters[:, t]
            seen.append(torch.einsum("bin,bn->bi", h, c[:, t]) if self.einsum else (h @ c[:, t, :, None])[..., 0])
        return self.leave((torch.stack(seen, 1) + u * self.skip) * F.silu(gate))  # type: ignore[no-any-return]


@pytest.mark.parametrize("composite", ["auto", "mamba_lrp"])
@pytest.mark.parametrize("einsum", [True, False])
def test_names_and_spellings_do_not_matter(composite: str, einsum: bool) -> None:
    block = sequences.Mamba().double().eval()
    x = torch.randn(2, 6, 8).double()
    target = lambda y: y[:, -1, 3]  # noqa: E731
    expected = relprop.attribute(block, x, target, composite="mamba_lrp")
    found = relprop.attribute(Renamed(block, einsum).eval(), x, target, composite=composite)
    assert found.composite.name == "mamba_lrp"
    close(found.values, expected.values)
    half = relprop.attribute(block, x, target, composite="attnlrp").values
    assert (found.values - half).abs().max() > 1e-3 * half.abs().max()  # the two differ at all


def test_the_step_size_and_both_matrices_are_constants() -> None:
    """Relevance is that of a linear recurrence whose coefficients are numbers."""
    torch.manual_seed(1)
    block = sequences.Mamba().double().eval()
    x = torch.randn(1, 5, 8).double()
    with torch.no_grad():
        u, _ = block.in_proj(x).chunk(2, -1)
        u = F.silu(block.conv1d(u.mT)[..., :5].mT)
        step, b, c = block.x_proj(u).split([3, 4, 4], -1)
        delta = F.softplus(block.dt_proj(step))
    scan = Scan(block)
    v = torch.randn(12).double()
    found = relprop.attribute(scan, (u, block.x_proj(u).detach()), lambda y: y[:, -1] @ v, composite="mamba_lrp")
    decay = torch.exp(-delta[..., None] * block.A_log.detach().exp())
    expected = torch.stack(
        [decay[0, t + 1 :].prod(0) * (delta[0, t, :, None] * b[0, t]) * c[0, -1] for t in range(5)]
    ).sum(-1)
    close(found.values[0][0], expected * u[0] * v)
    assert not found.values[1].any()


class Scan(nn.Module):
    """The scan alone, of content and coefficients."""

    def __init__(self, block: sequences.Mamba) -> None:
        super().__init__()
        self.rates, self.grow = block.A_log, block.dt_proj

    def forward(self, u: Tensor, coefficients: Tensor) -> Tensor:
        raw, b, c = coefficients.split([3, 4, 4], -1)
        pace = F.softplus(self.grow(raw))
        h, seen = torch.zeros_like(u)[:, 0, :, None], []
        for t in range(u.shape[1]):
            h = (
                torch.exp(-pace[:, t, :, None] * self.rates.exp()) * h
                + pace[:, t, :, None] * b[:, t, None] * u[:, t, :, None]
            )
            seen.append((h * c[:, t, None]).sum(-1))
        return torch.stack(seen, 1)


def test_what_is_no_scan_is_none() -> None:
    """A softplus, a decay and equal parts of a split do not make one by themselves."""
    weight = nn.Parameter(torch.randn(4, 4).double())

    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b, c = (x @ weight).split([2, 1, 1], -1)
            return torch.exp(F.softplus(a) * -0.3) * b + c

    x = torch.randn(3, 4).double()
    named = relprop.attribute(Gated(), x, 0, composite="mamba_lrp").values
    close(named, relprop.attribute(Gated(), x, 0, composite="attnlrp").values)
    assert relprop.attribute(Gated(), x, 0).composite.name != "mamba_lrp"


@pytest.mark.parametrize("composite", ["auto", "mamba_lrp"])
def test_a_scan_in_every_way_of_running(composite: str) -> None:
    """Checkpointed, alone, with several targets at once."""
    model = nn.Sequential(*(nn.Sequential(sequences.Mamba()) for _ in range(2))).double().eval()
    x = torch.randn(2, 6, 8).double()
    targets = [lambda y: y[:, -1, 3], lambda y: y[:, -1, 5]]
    expected = [relprop.attribute(model, x, t, composite="mamba_lrp").values for t in targets]
    close(relprop.attribute(model, x, targets[0], composite=composite, checkpoint=True).values, expected[0])
    close(relprop.attribute(model, x[:1], targets[0], composite=composite).values, expected[0][:1])
    together = relprop.attribute_each(model, x, targets, composite=composite, targets_at_once=2)
    for found, one in zip(together, expected, strict=True):
        close(found.values, one)
