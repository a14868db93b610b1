"""Relevance patching: `against=`, the composite `relp`, and the true interventions of `relprop.patch`."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference_concepts as concepts
import relprop
from helpers import close_to_rounding as close
from relprop import units
from relprop.errors import InputError
from test_weights import flops


class Gated(nn.Module):
    """RMSNorm and SwiGLU with a residual connection: the block of a language model without attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.RMSNorm(6)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        self.gate, self.up, self.down, self.out = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = self.norm(x)
        y: Tensor = self.out(x + self.down(nn.functional.silu(self.gate(n)) * self.up(n)))
        return y


def pair(n: int = 2, features: int = 6) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, features, dtype=torch.float64), torch.randn(n, features, dtype=torch.float64)


def test_the_coefficients_of_a_gated_block() -> None:
    net = Gated().double()
    clean, corrupted = pair()
    R = relprop.attribute(net, clean, 1, against=corrupted, layers=["gate", "up", "down", "norm"])
    assert R.composite.name == "relp"
    p = concepts.relp_of_gated(net, clean, 1)
    close(R.values, ((corrupted - clean) * p["x"]).detach())
    n, m = net.norm(clean), net.norm(corrupted)
    close(R.layers["norm"], ((m - n) * p["norm"]).detach())
    close(R.layers["gate"], ((net.gate(m) - net.gate(n)) * p["gate"]).detach())
    close(R.layers["up"], ((net.up(m) - net.up(n)) * p["up"]).detach())
    close(R.effect, (net(corrupted) - net(clean))[:, 1].detach())
    close(R.values.sum(1) + R.residual, R.effect)


def test_equal_inputs_have_no_effect() -> None:
    net, (clean, _) = Gated().double(), pair()
    R = relprop.attribute(net, clean, 1, against=clean.clone(), layers=["down"])
    assert not R.values.any() and not R.layers["down"].any() and not R.effect.any()


def test_a_linear_model_is_estimated_exactly() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).double()
    clean, corrupted = pair()
    for composite in ("relp", "gradient"):
        R = relprop.attribute(net, clean, 2, against=corrupted, composite=composite, layers=["0"])
        close(R.values.sum(1), R.effect)
        close(R.layers["0"].sum(1), R.effect)
        close(R.residual, torch.zeros(2).double(), atol=1e-12)


def test_the_gradient_is_attribution_patching() -> None:
    net, (clean, corrupted) = Gated().double(), pair()
    R = relprop.attribute(net, clean, 1, against=corrupted, composite="gradient")
    x = clean.clone().requires_grad_()
    (g,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    close(R.values, (corrupted - clean) * g)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.table, self.attention = nn.Embedding(9, 8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp, self.out = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.table(ids)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        h = h + self.mlp(h)
        y: Tensor = self.out(h)
        return y[:, -1]


CLEAN, CORRUPTED = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), torch.tensor([[1, 5, 3, 4], [5, 6, 2, 8]])


def test_ids_and_contrasts() -> None:
    net = Words().double()
    R = relprop.attribute(net, CLEAN, relprop.Contrast(0, 1), against=CORRUPTED, layers=["mlp", "attention.heads"])
    assert R.values[0, [0, 2, 3]].abs().max() == 0 and R.values[0, 1] != 0  # only where the ids differ
    both = relprop.attribute_each(net, CLEAN, [0, 1], against=CORRUPTED, layers=["mlp"])
    close(R.values, both[0].values - both[1].values)
    close(R.effect, both[0].effect - both[1].effect)
    close(R.layers["mlp"], both[0].layers["mlp"] - both[1].layers["mlp"])
    parts = relprop.attribute(net, CLEAN, relprop.Contrast(0, 1), against=CORRUPTED, layers=["mlp"], batch_size=1)
    close(parts.values, R.values)
    close(parts.effect, R.effect)
    close(parts.layers["mlp"], R.layers["mlp"])


def test_true_patching_by_hand() -> None:
    net = Words().double()
    nodes = [units(path)[t] for path in ("mlp", "table") for t in range(4)] + [units("mlp.2", at="input")[-1, 3]]
    P = relprop.patch(net, CLEAN, CORRUPTED, 1, nodes=nodes, batch_size=4)
    close(P.effect, (net(CORRUPTED) - net(CLEAN))[:, 1].detach())

    def by_hand(node: Any) -> Tensor:
        layer = dict(net.named_modules())[node.path]
        kept: dict[str, Tensor] = {}
        if node.at == "input":
            hook = layer.register_forward_pre_hook(lambda m, a: kept.update(v=a[0].clone()))
        else:
            hook = layer.register_forward_hook(lambda m, a, out: kept.update(v=out.clone()))
        net(CORRUPTED)
        hook.remove()

        def swap(t: Tensor) -> Tensor:
            t = t.clone()
            index = node.index if isinstance(node.index, tuple) else (node.index,)
            t[(slice(None), *index)] = kept["v"][(slice(None), *index)]
            return t

        if node.at == "input":
            hook = layer.register_forward_pre_hook(lambda m, a: (swap(a[0]),))
        else:
            hook = layer.register_forward_hook(lambda m, a, out: swap(out))
        changed = net(CORRUPTED * 0 + CLEAN)
        hook.remove()
        return (changed - net(CLEAN))[:, 1].detach()

    for node, truth in zip(P.nodes, P.truth, strict=True):
        close(truth, by_hand(node))
    sums = P.estimate.abs().sum(1)
    assert torch.equal(sums, sums.sort(descending=True).values)
    best = relprop.patch(net, CLEAN, CORRUPTED, 1, nodes=nodes, most=3)
    assert [str(n) for n in best.nodes] == [str(n) for n in P.nodes[:3]]
    close(best.truth, P.truth[:3])
    assert -1 <= P.correlation <= 1 and 0 <= P.overlap(4) <= 4
    assert "estimate" in P.table() and P.nodes[0].said in repr(P)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_patches_of_a_linear_model_are_their_estimates() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3)).double()
    clean, corrupted = pair()
    P = relprop.patch(net, clean, corrupted, 2, nodes=[units("0")[i] for i in range(5)] + [units("0")[[1, 3]]])
    close(P.truth, P.estimate)
    assert P.correlation > 0.999999


