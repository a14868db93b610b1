"""Splices: latents and errors of autoencoders as units, against sums written out; the model's value does not change."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import reference_concepts as ref
import relprop
from relprop import Splice, units
from relprop.errors import InputError


class Autoencoder(nn.Module):
    def __init__(self, d: int, k: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(3)
        self.W, self.D, self.b, self.c = (
            nn.Parameter(torch.randn(*shape, generator=made, dtype=dtype) / d**0.5)
            for shape in ((k, d), (k, d), (k,), (d,))
        )

    def encode(self, h: Tensor) -> Tensor:
        return torch.relu((h - self.c) @ self.W.T + self.b)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.D + self.c


@pytest.fixture
def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


class Block(nn.Module):
    """A residual stream of tokens; its block returns a tuple, as those of transformers do."""

    def __init__(self, d: int = 8) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.RMSNorm(d), nn.Linear(d, 16), nn.Linear(16, d)

    def forward(self, h: Tensor) -> tuple[Tensor, None]:
        return h + self.down(torch.nn.functional.gelu(self.up(self.norm(h)))), None


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 20)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        for block in self.blocks:
            h = block(h)[0]
        return self.head(h)[:, -1]


def test_the_definition(mlp: nn.Sequential) -> None:
    x, sae = torch.randn(4, 5, dtype=torch.float64), Autoencoder(8, 20)
    h = mlp[:3](x).detach()
    plain = relprop.attribute(mlp, x, 1, composite="epsilon", layers=["2"])
    g = plain.layers["2"] / h
    for error in ("pass", "sink"):
        R = relprop.attribute(
            mlp, x, 1, composite="epsilon", splices=Splice("2", sae, error=error), ledger=True,
            layers=["2", "2.latents", "2.error", "2.reconstruction"],
        )  # fmt: skip
        hand = ref.spliced(h, g, sae, error)
        close = lambda a, b: torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-12)  # noqa: E731
        assert torch.equal(R.score, plain.score)
        close(R.layers["2"], plain.layers["2"])
        close(R.layers["2.latents"], hand["latents"])
        close(R.layers["2.error"], hand["error"])
        close(R.layers["2.reconstruction"].sum(1) - R.layers["2.latents"].sum(1), hand["bias"].sum(1))
        close(sum(R.layers[f"2.{name}"].sum(1) for name in ("reconstruction", "error")), plain.layers["2"].sum(1))
        below = relprop.attribute(
            mlp[:3], x, lambda y, r=hand["below"] / h: (y * r.detach()).sum(1), composite="epsilon"
        )
        close(R.values, below.values)
        close(R.residual, sum(e.absorbed for e in R.ledger.entries))
        ended = sum(e.absorbed for e in R.ledger.entries if e.name == "reconstruction error")
        close(ended, hand["error"].sum(1) if error == "sink" else torch.zeros(4, dtype=torch.float64))


def test_rules_of_the_model_stay_where_they_are() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 3),
    )  # fmt: skip
    net = net.double().eval()
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    convolution = nn.Conv2d(4, 9, 1).double()
    turned = nn.Conv2d(9, 4, 1).double()
    splice = Splice("0", encode=lambda h: torch.relu(convolution(h)), decode=turned)
    for composite in ("auto", "epsilon_plus_flat", "gamma"):
        plain = relprop.attribute(net, x, 1, composite=composite)
        R = relprop.attribute(net, x, 1, composite=composite, splices=splice, layers=["3", "0.latents"])
        assert torch.equal(R.score, plain.score) and R.composite == plain.composite
        acted = [[(place.name, str(rule)) for place, rule in some.rules if not place.merged] for some in (R, plain)]
        assert [one for one in acted[0] if one[0] != "batch_norm"] == [
            one for one in acted[1] if one[0] != "batch_norm"
        ]
        assert R.layers["0.latents"].shape == (2, 9, 6, 6)
        torch.testing.assert_close(
            R.layers["3"], relprop.attribute(net, x, 1, composite=composite, layers=["3"]).layers["3"]
        )


@pytest.mark.parametrize("composite", ["attnlrp", "relp", "epsilon"])
def test_conditions_graphs_and_differences(composite: str) -> None:
    torch.manual_seed(2)
    net = Words().double().eval()
    ids, sae = torch.tensor([[3, 7, 1, 4]]), Autoencoder(8, 30)
    splice = Splice("blocks.0", sae)
    options: dict[str, Any] = {"composite": composite, "splices": splice}
    whole = relprop.attribute(net, ids, 5, layers=["blocks.0.latents"], **options)
    on = int(whole.layers["blocks.0.latents"][0, -1].abs().argmax())
    one = units("blocks.0.latents")[-1, on]
    through, around, every, error = relprop.attribute_each(
        net, ids, 5, through=[one, ~one, units("blocks.0.latents"), units("blocks.0.error")], **options
    )
    torch.testing.assert_close(through.values + around.values, whole.values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(every.values + error.values, whole.values, rtol=1e-12, atol=1e-12)
    of_unit = through.values.sum() + through.residual
    torch.testing.assert_close(of_unit[0], whole.layers["blocks.0.latents"][0, -1, on])
    assert through.through == f"through units [-1, {on}] of blocks.0.latents"
    G = relprop.graph(
        net, ids, 5, nodes=["blocks.0.latents", "blocks.0.error", units("blocks.1.up").each(0, 1)], keep=30, **options
    )
    assert {node.layer for node in G.nodes} >= {"blocks.0.latents", "blocks.1.up"}
    for n, node in enumerate(G.nodes):
        if node.kind != "input":
            assert abs(node.relevance - sum(w for _, w in G.below(n)) - node.absorbed) < 1e-10
        if node.layer == "blocks.0.latents":
            assert node.index[0] == node.position
            expected = whole.layers["blocks.0.latents"][(0, *node.index)]
            assert abs(node.relevance - float(expected)) < 1e-10
    other = torch.tensor([[3, 9, 1, 4]])
    if composite == "relp":
        D = relprop.attribute(net, ids, 5, against=other, layers=["blocks.0.latents"], splices=splice)
        z, y = (sae.encode(net.blocks[0](net.embed(i))[0]).detach() for i in (ids, other))
        g = whole.layers["blocks.0.latents"] / z
        moved = D.layers["blocks.0.latents"][z > 0]
        torch.testing.assert_close(moved, ((y - z) * g)[z > 0], rtol=1e-9, atol=1e-9)


class Mean(Words):
    """All tokens count."""

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        for block in self.blocks:
            h = block(h)[0]
        return self.head(h).mean(1)


@pytest.mark.parametrize("reads", ["output", "input"])
def test_true_patching_of_latents(reads: str) -> None:
    """Each node by hand: the layer's output with one part of its splice at its value for the other inputs."""
    torch.manual_seed(2)
    net = Mean().double().eval()
    ids, other = torch.tensor([[3, 7, 1, 4], [2, 2, 5, 6]]), torch.tensor([[3, 9, 1, 4], [2, 8, 5, 6]])
    sae = Autoencoder(8, 30)
    splice = Splice("blocks.0", sae, reads=reads)
    latents, error, rebuilt = (units(f"blocks.0.{name}") for name in ("latents", "error", "reconstruction"))
    nodes = [
        latents[1],
        latents[1, 3:15],
        latents[:, 4:20],
        error[1],
        rebuilt[1, :3],
        units("blocks.0")[1],
        units("blocks.1.up"),
    ]
    with torch.no_grad():
        score = net(ids)[:, 5]
        P = relprop.patch(net, ids, other, 5, nodes=nodes, splices=splice, batch_size=3)
        assert torch.equal(P.score, score)
        inner: dict[str, Any] = {}
        for name, given in (("clean", ids), ("other", other)):
            read = net.embed(given)
            h = net.blocks[0](read)[0]
            z = sae.encode(h if reads == "output" else read)
            inner[name] = (h, z, sae.decode(z), h - sae.decode(z))
        (h, z, r, e), (_, z_, r_, e_) = inner["clean"], inner["other"]

        def effect(total: Tensor) -> Tensor:
            return net.head(net.blocks[1](total)[0]).mean(1)[:, 5] - score

        def latent(*index: Any) -> Tensor:
            changed = z.clone()
            changed[(slice(None), *index)] = z_[(slice(None), *index)]
            return effect(sae.decode(changed) + e)

        truth = {
            str(latents[1]): latent(1), str(latents[1, 3:15]): latent(1, slice(3, 15)),
            str(latents[:, 4:20]): latent(slice(None), slice(4, 20)),
        }  # fmt: skip
        h_e, h_r = h.clone(), h.clone()
        h_e[:, 1] += (e_ - e)[:, 1]
        h_r[:, 1, :3] += (r_ - r)[:, 1, :3]
        truth |= {str(error[1]): effect(h_e), str(rebuilt[1, :3]): effect(h_r)}
    found = {str(node): value for node, value in zip(P.nodes, P.truth, strict=True)}
    for name, expected in truth.items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)
    assert all(float(value.abs().min()) > 1e-6 for value in truth.values())
    D = relprop.attribute(net, ids, 5, against=other, layers=["blocks.0.latents"], splices=splice)
    at = [str(node) for node in P.nodes].index(str(latents[1]))
    torch.testing.assert_close(P.estimate[at], D.layers["blocks.0.latents"][:, 1].sum(1))
    assert not any(m._forward_hooks for m in net.modules())


