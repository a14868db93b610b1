"""Joint relevance of two inputs (BiLRP), against its definition."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reference_concepts as concepts
import relprop
import relprop.concepts.similarity as similarity_module
from relprop.errors import InputError, TargetError
from test_conditions import Attending, vectors
from test_splices import Autoencoder

close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-14)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5)).double()


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("cosine", [False, True])
def test_the_definition(epsilon: float, cosine: bool) -> None:
    net, (a, b) = network(), vectors(2)[:, None]

    def by_dimension(x: Tensor) -> Tensor:
        h = net[0](x).relu()
        of_h = concepts.share(net[2], h, epsilon)[0] * net(x)[0]
        return (concepts.share(net[0], x, epsilon)[0] @ of_h).detach()  # (i, m)

    expected = by_dimension(a) @ by_dimension(b).T
    score = (net(a) * net(b)).sum().detach()
    norms = (net(a).norm() * net(b).norm()).detach() if cosine else torch.ones(()).double()
    rules = "zero" if not epsilon else relprop.composites.epsilon(epsilon)
    for at_once in (1, 2, 32):
        S = relprop.similarity(net, a, b, composite=rules, cosine=cosine, at_once=at_once)
        close(S.joint, expected / norms)
        assert S.score == pytest.approx(float(score / norms))
        assert S.residual == pytest.approx(float((score - expected.sum()) / norms))
        close(S.a, (expected / norms).sum(1))
        close(S.b, (expected / norms).sum(0))


def test_without_biases_pairs_sum_to_the_score() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 5, bias=False)).double()
    a, b = vectors(2)[:, None]
    assert relprop.similarity(net, a, b, composite="zero").residual == pytest.approx(0, abs=1e-12)


def test_texts(tmp_path: Path) -> None:
    net = Attending(False).double()
    a, b = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 1, 2]])
    S = relprop.similarity(net, a, b, tokens=(["x", "y", "z"], ["p", "q", "r", "<s>"]), composite="cp_lrp")
    assert S.joint.shape == (3, 4) and S.shapes == ((3,), (4,))
    each = [relprop.attribute(net, t, m, composite="cp_lrp").values[0] for t in (a, b) for m in range(3)]
    close(S.joint, sum(each[m][:, None] * each[3 + m][None] for m in range(3)))
    first, second, value = S.pairs(1)[0]
    assert abs(value) == float(S.joint.abs().max()) and first in "xyz" and second in ("p", "q", "r", "<s>")
    for suffix in ("svg", "png", "pdf"):
        S.save(tmp_path / f"pairs.{suffix}")
    assert "&lt;s&gt;" in (tmp_path / "pairs.svg").read_text() and "similarity" in repr(S)


def test_pictures_have_patches() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).double()
    a, b = torch.randn(2, 1, 3, 28, 28, dtype=torch.float64)
    S = relprop.similarity(net, a, b)
    assert S.shapes == ((14, 14), (14, 14)) and S.joint.shape == (196, 196)
    values = [
        relprop.attribute(net, x, m).values[0].sum(0).reshape(14, 2, 14, 2).sum((1, 3)).flatten()
        for x in (a, b)
        for m in range(16)
    ]
    close(S.joint, sum(values[m][:, None] * values[16 + m][None] for m in range(16)), atol=1e-12)


def test_errors() -> None:
    net, x = network(), vectors(2)
    explain: Any = partial(relprop.similarity, net)
    with pytest.raises(InputError, match="a similarity is of two samples"):
        explain(x, x[:1])
    with pytest.raises(TargetError, match="an embedding has the shape"):
        explain(x[:1], x[:1], embed=lambda y: y[0])
    with pytest.raises(InputError, match="at_once must be"):
        explain(x[:1], x[:1], at_once=0)
    with pytest.raises(InputError, match="tokens has 1 names for 4 parts"):
        explain(x[:1], x[:1], tokens=(["a"], ["b"] * 4))
    with pytest.raises(InputError, match="saved as"):
        explain(x[:1], x[:1]).save("x.txt")


class Encoder(nn.Module):
    """An embedding that is much wider than its text is long."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(12, 16), nn.LayerNorm(16)
        self.attention, self.up, self.down = (
            nn.MultiheadAttention(16, 4, batch_first=True),
            nn.Linear(16, 24),
            nn.Linear(24, 40),
        )

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        h = self.norm(h + self.attention(h, h, h, need_weights=False)[0])
        return self.down(nn.functional.gelu(self.up(h))).mean(1)


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "epsilon", "gamma", "epsilon_plus"])
def test_wide_embeddings_take_a_pass_for_each_part(composite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass through the backward pass for each part gives what a pass for each dimension gives."""
    torch.manual_seed(0)
    net, ways = Encoder().double().eval(), []
    by_dimensions = similarity_module._by_dimensions
    monkeypatch.setattr(similarity_module, "_by_dimensions", lambda *a: ways.append(1) or by_dimensions(*a))
    a, b = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 1, 2]])
    S = relprop.similarity(net, a, b, composite=composite, at_once=3)
    assert not ways
    each = [
        torch.stack([relprop.attribute(net, t, m, composite=composite).values[0] for m in range(40)]) for t in (a, b)
    ]
    torch.testing.assert_close(S.joint, each[0].T @ each[1], rtol=1e-9, atol=1e-12)


def test_a_rule_that_hides_from_autograd_is_noticed() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Hidden(relprop.WeightedRule):
        """LRP-0 by numbers that autograd does not see."""

        def propagate(self, layer: Any, g: Tensor) -> Tensor:
            return layer.transpose(g.detach()) + 0 * layer.transpose(g)

    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 20)).double(), vectors(2)
    hidden = relprop.similarity(net, x[:1], x[1:2], composite=relprop.Composite({"linear": Hidden()}))
    close(hidden.joint, relprop.similarity(net, x[:1], x[1:2], composite="zero").joint)


@pytest.mark.parametrize("composite", ["cp_lrp", "epsilon"])
def test_joint_relevance_of_latents(composite: str, tmp_path: Path) -> None:
    """The latents of both texts, each explained alone for each dimension; the books of the splice hold in pairs as well."""
    torch.manual_seed(0)
    net, sae = Encoder().double().eval(), Autoencoder(16, 30)
    splice = relprop.Splice("norm", sae)
    a, b = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 1, 2]])
    explain: Any = partial(relprop.similarity, net, a, b, composite=composite, splices=splice)
    parts = ("norm.latents", "norm.error", "norm.reconstruction")
    each = [
        [R.layers for R in relprop.attribute_each(net, t, list(range(40)), composite=composite, splices=splice, layers=parts)]
        for t in (a, b)
    ]  # fmt: skip
    S = explain(at=relprop.units("norm.latents").each(1))
    assert S.joint.shape == (30, 30) and S.names[0][4] == "norm.latents[*, 4]"
    one, other = (torch.stack([R["norm.latents"][0].sum(0) for R in some]) for some in each)
    torch.testing.assert_close(S.joint, one.T @ other, rtol=1e-9, atol=1e-12)
    tokens = explain(at="norm.latents")
    assert tokens.joint.shape == (90, 120)  # a latent at each token
    torch.testing.assert_close(tokens.joint.sum(), S.joint.sum())
    whole = explain(at=relprop.units("norm"))
    halves = [sum(R[name][0].sum() for name in parts[1:]) for some in each for R in some]
    expected = sum(x * y for x, y in zip(halves[:40], halves[40:], strict=True))
    torch.testing.assert_close(whole.joint.sum(), expected, rtol=1e-9, atol=1e-12)
    S.save(tmp_path / "pairs.svg")
    plain = relprop.similarity(net, a, b, composite=composite)
    assert (
        S.score == plain.score and relprop.similarity(net, a, b, composite=composite, splices=splice).score == S.score
    )
    sink = relprop.Splice("norm", sae, error="sink")
    assert relprop.similarity(net, a, b, composite=composite, splices=sink).residual != pytest.approx(plain.residual)


def test_pairs_of_pictures_are_drawn_on_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    a, b = torch.rand(1, 3, 28, 28), torch.rand(1, 3, 28, 42)
    S = relprop.similarity(net, a, b)
    assert S.pictures is not None and torch.equal(S.pictures[1], b[0])
    S.save(tmp_path / "pairs.svg")
    drawn = (tmp_path / "pairs.svg").read_text()
    assert drawn.count("<image") == 2 and drawn.count("<polyline") + drawn.count("<path") + drawn.count("<line") >= 10
    S.save(tmp_path / "pairs.png")


def test_errors_of_units() -> None:
    net, x = network(), vectors(2)
    explain: Any = partial(relprop.similarity, net, x[:1], x[1:])
    for given, said in (
        ({"at": 3}, "at is the path of a layer"),
        ({"at": "7"}, "not part of the model"),
        ({"at": "1", "tokens": (["a"] * 4, ["b"] * 4)}, "tokens are names of the inputs' parts"),
        ({"at": relprop.units("1")[9]}, "there is no unit 9"),
        ({"splices": 3}, "splices must be a relprop.Splice"),
    ):
        with pytest.raises(InputError, match=said):
            explain(**given)
    assert explain(at=relprop.units("1")[[1, 2]]).joint.shape == (1, 1)