def test_results_keep_the_effect(tmp_path: Path) -> None:
    net, (clean, corrupted) = Gated().double(), pair()
    R = relprop.attribute(net, clean, 1, against=corrupted)
    R.save(tmp_path / "run")
    again = relprop.load(tmp_path / "run")
    assert torch.equal(again.effect, R.effect) and torch.equal(R[1].effect, R.effect[1:])
    assert "against other inputs, for which the score changes by" in repr(R)
    assert relprop.attribute(net, clean, 1).effect is None


def test_errors_of_against() -> None:
    net, (clean, corrupted) = Gated().double(), pair()
    explain: Any = partial(relprop.attribute, net, clean, 1)
    for given, said in (
        ({"against": corrupted[:1]}, "must have the shape, dtype and device"),
        ({"against": corrupted.float()}, "the model is torch.float64"),
        ({"against": (corrupted,)}, "must have the structure of the inputs"),
        ({"against": corrupted * math.nan}, "against holds NaN"),
        ({"against": corrupted, "through": units("up")[1]}, "against= and through= exclude each other"),
        ({"against": corrupted, "ledger": True}, "against= and ledger= exclude each other"),
        ({"against": corrupted, "composite": relprop.composites.deep_taylor()}, "there is no factor to multiply"),
    ):
        with pytest.raises(InputError) as caught:
            explain(**given)
        assert said in " ".join(str(caught.value).split())


def test_models_that_take_other_steps() -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(1 if float(x.detach().sum()) > 0 else 2):
                x = self.a(x)
            return x

    net, clean = Fickle().double(), torch.ones(1, 6).double()
    with pytest.raises(InputError, match="takes other steps"):
        relprop.attribute(net, clean, 1, against=-clean, layers=["a"])


def test_errors_of_patch() -> None:
    net, (clean, corrupted) = Gated().double(), pair()
    explain: Any = partial(relprop.patch, net, clean, corrupted, 1)
    for given, said in (
        ({"nodes": units("up")}, "nodes must be a list of units"),
        ({"nodes": []}, "nodes must be a list of units"),
        ({"nodes": [~units("up")]}, "a node is units of one layer"),
        ({"nodes": [units("up.heads")]}, "heads cannot be replaced"),
        ({"nodes": [units("up")[1]], "batch_size": 0}, "batch_size must be a positive int"),
        ({"nodes": [units("up")[1]], "most": 1.5}, "most must be a positive int"),
        ({"nodes": [units("up")[99]]}, "there is no unit 99"),
        ({"nodes": [units("up", run=3)]}, "the layer ran 1 times"),
        ({"nodes": [units("up", directions=torch.ones(8))]}, "directions is not estimated"),
    ):
        with pytest.raises(InputError) as caught:
            explain(**given)
        assert said in " ".join(str(caught.value).split())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_states_inside_recurrent_layers_cannot_be_replaced() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(6, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.rnn(x)[0][:, -1]
            return y

    x = torch.randn(1, 4, 6)
    with pytest.raises(InputError, match=r"its output sequence can, relprop.units\('rnn'\)"):
        relprop.patch(Recurrent(), x, -x, 1, nodes=[units("rnn.steps", run=1)])
    assert len(relprop.patch(Recurrent(), x, -x, 1, nodes=[units("rnn")[1], units("rnn")[3]])) == 2


@pytest.mark.parametrize("composite", ["relp", "gradient", "cp_lrp"])
def test_two_forwards_and_one_backward(composite: str) -> None:
    net = Words()

    def gradient() -> None:
        rows = net.table(CLEAN).detach().requires_grad_()
        h = rows + net.attention(rows, rows, rows, need_weights=False)[0]
        torch.autograd.grad(net.out(h + net.mlp(h))[:, -1, 1].sum(), rows)

    for parameter in net.parameters():
        parameter.requires_grad_(False)
    layers = ["mlp", "attention.heads", "table"]
    all_ = flops(lambda: relprop.attribute(net, CLEAN, 1, against=CORRUPTED, layers=layers, composite=composite))
    assert all_ <= 1.1 * (flops(lambda: net(CLEAN)) + flops(gradient))