def test_true_patching_of_the_largest_latents() -> None:
    """decode gets the numbers of all latents where others than the largest change; nothing changes for equal inputs."""
    torch.manual_seed(2)
    net, sae = Mean().double().eval(), Sparse(8, 20)
    ids, other = torch.tensor([[3, 7, 1, 4]]), torch.tensor([[3, 9, 1, 4]])
    nodes = [units("blocks.0.latents")[1], units("blocks.0.latents")[-1]]
    P = relprop.patch(net, ids, other, 5, nodes=nodes, splices=Splice("blocks.0", sae))
    with torch.no_grad():
        (h, found), (_, changed) = (
            (hidden := net.blocks[0](net.embed(given))[0], sae.encode(hidden)) for given in (ids, other)
        )
        total = h.clone()
        total[:, 1] += (sae.decode(*changed) - sae.decode(*found))[:, 1]
        expected = net.head(net.blocks[1](total)[0]).mean(1)[:, 5] - net(ids)[:, 5]
    at = [str(node) for node in P.nodes].index(str(nodes[0]))
    torch.testing.assert_close(P.truth[at], expected, rtol=1e-9, atol=1e-12)
    same = relprop.patch(net, ids, ids.clone(), 5, nodes=nodes, splices=Splice("blocks.0", sae))
    assert not same.truth.any() and not same.estimate.any()


def test_errors_of_patches_with_splices() -> None:
    net, ids = Words().double().eval(), torch.tensor([[3, 7, 1, 4]])
    explain: Any = partial(relprop.patch, net, ids, ids.flip(1), 5)
    for given, says in (
        ({"nodes": [units("blocks.0.latents")[1]]}, "not part of the model"),
        ({"nodes": [units("blocks.0.latents")[1]], "splices": 3}, "splices must be a relprop.Splice"),
        ({"nodes": [units("blocks.0.latents")[9]], "splices": Splice("blocks.0", SAE)}, "there is no unit 9"),
        (
            {"nodes": [units("blocks.0.latents")], "splices": Splice("blocks.0", Wrong(decode=lambda z: z))},
            "decode gives torch.float64",
        ),
    ):
        with pytest.raises(InputError, match=says):
            explain(**given)
    assert not any(m._forward_hooks for m in net.modules())


def test_a_transcoder_reads_the_input(mlp: nn.Sequential) -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    sae, skip = Autoencoder(8, 20), nn.Linear(8, 8).double()
    R = relprop.attribute(
        mlp, x, 1, composite="zero", splices=Splice("2", sae, skip=skip, reads="input", error="sink"),
        layers=["1", "2.latents", "2.error", "2.reconstruction"],
    )  # fmt: skip
    before, h = mlp[:2](x).detach(), mlp[:3](x).detach()
    g = relprop.attribute(mlp, x, 1, composite="zero", layers=["2"]).layers["2"] / h
    z = sae.encode(before)
    rebuilt = sae.decode(z) + skip(before)
    torch.testing.assert_close(R.layers["2.latents"], (z * (g @ sae.D.T)).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(R.layers["2.error"], ((h - rebuilt) * g).detach(), rtol=1e-12, atol=1e-12)
    below = before * (((g @ sae.D.T) * (z > 0)) @ sae.W + g @ skip.weight)
    torch.testing.assert_close(R.layers["1"], below.detach(), rtol=1e-12, atol=1e-12)


class Largest(NamedTuple):
    top_acts: Tensor
    top_indices: Tensor


class Sparse(Autoencoder):
    """Returns the largest latents and their numbers."""

    num_latents = 20

    def encode(self, h: Tensor) -> Any:
        return Largest(*super().encode(h).topk(4))

    def decode(self, top_acts: Tensor, top_indices: Tensor) -> Tensor:
        return (top_acts[..., None] * self.D[top_indices]).sum(-2) + self.c


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * (x > 0.3)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        raise AssertionError("its own gradient is not asked for")


class Jumping(Autoencoder):
    def encode(self, h: Tensor) -> Tensor:
        return _Jump.apply((h - self.c) @ self.W.T)


@pytest.mark.parametrize("kind", [Sparse, Jumping])
def test_kinds_of_autoencoders(mlp: nn.Sequential, kind: type[Autoencoder]) -> None:
    x, sae = torch.randn(3, 5, dtype=torch.float64), kind(8, 20)
    R = relprop.attribute(
        mlp, x, 1, composite="epsilon", splices=Splice("2", sae), layers=["2", "2.latents", "2.error"]
    )
    h = mlp[:3](x).detach()
    if kind is Sparse:
        found = sae.encode(h)
        z = torch.zeros(3, 20, dtype=torch.float64).scatter(-1, found.top_indices, found.top_acts)
        rebuilt = sae.decode(*found)
    else:
        z = (h - sae.c) @ sae.W.T
        z, rebuilt = z * (z > 0.3), sae.decode(z * (z > 0.3))
    g = R.layers["2"] / h
    torch.testing.assert_close(R.layers["2.latents"], (z * (g @ sae.D.T)).detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(R.layers["2.error"], ((h - rebuilt) * g).detach(), rtol=1e-12, atol=1e-12)


def test_latents_in_an_index(tmp_path: Path) -> None:
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    data = [(torch.randn(5), n % 3) for n in range(12)]
    splice = Splice("1", Autoencoder(8, 20, torch.float32))
    index = relprop.index(net, data, layers=["1.latents"], keep=3, splices=splice, batch_size=5)
    of = torch.cat(
        [relprop.attribute(net, x[None], c, splices=splice, layers=["1.latents"]).layers["1.latents"] for x, c in data]
    )
    for unit in range(20):
        best = of[:, unit].argsort(descending=True, stable=True)[:3]
        assert [r.sample for r in index["1.latents", unit].references()] == best.tolist()
    index.save(tmp_path / "index")
    with pytest.raises(InputError, match="other settings"):
        relprop.index(
            net, data, layers=["1.latents"], keep=3, splices=Splice("1", Autoencoder(8, 20, torch.float32), error="sink"),
            folder=tmp_path / "index",
        )  # fmt: skip


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(self.cell(x).relu()).relu())


def test_a_layer_that_runs_twice() -> None:
    torch.manual_seed(5)
    net, x = Twice().double().eval(), torch.randn(2, 6, dtype=torch.float64)
    R = relprop.attribute(
        net, x, 0, composite="zero", splices=Splice("cell", Autoencoder(6, 9)), layers=["cell.latents"]
    )
    assert [r.shape for r in R.layers["cell.latents"]] == [(2, 9), (2, 9)]
    whole = relprop.attribute(net, x, 0, composite="zero", splices=Splice("cell", Autoencoder(6, 9)))
    a, b = relprop.attribute_each(
        net, x, 0, composite="zero", splices=Splice("cell", Autoencoder(6, 9)),
        through=[units("cell.latents", run=1)[4], ~units("cell.latents", run=1)[4]],
    )  # fmt: skip
    torch.testing.assert_close(a.values + b.values, whole.values, rtol=1e-12, atol=1e-12)


SAE = Autoencoder(8, 20)


class Wrong(Autoencoder):
    def __init__(self, decode: Any = None, encode: Any = None) -> None:
        super().__init__(8, 20)
        if decode is not None:
            self.decode = decode
        if encode is not None:
            self.encode = encode


BAD: list[tuple[Any, str]] = [
    (lambda: 3, "splices must be a relprop.Splice, or a list of them; got 3"),
    (lambda: [Splice("2", SAE), Splice("2", SAE)], "two splices at '2'"),
    (lambda: Splice("7", SAE), "'7' is not part of the model"),
    (lambda: Splice("[02]", SAE), "names 2"),
    (
        lambda: Splice("2", Wrong(decode=lambda z: z)),
        r"decode gives torch.float64 of shape \(3, 20\), and the layer .* \(3, 8\)",
    ),
    (lambda: Splice("2", Wrong(decode=lambda z: (z @ SAE.D).float())), "decode gives torch.float32"),
    (lambda: Splice("2", Wrong(decode=lambda z: z @ SAE.D * torch.inf)), "what decode gives is not finite"),
    (lambda: Splice("2", Autoencoder(5, 9)), r"encode refuses torch.float64 of shape \(3, 8\)"),
    (lambda: Splice("2", Wrong(encode=lambda h: SAE.encode(h.detach()).detach())), "the latents do not depend on"),
    (lambda: Splice("2", Wrong(encode=lambda h: [h])), "encode must return a tensor of latents; got list"),
    (lambda: Splice("2", Wrong(encode=lambda h: h.topk(3))), "num_latents"),
    (lambda: Splice("2", Wrong(encode=lambda h: h.sum(0, keepdim=True))), "the samples differ"),
    (lambda: Splice("2", SAE, part=1), "has 1 floating-point tensors there; got part=1"),
]


@pytest.mark.parametrize(("splice", "says"), BAD)
def test_errors(mlp: nn.Sequential, splice: Any, says: str) -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    before = {name: len(m._forward_hooks) for name, m in mlp.named_modules()}
    with pytest.raises(InputError, match=says):
        relprop.attribute(mlp, x, 0, splices=splice())
    assert before == {name: len(m._forward_hooks) for name, m in mlp.named_modules()}
    assert torch.equal(mlp(x), mlp(x.clone()))


def test_errors_of_a_splice_itself() -> None:
    for wrong, says in (
        ({"layer": 3}, "the path of a layer"),
        ({"layer": "2"}, "a splice needs encode"),
        ({"layer": "2", "encode": len}, "a splice needs decode"),
        ({"layer": "2", "autoencoder": SAE, "error": "keep"}, "error must be 'pass' or 'sink'"),
        ({"layer": "2", "autoencoder": SAE, "reads": "both"}, "reads must be 'output' or 'input'"),
        ({"layer": "2", "autoencoder": SAE, "skip": 1}, "skip must be a function"),
        ({"layer": "2", "autoencoder": SAE, "part": -1}, "part must be the number"),
    ):
        with pytest.raises(InputError, match=says):
            Splice(**wrong)


def test_errors_of_calls_with_splices(mlp: nn.Sequential) -> None:
    x = torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(InputError, match="tensors of a splice have no input"):
        relprop.attribute(mlp, x, 0, splices=Splice("2", SAE), through=units("2.latents", at="input")[3])
    with pytest.raises(InputError, match="there is no unit 20 along axis 0"):
        relprop.attribute(mlp, x, 0, splices=Splice("2", SAE), through=units("2.latents")[20])
    with pytest.raises(InputError, match="not part of the model"):
        relprop.attribute(mlp, x, 0, through=units("2.latents")[2])
    with pytest.raises(InputError, match=r"Did you mean '2\.latents'"):
        relprop.attribute(mlp, x, 0, splices=Splice("2", SAE), through=units("2.latent")[2])
    with pytest.raises(InputError, match="exact zeros"):
        relprop.attribute(mlp, x, 0, splices=Splice("2", SAE), composite=relprop.Composite({"linear": relprop.Flat()}))
    net = Words().double().eval()
    with pytest.raises(InputError, match="checkpoint= computes again"):
        relprop.attribute(net, torch.tensor([[1, 2]]), 0, splices=Splice("blocks.0.down", SAE), checkpoint=["blocks.*"])


def test_a_layer_that_does_not_run_or_is_constant(mlp: nn.Sequential) -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.idle, self.fixed = mlp, nn.Linear(8, 8), nn.Linear(8, 8).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) + self.fixed(torch.ones(1, 8, dtype=torch.float64)).sum()

    x = torch.randn(3, 5, dtype=torch.float64)
    with pytest.raises(InputError, match="did not run"):
        relprop.attribute(Idle().eval(), x, 0, splices=Splice("idle", SAE))
    with pytest.raises(InputError, match="carries no relevance"):
        relprop.attribute(Idle().eval(), x, 0, splices=Splice("fixed", SAE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_score_stays_bit_for_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(6)
    net = Words().to(dtype).eval()
    ids, splice = torch.randint(20, (3, 6)), Splice("blocks.0", Autoencoder(8, 30, dtype))
    with torch.no_grad():
        logits = net(ids)
    R = relprop.attribute(net, ids, 5, splices=splice)
    assert torch.equal(R.output, logits)
    with torch.no_grad():
        assert torch.equal(net(ids), logits)
